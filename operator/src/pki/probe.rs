//! A client certificate that proves what a broker trusts.

use super::authority::Authority;
use super::issue::issue;
use super::leaf::{LeafError, SerialNumber, client_params};
use super::{backdated, to_offset_date_time};
use jiff::{SignedDuration, Timestamp};
use rcgen::{KeyPair, KeyUsagePurpose};

/// Life of a probe's certificate.
const LIFE: SignedDuration = SignedDuration::from_hours(1);
/// Its common name. No broker has a user of that name, so that it opens nothing.
const COMMON_NAME: &str = "volttron-operator-probe";

/// A client certificate and its key.
#[derive(Clone)]
pub struct ProbePair {
    /// The certificate with the chain below the root (PEM).
    pub chain: String,
    /// The private key (PKCS #8, PEM).
    pub key: String,
}

/// Issues a client certificate for one hour. By it the controller sees whether a broker trusts
/// `authority`, and which revocation list it enforces: it passes the TLS handshake and may do
/// nothing else, because the broker has no user `volttron-operator-probe`.
///
/// # Errors
/// [`LeafError`] where the key cannot be made or the authority cannot sign.
pub fn issue_probe_pair(
    authority: &Authority,
    serial: &SerialNumber,
    now: Timestamp,
) -> Result<ProbePair, LeafError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let not_before = backdated(now).max(authority.not_before());
    let not_after = now
        .saturating_add(LIFE)
        .unwrap_or(Timestamp::MAX)
        .min(authority.not_after());
    let mut params = client_params(COMMON_NAME, serial);
    params.not_before = to_offset_date_time(not_before);
    params.not_after = to_offset_date_time(not_after);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    Ok(ProbePair {
        chain: issue(&params, &key, authority)?,
        key: key.serialize_pem(),
    })
}
