//! A cluster: its parts started in order, and the handle tests hold.

mod components;
mod existing;
mod options;

pub use existing::Existing;
pub use options::{Options, Tier};
pub(crate) use options::{check_name, unique_name};

use std::{
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};

use crate::{
    addons,
    cache::Cache,
    certificates::{Authority, MOST_GROUPS, Subject},
    control_plane::{self, Addresses, Component},
    error::{Error, Result},
    exec, images,
    node::{self, Network},
    packages, processes, programs,
    programs::Tool,
    runs::{self, Owner, Record, Run},
    sandbox::{self, Hold, Plan, Spaces},
    steps::Steps,
    teardown,
};

const DESCRIPTION: &str = "cluster.json";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Description {
    tier: Tier,
    addresses: Addresses,
    is_ready: bool,
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    run: Run,
    description: Description,
    cache: Cache,
    authority: Authority,
    kubeconfig: PathBuf,
    /// Whether the cluster ends with this value.
    is_owned: bool,
    hold: Option<Hold>,
}

/// Builds or installs all that a tier needs, so that starting it takes seconds.
pub fn prepare(tier: Tier) -> Result<Cache> {
    let cache = Cache::open()?;
    packages::ensure(&[packages::BASE])?;
    let mut tools = programs::API.to_vec();
    if tier == Tier::Node {
        packages::ensure(&[packages::NETWORK, packages::NODE])?;
        tools.extend(programs::NODE);
    }
    let images = if tier == Tier::Node {
        images::node_images_to_build(&cache)
    } else {
        0
    };
    let steps = Steps::of(tools.iter().filter(|tool| !tool.is_built(&cache)).count() + images);
    for tool in tools {
        tool.path(&cache, &steps)?;
    }
    if tier == Tier::Node {
        images::node_images(&cache, &steps)?;
    }
    Ok(cache)
}

/// The names of the clusters and brokers that have been started and not taken down.
pub fn names() -> Result<Vec<String>> {
    runs::names()
}

/// Takes a cluster down in whatever state it is; false when there is none of that name.
pub fn take_down(name: &str) -> Result<bool> {
    check_name(name)?;
    match Run::open(name)? {
        Some(run) => teardown::take_down(&run).map(|()| true),
        None => Ok(false),
    }
}

impl Cluster {
    /// Starts a cluster that ends when this value is dropped or this process ends.
    pub fn start(options: &Options) -> Result<Self> {
        Self::start_as(options, true)
    }

    /// Starts a cluster that stays until [`take_down`] is called with its name.
    pub fn start_detached(options: &Options) -> Result<Self> {
        Self::start_as(options, false)
    }

    /// A cluster that was started before, and stays.
    pub fn attach(name: &str) -> Result<Self> {
        check_name(name)?;
        let run = Run::open(name)?.ok_or_else(|| Error::NoSuchRun(name.to_owned()))?;
        let description: Description = run
            .load(DESCRIPTION)
            .map_err(|_| Error::NoSuchRun(name.to_owned()))?;
        // After the machine was started anew there is a folder, and nothing that runs.
        if !description.is_ready || processes::find(run.folder()).is_empty() {
            return Err(Error::NoSuchRun(name.to_owned()));
        }
        Ok(Self::new(run, description, Cache::open()?, false))
    }

    fn new(run: Run, description: Description, cache: Cache, is_owned: bool) -> Self {
        let authority = Authority::open(run.path("pki"));
        let kubeconfig = run.path("admin.kubeconfig");
        Self {
            run,
            description,
            cache,
            authority,
            kubeconfig,
            is_owned,
            hold: None,
        }
    }

    fn start_as(options: &Options, is_owned: bool) -> Result<Self> {
        let name = options
            .name
            .clone()
            .unwrap_or_else(|| unique_name("cluster"));
        check_name(&name)?;
        if options.tier == Tier::Node {
            packages::require_root("the node tier")?;
        }
        teardown::sweep()?;
        if Run::open(&name)?.is_some() {
            return Err(Error::Exists(name));
        }
        let cache = prepare(options.tier)?;
        let is_node = options.tier == Tier::Node;
        let run = Run::create(&name, |slot| Record {
            owner: Some(Owner::this()),
            slot,
            link: is_node.then(|| format!("vlt-c{slot}")),
            cgroup: is_node.then(|| node::cgroup(&name)),
        })?;
        let started = Self::bring_up(run.clone(), options.tier, cache, is_owned);
        if started.is_err() {
            // The fault is what a person wants to read; what stays is found by the next sweep.
            let _ = teardown::take_down(&run);
        }
        started
    }

