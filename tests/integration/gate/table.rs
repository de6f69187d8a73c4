//! The table: who does what, and what comes of it.

use volttron_crds::well_known::{DECIDED_BY, DECISION, POD_NAME, REASON};

use super::{Stamping, api};
use super::api::Change::{Annotations, Finalizer, NoFinalizer, Spec, Status};
use super::people::Person::{Agent, Alice, Anna, Ben, Controller, Olga, Rita, Root, Will};
use super::rows::Expected::{Absent, Is, Stamped};
use super::rows::Then::{Accepted, Refused};
use super::rows::What::{Change, Create, Delete, InstanceStatus};
use super::rows::{ELSEWHERE, Given, New, Requester, Row, Then, What};
use super::people::Person;

const UNDECIDED: Given = Given { by: Rita, decided: None, held: false, null_namespace: false };
const ALICES: Given = Given { by: Alice, ..UNDECIDED };
const OWN_NAMESPACE: Given = Given { null_namespace: true, ..UNDECIDED };
const APPROVED: Given = Given { decided: Some((Anna, &[(DECISION, Some("approved"))])), ..UNDECIDED };
const ALICES_APPROVED: Given = Given { by: Alice, ..APPROVED };
const DENIED: Given =
    Given { decided: Some((Anna, &[(DECISION, Some("denied")), (REASON, Some("unknown device"))])), ..UNDECIDED };
const SIGNED: Given =
    Given { decided: Some((Anna, &[(DECISION, Some("approved")), (DECIDED_BY, Some("gate:anna"))])), ..UNDECIDED };
const HELD: Given = Given { held: true, ..UNDECIDED };

const NO_VERB: &str = "may not decide on this request: that takes the verb 'approve' on volttroninstances 'central' in namespace 'gate-plant'";
const OWN_REQUEST: &str = "filed this request and may not decide on it: another approver has to";
const UNDECIDED_AT_FIRST: &str = "a request is created undecided: leave out the annotations volttron.org/decision";
const RECORD: &str = "volttron.org/decided-by is the record of who decided and changes only together with volttron.org/decision";
const IMMUTABLE: &str = "a request cannot be changed: delete it and file a new one";
const CLEANUP: &str = "the finalizer volttron.org/cleanup is set by the operator alone, and removed by it";
const STATUS: &str = "status is written by the operator (system:serviceaccount:";

/// All rows.
pub fn rows() -> Vec<Row> {
    [filing(), deciding(), taking_back(), signing(), signing_alone(), leaving_alone(), guarding()].into_iter().flatten().collect()
}

fn row(name: &'static str, who: Person, what: What, then: Then) -> Row {
    Row { name, who, what, then, only: None }
}

fn only(stamping: Stamping, row: Row) -> Row {
    Row { only: Some(stamping), ..row }
}

fn new() -> New {
    New::default()
}

