//! Where the sidecar stands and what it does next: a function of what was observed and the time.

use jiff::Timestamp;
use std::fmt;
use volttron_crds::{ConditionStatus, Phase, VolttronCertRequestStatus};

/// Where the sidecar stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The request is not filed yet.
    Filing,
    /// The request waits for an administrator, or for its signature.
    Pending,
    /// The certificate is there and something else is missing.
    Issued,
    /// The connection is being opened.
    Connecting,
    /// The broker has accepted the connection.
    Connected,
    /// An administrator has said no.
    Denied,
    /// The request cannot be signed.
    Failed,
    /// The certificate has run out.
    Expired,
}

impl State {
    /// All states.
    pub const ALL: [Self; 8] = [
        Self::Filing,
        Self::Pending,
        Self::Issued,
        Self::Connecting,
        Self::Connected,
        Self::Denied,
        Self::Failed,
        Self::Expired,
    ];

    /// The state's name, the same in logs, metrics and `/readyz`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Filing => "Filing",
            Self::Pending => "Pending",
            Self::Issued => "Issued",
            Self::Connecting => "Connecting",
            Self::Connected => "Connected",
            Self::Denied => "Denied",
            Self::Failed => "Failed",
            Self::Expired => "Expired",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All that the next step depends on, besides the time.
#[derive(Clone, Debug)]
pub struct Observed<'a> {
    /// What the request would be; unknown until the instance has been seen once.
    pub request_for: RequestFor<'a>,
    /// The request as the API server has it.
    pub request: RequestSeen<'a>,
    /// Whether a connection can be opened, by what the request and the instance offer.
    pub offer: Offer<'a>,
    /// End of life of the certificate that connections are opened with now.
    pub held: Option<Timestamp>,
    /// The connection.
    pub link: &'a Link,
}

/// Whether it is known what to ask for.
#[derive(Clone, Debug)]
pub enum RequestFor<'a> {
    /// Not yet, and why.
    Unknown(String),
    /// It cannot be asked, and why.
    Impossible(String),
    /// The request of this name, in this namespace.
    Known {
        /// Name of the request.
        name: &'a str,
        /// Namespace of the request.
        namespace: &'a str,
    },
}

