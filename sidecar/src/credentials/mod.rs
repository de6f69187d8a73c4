//! What a connection is opened with: our certificate and key, and the CAs we trust. Checked
//! before anything uses it.

pub mod directory;

use crate::request::key::AgentKey;
use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::sign::CertifiedKey;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;
use volttron_crds::CommonName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// A certificate that fits our key, and the CAs to trust.
#[derive(Clone)]
pub struct Credentials {
    certified: Arc<CertifiedKey>,
    roots: Arc<RootCertStore>,
    not_after: Timestamp,
    certificate: String,
    bundle: String,
}

/// Why a certificate or CA bundle cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum InvalidCredentials {
    /// `status.certificate` of the request cannot be read.
    #[error("the issued certificate cannot be read")]
    Certificate,
    /// Somebody else's certificate.
    #[error("the issued certificate is for another key")]
    Key,
    /// A certificate for our key with another name.
    #[error("the issued certificate is for {0:?}")]
    Name(String),
    /// `status.ca.bundle` of the instance cannot be read.
    #[error("the instance's CA bundle cannot be read")]
    Bundle,
}

impl Credentials {
    /// Checks that `certificate` (leaf and intermediates, PEM) is for `key` and `name`, and that
    /// `bundle` (PEM) has CA certificates.
    pub fn check(
        certificate: &str,
        bundle: &str,
        key: &AgentKey,
        name: &CommonName,
    ) -> Result<Self, InvalidCredentials> {
        let chain = certificates(certificate).ok_or(InvalidCredentials::Certificate)?;
        let (subject, not_after) = chain
            .first()
            .and_then(read_leaf)
            .ok_or(InvalidCredentials::Certificate)?;
        if subject != format!("CN={name}") {
            return Err(InvalidCredentials::Name(subject));
        }
        let certified = CertifiedKey::new(chain, key.signing_key());
        if certified.keys_match().is_err() {
            return Err(InvalidCredentials::Key);
        }
        let mut roots = RootCertStore::empty();
        for root in certificates(bundle).ok_or(InvalidCredentials::Bundle)? {
            roots.add(root).map_err(|_| InvalidCredentials::Bundle)?;
        }
        Ok(Self {
            certified: Arc::new(certified),
            roots: Arc::new(roots),
            not_after,
            certificate: certificate.to_owned(),
            bundle: bundle.to_owned(),
        })
    }

    /// Our certificate chain with the key that signs for it.
    #[must_use]
    pub fn certified_key(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.certified)
    }

    /// The CAs to trust, and no others.
    #[must_use]
    pub fn roots(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.roots)
    }

    /// End of the certificate's life.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The certificate chain, PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// The CA bundle, PEM.
    #[must_use]
    pub fn bundle(&self) -> &str {
        &self.bundle
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("not_after", &self.not_after)
            .field("roots", &self.roots.len())
            .finish_non_exhaustive()
    }
}

/// The certificates of a PEM text; `None` where there is none or one is broken.
fn certificates(pem: &str) -> Option<Vec<CertificateDer<'static>>> {
    let certificates = CertificateDer::pem_slice_iter(pem.as_bytes());
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().ok()?;
    (!certificates.is_empty()).then_some(certificates)
}

fn read_leaf(leaf: &CertificateDer<'static>) -> Option<(String, Timestamp)> {
    let (_, leaf) = X509Certificate::from_der(leaf).ok()?;
    let not_after = Timestamp::from_second(leaf.validity().not_after.timestamp()).ok()?;
    Some((leaf.subject().to_string(), not_after))
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
        ExtendedKeyUsagePurpose, IsCa, KeyPair, SubjectPublicKeyInfo,
    };

    /// A certificate authority for tests.
    pub type Authority = CertifiedIssuer<'static, KeyPair>;

    /// Makes a certificate authority.
    pub fn authority(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    /// Signs a client certificate, PEM.
    pub fn sign(authority: &Authority, name: &str, key: &AgentKey) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = SubjectPublicKeyInfo::from_der(key.subject_public_key_info()).unwrap();
        params.signed_by(&key, authority).unwrap().pem()
    }

    fn common_name(name: &str) -> DistinguishedName {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, name);
        subject
    }

    const NAME: &str = "central.building-7.forwarder";

    #[test]
    fn a_certificate_for_our_key_and_name_is_used() {
        let (ca, key) = (authority("central"), AgentKey::generate().unwrap());
        let name = NAME.parse().unwrap();
        let credentials =
            Credentials::check(&sign(&ca, NAME, &key), &ca.pem(), &key, &name).unwrap();
        assert_eq!(credentials.roots().len(), 1);
    }

    #[test]
    fn a_certificate_that_is_not_ours_is_refused() {
        let (ca, key) = (authority("central"), AgentKey::generate().unwrap());
        let (name, other) = (NAME.parse().unwrap(), AgentKey::generate().unwrap());
        let ours = sign(&ca, NAME, &key);
        let cases = [
            (sign(&ca, NAME, &other), ca.pem(), InvalidCredentials::Key),
            (
                sign(&ca, "central.b.c", &key),
                ca.pem(),
                InvalidCredentials::Name("CN=central.b.c".to_owned()),
            ),
            (String::new(), ca.pem(), InvalidCredentials::Certificate),
            ("x".to_owned(), ca.pem(), InvalidCredentials::Certificate),
            (ours.clone(), String::new(), InvalidCredentials::Bundle),
            (ours, "x".to_owned(), InvalidCredentials::Bundle),
        ];
        for (certificate, bundle, reason) in cases {
            let refused = Credentials::check(&certificate, &bundle, &key, &name);
            assert_eq!(refused.err(), Some(reason));
        }
    }
}