    fn bring_up(run: Run, tier: Tier, cache: Cache, is_owned: bool) -> Result<Self> {
        let network = Network::new(run.record()?.slot);
        let [etcd_port, etcd_peer_port, api_port] = control_plane::free_ports()?;
        let addresses = match tier {
            Tier::Api => Addresses {
                api: Ipv4Addr::LOCALHOST,
                api_port,
                etcd_port,
                etcd_peer_port,
                services: network.services(),
            },
            Tier::Node => Addresses {
                api: network.machine(),
                api_port: 6443,
                etcd_port,
                etcd_peer_port,
                services: network.services(),
            },
        };
        let description = Description {
            tier,
            addresses,
            is_ready: false,
        };
        run.save(DESCRIPTION, &description)?;
        Authority::create(run.path("pki"))?;
        // Dropped on a fault, it would take down as well; the caller does that.
        let mut cluster = Self::new(run, description, cache, false);
        cluster.issue(network)?;
        cluster.hold = cluster.make_sandbox(network, is_owned)?;
        cluster.start_control_plane()?;
        if tier == Tier::Node {
            cluster.start_node()?;
        }
        cluster.description.is_ready = true;
        cluster.run.save(DESCRIPTION, &cluster.description)?;
        if !is_owned {
            cluster.run.detach()?;
        }
        cluster.is_owned = is_owned;
        Ok(cluster)
    }

    fn issue(&self, network: Network) -> Result<()> {
        let url = self.url();
        control_plane::issue(&self.authority, &self.description.addresses)?;
        let mut users = vec!["admin", "kube-controller-manager", "kube-scheduler"];
        if self.tier() == Tier::Node {
            node::issue(&self.authority, network)?;
            users.extend(["kubelet", "kube-proxy"]);
        }
        for user in users {
            self.authority
                .kubeconfig(&self.run.path(format!("{user}.kubeconfig")), &url, user)?;
        }
        Ok(())
    }

    /// Without root there is none: then dropping and sweeping do what the sandbox's end would.
    fn make_sandbox(&self, network: Network, tied: bool) -> Result<Option<Hold>> {
        if !exec::is_root() {
            return Ok(None);
        }
        let init = Tool::Init.path(&self.cache, &Steps::silent())?;
        let (spaces, setup) = match self.tier() {
            Tier::Api => (Spaces::default(), String::new()),
            Tier::Node => (node::SPACES, node::setup(&self.run)),
        };
        let hold = sandbox::start(
            &self.run,
            &Plan {
                spaces,
                init,
                setup,
                root: None,
                tied,
            },
        )?;
        let record = self.run.record()?;
        if let Some(link) = record.link {
            let routes = [
                network.pods(),
                format!("{}/24", self.description.addresses.service(0)),
            ];
            let (outside, inside) = (network.machine().to_string(), network.node().to_string());
            sandbox::connect(&self.run, &link, &outside, &inside, &routes)?;
        }
        if let Some(cgroup) = record.cgroup {
            let _lock = self.run.guard()?;
            node::make_cgroups(&cgroup)?;
        }
        Ok(Some(hold))
    }

    fn start_control_plane(&self) -> Result<()> {
        self.start_component(Component::Etcd)?;
        self.start_component(Component::ApiServer)?;
        self.start_component(Component::ControllerManager)?;
        self.run.wait(
            Component::ControllerManager.name(),
            "the service account `default` to be made",
            || {
                exec::run(self.kubectl().args([
                    "get",
                    "serviceaccount",
                    "default",
                    "--namespace=default",
                ]))
                .is_ok()
            },
        )
    }