/// The request as it was last seen.
#[derive(Clone, Debug)]
pub enum RequestSeen<'a> {
    /// The API server has not answered yet, and why where that is known.
    Unknown(Option<&'a str>),
    /// There is none; why the last attempt to file it failed, where one did.
    Absent(Option<&'a str>),
    /// It has been deleted and is being cleaned up.
    Deleted,
    /// An object of its name asks for something else.
    Foreign(String),
    /// It is there.
    Present(Option<&'a VolttronCertRequestStatus>),
}

/// What a connection could be opened with.
#[derive(Clone, Debug)]
pub enum Offer<'a> {
    /// No certificate.
    None,
    /// A certificate, while this is missing.
    Incomplete(&'a str),
    /// A certificate or address that cannot be used.
    Invalid(&'a str),
    /// A certificate of this end of life.
    Valid(Timestamp),
}

/// The connection to the broker.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Link {
    /// None is wanted.
    #[default]
    Idle,
    /// Being opened; why the last attempt failed, where one did.
    Opening(Option<String>),
    /// Open; why the broker takes no messages, where it said so.
    Open(Option<String>),
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Leave the connection as it is.
    Stay,
    /// Close the connection, and file the request.
    File,
    /// Have a connection with what is offered.
    Connect,
    /// Close the connection.
    Leave,
}

/// The next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// Where the sidecar stands.
    pub state: State,
    /// Why, in one line for people.
    pub reason: String,
    /// Whether the reason is a fault rather than a course of things.
    pub trouble: bool,
    /// What is to be done.
    pub order: Order,
    /// When to ask again though nothing was observed.
    pub until: Option<Timestamp>,
}

/// Decides.
#[must_use]
pub fn next(observed: &Observed<'_>, now: Timestamp) -> Next {
    let (name, namespace) = match &observed.request_for {
        RequestFor::Unknown(why) => return step(State::Filing, why, Order::Stay),
        RequestFor::Impossible(why) => return step(State::Failed, why, Order::Leave),
        RequestFor::Known { name, namespace } => (*name, *namespace),
    };
    let status = match &observed.request {
        RequestSeen::Unknown(why) => {
            let reason = format!("looking for request {name}");
            return match why {
                Some(why) => trouble(State::Filing, format!("{reason}: {why}"), Order::Stay),
                None => step(State::Filing, reason, Order::Stay),
            };
        }
        // Removed because a later request of the same identity has taken its place, say: whether the
        // access goes with it is the broker's to tell.
        RequestSeen::Absent(_) | RequestSeen::Deleted
            if matches!(observed.link, Link::Open(_))
                && observed.held.is_some_and(|ends| now < ends) =>
        {
            let reason = format!("connected; request {name} is gone, and the broker lets us stay");
            return Next {
                until: observed.held,
                ..step(State::Connected, reason, Order::Stay)
            };
        }
        RequestSeen::Absent(None) => {
            return step(State::Filing, format!("filing request {name}"), Order::File);
        }
        RequestSeen::Absent(Some(why)) => return trouble(State::Filing, *why, Order::File),
        RequestSeen::Deleted => {
            let reason = format!("request {name} is being deleted; it is filed again after that");
            return step(State::Filing, reason, Order::Leave);
        }
        RequestSeen::Foreign(why) => {
            let reason = format!(
                "there is a request {name} that is not ours: {why}; \
                 delete it with: kubectl delete vcr {name} -n {namespace}"
            );
            return step(State::Failed, reason, Order::Leave);
        }
        RequestSeen::Present(status) => *status,
    };
    match status.and_then(|status| status.phase) {
        Some(Phase::Denied) => step(State::Denied, denial(status), Order::Leave),
        Some(Phase::Failed) => {
            let why = message(status, "Failed").unwrap_or("the request cannot be signed");
            step(State::Failed, why, Order::Leave)
        }
        Some(Phase::Expired) => {
            let ended = status.and_then(|status| status.not_after.as_deref());
            // Where nobody decided in time, there was no certificate.
            let lapsed = || message(status, "Issued").unwrap_or("nobody decided in time");
            let why = ended.map_or_else(|| lapsed().to_owned(), expired);
            step(State::Expired, why, Order::Leave)
        }
        phase => undecided_or_issued(observed, now, phase, status, (name, namespace)),
    }
}

fn undecided_or_issued(
    observed: &Observed<'_>,
    now: Timestamp,
    phase: Option<Phase>,
    status: Option<&VolttronCertRequestStatus>,
    (name, namespace): (&str, &str),
) -> Next {
    // What is not withdrawn stays in use, even where the offer is for a moment not complete.
    let (not_after, order) = match (&observed.offer, observed.held) {
        (Offer::Valid(not_after), _) => (*not_after, Order::Connect),
        (_, Some(not_after)) => (not_after, Order::Stay),
        (Offer::Invalid(why), None) => return trouble(State::Issued, *why, Order::Stay),
        (Offer::Incomplete(what), None) => {
            return step(State::Issued, format!("waiting for {what}"), Order::Stay);
        }
        (Offer::None, None) => {
            let reason = match phase {
                None => "filed; the controller has not looked at it yet".to_owned(),
                Some(Phase::Approved) => "approved; waiting for the signature".to_owned(),
                Some(Phase::Issued) => "issued, without a certificate in the status".to_owned(),
                _ => pending(status, name, namespace),
            };
            return step(State::Pending, reason, Order::Stay);
        }
    };
    if now >= not_after {
        return step(State::Expired, expired(not_after), Order::Leave);
    }
    let next = match observed.link {
        Link::Idle => step(State::Issued, "certificate issued", order),
        Link::Opening(None) => step(State::Connecting, "opening the connection", order),
        Link::Opening(Some(why)) => trouble(State::Connecting, why, order),
        Link::Open(None) => step(State::Connected, "connected", order),
        Link::Open(Some(why)) => {
            let reason = format!("connected; the broker takes no messages at the moment: {why}");
            trouble(State::Connected, reason, order)
        }
    };
    Next {
        until: Some(not_after),
        ..next
    }
}

fn step(state: State, reason: impl Into<String>, order: Order) -> Next {
    Next {
        state,
        reason: reason.into(),
        trouble: false,
        order,
        until: None,
    }
}

fn trouble(state: State, reason: impl Into<String>, order: Order) -> Next {
    Next {
        trouble: true,
        ..step(state, reason, order)
    }
}

fn pending(status: Option<&VolttronCertRequestStatus>, name: &str, namespace: &str) -> String {
    let how = format!(
        "approve with: kubectl annotate vcr {name} -n {namespace} volttron.org/decision=approved"
    );
    match message(status, "Approved") {
        Some(why) => format!("{why}; {how}"),
        None => format!("waiting for an administrator; {how}"),
    }
}

fn denial(status: Option<&VolttronCertRequestStatus>) -> String {
    let decision = status.and_then(|status| status.decision.as_ref());
    let by = decision.and_then(|decision| decision.by.as_deref());
    let reason = decision.and_then(|decision| decision.reason.as_deref());
    match (by, reason) {
        (Some(by), Some(reason)) => format!("denied by {by}: {reason}"),
        (Some(by), None) => format!("denied by {by}"),
        (None, Some(reason)) => format!("denied: {reason}"),
        (None, None) => message(status, "Denied")
            .unwrap_or("denied by an administrator")
            .to_owned(),
    }
}

fn expired(since: impl fmt::Display) -> String {
    format!("the certificate ran out at {since}; delete the request or the pod for a new one")
}

/// Message of the condition `kind`, where it says something.
fn message<'a>(status: Option<&'a VolttronCertRequestStatus>, kind: &str) -> Option<&'a str> {
    let conditions = &status?.conditions;
    let condition = conditions.iter().find(|c| {
        // `Approved` and `Issued` explain themselves while they are not true, the others while they are.
        let is_goal = ["Approved", "Issued"].contains(&kind);
        let explains = is_goal != (c.status == ConditionStatus::True.as_str());
        c.type_ == kind && explains
    })?;
    Some(condition.message.as_str()).filter(|message| !message.is_empty())
}

#[cfg(test)]
mod tests;
