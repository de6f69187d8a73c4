use super::*;
use crate::approval::standing;
use proptest::prelude::*;
use volttron_crds::{
    AutoApproval, DecisionHow, VolttronCertRequestSpec, VolttronCertRequestStatus, well_known,
};

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

/// Decides about `request`, as the only one for its name.
fn step<'a>(
    request: &'a VolttronCertRequest,
    checked: &'a Result<CheckedRequest, Rejection>,
    obstacle: Option<&'a Waiting>,
) -> Step<'a> {
    let standing = standing(request, &[], AutoApproval::Renewals);
    in_standing(request, checked, &standing, obstacle)
}

fn in_standing<'a>(
    request: &'a VolttronCertRequest,
    checked: &'a Result<CheckedRequest, Rejection>,
    standing: &Standing,
    obstacle: Option<&'a Waiting>,
) -> Step<'a> {
    decide(Observed {
        request,
        checked,
        // Steps borrow nothing of it.
        standing: Box::leak(Box::new(standing.clone())),
        shut_out: None,
        crowded_out: None,
        obstacle,
        pending_life: Duration::from_hours(168),
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
        Step::Pend(Some(missing.clone()))
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

#[test]
fn what_waits_too_long_lapses_and_can_be_approved_all_the_same() {
    let ok = Ok(checked());
    let mut old = request(None, Some(Phase::Pending), None);
    let created = "2026-05-25T12:00:00Z".parse().unwrap();
    old.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        created,
    ));
    assert_eq!(step(&old, &ok, None), Step::Lapse);
    old.metadata.annotations = request(Some("approved"), None, None).metadata.annotations;
    assert!(matches!(step(&old, &ok, None), Step::Issue(..)));
}

#[test]
fn what_is_shut_out_or_in_conflict_lapses_unless_an_administrator_wants_it() {
    let ok = Ok(checked());
    let shut = Waiting::Room(1);
    let created: Timestamp = "2026-05-25T12:00:00Z".parse().unwrap();
    for (shut_out, conflict) in [(Some(&shut), None), (None, Some(conflict()))] {
        for (word, auto, lapses) in [
            (None, AutoApproval::Never, true),
            (None, AutoApproval::Always, true),
            (Some("approved"), AutoApproval::Never, false),
        ] {
            let mut old = request(word, Some(Phase::Pending), None);
            old.metadata.creation_timestamp = Some(
                k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(created),
            );
            let mut standing = standing(&old, &[], auto);
            standing.conflict.clone_from(&conflict);
            let step = decide(Observed {
                request: &old,
                checked: &ok,
                standing: &standing,
                shut_out,
                crowded_out: None,
                obstacle: None,
                pending_life: Duration::from_hours(168),
                now: now(),
            });
            let what = format!("{word:?} {auto:?} {shut_out:?}: {step:?}");
            assert_eq!(step == Step::Lapse, lapses, "{what}");
            assert!(lapses || matches!(step, Step::Pend(Some(_))), "{what}");
        }
    }
}

fn conflict() -> Conflict {
    Conflict {
        requester: "another".into(),
        request: "plant/another".into(),
        bound: true,
    }
}

#[test]
fn limits_hold_back_what_is_new_and_take_nothing_away() {
    let ok = Ok(checked());
    let full = Waiting::Room(3);
    let shut = Waiting::Namespace {
        instance: "volttron/central".into(),
        namespace: "elsewhere".into(),
        why: "",
    };
    let decided = |request: &VolttronCertRequest| {
        let standing = standing(request, &[], AutoApproval::Renewals);
        let step = decide(Observed {
            request,
            checked: &ok,
            standing: &standing,
            shut_out: Some(&shut),
            crowded_out: Some(&full),
            obstacle: None,
            pending_life: Duration::from_hours(168),
            now: now(),
        });
        format!("{step:?}")
    };
    let shut_out = format!("{:?}", Step::Pend(Some(shut.clone())));
    assert_eq!(decided(&request(None, None, None)), shut_out);
    assert_eq!(decided(&request(Some("approved"), None, None)), shut_out);
    let issued = request(Some("approved"), Some(Phase::Issued), FUTURE);
    assert!(decided(&issued).starts_with("Issue"));
    let denied = request(Some("denied"), Some(Phase::Issued), FUTURE);
    assert!(decided(&denied).starts_with("Deny"));
}

#[test]
fn a_conflict_stops_an_approval_only_where_the_name_is_bound_or_a_policy_approves() {
    let ok = Ok(checked());
    let pending = request(None, None, None);
    for (how, bound, stops) in [
        (DecisionHow::Manual, true, true),
        (DecisionHow::Manual, false, false),
        (DecisionHow::Renewal, false, false),
        (DecisionHow::Policy, false, true),
    ] {
        let conflict = Conflict {
            requester: "mallory".into(),
            request: "b/r".into(),
            bound,
        };
        let standing = Standing {
            ruling: Some(Ruling {
                approved: true,
                how,
                by: None,
                reason: None,
                request: None,
                request_uid: None,
            }),
            conflict: Some(conflict.clone()),
            ..Standing::default()
        };
        let step = in_standing(&pending, &ok, &standing, None);
        let stopped = step == Step::Pend(Some(Waiting::Conflict(conflict)));
        assert_eq!(stopped, stops, "{how:?} {bound}: {step:?}");
    }
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
