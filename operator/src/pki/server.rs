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

/// What is to become of a server's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerPairState {
    /// It can stay.
    Current,
    /// Another certificate is needed for the same key: another CA signs, or other certificates
    /// belong behind it. A server that rereads its two files one after the other never has a
    /// certificate and a key that do not fit.
    OtherChain,
    /// It is due, or no certificate for this server at all.
    Due,
}

/// Issues a certificate for a server that is reached by `dns_names`, with a key of its own; the
/// first name is its common name.
///
/// # Errors
/// [`LeafError`] where a name is no DNS name or the key cannot be made.
pub fn issue_server_pair(
    authority: &Authority,
    dns_names: &[String],
    now: Timestamp,
) -> Result<ServerPair, LeafError> {
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    issue_for(authority, dns_names, &key, now)
}

/// As [`issue_server_pair`], for a `key` (PEM) that is there already.
///
/// # Errors
/// [`LeafError`] where a name is no DNS name or the key cannot be read.
pub fn reissue_server_pair(
    authority: &Authority,
    dns_names: &[String],
    key: &str,
    now: Timestamp,
) -> Result<ServerPair, LeafError> {
    issue_for(authority, dns_names, &KeyPair::from_pem(key)?, now)
}

fn issue_for(
    authority: &Authority,
    dns_names: &[String],
    key: &KeyPair,
    now: Timestamp,
) -> Result<ServerPair, LeafError> {
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
        chain: issue(&params, key, authority)?,
        key: key.serialize_pem(),
    })
}

/// Looks at a stored pair. It is current while its key fits, `authority` signed it, the
/// certificates behind it are those that belong there now, it covers `dns_names`, and more than a
/// third of its life is left, or it lives as long as the authority itself.
#[must_use]
pub fn server_pair_state(
    authority: &Authority,
    chain: &str,
    key: &str,
    dns_names: &[String],
    now: Timestamp,
) -> ServerPairState {
    let (Ok(blocks), Ok(behind), Ok(key)) = (
        pem::parse_many(chain),
        pem::parse_many(authority.intermediates()),
        KeyPair::from_pem(key),
    ) else {
        return ServerPairState::Due;
    };
    let Some((first, rest)) = blocks.split_first() else {
        return ServerPairState::Due;
    };
    let Ok((_, certificate)) = X509Certificate::from_der(first.contents()) else {
        return ServerPairState::Due;
    };
    let not_before = to_timestamp(certificate.validity().not_before);
    let not_after = to_timestamp(certificate.validity().not_after);
    let third = not_after.duration_since(not_before) / 3;
    let names = dns_names_of(&certificate);
    let signed = authority.signed(&certificate);
    let as_long_as_can_be = signed && not_after >= authority.not_after();
    if certificate.public_key().raw != spki(&key)
        || !(not_after.duration_since(now) > third || as_long_as_can_be)
        || !dns_names.iter().all(|name| names.contains(&name.as_str()))
    {
        ServerPairState::Due
    } else if signed && rest == behind {
        ServerPairState::Current
    } else {
        ServerPairState::OtherChain
    }
}

fn dns_names_of<'a>(certificate: &'a X509Certificate<'_>) -> Vec<&'a str> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = names.value.general_names.iter();
    names
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(*name),
            _ => None,
        })
        .collect()
}
