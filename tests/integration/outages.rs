//! The API server, etcd or the approval gate away for a while; and the operator's own end.

use crate::shared::disturbed;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicyBinding;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use local_cluster::Component;
use std::time::{Duration, Instant};
use volttron_crds::Phase;
use volttron_tests::{Agent, Broker, Issued, Login, Space, run};

/// After everything is back, within this it works again.
const RECOVERED: Duration = Duration::from_secs(90);
const GATE: &str = "volttron-approval-gate";

#[test]
fn everything_carries_on_after_the_api_server_was_away() {
    run(async {
        survives_without(Component::ApiServer, outage()).await;
    });
}

#[test]
fn everything_carries_on_after_etcd_was_away() {
    run(async {
        survives_without(Component::Etcd, outage() / 2).await;
    });
}

#[test]
fn cut_watches_are_resumed() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let space = playground.space("cut").await;
        for name in ["one", "two", "three"] {
            playground.proxy().cut();
            space
                .file(
                    name,
                    &broker.instance,
                    &Agent::new(&format!("central.cut.{name}")).csr,
                )
                .await;
            space.phase(name, Phase::Pending).await;
            playground.proxy().set_away(true);
            space.approve(name).await;
            playground.proxy().set_away(false);
            space.issued_within(name, RECOVERED).await;
        }
    });
}

#[test]
fn nothing_is_signed_while_the_approval_gate_is_down() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let space = playground.space("gate").await;
        space
            .file(
                "early",
                &broker.instance,
                &Agent::new("central.gate.early").csr,
            )
            .await;
        space.approve("early").await;
        space.issued("early").await;

        let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(playground.admin());
        let binding = bindings.get(GATE).await.unwrap();
        bindings
            .delete(GATE, &DeleteParams::default())
            .await
            .unwrap();
        let fault = broker
            .instance
            .condition("Ready", "False", Some("ApprovalGateMissing"), RECOVERED)
            .await;
        assert!(
            fault.message.contains("nothing is signed") && fault.message.contains("helm upgrade"),
            "{}",
            fault.message
        );
        space
            .file(
                "late",
                &broker.instance,
                &Agent::new("central.gate.late").csr,
            )
            .await;
        space.approve("late").await;
        space.says("late", "Issued", "ApprovalGateMissing").await;
        let late = space.get("late").await;
        assert_eq!(late.phase(), Some(Phase::Approved));
        assert!(late.status.unwrap().certificate.is_none() && space.secret("late").await.is_none());
        assert_eq!(space.get("early").await.phase(), Some(Phase::Issued));
        let ready = playground.operator().get("/readyz").await.unwrap();
        assert!(
            ready.status == 200 && ready.body.contains("nothing is signed"),
            "{ready:?}"
        );

        let restored = ValidatingAdmissionPolicyBinding {
            metadata: ObjectMeta {
                name: Some(GATE.to_owned()),
                labels: binding.metadata.labels,
                ..ObjectMeta::default()
            },
            spec: binding.spec,
        };
        bindings
            .create(&PostParams::default(), &restored)
            .await
            .unwrap();
        space.issued_within("late", RECOVERED).await;
        broker
            .instance
            .condition("Ready", "True", None, RECOVERED)
            .await;
    });
}

#[test]
fn the_operator_ends_cleanly_when_asked_to() {
    run(async {
        let playground = disturbed().await;
        let status = playground
            .operator()
            .terminate(Duration::from_secs(10))
            .await;
        assert!(
            status.success(),
            "{status}\n{}",
            playground.operator().log_tail()
        );
        let log = playground.operator().log_tail();
        assert!(log.contains("controller stopped"), "{log}");
    });
}

/// How long things are away: a minute and more at night, less in between.
fn outage() -> Duration {
    let seconds = std::env::var("OUTAGE_SECONDS").unwrap_or_else(|_| "20".to_owned());
    Duration::from_secs(seconds.parse().expect("OUTAGE_SECONDS is a number"))
}

async fn survives_without(part: Component, outage: Duration) {
    let playground = disturbed().await;
    let broker = playground.plant().await;
    let space = playground.space(&format!("without-{}", part.name())).await;
    let agent = Agent::new(&format!("central.{}.agent", space.namespace));
    let issued = issue(&space, broker, "agent", &agent).await;
    let connection = broker
        .connect(Login::certificate(&agent, &issued))
        .await
        .unwrap();
    let operator = playground.operator().pid();

    let cluster = playground.cluster().clone();
    tokio::task::spawn_blocking(move || cluster.kill(part).unwrap())
        .await
        .unwrap();
    let away = Instant::now();
    playground
        .eventually("the outage is over", outage * 2, async || {
            let health = playground.operator().get("/healthz").await?;
            assert_eq!(
                health.status,
                200,
                "the operator is not healthy while {} is away",
                part.name()
            );
            assert!(
                connection.status().connected(),
                "an agent's connection ended while {} was away",
                part.name()
            );
            if away.elapsed() >= outage {
                Ok(())
            } else {
                Err("it is not".to_owned())
            }
        })
        .await;
    let cluster = playground.cluster().clone();
    tokio::task::spawn_blocking(move || {
        cluster.start_component(part).unwrap();
        // It ends itself when etcd has been away for long.
        cluster.start_component(Component::ApiServer).unwrap();
    })
    .await
    .unwrap();

    let late = Agent::new(&format!("central.{}.late", space.namespace));
    playground
        .eventually("requests can be filed again", RECOVERED, async || {
            let request = volttron_tests::encode(&late.csr);
            let filed = space
                .try_file("late", &broker.instance, &request, None)
                .await;
            filed.map(drop).map_err(|error| error.to_string())
        })
        .await;
    space.phase_within("late", Phase::Pending, RECOVERED).await;
    space.approve("late").await;
    let late_issued = space.issued_within("late", RECOVERED).await;
    broker
        .connect(Login::certificate(&late, &late_issued))
        .await
        .unwrap();
    assert_eq!(
        playground.operator().pid(),
        operator,
        "the operator was started anew"
    );
    assert!(
        connection.status().connected(),
        "an agent's connection ended after {} was back",
        part.name()
    );
}

async fn issue(space: &Space<'_>, broker: &Broker<'_>, name: &str, agent: &Agent) -> Issued {
    space.file(name, &broker.instance, &agent.csr).await;
    space.approve(name).await;
    space.issued(name).await
}
