//! What a new status tells of decisions that the one before did not. Pure.

use crate::approval::{APPROVAL_ENDED, verdict};
use volttron_crds::{Decision, DecisionHow, Phase, VolttronCertRequest, VolttronCertRequestStatus};

/// What is new about a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Novelty {
    /// The decision.
    Decided,
    /// Its reason, or its signature.
    Reworded,
}

/// A decision that was taken back.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Withdrawal<'a> {
    /// What it was: `approved` or `denied`.
    pub(super) word: &'static str,
    /// Whose it was, where that is known.
    pub(super) decided_by: Option<&'a str>,
}

impl Withdrawal<'_> {
    /// For people.
    pub(super) fn sentence(&self, next: &VolttronCertRequestStatus) -> String {
        let by = self.decided_by.map(|by| format!(" by {by}"));
        let by = by.unwrap_or_default();
        let what = if self.word == "denied" {
            "denial"
        } else {
            "approval"
        };
        let stays = if next.phase == Some(Phase::Issued) {
            "; the certificate that is issued stays until it runs out: to end the access, deny the \
             request"
        } else {
            ""
        };
        format!("the {what}{by} was taken back{stays}")
    }
}

/// The decision in force, where it or its wording is new.
pub(super) fn decision<'a>(
    before: &VolttronCertRequest,
    next: &'a VolttronCertRequestStatus,
) -> Option<(&'a Decision, Novelty)> {
    let next = next.decision.as_ref()?;
    let Some(known) = before.status.as_ref().and_then(|it| it.decision.as_ref()) else {
        return Some((next, Novelty::Decided));
    };
    if known.at != next.at {
        return Some((next, Novelty::Decided));
    }
    let reworded = (&known.by, &known.reason) != (&next.by, &next.reason);
    reworded.then_some((next, Novelty::Reworded))
}

/// The administrator's decision that `before` tells of and that stands no more. One that was
/// replaced by another was not taken back.
pub(super) fn withdrawal<'a>(
    before: &'a VolttronCertRequest,
    next: &VolttronCertRequestStatus,
) -> Option<Withdrawal<'a>> {
    let status = before.status.as_ref()?;
    let approved = on_record(status)?;
    if verdict(before).is_some() || on_record(next).is_some() {
        return None;
    }
    let decision = status.decision.as_ref()?;
    let is_own = decision.how == DecisionHow::Manual;
    Some(Withdrawal {
        word: if approved { "approved" } else { "denied" },
        decided_by: decision.by.as_deref().filter(|_| is_own),
    })
}

/// What an administrator decided on the request itself, as `status` tells it: whether it was
/// approved.
fn on_record(status: &VolttronCertRequestStatus) -> Option<bool> {
    let holds = |kind: &str| {
        let mut conditions = status.conditions.iter();
        conditions.any(|it| it.type_ == kind && it.status == "True")
    };
    let mut conditions = status.conditions.iter();
    if conditions.any(|it| it.type_ == "Approved" && it.reason == APPROVAL_ENDED) {
        return Some(true);
    }
    let by_hand = status.decision.as_ref()?.how == DecisionHow::Manual;
    by_hand.then(|| !holds("Denied"))
}
