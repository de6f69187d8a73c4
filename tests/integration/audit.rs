//! What remains of a decision: one Event, and one line in the log that is fit for an audit.

use crate::shared::{central, playground};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, ObjectMeta};
use serde_json::json;
use volttron_crds::{
    InstanceReference, Phase, VolttronCertRequest, VolttronCertRequestSpec, well_known,
};
use volttron_tests::{Agent, SOON, Space, encode, run};

/// What a line is to say of a decision, beside what is the same for all lines of a request.
struct Line<'a> {
    decision: &'a str,
    how: &'a str,
    by: &'a str,
    reason: &'a str,
    carried_by: &'a str,
    event: (&'a str, &'a str),
}

const APPROVED: (&str, &str) = ("Normal", "Approved");
const DENIED: (&str, &str) = ("Warning", "Denied");
const APPROVAL: Line<'static> = Line {
    decision: "approved",
    how: "manual",
    by: "alice",
    reason: "",
    carried_by: "",
    event: APPROVED,
};
const DENIAL: Line<'static> = Line {
    decision: "denied",
    reason: "stolen",
    event: DENIED,
    ..APPROVAL
};

#[test]
fn every_decision_leaves_one_line_and_one_event() {
    run(async {
        let instance = &central().await.instance;
        let space = playground().await.space("audit").await;
        let file = async |name: &str, word: &str| {
            let agent = Agent::new(&format!("central.audit.{word}"));
            space.file(name, instance, &agent.csr).await;
        };
        file("first", "renewing").await;
        space.approve("first").await;
        space.issued("first").await;
        file("second", "renewing").await;
        space.issued("second").await;
        space.deny("second", "stolen").await;
        for name in ["first", "second"] {
            space.phase(name, Phase::Denied).await;
        }
        let of = |name: &str| format!("{}/{name}", space.namespace);
        let (first, second) = (of("first"), of("second"));
        let with_identity = Line {
            how: "policy",
            carried_by: &second,
            ..DENIAL
        };
        let renewal = Line {
            how: "renewal",
            carried_by: &first,
            ..APPROVAL
        };
        left(&space, "first", &[APPROVAL, with_identity]).await;
        left(&space, "second", &[renewal, DENIAL]).await;

        file("again", "again").await;
        space.approve("again").await;
        space.issued("again").await;
        space.deny("again", "stolen").await;
        space.phase("again", Phase::Denied).await;
        space.approve("again").await;
        left(&space, "again", &[APPROVAL, DENIAL, APPROVAL]).await;
    });
}

#[test]
fn an_approval_that_has_no_effect_leaves_its_traces_too() {
    run(async {
        let instance = &central().await.instance;
        let space = playground().await.space("audit-none").await;
        let elsewhere = Agent::new("elsewhere.audit.agent");
        space.file("unfit", instance, &elsewhere.csr).await;
        space.phase("unfit", Phase::Failed).await;
        space.approve("unfit").await;
        left(&space, "unfit", &[APPROVAL]).await;
        let says = space.says("unfit", "Approved", "Approved").await;
        assert!(says.contains("cannot be signed"), "{says}");
        assert_eq!(space.get("unfit").await.phase(), Some(Phase::Failed));
        take_back(&space, "unfit").await;
        left(&space, "unfit", &[APPROVAL, withdrawal()]).await;
    });
}

#[test]
fn an_approval_that_is_taken_back_is_told_and_the_certificate_stays() {
    run(async {
        let instance = &central().await.instance;
        let space = playground().await.space("audit-back").await;
        let agent = Agent::new("central.audit.taken");
        space.file("taken", instance, &agent.csr).await;
        space.approve("taken").await;
        space.issued("taken").await;
        take_back(&space, "taken").await;
        let says = space.says("taken", "Approved", "ApprovalWithdrawn").await;
        assert!(says.contains("deny the request"), "{says}");
        let taken = space.get("taken").await;
        assert_eq!(taken.phase(), Some(Phase::Issued));
        assert_eq!(taken.status.unwrap().decision, None);
        left(&space, "taken", &[APPROVAL, withdrawal()]).await;
    });
}

#[test]
fn a_corrected_reason_is_shown_and_makes_no_new_decision() {
    run(async {
        let instance = &central().await.instance;
        let space = playground().await.space("audit-typo").await;
        let agent = Agent::new("central.audit.typo");
        space.file("typo", instance, &agent.csr).await;
        space.deny("typo", "stolem").await;
        let before = space.phase("typo", Phase::Denied).await;
        let other = Agent::new("central.audit.typo");
        space.file("other", instance, &other.csr).await;
        space.phase("other", Phase::Denied).await;
        space.approve("other").await;
        let is_in =
            |it: &VolttronCertRequest| matches!(it.phase(), Some(Phase::Approved | Phase::Issued));
        space.until("other", "is in", SOON, is_in).await;
        let reason = json!({well_known::REASON: "stolen"});
        space.try_decide("typo", reason).await.unwrap();
        let after = space
            .until("typo", "has the new reason", SOON, |it| {
                let decision = it.status.as_ref().and_then(|it| it.decision.as_ref());
                decision.and_then(|it| it.reason.as_deref()) == Some("stolen")
            })
            .await;
        let at = |it: VolttronCertRequest| it.status.unwrap().decision.unwrap().at;
        assert_eq!(at(before), at(after));
        let misspelt = Line {
            reason: "stolem",
            ..DENIAL
        };
        left(&space, "typo", &[misspelt, DENIAL]).await;
        // The identity was let in after that denial, and stays in.
        let third = Agent::new("central.audit.typo");
        space.file("third", instance, &third.csr).await;
        space.until("third", "is in", SOON, is_in).await;
        assert!(is_in(&space.get("other").await));
    });
}

