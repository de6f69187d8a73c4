//! Why the management API was of no use.

use reqwest::{Method, StatusCode};

/// Why a call failed. The text is shown in conditions.
#[derive(Debug, thiserror::Error)]
pub enum ManagementError {
    /// The trust bundle is not usable.
    #[error("the CA bundle for {0} is not usable")]
    Trust(String, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer: not running, not reachable, or its certificate is not of this instance's CA.
    #[error("{address} is not reachable: {detail}")]
    Unreachable {
        /// What was called.
        address: String,
        /// The innermost cause.
        detail: String,
    },
    /// The broker does not know the operator's password.
    #[error("{0} refuses the operator's password (401)")]
    Unauthorized(String),
    /// The broker has a user of that name that the operator did not make.
    #[error(
        "broker user {0} exists and was not made by the operator; it is left as it is: delete it, \
         or have the agent ask under another name"
    )]
    ForeignUser(String),
    /// A request of somebody else holds the user.
    #[error(
        "broker user {name} is held by a request of {requester}: one common name belongs to one \
         requester; deny or delete that request first"
    )]
    ClaimedByAnother {
        /// The user.
        name: String,
        /// Who holds it.
        requester: String,
    },
    /// No user of that name can be told apart from what others have on the bus.
    #[error("broker user {name} cannot be made: {why}; have the agent ask under another name")]
    UnusableName {
        /// The user.
        name: String,
        /// What it would be taken for.
        why: &'static str,
    },
    /// The broker is busy or hangs. What was asked goes on, and asking again joins it.
    #[error("{0} is slow: no answer yet; it is asked again")]
    Slow(String),
    /// Another replica leads by now.
    #[error("{0} was not called: this replica no longer leads")]
    NotLeading(String),
    /// The broker refused the call.
    #[error("{method} {address} was refused with {status}: {body}")]
    Refused {
        /// The HTTP method.
        method: Method,
        /// What was called.
        address: String,
        /// The HTTP status.
        status: StatusCode,
        /// The beginning of the answer.
        body: String,
    },
    /// The answer is not what the API documents.
    #[error("{address} gave an answer that cannot be read: {detail}")]
    Unreadable {
        /// What was called.
        address: String,
        /// What is wrong with it.
        detail: String,
    },
}

impl ManagementError {
    /// Whether the broker is fine, and the name cannot be had as things are.
    #[must_use]
    pub fn is_about_the_name(&self) -> bool {
        matches!(
            self,
            Self::ForeignUser(_) | Self::ClaimedByAnother { .. } | Self::UnusableName { .. }
        )
    }

    /// The `reason` of the condition.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Trust(..) => "InvalidTrustBundle",
            Self::Unreachable { .. } => "Unreachable",
            Self::Unauthorized(_) => "Unauthorized",
            Self::ForeignUser(_) => "BrokerUserExists",
            Self::ClaimedByAnother { .. } => "BrokerUserClaimed",
            Self::UnusableName { .. } => "UnusableName",
            Self::Slow(_) => "Slow",
            Self::NotLeading(_) => "NotLeading",
            Self::Refused { .. } => "Refused",
            Self::Unreadable { .. } => "UnreadableAnswer",
        }
    }
}
