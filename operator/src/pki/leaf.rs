//! Certificates for agents (RFC 5280): built from the profile and the checked public key alone.

use super::authority::Authority;
use super::csr::CheckedRequest;
use super::issue::issue;
use super::{backdated, to_offset_date_time, to_timestamp, whole_second};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    CertificateParams, CrlDistributionPoint, DistinguishedName, DnType, DnValue,
    ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, PublicKeyData, SubjectPublicKeyInfo,
};
use std::fmt;
use std::time::Duration;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate's serial number: 128 random bits, unique to one request for good.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SerialNumber([u8; 16]);

const HIGHEST_BITS: u8 = 0b1100_0000;
const POSITIVE: u8 = 0b0100_0000;

impl SerialNumber {
    /// A fresh one from the operating system's random numbers. Its highest bits are `01`, so that
    /// its DER is 16 octets, positive and without a leading zero (RFC 5280, section 4.1.2.2).
    #[must_use]
    pub fn random() -> Self {
        let mut bytes: [u8; 16] = rand::random();
        bytes[0] = (bytes[0] & !HIGHEST_BITS) | POSITIVE;
        Self(bytes)
    }

    pub(super) fn to_rcgen(&self) -> rcgen::SerialNumber {
        rcgen::SerialNumber::from_slice(&self.0)
    }

    /// A number from -1 to 1 that is the same for the same serial number and evenly spread.
    pub(super) fn spread(&self) -> f64 {
        let [.., high, low] = self.0;
        f64::from(u16::from_be_bytes([high, low])) / f64::from(u16::MAX) * 2.0 - 1.0
    }

    /// Reads what [`fmt::Display`] wrote of a number that [`Self::random`] made.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes: [u8; 16] = hex::decode(text).ok()?.try_into().ok()?;
        (bytes[0] & HIGHEST_BITS == POSITIVE).then_some(Self(bytes))
    }
}

impl fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// What an instance says about the certificates of its agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeafProfile {
    /// Their life, which is cut to the life of the authority.
    pub life: Duration,
    /// The URI where the revocation list can be fetched (RFC 5280, section 4.2.1.13); none as long
    /// as it is served nowhere.
    pub crl_distribution_point: Option<String>,
}

/// A signed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedCertificate {
    /// The certificate, followed by the certificates between it and a root; no root is in it (PEM).
    pub chain: String,
    /// Start of its life.
    pub not_before: Timestamp,
    /// End of its life.
    pub not_after: Timestamp,
}

/// Why something that is fit to be signed could not be signed.
#[derive(Debug, thiserror::Error)]
pub enum LeafError {
    /// The certificate or list could not be built or signed.
    #[error("the certificate could not be built")]
    Build(#[from] rcgen::Error),
    /// What was built cannot be read again.
    #[error("the certificate that was built is not DER")]
    Encoding,
}

/// Signs `request` as `profile` says.
///
/// # Errors
/// [`LeafError`] where rcgen or the CA's key fails.
pub fn sign(
    authority: &Authority,
    request: &CheckedRequest,
    serial: &SerialNumber,
    profile: &LeafProfile,
    now: Timestamp,
) -> Result<SignedCertificate, LeafError> {
    let key = SubjectPublicKeyInfo::from_der(&request.key.spki)?;
    let not_before = backdated(now).max(authority.not_before());
    let life = SignedDuration::try_from(profile.life).unwrap_or(SignedDuration::MAX);
    let not_after = now
        .saturating_add(life)
        .unwrap_or(Timestamp::MAX)
        .min(authority.not_after());

    let mut params = client_params(&request.common_name.to_string(), serial);
    params.not_before = to_offset_date_time(not_before);
    params.not_after = to_offset_date_time(not_after);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if matches!(request.key.algorithm, super::csr::KeyKind::Rsa(_)) {
        params.key_usages.push(KeyUsagePurpose::KeyEncipherment);
    }
    if let Some(uri) = &profile.crl_distribution_point {
        let uris = vec![uri.clone()];
        params.crl_distribution_points = vec![CrlDistributionPoint { uris }];
    }
    Ok(SignedCertificate {
        chain: issue(&params, &key, authority)?,
        not_before: whole_second(not_before),
        not_after: whole_second(not_after),
    })
}

/// What all certificates of clients have in common.
pub(super) fn client_params(common_name: &str, serial: &SerialNumber) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.serial_number = Some(serial.to_rcgen());
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(
        DnType::CommonName,
        DnValue::Utf8String(common_name.to_owned()),
    );
    params.is_ca = IsCa::ExplicitNoCa;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params
}

/// Recognises `chain` as the certificate that [`sign`] made for this request, serial number and
/// authority: what an interrupted reconcile left behind is used, and nothing is signed again.
#[must_use]
pub fn adopt(
    authority: &Authority,
    request: &CheckedRequest,
    serial: &SerialNumber,
    chain: &str,
) -> Option<SignedCertificate> {
    let block = pem::parse_many(chain).ok()?.into_iter().next()?;
    let (rest, certificate) = X509Certificate::from_der(block.contents()).ok()?;
    let fits = rest.is_empty()
        && certificate.public_key().raw == request.key.spki
        && certificate.raw_serial() == serial.0
        && authority.signed(&certificate);
    let validity = certificate.validity();
    fits.then(|| SignedCertificate {
        chain: chain.to_owned(),
        not_before: to_timestamp(validity.not_before),
        not_after: to_timestamp(validity.not_after),
    })
}

/// The subject public key info of any rcgen key, DER.
pub(super) fn spki(key: &impl PublicKeyData) -> Vec<u8> {
    key.subject_public_key_info()
}
