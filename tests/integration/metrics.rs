//! What the metrics are for: that alerts on them work.

use crate::shared::{Turn, disturbed, playground};
use local_cluster::Base;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use volttron_crds::Phase;
use volttron_tests::{Agent, Instance, Playground, encode, run};

/// Gauges follow with the next look at the instance.
const MEASURED: Duration = Duration::from_secs(75);
/// The shortest life of a certificate is a minute.
const RUN_OUT: Duration = Duration::from_mins(3);

/// `increase` and `rate` see nothing of a series that begins with a 1.
#[test]
fn all_decisions_are_counted_from_0_on() {
    run(async {
        let playground = disturbed().await;
        playground.plant().await;
        playground.operator().kill();
        playground.operator().start_again();
        playground.operator().wait_ready().await;
        let replica = playground.replica("counted").await;
        // What was left here by others may be decided on by the one that leads.
        for (operator, counts) in [(playground.operator(), true), (&replica.operator, false)] {
            let text = operator.get("/metrics").await.unwrap().body;
            let decisions: Vec<&str> = text
                .lines()
                .filter(|line| line.starts_with("volttron_decisions_total{"))
                .collect();
            assert_eq!(decisions.len(), 6, "{text}");
            for line in decisions {
                assert!(counts || line.ends_with("} 0"), "{line}");
            }
            let issued = value(&text, "volttron_certificates_issued_total");
            assert!(
                issued.is_some() && (counts || issued == Some(0.0)),
                "{text}"
            );
            for kind in ["VolttronInstance", "VolttronCertRequest"] {
                for result in [
                    "ok",
                    "kubernetes",
                    "conflict",
                    "broker",
                    "revocation",
                    "sign",
                ] {
                    let labels = format!("{{kind=\"{kind}\",result=\"{result}\"}}");
                    let name = format!("volttron_reconciles_total{labels}");
                    assert!(value(&text, &name).is_some(), "no {name} in {text}");
                }
            }
        }
        playground.operator().kill();
        playground.operator().start_again();
    });
}

#[test]
fn the_time_to_a_certificate_holds_what_it_waited_for() {
    run(async {
        let playground = disturbed().await;
        let space = playground.space("waited").await;
        let instance = playground.instance(&space.namespace, "waiting", json!({}));
        let instance = instance.await;
        let csr = Agent::new("waiting.waited.agent").csr;
        space.file("agent", &instance, &csr).await;
        space.phase("agent", Phase::Pending).await;
        let (count, sum) = issuances(&playground).await;
        space.approve("agent").await;
        space.says("agent", "Issued", "BrokerNotReady").await;
        let held = Instant::now();
        // That takes seconds, and signing thousandths of one.
        let _broker = instance.start_broker(Base::Machine).await;
        let held = held.elapsed().as_secs_f64();
        space.issued_within("agent", MEASURED).await;
        let (later_count, later_sum) = issuances(&playground).await;
        assert!(later_count >= count + 1.0, "{count}, now {later_count}");
        let took = later_sum - sum;
        assert!(took >= held, "it waited {held} s, and {took} s are told");
        instance.delete().await;
    });
}

#[test]
fn an_identity_that_ran_out_is_told_until_it_is_denied() {
    run(async {
        let playground = playground().await;
        let space = playground.space("ranout").await;
        let instance = playground.instance(&space.namespace, "short", json!({}));
        let broker = instance.await.start_broker(Base::Machine).await;
        let instance = &broker.instance;
        let csr = encode(Agent::new("short.ranout.agent").csr);
        let filed = space.try_file("agent", instance, &csr, Some("1m")).await;
        filed.unwrap();
        space.approve("agent").await;
        space.issued("agent").await;
        tells(playground, "volttron_identities_expired", instance, 0.0).await;
        space.phase_within("agent", Phase::Expired, RUN_OUT).await;
        tells(playground, "volttron_identities_expired", instance, 1.0).await;
        let overdue = "volttron_identities_renewal_overdue";
        tells(playground, overdue, instance, 0.0).await;
        space.deny("agent", "gone for good").await;
        tells(playground, "volttron_identities_expired", instance, 0.0).await;
        let max_pending = "volttron_requests_max_pending";
        tells(playground, max_pending, instance, 1000.0).await;
    });
}

