//! The agent's private key. It is made here and never leaves the pod.

use rcgen::{CertificateParams, DistinguishedName, DnType, PublicKeyData};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::crypto::aws_lc_rs::sign::any_ecdsa_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::SigningKey;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;
use volttron_crds::CommonName;
use zeroize::Zeroizing;

/// An ECDSA P-256 key pair.
pub struct AgentKey {
    pair: KeyPair,
    signing_key: Arc<dyn SigningKey>,
    subject_public_key_info: Vec<u8>,
}

/// Why there is no key, or no signing request of it. None of the messages carries key material.
#[derive(Debug, Error)]
pub enum KeyError {
    /// The key could not be made, read or used.
    #[error("cannot use the key")]
    Unusable(#[from] rcgen::Error),
    /// A key of another algorithm than the sidecar makes.
    #[error("the key is not ECDSA P-256")]
    Algorithm,
    /// The TLS library does not take the key.
    #[error("TLS cannot use the key")]
    Tls(#[from] rustls::Error),
}

impl AgentKey {
    /// Makes a new key.
    pub fn generate() -> Result<Self, KeyError> {
        Self::from_pair(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?)
    }

    /// Reads a key that [`Self::to_pem`] wrote.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        let pair = KeyPair::from_pem(pem)?;
        if !pair.is_compatible(&PKCS_ECDSA_P256_SHA256) {
            return Err(KeyError::Algorithm);
        }
        Self::from_pair(pair)
    }

    /// The private key as PKCS #8 PEM, wiped when dropped.
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        Zeroizing::new(self.pair.serialize_pem())
    }

    /// The public key, as a DER `SubjectPublicKeyInfo` (RFC 5280).
    #[must_use]
    pub fn subject_public_key_info(&self) -> &[u8] {
        &self.subject_public_key_info
    }

    /// The key as rustls signs with it.
    #[must_use]
    pub fn signing_key(&self) -> Arc<dyn SigningKey> {
        Arc::clone(&self.signing_key)
    }

    /// A certificate signing request (PKCS #10, PEM) whose subject is the common name and nothing
    /// else.
    pub fn signing_request(&self, common_name: &CommonName) -> Result<String, KeyError> {
        let mut subject = DistinguishedName::new();
        subject.push(DnType::CommonName, common_name.to_string());
        let mut params = CertificateParams::default();
        params.distinguished_name = subject;
        Ok(params.serialize_request(&self.pair)?.pem()?)
    }

    fn from_pair(pair: KeyPair) -> Result<Self, KeyError> {
        let der = Zeroizing::new(pair.serialize_der());
        let der = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der.as_slice()));
        let signing_key = any_ecdsa_type(&der)?;
        let subject_public_key_info = pair.subject_public_key_info();
        Ok(Self {
            pair,
            signing_key,
            subject_public_key_info,
        })
    }
}

impl fmt::Debug for AgentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AgentKey(ECDSA P-256)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_parser::prelude::{FromDer, X509CertificationRequest};

    #[test]
    fn a_signing_request_asks_for_one_common_name_and_nothing_else() {
        let key = AgentKey::generate().unwrap();
        let name = "central.collector2.forwarder".parse().unwrap();
        let pem = key.signing_request(&name).unwrap();
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap();
        let (_, request) = X509CertificationRequest::from_der(&pem.contents).unwrap();
        request.verify_signature().unwrap();
        let info = &request.certification_request_info;
        assert_eq!(
            info.subject.to_string(),
            "CN=central.collector2.forwarder",
            "subject"
        );
        assert!(
            request.requested_extensions().is_none(),
            "extensions were requested"
        );
        assert_eq!(info.subject_pki.raw, key.subject_public_key_info());
    }

    #[test]
    fn a_key_that_was_written_is_the_same_key_when_it_is_read() {
        let key = AgentKey::generate().unwrap();
        let read = AgentKey::from_pem(&key.to_pem()).unwrap();
        assert_eq!(
            read.subject_public_key_info(),
            key.subject_public_key_info()
        );
    }

    #[test]
    fn a_foreign_key_is_refused() {
        let other = KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
        let refused = AgentKey::from_pem(&other.serialize_pem());
        assert!(
            matches!(refused, Err(KeyError::Algorithm)),
            "Ed25519 was taken"
        );
        for text in ["", "hello", "-----BEGIN PRIVATE KEY-----\n"] {
            assert!(AgentKey::from_pem(text).is_err(), "{text:?} was taken");
        }
    }

    #[test]
    fn printing_a_key_shows_no_key() {
        let key = AgentKey::generate().unwrap();
        assert_eq!(format!("{key:?}"), "AgentKey(ECDSA P-256)");
    }
}