fn filing() -> Vec<Row> {
    let with = |annotations| Create(New { annotations, ..new() });
    let naming = |name| Create(New { requester: Requester::Named(name), ..new() });
    let nameless = || Create(New { requester: Requester::Missing, ..new() });
    vec![
        row("filed", Rita, Create(new()), Accepted(&[(DECISION, Absent), (DECIDED_BY, Absent)])),
        row("filed with an annotation of no meaning here", Rita, with(&[(POD_NAME, Some("forwarder-0"))]), Accepted(&[(POD_NAME, Is("forwarder-0"))])),
        row("filed under a generated name", Rita, Create(New { generate_name: true, ..new() }), Accepted(&[])),
        row("filed with a status, which is dropped", Rita, Create(New { status: true, ..new() }), Accepted(&[])),
        row("filed by an administrator in their own name", Root, Create(new()), Accepted(&[])),
        row("filed with the controller's finalizer, which would hold it for ever", Rita, Create(New { held: true, ..new() }), Refused(CLEANUP)),
        row("created already approved", Rita, with(&[(DECISION, Some("approved"))]), Refused(UNDECIDED_AT_FIRST)),
        row("created already approved by an approver", Alice, with(&[(DECISION, Some("approved"))]), Refused(UNDECIDED_AT_FIRST)),
        row("created already approved by an administrator", Root, with(&[(DECISION, Some("approved"))]), Refused(UNDECIDED_AT_FIRST)),
        row("created already denied", Rita, with(&[(DECISION, Some("denied"))]), Refused(UNDECIDED_AT_FIRST)),
        row("created with an empty decision", Rita, with(&[(DECISION, Some(""))]), Refused(UNDECIDED_AT_FIRST)),
        row("created with a reason", Rita, with(&[(REASON, Some("mine"))]), Refused(UNDECIDED_AT_FIRST)),
        row("created signed", Rita, with(&[(DECIDED_BY, Some("gate:anna"))]), Refused(UNDECIDED_AT_FIRST)),
        row("created approved under a generated name", Rita, Create(New { generate_name: true, annotations: &[(DECISION, Some("approved"))], ..new() }), Refused(UNDECIDED_AT_FIRST)),
        row("in the name of somebody else", Rita, naming("gate:anna"), Refused("spec.requester is 'gate:anna' but the request is filed by 'gate:rita': set spec.requester to 'gate:rita'")),
        row("by an administrator in the name of somebody else", Root, naming("gate:rita"), Refused("set spec.requester to 'gate:root'")),
        only(Stamping::On, row("in nobody's name, stamped", Rita, nameless(), Accepted(&[]))),
        only(Stamping::On, row("in an empty name, stamped", Rita, naming(""), Accepted(&[]))),
        only(Stamping::Off, row("in nobody's name", Rita, nameless(), Refused("spec.requester"))),
        row("by a service account in its namespace", Agent, Create(new()), Accepted(&[])),
        row("by a service account, already approved", Agent, with(&[(DECISION, Some("approved"))]), Refused(UNDECIDED_AT_FIRST)),
        row("by a service account in another namespace", Agent, Create(New { namespace: Some(ELSEWHERE), ..new() }), Refused("'system:serviceaccount:gate-agents:agent' files requests in its own namespace only, not in 'gate-plant'")),
        row("by a service account in another's name", Agent, naming("system:serviceaccount:gate-agents:other"), Refused("set spec.requester to 'system:serviceaccount:gate-agents:agent'")),
    ]
}

