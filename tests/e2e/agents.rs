//! Agents in a namespace, their requests, and what is decided about them.

use crate::world::{SOON, World};
use anyhow::{Context as _, ensure};
use serde_json::Value;
use volttron_tests::node::eventually;

/// A namespace with agents.
#[derive(Debug)]
pub struct Space<'a> {
    world: &'a World,
    /// Its name.
    pub namespace: String,
}

impl<'a> Space<'a> {
    /// Makes the namespace.
    pub fn new(world: &'a World, namespace: &str) -> anyhow::Result<Self> {
        world.namespace(namespace)?;
        world.allow_approvals(namespace)?;
        Ok(Self {
            world,
            namespace: namespace.to_owned(),
        })
    }

    /// Has it removed, and does not wait: the API server gives the pods a quarter of a minute at least.
    pub fn leave(&self) -> anyhow::Result<()> {
        let delete = [
            "delete",
            "namespace",
            &self.namespace,
            "--wait=false",
            "--ignore-not-found",
        ];
        self.world.node.kubectl(&delete)?;
        Ok(())
    }

    /// Waits until it is gone with all that was in it, for which the controller has to clean up.
    pub fn is_gone(&self) -> anyhow::Result<()> {
        let node = &self.world.node;
        eventually("the namespace is gone", 2 * SOON, || {
            let found = node.object(&self.namespace, "namespace", &self.namespace);
            let left = |namespace: Value| Err(namespace["status"].to_string());
            found.map_or(Ok(()), left)
        })?;
        Ok(())
    }

    /// Starts the example's pod under another name; returns the name of its request once it waits for a decision.
    pub fn ask(&self, agent: &str) -> anyhow::Result<String> {
        let manifest = include_str!("../../examples/agent-pod.yaml").replace("forwarder", agent);
        let node = &self.world.node;
        node.kubectl_with(
            &manifest,
            &["apply", "--namespace", &self.namespace, "--filename=-"],
        )?;
        let request = eventually(&format!("{agent} has filed a request"), SOON, || {
            let requests = self.requests(agent).map_err(|error| error.to_string())?;
            requests.into_iter().next().ok_or_else(String::new)
        })?;
        self.phase_is(&request, "Pending")?;
        Ok(request)
    }

    /// Starts an agent, has it approved and waits until it runs.
    pub fn connect(&self, agent: &str) -> anyhow::Result<String> {
        let request = self.ask(agent)?;
        self.approve(&request)?;
        self.is_ready(agent)?;
        Ok(request)
    }

    /// Names of the requests an agent has filed.
    pub fn requests(&self, agent: &str) -> anyhow::Result<Vec<String>> {
        let list = self
            .world
            .node
            .json(&["get", "vcr", "--namespace", &self.namespace])?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let names = items
            .iter()
            .filter_map(|item| item["metadata"]["name"].as_str());
        let prefix = format!("{agent}-");
        Ok(names
            .filter(|name| name.starts_with(&prefix))
            .map(str::to_owned)
            .collect())
    }

    /// alice approves.
    pub fn approve(&self, request: &str) -> anyhow::Result<()> {
        self.annotate(request, &["volttron.org/decision=approved"])
    }

    /// alice denies.
    pub fn deny(&self, request: &str, reason: &str) -> anyhow::Result<()> {
        let reason = format!("volttron.org/reason={reason}");
        self.annotate(request, &["volttron.org/decision=denied", &reason])
    }

    fn annotate(&self, request: &str, annotations: &[&str]) -> anyhow::Result<()> {
        let what = ["annotate", "--overwrite", "vcr", request, "--namespace"];
        let arguments = [&what[..], &[&self.namespace], annotations].concat();
        let (node, alice) = (&self.world.node, &self.world.alice);
        node.kubectl_by(alice, &arguments)?;
        Ok(())
    }

    /// The request.
    pub fn request(&self, name: &str) -> anyhow::Result<Value> {
        Ok(self.world.node.object(&self.namespace, "vcr", name)?)
    }

    /// Waits until a request is in a phase.
    pub fn phase_is(&self, request: &str, phase: &str) -> anyhow::Result<()> {
        eventually(&format!("{request} is {phase}"), SOON, || {
            let found = self.request(request).map_err(|error| error.to_string())?;
            let status = &found["status"];
            let is = status["phase"] == phase;
            is.then_some(()).ok_or_else(|| status.to_string())
        })?;
        Ok(())
    }

    /// The agent's pod.
    pub fn pod(&self, agent: &str) -> anyhow::Result<Value> {
        Ok(self.world.node.object(&self.namespace, "pod", agent)?)
    }

    /// Waits until the agent's pod is ready, its agent and its sidecar.
    pub fn is_ready(&self, agent: &str) -> anyhow::Result<()> {
        self.readiness_is(agent, "True")
    }

    /// Waits until the agent's pod is not ready.
    pub fn is_unready(&self, agent: &str) -> anyhow::Result<()> {
        self.readiness_is(agent, "False")
    }

    fn readiness_is(&self, agent: &str, wanted: &str) -> anyhow::Result<()> {
        eventually(&format!("pod {agent} has Ready={wanted}"), SOON, || {
            let pod = self.pod(agent).map_err(|error| error.to_string())?;
            let conditions = &pod["status"]["conditions"];
            let is = conditions.as_array().is_some_and(|all| {
                all.iter()
                    .any(|c| c["type"] == "Ready" && c["status"] == wanted)
            });
            is.then_some(()).ok_or_else(|| conditions.to_string())
        })?;
        Ok(())
    }

    /// Fails where the kubelet has ever started the agent's own container.
    pub fn was_never_started(&self, agent: &str) -> anyhow::Result<()> {
        let status = &self.pod(agent)?["status"];
        let container = &status["containerStatuses"][0];
        ensure!(
            container["state"]["waiting"].is_object()
                && container["lastState"]
                    .as_object()
                    .is_none_or(serde_json::Map::is_empty)
                && container["restartCount"] == 0
                && container["started"] == false
                && status["phase"] == "Pending",
            "the container of {agent} was started: {status}"
        );
        Ok(())
    }

    /// Status of the agent's sidecar.
    pub fn sidecar(&self, agent: &str) -> anyhow::Result<Value> {
        Ok(self.pod(agent)?["status"]["initContainerStatuses"][0].clone())
    }

    /// Log of one container of an agent's pod.
    pub fn log(&self, agent: &str, container: &str) -> anyhow::Result<String> {
        let (node, namespace) = (&self.world.node, self.namespace.as_str());
        Ok(node.kubectl(&[
            "logs",
            agent,
            "--namespace",
            namespace,
            "--container",
            container,
        ])?)
    }

    /// The agent's name on the broker.
    pub fn user(&self, agent: &str) -> String {
        format!("central.{}.{agent}", self.namespace)
    }

    /// Messages of the Events about an object.
    pub fn events(&self, name: &str) -> anyhow::Result<String> {
        let selector = format!("--field-selector=involvedObject.name={name}");
        let list = ["get", "events", "--namespace", &self.namespace, &selector];
        let events = self.world.node.json(&list)?;
        let events = events["items"].as_array().context("a list of Events")?;
        let lines = events
            .iter()
            .map(|event| format!("{} {}", event["reason"], event["message"]));
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }
}
