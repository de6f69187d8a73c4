//! Decisions. Each has an Event of its own, which is found again by its name, so that the next
//! leader can tell what the one before may not have come to tell, and nothing is told twice.

use super::object::Subject;
use super::outbox::{Lane, Told};
use super::{Events, NOTE, shortened};
use crate::controller::context::Context;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::events::EventType;
use serde_json::json;
use sha2::{Digest, Sha256};
use tracing::info;
use volttron_crds::{Decision, DecisionHow, Phase, VolttronCertRequest, VolttronCertRequestStatus};

/// The API server forgets Events after an hour (its `--event-ttl`), so that nobody misses one that
/// would be older.
pub(super) const LIFE: SignedDuration = SignedDuration::from_hours(1);

impl Events {
    /// The decision in `status` took effect. What a person has denied goes first.
    pub(in crate::controller) fn decided(
        &self,
        request: &VolttronCertRequest,
        status: &VolttronCertRequestStatus,
    ) {
        let Some(decision) = &status.decision else {
            return;
        };
        let denied = status.phase == Some(Phase::Denied);
        let lane = if denied && decision.how == DecisionHow::Manual {
            Lane::First
        } else {
            Lane::Decisions
        };
        let told = told(request, status, decision, lane);
        // Another reason for the same decision is given later than that was made.
        let at = Timestamp::now();
        self.put(Told { at, ..told });
    }

    /// Tells again what was decided in the last hour. Nothing comes of it where that was told.
    pub(super) fn retell(&self, context: &Context, now: Timestamp) {
        let requests = context.requests.state();
        let mut count = 0;
        for request in requests {
            let Some((status, decision)) = recently_decided(&request, now) else {
                continue;
            };
            self.put(told(&request, status, decision, Lane::Rest));
            count += 1;
        }
        if count > 0 {
            info!(
                count,
                "the Events of decisions of the last hour are seen to"
            );
        }
    }
}

fn recently_decided(
    request: &VolttronCertRequest,
    now: Timestamp,
) -> Option<(&VolttronCertRequestStatus, &Decision)> {
    let status = request.status.as_ref()?;
    let decision = status.decision.as_ref()?;
    let at: Timestamp = decision.at.parse().ok()?;
    (now.duration_since(at) < LIFE).then_some((status, decision))
}

fn told(
    request: &VolttronCertRequest,
    status: &VolttronCertRequestStatus,
    decision: &Decision,
    lane: Lane,
) -> Told {
    let (type_, reason, action) = if status.phase == Some(Phase::Denied) {
        (EventType::Warning, "Denied", "Deny")
    } else {
        (EventType::Normal, "Approved", "Approve")
    };
    let conditions = status.conditions.iter();
    let note = conditions
        .filter(|condition| condition.type_ == reason)
        .map(|condition| condition.message.clone())
        .next();
    // All of it: another reason, or another signature, is told as well.
    let decided = json!([request.uid(), reason, decision]);
    let stamp = Sha256::digest(decided.to_string())
        .first_chunk()
        .map(|bytes| u64::from_be_bytes(*bytes));
    Told {
        lane,
        type_,
        subject: Subject::of(request),
        reason: reason.into(),
        action: action.into(),
        note: shortened(note.unwrap_or_default(), NOTE).into(),
        at: decision.at.parse().unwrap_or_else(|_| Timestamp::now()),
        stamp,
        counts: false,
        attempts: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(phase: &str, at: &str) -> VolttronCertRequest {
        let condition = |kind: &str, message: &str| {
            json!({
                "type": kind, "status": "True", "reason": kind, "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            })
        };
        serde_json::from_value(json!({
            "apiVersion": "volttron.org/v1alpha1", "kind": "VolttronCertRequest",
            "metadata": {"name": "agent", "namespace": "plant", "uid": "6f9d"},
            "spec": {"instanceRef": {"name": "central"}, "request": "", "requester": "somebody"},
            "status": {
                "phase": phase, "decision": {"at": at, "by": "alice", "how": "manual"},
                "conditions": [condition("Approved", "approved"), condition("Denied", "denied")],
            },
        }))
        .unwrap()
    }

    fn stamp_of(request: &VolttronCertRequest) -> u64 {
        let status = request.status.as_ref().unwrap();
        let decision = status.decision.as_ref().unwrap();
        told(request, status, decision, Lane::Rest).stamp.unwrap()
    }

    #[test]
    fn a_decision_is_told_under_one_name_and_another_under_another() {
        let (first, later) = ("2026-01-01T00:00:00.000001Z", "2026-01-01T00:00:00.000002Z");
        let approved = stamp_of(&request("Approved", first));
        // It is the same decision when it has led to something.
        assert_eq!(stamp_of(&request("Issued", first)), approved);
        assert_ne!(stamp_of(&request("Issued", later)), approved);
        assert_ne!(stamp_of(&request("Denied", first)), approved);
        let mut justified = request("Approved", first);
        let status = justified.status.as_mut().unwrap();
        status.decision.as_mut().unwrap().reason = Some("known".to_owned());
        assert_ne!(stamp_of(&justified), approved);
    }

    #[test]
    fn what_was_decided_in_the_last_hour_is_told_again() {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().unwrap();
        for (at, again) in [
            ("2026-01-01T00:00:00Z", false),
            ("2026-01-01T00:00:00.000001Z", true),
            // Another machine's clock may be fast.
            ("2026-01-01T01:00:05Z", true),
            ("nonsense", false),
        ] {
            let request = request("Approved", at);
            assert_eq!(recently_decided(&request, now).is_some(), again, "{at}");
        }
    }
}
