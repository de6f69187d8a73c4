use super::*;
use proptest::prelude::*;
use volttron_crds::{VolttronCertRequestSpec, VolttronCertRequestStatus, well_known};

fn now() -> Timestamp {
    "2026-06-01T12:00:00Z".parse().unwrap()
}

fn request(
    decision: Option<&str>,
    phase: Option<Phase>,
    ends: Option<&str>,
) -> VolttronCertRequest {
    let mut request = VolttronCertRequest::new("r", VolttronCertRequestSpec::default());
    request.metadata.annotations =
        decision.map(|word| [(well_known::DECISION.to_owned(), word.to_owned())].into());
    request.status = phase.map(|phase| VolttronCertRequestStatus {
        phase: Some(phase),
        certificate: ends.map(|_| "a certificate".to_owned()),
        not_after: ends.map(str::to_owned),
        ..VolttronCertRequestStatus::default()
    });
    request
}

fn checked() -> CheckedRequest {
    CheckedRequest {
        common_name: "central.collector2.forwarder".parse().unwrap(),
        key: crate::pki::SubjectKey {
            spki: Vec::new(),
            algorithm: crate::pki::KeyKind::P256,
        },
    }
}

fn step<'a>(
    request: &'a VolttronCertRequest,
    checked: &'a Result<CheckedRequest, Rejection>,
    obstacle: Option<&'a Waiting>,
) -> Step<'a> {
    decide(Observed {
        request,
        checked,
        obstacle,
        now: now(),
    })
}

const FUTURE: Option<&str> = Some("2026-09-01T00:00:00Z");
const PAST: Option<&str> = Some("2026-06-01T12:00:00Z");

#[test]
fn an_undecided_request_waits_for_an_administrator() {
    let ok = Ok(checked());
    assert_eq!(
        step(&request(None, None, None), &ok, None),
        Step::Pend(None)
    );
    let missing = Waiting::Instance("default/central".into());
    assert_eq!(
        step(&request(None, None, None), &ok, Some(&missing)),
        Step::Pend(Some(&missing))
    );
}

#[test]
fn an_unknown_word_is_no_decision() {
    let ok = Ok(checked());
    for word in ["", "Approved", "yes", "approved "] {
        assert_eq!(
            step(&request(Some(word), None, None), &ok, None),
            Step::Pend(None),
            "{word:?}"
        );
    }
}

#[test]
fn an_approved_request_is_issued_once_nothing_stands_in_the_way() {
    let ok = Ok(checked());
    let approved = request(Some("approved"), Some(Phase::Pending), None);
    assert!(matches!(step(&approved, &ok, None), Step::Issue(..)));
    for obstacle in [
        Waiting::Instance("x".into()),
        Waiting::Authority("x".into()),
        Waiting::Broker("x".into()),
        Waiting::Gate("x".into()),
    ] {
        assert!(
            matches!(step(&approved, &ok, Some(&obstacle)), Step::Hold(_, held) if *held == obstacle),
            "{obstacle}"
        );
    }
}

#[test]
fn a_denial_holds_whatever_else_is_wrong() {
    let gate = Waiting::Gate("x".into());
    for (checked, obstacle, phase, ends) in [
        (Ok(checked()), None, Phase::Pending, None),
        (Ok(checked()), Some(&gate), Phase::Issued, FUTURE),
        (Ok(checked()), None, Phase::Issued, PAST),
        (Err(Rejection::NoCommonName), None, Phase::Failed, None),
    ] {
        let denied = request(Some("denied"), Some(phase), ends);
        assert!(
            matches!(step(&denied, &checked, obstacle), Step::Deny(_)),
            "{phase:?}"
        );
    }
}

#[test]
fn an_issued_certificate_stays_while_the_broker_is_away_or_the_annotation_is_gone() {
    let ok = Ok(checked());
    let broker = Waiting::Broker("x".into());
    for word in [None, Some("approved")] {
        let issued = request(word, Some(Phase::Issued), FUTURE);
        assert!(
            matches!(step(&issued, &ok, Some(&broker)), Step::Keep(_)),
            "{word:?}"
        );
    }
    assert!(matches!(
        step(&request(None, Some(Phase::Issued), FUTURE), &ok, None),
        Step::Keep(_)
    ));
}

#[test]
fn a_lifted_denial_waits_again_and_an_approved_one_is_issued() {
    let ok = Ok(checked());
    assert_eq!(
        step(&request(None, Some(Phase::Denied), FUTURE), &ok, None),
        Step::Pend(None)
    );
    let approved = request(Some("approved"), Some(Phase::Denied), FUTURE);
    assert!(matches!(step(&approved, &ok, None), Step::Issue(..)));
}

#[test]
fn a_certificate_ends_at_its_time() {
    let ok = Ok(checked());
    for word in [None, Some("approved")] {
        assert_eq!(
            step(&request(word, Some(Phase::Issued), PAST), &ok, None),
            Step::Expire
        );
    }
}

#[test]
fn what_cannot_be_signed_fails_even_if_approved() {
    let bad = Err(Rejection::NoCommonName);
    let approved = request(Some("approved"), None, None);
    assert_eq!(
        step(&approved, &bad, None),
        Step::Fail(&Rejection::NoCommonName)
    );
}

fn words() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        Just(None),
        Just(Some("approved".to_owned())),
        Just(Some("denied".to_owned())),
        ".{0,12}".prop_map(Some),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn nothing_is_signed_without_an_approval_and_a_clear_way(
        word in words(),
        phase in prop::sample::select(vec![None, Some(Phase::Pending), Some(Phase::Approved), Some(Phase::Issued), Some(Phase::Denied), Some(Phase::Failed), Some(Phase::Expired)]),
        ends in prop::sample::select(vec![None, FUTURE, PAST, Some("nonsense")]),
        sound: bool,
        blocked: bool,
    ) {
        let request = request(word.as_deref(), phase, ends);
        let checked = if sound { Ok(checked()) } else { Err(Rejection::NotBase64) };
        let obstacle = Waiting::Gate("down".into());
        let step = step(&request, &checked, blocked.then_some(&obstacle));
        if let Step::Issue(verdict, _) = &step {
            prop_assert!(verdict.approved && sound && !blocked);
            prop_assert_eq!(word.as_deref(), Some("approved"));
        }
        prop_assert_eq!(matches!(step, Step::Deny(_)), word.as_deref() == Some("denied"));
    }
}
