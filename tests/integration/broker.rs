//! Brokers that are away, were changed by hand, or have lost their memory.

use crate::shared::{central, playground};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{Patch, PatchParams};
use local_cluster::Base;
use serde_json::json;
use std::time::Duration;
use volttron_crds::{Phase, VolttronCertRequest};
use volttron_tests::{Agent, Broker, Issued, Login, SOON, SYSTEM, Space, run};

/// The operator looks at a broker that is fine every half minute.
const NOTICED: Duration = Duration::from_secs(75);

/// A broker that dies is noticed within seconds.
const FELT: Duration = Duration::from_secs(20);

/// What is done to the users of the operator, by `rabbitmqctl`.
const CHANGES: [&str; 11] = [
    "delete_user drift.a.lost",
    "set_permissions -p volttron drift.a.grown .* .* .*",
    "clear_topic_permissions -p volttron drift.a.narrow",
    "set_topic_permissions -p volttron drift.a.wide volttron .* .*",
    "set_topic_permissions -p volttron drift.a.extra amq.topic .* .*",
    "add_vhost other",
    "set_permissions -p other drift.a.elsewhere .* .* .*",
    "set_user_tags drift.a.tagged volttron-agent administrator",
    "change_password drift.a.secret secret",
    "add_user drift.a.stale secret",
    "set_user_tags drift.a.stale volttron-agent",
];

/// Users of others, whatever they are called and whatever tag they have.
const OTHERS: [&str; 7] = [
    "add_user somebody-else secret",
    "add_user bob secret",
    "set_user_tags bob volttron-agent",
    "add_user elsewhere.a.b secret",
    "set_user_tags elsewhere.a.b volttron-agent",
    "add_user drift.router secret",
    "set_user_tags drift.router volttron-agent",
];

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
        // So many that they come back by an import.
        for number in 0..10 {
            let name = format!("other{number}");
            space
                .file(&name, &instance, &Agent::new(&format!("away.a.{name}")).csr)
                .await;
            space.approve(&name).await;
        }
        for number in 0..10 {
            space.issued(&format!("other{number}")).await;
        }
        let before = users(&broker).await;
        assert_eq!(before.matches("__pubsub__").count(), 3 * 11, "{before}");

        broker.kill().await;
        let fault = instance
            .condition("BrokerReady", "False", Some("Unreachable"), FELT)
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
        let now = users(&broker).await;
        let now: Vec<_> = now.lines().filter(|line| !line.contains("late")).collect();
        assert_eq!(now.join("\n"), before);
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
        for name in ["narrow", "wide", "extra", "elsewhere", "tagged", "secret"] {
            let agent = Agent::new(&format!("drift.a.{name}"));
            issue(&space, &broker, name, &agent).await;
        }
        let connection = broker
            .connect(Login::certificate(&grown, &grown_issued))
            .await
            .unwrap();
        let before = users(&broker).await;
        assert_eq!(before.matches("__pubsub__").count(), 3 * 8, "{before}");

        for line in CHANGES.iter().chain(&OTHERS) {
            broker.ctl(&line.split(' ').collect::<Vec<_>>()).await;
        }
        broker.user("drift.a.stale", false, NOTICED).await;
        space
            .playground
            .eventually("users and permissions are restored", NOTICED, async || {
                let now = users(&broker).await;
                if now == before { Ok(()) } else { Err(now) }
            })
            .await;
        space
            .playground
            .eventually("a changed user is disconnected", NOTICED, async || {
                if connection.status().connected() {
                    Err("it is connected".to_owned())
                } else {
                    Ok(())
                }
            })
            .await;
        broker
            .connect(Login::certificate(&lost, &lost_issued))
            .await
            .unwrap();
        for other in ["somebody-else", "bob", "elsewhere.a.b", "drift.router"] {
            assert!(
                broker.has_user(other).await,
                "{other} is not the operator's, and was removed"
            );
        }

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
                let now = users(&broker).await;
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

#[test]
fn a_user_that_has_just_been_made_by_somebody_else_is_not_taken_over() {
    run(async {
        let central = central().await;
        let space = playground().await.space("taken").await;
        let agent = Agent::new("central.taken.agent");
        space.file("agent", &central.instance, &agent.csr).await;
        space.phase("agent", Phase::Pending).await;
        central
            .ctl(&["add_user", &agent.common_name, "secret"])
            .await;
        space.approve("agent").await;
        let says = space.says("agent", "Issued", "BrokerUserExists").await;
        assert!(says.contains("was not made by the operator"), "{says}");
        central
            .ctl(&["authenticate_user", &agent.common_name, "secret"])
            .await;
        central.ctl(&["delete_user", &agent.common_name]).await;
        space.issued_within("agent", NOTICED * 2).await;
    });
}

