//! containerd, kubelet and kube-proxy, in a sandbox with its own network and mounts.

use std::{net::Ipv4Addr, path::Path, process::Command};

use serde_json::json;

use crate::{
    certificates::{Authority, Subject},
    control_plane::{Addresses, Component},
    error::{Context as _, Result},
    exec, images,
    runs::{Program, Run},
    sandbox::Spaces,
};

/// The node's name.
pub(crate) const NAME: &str = "node";

/// The node's own namespaces.
pub(crate) const SPACES: Spaces = Spaces {
    mounts: true,
    network: true,
    host_name: false,
};

/// The networks of a node, by the slot of its cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Network {
    slot: u8,
}

impl Network {
    pub(crate) fn new(slot: u16) -> Self {
        Self {
            slot: u8::try_from(slot).unwrap_or(u8::MAX),
        }
    }

    /// The machine's address on the link to the node; the API server listens there.
    pub(crate) fn machine(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.slot, 1)
    }

    pub(crate) fn node(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 213, self.slot, 2)
    }

    pub(crate) fn pods(self) -> String {
        format!("10.214.{}.0/24", self.slot)
    }

    pub(crate) fn services(self) -> [u8; 3] {
        [10, 215, self.slot]
    }
}

/// Shell commands that shape the sandbox: whatever is written to shared places stays inside.
pub(crate) fn setup(run: &Run) -> String {
    let log = run.path("pods-log");
    format!(
        "mount -t proc proc /proc
         mount --make-rshared /
         mount -t tmpfs tmpfs /run
         mkdir -p '{log}' && mount --bind '{log}' /var/log
         mount -t tmpfs tmpfs /var/lib
         echo 1 > /proc/sys/net/ipv4/ip_forward",
        log = log.display()
    )
}

/// Signs what the node shows and uses.
pub(crate) fn issue(authority: &Authority, network: Network) -> Result<()> {
    let names = [NAME.to_owned(), network.node().to_string()];
    let kubelet = Subject {
        common_name: &format!("system:node:{NAME}"),
        organizations: &["system:nodes"],
        alternative_names: &names,
    };
    authority.issue("kubelet", &kubelet)?;
    authority.issue("kube-proxy", &Subject::client("system:kube-proxy", &[]))
}

