//! A cluster with the chart installed, and the operator beside it.

use crate::operator::Launch;
use crate::people::{self, APPROVER};
use crate::proxy::FaultProxy;
use crate::{Operator, SOON, blocking, eventually};
use k8s_openapi::api::core::v1::Namespace;
use kube::api::{Api, PostParams};
use kube::{Client, Config};
use local_cluster::{Cluster, Hosts, Options};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use volttron_crds::{VolttronCertRequest, well_known};

/// The namespace of the chart and of the operator.
pub const SYSTEM: &str = "volttron-system";

/// What a playground has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Setup {
    /// Whether the operator reaches the API server through a [`FaultProxy`].
    pub proxy: bool,
    /// For how many seconds the operator leads without renewing its Lease; `None` for its default.
    pub lease_seconds: Option<u16>,
    /// For how many seconds the operator keeps a superseded request; `None` for its default.
    pub superseded_grace: Option<u16>,
}

/// Another replica of the operator, behind a proxy of its own.
pub struct Replica {
    /// The operator.
    pub operator: Operator,
    /// What it takes for the API server.
    pub proxy: FaultProxy,
}

/// A cluster (API server's tier) with the chart and the real operator, which has the rights of the chart's service account.
pub struct Playground {
    operator: Operator,
    proxy: Option<FaultProxy>,
    admin: Client,
    approver: Client,
    config: Config,
    names: Mutex<Names>,
    spaces: AtomicU32,
    folder: PathBuf,
    superseded_grace: Option<u16>,
    cluster: Arc<Cluster>,
}

/// What the operator and its replicas resolve.
struct Names {
    hosts: Hosts,
    addresses: BTreeMap<String, IpAddr>,
    /// Addresses that the operator alone is given.
    diverted: BTreeMap<String, IpAddr>,
    hosts_of_replicas: Vec<Hosts>,
}

impl Names {
    fn write(&self) {
        let mut diverted = self.addresses.clone();
        diverted.extend(self.diverted.clone());
        let of_replicas = self.hosts_of_replicas.iter();
        let files = of_replicas.map(|hosts| (hosts, &self.addresses));
        for (hosts, addresses) in files.chain([(&self.hosts, &diverted)]) {
            let names = addresses.iter();
            let names: Vec<_> = names.map(|(name, it)| (name.as_str(), *it)).collect();
            hosts.set(&names).expect("the hosts can be written");
        }
    }
}

impl Playground {
    /// Starts one; it ends when it is dropped, or with the process.
    pub async fn start(setup: Setup) -> Self {
        let cluster = blocking(|| Cluster::start(&Options::api()))
            .await
            .unwrap_or_else(|error| panic!("no cluster: {error}"));
        let cluster = Arc::new(cluster);
        // It goes with the cluster, also when the process is killed.
        let folder = cluster.folder().join("operator");
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        let config = people::config(cluster.kubeconfig()).await;
        let admin = Client::try_from(config.clone()).expect("a kubeconfig makes a client");
        let beside = Arc::clone(&cluster);
        blocking(move || install_chart(&beside)).await;
        policies_act(&admin).await;
        people::appoint_approver(&admin).await;

        let proxy = if setup.proxy {
            Some(FaultProxy::start(&config).await)
        } else {
            None
        };
        let server = proxy
            .as_ref()
            .map_or_else(|| cluster.url(), |proxy| proxy.url().to_owned());
        let token = people::token(&admin, SYSTEM, "volttron-operator").await;
        let kubeconfig = folder.join("operator.kubeconfig");
        write_kubeconfig(cluster.kubeconfig(), &kubeconfig, &server, &token);
        let hosts = Hosts::new(&folder).expect("a private /etc/hosts");
        let operator = Operator::start(Launch {
            folder: folder.clone(),
            name: "operator".to_owned(),
            hosts: hosts.clone(),
            kubeconfig,
            lease_seconds: setup.lease_seconds,
            superseded_grace: setup.superseded_grace,
        });
        operator.wait_ready().await;

        let approver = cluster.kubeconfig_for(APPROVER, &[]).expect("a kubeconfig");
        let approver =
            Client::try_from(people::config(&approver).await).expect("a kubeconfig makes a client");
        Self {
            operator,
            proxy,
            admin,
            approver,
            config,
            names: Mutex::new(Names {
                hosts,
                addresses: BTreeMap::new(),
                diverted: BTreeMap::new(),
                hosts_of_replicas: Vec::new(),
            }),
            spaces: AtomicU32::new(0),
            folder,
            superseded_grace: setup.superseded_grace,
            cluster,
        }
    }

    /// Starts another replica of the operator, and waits until it stands by.
    pub async fn replica(&self, name: &str) -> Replica {
        let proxy = FaultProxy::start(&self.config).await;
        let token = people::token(&self.admin, SYSTEM, "volttron-operator").await;
        let kubeconfig = self.folder.join(format!("{name}.kubeconfig"));
        write_kubeconfig(self.cluster.kubeconfig(), &kubeconfig, proxy.url(), &token);
        let hosts = Hosts::new(&self.folder.join(name)).expect("a private /etc/hosts");
        {
            let mut names = self.names();
            names.hosts_of_replicas.push(hosts.clone());
            names.write();
        }
        let operator = Operator::start(Launch {
            folder: self.folder.clone(),
            name: format!("operator-{name}"),
            hosts,
            kubeconfig,
            lease_seconds: None,
            superseded_grace: self.superseded_grace,
        });
        operator.wait_standing_by().await;
        Replica { operator, proxy }
    }