#[test]
fn a_requester_writes_nothing_of_its_own_into_the_log() {
    run(async {
        let instance = &central().await.instance;
        let space = playground().await.space("audit-forged").await;
        let eve = "eve decision=\"approved\" by=\"alice\" requester=\"adam";
        let request = VolttronCertRequest {
            metadata: ObjectMeta {
                name: Some("forged".to_owned()),
                namespace: Some(space.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: VolttronCertRequestSpec {
                instance_ref: InstanceReference {
                    name: instance.name.clone(),
                    namespace: Some(instance.namespace.clone()),
                },
                request: encode(Agent::new("central.audit.forged").csr),
                duration: None,
                requester: eve.to_owned(),
            },
            status: None,
        };
        let (user, group) = (format!("--as={eve}"), "--as-group=system:masters");
        let input = serde_json::to_string(&request).unwrap();
        let (filed, said) = playground()
            .await
            .kubectl(&["create", "-f", "-", &user, group], &input)
            .await;
        assert!(filed, "{said}");
        space.phase("forged", Phase::Pending).await;
        space.deny("forged", "stolen").await;
        space.phase("forged", Phase::Denied).await;
        left(&space, "forged", &[DENIAL]).await;
    });
}

/// The line of a decision that was taken back.
fn withdrawal() -> Line<'static> {
    Line {
        decision: "withdrawn",
        by: "unknown",
        event: ("Normal", "Withdrawn"),
        ..APPROVAL
    }
}

async fn take_back(space: &Space<'_>, name: &str) {
    let none = json!({well_known::DECISION: null});
    space.try_decide(name, none).await.unwrap();
}

/// Waits until a request has left exactly these lines, in this order, and an Event for each.
async fn left(space: &Space<'_>, name: &str, lines: &[Line<'_>]) {
    let request = space.get(name).await;
    let expected: Vec<Vec<String>> = lines.iter().map(|line| fields(&request, line)).collect();
    let events = Api::<Event>::namespaced(space.playground.admin(), &space.namespace);
    let what = format!("{name} leaves {} decisions", lines.len());
    space
        .playground
        .eventually(&what, SOON, async || {
            let log = space.playground.operator().log();
            let about = format!(" request={}/{name} ", space.namespace);
            let found: Vec<&str> = log
                .lines()
                .filter(|line| line.contains(": decision ") && line.contains(&about))
                .collect();
            let as_expected = found.len() == expected.len()
                && found.iter().zip(&expected).all(|(line, fields)| {
                    fields
                        .iter()
                        .all(|field| line.matches(field.as_str()).count() == 1)
                });
            if !as_expected {
                return Err(format!("{found:#?}\nand not {expected:#?}"));
            }
            let listed = events.list(&ListParams::default()).await;
            let listed = listed.map_err(|error| error.to_string())?.items;
            for line in lines {
                let told = |event: &&Event| {
                    let regarding = event.regarding.as_ref();
                    regarding.and_then(|it| it.uid.as_ref()) == request.metadata.uid.as_ref()
                        && event.type_.as_deref() == Some(line.event.0)
                        && event.reason.as_deref() == Some(line.event.1)
                };
                let wanted = lines.iter().filter(|it| it.event == line.event).count();
                let count: i32 = listed
                    .iter()
                    .filter(told)
                    .map(|event| event.series.as_ref().map_or(1, |series| series.count))
                    .sum();
                if usize::try_from(count) != Ok(wanted) {
                    return Err(format!("{count} Events {:?}, not {wanted}", line.event));
                }
            }
            Ok(())
        })
        .await;
}

/// The fields of a line, as they are written: what comes from outside is quoted.
fn fields(request: &VolttronCertRequest, line: &Line<'_>) -> Vec<String> {
    let status = request.status.clone().unwrap_or_default();
    let mut fields = vec![
        format!(" decision={:?} ", line.decision),
        format!(" how={:?} ", line.how),
        format!(" by={:?} ", line.by),
        format!(
            " uid={:?} ",
            request.metadata.uid.as_deref().unwrap_or_default()
        ),
        " instance=VolttronInstance.v1alpha1.volttron.org/central".to_owned(),
        format!(" common_name={:?} ", status.common_name.unwrap_or_default()),
        format!(" requester={:?} ", request.spec.requester),
        format!(" key={:?}", status.key_fingerprint.unwrap_or_default()),
    ];
    if line.decision != "withdrawn" {
        fields.push(format!(" reason={:?} ", line.reason));
        fields.push(format!(" carried_by={:?}", line.carried_by));
    }
    fields
}