fn deciding() -> Vec<Row> {
    let approve = Annotations(&[(DECISION, Some("approved"))]);
    let deny = Annotations(&[(DECISION, Some("denied"))]);
    let deny_with_reason = Annotations(&[(DECISION, Some("denied")), (REASON, Some("unknown device"))]);
    let decide = |value: api::Annotations| Change(UNDECIDED, Annotations(value));
    let nonsense = "write approved or denied, or remove the annotation to take a decision back";
    vec![
        row("approved by an approver", Anna, Change(UNDECIDED, approve), Accepted(&[(DECISION, Is("approved")), (DECIDED_BY, Stamped("gate:anna"))])),
        row("denied by an approver with a reason", Anna, Change(UNDECIDED, deny_with_reason), Accepted(&[(DECISION, Is("denied")), (REASON, Is("unknown device")), (DECIDED_BY, Stamped("gate:anna"))])),
        row("approved by an administrator", Root, Change(UNDECIDED, approve), Accepted(&[(DECISION, Is("approved")), (DECIDED_BY, Stamped("gate:root"))])),
        row("approved without the verb", Will, Change(UNDECIDED, approve), Refused(NO_VERB)),
        row("denied without the verb", Will, Change(UNDECIDED, deny), Refused(NO_VERB)),
        row("approved with the verb in another namespace", Olga, Change(UNDECIDED, approve), Refused(NO_VERB)),
        row("approved with the verb in the request's namespace, which is the instance's", Olga, Change(OWN_NAMESPACE, approve), Accepted(&[(DECISION, Is("approved"))])),
        row("approved without the verb where the instance's namespace is null", Will, Change(OWN_NAMESPACE, approve), Refused("on volttroninstances 'central' in namespace 'gate-agents'")),
        row("approved by the requester", Rita, Change(UNDECIDED, approve), Refused(NO_VERB)),
        row("approved by the requester who is an approver", Alice, Change(ALICES, approve), Refused(OWN_REQUEST)),
        row("denied by the requester who is an approver", Alice, Change(ALICES, deny), Refused(OWN_REQUEST)),
        row("an approver's own request approved by another", Anna, Change(ALICES, approve), Accepted(&[(DECISION, Is("approved")), (DECIDED_BY, Stamped("gate:anna"))])),
        row("approved by the controller", Controller, Change(UNDECIDED, approve), Refused(NO_VERB)),
        row("decided with a word of no meaning", Anna, decide(&[(DECISION, Some("yes"))]), Refused(nonsense)),
        row("decided in capitals", Anna, decide(&[(DECISION, Some("Approved"))]), Refused(nonsense)),
        row("decided in shouting", Anna, decide(&[(DECISION, Some("DENIED"))]), Refused(nonsense)),
        row("decided with a blank behind", Anna, decide(&[(DECISION, Some("approved "))]), Refused(nonsense)),
        row("decided with a line before", Anna, decide(&[(DECISION, Some("\napproved"))]), Refused("volttron.org/decision must be approved or denied")),
        row("decided both ways", Anna, decide(&[(DECISION, Some("approved,denied"))]), Refused(nonsense)),
        row("decided with blanks", Anna, decide(&[(DECISION, Some("  "))]), Refused(nonsense)),
        row("a decision changed to one that is none", Ben, Change(APPROVED, Annotations(&[(DECISION, Some("revoked"))])), Refused(nonsense)),
        row("decided among other annotations", Anna, decide(&[(POD_NAME, Some("forwarder-1")), (DECISION, Some("denied")), (REASON, Some("no"))]), Accepted(&[(DECISION, Is("denied")), (REASON, Is("no")), (POD_NAME, Is("forwarder-1")), (DECIDED_BY, Stamped("gate:anna"))])),
        row("decided among other annotations, without the verb", Will, decide(&[(POD_NAME, Some("forwarder-1")), (DECISION, Some("approved"))]), Refused(NO_VERB)),
        row("decided with nothing", Anna, decide(&[(DECISION, Some(""))]), Refused(nonsense)),
        row("emptied without the verb", Will, decide(&[(DECISION, Some(""))]), Refused(NO_VERB)),
        row("changed by another approver", Ben, Change(APPROVED, deny), Accepted(&[(DECISION, Is("denied")), (DECIDED_BY, Stamped("gate:ben"))])),
        row("changed without the verb", Will, Change(APPROVED, deny), Refused(NO_VERB)),
        row("changed by the requester", Rita, Change(DENIED, Annotations(&[(DECISION, Some("approved")), (REASON, Some("unknown device"))])), Refused(NO_VERB)),
        row("changed by the requester who is an approver", Alice, Change(ALICES_APPROVED, deny), Refused(OWN_REQUEST)),
        only(Stamping::On, row("changed, and the old reason goes", Ben, Change(DENIED, approve), Accepted(&[(DECISION, Is("approved")), (REASON, Absent), (DECIDED_BY, Is("gate:ben"))]))),
        row("changed with a new reason", Ben, Change(DENIED, Annotations(&[(DECISION, Some("approved")), (REASON, Some("found it"))])), Accepted(&[(REASON, Is("found it")), (DECIDED_BY, Stamped("gate:ben"))])),
        row("given a reason by another approver", Ben, Change(APPROVED, Annotations(&[(DECISION, Some("approved")), (REASON, Some("seen it"))])), Accepted(&[(DECISION, Is("approved")), (REASON, Is("seen it")), (DECIDED_BY, Stamped("gate:ben"))])),
        row("given a reason without the verb", Will, decide(&[(REASON, Some("mine"))]), Refused(NO_VERB)),
        row("given a reason by the requester who is an approver", Alice, Change(ALICES, Annotations(&[(REASON, Some("mine"))])), Refused(OWN_REQUEST)),
    ]
}