    fn start_node(&self) -> Result<()> {
        node::make_volumes(&self.run, addons::VOLUMES)?;
        self.start_component(Component::Scheduler)?;
        self.start_component(Component::Containerd)?;
        for archive in images::node_images(&self.cache, &Steps::silent())? {
            self.load_image(&archive)?;
        }
        self.start_component(Component::Kubelet)?;
        self.start_component(Component::KubeProxy)?;
        let manifest =
            addons::manifest(&self.description.addresses, &self.run.path("volumes")).to_string();
        exec::run_with_input(
            self.kubectl()
                .args(["apply", "--server-side", "--filename=-"]),
            &manifest,
        )?;
        let condition = r#"jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
        self.run
            .wait(Component::Kubelet.name(), "the node to be Ready", || {
                let node = exec::run(self.kubectl().args([
                    "get",
                    "node",
                    node::NAME,
                    "--output",
                    condition,
                ]));
                node.is_ok_and(|status| status == "True")
            })?;
        self.run
            .wait(Component::Kubelet.name(), "CoreDNS to be ready", || {
                let command = ["get", "deployment", "coredns", "--namespace=kube-system"];
                let ready = exec::run(
                    self.kubectl()
                        .args(command)
                        .arg("--output=jsonpath={.status.readyReplicas}"),
                );
                ready.is_ok_and(|count| count == "1")
            })
    }

    /// The cluster's name.
    pub fn name(&self) -> String {
        self.run.name()
    }

    /// How much of a Kubernetes it is.
    pub fn tier(&self) -> Tier {
        self.description.tier
    }

    /// Where the API server answers.
    pub fn url(&self) -> String {
        self.description.addresses.url()
    }

    /// Where pods reach programs that run on this machine; loopback on the API server's tier.
    pub fn host_address(&self) -> IpAddr {
        self.description.addresses.api.into()
    }

    /// The run's folder: logs are in `log/`.
    pub fn folder(&self) -> &Path {
        self.run.folder()
    }

    /// An administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A kubeconfig by which one is that user in these groups (two at most), by client certificate. Rights come from RBAC alone.
    pub fn kubeconfig_for(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        if groups.len() > MOST_GROUPS {
            return Err(Error::Machine(format!(
                "{user} is to be in more groups than the {MOST_GROUPS} a certificate can name"
            )));
        }
        let mut pins = vec![user];
        pins.extend(groups);
        let key = crate::cache::Key::new("user", &pins);
        let file = format!("{}-{}", key.name(), key.hash());
        let path = self.run.path(format!("users/{file}.kubeconfig"));
        if !path.is_file() {
            self.authority
                .issue(&file, &Subject::client(user, groups))?;
            self.authority.kubeconfig(&path, &self.url(), &file)?;
        }
        Ok(path)
    }

    /// `kubectl`, as the administrator.
    pub fn kubectl(&self) -> Command {
        self.tool(Tool::Kubectl)
    }

    /// `helm`, as the administrator.
    pub fn helm(&self) -> Command {
        self.tool(Tool::Helm)
    }

    fn tool(&self, tool: Tool) -> Command {
        // Both were built before the start; should they be gone, running the bare name says so.
        let path = tool
            .path(&self.cache, &Steps::silent())
            .unwrap_or_else(|_| tool.name().into());
        let mut command = Command::new(path);
        command.env("KUBECONFIG", &self.kubeconfig);
        command
    }

    /// Gives the node an image from an OCI archive, under the name it was built with.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        if self.tier() != Tier::Node {
            return Err(Error::WrongTier {
                part: "load_image".to_owned(),
            });
        }
        // `ctr` runs in another folder.
        let archive = archive
            .canonicalize()
            .map_err(|error| Error::Machine(format!("{}: {error}", archive.display())))?;
        node::load_image(
            &self.run,
            &archive,
            &sandbox::enter(&self.run, node::SPACES)?,
        )
    }

    /// Takes the cluster down and says what went wrong, which dropping cannot.
    pub fn down(mut self) -> Result<()> {
        self.is_owned = false;
        teardown::take_down(&self.run)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // The tie goes first: it ends the sandbox even if what follows fails.
        if self.is_owned {
            self.hold.take();
        }
        if self.is_owned
            && let Err(error) = teardown::take_down(&self.run)
        {
            eprintln!("{}: {error}", self.run.name());
        }
    }
}
