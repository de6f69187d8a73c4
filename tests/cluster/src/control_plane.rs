//! etcd, the API server, the controllers and the scheduler, on the machine's own network.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::Command,
};

use rand::Rng as _;
use serde::{Deserialize, Serialize};

use crate::{
    certificates::{Authority, Subject},
    error::{Error, Result},
    exec,
    runs::{Program, Run},
};

/// A part of a cluster that can be stopped and started by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the program of that name")]
pub enum Component {
    Etcd,
    ApiServer,
    ControllerManager,
    Scheduler,
    Containerd,
    Kubelet,
    KubeProxy,
}

impl Component {
    /// The program's name, which is its log's name too.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
            Self::Containerd => "containerd",
            Self::Kubelet => "kubelet",
            Self::KubeProxy => "kube-proxy",
        }
    }

    /// Whether it needs a node.
    pub(crate) fn is_of_node(self) -> bool {
        matches!(
            self,
            Self::Scheduler | Self::Containerd | Self::Kubelet | Self::KubeProxy
        )
    }
}

/// Where the parts of a control plane are found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Addresses {
    /// The API server listens here.
    pub(crate) api: Ipv4Addr,
    pub(crate) api_port: u16,
    pub(crate) etcd_port: u16,
    pub(crate) etcd_peer_port: u16,
    /// Services' addresses, a network of 256.
    pub(crate) services: [u8; 3],
}

impl Addresses {
    pub(crate) fn url(&self) -> String {
        format!("https://{}:{}", self.api, self.api_port)
    }

    pub(crate) fn service(&self, host: u8) -> Ipv4Addr {
        let [a, b, c] = self.services;
        Ipv4Addr::new(a, b, c, host)
    }
}

/// Ports of the loopback address below those that the system hands out, so that a stopped server finds its port free.
pub(crate) fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut held = Vec::new();
    for _ in 0..10_000 {
        if held.len() == N {
            break;
        }
        let port = rand::rng().random_range(20_000..32_000);
        // Held until all are found, so that none is found twice.
        held.extend(
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(|listener| (port, listener)),
        );
    }
    let ports: Vec<u16> = held.into_iter().map(|(port, _)| port).collect();
    ports
        .try_into()
        .map_err(|_| Error::Machine("no free TCP port between 20000 and 32000 on 127.0.0.1".into()))
}

/// Signs all that the control plane shows and uses.
pub(crate) fn issue(authority: &Authority, addresses: &Addresses) -> Result<()> {
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "127.0.0.1",
    ];
    let mut names: Vec<String> = names.map(str::to_owned).to_vec();
    names.extend([addresses.api.to_string(), addresses.service(1).to_string()]);
    let server = Subject {
        common_name: "kube-apiserver",
        organizations: &[],
        alternative_names: &names,
    };
    authority.issue("apiserver", &server)?;
    authority.issue("admin", &Subject::client("admin", &["system:masters"]))?;
    authority.issue(
        "apiserver-kubelet",
        &Subject::client("kube-apiserver", &["system:masters"]),
    )?;
    for user in ["kube-controller-manager", "kube-scheduler"] {
        authority.issue(user, &Subject::client(&format!("system:{user}"), &[]))?;
    }
    Ok(())
}

/// Starts etcd and waits until it answers.
pub(crate) fn start_etcd(
    run: &Run,
    program: &Path,
    addresses: &Addresses,
    prefix: Vec<String>,
) -> Result<()> {
    let client = format!("http://127.0.0.1:{}", addresses.etcd_port);
    let peer = format!("http://127.0.0.1:{}", addresses.etcd_peer_port);
    let etcd = Program::new(program).prefix(prefix).args([
        // A cluster for tests loses nothing when the machine does.
        "--unsafe-no-fsync".to_owned(),
        "--name=default".to_owned(),
        "--log-level=warn".to_owned(),
        format!("--data-dir={}", run.path("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
    ]);
    run.launch(Component::Etcd.name(), etcd)?;
    run.wait(Component::Etcd.name(), "to accept connections", || {
        std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, addresses.etcd_port)).is_ok()
    })
}

/// Starts the API server and waits until it is ready.
pub(crate) fn start_apiserver(
    run: &Run,
    program: &Path,
    authority: &Authority,
    addresses: &Addresses,
    kubectl: impl Fn() -> Command,
    prefix: Vec<String>,
) -> Result<()> {
    let file = |name: &str| authority.file(name).display().to_string();
    let mut apiserver = Program::new(program).prefix(prefix).args([
        format!("--etcd-servers=http://127.0.0.1:{}", addresses.etcd_port),
        format!("--bind-address={}", addresses.api),
        format!("--advertise-address={}", addresses.api),
        format!("--secure-port={}", addresses.api_port),
        format!("--service-cluster-ip-range={}/24", addresses.service(0)),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!(
            "--service-account-key-file={}",
            file("service-accounts.pub")
        ),
        format!(
            "--service-account-signing-key-file={}",
            file("service-accounts.key")
        ),
        "--service-account-issuer=https://kubernetes.default.svc.cluster.local".to_owned(),
        format!("--kubelet-certificate-authority={}", file("ca.crt")),
        format!(
            "--kubelet-client-certificate={}",
            file("apiserver-kubelet.crt")
        ),
        format!("--kubelet-client-key={}", file("apiserver-kubelet.key")),
        "--kubelet-preferred-address-types=InternalIP".to_owned(),
        "--authorization-mode=Node,RBAC".to_owned(),
        "--enable-admission-plugins=NodeRestriction".to_owned(),
        "--allow-privileged=true".to_owned(),
        "--profiling=false".to_owned(),
    ]);
    if addresses.api.is_loopback() {
        // Endpoints may not hold a loopback address.
        apiserver = apiserver.arg("--endpoint-reconciler-type=none");
    }
    run.launch(Component::ApiServer.name(), apiserver)?;
    run.wait(Component::ApiServer.name(), "/readyz to answer", || {
        exec::run(kubectl().args(["get", "--raw=/readyz", "--request-timeout=2s"])).is_ok()
    })
}

/// Starts the controllers; that they work shows in what they make.
pub(crate) fn start_controllers(
    run: &Run,
    program: &Path,
    authority: &Authority,
    prefix: Vec<String>,
) -> Result<()> {
    let kubeconfig = run
        .path("kube-controller-manager.kubeconfig")
        .display()
        .to_string();
    let controllers = Program::new(program).prefix(prefix).args([
        format!("--kubeconfig={kubeconfig}"),
        format!(
            "--service-account-private-key-file={}",
            authority.file("service-accounts.key").display()
        ),
        format!("--root-ca-file={}", authority.file("ca.crt").display()),
        "--use-service-account-credentials=true".to_owned(),
        "--allocate-node-cidrs=false".to_owned(),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
        "--profiling=false".to_owned(),
    ]);
    run.launch(Component::ControllerManager.name(), controllers)
}

/// Starts the scheduler.
pub(crate) fn start_scheduler(run: &Run, program: &Path, prefix: Vec<String>) -> Result<()> {
    let kubeconfig = run.path("kube-scheduler.kubeconfig").display().to_string();
    let scheduler = Program::new(program).prefix(prefix).args([
        format!("--kubeconfig={kubeconfig}"),
        "--leader-elect=false".to_owned(),
        "--secure-port=0".to_owned(),
    ]);
    run.launch(Component::Scheduler.name(), scheduler)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ_and_can_be_bound() {
        let [one, two, three] = free_ports::<3>().unwrap();
        assert!(one != two && two != three && one != three);
        TcpListener::bind((Ipv4Addr::LOCALHOST, one)).unwrap();
    }
}
