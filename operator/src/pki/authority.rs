//! The certificate authority of an instance: made here, or brought along and checked.

use super::leaf::spki;
use super::{sha256_hex, to_offset_date_time, to_timestamp};
use jiff::{SignedDuration, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, RsaKeySize,
};
use std::fmt;
use volttron_crds::{GeneratedAuthority, InstanceName, KeyAlgorithm};
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate authority that may sign: its key fits, it is a CA, and it is in force.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    spki: Vec<u8>,
    subject: Vec<u8>,
    intermediates: String,
    bundle: String,
    sha256: String,
    not_before: Timestamp,
    not_after: Timestamp,
}

/// The Debug of an authority never shows its key.
impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("sha256", &self.sha256)
            .finish_non_exhaustive()
    }
}

/// Why a certificate and key are no authority. The messages name the fields of the Secret.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// `tls.crt` is not PEM of certificates.
    #[error("tls.crt is not PEM of X.509 certificates")]
    CertificateMalformed,
    /// `tls.key` is no private key that can be used.
    #[error("tls.key is not a PKCS #8 private key (PEM) of RSA, ECDSA P-256 or P-384")]
    KeyMalformed(#[source] rcgen::Error),
    /// The key belongs to another certificate.
    #[error("tls.key does not fit tls.crt: the public keys differ")]
    KeyMismatch,
    /// The certificate has run out.
    #[error("the CA certificate expired at {0}")]
    Expired(Timestamp),
    /// The certificate is not in force yet.
    #[error("the CA certificate is not valid before {0}")]
    NotYetValid(Timestamp),
    /// basicConstraints does not say CA:TRUE.
    #[error("tls.crt is no CA certificate: its basicConstraints do not say CA:TRUE")]
    NotACa,
    /// keyUsage does not allow to sign certificates.
    #[error("the CA certificate's keyUsage does not allow keyCertSign")]
    MayNotSign,
    /// An intermediate CA without its root.
    #[error(
        "tls.crt is an intermediate CA without its root: append the chain up to the self-signed \
         root to tls.crt, or put the root into ca.crt"
    )]
    NoRoot,
    /// The chain does not lead from one certificate to the next.
    #[error("tls.crt is no chain: certificate {0} did not sign the one before it")]
    BrokenChain(usize),
}

impl AuthorityError {
    /// The `reason` of the condition.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::CertificateMalformed => "InvalidCertificate",
            Self::KeyMalformed(_) => "InvalidKey",
            Self::KeyMismatch => "KeyMismatch",
            Self::Expired(_) => "Expired",
            Self::NotYetValid(_) => "NotYetValid",
            Self::NotACa => "NotACertificateAuthority",
            Self::MayNotSign => "KeyUsageForbidsSigning",
            Self::NoRoot | Self::BrokenChain(_) => "IncompleteChain",
        }
    }
}

/// A new CA, as it goes into its Secret.
pub struct GeneratedPair {
    /// The certificate (PEM).
    pub certificate: String,
    /// The private key (PKCS #8, PEM).
    pub key: String,
}

/// Makes a self-signed CA for `instance`.
///
/// # Errors
/// [`rcgen::Error`] where the key cannot be made.
pub fn generate(
    instance: &InstanceName,
    settings: &GeneratedAuthority,
    now: Timestamp,
) -> Result<GeneratedPair, rcgen::Error> {
    let key = match settings.key_algorithm {
        KeyAlgorithm::EcdsaP256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?,
        KeyAlgorithm::EcdsaP384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384)?,
        KeyAlgorithm::Rsa3072 => {
            KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_3072)?
        }
        KeyAlgorithm::Rsa4096 => {
            KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_4096)?
        }
    };
    let mut name = DistinguishedName::new();
    let subject = &settings.subject;
    let words = [
        (DnType::CountryName, &subject.country),
        (DnType::StateOrProvinceName, &subject.state),
        (DnType::LocalityName, &subject.locality),
        (DnType::OrganizationName, &subject.organization),
        (DnType::OrganizationalUnitName, &subject.organizational_unit),
    ];
    for (kind, value) in words {
        if let Some(value) = value {
            name.push(kind, value.as_str());
        }
    }
    name.push(DnType::CommonName, format!("{instance} root CA"));

    let life = SignedDuration::try_from(settings.life()).unwrap_or(SignedDuration::MAX);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = to_offset_date_time(
        now.saturating_sub(SignedDuration::from_mins(5))
            .unwrap_or(now),
    );
    params.not_after = to_offset_date_time(now.saturating_add(life).unwrap_or(Timestamp::MAX));
    Ok(GeneratedPair {
        certificate: params.self_signed(&key)?.pem(),
        key: key.serialize_pem(),
    })
}

