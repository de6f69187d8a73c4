//! What happens when things die, and when somebody changes their mind.

use crate::agents::Space;
use crate::world::{BOOT, PLANT, SOON, SYSTEM, World, scene};
use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use volttron_tests::node::eventually;

#[test]
fn a_restarted_sidecar_needs_no_new_approval() {
    scene("e2e-sidecar", |_, space| {
        let request = space.connect("forwarder")?;
        let started = space.pod("forwarder")?["status"]["containerStatuses"][0]["state"].clone();
        kill_container(&space.sidecar("forwarder")?)?;
        eventually("the sidecar was started again", SOON, || {
            let sidecar = space.sidecar("forwarder").map_err(|e| e.to_string())?;
            let again = sidecar["restartCount"] == 1;
            again.then_some(()).ok_or_else(|| sidecar.to_string())
        })?;
        space.is_ready("forwarder")?;
        ensure!(
            space.requests("forwarder")? == [request],
            "the sidecar filed another request"
        );
        let log = space.log("forwarder", "volttron-sidecar")?;
        ensure!(log.contains("using the key that is there"), "{log}");
        let now = space.pod("forwarder")?["status"]["containerStatuses"][0]["state"].clone();
        ensure!(
            now == started,
            "the agent was disturbed: {started} became {now}"
        );
        Ok(())
    });
}

#[test]
fn agents_and_messages_outlive_the_brokers_pod() {
    scene("e2e-broker", |world, space| {
        let request = space.connect("forwarder")?;
        let queue = format!("{}.pubsub.persistent.demo", space.user("forwarder"));
        eventually("the agent has declared its queue", SOON, || {
            world.publish(&queue, "before").map_err(|e| e.to_string())
        })?;
        let claim = world.node.object(PLANT, "pvc", "data-central-rabbitmq-0")?;
        ensure!(claim["status"]["phase"] == "Bound", "{claim}");

        world.node.kubectl(&[
            "delete",
            "pod",
            "central-rabbitmq-0",
            "-n",
            PLANT,
            "--wait=false",
        ])?;
        space.is_unready("forwarder")?;
        eventually("the broker is ready again", BOOT, || {
            let pod = world.node.object(PLANT, "pod", "central-rabbitmq-0");
            let pod = pod.map_err(|failed| failed.to_string())?;
            let ready = pod["status"]["containerStatuses"][0]["ready"] == true
                && pod["metadata"]["deletionTimestamp"].is_null();
            ready.then_some(()).ok_or_else(|| pod["status"].to_string())
        })?;
        space.is_ready("forwarder")?;
        eventually("the message is still in the queue", SOON, || {
            let messages = world.messages(&queue).map_err(|e| e.to_string())?;
            let kept = messages.iter().any(|text| text == "before");
            kept.then_some(()).ok_or_else(|| format!("{messages:?}"))
        })?;
        let same = world.node.object(PLANT, "pvc", "data-central-rabbitmq-0")?;
        ensure!(
            same["metadata"]["uid"] == claim["metadata"]["uid"],
            "the broker has another volume"
        );
        ensure!(
            space.requests("forwarder")? == [request],
            "the sidecar filed another request"
        );
        Ok(())
    });
}

#[test]
fn a_denial_ends_an_open_connection_and_an_approval_brings_it_back() {
    scene("e2e-deny", |world, space| {
        let request = space.connect("forwarder")?;
        let user = space.user("forwarder");
        space.deny(&request, "retired")?;
        eventually("no connection of the denied is left", SOON, || {
            let left = world.connections_of(&user).map_err(|e| e.to_string())?;
            left.is_empty()
                .then_some(())
                .ok_or_else(|| format!("{left:?}"))
        })?;
        space.phase_is(&request, "Denied")?;
        space.is_unready("forwarder")?;
        ensure!(!world.has_user(&user)?, "{user} was denied and is a user");
        let secret = format!("{request}-tls");
        ensure!(
            world.node.object("e2e-deny", "secret", &secret).is_err(),
            "Secret {secret} outlived the denial"
        );
        space.approve(&request)?;
        space.is_ready("forwarder")?;
        Ok(())
    });
}

#[test]
fn nothing_that_runs_stops_while_the_controllers_are_away() {
    scene("e2e-controller", |world, space| {
        space.connect("forwarder")?;
        let late = space.ask("datapuller")?;
        let scale = |replicas: &str| {
            let deployment = ["scale", "deployment/volttron-operator", "-n", SYSTEM];
            world.node.kubectl(&[&deployment[..], &[replicas]].concat())
        };
        scale("--replicas=0")?;
        eventually("the controllers are gone", SOON, || {
            let left = world.controllers().map_err(|e| e.to_string())?;
            left.is_empty().then_some(()).ok_or(left.join(", "))
        })?;
        space.approve(&late)?;
        let connections = world.connections_of(&space.user("forwarder"))?;
        ensure!(connections.len() == 2, "connected: {connections:?}");
        space.is_ready("forwarder")?;
        space.was_never_started("datapuller")?;
        scale("--replicas=2")?;
        space.is_ready("datapuller")
    });
}

#[test]
fn a_controller_that_dies_over_an_approval_signs_once() {
    scene("e2e-death", |world, space| {
        let request = space.ask("forwarder")?;
        let serial = space.request(&request)?["status"]["serialNumber"].clone();
        let pod = world.node.object(SYSTEM, "pod", &world.leader()?)?;
        space.approve(&request)?;
        kill_container(&pod["status"]["containerStatuses"][0])?;
        space.is_ready("forwarder")?;
        let status = space.request(&request)?["status"].clone();
        ensure!(status["serialNumber"] == serial, "signed twice: {status}");
        ensure!(
            in_secret(world, space, &request)? == serial,
            "the Secret holds another certificate"
        );

        // Deleting the pod is what a drained node does.
        let next = space.ask("datapuller")?;
        let delete = [
            "delete",
            "pod",
            &world.leader()?,
            "-n",
            SYSTEM,
            "--wait=false",
        ];
        world.node.kubectl(&delete)?;
        space.approve(&next)?;
        space.is_ready("datapuller")
    });
}

/// The serial number of the certificate in a request's Secret.
fn in_secret(world: &World, space: &Space<'_>, request: &str) -> anyhow::Result<Value> {
    let text = world.node.run(&format!(
        "kubectl get secret -n {} {request}-tls -o 'jsonpath={{.data.tls\\.crt}}' | base64 -d | openssl x509 -noout -serial",
        space.namespace
    ))?;
    let serial = text
        .trim()
        .strip_prefix("serial=")
        .context("a serial number")?;
    Ok(serial.to_lowercase().into())
}

/// Kills the process of a container, as the kernel does when memory is short.
fn kill_container(status: &Value) -> anyhow::Result<()> {
    let id = status["containerID"].as_str().context("no container")?;
    let id = id.trim_start_matches("containerd://");
    let processes = std::fs::read_dir("/proc")?.flatten();
    let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    // The container's control group has its name.
    let of_container = |pid: &i32| {
        let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup"));
        groups.is_ok_and(|groups| groups.contains(id))
    };
    let pid = ids.find(of_container).and_then(Pid::from_raw);
    let pid = pid.with_context(|| format!("no process of container {id}"))?;
    kill_process(pid, Signal::KILL)?;
    Ok(())
}
