//! An approval belongs to an identity: an instance, a common name and a requester. What was decided
//! about one request of an identity holds for the others, and the latest decision holds. All
//! evidence is in the requests themselves, so that it survives everything the API server survives.

mod conflict;
mod removal;

use super::annotation::{Verdict, verdict};
use conflict::conflict;
use jiff::Timestamp;
use kube::ResourceExt;
pub use removal::removable_at;
use std::sync::Arc;
use volttron_crds::{
    AutoApproval, Condition, Decision, DecisionHow, Phase, VolttronCertRequest,
    VolttronCertRequestStatus,
};

/// The reason of condition `Approved` on a request that was approved, before its identity was denied
/// with another one. It tells that approval, which is over, from one that came after the denial.
pub const APPROVAL_ENDED: &str = "ApprovalEnded";

/// The decision in force for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ruling {
    /// Approved, or denied.
    pub approved: bool,
    /// How it came about.
    pub how: DecisionHow,
    /// Who decided, where the API server could stamp it.
    pub by: Option<String>,
    /// Why, in the approver's words.
    pub reason: Option<String>,
    /// `<namespace>/<name>` of the request that carries the decision, where it is another one.
    pub request: Option<String>,
    /// UID of that request.
    pub request_uid: Option<String>,
}

impl Ruling {
    fn own(verdict: Verdict) -> Self {
        Self {
            approved: verdict.approved,
            how: DecisionHow::Manual,
            by: verdict.by,
            reason: verdict.reason,
            request: None,
            request_uid: None,
        }
    }

    fn inherited(how: DecisionHow, carrier: &VolttronCertRequest) -> Self {
        let verdict = verdict(carrier);
        Self {
            approved: how == DecisionHow::Renewal,
            how,
            by: verdict.as_ref().and_then(|verdict| verdict.by.clone()),
            reason: verdict.and_then(|verdict| verdict.reason),
            request: Some(full_name(carrier)),
            request_uid: carrier.uid(),
        }
    }

    /// As it was recorded when another request was denied that is gone now.
    fn of_the_gone(denial: &Decision) -> Self {
        Self {
            approved: false,
            how: DecisionHow::Policy,
            by: denial.by.clone(),
            reason: denial.reason.clone(),
            request: denial.request.clone(),
            request_uid: denial.request_uid.clone(),
        }
    }
}

/// Another requester that has, or asked first for, the same common name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The other requester.
    pub requester: String,
    /// `<namespace>/<name>` of its request.
    pub request: String,
    /// Whether the name is bound to it; otherwise it merely waits for a decision as well.
    pub bound: bool,
}

/// Where a request stands among those for the same common name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The decision in force, if there is one.
    pub ruling: Option<Ruling>,
    /// Who else is in the way.
    pub conflict: Option<Conflict>,
    /// When the latest decision about the identity was recorded. What is decided now comes later,
    /// whatever the clock says.
    pub decided_last: Option<Timestamp>,
    /// Whether a denial of this request is not to be recorded yet: another request of the identity
    /// was approved, and that is not recorded. The denial ends that approval, so it comes later.
    pub denial_waits: bool,
}

impl Standing {
    /// Whether the conflict keeps an approval from taking effect. An administrator who approves one
    /// of several that wait has chosen it; a policy has not.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        let by_policy = self
            .ruling
            .as_ref()
            .is_none_or(|ruling| ruling.how == DecisionHow::Policy);
        self.conflict
            .as_ref()
            .is_some_and(|conflict| conflict.bound || by_policy)
    }
}

/// Finds where `request` stands among `peers`: all other requests for the same instance and common
/// name.
#[must_use]
pub fn standing(
    request: &VolttronCertRequest,
    peers: &[Arc<VolttronCertRequest>],
    auto: AutoApproval,
) -> Standing {
    let own = Group::around(request, peers);
    let ruling = own.ruling(request, auto);
    let conflict = conflict(request, &own, ruling.as_ref(), peers);
    let others = || own.members.iter().filter(|it| !std::ptr::eq(**it, request));
    Standing {
        ruling,
        conflict,
        decided_last: others().filter_map(|member| own_decision(member)).max(),
        denial_waits: is_unrecorded(request, false)
            && others().any(|member| is_unrecorded(member, true)),
    }
}

/// Whether `request` gives its common name access to the broker, as far as recorded: it was issued,
/// and neither it nor its identity was denied since.
#[must_use]
fn gives_access(request: &VolttronCertRequest, peers: &[Arc<VolttronCertRequest>]) -> bool {
    if request.phase() != Some(Phase::Issued) || is_going(request) {
        return false;
    }
    Group::around(request, peers).denial_of(request).is_none()
}

