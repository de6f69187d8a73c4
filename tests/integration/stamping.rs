//! Stamping taken away and given back: it is told, and signing goes on meanwhile.

use crate::shared::{Turn, disturbed};
use std::time::Duration;
use volttron_tests::{Agent, Broker, Space, run};

/// It is looked every ten seconds.
const NOTICED: Duration = Duration::from_secs(90);
const WARNING: &str = "DecisionsUnsigned";

#[test]
fn decisions_that_carry_no_name_are_told_of_where_they_could() {
    run(async {
        let playground = disturbed().await;
        let broker = playground.plant().await;
        let space = playground.space("unsigned").await;
        for (kind, name) in [
            ("mutatingadmissionpolicybinding", "Binding"),
            ("mutatingadmissionpolicy", ""),
        ] {
            let (gone, said) = playground
                .kubectl(&["delete", kind, "volttron-stamping"], "")
                .await;
            assert!(gone, "{said}");
            let missing = format!("MutatingAdmissionPolicy{name} volttron-stamping is missing");
            let told = async || {
                let warning = broker.instance.condition(WARNING, "True", None, NOTICED);
                let message = warning.await.message;
                if message.contains(&missing) {
                    Ok(message)
                } else {
                    Err(message)
                }
            };
            let message = playground.eventually(&missing, NOTICED, told).await;
            assert!(
                message.contains("`helm upgrade volttron-operator"),
                "{message}"
            );
        }
        metric(&playground, 1).await;
        let log = playground.operator().log();
        assert!(
            log.contains("decisions are not stamped"),
            "a line tells of it"
        );

        assert_eq!(decided_by(&space, broker, "unsigned").await, None);

        playground.upgrade_chart().await;
        playground
            .eventually("the warning goes", NOTICED, async || {
                let status = broker.instance.get().await.status.unwrap();
                let warning = status.conditions.into_iter().find(|it| it.type_ == WARNING);
                warning.map_or(Ok(()), |warning| Err(warning.message))
            })
            .await;
        metric(&playground, 0).await;
        let by = decided_by(&space, broker, "signed").await;
        assert_eq!(by.as_deref(), Some("alice"));
    });
}

/// Who has approved a request, which is issued.
async fn decided_by(space: &Space<'_>, broker: &Broker<'_>, name: &str) -> Option<String> {
    let agent = Agent::new(&format!("central.unsigned.{name}"));
    space.file(name, &broker.instance, &agent.csr).await;
    space.approve(name).await;
    space.issued(name).await;
    let status = space.get(name).await.status.unwrap();
    status.decision.and_then(|decision| decision.by)
}

async fn metric(playground: &Turn, value: u8) {
    let line = format!("volttron_stamping_missing {value}");
    playground
        .eventually(&line, NOTICED, async || {
            let text = playground.operator().get("/metrics").await?.body;
            let is_there = text.lines().any(|it| it == line);
            is_there.then_some(()).ok_or(text)
        })
        .await;
}