fn taking_back() -> Vec<Row> {
    let remove = Annotations(&[(DECISION, None)]);
    let remove_reason = Annotations(&[(DECISION, Some("denied")), (REASON, None)]);
    let remove_both = Annotations(&[(DECISION, None), (REASON, None)]);
    vec![
        row("taken back by another approver", Ben, Change(APPROVED, remove), Accepted(&[(DECISION, Absent), (DECIDED_BY, Absent)])),
        row("taken back with its reason", Ben, Change(DENIED, remove_both), Accepted(&[(DECISION, Absent), (REASON, Absent), (DECIDED_BY, Absent)])),
        row("taken back without the verb", Will, Change(APPROVED, remove), Refused(NO_VERB)),
        row("a denial lifted by the requester", Rita, Change(DENIED, remove_both), Refused(NO_VERB)),
        row("a decision taken back by the requester who is an approver", Alice, Change(ALICES_APPROVED, remove), Refused(OWN_REQUEST)),
        row("a decision taken back by the controller", Controller, Change(APPROVED, remove), Refused(NO_VERB)),
        row("a reason removed without the verb", Will, Change(DENIED, remove_reason), Refused(NO_VERB)),
        row("a reason removed by another approver", Ben, Change(DENIED, remove_reason), Accepted(&[(DECISION, Is("denied")), (REASON, Absent), (DECIDED_BY, Stamped("gate:ben"))])),
        row("a decided request deleted by its requester", Rita, Delete(APPROVED), Accepted(&[])),
    ]
}

fn signing() -> Vec<Row> {
    let sign = |value: api::Annotations| Annotations(value);
    let for_anna = sign(&[(DECISION, Some("approved")), (DECIDED_BY, Some("gate:anna"))]);
    let by_ben = sign(&[(DECISION, Some("approved")), (DECIDED_BY, Some("gate:ben"))]);
    let deny_and_keep = sign(&[(DECISION, Some("denied")), (DECIDED_BY, Some("gate:anna"))]);
    let deny_unsigned = sign(&[(DECISION, Some("denied")), (DECIDED_BY, None)]);
    vec![
        row("decided and signed in one's own name", Ben, Change(UNDECIDED, by_ben), Accepted(&[(DECIDED_BY, Is("gate:ben"))])),
        only(Stamping::On, row("decided in another's name, stamped", Ben, Change(UNDECIDED, for_anna), Accepted(&[(DECIDED_BY, Is("gate:ben"))]))),
        only(Stamping::On, row("changed under another's signature, stamped", Ben, Change(SIGNED, deny_and_keep), Accepted(&[(DECIDED_BY, Is("gate:ben"))]))),
        only(Stamping::On, row("changed without a signature, stamped", Ben, Change(SIGNED, deny_unsigned), Accepted(&[(DECIDED_BY, Is("gate:ben"))]))),
        only(Stamping::Off, row("decided in another's name", Ben, Change(UNDECIDED, for_anna), Refused("volttron.org/decided-by would name 'gate:anna' for a decision of 'gate:ben': remove it in the same command (volttron.org/decided-by-)"))),
        only(Stamping::Off, row("changed under another's signature", Ben, Change(SIGNED, deny_and_keep), Refused("volttron.org/decided-by would name 'gate:anna' for a decision of 'gate:ben'"))),
        only(Stamping::Off, row("changed with the signature removed", Ben, Change(SIGNED, deny_unsigned), Accepted(&[(DECISION, Is("denied")), (DECIDED_BY, Absent)]))),
    ]
}

