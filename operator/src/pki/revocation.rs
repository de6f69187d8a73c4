//! Certificate revocation lists (RFC 5280, section 5).

use super::authority::Authority;
use super::issue::name_list;
use super::leaf::{LeafError, SerialNumber};
use super::{backdated, to_offset_date_time, to_pem, whole_second};
use jiff::{SignedDuration, Timestamp};
use rcgen::{CertificateRevocationListParams, RevokedCertParams};
use x509_parser::prelude::{CertificateRevocationList, FromDer};

/// From `thisUpdate` to `nextUpdate`. A broker that enforces lists refuses everybody once the last
/// one has run out, so this is how long an operator may be away.
const LIFE: SignedDuration = SignedDuration::from_hours(30 * 24);
/// How old a list gets before it is signed anew, though nothing has changed.
const RENEWAL: SignedDuration = SignedDuration::from_hours(24);

/// Why a certificate is not to be accepted any more (RFC 5280, section 5.3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevocationReason {
    /// An administrator denied the identity.
    PrivilegeWithdrawn,
    /// The request was deleted.
    CessationOfOperation,
    /// Another certificate has taken its place.
    Superseded,
}

/// A certificate that was revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// Its serial number.
    pub serial: SerialNumber,
    /// When it was revoked.
    pub at: Timestamp,
    /// Why.
    pub reason: RevocationReason,
}

/// A signed list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RevocationList {
    /// The list (PEM, `X509 CRL`).
    pub pem: String,
    /// From when it counts.
    pub this_update: Timestamp,
    /// Until when it counts: where no newer one is at hand by then, who enforces it accepts nobody.
    pub next_update: Timestamp,
}

/// Signs list `number`, which must grow from list to list, of what `authority` has issued.
/// `revoked` are the certificates that were revoked and have not expired yet.
///
/// # Errors
/// [`LeafError`] where the CA's key fails.
pub fn sign_revocation_list(
    authority: &Authority,
    number: u64,
    revoked: &[Revoked],
    now: Timestamp,
) -> Result<RevocationList, LeafError> {
    let this_update = whole_second(backdated(now).max(authority.not_before()));
    let next_update = whole_second(
        now.saturating_add(LIFE)
            .unwrap_or(Timestamp::MAX)
            .min(authority.not_after()),
    );
    let entry = |revoked: &Revoked| RevokedCertParams {
        serial_number: revoked.serial.to_rcgen(),
        // Nothing on a list was revoked after the list was made.
        revocation_time: to_offset_date_time(revoked.at.min(this_update)),
        reason_code: Some(match revoked.reason {
            RevocationReason::PrivilegeWithdrawn => rcgen::RevocationReason::PrivilegeWithdrawn,
            RevocationReason::CessationOfOperation => rcgen::RevocationReason::CessationOfOperation,
            RevocationReason::Superseded => rcgen::RevocationReason::Superseded,
        }),
        invalidity_date: None,
    };
    let params = CertificateRevocationListParams {
        this_update: to_offset_date_time(this_update),
        next_update: to_offset_date_time(next_update),
        crl_number: rcgen::SerialNumber::from(number),
        issuing_distribution_point: None,
        revoked_certs: revoked.iter().map(entry).collect(),
        key_identifier_method: authority.key_identifier_method(),
    };
    let list = params.signed_by(authority.issuer())?;
    let (_, parsed) =
        CertificateRevocationList::from_der(list.der()).map_err(|_| LeafError::Encoding)?;
    let pem = if parsed.issuer().as_raw() == authority.subject() {
        to_pem("X509 CRL", list.der())
    } else {
        to_pem("X509 CRL", &name_list(list.der(), authority)?)
    };
    Ok(RevocationList {
        pem,
        this_update,
        next_update,
    })
}

/// When a list from `this_update` to `next_update` is to be signed anew though nothing has changed:
/// daily, and so that it has four weeks left whenever the operator is stopped. Where the CA's own
/// end has cut the list short, halfway.
#[must_use]
pub fn resign_at(this_update: Timestamp, next_update: Timestamp) -> Timestamp {
    let half = next_update
        .duration_since(this_update)
        .max(SignedDuration::ZERO)
        / 2;
    this_update
        .saturating_add(RENEWAL.min(half))
        .unwrap_or(next_update)
}

#[cfg(test)]
mod tests;
