//! What is signed, and by whom. No Kubernetes client, no clock and no I/O: the time is passed in.

mod authority;
mod cross;
mod csr;
#[cfg(test)]
mod fixtures;
mod generate;
mod issue;
mod leaf;
mod name_hash;
mod probe;
mod renewal;
mod revocation;
mod server;

pub use authority::{Authority, AuthorityError};
pub use cross::cross_sign;
pub use csr::{
    CheckedRequest, KeyKind, Origin, Rejection, RequestProfile, SubjectKey, check, validate,
};
pub use generate::{GeneratedPair, generate};
pub use leaf::{LeafError, LeafProfile, SerialNumber, SignedCertificate, adopt, sign};
pub use name_hash::{NameHashError, list_file_of};
pub use probe::{ProbePair, issue_probe_pair};
pub use renewal::renew_at;
pub use revocation::{RevocationList, RevocationReason, Revoked, resign_at, sign_revocation_list};
pub use server::{
    ServerPair, ServerPairState, issue_server_pair, reissue_server_pair, server_pair_state,
};

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

/// How far the begin of a validity lies back, so that clocks that run behind accept what is fresh.
pub const BACKDATE: SignedDuration = SignedDuration::from_mins(5);

/// SHA-256 of `bytes`, in lower-case hex.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// `now`, set back by [`BACKDATE`].
fn backdated(now: Timestamp) -> Timestamp {
    now.saturating_sub(BACKDATE).unwrap_or(now)
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

/// `at` without the fractions of its second.
fn whole_second(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// PEM with lines that end as on Unix.
fn to_pem(tag: &str, der: &[u8]) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(tag, der), config)
}
