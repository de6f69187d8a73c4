//! How a status is made from the one before: what was decided, and the conditions that tell it.

use super::{Basis, SIGNING, by_hand};
use crate::approval::{APPROVAL_ENDED, Ruling, Waiting, verdict};
use crate::controller::text::{MESSAGE, shortened};
use crate::pki::SerialNumber;
use jiff::{SignedDuration, Timestamp, Unit};
use volttron_crds::{Decision, DecisionHow, Phase, VolttronCertRequestStatus, set_condition};

/// A status in the making.
pub(super) struct Next {
    pub(super) status: VolttronCertRequestStatus,
    generation: Option<i64>,
    /// Whether the request's own annotation says approved.
    was_approved: bool,
    now: Timestamp,
    /// When the latest decision on another request of the identity was recorded.
    decided_last: Option<Timestamp>,
}

impl Next {
    pub(super) fn of(basis: Basis<'_>) -> Self {
        let mut status = basis.request.status.clone().unwrap_or_default();
        status.instance = Some(basis.request.instance_full_name());
        if let Some(checked) = basis.checked {
            status.common_name = Some(checked.common_name.to_string());
            status.key_algorithm = Some(checked.key.algorithm.to_string());
            status.key_fingerprint = Some(checked.key.fingerprint());
        }
        let mut next = Self {
            status,
            generation: basis.request.metadata.generation,
            was_approved: verdict(basis.request).is_some_and(|verdict| verdict.approved),
            now: basis.now,
            decided_last: basis.standing.decided_last,
        };
        match &basis.standing.conflict {
            Some(conflict) => {
                let reason = if conflict.bound {
                    "NameBound"
                } else {
                    "NameRequested"
                };
                let message = Waiting::Conflict(conflict.clone()).to_string();
                next.condition("Conflict", true, reason, &message);
            }
            None => next.clear(&["Conflict"]),
        }
        next
    }

    /// Sets a serial number aside before anything is signed.
    pub(super) fn reserve_serial_number(&mut self) {
        let reserve = || SerialNumber::random().to_string();
        self.status.serial_number.get_or_insert_with(reserve);
    }

    /// Drops what is known of an earlier certificate, and its serial number with it: that is on the
    /// revocation list, so that a certificate after another approval needs its own.
    pub(super) fn forget_certificate(&mut self) {
        let status = &mut self.status;
        status.certificate = None;
        status.serial_number = None;
        status.not_before = None;
        status.not_after = None;
        status.renew_at = None;
    }

    /// It is approved, and its certificate is being made.
    pub(super) fn signing(&mut self, ruling: &Ruling) {
        self.status.phase = Some(Phase::Approved);
        self.decide(ruling);
        self.clear(&["Failed"]);
        self.condition("Issued", false, SIGNING, "the certificate is being made");
    }

    /// Records an administrator's approval of the request itself, whatever keeps it from taking
    /// effect: when it was made counts for the identity. Other decisions are made once they can
    /// take effect.
    pub(super) fn decide_by_hand_alone(&mut self, basis: Basis<'_>, effect: &str) {
        if let Some(ruling) = by_hand(basis) {
            self.decide_and(ruling, effect);
        } else {
            self.status.decision = None;
            self.clear(&["Approved", "Denied"]);
        }
    }

    /// Forgets an approval that the administrator has taken back.
    pub(super) fn withdraw(&mut self) {
        let decision = self.status.decision.as_ref();
        if decision.is_some_and(|decision| decision.how == DecisionHow::Manual) {
            self.status.decision = None;
            let message = "the approval was taken back; a certificate that is issued stays until it \
                           runs out: to end the access, deny the request";
            self.condition("Approved", false, "ApprovalWithdrawn", message);
        }
    }

    pub(super) fn decide(&mut self, ruling: &Ruling) {
        self.decide_and(ruling, "");
    }

    /// Records a decision; `effect` is what else there is to say of it.
    pub(super) fn decide_and(&mut self, ruling: &Ruling, effect: &str) {
        let known_kind = if ruling.approved {
            "Approved"
        } else {
            "Denied"
        };
        let known = self
            .status
            .conditions
            .iter()
            .any(|condition| condition.status == "True" && condition.type_ == known_kind);
        // Another reason, or another signature, makes no new decision of it.
        let same = self.status.decision.take().filter(|before| {
            known
                && before.how == ruling.how
                && before.request == ruling.request
                && (before.request_uid.is_none() || before.request_uid == ruling.request_uid)
        });
        self.status.decision = Some(Decision {
            by: ruling.by.clone(),
            at: same.map_or_else(|| self.time_of_decision().to_string(), |before| before.at),
            how: ruling.how,
            request: ruling.request.clone(),
            request_uid: ruling.request_uid.clone(),
            reason: ruling.reason.clone(),
        });
        let message = sentence(ruling, self.was_approved) + effect;
        let reason = match ruling {
            Ruling {
                approved: false,
                how: DecisionHow::Policy,
                ..
            } if self.was_approved => APPROVAL_ENDED,
            _ => known_kind,
        };
        self.condition("Approved", ruling.approved, reason, &message);
        if ruling.approved {
            self.clear(&["Denied"]);
        } else {
            self.condition("Denied", true, "Denied", &message);
        }
    }

    /// Now, and later than what was decided before, also where that was recorded by another
    /// replica, whose clock is ahead.
    fn time_of_decision(&self) -> Timestamp {
        let now = self.now.round(Unit::Microsecond).unwrap_or(self.now);
        let after = |last: Timestamp| last.checked_add(SignedDuration::from_micros(1)).ok();
        let earliest = self.decided_last.and_then(after);
        earliest.map_or(now, |earliest| earliest.max(now))
    }

    pub(super) fn condition(&mut self, kind: &str, holds: bool, reason: &str, message: &str) {
        let message = shortened(message.to_owned(), MESSAGE);
        set_condition(
            &mut self.status.conditions,
            kind,
            holds.into(),
            reason,
            message,
            self.generation,
            Timestamp::from_second(self.now.as_second()).unwrap_or(self.now),
        );
    }

    pub(super) fn clear(&mut self, kinds: &[&str]) {
        self.status
            .conditions
            .retain(|condition| !kinds.contains(&condition.type_.as_str()));
    }
}

/// What was decided, in words.
fn sentence(ruling: &Ruling, was_approved: bool) -> String {
    let word = if ruling.approved {
        "approved"
    } else {
        "denied"
    };
    let by = ruling.by.as_deref();
    let by = by.map(|by| format!(" by {by}")).unwrap_or_default();
    let why = ruling.reason.as_deref();
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    match (ruling.how, &ruling.request) {
        (DecisionHow::Renewal, Some(request)) => {
            format!("approved as a renewal of {request}, which was approved{by}{why}")
        }
        (DecisionHow::Policy, Some(request)) => format!(
            "denied because the identity was denied with {request}{by}{why}; to lift the denial, \
             {}",
            if was_approved {
                "remove the annotation volttron.org/decision, wait until condition Approved no \
                 longer has the reason ApprovalEnded, and approve again"
            } else {
                "approve this request"
            }
        ),
        (DecisionHow::Policy, None) => {
            "approved by the instance's spec.approval.auto: Always".to_owned()
        }
        _ => format!("{word}{by}{why}"),
    }
}
