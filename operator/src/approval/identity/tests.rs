use super::*;
use crate::approval::Waiting;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use std::time::Duration;
use volttron_crds::{
    Condition, ConditionStatus, VolttronCertRequestSpec, set_condition, well_known,
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// UID of `plant/r<number>`.
fn uid_of(carrier: &str) -> String {
    format!("{:0>4}", carrier.trim_start_matches("plant/r"))
}

/// Request `number`, filed at that second.
fn filed(number: i64, requester: &str) -> VolttronCertRequest {
    let spec = VolttronCertRequestSpec {
        requester: requester.to_owned(),
        ..VolttronCertRequestSpec::default()
    };
    let mut request = VolttronCertRequest::new(&format!("r{number}"), spec);
    request.metadata.namespace = Some("plant".to_owned());
    request.metadata.uid = Some(format!("{number:04}"));
    request.metadata.creation_timestamp = Some(Time(at(number)));
    request
}

fn annotated(mut request: VolttronCertRequest, word: Option<&str>) -> VolttronCertRequest {
    request.metadata.annotations = word.map(|word| {
        let annotation = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        [
            annotation(well_known::DECISION, word),
            annotation(well_known::DECIDED_BY, "alice"),
        ]
        .into()
    });
    request
}

/// As the controller records a decision of second `when`.
fn recorded_as(
    mut request: VolttronCertRequest,
    phase: Phase,
    how: DecisionHow,
    carrier: Option<&str>,
    when: i64,
) -> VolttronCertRequest {
    let denied = phase == Phase::Denied;
    let mut status = request.status.take().unwrap_or_default();
    status.phase = Some(phase);
    status.decision = Some(Decision {
        by: Some("alice".to_owned()),
        at: at(when).to_string(),
        how,
        request: carrier.map(str::to_owned),
        request_uid: carrier.map(uid_of),
        reason: None,
    });
    let mut conditions: Vec<Condition> = Vec::new();
    let ended = how == DecisionHow::Policy && verdict(&request).is_some_and(|it| it.approved);
    for (kind, holds) in [
        ("Approved", !denied),
        ("Denied", denied),
        ("Issued", phase == Phase::Issued),
    ] {
        let value = ConditionStatus::from(holds);
        let reason = if ended { APPROVAL_ENDED } else { "Test" };
        set_condition(&mut conditions, kind, value, reason, "", None, at(when));
    }
    status.conditions = conditions;
    if phase == Phase::Issued {
        status.not_before = Some(at(when).to_string());
    }
    request.status = Some(status);
    request
}

fn approved(number: i64, requester: &str, when: i64) -> VolttronCertRequest {
    let request = annotated(filed(number, requester), Some("approved"));
    recorded_as(request, Phase::Issued, DecisionHow::Manual, None, when)
}

fn renewed(number: i64, requester: &str, carrier: &str) -> VolttronCertRequest {
    recorded_as(
        filed(number, requester),
        Phase::Issued,
        DecisionHow::Renewal,
        Some(carrier),
        number,
    )
}

fn denied(number: i64, requester: &str, when: i64) -> VolttronCertRequest {
    let request = annotated(filed(number, requester), Some("denied"));
    recorded_as(request, Phase::Denied, DecisionHow::Manual, None, when)
}

fn stand(request: &VolttronCertRequest, peers: &[VolttronCertRequest]) -> Standing {
    stand_with(request, peers, AutoApproval::Renewals)
}

fn stand_with(
    request: &VolttronCertRequest,
    peers: &[VolttronCertRequest],
    auto: AutoApproval,
) -> Standing {
    standing(request, &shared(peers), auto)
}

fn shared(peers: &[VolttronCertRequest]) -> Vec<Arc<VolttronCertRequest>> {
    peers.iter().cloned().map(Arc::new).collect()
}

/// The ruling in short: approved or denied, how, and by which request.
fn ruling(standing: &Standing) -> Option<(bool, DecisionHow, Option<&str>)> {
    let ruling = standing.ruling.as_ref()?;
    Some((ruling.approved, ruling.how, ruling.request.as_deref()))
}

#[test]
fn a_later_request_of_an_approved_identity_is_a_renewal() {
    let (first, later) = (approved(1, "a", 2), filed(10, "a"));
    let first = std::slice::from_ref(&first);
    let renewal = Some((true, DecisionHow::Renewal, Some("plant/r1")));
    assert_eq!(ruling(&stand(&later, first)), renewal);
    assert_eq!(
        ruling(&stand_with(&later, first, AutoApproval::Never)),
        None
    );
    assert_eq!(
        ruling(&stand_with(&later, first, AutoApproval::Always)),
        renewal
    );
    assert_eq!(
        ruling(&stand_with(&later, &[], AutoApproval::Always)),
        Some((true, DecisionHow::Policy, None))
    );
    assert_eq!(ruling(&stand(&later, &[])), None);
}

#[test]
fn a_renewal_carries_nothing_and_neither_does_what_failed_or_is_being_deleted() {
    let later = filed(10, "a");
    let renewal = renewed(5, "a", "plant/r1");
    assert_eq!(ruling(&stand(&later, &[renewal])), None);
    let mut failed = approved(1, "a", 2);
    failed.status.as_mut().unwrap().phase = Some(Phase::Failed);
    assert_eq!(ruling(&stand(&later, &[failed])), None);
    let mut going = approved(1, "a", 2);
    going.metadata.deletion_timestamp = Some(Time(at(3)));
    assert_eq!(ruling(&stand(&later, &[going])), None);
}

#[test]
fn the_latest_decision_about_an_identity_holds_for_all_its_requests() {
    let (first, second, later) = (
        approved(1, "a", 2),
        renewed(5, "a", "plant/r1"),
        filed(10, "a"),
    );
    let denial = denied(6, "a", 7);
    let policy = Some((false, DecisionHow::Policy, Some("plant/r6")));
    for request in [&later, &first, &second] {
        let mut peers = vec![denial.clone(), first.clone(), second.clone(), later.clone()];
        peers.retain(|peer| peer.metadata.uid != request.metadata.uid);
        assert_eq!(ruling(&stand(request, &peers)), policy);
        assert!(!gives_access(request, &shared(&peers)));
    }
    // Approved again, by another request of the identity.
    let again = approved(8, "a", 9);
    let peers = [first, second, denial.clone(), again];
    assert_eq!(
        ruling(&stand(&later, &peers)),
        Some((true, DecisionHow::Renewal, Some("plant/r8")))
    );
    assert_eq!(
        ruling(&stand(&denial, &peers)),
        Some((false, DecisionHow::Manual, None)),
        "a denied request itself stays denied"
    );
}

#[test]
fn a_denial_that_is_written_but_not_recorded_yet_counts_as_the_latest() {
    let written = annotated(renewed(5, "a", "plant/r1"), Some("denied"));
    let later = filed(10, "a");
    assert_eq!(
        ruling(&stand(&later, &[approved(1, "a", 2), written])),
        Some((false, DecisionHow::Policy, Some("plant/r5")))
    );
}

#[test]
fn an_approval_that_was_ended_comes_back_with_the_lifting_and_not_with_the_deletion_of_the_denial()
{
    let ended = annotated(filed(1, "a"), Some("approved"));
    let ended = recorded_as(
        ended,
        Phase::Denied,
        DecisionHow::Policy,
        Some("plant/r6"),
        7,
    );
    let later = filed(10, "a");
    let lifted = recorded_as(filed(6, "a"), Phase::Denied, DecisionHow::Manual, None, 7);
    let peers = [lifted];
    assert_eq!(
        ruling(&stand(&ended, &peers)),
        Some((true, DecisionHow::Manual, None))
    );
    // The denying request is gone: its denial is forgotten, the approval is not what it was.
    assert_eq!(
        ruling(&stand(&ended, &[])),
        Some((false, DecisionHow::Policy, Some("plant/r6")))
    );
    assert_eq!(ruling(&stand(&later, std::slice::from_ref(&ended))), None);
    // Somebody files another request under its name: that lifts nothing.
    let mut namesake = filed(6, "a");
    namesake.metadata.uid = Some("another".to_owned());
    assert_eq!(
        ruling(&stand(&ended, &[namesake])),
        Some((false, DecisionHow::Policy, Some("plant/r6")))
    );
    // It was recorded without a UID: then nothing tells that it is the same request.
    let mut unsure = ended;
    let decision = unsure.status.as_mut().unwrap().decision.as_mut();
    decision.unwrap().request_uid = None;
    assert_eq!(
        ruling(&stand(&unsure, &peers)),
        Some((false, DecisionHow::Policy, Some("plant/r6")))
    );
}

#[test]
fn an_approval_that_nobody_has_looked_at_yet_is_as_old_as_its_request_may_make_it() {
    let denial = denied(6, "a", 7);
    let denial = std::slice::from_ref(&denial);
    // They are told apart only by when they were filed: before, or after the denial.
    for (number, is_in) in [(1, false), (7, false), (8, true)] {
        let unseen = annotated(filed(number, "a"), Some("approved"));
        let ruling = stand(&unseen, denial).ruling.unwrap();
        assert_eq!(ruling.approved, is_in, "filed at {number}");
    }
}

#[test]
fn a_denial_is_recorded_after_the_approvals_that_it_ends() {
    let unrecorded = annotated(renewed(5, "a", "plant/r1"), Some("approved"));
    let denial = annotated(filed(6, "a"), Some("denied"));
    let waits = |denial: &VolttronCertRequest, other: &VolttronCertRequest| {
        stand(denial, std::slice::from_ref(other)).denial_waits
    };
    assert!(waits(&denial, &unrecorded));
    assert!(!waits(&denial, &approved(5, "a", 6)), "it is recorded");
    assert!(
        !waits(&denied(6, "a", 7), &unrecorded),
        "the approval is later"
    );
    let elsewhere = annotated(filed(5, "b"), Some("approved"));
    assert!(!waits(&denial, &elsewhere), "another identity");
    let ended = annotated(filed(5, "a"), Some("approved"));
    let ended = recorded_as(
        ended,
        Phase::Denied,
        DecisionHow::Policy,
        Some("plant/r6"),
        7,
    );
    assert!(!waits(&denial, &ended), "it is ended already");
}

#[test]
fn a_request_that_was_denied_with_its_identity_and_approved_afterwards_is_in() {
    let with_identity = recorded_as(
        filed(9, "a"),
        Phase::Denied,
        DecisionHow::Policy,
        Some("plant/r6"),
        9,
    );
    let approved = annotated(with_identity, Some("approved"));
    let denial = denied(6, "a", 7);
    assert_eq!(
        ruling(&stand(&approved, std::slice::from_ref(&denial))),
        Some((true, DecisionHow::Manual, None))
    );
    assert_eq!(
        ruling(&stand(&filed(20, "a"), &[approved, denial])),
        Some((true, DecisionHow::Renewal, Some("plant/r9")))
    );
}

#[test]
fn a_denial_says_nothing_about_another_requester() {
    let later = filed(10, "b");
    let standing = stand(&later, &[denied(1, "a", 2)]);
    assert_eq!(standing, Standing::default());
}

#[test]
fn a_bound_name_is_a_conflict_for_other_requesters_however_they_are_approved() {
    let bound = approved(1, "a", 2);
    let conflict = Some(Conflict {
        requester: "a".into(),
        request: "plant/r1".into(),
        bound: true,
    });
    for word in [None, Some("approved")] {
        let other = annotated(filed(10, "b"), word);
        for auto in [
            AutoApproval::Never,
            AutoApproval::Renewals,
            AutoApproval::Always,
        ] {
            let standing = stand_with(&other, std::slice::from_ref(&bound), auto);
            assert_eq!(standing.conflict, conflict, "{word:?} {auto:?}");
            assert!(standing.is_blocked());
        }
    }
    assert_eq!(
        stand(&bound, &[annotated(filed(10, "b"), Some("approved"))]).conflict,
        None,
        "who has the name is in no conflict"
    );
    let renewal = renewed(20, "c", "plant/gone");
    assert!(stand(&filed(30, "b"), &[renewal]).is_blocked());
}

#[test]
fn the_first_of_two_that_wait_is_no_conflict_and_an_approval_settles_it() {
    let (first, second) = (filed(1, "a"), filed(2, "b"));
    assert_eq!(stand(&first, std::slice::from_ref(&second)).conflict, None);
    let standing = stand(&second, std::slice::from_ref(&first));
    let conflict = standing.conflict.clone().unwrap();
    assert!(!conflict.bound && conflict.request == "plant/r1");
    assert!(
        Waiting::Conflict(conflict).to_string().contains("plant/r1"),
        "the message names it"
    );
    let chosen = annotated(second, Some("approved"));
    assert!(!stand(&chosen, std::slice::from_ref(&first)).is_blocked());
    assert!(stand(&first, std::slice::from_ref(&chosen)).is_blocked());
}

#[test]
fn of_two_filed_in_one_second_the_one_that_was_looked_at_first_stays_first() {
    let twin = |uid: &str, requester: &str, phase| {
        let mut request = filed(1, requester);
        request.metadata.uid = Some(uid.to_owned());
        request.status = Some(VolttronCertRequestStatus {
            phase,
            ..VolttronCertRequestStatus::default()
        });
        request
    };
    let known = twin("9", "a", Some(Phase::Pending));
    let mut new = twin("1", "b", None);
    assert!(stand(&new, std::slice::from_ref(&known)).conflict.is_some());
    let status = new.status.as_mut().unwrap();
    status.phase = Some(Phase::Pending);
    let told = ConditionStatus::True;
    set_condition(
        &mut status.conditions,
        "Conflict",
        told,
        "Test",
        "",
        None,
        at(1),
    );
    assert!(stand(&new, std::slice::from_ref(&known)).conflict.is_some());
    assert_eq!(stand(&known, std::slice::from_ref(&new)).conflict, None);
}

#[test]
fn of_two_that_are_approved_at_once_exactly_one_goes_ahead() {
    let first = annotated(filed(1, "a"), Some("approved"));
    let second = annotated(filed(2, "b"), Some("approved"));
    assert!(!stand(&first, std::slice::from_ref(&second)).is_blocked());
    assert!(stand(&second, std::slice::from_ref(&first)).is_blocked());
}

const GRACE: Duration = Duration::from_mins(1);
const KEEP: Duration = Duration::from_hours(1);

fn removable(request: &VolttronCertRequest, peers: &[VolttronCertRequest]) -> Option<Timestamp> {
    removable_at(request, &shared(peers), GRACE, KEEP)
}

#[test]
fn superseded_renewals_go_and_what_carries_the_approval_stays() {
    let carrier = approved(1, "a", 2);
    let (second, third) = (renewed(5, "a", "plant/r1"), renewed(9, "a", "plant/r1"));
    let all = [carrier.clone(), second.clone(), third.clone()];
    let others = |request: &VolttronCertRequest| -> Vec<_> {
        let all = all
            .iter()
            .filter(|it| it.metadata.uid != request.metadata.uid);
        all.cloned().collect()
    };
    assert_eq!(removable(&carrier, &others(&carrier)), None);
    assert_eq!(removable(&second, &others(&second)), Some(at(9 + 60)));
    assert_eq!(removable(&third, &others(&third)), None);
    // Another requester's certificate supersedes nothing.
    assert_eq!(removable(&second, &[renewed(9, "b", "x")]), None);
}

#[test]
fn what_came_to_nothing_goes_after_a_while_and_decisions_stay() {
    assert_eq!(removable(&denied(1, "a", 2), &[]), None);
    assert_eq!(removable(&filed(1, "a"), &[]), None);
    let mut failed = filed(1, "a");
    let mut conditions = Vec::new();
    let holds = ConditionStatus::True;
    set_condition(&mut conditions, "Failed", holds, "Test", "", None, at(3));
    failed.status = Some(VolttronCertRequestStatus {
        phase: Some(Phase::Failed),
        conditions,
        ..VolttronCertRequestStatus::default()
    });
    assert_eq!(removable(&failed, &[]), Some(at(3 + 3600)));
    // Its condition says so since it expired.
    let mut lapsed = failed.clone();
    let status = lapsed.status.as_mut().unwrap();
    status.phase = Some(Phase::Expired);
    status.conditions.clear();
    let holds = ConditionStatus::False;
    let conditions = &mut status.conditions;
    set_condition(conditions, "Issued", holds, "Test", "", None, at(7));
    assert_eq!(removable(&lapsed, &[]), Some(at(7 + 3600)));
    let with_identity = recorded_as(
        filed(5, "a"),
        Phase::Denied,
        DecisionHow::Policy,
        Some("plant/r1"),
        6,
    );
    let denial = denied(1, "a", 2);
    assert_eq!(
        removable(&with_identity, std::slice::from_ref(&denial)),
        Some(at(6 + 3600))
    );
    assert_eq!(
        removable(&with_identity, &[denial, filed(9, "a")]),
        Some(at(9 + 60))
    );
}

fn any_request() -> impl Strategy<Value = VolttronCertRequest> {
    let word = prop::sample::select(vec![None, Some("approved"), Some("denied"), Some("x")]);
    let requester = prop::sample::select(vec!["a", "b"]);
    let phase = prop::sample::select(vec![
        None,
        Some(Phase::Pending),
        Some(Phase::Issued),
        Some(Phase::Denied),
        Some(Phase::Failed),
        Some(Phase::Expired),
    ]);
    let how = prop::sample::select(vec![
        DecisionHow::Manual,
        DecisionHow::Renewal,
        DecisionHow::Policy,
    ]);
    let carrier = prop::sample::select(vec![None, Some("plant/r1"), Some("plant/r2")]);
    (0..6_i64, requester, word, phase, how, carrier, 0..9_i64).prop_map(
        |(number, requester, word, phase, how, carrier, when)| {
            let request = annotated(filed(number, requester), word);
            match phase {
                Some(phase) => recorded_as(request, phase, how, carrier, when),
                None => request,
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Whatever the history: an approval comes from an approver's hand on a request of the same
    /// requester, unless the instance approves everything, and a denial of one's own holds.
    #[test]
    fn nobody_is_approved_but_by_an_approval(
        request in any_request(),
        mut peers in prop::collection::vec(any_request(), 0..6),
        always: bool,
    ) {
        peers.retain(|peer| peer.metadata.uid != request.metadata.uid);
        let auto = if always { AutoApproval::Always } else { AutoApproval::Renewals };
        let standing = stand_with(&request, &peers, auto);
        let by_hand = |request: &VolttronCertRequest| verdict(request).map(|it| it.approved);
        if by_hand(&request) == Some(false) {
            prop_assert!(!standing.ruling.as_ref().unwrap().approved);
        }
        if standing.ruling.as_ref().is_some_and(|ruling| ruling.approved) {
            let approved = peers
                .iter()
                .filter(|peer| peer.spec.requester == request.spec.requester)
                .chain([&request])
                .any(|it| by_hand(it) == Some(true));
            prop_assert!(approved || always);
        }
        let _ = removable(&request, &peers);
    }

    /// Two requesters are never both let through to the same name.
    #[test]
    fn a_name_goes_to_one_requester(
        mut requests in prop::collection::vec(any_request(), 2..6),
    ) {
        requests.sort_by(|a, b| a.metadata.uid.cmp(&b.metadata.uid));
        requests.dedup_by(|a, b| a.metadata.uid == b.metadata.uid);
        requests.retain(|request| request.phase() != Some(Phase::Issued));
        let mut let_in: Vec<&str> = Vec::new();
        for request in &requests {
            let mut peers = requests.clone();
            peers.retain(|peer| peer.metadata.uid != request.metadata.uid);
            let standing = stand(request, &peers);
            let approved = standing.ruling.as_ref().is_some_and(|ruling| ruling.approved);
            if approved && !standing.is_blocked() && request.phase() != Some(Phase::Failed) {
                let_in.push(&request.spec.requester);
            }
        }
        let_in.dedup();
        prop_assert!(let_in.len() <= 1, "{let_in:?}");
    }
}
