//! What the operator tells about itself.

use crate::shared::{central, playground};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use local_cluster::Base;
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use volttron_crds::Phase;
use volttron_tests::{Agent, Instance, SOON, encode, run};

/// Gauges follow with the next look at the instance.
const MEASURED: Duration = Duration::from_secs(75);

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
        let labels = format!("{{vinst_namespace=\"{namespace}\",vinst=\"central\"}}");
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
        let line = format!(
            "volttron_requests{{vinst_namespace=\"{namespace}\",vinst=\"central\",phase=\"Issued\"}} "
        );
        playground
            .eventually("issued requests are counted", MEASURED, async || {
                let text = playground.operator().get("/metrics").await?.body;
                let count = text.lines().find_map(|it| it.strip_prefix(&line));
                match count.and_then(|count| count.parse::<u64>().ok()) {
                    Some(1..) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .await;
    });
}

#[test]
fn the_table_of_metrics_is_complete_and_every_label_is_in_it() {
    run(async {
        let broker = central().await;
        let playground = playground().await;
        let space = playground.space("table").await;
        let agent = Agent::new("central.table.agent");
        space.file("agent", &broker.instance, &agent.csr).await;
        space.approve("agent").await;
        space.issued("agent").await;
        let documented = documented();
        playground
            .eventually("metrics are as documented", MEASURED, async || {
                let shown = shown(&playground.operator().get("/metrics").await?.body);
                if shown == documented {
                    return Ok(());
                }
                Err(format!(
                    "/metrics: {shown:#?}\ndocs/metrics.md: {documented:#?}"
                ))
            })
            .await;
    });
}

#[test]
fn decisions_are_counted_by_how_they_came_about() {
    run(async {
        let playground = playground().await;
        let space = playground.space("counted").await;
        let always = json!({"approval": {"auto": "Always"}});
        let instance = playground
            .instance(&space.namespace, "counting", always)
            .await;
        let renewing = playground.instance(&space.namespace, "renewing", json!({}));
        let renewing = renewing.await;
        let kinds = [
            ("approved", "policy"),
            ("approved", "manual"),
            ("approved", "renewal"),
            ("denied", "manual"),
            ("denied", "policy"),
        ];
        let mut before = BTreeMap::new();
        for kind in kinds {
            before.insert(kind, decisions(kind).await);
        }
        let file = async |name: &str, instance: &Instance<'_>, word: &str| {
            let csr = Agent::new(&format!("{}.counted.{word}", instance.name)).csr;
            space.file(name, instance, &csr).await;
        };
        file("policy", &instance, "agent").await;
        space.phase("policy", Phase::Approved).await;
        file("manual", &renewing, "agent").await;
        space.phase("manual", Phase::Pending).await;
        space.approve("manual").await;
        space.phase("manual", Phase::Approved).await;
        file("renewal", &renewing, "agent").await;
        space.phase("renewal", Phase::Approved).await;
        space.deny("manual", "enough").await;
        for name in ["manual", "renewal"] {
            space.phase(name, Phase::Denied).await;
        }
        for (kind, before) in before {
            playground
                .eventually(&format!("{kind:?} is counted"), SOON, async || {
                    // Other tests decide as well.
                    let now = decisions(kind).await;
                    if now > before {
                        Ok(())
                    } else {
                        Err(format!("{before}, now {now}"))
                    }
                })
                .await;
        }

        // The gauges of an instance go with it.
        let of_it = format!(
            "{{vinst_namespace=\"{}\",vinst=\"counting\"",
            space.namespace
        );
        gauges(&of_it, true).await;
        instance.delete().await;
        gauges(&of_it, false).await;
        renewing.delete().await;
    });
}

