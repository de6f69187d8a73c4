//! The next status of a request. Pure.

use crate::approval::{APPROVAL_ENDED, Ruling, Standing, WAITING_FOR_APPROVAL, Waiting, verdict};
use crate::controller::error::Error;
use crate::controller::text::{MESSAGE, shortened};
use crate::pki::{CheckedRequest, Rejection, SerialNumber, SignedCertificate};
use jiff::{SignedDuration, Timestamp, Unit};
use volttron_crds::{
    Decision, DecisionHow, LocalReference, Phase, VolttronCertRequest, VolttronCertRequestStatus,
    set_condition,
};

/// The reason of condition `Issued` while a certificate is made, which takes a moment.
pub(super) const SIGNING: &str = "Signing";

/// What every next status is made from.
#[derive(Clone, Copy)]
pub(super) struct Basis<'a> {
    /// The request as it stands.
    pub(super) request: &'a VolttronCertRequest,
    /// What could be read of its signing request.
    pub(super) checked: Option<&'a CheckedRequest>,
    /// Where it stands among others for its name.
    pub(super) standing: &'a Standing,
    /// The time.
    pub(super) now: Timestamp,
}

/// It waits for an administrator, for room, or for its instance.
pub(super) fn pending(basis: Basis<'_>, waiting: Option<&Waiting>) -> VolttronCertRequestStatus {
    let mut next = Next::of(basis);
    next.reserve_serial_number();
    next.status.phase = Some(Phase::Pending);
    next.decide_by_hand_alone(basis, "");
    next.clear(&["Failed"]);
    match waiting {
        Some(waiting) => next.condition("Issued", false, waiting.reason(), &waiting.to_string()),
        None => next.condition(
            "Issued",
            false,
            WAITING_FOR_APPROVAL,
            "an administrator has to set the annotation volttron.org/decision to approved or denied",
        ),
    }
    next.status
}

/// What is asked for has been read, so that others for the same name know of it.
pub(super) fn read(basis: Basis<'_>) -> VolttronCertRequestStatus {
    Next::of(basis).status
}

/// It is approved and waits for something else.
pub(super) fn held(
    basis: Basis<'_>,
    ruling: &Ruling,
    waiting: &Waiting,
) -> VolttronCertRequestStatus {
    let mut next = Next::of(basis);
    next.reserve_serial_number();
    next.status.phase = Some(Phase::Approved);
    next.decide(ruling);
    next.clear(&["Denied", "Failed"]);
    next.condition("Issued", false, waiting.reason(), &waiting.to_string());
    next.status
}

/// It will be signed under a serial number of its own; an earlier certificate is no longer its.
pub(super) fn numbered(
    basis: Basis<'_>,
    ruling: &Ruling,
    serial: &SerialNumber,
) -> VolttronCertRequestStatus {
    let mut next = Next::of(basis);
    next.forget_certificate();
    next.status.serial_number = Some(serial.to_string());
    next.signing(ruling);
    next.status
}

/// It is approved, and what it needs could not be made yet.
pub(super) fn unfinished(basis: Basis<'_>, ruling: &Ruling) -> VolttronCertRequestStatus {
    let mut next = Next::of(basis);
    next.signing(ruling);
    next.status
}

/// It was issued and stays so.
pub(super) fn kept(basis: Basis<'_>) -> VolttronCertRequestStatus {
    let mut next = Next::of(basis);
    match &basis.standing.ruling {
        Some(ruling) => next.decide(ruling),
        None => next.withdraw(),
    }
    next.status
}

/// It is signed, and everything that belongs to it is there.
pub(super) fn issued(
    basis: Basis<'_>,
    ruling: &Ruling,
    serial: &SerialNumber,
    certificate: SignedCertificate,
    renew_at: Timestamp,
) -> VolttronCertRequestStatus {
    let secret = basis.request.secret_name();
    let mut next = Next::of(basis);
    next.status.phase = Some(Phase::Issued);
    next.decide(ruling);
    next.clear(&["Denied", "Failed"]);
    next.status.serial_number = Some(serial.to_string());
    next.status.not_before = Some(certificate.not_before.to_string());
    next.status.not_after = Some(certificate.not_after.to_string());
    next.status.renew_at = Some(renew_at.to_string());
    next.status.certificate = Some(certificate.chain);
    let message = format!("the certificate is in Secret {secret}");
    next.status.secret_ref = Some(LocalReference { name: secret });
    next.condition("Issued", true, "Issued", &message);
    next.status
}

/// Reason of condition `Issued` of a request whose denial is not carried out yet.
const ACCESS_NOT_ENDED: &str = "AccessNotEnded";

/// Whether the request is recorded as denied, and all that follows from it was done.
pub(super) fn is_out(request: &VolttronCertRequest) -> bool {
    let conditions = request.status.iter().flat_map(|it| &it.conditions);
    request.phase() == Some(Phase::Denied)
        && conditions
            .filter(|condition| condition.type_ == "Issued")
            .all(|condition| condition.reason != ACCESS_NOT_ENDED)
}

/// It is issued, and its Secret is not its own any more.
pub(super) fn misplaced(
    basis: Basis<'_>,
    ruling: &Ruling,
    taken: &Waiting,
) -> VolttronCertRequestStatus {
    let mut next = Next::of(basis);
    next.decide(ruling);
    next.condition("Issued", true, taken.reason(), &taken.to_string());
    next.status
}

