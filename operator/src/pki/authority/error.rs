//! What can be wrong with a CA.

use crate::pki::name_hash::NameHashError;
use jiff::Timestamp;

/// Why a certificate and key are no authority. The messages name the fields of the Secret, and the
/// certificate at fault.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// A field is not PEM of certificates.
    #[error("{0} is not PEM of X.509 certificates")]
    CertificateMalformed(&'static str),
    /// `tls.key` is no private key that can be used.
    #[error("tls.key is not a PKCS #8 private key (PEM) of RSA, ECDSA P-256 or P-384")]
    KeyMalformed(#[source] rcgen::Error),
    /// The key belongs to another certificate.
    #[error("tls.key does not fit tls.crt: the public keys differ")]
    KeyMismatch,
    /// A certificate has run out, and what it leads to is not accepted any more.
    #[error("{which} expired at {at}")]
    Expired {
        /// The certificate.
        which: String,
        /// The end of its life.
        at: Timestamp,
    },
    /// A certificate is not in force yet.
    #[error("{which} is not valid before {at}")]
    NotYetValid {
        /// The certificate.
        which: String,
        /// The start of its life.
        at: Timestamp,
    },
    /// basicConstraints does not say CA:TRUE (RFC 5280, section 4.2.1.9).
    #[error("{0} is no CA certificate: its basicConstraints do not say CA:TRUE")]
    NotACa(String),
    /// keyUsage does not allow what a CA does (RFC 5280, section 4.2.1.3).
    #[error(
        "the keyUsage of {which} does not allow {lacks}: all CA certificates need keyCertSign, and \
         the first one cRLSign as well"
    )]
    MayNotSign {
        /// The certificate.
        which: String,
        /// What is not allowed.
        lacks: &'static str,
    },
    /// A path length constraint leaves no room for the CAs below it (RFC 5280, section 4.2.1.9).
    #[error(
        "the path length constraint of {which} allows {allowed} CA certificates below it, and \
         there are {below}"
    )]
    PathTooLong {
        /// The certificate.
        which: String,
        /// How many there may be.
        allowed: u32,
        /// How many there are.
        below: u32,
    },
    /// An intermediate CA without its root.
    #[error(
        "tls.crt is an intermediate CA without its root: append the chain up to the self-signed \
         root to tls.crt, or put the root into ca.crt"
    )]
    NoRoot,
    /// Brokers cannot look a revocation list up by the CA's name.
    #[error("the subject of the CA certificate cannot be used")]
    Name(#[source] NameHashError),
    /// What is to be trusted did not sign the chain.
    #[error("ca.crt does not hold the root that tls.crt leads to")]
    ForeignRoot,
    /// The chain does not lead from one certificate to the next.
    #[error("tls.crt is no chain: certificate {0} did not sign the one before it")]
    BrokenChain(usize),
}

impl AuthorityError {
    /// The `reason` of the condition.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::CertificateMalformed(_) => "InvalidCertificate",
            Self::KeyMalformed(_) => "InvalidKey",
            Self::KeyMismatch => "KeyMismatch",
            Self::Expired { .. } => "Expired",
            Self::NotYetValid { .. } => "NotYetValid",
            Self::NotACa(_) => "NotACertificateAuthority",
            Self::MayNotSign { .. } => "KeyUsageForbidsSigning",
            Self::PathTooLong { .. } => "PathLengthExceeded",
            Self::Name(_) => "UnsupportedSubject",
            Self::NoRoot | Self::ForeignRoot | Self::BrokenChain(_) => "IncompleteChain",
        }
    }
}
