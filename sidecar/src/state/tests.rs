use super::*;
use volttron_crds::{Condition, Decision, DecisionHow, set_condition};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn later() -> Timestamp {
    Timestamp::from_second(3600).unwrap()
}

fn status(phase: Phase) -> VolttronCertRequestStatus {
    VolttronCertRequestStatus {
        phase: Some(phase),
        ..VolttronCertRequestStatus::default()
    }
}

fn condition(kind: &str, holds: bool, message: &str) -> Vec<Condition> {
    let mut conditions = Vec::new();
    set_condition(&mut conditions, kind, holds.into(), "R", message, None, NOW);
    conditions
}

/// An observation of a request that is there with `status`, and a link.
fn present<'a>(status: Option<&'a VolttronCertRequestStatus>, link: &'a Link) -> Observed<'a> {
    Observed {
        request_for: RequestFor::Known {
            name: "forwarder-0123456789",
            namespace: "building-7",
        },
        request: RequestSeen::Present(status),
        offer: Offer::None,
        held: None,
        link,
    }
}

#[track_caller]
fn assert_next(observed: &Observed<'_>, state: State, order: Order, words: &str) {
    let next = next(observed, NOW);
    assert_eq!((next.state, next.order), (state, order), "{}", next.reason);
    assert!(
        next.reason.contains(words),
        "{:?} lacks {words:?}",
        next.reason
    );
}

#[test]
fn nothing_is_filed_before_the_instance_was_seen() {
    let mut observed = present(None, &Link::Idle);
    observed.request_for = RequestFor::Unknown("waiting for VolttronInstance a/b".to_owned());
    assert_next(
        &observed,
        State::Filing,
        Order::Stay,
        "VolttronInstance a/b",
    );
}

#[test]
fn a_name_that_cannot_be_asked_for_fails_and_says_why() {
    let mut observed = present(None, &Link::Idle);
    observed.request_for = RequestFor::Impossible("65 characters".to_owned());
    assert_next(&observed, State::Failed, Order::Leave, "65 characters");
}

#[test]
fn a_request_that_is_not_there_is_filed_and_filed_again_when_that_failed() {
    let mut observed = present(None, &Link::Idle);
    observed.request = RequestSeen::Absent(None);
    assert_next(&observed, State::Filing, Order::File, "filing");
    observed.request = RequestSeen::Absent(Some("refused: quota"));
    assert_next(&observed, State::Filing, Order::File, "quota");
}

#[test]
fn nothing_is_filed_while_it_is_not_known_whether_the_request_is_there() {
    let mut observed = present(None, &Link::Idle);
    observed.request = RequestSeen::Unknown(Some("forbidden"));
    assert_next(&observed, State::Filing, Order::Stay, "forbidden");
}

#[test]
fn a_foreign_request_of_our_name_is_reported_with_the_remedy() {
    let mut observed = present(None, &Link::Idle);
    observed.request = RequestSeen::Foreign("it was filed with another key".to_owned());
    assert_next(&observed, State::Failed, Order::Leave, "another key");
    assert_next(&observed, State::Failed, Order::Leave, "kubectl delete vcr");
}

#[test]
fn an_undecided_request_waits_and_says_how_to_approve_it() {
    let words = "kubectl annotate vcr forwarder-0123456789 -n building-7 \
                 volttron.org/decision=approved";
    let mut undecided = status(Phase::Pending);
    let observed = present(Some(&undecided), &Link::Idle);
    assert_next(&observed, State::Pending, Order::Stay, words);
    undecided.conditions = condition("Approved", false, "another requester holds this name");
    let observed = present(Some(&undecided), &Link::Idle);
    assert_next(&observed, State::Pending, Order::Stay, "another requester");
    assert_next(&observed, State::Pending, Order::Stay, words);
}

#[test]
fn a_request_that_nobody_looked_at_says_so() {
    assert_next(
        &present(None, &Link::Idle),
        State::Pending,
        Order::Stay,
        "not looked at",
    );
}

#[test]
fn an_issued_certificate_waits_for_address_and_authority() {
    let issued = status(Phase::Issued);
    let mut observed = present(Some(&issued), &Link::Idle);
    observed.offer = Offer::Incomplete("the address");
    assert_next(&observed, State::Issued, Order::Stay, "the address");
    observed.offer = Offer::Invalid("for another key");
    assert_next(&observed, State::Issued, Order::Stay, "for another key");
}