/// It is denied; `ended` tells whether broker user and certificate are out of the world, and which
/// serial number was never used.
pub(super) fn denied(
    basis: Basis<'_>,
    ruling: &Ruling,
    ended: &Result<Option<String>, Error>,
) -> VolttronCertRequestStatus {
    let mut next = Next::of(basis);
    next.status.phase = Some(Phase::Denied);
    next.decide(ruling);
    next.clear(&["Failed"]);
    next.status.secret_ref = None;
    let (reason, message) = match ended {
        Ok(unused) => {
            next.forget_certificate();
            next.status.serial_number.clone_from(unused);
            let message = "there is no certificate and no broker user";
            ("Denied", message.to_owned())
        }
        Err(error) => {
            let message = format!(
                "the access could not be ended everywhere yet, and that is tried again: {}",
                super::chain(error)
            );
            (ACCESS_NOT_ENDED, message)
        }
    };
    next.condition("Issued", false, reason, &message);
    next.status
}

/// It can never be signed.
pub(super) fn failed(basis: Basis<'_>, rejection: &Rejection) -> VolttronCertRequestStatus {
    let mut next = Next::of(basis);
    next.status.phase = Some(Phase::Failed);
    next.decide_by_hand_alone(
        basis,
        "; the request cannot be signed all the same, see condition Failed",
    );
    next.condition("Failed", true, rejection.reason(), &rejection.to_string());
    next.condition(
        "Issued",
        false,
        rejection.reason(),
        "the request cannot be signed; see condition Failed",
    );
    next.status
}

/// Its certificate has run out.
pub(super) fn expired(basis: Basis<'_>) -> VolttronCertRequestStatus {
    let mut next = Next::of(basis);
    next.status.phase = Some(Phase::Expired);
    next.status.renew_at = None;
    match by_hand(basis) {
        Some(ruling) => next.decide_and(
            ruling,
            "; the certificate of this request has run out, and no other is made for it: file a new request",
        ),
        None => next.withdraw(),
    }
    let message = format!(
        "the certificate expired at {}; file a new request",
        next.status.not_after.as_deref().unwrap_or_default()
    );
    next.condition("Issued", false, "Expired", &message);
    next.status
}

/// Nobody decided on it in time.
pub(super) fn lapsed(basis: Basis<'_>, pending_ttl: &str) -> VolttronCertRequestStatus {
    let mut next = Next::of(basis);
    next.status.phase = Some(Phase::Expired);
    next.decide_by_hand_alone(basis, "");
    next.clear(&["Failed"]);
    if basis.request.phase() != Some(Phase::Expired) {
        // From now on counts how long it is kept.
        next.clear(&["Issued"]);
    }
    let message = format!(
        "nobody decided on it within {pending_ttl} (spec.requests.pendingTTL of the instance); \
         approve it all the same, or delete it and file a new one"
    );
    next.condition("Issued", false, "PendingTTLExceeded", &message);
    next.status
}

/// The approval of an administrator on the request itself.
fn by_hand<'a>(basis: Basis<'a>) -> Option<&'a Ruling> {
    let ruling = basis.standing.ruling.as_ref();
    ruling.filter(|ruling| ruling.approved && ruling.how == DecisionHow::Manual)
}

struct Next {
    status: VolttronCertRequestStatus,
    generation: Option<i64>,
    /// Whether the request's own annotation says approved.
    was_approved: bool,
    now: Timestamp,
    /// When the latest decision on another request of the identity was recorded.
    decided_last: Option<Timestamp>,
}

impl Next {
    fn of(basis: Basis<'_>) -> Self {
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
    fn reserve_serial_number(&mut self) {
        let reserve = || SerialNumber::random().to_string();
        self.status.serial_number.get_or_insert_with(reserve);
    }

    /// Drops what is known of an earlier certificate, and its serial number with it: that is on the
    /// revocation list, so that a certificate after another approval needs its own.
    fn forget_certificate(&mut self) {
        let status = &mut self.status;
        status.certificate = None;
        status.serial_number = None;
        status.not_before = None;
        status.not_after = None;
        status.renew_at = None;
    }

    /// It is approved, and its certificate is being made.
    fn signing(&mut self, ruling: &Ruling) {
        self.status.phase = Some(Phase::Approved);
        self.decide(ruling);
        self.clear(&["Failed"]);
        self.condition("Issued", false, SIGNING, "the certificate is being made");
    }

    /// Records an administrator's approval of the request itself, whatever keeps it from taking
    /// effect: when it was made counts for the identity. Other decisions are made once they can
    /// take effect.
    fn decide_by_hand_alone(&mut self, basis: Basis<'_>, effect: &str) {
        if let Some(ruling) = by_hand(basis) {
            self.decide_and(ruling, effect);
        } else {
            self.status.decision = None;
            self.clear(&["Approved", "Denied"]);
        }
    }

    /// Forgets an approval that the administrator has taken back.
    fn withdraw(&mut self) {
        let decision = self.status.decision.as_ref();
        if decision.is_some_and(|decision| decision.how == DecisionHow::Manual) {
            self.status.decision = None;
            let message = "the approval was taken back; a certificate that is issued stays until it \
                           runs out: to end the access, deny the request";
            self.condition("Approved", false, "ApprovalWithdrawn", message);
        }
    }

    fn decide(&mut self, ruling: &Ruling) {
        self.decide_and(ruling, "");
    }

    /// Records a decision; `effect` is what else there is to say of it.
    fn decide_and(&mut self, ruling: &Ruling, effect: &str) {
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

    fn condition(&mut self, kind: &str, holds: bool, reason: &str, message: &str) {
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

    fn clear(&mut self, kinds: &[&str]) {
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
