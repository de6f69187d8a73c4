//! Brokers that are slow or hang: what takes access away does not wait, and nobody else does either.

use crate::shared::{central, playground};
use local_cluster::Base;
use serde_json::json;
use std::time::Duration;
use volttron_crds::Phase;
use volttron_tests::{Agent, Login, SOON, run};

/// A request that met a slow broker looks again within half a minute.
const AGAIN: Duration = Duration::from_secs(90);

#[test]
fn a_denial_overtakes_an_import_that_hangs() {
    run(async {
        let space = playground().await.space("slow").await;
        let instance = space
            .playground
            .instance(&space.namespace, "slow", json!({}))
            .await;
        let broker = instance.start_broker(Base::Machine).await;
        let proxy = broker.behind_proxy().await;
        // The connections the operator has to the broker itself end.
        broker.kill().await;
        broker.start_again().await;
        instance.ready().await;
        let (denied, deleted) = (Agent::new("slow.a.denied"), Agent::new("slow.a.deleted"));
        let mut connections = Vec::new();
        for (name, agent) in [("denied", &denied), ("deleted", &deleted)] {
            space.file(name, &instance, &agent.csr).await;
            space.approve(name).await;
            let login = Login::certificate(agent, &space.issued(name).await);
            connections.push(broker.connect(login).await.unwrap());
        }

        proxy.hold("/api/definitions");
        let late = Agent::new("slow.a.late");
        space.file("late", &instance, &late.csr).await;
        space.approve("late").await;
        let held = async || match proxy.held() {
            0 => Err("nothing".to_owned()),
            _ => Ok(()),
        };
        space
            .playground
            .eventually("an import hangs", AGAIN, held)
            .await;

        space.deny("denied", "it was stolen").await;
        space.delete("deleted").await;
        space.phase("denied", Phase::Denied).await;
        space.gone("deleted").await;
        for (agent, connection) in [&denied, &deleted].into_iter().zip(&connections) {
            assert!(!broker.has_user(&agent.common_name).await);
            space
                .playground
                .eventually("the agent is out", SOON, async || {
                    if connection.status().connected() {
                        Err("it is connected".to_owned())
                    } else {
                        Ok(())
                    }
                })
                .await;
        }
        assert_ne!(space.get("late").await.phase(), Some(Phase::Issued));
        assert!(
            !broker.has_user(&late.common_name).await,
            "the import hangs"
        );

        proxy.let_go();
        space.issued_within("late", AGAIN).await;
        assert!(!broker.has_user(&denied.common_name).await);
    });
}

#[test]
fn a_broker_that_hangs_delays_no_other_instance() {
    run(async {
        let well = central().await;
        let space = playground().await.space("hung").await;
        let mut hung = Vec::new();
        // More of them than were ever worked on at once.
        for number in 0..20 {
            let name = format!("hung{number}");
            let instance = space
                .playground
                .instance(&space.namespace, &name, json!({}))
                .await;
            let listener = instance.hang_broker().await;
            let agent = Agent::new(&format!("{name}.a.agent"));
            space.file(&name, &instance, &agent.csr).await;
            space.approve(&name).await;
            hung.push((instance, listener));
        }
        // All of them wait for an answer, and none has given up.
        for (instance, listener) in &hung {
            let accepted = tokio::time::timeout(AGAIN, listener.accept()).await;
            let (connection, _) = accepted.expect("the operator calls").unwrap();
            std::mem::forget(connection);
            let broker_ready = instance.get().await.status.and_then(|status| {
                let mut conditions = status.conditions.into_iter();
                conditions.find(|it| it.type_ == "BrokerReady")
            });
            assert!(broker_ready.is_none_or(|it| it.status != "True"));
        }
        let namespace = playground().await.namespace("beside").await;
        let beside = playground()
            .await
            .instance(&namespace, "beside", json!({}))
            .await;
        let broker = beside.start_broker(Base::Machine).await;
        for (name, broker) in [("well", well), ("beside", &broker)] {
            let instance = &broker.instance;
            let agent = Agent::new(&format!("{}.hung.{name}", instance.name));
            space.file(name, instance, &agent.csr).await;
            space.approve(name).await;
            let issued = space.issued(name).await;
            broker
                .connect(Login::certificate(&agent, &issued))
                .await
                .unwrap();
            space.deny(name, "enough").await;
            space.phase(name, Phase::Denied).await;
        }
        for (instance, _) in &hung {
            instance
                .condition("BrokerReady", "False", Some("Unreachable"), SOON)
                .await;
        }
    });
}
