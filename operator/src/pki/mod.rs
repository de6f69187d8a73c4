//! What is signed, and by whom. No Kubernetes client, no clock and no I/O: the time is passed in.

mod authority;
mod csr;
mod leaf;
mod server;

pub use authority::{Authority, generate};
pub use csr::{
    CheckedRequest, KeyKind, Origin, Rejection, RequestProfile, SubjectKey, check, validate,
};
pub use leaf::{LeafError, SerialNumber, SignedCertificate, adopt, sign};
pub use server::{ServerPair, issue_server_pair, server_pair_is_current};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

/// SHA-256 of `bytes`, in lower-case hex.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A [`Timestamp`] as rcgen takes it, in whole seconds (X.509 knows no fractions).
fn to_offset_date_time(at: Timestamp) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(at.as_second())
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH)
}

/// The time in an X.509 validity field.
fn to_timestamp(at: x509_parser::time::ASN1Time) -> Timestamp {
    Timestamp::from_second(at.timestamp()).unwrap_or(Timestamp::MAX)
}
