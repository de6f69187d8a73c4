//! What the operator tells about itself.

use crate::shared::{central, playground};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use std::time::Duration;
use volttron_crds::Phase;
use volttron_tests::{Agent, SOON, encode, run};

#[test]
fn health_and_readiness_are_answered() {
    run(async {
        let operator = playground().await.operator();
        for path in ["/healthz", "/readyz"] {
            let answer = operator.get(path).await.unwrap();
            assert_eq!(
                (answer.status, answer.body.as_str()),
                (200, "ok\n"),
                "{path}"
            );
        }
        assert_eq!(operator.get("/elsewhere").await.unwrap().status, 404);
    });
}

#[test]
fn metrics_are_openmetrics_and_count_what_happens() {
    run(async {
        let broker = central().await;
        let playground = playground().await;
        let space = playground.space("metrics").await;
        space
            .file(
                "agent",
                &broker.instance,
                &Agent::new("central.metrics.agent").csr,
            )
            .await;
        space.approve("agent").await;
        space.issued("agent").await;
        let answer = playground.operator().get("/metrics").await.unwrap();
        assert_eq!(answer.status, 200);
        assert!(
            answer
                .content_type
                .starts_with("application/openmetrics-text; version=1.0.0"),
            "{}",
            answer.content_type
        );
        check_openmetrics(&answer.body);
        let namespace = &broker.instance.namespace;
        let labels = format!("{{namespace=\"{namespace}\",instance=\"central\"}}");
        for line in [
            "volttron_approval_gate_standing 1".to_owned(),
            format!("volttron_broker_ready{labels} 1"),
        ] {
            assert!(
                answer.body.lines().any(|it| it == line),
                "no {line} in {}",
                answer.body
            );
        }
        for family in [
            "volttron_certificates_issued_total",
            "volttron_issuance_duration_seconds_bucket",
            "volttron_ca_not_after_timestamp_seconds",
        ] {
            assert!(
                answer.body.contains(family),
                "no {family} in {}",
                answer.body
            );
        }
        // The gauge follows with the next look at the instance.
        let line = format!(
            "volttron_requests{{namespace=\"{namespace}\",instance=\"central\",phase=\"Issued\"}} "
        );
        playground
            .eventually(
                "issued requests are counted",
                SOON + Duration::from_secs(15),
                async || {
                    let text = playground.operator().get("/metrics").await?.body;
                    let count = text.lines().find_map(|it| it.strip_prefix(&line));
                    match count.and_then(|count| count.parse::<u64>().ok()) {
                        Some(1..) => Ok(()),
                        other => Err(format!("{other:?}")),
                    }
                },
            )
            .await;
    });
}

#[test]
fn no_log_line_holds_a_secret() {
    run(async {
        let space = playground().await.space("quiet").await;
        let agent = Agent::new("central.quiet.agent");
        space
            .file("agent", &central().await.instance, &agent.csr)
            .await;
        space.approve("agent").await;
        space.issued("agent").await;
        let log = playground().await.operator().log();
        assert!(log.contains("central.quiet.agent"), "decisions are logged");
        for word in [
            "PRIVATE KEY",
            "BEGIN CERTIFICATE",
            "Bearer ",
            "password_hash",
        ] {
            assert!(!log.contains(word), "{word:?} is in the operator's log");
        }
    });
}

#[test]
fn what_becomes_of_a_request_is_told_by_events() {
    run(async {
        let instance = &central().await.instance;
        let space = playground().await.space("events").await;
        let told = async |name: &str, reasons: &[(&str, &str)]| {
            let what = format!("Events {reasons:?} on {name}");
            let events = Api::<Event>::namespaced(space.playground.admin(), &space.namespace);
            space
                .playground
                .eventually(&what, SOON, async || {
                    let listed = events.list(&ListParams::default()).await;
                    let listed = listed.map_err(|error| error.to_string())?.items;
                    let told = |(kind, reason): &(&str, &str)| {
                        listed.iter().any(|event| {
                            let regards =
                                event.regarding.as_ref().and_then(|it| it.name.as_deref());
                            regards == Some(name)
                                && event.type_.as_deref() == Some(*kind)
                                && event.reason.as_deref() == Some(*reason)
                                && event.note.as_ref().is_some_and(|note| !note.is_empty())
                        })
                    };
                    let all = reasons.iter().all(told);
                    if all {
                        Ok(())
                    } else {
                        Err(format!("{listed:#?}"))
                    }
                })
                .await;
        };
        let agent = Agent::new("central.events.agent");
        space.file("agent", instance, &agent.csr).await;
        told("agent", &[("Normal", "Pending")]).await;
        space.approve("agent").await;
        space.issued("agent").await;
        space.deny("agent", "enough").await;
        space.phase("agent", Phase::Denied).await;
        told("agent", &[("Normal", "Issued"), ("Warning", "Denied")]).await;
        let nonsense = encode("nonsense");
        space
            .try_file("bad", instance, &nonsense, None)
            .await
            .unwrap();
        told("bad", &[("Warning", "Failed")]).await;
    });
}

/// Each line is a comment of a known kind or a sample of a family that was announced; the last is `# EOF`.
fn check_openmetrics(text: &str) {
    let body = text
        .strip_suffix("# EOF\n")
        .expect("OpenMetrics ends with # EOF");
    let mut families = Vec::new();
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let (kind, family) = (words.next().unwrap(), words.next().unwrap());
            assert!(["HELP", "TYPE", "UNIT"].contains(&kind), "{line}");
            assert!(words.next().is_some_and(|rest| !rest.is_empty()), "{line}");
            families.push(family.to_owned());
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a sample has a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
        let name = sample.split('{').next().unwrap();
        assert!(
            families
                .iter()
                .any(|family| name.starts_with(family.as_str())),
            "{line}: its family is not announced"
        );
        assert!(!sample.contains('{') || sample.ends_with('}'), "{line}");
    }
}
