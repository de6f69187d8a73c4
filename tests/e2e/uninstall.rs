//! What stays when the operator, or an instance, is taken away.

use crate::world::{BOOT, PLANT, SOON, SYSTEM, World, scene};
use anyhow::ensure;
use volttron_tests::node::eventually;

#[test]
fn uninstalling_keeps_instances_certificates_and_connections() {
    scene("e2e-uninstall", |world, space| {
        let request = space.connect("forwarder")?;
        world
            .node
            .run("helm uninstall volttron-operator --namespace volttron-system --wait")?;
        let left = owned_by_chart(world)?;
        ensure!(left.is_empty(), "the uninstalled chart left {left}");
        for crd in ["volttroninstances", "volttroncertrequests"] {
            world
                .node
                .kubectl(&["get", "crd", &format!("{crd}.volttron.org")])?;
        }
        let secret = format!("{request}-tls");
        world.node.object("e2e-uninstall", "secret", &secret)?;
        world.node.object(SYSTEM, "secret", "ca.volttron.central")?;
        space.is_ready("forwarder")?;
        let connections = world.connections_of(&space.user("forwarder"))?;
        ensure!(connections.len() == 2, "connected: {connections:?}");

        // It comes back to what it left, and goes on.
        world.install()?;
        world.instance_is_ready(PLANT)?;
        space.connect("datapuller")?;
        ensure!(
            space.request(&request)?["status"]["phase"] == "Issued",
            "the certificate was lost"
        );
        Ok(())
    });
}

/// What the chart made, but for what it keeps.
fn owned_by_chart(world: &World) -> anyhow::Result<String> {
    const KINDS: &str = "deployments,services,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,\
        validatingadmissionpolicies,validatingadmissionpolicybindings,\
        mutatingadmissionpolicies,mutatingadmissionpolicybindings";
    let selector = "--selector=app.kubernetes.io/managed-by=Helm";
    let all = ["get", KINDS, "--all-namespaces", selector, "--output=name"];
    Ok(world.node.kubectl(&all)?.trim().to_owned())
}

#[test]
fn a_deleted_instance_keeps_its_volume_and_nothing_else() {
    scene("e2e-instance", |world, _| {
        const NAMESPACE: &str = "e2e-instance";
        let node = &world.node;
        node.kubectl(&["apply", "-n", NAMESPACE, "-f", "tests/demo/instance.yaml"])?;
        world.instance_is_ready(NAMESPACE)?;
        node.kubectl(&[
            "delete",
            "vinst",
            "central",
            "-n",
            NAMESPACE,
            "--timeout=60s",
        ])?;
        eventually("what belonged to the instance is gone", BOOT, || {
            let kinds = "statefulsets,services,configmaps,secrets,pods";
            let label = "--selector=volttron.org/instance=central";
            let left = node.kubectl(&["get", kinds, "-n", NAMESPACE, label, "--output=name"]);
            let left = left.map_err(|failed| failed.to_string())?;
            left.trim().is_empty().then_some(()).ok_or(left)
        })?;
        for secret in ["ca", "broker"] {
            let name = format!("{secret}.{NAMESPACE}.central");
            eventually(&format!("Secret {name} is gone"), SOON, || {
                let found = node.object(SYSTEM, "secret", &name);
                found.map_or(Ok(()), |_| Err("it is there".to_owned()))
            })?;
        }
        node.object(NAMESPACE, "pvc", "data-central-rabbitmq-0")?;
        Ok(())
    });
}
