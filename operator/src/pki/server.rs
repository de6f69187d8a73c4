//! The broker's own certificate.

use super::authority::Authority;
use super::issue::issue;
use super::leaf::{LeafError, SerialNumber, spki};
use super::{backdated, to_offset_date_time, to_timestamp};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Life of a server certificate. It is replaced when a third of it is left.
const LIFE: SignedDuration = SignedDuration::from_hours(90 * 24);

/// A server certificate and its key.
pub struct ServerPair {
    /// The certificate with the chain below the root (PEM).
    pub chain: String,
    /// The private key (PKCS #8, PEM).
    pub key: String,
}

/// Issues a certificate for a server that is reached by `dns_names`; the first one is its common
/// name.
///
/// # Errors
/// [`LeafError`] where a name is no DNS name or the key cannot be made.
pub fn issue_server_pair(
    authority: &Authority,
    dns_names: &[String],
    now: Timestamp,
) -> Result<ServerPair, LeafError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let mut params = CertificateParams::new(dns_names.to_vec())?;
    params.serial_number = Some(SerialNumber::random().to_rcgen());
    params.not_before = to_offset_date_time(backdated(now).max(authority.not_before()));
    params.not_after = to_offset_date_time(
        now.saturating_add(LIFE)
            .unwrap_or(Timestamp::MAX)
            .min(authority.not_after()),
    );
    params.distinguished_name = DistinguishedName::new();
    // The common name is for people: clients look at the subject alternative names (RFC 9525).
    let common_name: String = dns_names
        .first()
        .map(|n| n.chars().take(64).collect())
        .unwrap_or_default();
    params
        .distinguished_name
        .push(DnType::CommonName, common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(ServerPair {
        chain: issue(&params, &key, authority)?,
        key: key.serialize_pem(),
    })
}

/// Whether a stored pair can stay: its key fits, `authority` signed it, the certificates behind it
/// are those that belong there now, it covers `dns_names`, and more than a third of its life is
/// left, or it lives as long as the authority itself.
#[must_use]
pub fn server_pair_is_current(
    authority: &Authority,
    chain: &str,
    key: &str,
    dns_names: &[String],
    now: Timestamp,
) -> bool {
    let (Ok(blocks), Ok(behind)) = (
        pem::parse_many(chain),
        pem::parse_many(authority.intermediates()),
    ) else {
        return false;
    };
    let Some((first, rest)) = blocks.split_first() else {
        return false;
    };
    if rest != behind {
        return false;
    }
    let Ok((_, certificate)) = X509Certificate::from_der(first.contents()) else {
        return false;
    };
    let Ok(key) = KeyPair::from_pem(key) else {
        return false;
    };
    let not_before = to_timestamp(certificate.validity().not_before);
    let not_after = to_timestamp(certificate.validity().not_after);
    let third = not_after.duration_since(not_before) / 3;
    let names: Vec<&str> = certificate
        .subject_alternative_name()
        .ok()
        .flatten()
        .map(|san| {
            san.value
                .general_names
                .iter()
                .filter_map(|name| match name {
                    GeneralName::DNSName(name) => Some(*name),
                    _ => None,
                })
                .collect()
        })
        .unwrap_or_default();
    certificate.public_key().raw == spki(&key)
        && authority.signed(&certificate)
        && (not_after.duration_since(now) > third || not_after >= authority.not_after())
        && dns_names
            .iter()
            .all(|wanted| names.contains(&wanted.as_str()))
}
