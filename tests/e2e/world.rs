//! The cluster of all tests: operator installed, instance `central` ready, alice an approver.

use anyhow::Context as _;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use volttron_tests::node::{Node, eventually};

use crate::agents::Space;

/// The operator's namespace.
pub const SYSTEM: &str = "volttron-system";
/// The instance's namespace.
pub const PLANT: &str = "volttron";
/// How long anything may take that needs no image and no broker.
pub const SOON: Duration = Duration::from_mins(1);
/// How long a broker may take to start.
pub const BOOT: Duration = Duration::from_mins(3);

const INSTALL: &str = "helm install volttron-operator charts/volttron-operator --namespace volttron-system --wait --hide-notes";

/// The cluster, and whoever acts in it.
#[derive(Debug)]
pub struct World {
    /// The cluster.
    pub node: Node,
    /// The kubeconfig of alice, who may approve and little else.
    pub alice: PathBuf,
}

impl World {
    fn build() -> anyhow::Result<Self> {
        let node = Node::start(&format!("e2e-{}", std::process::id()), false)?;
        node.load_images()?;
        let alice = node
            .cluster()?
            .kubeconfig_for("alice", &["platform-team"])?;
        let world = Self { node, alice };
        // Nothing here needs more than the strictest of the Pod Security Standards allows.
        for namespace in [SYSTEM, PLANT] {
            world.namespace(namespace)?;
        }
        world.allow_approvals(PLANT)?;
        world.install()?;
        world.node.kubectl(&[
            "apply",
            "--namespace",
            PLANT,
            "--filename",
            "tests/demo/instance.yaml",
        ])?;
        world.instance_is_ready(PLANT)?;
        Ok(world)
    }

    /// Installs the chart and waits for the controller.
    pub fn install(&self) -> anyhow::Result<()> {
        self.node.run(INSTALL)?;
        Ok(())
    }

    /// Makes a namespace under the restricted Pod Security Standard.
    pub fn namespace(&self, name: &str) -> anyhow::Result<()> {
        let label = "pod-security.kubernetes.io/enforce=restricted";
        self.node.kubectl(&["create", "namespace", name])?;
        self.node.kubectl(&["label", "namespace", name, label])?;
        Ok(())
    }

    /// Lets alice's group approve in a namespace.
    pub fn allow_approvals(&self, namespace: &str) -> anyhow::Result<()> {
        self.node.kubectl(&[
            "create",
            "rolebinding",
            "approvers",
            "--namespace",
            namespace,
            "--clusterrole=volttron-operator-approver",
            "--group=platform-team",
        ])?;
        Ok(())
    }

    /// Waits for instance `central` of a namespace.
    pub fn instance_is_ready(&self, namespace: &str) -> anyhow::Result<()> {
        eventually("the instance is Ready", BOOT, || {
            let instance = self.node.object(namespace, "vinst", "central");
            let instance = instance.map_err(|failed| failed.to_string())?;
            let conditions = &instance["status"]["conditions"];
            let ready = conditions.as_array().is_some_and(|all| {
                all.iter()
                    .any(|c| c["type"] == "Ready" && c["status"] == "True")
            });
            ready.then_some(()).ok_or_else(|| conditions.to_string())
        })?;
        Ok(())
    }

    /// The names of the controller's pods.
    pub fn controllers(&self) -> anyhow::Result<Vec<String>> {
        let pods = self.node.json(&[
            "get",
            "pods",
            "--namespace",
            SYSTEM,
            "--selector=app.kubernetes.io/component=controller",
        ])?;
        let pods = pods["items"].as_array().into_iter().flatten();
        let names = pods.filter_map(|pod| pod["metadata"]["name"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// The pod of the controller that leads.
    pub fn leader(&self) -> anyhow::Result<String> {
        let lease = self.node.object(SYSTEM, "lease", "volttron-operator")?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        let pod = holder.split_once('_').context("nobody leads")?.0;
        Ok(pod.to_owned())
    }
}

/// Runs one test in a namespace of its own, when its turn comes.
///
/// # Panics
/// With what went wrong and how things stood, where `test` fails.
pub fn scene(namespace: &str, test: impl FnOnce(&World, &Space<'_>) -> anyhow::Result<()>) {
    static WORLD: OnceLock<Result<Mutex<World>, String>> = OnceLock::new();
    let world = WORLD.get_or_init(|| {
        World::build()
            .map(Mutex::new)
            .map_err(|error| format!("{error:#}"))
    });
    let world = match world {
        // A test that failed before says nothing about this one.
        Ok(world) => world.lock().unwrap_or_else(PoisonError::into_inner),
        Err(error) => panic!("the cluster was not set up: {error}"),
    };
    let outcome = Space::new(&world, namespace).and_then(|space| {
        test(&world, &space)?;
        space.leave()
    });
    if let Err(error) = outcome {
        let state = world.node.trouble(&[SYSTEM, PLANT, namespace]);
        panic!("{error:#}\n\nHow things stood:\n{state}");
    }
}