/// Those of `requests`, all for one common name, that give it access to the broker.
pub fn with_access(
    requests: &[Arc<VolttronCertRequest>],
) -> impl Iterator<Item = &Arc<VolttronCertRequest>> {
    requests
        .iter()
        .filter(|request| gives_access(request, requests))
}

/// Whether the denial on `request`, which is being deleted, has yet to be recorded on others of its
/// identity. Until then it has to stay: what it denies would be in again, as if nobody had denied
/// it, and whoever may delete a request is not always who may approve.
#[must_use]
pub fn is_denial_needed(request: &VolttronCertRequest, peers: &[Arc<VolttronCertRequest>]) -> bool {
    let own = Group::around(request, peers);
    let status = request.status.as_ref();
    // Others know of it only once its name has been read.
    let is_known = status.is_some_and(|status| status.common_name.is_some());
    is_known
        && verdict(request).is_some_and(|verdict| !verdict.approved)
        && own.members.iter().any(|member| {
            let known = member.phase() == Some(Phase::Denied) && !is_unrecorded(member, true);
            !known && own.denial_of(member).is_some()
        })
}

/// The requests of one requester for one common name.
struct Group<'a> {
    /// Those that are not being deleted.
    members: Vec<&'a VolttronCertRequest>,
    /// All that are denied by hand.
    denied: Vec<&'a VolttronCertRequest>,
}

