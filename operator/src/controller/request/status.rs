//! The next status of a request. Pure: what was recorded, what happened, and the time.

use super::super::error::Error;
use crate::approval::{Verdict, Waiting};
use crate::pki::{CheckedRequest, Rejection, SerialNumber, SignedCertificate};
use jiff::Timestamp;
use volttron_crds::{
    Decision, DecisionHow, LocalReference, Phase, VolttronCertRequest, VolttronCertRequestStatus,
    set_condition,
};

/// It waits for an administrator, or for its instance.
pub(super) fn pending(
    request: &VolttronCertRequest,
    checked: Option<&CheckedRequest>,
    waiting: Option<&Waiting>,
    now: Timestamp,
) -> VolttronCertRequestStatus {
    let mut next = Next::of(request, checked, now);
    next.reserve_serial_number();
    next.status.phase = Some(Phase::Pending);
    next.status.decision = None;
    next.clear(&["Approved", "Denied", "Failed"]);
    match waiting {
        Some(waiting) => next.condition("Issued", false, waiting.reason(), &waiting.to_string()),
        None => next.condition(
            "Issued",
            false,
            "WaitingForApproval",
            "an administrator has to set the annotation volttron.org/decision to approved or denied",
        ),
    }
    next.status
}

/// It is approved and waits for something else.
pub(super) fn held(
    request: &VolttronCertRequest,
    checked: Option<&CheckedRequest>,
    verdict: &Verdict,
    waiting: &Waiting,
    now: Timestamp,
) -> VolttronCertRequestStatus {
    let mut next = Next::of(request, checked, now);
    next.reserve_serial_number();
    next.status.phase = Some(Phase::Approved);
    next.decide(verdict);
    next.clear(&["Denied", "Failed"]);
    next.condition("Issued", false, waiting.reason(), &waiting.to_string());
    next.status
}

/// It is signed, and everything that belongs to it is there.
pub(super) fn issued(
    request: &VolttronCertRequest,
    checked: &CheckedRequest,
    verdict: &Verdict,
    serial: &SerialNumber,
    certificate: SignedCertificate,
    now: Timestamp,
) -> VolttronCertRequestStatus {
    let mut next = Next::of(request, Some(checked), now);
    next.status.phase = Some(Phase::Issued);
    next.decide(verdict);
    next.clear(&["Denied", "Failed"]);
    next.status.serial_number = Some(serial.to_string());
    next.status.not_before = Some(certificate.not_before.to_string());
    next.status.not_after = Some(certificate.not_after.to_string());
    next.status.certificate = Some(certificate.chain);
    next.status.secret_ref = Some(LocalReference {
        name: request.secret_name(),
    });
    next.condition(
        "Issued",
        true,
        "Issued",
        &format!("the certificate is in Secret {}", request.secret_name()),
    );
    next.status
}

/// It is denied; `released` tells whether the broker took the user away.
pub(super) fn denied(
    request: &VolttronCertRequest,
    checked: Option<&CheckedRequest>,
    verdict: &Verdict,
    released: &Result<(), Error>,
    now: Timestamp,
) -> VolttronCertRequestStatus {
    let mut next = Next::of(request, checked, now);
    next.status.phase = Some(Phase::Denied);
    next.decide(verdict);
    next.clear(&["Failed"]);
    next.status.secret_ref = None;
    let message = match released {
        Ok(()) => "there is no certificate and no broker user".to_owned(),
        Err(error) => format!(
            "the broker user could not be removed yet, and that is tried again: {}",
            super::chain(error)
        ),
    };
    next.condition("Issued", false, "Denied", &message);
    next.status
}