#[test]
fn a_user_that_somebody_else_has_made_outlives_the_requests_for_its_name() {
    run(async {
        let central = central().await;
        let space = playground().await.space("made").await;
        let cases = [
            ("waits-denied", false, true),
            ("waits-deleted", false, false),
            ("had-denied", true, true),
            ("had-deleted", true, false),
        ];
        for (name, had_user, denied) in cases {
            let agent = Agent::new(&format!("central.made.{name}"));
            let user = agent.common_name.as_str();
            if had_user {
                issue(&space, central, name, &agent).await;
                // It was the operator's until somebody took it over.
                central.ctl(&["set_user_tags", user]).await;
            } else {
                space.file(name, &central.instance, &agent.csr).await;
                space.phase(name, Phase::Pending).await;
                central.ctl(&["add_user", user, "secret"]).await;
            }
            // Before the next comparison with the broker sees it.
            if denied {
                space.deny(name, "enough").await;
                space.says(name, "Issued", "Denied").await;
            } else {
                space.delete(name).await;
                space.gone(name).await;
            }
            assert!(central.has_user(user).await, "{name}: the user is gone");
            central.ctl(&["delete_user", user]).await;
        }
    });
}

#[test]
fn a_name_that_two_ask_for_goes_to_one_of_them() {
    run(async {
        let central = central().await;
        let [first, second] =
            ["claim", "claim"].map(async |name| playground().await.space(name).await);
        let (first, second) = futures::join!(first, second);
        let agents = ["central.claim.agent"; 2].map(Agent::new);
        for (space, agent) in [(&first, &agents[0]), (&second, &agents[1])] {
            space.file("agent", &central.instance, &agent.csr).await;
            space.phase("agent", Phase::Pending).await;
        }
        futures::join!(first.approve("agent"), second.approve("agent"));
        let (winner, loser) = playground()
            .await
            .eventually("one of them is issued", SOON, async || {
                let issued = |request: VolttronCertRequest| request.phase() == Some(Phase::Issued);
                let (one, other) = futures::join!(first.get("agent"), second.get("agent"));
                match (issued(one), issued(other)) {
                    (true, false) => Ok((&first, &second)),
                    (false, true) => Ok((&second, &first)),
                    (false, false) => Err("none".to_owned()),
                    (true, true) => panic!("both were issued"),
                }
            })
            .await;
        // Its approval is refused by what the requests say, or by the broker's keeper.
        loser
            .until("agent", "names who has the name", SOON, |request| {
                let conditions = request.status.iter().flat_map(|it| &it.conditions);
                conditions
                    .filter(|it| matches!(&*it.reason, "IdentityConflict" | "BrokerUserExists"))
                    .any(|it| it.message.contains(&winner.user))
            })
            .await;
        assert!(loser.secret("agent").await.is_none());

        // The other gets it when the first gives it up.
        winner.delete("agent").await;
        winner.gone("agent").await;
        loser.issued_within("agent", NOTICED * 2).await;
    });
}

async fn issue(space: &Space<'_>, broker: &Broker<'_>, name: &str, agent: &Agent) -> Issued {
    space.file(name, &broker.instance, &agent.csr).await;
    space.approve(name).await;
    space.issued(name).await
}

/// The users of the operator's and all that they may.
async fn users(broker: &Broker<'_>) -> String {
    let mut lines = Vec::new();
    for arguments in [
        &["list_users"] as &[_],
        &["list_permissions", "-p", "volttron"],
        &["list_topic_permissions", "-p", "volttron"],
        &["list_permissions", "-p", "other"],
    ] {
        let arguments = [arguments, &["--quiet", "--no-table-headers"]].concat();
        let listed = broker.try_ctl(&arguments).await.unwrap_or_default();
        let prefix = format!("{}.a.", broker.instance.name);
        let agents = listed.lines().filter(|line| line.starts_with(&prefix));
        lines.extend(agents.map(str::to_owned));
    }
    lines.sort_unstable();
    lines.join("\n")
}
