//! Brokers that are away, were changed by hand, or have lost their memory.

use crate::shared::playground;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use local_cluster::Base;
use serde_json::json;
use std::time::Duration;
use volttron_crds::Phase;
use volttron_tests::{Agent, Broker, Issued, Login, SYSTEM, Space, run};

/// The operator looks at a broker that is fine every half minute.
const NOTICED: Duration = Duration::from_secs(75);

#[test]
fn a_broker_that_is_away_or_has_lost_its_disk_gets_everything_back() {
    run(async {
        let space = playground().await.space("away").await;
        let instance = space
            .playground
            .instance(&space.namespace, "away", json!({}))
            .await;
        let broker = instance.start_broker(Base::Machine).await;
        let agent = Agent::new("away.a.forwarder");
        let issued = issue(&space, &broker, "forwarder", &agent).await;

        broker.kill().await;
        let fault = instance
            .condition("BrokerReady", "False", Some("Unreachable"), NOTICED)
            .await;
        let hint = format!(
            "kubectl describe pod -n {} away-rabbitmq-0",
            space.namespace
        );
        assert!(fault.message.contains(&hint), "{}", fault.message);
        let late = Agent::new("away.a.late");
        space.file("late", &instance, &late.csr).await;
        space.approve("late").await;
        space.says("late", "Issued", "BrokerNotReady").await;
        assert!(
            space.secret("late").await.is_none(),
            "signed without a broker to let it in"
        );
        assert_eq!(
            space.get("forwarder").await.phase(),
            Some(Phase::Issued),
            "an issued request stays issued"
        );

        broker.wipe().await;
        broker.start_again().await;
        instance.condition("Ready", "True", None, NOTICED).await;
        let late_issued = space.issued("late").await;
        for (agent, issued) in [(&agent, &issued), (&late, &late_issued)] {
            broker.user(&agent.common_name, true, NOTICED).await;
            broker
                .connect(Login::certificate(agent, issued))
                .await
                .unwrap();
        }
    });
}

#[test]
fn what_is_changed_by_hand_on_a_broker_is_put_right() {
    run(async {
        let space = playground().await.space("drift").await;
        let instance = space
            .playground
            .instance(&space.namespace, "drift", json!({}))
            .await;
        let broker = instance.start_broker(Base::Machine).await;
        let (lost, grown) = (Agent::new("drift.a.lost"), Agent::new("drift.a.grown"));
        let lost_issued = issue(&space, &broker, "lost", &lost).await;
        let grown_issued = issue(&space, &broker, "grown", &grown).await;
        let before = permissions(&broker).await;

        broker.ctl(&["delete_user", &lost.common_name]).await;
        broker
            .ctl(&[
                "set_permissions",
                "-p",
                "volttron",
                &grown.common_name,
                ".*",
                ".*",
                ".*",
            ])
            .await;
        broker.ctl(&["add_user", "drift.a.stale", "secret"]).await;
        broker
            .ctl(&["set_user_tags", "drift.a.stale", "volttron-agent"])
            .await;
        broker.ctl(&["add_user", "somebody-else", "secret"]).await;
        broker.user("drift.a.stale", false, NOTICED).await;
        space
            .playground
            .eventually("users and permissions are restored", NOTICED, async || {
                let now = permissions(&broker).await;
                if now == before { Ok(()) } else { Err(now) }
            })
            .await;
        broker
            .connect(Login::certificate(&lost, &lost_issued))
            .await
            .unwrap();
        assert!(
            broker.has_user("somebody-else").await,
            "a user that is not the operator's was removed"
        );

        broker.ctl(&["delete_vhost", "volttron"]).await;
        space
            .playground
            .eventually("the virtual host is restored", NOTICED, async || {
                let arguments = [
                    "list_exchanges",
                    "--quiet",
                    "-p",
                    "volttron",
                    "name",
                    "type",
                    "durable",
                    "arguments",
                ];
                let exchanges = broker.try_ctl(&arguments).await?;
                let now = permissions(&broker).await;
                let whole = exchanges.contains(
                    "volttron\ttopic\ttrue\t[{\"alternate-exchange\",\"undeliverable\"}]",
                ) && exchanges.contains("undeliverable\tfanout\ttrue")
                    && now == before;
                if whole {
                    Ok(())
                } else {
                    Err(format!("{exchanges}\n{now}"))
                }
            })
            .await;
        broker
            .connect(Login::certificate(&grown, &grown_issued))
            .await
            .unwrap();
        instance.condition("Ready", "True", None, NOTICED).await;
    });
}

#[test]
fn a_changed_password_is_told_and_taken_up_by_the_brokers_next_start() {
    run(async {
        let space = playground().await.space("password").await;
        let instance = space
            .playground
            .instance(&space.namespace, "locked", json!({}))
            .await;
        // The image's RabbitMQ, which is newer.
        let broker = instance.start_broker(Base::Image).await;
        let agent = Agent::rsa("locked.a.forwarder");
        let issued = issue(&space, &broker, "forwarder", &agent).await;
        broker
            .connect(Login::certificate(&agent, &issued))
            .await
            .unwrap();

        let name = format!("broker.{}.locked", space.namespace);
        let changed = Patch::Merge(json!({"stringData": {"password": "another"}}));
        Api::<Secret>::namespaced(space.playground.admin(), SYSTEM)
            .patch(&name, &PatchParams::default(), &changed)
            .await
            .unwrap();
        let fault = instance
            .condition("BrokerReady", "False", Some("Unauthorized"), NOTICED)
            .await;
        assert!(
            fault
                .message
                .contains("refuses the operator's password (401)"),
            "{}",
            fault.message
        );
        instance
            .condition("Ready", "False", Some("Unauthorized"), NOTICED)
            .await;

        // The StatefulSet's template has changed with the password's hash: its controller replaces the pod.
        broker.kill().await;
        broker.start_again().await;
        instance.condition("Ready", "True", None, NOTICED).await;
        broker
            .connect(Login::certificate(&agent, &issued))
            .await
            .unwrap();
    });
}

async fn issue(space: &Space<'_>, broker: &Broker<'_>, name: &str, agent: &Agent) -> Issued {
    space.file(name, &broker.instance, &agent.csr).await;
    space.approve(name).await;
    space.issued(name).await
}

async fn permissions(broker: &Broker<'_>) -> String {
    let arguments = [
        "list_permissions",
        "--quiet",
        "--no-table-headers",
        "-p",
        "volttron",
    ];
    let listed = broker.try_ctl(&arguments).await.unwrap_or_default();
    let mut lines: Vec<_> = listed
        .lines()
        .filter(|line| line.starts_with("drift."))
        .collect();
    lines.sort_unstable();
    lines.join("\n")
}