    /// The operator.
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The proxy between the operator and the API server; the setup must have one.
    pub fn proxy(&self) -> &FaultProxy {
        self.proxy.as_ref().expect("this playground has a proxy")
    }

    /// A cluster administrator's client.
    pub fn admin(&self) -> Client {
        self.admin.clone()
    }

    /// The client of the user who approves.
    pub fn approver(&self) -> Client {
        self.approver.clone()
    }

    /// The cluster.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// How an administrator reaches the API server.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Waits for a condition; a failure shows the end of the operator's log.
    pub async fn eventually<T, F>(
        &self,
        what: &str,
        limit: std::time::Duration,
        check: impl FnMut() -> F,
    ) -> T
    where
        F: Future<Output = Result<T, String>>,
    {
        match crate::wait::attempt(limit, check).await {
            Ok(value) => value,
            Err(last) => panic!(
                "{what}: not within {limit:?}; the last time: {last}\n--- the operator's log ends:\n{}",
                self.operator.log_tail()
            ),
        }
    }

    /// Makes a namespace with a name of its own that begins with `name`.
    pub async fn namespace(&self, name: &str) -> String {
        let number = self.spaces.fetch_add(1, Ordering::Relaxed);
        let name = format!("{name}-{number}");
        let namespace = Namespace {
            metadata: kube::api::ObjectMeta {
                name: Some(name.clone()),
                ..kube::api::ObjectMeta::default()
            },
            ..Namespace::default()
        };
        Api::all(self.admin())
            .create(&PostParams::default(), &namespace)
            .await
            .unwrap_or_else(|error| panic!("namespace {name}: {error}"));
        name
    }

    /// Runs `kubectl` as the administrator, with `input` on its standard input; returns whether it succeeded, and what it said.
    pub async fn kubectl(&self, args: &[&str], input: &str) -> (bool, String) {
        let cluster = Arc::clone(&self.cluster);
        let (args, input): (Vec<String>, _) = (
            args.iter().map(ToString::to_string).collect(),
            input.to_owned(),
        );
        let folder = self.folder.clone();
        blocking(move || {
            let mut command = cluster.kubectl();
            // Discovery is cached per user otherwise, beside everybody else's.
            command.args(args).env("HOME", folder);
            output(&mut command, &input)
        })
        .await
    }

    /// Runs `helm upgrade` with the chart, which restores what is missing of it, and waits until the policies act.
    pub async fn upgrade_chart(&self) {
        let cluster = Arc::clone(&self.cluster);
        blocking(move || install_chart(&cluster)).await;
        policies_act(&self.admin).await;
    }

    /// Lets the operator and its replicas resolve `name`; or no longer.
    pub(crate) fn set_address(&self, name: &str, address: Option<IpAddr>) {
        let mut names = self.names();
        match address {
            Some(address) => names.addresses.insert(name.to_owned(), address),
            None => names.addresses.remove(name),
        };
        names.write();
    }

    /// Gives the operator, and none of its replicas, another address for `name`; or no longer.
    pub(crate) fn divert(&self, name: &str, address: Option<IpAddr>) {
        let mut names = self.names();
        match address {
            Some(address) => names.diverted.insert(name.to_owned(), address),
            None => names.diverted.remove(name),
        };
        names.write();
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn output(command: &mut Command, input: &str) -> (bool, String) {
    use std::io::Write as _;
    use std::process::Stdio;
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program can be run");
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early says why.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().expect("the program ends");
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

fn install_chart(cluster: &Cluster) {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/volttron-operator");
    let mut helm = cluster.helm();
    helm.args(["upgrade", "--install", "volttron-operator"])
        .arg(chart)
        .args(["--namespace", SYSTEM, "--create-namespace"])
        // Another test may have made a policy by hand that this one restores.
        .arg("--force-conflicts");
    let (installed, text) = output(&mut helm, "");
    assert!(installed, "helm cannot install the chart: {text}");
}

/// Waits until the API server enforces the policies, which takes it a few seconds.
async fn policies_act(admin: &Client) {
    let api = Api::<VolttronCertRequest>::namespaced(admin.clone(), SYSTEM);
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let trial = |metadata: Value| {
        let body = json!({
            "apiVersion": "volttron.org/v1alpha1", "kind": "VolttronCertRequest", "metadata": metadata,
            "spec": {"instanceRef": {"name": "trial"}, "request": "trial", "requester": ""},
        });
        serde_json::from_value::<VolttronCertRequest>(body).expect("a request")
    };
    eventually("the approval gate is enforced", SOON, async || {
        let decided = json!({"name": "trial", "annotations": {well_known::DECISION: "approved"}});
        match api.create(&dry_run, &trial(decided)).await {
            Err(error) if error.to_string().contains("volttron-approval-gate") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    eventually("requesters are stamped", SOON, async || {
        let created = api.create(&dry_run, &trial(json!({"name": "trial"}))).await;
        created.map(drop).map_err(|error| error.to_string())
    })
    .await;
}

/// The administrator's kubeconfig with another server and a token in place of the certificate.
fn write_kubeconfig(admin: &Path, path: &PathBuf, server: &str, token: &str) {
    let text = std::fs::read_to_string(admin).expect("the administrator's kubeconfig");
    let mut config: Value = serde_yaml_ng::from_str(&text).expect("a kubeconfig");
    config["clusters"][0]["cluster"]["server"] = json!(server);
    config["users"][0]["user"] = json!({"token": token});
    // Every JSON text is a YAML text.
    std::fs::write(path, config.to_string()).expect("a file can be written");
}
