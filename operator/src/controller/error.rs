//! What makes a reconcile fail and be tried again.

use crate::broker::{Awaited, ManagementError};
use std::sync::Arc;

/// A failure that is tried again with backoff. What a user has to mend is a condition instead.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The API server refused or could not be reached.
    #[error("cannot {action}")]
    Kubernetes {
        /// What was tried.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: Box<kube::Error>,
    },
    /// The cache was behind the API server; the next try reads the newer object.
    #[error("the object has changed meanwhile")]
    Conflict,
    /// The broker could not be changed.
    #[error("the broker could not be changed")]
    Broker(#[source] Arc<ManagementError>),
    /// The broker takes its time; the reconcile goes on when it has answered.
    #[error("the broker takes its time")]
    AtBroker(Awaited),
    /// The broker cannot be reached, as the reconcile of its instance has found.
    #[error("the broker is away: {0}")]
    BrokerAway(String),
    /// What is in a Secret could not be compared with the CA.
    #[error(
        "whether the certificate in Secret {0} was signed for this request cannot be told while the \
         CA of the instance is not ready: mend the CA, or delete that Secret"
    )]
    AuthorityAway(String),
    /// The revocation list could not be kept.
    #[error("the revocation list could not be kept")]
    Revocation(#[source] Arc<Error>),
    /// The revocation list has no room.
    #[error(transparent)]
    ListFull(#[from] crate::revocation::Full),
    /// The revocation list could not be signed.
    #[error("the revocation list could not be signed")]
    List(#[from] super::revocations::ListError),
    /// The ledger of revoked certificates is not what was written.
    #[error(
        "Secret {0} with the ledger of revoked certificates cannot be read: restore it from a \
         backup, or delete it, which lets certificates in that were revoked before"
    )]
    LedgerUnreadable(String),
    /// Signing failed.
    #[error(transparent)]
    Sign(#[from] crate::pki::LeafError),
    /// An object cannot be written as JSON, or lacks what the API server always sets.
    #[error("an object is incomplete: {0}")]
    Incomplete(&'static str),
}

impl Error {
    /// Whether trying again is of no use before somebody mends something: the revocation list has
    /// no room or cannot be signed, or the API server understood and refused it.
    pub(super) fn is_refusal(&self) -> bool {
        match self {
            Self::Revocation(error) => error.is_refusal(),
            Self::ListFull(_) | Self::List(_) | Self::LedgerUnreadable(_) => true,
            Self::Kubernetes { source, .. } => {
                let kube::Error::Api(status) = source.as_ref() else {
                    return false;
                };
                // Too many requests; it is asked again.
                (400..500).contains(&status.code) && status.code != 429
            }
            _ => false,
        }
    }

    /// What failed, for metrics.
    pub(super) fn failing(&self) -> Failing {
        match self {
            Self::Kubernetes { .. } => Failing::Kubernetes,
            Self::Conflict => Failing::Conflict,
            Self::Broker(_) | Self::AtBroker(_) | Self::BrokerAway(_) => Failing::Broker,
            Self::Revocation(_) | Self::ListFull(_) | Self::List(_) | Self::LedgerUnreadable(_) => {
                Failing::Revocation
            }
            Self::Sign(_) => Failing::Sign,
            Self::AuthorityAway(_) => Failing::Authority,
            Self::Incomplete(_) => Failing::Incomplete,
        }
    }
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failing {
    Kubernetes,
    Conflict,
    Broker,
    Revocation,
    Sign,
    Authority,
    Incomplete,
}

impl Failing {
    /// All there are.
    pub(super) const ALL: [Self; 7] = [
        Self::Kubernetes,
        Self::Conflict,
        Self::Broker,
        Self::Revocation,
        Self::Sign,
        Self::Authority,
        Self::Incomplete,
    ];

    /// A short word for metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes",
            Self::Conflict => "conflict",
            Self::Broker => "broker",
            Self::Revocation => "revocation",
            Self::Sign => "sign",
            Self::Authority => "authority",
            Self::Incomplete => "incomplete",
        }
    }
}

/// Says what was tried when the API server refuses, and tells conflicts apart.
pub(super) trait Attempt<T> {
    /// Names what was tried.
    fn attempt(self, action: &'static str) -> Result<T, Error>;
}

impl<T> Attempt<T> for Result<T, kube::Error> {
    fn attempt(self, action: &'static str) -> Result<T, Error> {
        self.map_err(|error| match &error {
            kube::Error::Api(status) if status.is_conflict() => Error::Conflict,
            _ => Error::Kubernetes {
                action,
                source: Box::new(error),
            },
        })
    }
}

/// The error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
