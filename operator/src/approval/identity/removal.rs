//! Which requests nobody needs any more.

use super::{Group, created, time, verdict};
use jiff::Timestamp;
use kube::ResourceExt;
use std::sync::Arc;
use volttron_crds::{Phase, VolttronCertRequest};

/// When `request` may be removed because nobody needs it any more: superseded by a later one of the
/// same identity for `grace`, or come to nothing for `keep`. A request that carries a decision in
/// force never may.
#[must_use]
pub fn removable_at(
    request: &VolttronCertRequest,
    peers: &[Arc<VolttronCertRequest>],
    grace: std::time::Duration,
    keep: std::time::Duration,
) -> Option<Timestamp> {
    let own = Group::around(request, peers);
    let status = request.status.as_ref()?;
    let decided = verdict(request);
    if decided.as_ref().is_some_and(|verdict| !verdict.approved) || own.is_carrier(request) {
        return None;
    }
    let after = |at: Timestamp, by: std::time::Duration| at.checked_add(by).ok();
    let since = |kind: &str| {
        let conditions = &status.conditions;
        let condition = conditions.iter().find(|condition| condition.type_ == kind);
        condition.map(|condition| condition.last_transition_time.0)
    };
    let created = created(request);
    match status.phase? {
        Phase::Pending | Phase::Approved => None,
        // What an administrator approved by hand stays until it has run out.
        Phase::Issued if decided.is_some() => None,
        Phase::Issued => {
            let successor = own.issued_after(request)?;
            after(successor, grace)
        }
        Phase::Expired => {
            let ended = time(status.not_after.as_deref()).or_else(|| since("Issued"))?;
            after(
                ended,
                if own.issued_after(request).is_some() {
                    grace
                } else {
                    keep
                },
            )
        }
        Phase::Denied => {
            let later = own
                .members
                .iter()
                .map(|member| self::created(member))
                .find(|at| *at > created);
            match later {
                Some(later) if decided.is_none() => after(later, grace),
                _ => after(time(Some(&status.decision.as_ref()?.at))?, keep),
            }
        }
        Phase::Failed => after(since("Failed")?, keep),
    }
}

impl Group<'_> {
    /// Since when another request of the identity holds a later certificate.
    fn issued_after(&self, request: &VolttronCertRequest) -> Option<Timestamp> {
        let rank = |request: &VolttronCertRequest| {
            let status = request.status.as_ref()?;
            let not_before = time(status.not_before.as_deref())?;
            // Both are in whole seconds, and a decision is not.
            let decided = status.decision.as_ref().and_then(|it| time(Some(&it.at)));
            Some((not_before, decided, created(request), request.uid()))
        };
        let own = rank(request)?;
        self.members
            .iter()
            .filter(|member| member.phase() == Some(Phase::Issued))
            .filter(|member| rank(member).is_some_and(|rank| rank > own))
            .filter_map(|member| {
                let conditions = &member.status.as_ref()?.conditions;
                let issued = conditions.iter().find(|it| it.type_ == "Issued")?;
                Some(issued.last_transition_time.0)
            })
            .min()
    }
}
