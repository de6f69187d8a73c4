use super::trial::{Trial, Tried};
use super::*;
use kube::core::Status;
use kube::runtime::{reflector, watcher};

fn refused(code: u16, reason: &str, message: &str) -> Result<(), kube::Error> {
    let status = Status::failure(message, reason).with_code(code);
    Err(kube::Error::Api(status.boxed()))
}

fn request(name: &str, annotations: &[(&str, &str)]) -> VolttronCertRequest {
    let mut request = probe("rita", false);
    request.metadata.name = Some(name.to_owned());
    request.metadata.namespace = Some("plant".to_owned());
    let annotations = annotations
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    request.metadata.annotations = Some(annotations.collect());
    request
}

fn store(requests: &[VolttronCertRequest]) -> Store<VolttronCertRequest> {
    let (store, mut writer) = reflector::store();
    for request in requests {
        writer.apply_watcher_event(&watcher::Event::Apply(request.clone()));
    }
    store
}

#[test]
fn only_the_rule_itself_proves_the_gate() {
    let by_gate = "ValidatingAdmissionPolicy 'volttron-approval-gate' with binding \
        'volttron-approval-gate' denied request: 'x' may not decide on this request: that takes \
        the verb 'approve' on volttroninstances";
    let by_another_rule = "ValidatingAdmissionPolicy 'volttron-approval-gate' denied request: \
        'x' filed this request and may not decide on it";
    let tried = Tried {
        what: "it",
        policy: GATE,
        rule: VERB_RULE,
        name: "agent",
    };
    let judge = |refusal| tried.judge(refusal);
    let trial = |refusal| judge(refusal).unwrap();
    assert_eq!(trial(refused(403, "Forbidden", by_gate)), Trial::Refused);
    for (code, reason, message) in [
        (403, "Forbidden", by_another_rule),
        (403, "Forbidden", "cannot patch resource"),
        (422, "Invalid", "metadata.annotations: Too long"),
        (400, "BadRequest", "admission webhook denied"),
    ] {
        let trial = trial(refused(code, reason, message));
        assert!(
            matches!(trial, Trial::Inconclusive(_)),
            "{message}: {trial:?}"
        );
    }
    assert!(matches!(trial(Ok(())), Trial::Accepted(_)));
    assert_eq!(trial(refused(404, "NotFound", "not found")), Trial::Gone);
    for (code, reason) in [(429, "TooManyRequests"), (500, "InternalError"), (401, "")] {
        assert!(judge(refused(code, reason, "later")).is_err(), "{code}");
    }
}

#[test]
fn a_text_is_the_same_each_time() {
    let text = |name: &str| {
        let tried = Tried {
            what: "it",
            policy: GATE,
            rule: "",
            name,
        };
        tried.judge(refused(403, "Forbidden", &format!("{name} is bad")))
    };
    assert_eq!(text("probe-1").unwrap(), text("probe-2").unwrap());
}

#[test]
fn what_is_tried_is_never_what_stands() {
    let tried = |stands: &[(&str, &str)]| {
        flipped(&request("agent", stands))["metadata"]["annotations"][well_known::DECISION]
            .as_str()
            .unwrap()
            .to_owned()
    };
    assert_eq!(tried(&[]), "approved");
    assert_eq!(tried(&[(well_known::DECISION, "approved")]), "denied");
    assert_eq!(tried(&[(well_known::DECISION, "denied")]), "approved");
    assert_eq!(tried(&[(well_known::DECISION, "maybe")]), "approved");
}

#[test]
fn each_round_is_on_another_request_with_room() {
    assert!(candidate(&store(&[]), 7).is_none());
    let large = "x".repeat(MOST_ANNOTATED);
    let full = request("full", &[("example.org/much", &large)]);
    assert!(candidate(&store(std::slice::from_ref(&full)), 0).is_none());
    let all = store(&[request("one", &[]), request("two", &[]), full]);
    let names: std::collections::BTreeSet<_> = (0..3)
        .map(|round| candidate(&all, round).unwrap().name_any())
        .collect();
    assert_eq!(names, ["one".to_owned(), "two".to_owned()].into());
}
