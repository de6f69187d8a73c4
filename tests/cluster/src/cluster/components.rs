//! The parts of a running cluster, one by one, for tests of faults.

use rustix::process::Signal;

use super::{Cluster, Tier};
use crate::{
    control_plane::{self, Component},
    error::{Error, Result},
    exec,
    node::{self, Network},
    programs::Tool,
    sandbox::{self, Spaces},
    steps::Steps,
};

impl Cluster {
    /// Whether a part runs.
    pub fn is_running(&self, component: Component) -> bool {
        self.run.is_running(component.name())
    }

    /// Asks a part to end (SIGTERM) and waits until it has.
    pub fn stop(&self, component: Component) -> Result<()> {
        self.run.end(component.name(), Signal::TERM)
    }

    /// Ends a part at once (SIGKILL).
    pub fn kill(&self, component: Component) -> Result<()> {
        self.run.end(component.name(), Signal::KILL)
    }

    /// Starts a part again, with its port and its data. etcd, API server, containerd and kubelet have answered when this returns.
    pub fn start_component(&self, component: Component) -> Result<()> {
        if component.is_of_node() && self.tier() != Tier::Node {
            return Err(Error::WrongTier {
                part: component.name().to_owned(),
            });
        }
        if self.is_running(component) {
            return Ok(());
        }
        let (run, addresses) = (&self.run, &self.description.addresses);
        let network = Network::new(run.record()?.slot);
        let program = |tool: Tool| tool.path(&self.cache, &Steps::silent());
        // The control plane is on the machine's network, and still ends with the sandbox.
        let outside = if exec::is_root() {
            sandbox::enter(run, Spaces::default())?
        } else {
            Vec::new()
        };
        let inside = || sandbox::enter(run, node::SPACES);
        match component {
            Component::Etcd => {
                control_plane::start_etcd(run, &program(Tool::Etcd)?, addresses, outside)
            }
            Component::ApiServer => {
                let path = program(Tool::KubeApiserver)?;
                control_plane::start_apiserver(
                    run,
                    &path,
                    &self.authority,
                    addresses,
                    || self.kubectl(),
                    outside,
                )
            }
            Component::ControllerManager => control_plane::start_controllers(
                run,
                &program(Tool::KubeControllerManager)?,
                &self.authority,
                outside,
            ),
            Component::Scheduler => {
                control_plane::start_scheduler(run, &program(Tool::KubeScheduler)?, outside)
            }
            Component::Containerd => node::start_containerd(run, network, inside()?),
            Component::Kubelet => node::start_kubelet(
                run,
                &program(Tool::Kubelet)?,
                &self.authority,
                addresses,
                network,
                inside()?,
            ),
            Component::KubeProxy => {
                node::start_proxy(run, &program(Tool::KubeProxy)?, network, inside()?)
            }
        }
    }
}
