//! A signing request in parts, each of which can be replaced before it is put together and signed.

use crate::der::{COMMON_NAME, ECDSA_SHA256, bits, seq, set, tlv};
use rcgen::{KeyPair, PublicKeyData as _, SigningKey as _};

/// The parts.
pub struct Draft {
    pub key: KeyPair,
    pub version: Vec<u8>,
    pub subject: Vec<u8>,
    pub spki: Vec<u8>,
    /// With its tag, `[0]`.
    pub attributes: Vec<u8>,
    /// Behind the attributes, inside what is signed.
    pub behind_attributes: Vec<u8>,
    pub algorithm: Vec<u8>,
    /// In place of the true one: a BIT STRING.
    pub signature: Option<Vec<u8>>,
    /// Behind the signature, inside the request.
    pub behind_signature: Vec<u8>,
}

impl Draft {
    /// A sound request on P-256 for this name.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        Self {
            version: tlv(2, &[0]),
            subject: seq(&[&rdn(&[&common_name(name)])]),
            spki: key.subject_public_key_info(),
            attributes: tlv(0xa0, &[]),
            behind_attributes: Vec::new(),
            algorithm: ECDSA_SHA256.to_vec(),
            signature: None,
            behind_signature: Vec::new(),
            key,
        }
    }

    /// The part that is signed.
    pub fn info(&self) -> Vec<u8> {
        seq(&[
            &self.version,
            &self.subject,
            &self.spki,
            &self.attributes,
            &self.behind_attributes,
        ])
    }

    /// The request (DER).
    pub fn der(&self) -> Vec<u8> {
        self.around(&self.info())
    }

    /// The request around `info`, signed.
    pub fn around(&self, info: &[u8]) -> Vec<u8> {
        let signature = self.signature.clone();
        let signature =
            signature.unwrap_or_else(|| bits(&self.key.sign(info).expect("a signature")));
        seq(&[info, &self.algorithm, &signature, &self.behind_signature])
    }
}

/// A relative distinguished name.
pub fn rdn(attributes: &[&[u8]]) -> Vec<u8> {
    set(attributes)
}

/// An attribute of a name.
pub fn attribute(kind: &[u8], value: &[u8]) -> Vec<u8> {
    seq(&[kind, value])
}

/// A common name, as `UTF8String`.
pub fn common_name(name: &str) -> Vec<u8> {
    attribute(COMMON_NAME, &tlv(12, name.as_bytes()))
}

/// PEM.
pub fn armoured(der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new("CERTIFICATE REQUEST", der), config)
}