/// `/metrics` is compared with the tables of the documentation elsewhere; so what is asked for is there.
#[test]
fn alerts_ask_for_documented_series_and_are_documented() {
    let documentation = read("docs/metrics.md");
    let rows = |prefix: &str| -> Vec<Vec<String>> {
        let rows = documentation.lines().filter(|it| it.starts_with(prefix));
        rows.map(|row| {
            row.split('|')
                .map(|cell| cell.trim().replace('`', ""))
                .collect()
        })
        .collect()
    };
    let series = rows("| `volttron_");
    let text = read("charts/volttron-operator/files/alerts.yaml");
    let rules: Value = serde_yaml_ng::from_str(&text).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap();
    let mut shipped = BTreeSet::new();
    for rule in rules {
        let (name, asks) = (string(&rule["alert"]), string(&rule["expr"]));
        let words: BTreeSet<&str> = asks
            .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
            .collect();
        let mut labels = BTreeSet::from(["le"]);
        let mut found = 0;
        for word in words.iter().filter(|word| word.starts_with("volttron_")) {
            let family = word.trim_end_matches("_bucket");
            let row = series.iter().find(|row| row[1] == family);
            let row =
                row.unwrap_or_else(|| panic!("{name} asks for {word}, which is not documented"));
            labels.extend(row[3].split(", "));
            found += 1;
        }
        assert!(found > 0, "{name} asks for nothing of ours");
        let told = format!("{} {}", rule["annotations"], asks);
        for label in labels_in(&told) {
            assert!(labels.contains(label), "{name}: there is no label {label}");
        }
        for text in ["summary", "description"] {
            assert!(
                rule["annotations"][text].is_string(),
                "{name} has no {text}"
            );
        }
        shipped.insert((
            name.to_owned(),
            string(&rule["labels"]["severity"]).to_owned(),
        ));
    }
    let documented = rows("| `Volttron").into_iter();
    let documented: BTreeSet<_> = documented
        .map(|row| (row[1].clone(), row[2].clone()))
        .collect();
    assert_eq!(shipped, documented);
}

/// Labels that a selector or a template names.
fn labels_in(text: &str) -> impl Iterator<Item = &str> {
    let selectors = text.split(['{', ',']).filter_map(|part| {
        let (name, _) = part.split_once(['=', '!'])?;
        let name = name.trim();
        let is_name = name.chars().all(|it| it.is_ascii_lowercase() || it == '_');
        (is_name && !name.is_empty()).then_some(name)
    });
    let templates = text.split("$labels.").skip(1).filter_map(|rest| {
        let name = rest.split(|it: char| !it.is_ascii_lowercase() && it != '_');
        name.into_iter().next()
    });
    selectors.chain(templates)
}

fn read(path: &str) -> String {
    let path = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn string(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
}

/// The value of the series `name`, which has its labels with it.
fn value(text: &str, name: &str) -> Option<f64> {
    let mut lines = text.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(value.parse().unwrap())
}

/// How many certificates were issued, and how many seconds that took.
async fn issuances(playground: &Turn) -> (f64, f64) {
    let text = playground.operator().get("/metrics").await.unwrap().body;
    let of = |part: &str| value(&text, &format!("volttron_issuance_duration_seconds_{part}"));
    (of("count").unwrap(), of("sum").unwrap())
}

async fn tells(playground: &Playground, name: &str, instance: &Instance<'_>, wanted: f64) {
    let (namespace, vinst) = (&instance.namespace, &instance.name);
    let name = format!("{name}{{vinst_namespace=\"{namespace}\",vinst=\"{vinst}\"}}");
    playground
        .eventually(&format!("{name} is {wanted}"), MEASURED, async || {
            let text = playground.operator().get("/metrics").await?.body;
            match value(&text, &name) {
                Some(now) if (now - wanted).abs() < 0.5 => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
}