#[test]
fn the_end_that_is_told_is_that_of_an_identitys_last_certificate() {
    run(async {
        let playground = playground().await;
        let space = playground.space("ends").await;
        let instance = playground.instance(&space.namespace, "ending", json!({}));
        let broker = instance.await.start_broker(Base::Machine).await;
        let name = "volttron_certificate_earliest_not_after_timestamp_seconds";
        let metric = of_instance(name, &broker.instance);
        assert_eq!(sample(&metric).await, None);
        let issue = async |name: &str, word: &str, duration: &str| {
            let csr = encode(Agent::new(&format!("ending.ends.{word}")).csr);
            let filed = space.try_file(name, &broker.instance, &csr, Some(duration));
            filed.await.unwrap();
            space.approve(name).await;
            let status = space.issued(name).await.request.status.unwrap();
            let end: jiff::Timestamp = status.not_after.unwrap().parse().unwrap();
            end.as_second()
        };
        let first = issue("first", "agent", "24h").await;
        tells(&metric, first).await;
        issue("second", "agent", "72h").await;
        let other = issue("other", "other", "48h").await;
        tells(&metric, other).await;

        let revoked = of_instance("volttron_revoked_certificates", &broker.instance);
        let signed = of_instance("volttron_revocation_list_number", &broker.instance);
        let enforced = of_instance("volttron_revocation_list_enforced_number", &broker.instance);
        let rotating = of_instance("volttron_ca_rotating", &broker.instance);
        let before = sample(&signed).await.expect("a list is signed at once");
        assert_eq!(sample(&revoked).await, Some(0));
        assert_eq!(sample(&rotating).await, Some(0));
        space.deny("other", "lost").await;
        space.phase("other", Phase::Denied).await;
        playground
            .eventually("the broker enforces a later list", MEASURED, async || {
                broker.refresh_files().await;
                let numbers = (sample(&signed).await, sample(&enforced).await);
                match numbers {
                    (Some(signed), Some(enforced)) if signed == enforced && signed > before => {
                        Ok(())
                    }
                    _ => Err(format!("{before}, now {numbers:?}")),
                }
            })
            .await;
        tells(&revoked, 1).await;
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

/// A metric's kind and the names of its labels.
type Metrics = BTreeMap<String, (String, BTreeSet<String>)>;

/// The table of docs/metrics.md.
fn documented() -> Metrics {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md");
    let text = std::fs::read_to_string(path).unwrap();
    // The sidecar's are compared in its own tests.
    let rows = text.lines().filter(|line| {
        line.starts_with("| `volttron_") && !line.starts_with("| `volttron_sidecar_")
    });
    let quoted = |cell: &str| -> Vec<String> {
        let words = cell.split('`').skip(1).step_by(2);
        words.map(str::to_owned).collect()
    };
    let metrics = rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        assert!(!cells[4].is_empty(), "{row}: no meaning");
        let labels = quoted(cells[3]).into_iter().collect();
        (quoted(cells[1]).remove(0), (cells[2].to_owned(), labels))
    });
    metrics.collect()
}

/// What /metrics shows, with counters as they are queried.
fn shown(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    let mut family = String::new();
    for line in text.lines() {
        if let Some(announced) = line.strip_prefix("# TYPE ") {
            let (name, kind) = announced.split_once(' ').unwrap();
            let total = if kind == "counter" { "_total" } else { "" };
            family = format!("{name}{total}");
            metrics.insert(family.clone(), (kind.to_owned(), BTreeSet::new()));
        } else if let (false, Some((_, labels))) = (line.starts_with('#'), line.split_once('{')) {
            let names = labels.split("=\"").filter_map(|part| {
                let name = part.rsplit(['"', ',']).next()?;
                (!name.is_empty() && !name.contains('}')).then(|| name.to_owned())
            });
            let known = &mut metrics.get_mut(&family).unwrap().1;
            // A histogram's own label.
            known.extend(names.filter(|name| name != "le"));
        }
    }
    metrics
}

fn of_instance(name: &str, instance: &Instance<'_>) -> String {
    let (namespace, instance) = (&instance.namespace, &instance.name);
    format!("{name}{{vinst_namespace=\"{namespace}\",vinst=\"{instance}\"}}")
}

/// The value of a metric, with its labels.
async fn sample(metric: &str) -> Option<i64> {
    let text = playground().await.operator().get("/metrics").await.unwrap();
    let mut lines = text.body.lines();
    let value = lines.find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    value.map(|value| value.parse().unwrap())
}

async fn decisions((decision, how): (&str, &str)) -> i64 {
    let labels = format!("{{decision=\"{decision}\",how=\"{how}\"}}");
    let metric = format!("volttron_decisions_total{labels}");
    sample(&metric).await.unwrap_or(0)
}

async fn tells(metric: &str, value: i64) {
    playground()
        .await
        .eventually(
            &format!("{metric} is {value}"),
            MEASURED,
            async || match sample(metric).await {
                Some(now) if now == value => Ok(()),
                other => Err(format!("{other:?}")),
            },
        )
        .await;
}

async fn gauges(labels: &str, wanted: bool) {
    let what = format!("there are gauges of {labels}: {wanted}");
    let playground = playground().await;
    playground
        .eventually(&what, MEASURED, async || {
            let text = playground.operator().get("/metrics").await?.body;
            let found: Vec<&str> = text.lines().filter(|line| line.contains(labels)).collect();
            if found.is_empty() == wanted {
                return Err(format!("{found:?}"));
            }
            Ok(())
        })
        .await;
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