#[test]
fn an_issued_certificate_is_connected_with() {
    let issued = status(Phase::Issued);
    let links = [
        (Link::Idle, State::Issued, "issued"),
        (Link::Opening(None), State::Connecting, "opening"),
        (
            Link::Opening(Some("refused".to_owned())),
            State::Connecting,
            "refused",
        ),
        (Link::Open(None), State::Connected, "connected"),
        (
            Link::Open(Some("memory".to_owned())),
            State::Connected,
            "memory",
        ),
    ];
    for (link, state, words) in links {
        let mut observed = present(Some(&issued), &link);
        observed.offer = Offer::Valid(later());
        assert_next(&observed, state, Order::Connect, words);
        assert_eq!(next(&observed, NOW).until, Some(later()));
    }
}

#[test]
fn a_denial_closes_the_connection_and_names_who_denied_it() {
    let mut denied = status(Phase::Denied);
    denied.decision = Some(Decision {
        by: Some("alice".to_owned()),
        at: NOW.to_string(),
        how: DecisionHow::Manual,
        request: None,
        request_uid: None,
        reason: Some("unknown building".to_owned()),
    });
    let link = Link::Open(None);
    let mut observed = present(Some(&denied), &link);
    observed.offer = Offer::Valid(later());
    observed.held = Some(later());
    assert_next(
        &observed,
        State::Denied,
        Order::Leave,
        "denied by alice: unknown building",
    );
}

#[test]
fn an_approval_after_a_denial_goes_on() {
    let approved = status(Phase::Approved);
    let observed = present(Some(&approved), &Link::Idle);
    assert_next(&observed, State::Pending, Order::Stay, "approved");
}

#[test]
fn a_failed_request_shows_the_controllers_words() {
    let mut failed = status(Phase::Failed);
    failed.conditions = condition("Failed", true, "the CSR asks for two common names");
    let observed = present(Some(&failed), &Link::Idle);
    assert_next(&observed, State::Failed, Order::Leave, "two common names");
}

#[test]
fn a_request_that_is_gone_is_filed_again_when_the_broker_ends_the_connection() {
    let (open, lost) = (Link::Open(None), Link::Opening(Some("refused".to_owned())));
    let mut observed = present(None, &open);
    observed.held = Some(later());
    for request in [RequestSeen::Deleted, RequestSeen::Absent(None)] {
        observed.request = request;
        assert_next(&observed, State::Connected, Order::Stay, "is gone");
    }
    observed.held = Some(NOW);
    assert_next(&observed, State::Filing, Order::File, "filing");
    observed.held = Some(later());
    observed.link = &lost;
    assert_next(&observed, State::Filing, Order::File, "filing");
    observed.request = RequestSeen::Deleted;
    assert_next(&observed, State::Filing, Order::Leave, "being deleted");
}

#[test]
fn a_status_that_is_lost_for_a_moment_does_not_close_the_connection() {
    let link = Link::Open(None);
    let mut observed = present(None, &link);
    observed.held = Some(later());
    assert_next(&observed, State::Connected, Order::Stay, "connected");
}

#[test]
fn a_request_that_nobody_decided_on_says_so_and_not_that_a_certificate_ran_out() {
    let mut lapsed = status(Phase::Expired);
    lapsed.not_after = None;
    lapsed.conditions = condition("Issued", false, "nobody decided on it within 168h");
    let link = Link::Idle;
    let observed = present(Some(&lapsed), &link);
    assert_next(&observed, State::Expired, Order::Leave, "within 168h");
}

#[test]
fn a_certificate_is_not_used_beyond_its_end() {
    let issued = status(Phase::Issued);
    let link = Link::Open(None);
    let mut observed = present(Some(&issued), &link);
    observed.offer = Offer::Valid(NOW);
    assert_next(&observed, State::Expired, Order::Leave, "ran out");
    observed.offer = Offer::None;
    observed.held = Some(NOW);
    assert_next(&observed, State::Expired, Order::Leave, "ran out");
}
