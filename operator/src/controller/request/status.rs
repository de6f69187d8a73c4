//! The next status of a request. Pure.

mod next;

use crate::approval::{Ruling, Standing, WAITING_FOR_APPROVAL, Waiting};
use crate::controller::error::Error;

use crate::pki::{CheckedRequest, Rejection, SerialNumber, SignedCertificate};
use jiff::Timestamp;
use next::Next;
use volttron_crds::{
    DecisionHow, LocalReference, Phase, VolttronCertRequest, VolttronCertRequestStatus,
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
fn by_hand(basis: Basis<'_>) -> Option<&Ruling> {
    let ruling = basis.standing.ruling.as_ref();
    ruling.filter(|ruling| ruling.approved && ruling.how == DecisionHow::Manual)
}