impl Authority {
    /// Reads and checks a CA: `certificates` is the CA certificate and its chain (PEM), `key` its
    /// private key (PEM), `roots` what to trust if that is not the end of the chain.
    ///
    /// # Errors
    /// [`AuthorityError`] says what is wrong with the Secret.
    pub fn load(
        certificates: &str,
        key: &str,
        roots: Option<&str>,
        now: Timestamp,
    ) -> Result<Self, AuthorityError> {
        let blocks = certificate_blocks(certificates)?;
        let parsed = blocks
            .iter()
            .map(|der| match X509Certificate::from_der(der) {
                Ok(([], certificate)) => Ok(certificate),
                _ => Err(AuthorityError::CertificateMalformed),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let ca = parsed.first().ok_or(AuthorityError::CertificateMalformed)?;
        let key = KeyPair::from_pem(key).map_err(AuthorityError::KeyMalformed)?;
        if spki(&key) != ca.public_key().raw {
            return Err(AuthorityError::KeyMismatch);
        }
        check_may_sign(ca)?;
        let (not_before, not_after) = in_force(ca, now)?;
        for (index, pair) in parsed.windows(2).enumerate() {
            if pair[0]
                .verify_signature(Some(pair[1].public_key()))
                .is_err()
            {
                return Err(AuthorityError::BrokenChain(index + 2));
            }
        }
        let bundle = match roots {
            Some(roots) => {
                certificate_blocks(roots)?;
                normalise(roots)?
            }
            None => match (parsed.last(), blocks.last()) {
                (Some(last), Some(der)) if is_self_signed(last) => to_pem(der),
                _ => return Err(AuthorityError::NoRoot),
            },
        };
        // The intermediates a peer needs: everything below the root.
        let intermediates: String = parsed
            .iter()
            .zip(&blocks)
            .filter(|(certificate, _)| !is_self_signed(certificate))
            .map(|(_, der)| to_pem(der))
            .collect();
        let ca_der = blocks[0].clone();
        let spki = ca.public_key().raw.to_vec();
        let subject = ca.subject().as_raw().to_vec();
        let issuer = Issuer::from_ca_cert_der(&ca_der.clone().into(), key)
            .map_err(|_| AuthorityError::CertificateMalformed)?;
        Ok(Self {
            issuer,
            spki,
            subject,
            intermediates,
            bundle,
            sha256: sha256_hex(&ca_der),
            not_before,
            not_after,
        })
    }

    pub(super) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// Whether this authority's key signed `certificate`.
    pub(super) fn signed(&self, certificate: &X509Certificate<'_>) -> bool {
        let Ok((_, key)) = x509_parser::x509::SubjectPublicKeyInfo::from_der(&self.spki) else {
            return false;
        };
        certificate.issuer().as_raw() == self.subject
            && certificate.verify_signature(Some(&key)).is_ok()
    }

    /// Certificates between a leaf and the root (PEM); empty where the CA is the root.
    #[must_use]
    pub fn intermediates(&self) -> &str {
        &self.intermediates
    }

    /// The certificates to trust (PEM).
    #[must_use]
    pub fn bundle(&self) -> &str {
        &self.bundle
    }

    /// SHA-256 of the CA certificate (DER), in hex.
    #[must_use]
    pub fn sha256(&self) -> &str {
        &self.sha256
    }

    /// Start of the CA certificate's life.
    #[must_use]
    pub fn not_before(&self) -> Timestamp {
        self.not_before
    }

    /// End of the CA certificate's life.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }
}

fn certificate_blocks(text: &str) -> Result<Vec<Vec<u8>>, AuthorityError> {
    let blocks = pem::parse_many(text).map_err(|_| AuthorityError::CertificateMalformed)?;
    let certificates: Vec<_> = blocks
        .into_iter()
        .filter(|block| block.tag() == "CERTIFICATE")
        .map(pem::Pem::into_contents)
        .collect();
    if certificates.is_empty() {
        return Err(AuthorityError::CertificateMalformed);
    }
    Ok(certificates)
}

fn normalise(text: &str) -> Result<String, AuthorityError> {
    Ok(certificate_blocks(text)?
        .iter()
        .map(|der| to_pem(der))
        .collect())
}

fn to_pem(der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE", der), config)
}

fn check_may_sign(ca: &X509Certificate<'_>) -> Result<(), AuthorityError> {
    if !ca.is_ca() {
        return Err(AuthorityError::NotACa);
    }
    match ca.key_usage() {
        Ok(Some(usage)) if !usage.value.key_cert_sign() => Err(AuthorityError::MayNotSign),
        Ok(_) => Ok(()),
        Err(_) => Err(AuthorityError::CertificateMalformed),
    }
}

fn in_force(
    ca: &X509Certificate<'_>,
    now: Timestamp,
) -> Result<(Timestamp, Timestamp), AuthorityError> {
    let not_before = to_timestamp(ca.validity().not_before);
    let not_after = to_timestamp(ca.validity().not_after);
    if now >= not_after {
        return Err(AuthorityError::Expired(not_after));
    }
    if now < not_before {
        return Err(AuthorityError::NotYetValid(not_before));
    }
    Ok((not_before, not_after))
}

fn is_self_signed(certificate: &X509Certificate<'_>) -> bool {
    certificate.subject().as_raw() == certificate.issuer().as_raw()
        && certificate.verify_signature(None).is_ok()
}

#[cfg(test)]
mod tests;
