//! The demo's path.

use crate::world::{PLANT, SOON, scene};
use anyhow::ensure;
use volttron_tests::node::eventually;

#[test]
fn an_approved_agent_is_connected_and_a_denied_one_never_started() {
    scene("e2e-path", |world, space| {
        let forwarder = space.ask("forwarder")?;
        let datapuller = space.ask("datapuller")?;
        for agent in ["forwarder", "datapuller"] {
            space.was_never_started(agent)?;
            let user = space.user(agent);
            ensure!(!world.has_user(&user)?, "{user} is a user before approval");
        }

        // The agent's own account may file, and nothing else.
        let account = "--as=system:serviceaccount:e2e-path:forwarder";
        let decision = "volttron.org/decision=approved";
        let own = [
            "annotate", "vcr", &forwarder, decision, account, "-n", "e2e-path",
        ];
        let refused = world.node.kubectl(&own).err();
        let refused = refused.map(|failed| failed.said).unwrap_or_default();
        ensure!(
            refused.contains("Forbidden"),
            "an agent approved itself: {refused}"
        );

        space.approve(&forwarder)?;
        space.deny(&datapuller, "not on the list")?;
        space.phase_is(&forwarder, "Issued")?;
        space.phase_is(&datapuller, "Denied")?;

        let request = space.request(&forwarder)?;
        ensure!(
            request["status"]["decision"]["by"] == "alice",
            "who decided: {request}"
        );
        let secret = world
            .node
            .object("e2e-path", "secret", &format!("{forwarder}-tls"))?;
        let entries: Vec<_> = secret["data"]
            .as_object()
            .map(|data| data.keys().cloned().collect())
            .unwrap_or_default();
        ensure!(
            entries == ["ca.crt", "tls.crt"],
            "the Secret holds {entries:?}"
        );

        space.is_ready("forwarder")?;
        let user = space.user("forwarder");
        eventually("sidecar and agent are connected", SOON, || {
            let found = world.connections_of(&user).map_err(|e| e.to_string())?;
            let secure = |c: &crate::broker::Connection| {
                c.mechanism == "EXTERNAL" && c.protocol.starts_with("tlsv1.")
            };
            let all = found.len() == 2 && found.iter().all(secure);
            all.then_some(()).ok_or_else(|| format!("{found:?}"))
        })?;
        let queue = format!("{user}.pubsub.persistent.demo");
        eventually("a message of the agent is in its queue", SOON, || {
            let messages = world.messages(&queue).map_err(|e| e.to_string())?;
            let any = messages.iter().any(|text| text.contains("temperature"));
            any.then_some(()).ok_or_else(|| format!("{messages:?}"))
        })?;

        denied(world, space, &datapuller)
    });
}

fn denied(
    world: &crate::world::World,
    space: &crate::agents::Space<'_>,
    request: &str,
) -> anyhow::Result<()> {
    const REASON: &str = "denied by alice: not on the list";
    space.was_never_started("datapuller")?;
    let user = space.user("datapuller");
    ensure!(!world.has_user(&user)?, "{user} was denied and is a user");
    eventually("an Event on the pod tells of the denial", SOON, || {
        let events = space.events("datapuller").map_err(|e| e.to_string())?;
        events.contains(REASON).then_some(()).ok_or(events)
    })?;
    eventually("the sidecar's log tells of the denial", SOON, || {
        let log = space
            .log("datapuller", "volttron-sidecar")
            .map_err(|e| e.to_string())?;
        log.contains(REASON).then_some(()).ok_or(log)
    })?;
    // The one that was turned away waits still, and comes in when it is let in.
    space.approve(request)?;
    space.is_ready("datapuller")?;
    ensure!(
        !world.connections_of(&user)?.is_empty(),
        "{user} is ready without a connection"
    );
    Ok(())
}

#[test]
fn a_namespace_that_goes_takes_its_users_off_the_broker() {
    scene("e2e-gone", |world, space| {
        space.connect("forwarder")?;
        let user = space.user("forwarder");
        ensure!(world.has_user(&user)?, "{user} is connected and no user");
        space.leave()?;
        space.is_gone()?;
        ensure!(!world.has_user(&user)?, "{user} outlived its request");
        Ok(())
    });
}

#[test]
fn every_namespace_is_held_to_the_restricted_standard() {
    scene("e2e-restricted", |world, space| {
        space.connect("forwarder")?;
        // A pod that may do more is refused in each of them, so those that run need no more.
        let pod = r#"{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "more"},
            "spec": {"containers": [{"name": "a", "image": "a"}]}}"#;
        for namespace in ["volttron-system", PLANT, "e2e-restricted"] {
            let create = ["create", "--dry-run=server", "-n", namespace, "-f", "-"];
            let refused = world.node.kubectl_with(pod, &create).err();
            let refused = refused.map(|failed| failed.said).unwrap_or_default();
            ensure!(
                refused.contains("violates PodSecurity \"restricted"),
                "{namespace} takes any pod: {refused}"
            );
        }
        Ok(())
    });
}