/// Starts containerd and waits until it answers.
pub(crate) fn start_containerd(run: &Run, network: Network, prefix: Vec<String>) -> Result<()> {
    let cni = json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": run.path("cni-state"),
                    "ranges": [[{"subnet": network.pods()}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    exec::write_private(&run.path("cni/10-pods.conflist"), format!("{cni:#}"))?;
    let config = run.path("containerd.toml");
    exec::write_private(&config, containerd_config(run.folder()))?;
    let containerd = Program::new("containerd")
        .prefix(prefix)
        .arg("--config")
        .arg(config.display().to_string());
    run.launch(Component::Containerd.name(), containerd)?;
    run.wait(
        Component::Containerd.name(),
        "to answer `ctr version`",
        || exec::run(ctr(run).arg("version")).is_ok(),
    )
}

fn containerd_config(folder: &Path) -> String {
    let folder = folder.display();
    format!(
        r#"version = 2
root = "{folder}/containerd"
state = "/run/containerd-state"

[grpc]
  address = "{folder}/containerd.sock"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{pause}"
  # Without the right to lower a score, asking for one fails.
  restrict_oom_score_adj = true
  disable_tcp_service = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "/usr/lib/cni"
  conf_dir = "{folder}/cni"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    SystemdCgroup = false
"#,
        pause = images::PAUSE
    )
}

fn ctr(run: &Run) -> Command {
    let mut command = Command::new("ctr");
    command
        .arg("--address")
        .arg(run.path("containerd.sock"))
        .args(["--namespace", "k8s.io"]);
    command
}

/// Gives the node an image from an OCI archive.
pub(crate) fn load_image(run: &Run, archive: &Path, prefix: &[String]) -> Result<()> {
    // Unpacking mounts layers, so it has to happen where containerd lives.
    let mut command = Command::new(&prefix[0]);
    command
        .args(&prefix[1..])
        .arg("ctr")
        .arg("--address")
        .arg(run.path("containerd.sock"));
    command
        .args([
            "--namespace",
            "k8s.io",
            "images",
            "import",
            "--no-unpack=false",
        ])
        .arg(archive);
    exec::run(&mut command).map(drop)
}

/// Starts the kubelet and waits until it answers.
pub(crate) fn start_kubelet(
    run: &Run,
    program: &Path,
    authority: &Authority,
    addresses: &Addresses,
    network: Network,
    prefix: Vec<String>,
) -> Result<()> {
    let resolv_conf = run.path("resolv.conf");
    exec::write_private(&resolv_conf, "")?;
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": authority.file("ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": authority.file("kubelet.crt"),
        "tlsPrivateKeyFile": authority.file("kubelet.key"),
        "containerRuntimeEndpoint": format!("unix://{}", run.path("containerd.sock").display()),
        "clusterDomain": "cluster.local",
        "clusterDNS": [addresses.service(10)],
        "resolvConf": resolv_conf,
        // Machines with cgroup v1 and without systemd, and containers with few rights, are to do.
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", cgroup(&run.name())),
        "cgroupsPerQOS": false,
        "enforceNodeAllocatable": [],
        "failSwapOn": false,
        "localStorageCapacityIsolation": false,
        "oomScoreAdj": 0,
        "maxPods": 110,
        // A nearly full disk is no reason to evict a test.
        "evictionHard": {"memory.available": "0%", "nodefs.available": "0%", "imagefs.available": "0%"},
        "imageGCHighThresholdPercent": 100,
        "volumePluginDir": run.path("kubelet-plugins"),
        // Seconds later a Secret's or ConfigMap's change is in its pods.
        "syncFrequency": "10s",
        "shutdownGracePeriod": "0s",
    });
    let path = run.path("kubelet.json");
    exec::write_private(&path, format!("{config:#}"))?;
    let kubelet = Program::new(program).prefix(prefix).args([
        format!("--config={}", path.display()),
        format!("--kubeconfig={}", run.path("kubelet.kubeconfig").display()),
        format!("--root-dir={}", run.path("kubelet").display()),
        format!("--hostname-override={NAME}"),
        format!("--node-ip={}", network.node()),
    ]);
    run.launch(Component::Kubelet.name(), kubelet)?;
    // It ends when containerd is not there while it starts, and nobody but the caller starts it again.
    run.wait(Component::Kubelet.name(), "to accept connections", || {
        std::net::TcpStream::connect((network.node(), 10250)).is_ok()
    })
}

/// Starts the proxy that makes Services work.
pub(crate) fn start_proxy(
    run: &Run,
    program: &Path,
    network: Network,
    prefix: Vec<String>,
) -> Result<()> {
    let proxy = Program::new(program).prefix(prefix).args([
        format!(
            "--kubeconfig={}",
            run.path("kube-proxy.kubeconfig").display()
        ),
        "--proxy-mode=nftables".to_owned(),
        format!("--cluster-cidr={}", network.pods()),
        format!("--hostname-override={NAME}"),
        // These belong to the whole machine and cannot be set from here.
        "--conntrack-max-per-core=0".to_owned(),
        "--conntrack-tcp-timeout-established=0s".to_owned(),
        "--conntrack-tcp-timeout-close-wait=0s".to_owned(),
    ]);
    run.launch(Component::KubeProxy.name(), proxy)
}

/// The folder of the node's containers in each hierarchy of control groups.
pub(crate) fn cgroup(run: &str) -> String {
    format!("local-cluster-{run}")
}

/// Makes the folder of the cgroup root, which the kubelet expects to be there.
pub(crate) fn make_cgroups(name: &str) -> Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        let path = root.join(name);
        return std::fs::create_dir_all(&path).file("create", path);
    }
    for entry in std::fs::read_dir(root).file("read", root)?.flatten() {
        if entry.path().join("cgroup.procs").exists() {
            let path = entry.path().join(name);
            std::fs::create_dir_all(&path).file("create", path)?;
        }
    }
    Ok(())
}

/// Makes the folders of the volumes, writable for any user.
pub(crate) fn make_volumes(run: &Run, count: usize) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    for index in 0..count {
        let path = run.path(format!("volumes/{index:02}"));
        std::fs::create_dir_all(&path).file("create", &path)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777))
            .file("change the mode of", &path)?;
    }
    Ok(())
}