/// A denial that holds for a request.
enum Denial<'a> {
    /// It stands on this request.
    By(&'a VolttronCertRequest),
    /// It stood on a request of this name that is gone. It is forgotten, but the approvals that it
    /// ended do not come back by that: whoever may delete a request is not always who may approve.
    Gone(&'a Decision),
}

impl<'a> Group<'a> {
    /// The group of `request`, which need not be among `peers`.
    fn around(request: &'a VolttronCertRequest, peers: &'a [Arc<VolttronCertRequest>]) -> Self {
        Self::of(
            &request.spec.requester,
            std::iter::once(request).chain(peers.iter().map(AsRef::as_ref)),
        )
    }

    fn of(requester: &str, requests: impl Iterator<Item = &'a VolttronCertRequest>) -> Self {
        let (mut members, mut denied) = (Vec::new(), Vec::new());
        for request in requests.filter(|request| request.spec.requester == requester) {
            if verdict(request).is_some_and(|verdict| !verdict.approved) {
                denied.push(request);
            }
            if !is_going(request) {
                members.push(request);
            }
        }
        Self { members, denied }
    }

    fn ruling(&self, request: &'a VolttronCertRequest, auto: AutoApproval) -> Option<Ruling> {
        match (self.denial_of(request), verdict(request)) {
            (Some(Denial::By(carrier)), Some(own)) if std::ptr::eq(carrier, request) => {
                Some(Ruling::own(own))
            }
            (Some(Denial::By(carrier)), _) => Some(Ruling::inherited(DecisionHow::Policy, carrier)),
            (Some(Denial::Gone(decision)), _) => Some(Ruling::of_the_gone(decision)),
            (None, Some(own)) => Some(Ruling::own(own)),
            (None, None) => match (self.latest_approval(), auto) {
                (Some((_, carrier)), AutoApproval::Renewals | AutoApproval::Always) => {
                    Some(Ruling::inherited(DecisionHow::Renewal, carrier))
                }
                (None, AutoApproval::Always) => Some(Ruling {
                    approved: true,
                    how: DecisionHow::Policy,
                    by: None,
                    reason: None,
                    request: None,
                    request_uid: None,
                }),
                _ => None,
            },
        }
    }

    fn denial_of(&self, request: &'a VolttronCertRequest) -> Option<Denial<'a>> {
        match verdict(request) {
            Some(own) if !own.approved => Some(Denial::By(request)),
            Some(_) if self.approval(request).is_some() => None,
            Some(_) => match self.latest_denial() {
                Some((_, carrier)) => Some(Denial::By(carrier)),
                None => voided_by(request).map(Denial::Gone),
            },
            None => match (self.latest_denial(), self.latest_approval()) {
                (Some((_, carrier)), None) => Some(Denial::By(carrier)),
                _ => None,
            },
        }
    }

    fn latest_denial(&self) -> Option<(Timestamp, &'a VolttronCertRequest)> {
        self.denied
            .iter()
            .map(|member| (recorded(member, false).unwrap_or(Timestamp::MAX), *member))
            .max_by_key(|(at, member)| (*at, created(member), member.uid()))
    }

    fn latest_approval(&self) -> Option<(Timestamp, &'a VolttronCertRequest)> {
        self.members
            .iter()
            // That of a request which cannot be signed counts for no other one.
            .filter(|member| member.phase() != Some(Phase::Failed))
            .filter_map(|member| Some((self.approval(member)?, *member)))
            .max_by_key(|(at, member)| (*at, created(member), member.uid()))
    }

    /// When `request` was approved by hand, if that holds: no denial came later. What has not been
    /// recorded yet is taken to be decided just now, since a denial is recorded only after all
    /// approvals that were there before it; and what nobody has looked at yet is not among these.
    fn approval(&self, request: &VolttronCertRequest) -> Option<Timestamp> {
        let approved = verdict(request).is_some_and(|verdict| verdict.approved);
        if !approved {
            return None;
        }
        let (at, earliest) = if let Some(denial) = voided_by(request) {
            // An approval that a denial ended holds again when an approver lifts that denial, and
            // no other stands.
            self.was_lifted(denial).then_some(())?;
            (Timestamp::MIN, Timestamp::MIN)
        } else {
            let at = recorded(request, true).unwrap_or(Timestamp::MAX);
            let is_new = request.phase().is_none();
            (at, if is_new { created(request) } else { at })
        };
        self.latest_denial()
            .is_none_or(|(denied, _)| denied < earliest)
            .then_some(at)
    }

    /// Whether the request that carried `denial` is there, and is denied no more. It is told by its
    /// UID: whoever may file requests may give a new one the name of one that was deleted.
    fn was_lifted(&self, denial: &Decision) -> bool {
        denial.request_uid.is_some()
            && self.members.iter().any(|member| {
                member.metadata.uid == denial.request_uid
                    && verdict(member).is_none_or(|verdict| verdict.approved)
            })
    }

    /// Whether the identity's approval is carried by `request`.
    fn is_carrier(&self, request: &VolttronCertRequest) -> bool {
        self.latest_approval()
            .is_some_and(|(_, carrier)| std::ptr::eq(carrier, request))
    }
}

/// The denial of another request that ended the approval of this one, as recorded.
fn voided_by(request: &VolttronCertRequest) -> Option<&Decision> {
    let status = request.status.as_ref()?;
    let decision = status.decision.as_ref()?;
    let ended = |it: &Condition| it.type_ == "Approved" && it.reason == APPROVAL_ENDED;
    let voided = decision.how == DecisionHow::Policy && status.conditions.iter().any(ended);
    voided.then_some(decision)
}

/// Whether `request` was decided on by hand, and status does not tell of it yet.
fn is_unrecorded(request: &VolttronCertRequest, approved: bool) -> bool {
    verdict(request).is_some_and(|verdict| verdict.approved == approved)
        && recorded(request, approved).is_none()
        && !(approved && voided_by(request).is_some())
}

/// When a decision on `request` itself was recorded, whichever it was.
fn own_decision(request: &VolttronCertRequest) -> Option<Timestamp> {
    recorded(request, true).or_else(|| recorded(request, false))
}

/// When the decision on `request` itself was recorded, if it was this one.
fn recorded(request: &VolttronCertRequest, approved: bool) -> Option<Timestamp> {
    let status = request.status.as_ref()?;
    let decision = status.decision.as_ref()?;
    let same = decision.how == DecisionHow::Manual && is_denied(status) != approved;
    same.then(|| time(Some(&decision.at)))?
}

fn is_denied(status: &VolttronCertRequestStatus) -> bool {
    status
        .conditions
        .iter()
        .any(|condition| condition.type_ == "Denied" && condition.status == "True")
}

fn is_going(request: &VolttronCertRequest) -> bool {
    request.metadata.deletion_timestamp.is_some()
}

fn created(request: &VolttronCertRequest) -> Timestamp {
    let created = request.metadata.creation_timestamp.as_ref();
    created.map_or(Timestamp::MAX, |at| at.0)
}

fn time(text: Option<&str>) -> Option<Timestamp> {
    text?.parse().ok()
}

fn full_name(request: &VolttronCertRequest) -> String {
    let namespace = request.namespace().unwrap_or_default();
    format!("{namespace}/{}", request.name_any())
}

#[cfg(test)]
mod tests;