/// A signature that changes without a decision is refused, or, where it is stamped, stays what it was.
fn signing_alone() -> Vec<Row> {
    let undecided: &[_] = &[(DECISION, Absent), (DECIDED_BY, Absent)];
    let signed: &[_] = &[(DECISION, Is("approved")), (DECIDED_BY, Is("gate:anna"))];
    let by = |value| Annotations(value);
    let ben: api::Annotations = &[(DECISION, Some("approved")), (DECIDED_BY, Some("gate:ben"))];
    let nobody: api::Annotations = &[(DECISION, Some("approved")), (DECIDED_BY, None)];
    let anna: api::Annotations = &[(DECIDED_BY, Some("gate:anna"))];
    let cases = [
        ("signed without a decision", Anna, UNDECIDED, anna, undecided),
        ("signed without a decision, by the requester", Rita, UNDECIDED, anna, undecided),
        ("signature changed by the one who writes it", Will, SIGNED, &[(DECISION, Some("approved")), (DECIDED_BY, Some("gate:will"))], signed),
        ("signature changed by another approver", Ben, SIGNED, ben, signed),
        ("signature changed by an administrator", Root, SIGNED, ben, signed),
        ("signature emptied", Ben, SIGNED, &[(DECISION, Some("approved")), (DECIDED_BY, Some(""))], signed),
        ("signature removed", Ben, SIGNED, nobody, signed),
    ];
    let both = cases.into_iter().flat_map(|(name, who, given, change, stays)| [
        only(Stamping::Off, row(name, who, Change(given, by(change)), Refused(RECORD))),
        only(Stamping::On, row(name, who, Change(given, by(change)), Accepted(stays))),
    ]);
    both.collect()
}

fn leaving_alone() -> Vec<Row> {
    let other = Annotations(&[(DECISION, Some("approved")), (POD_NAME, Some("forwarder-1"))]);
    let stays = || Accepted(&[(DECISION, Is("approved")), (DECIDED_BY, Stamped("gate:anna")), (POD_NAME, Is("forwarder-1"))]);
    vec![
        row("another annotation, by the requester", Rita, Change(APPROVED, other), stays()),
        row("another annotation, by the requester who is an approver", Alice, Change(ALICES_APPROVED, other), stays()),
        row("another annotation, by the controller", Controller, Change(APPROVED, other), stays()),
        row("another annotation on an undecided request", Will, Change(UNDECIDED, Annotations(&[(POD_NAME, Some("forwarder-1"))])), Accepted(&[(DECISION, Absent)])),
        row("the same decision again, without the verb", Will, Change(APPROVED, Annotations(&[(DECISION, Some("approved"))])), Accepted(&[(DECISION, Is("approved")), (DECIDED_BY, Stamped("gate:anna"))])),
        row("the same decision again, by another approver", Ben, Change(APPROVED, Annotations(&[(DECISION, Some("approved"))])), Accepted(&[(DECIDED_BY, Stamped("gate:anna"))])),
    ]
}

fn guarding() -> Vec<Row> {
    vec![
        row("spec changed by the requester", Rita, Change(UNDECIDED, Spec("duration", "24h")), Refused(IMMUTABLE)),
        row("spec changed by an administrator", Root, Change(APPROVED, Spec("request", "YmFy")), Refused(IMMUTABLE)),
        row("requester changed by an approver", Alice, Change(ALICES, Spec("requester", "gate:rita")), Refused(IMMUTABLE)),
        row("finalizer set by the requester", Rita, Change(UNDECIDED, Finalizer), Refused(CLEANUP)),
        row("finalizer set by an administrator", Root, Change(UNDECIDED, Finalizer), Refused(CLEANUP)),
        row("finalizer removed by the requester", Rita, Change(HELD, NoFinalizer), Refused(CLEANUP)),
        row("finalizer removed by an approver", Anna, Change(HELD, NoFinalizer), Refused(CLEANUP)),
        row("finalizer removed by an administrator", Root, Change(HELD, NoFinalizer), Refused(CLEANUP)),
        row("finalizer removed by the controller", Controller, Change(HELD, NoFinalizer), Accepted(&[])),
        row("status written by the requester", Rita, Change(UNDECIDED, Status), Refused(STATUS)),
        row("status written by an approver", Anna, Change(APPROVED, Status), Refused("alone, not by 'gate:anna'; to decide on a request, annotate it with volttron.org/decision")),
        row("status written by an administrator", Root, Change(UNDECIDED, Status), Refused(STATUS)),
        row("status written by the controller, which decides nothing on the way", Controller, Change(UNDECIDED, Status), Accepted(&[(DECISION, Absent)])),
        row("status of an instance written by an administrator", Root, InstanceStatus, Refused(STATUS)),
        row("status of an instance written by the controller", Controller, InstanceStatus, Accepted(&[])),
    ]
}