/// It can never be signed; `readable` is what could be read of it all the same.
pub(super) fn failed(
    request: &VolttronCertRequest,
    readable: Option<&CheckedRequest>,
    rejection: &Rejection,
    now: Timestamp,
) -> VolttronCertRequestStatus {
    let mut next = Next::of(request, readable, now);
    next.status.phase = Some(Phase::Failed);
    next.status.decision = None;
    next.clear(&["Approved", "Denied"]);
    // The message may quote what was asked for, which can be long.
    let message: String = rejection.to_string().chars().take(1000).collect();
    next.condition("Failed", true, rejection.reason(), &message);
    next.condition(
        "Issued",
        false,
        rejection.reason(),
        "the request cannot be signed; see condition Failed",
    );
    next.status
}

/// Its certificate has run out.
pub(super) fn expired(request: &VolttronCertRequest, now: Timestamp) -> VolttronCertRequestStatus {
    let mut next = Next::of(request, None, now);
    next.status.phase = Some(Phase::Expired);
    let message = format!(
        "the certificate expired at {}; file a new request",
        next.status.not_after.as_deref().unwrap_or_default()
    );
    next.condition("Issued", false, "Expired", &message);
    next.status
}

struct Next {
    status: VolttronCertRequestStatus,
    generation: Option<i64>,
    now: Timestamp,
}

impl Next {
    fn of(request: &VolttronCertRequest, checked: Option<&CheckedRequest>, now: Timestamp) -> Self {
        let mut status = request.status.clone().unwrap_or_default();
        if let Some(checked) = checked {
            status.common_name = Some(checked.common_name.to_string());
            status.key_algorithm = Some(checked.key.algorithm.to_string());
            status.key_fingerprint = Some(checked.key.fingerprint());
        }
        Self {
            status,
            generation: request.metadata.generation,
            now,
        }
    }

    /// Sets a serial number aside before anything is signed. It is never changed again.
    fn reserve_serial_number(&mut self) {
        let reserve = || SerialNumber::random().to_string();
        self.status.serial_number.get_or_insert_with(reserve);
    }

    fn decide(&mut self, verdict: &Verdict) {
        let (now, reason) = (self.now, verdict.reason.clone());
        let unchanged = |decision: &Decision, before: &VolttronCertRequestStatus| {
            decision.by == verdict.by
                && decision.reason == verdict.reason
                && before.conditions.iter().any(|condition| {
                    condition.status == "True"
                        && condition.type_
                            == if verdict.approved {
                                "Approved"
                            } else {
                                "Denied"
                            }
                })
        };
        if !self
            .status
            .decision
            .as_ref()
            .is_some_and(|decision| unchanged(decision, &self.status))
        {
            self.status.decision = Some(Decision {
                by: verdict.by.clone(),
                at: Timestamp::from_second(now.as_second())
                    .unwrap_or(now)
                    .to_string(),
                how: DecisionHow::Manual,
                request: None,
                reason: reason.clone(),
            });
        }
        let by = verdict
            .by
            .as_deref()
            .map(|by| format!(" by {by}"))
            .unwrap_or_default();
        let why = reason
            .map(|reason| format!(": {reason}"))
            .unwrap_or_default();
        let word = if verdict.approved {
            "approved"
        } else {
            "denied"
        };
        let message: String = format!("{word}{by}{why}").chars().take(1000).collect();
        self.condition(
            "Approved",
            verdict.approved,
            if verdict.approved {
                "Approved"
            } else {
                "Denied"
            },
            &message,
        );
        if verdict.approved {
            self.clear(&["Denied"]);
        } else {
            self.condition("Denied", true, "Denied", &message);
        }
    }

    fn condition(&mut self, kind: &str, holds: bool, reason: &str, message: &str) {
        let Self {
            status,
            generation,
            now,
        } = self;
        set_condition(
            &mut status.conditions,
            kind,
            holds.into(),
            reason,
            message,
            *generation,
            Timestamp::from_second(now.as_second()).unwrap_or(*now),
        );
    }

    fn clear(&mut self, kinds: &[&str]) {
        self.status
            .conditions
            .retain(|condition| !kinds.contains(&condition.type_.as_str()));
    }
}
