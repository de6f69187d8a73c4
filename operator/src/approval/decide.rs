//! What is to be done with a request.

use super::identity::{Conflict, Ruling, Standing};
use crate::pki::{CheckedRequest, Rejection};
use jiff::Timestamp;
use std::time::Duration;
use volttron_crds::{DecisionHow, Phase, VolttronCertRequest};

/// The reason of condition `Issued` of a request that waits for an administrator and for nothing
/// else.
pub const WAITING_FOR_APPROVAL: &str = "WaitingForApproval";
/// The reason of [`Waiting::Conflict`].
pub const IDENTITY_CONFLICT: &str = "IdentityConflict";

/// The reasons of condition `Issued` of a request that is not looked at, because its namespace is
/// shut out or there is no room for it.
pub const TURNED_AWAY: [&str; 4] = [
    "NamespaceNotAllowed",
    "TooManyPending",
    "TooManyPendingOfRequester",
    "TooManyPendingOfNamespace",
];

/// What was observed of a request and of the world around it.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The request.
    pub request: &'a VolttronCertRequest,
    /// What the check of its signing request gave.
    pub checked: &'a Result<CheckedRequest, Rejection>,
    /// What was decided about it and its identity, and who else wants its name.
    pub standing: &'a Standing,
    /// Why the instance does not take requests from its namespace, if it does not.
    pub shut_out: Option<&'a Waiting>,
    /// Why there is no room for it among those that wait, if there is none.
    pub crowded_out: Option<&'a Waiting>,
    /// What an approved request would still wait for; `None` where everything is ready to sign.
    pub obstacle: Option<&'a Waiting>,
    /// How long a request may wait for a decision.
    pub pending_life: Duration,
    /// The time.
    pub now: Timestamp,
}

/// What a request waits for. The text is the condition's message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Waiting {
    /// The instance does not exist.
    #[error("VolttronInstance {0} does not exist; the request goes on when it is created")]
    Instance(String),
    /// The instance is being deleted.
    #[error("VolttronInstance {0} is being deleted")]
    InstanceDeleted(String),
    /// The instance's certificate authority cannot sign.
    #[error("the certificate authority of the instance is not ready: {0}")]
    Authority(String),
    /// The instance's broker cannot take users.
    #[error("the broker of the instance is not ready: {0}")]
    Broker(String),
    /// The approval gate does not stand.
    #[error("nothing is signed while the approval gate is down: {0}")]
    Gate(String),
    /// The broker has a user of that name that is not an agent's.
    #[error("{0}")]
    UserName(String),
    /// The instance does not take requests from this namespace.
    #[error("VolttronInstance {instance} does not take requests from namespace {namespace}: {why}")]
    Namespace {
        /// The instance.
        instance: String,
        /// The request's namespace.
        namespace: String,
        /// What spec.requests.allowedNamespaces says, and what to change.
        why: &'static str,
    },
    /// There are too many undecided requests for the instance.
    #[error(
        "{0} requests for the instance wait for a decision already, as many as \
         spec.requests.maxPending allows; this one is looked at when there is room, and an \
         administrator may decide on it before"
    )]
    Room(i32),
    /// There are too many undecided requests of the requester.
    #[error(
        "{0} requests of this requester wait for a decision already, as many as \
         spec.requests.maxPendingPerRequester allows; this one is looked at when there is room, and \
         an administrator may decide on it before"
    )]
    RequesterRoom(i32),
    /// There are too many undecided requests in the namespace.
    #[error(
        "{limit} requests in namespace {namespace} wait for a decision already, as many as \
         spec.requests.maxPendingPerNamespace allows; this one is looked at when there is room, and \
         an administrator may decide on it before"
    )]
    NamespaceRoom {
        /// The request's namespace.
        namespace: String,
        /// How many may wait.
        limit: i32,
    },
    /// The identity has so many certificates that another one is not for a policy to give.
    #[error(
        "{0} certificates of this common name and requester have not run out yet, and no more are \
         renewed without being asked for: approve this request itself, or wait until earlier \
         certificates have run out"
    )]
    Certificates(usize),
    /// Another requester has, or wants, the name.
    #[error(
        "{}", match .0 {
            Conflict { requester, request, bound: true } => format!(
                "the common name is bound to {requester} by request {request}: to give it to \
                 another requester, deny or delete that request first"
            ),
            Conflict { requester, request, bound: false } => format!(
                "{requester} asked for the same common name before, with request {request}, and \
                 that waits for a decision too: approve the one who should have the name"
            ),
        }
    )]
    Conflict(Conflict),
    /// A denied certificate of the same name is not refused by the broker yet.
    #[error(
        "the name was denied before, and the broker does not refuse the earlier certificate yet: \
         {0}; the new one is let in as soon as it does, which can take two minutes"
    )]
    Revocation(String),
    /// The Secret's name is taken.
    #[error(
        "Secret {0} exists and does not belong to this request; it is left as it is: delete or \
         rename it, and the request goes on"
    )]
    Secret(String),
}

impl Waiting {
    /// Whether an undecided request waits for this as well.
    fn is_for_instance(&self) -> bool {
        matches!(self, Self::Instance(_) | Self::InstanceDeleted(_))
    }

    /// The `reason` of the condition.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Instance(_) => "InstanceNotFound",
            Self::InstanceDeleted(_) => "InstanceDeleted",
            Self::Authority(_) => "CertificateAuthorityNotReady",
            Self::Broker(_) => "BrokerNotReady",
            Self::Gate(_) => "ApprovalGateMissing",
            Self::UserName(_) => "BrokerUserExists",
            Self::Namespace { .. } => TURNED_AWAY[0],
            Self::Room(_) => TURNED_AWAY[1],
            Self::RequesterRoom(_) => TURNED_AWAY[2],
            Self::NamespaceRoom { .. } => TURNED_AWAY[3],
            Self::Certificates(_) => "TooManyCertificates",
            Self::Conflict(_) => IDENTITY_CONFLICT,
            Self::Revocation(_) => "RevocationNotEnforced",
            Self::Secret(_) => "SecretExists",
        }
    }
}

/// The next step for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// It can never be signed as it is.
    Fail(&'a Rejection),
    /// It waits for its instance, for room, or for an administrator.
    Pend(Option<Waiting>),
    /// Nobody decided on it for too long.
    Lapse,
    /// It is approved and waits for something else.
    Hold(Ruling, &'a Waiting),
    /// It is approved: see that user, Secret and status are there. Signs only where no certificate
    /// was made before.
    Issue(Ruling, &'a CheckedRequest),
    /// It was issued and nobody decided otherwise: see that user and Secret stay.
    Keep(&'a CheckedRequest),
    /// It is denied: see that there is no user and no Secret, and that its certificate is revoked.
    Deny(Ruling),
    /// Its certificate has run out: see that there is no user.
    Expire,
}

/// Decides the next step for a request. Signing needs an approval, always.
#[must_use]
pub fn decide(observed: Observed<'_>) -> Step<'_> {
    let Observed {
        request,
        checked,
        standing,
        obstacle,
        now,
        ..
    } = observed;
    // A denial holds whatever else is wrong with the request.
    if let Some(denied) = standing.ruling.clone().filter(|ruling| !ruling.approved) {
        return Step::Deny(denied);
    }
    let certificate_ends = certificate_ends(request);
    if certificate_ends.is_some_and(|ends| ends <= now) {
        return Step::Expire;
    }
    let checked = match checked {
        Ok(checked) => checked,
        Err(rejection) => return Step::Fail(rejection),
    };
    let is_out = certificate_ends.is_some() && request.phase() == Some(Phase::Issued);
    let approved = standing.ruling.clone();
    match (approved, obstacle) {
        (Some(approved), None) if is_out => Step::Issue(approved, checked),
        // An issued certificate stays: while the broker is away, when its namespace is shut out,
        // and when the annotation is taken away, which is no denial.
        _ if is_out => Step::Keep(checked),
        _ if observed.shut_out.is_some() => pend_or_lapse(observed, observed.shut_out.cloned()),
        (Some(_), _) if standing.is_blocked() => {
            let conflict = standing.conflict.clone().map(Waiting::Conflict);
            pend_or_lapse(observed, conflict)
        }
        (Some(approved), None) => Step::Issue(approved, checked),
        (Some(approved), Some(obstacle)) => Step::Hold(approved, obstacle),
        (None, _) => undecided(observed),
    }
}

fn undecided(observed: Observed<'_>) -> Step<'_> {
    let conflict = observed.standing.conflict.clone().map(Waiting::Conflict);
    let first = observed
        .obstacle
        .filter(|waiting| waiting.is_for_instance())
        .or(observed.crowded_out)
        .cloned();
    pend_or_lapse(observed, first.or(conflict))
}

/// A request waits for so long and no longer, unless an administrator wants it.
fn pend_or_lapse(observed: Observed<'_>, waiting: Option<Waiting>) -> Step<'_> {
    let ruling = observed.standing.ruling.as_ref();
    let is_wanted = ruling.is_some_and(|ruling| ruling.how == DecisionHow::Manual);
    let lapses = lapses_at(observed.request, observed.pending_life);
    if !is_wanted && lapses.is_some_and(|at| at <= observed.now) {
        return Step::Lapse;
    }
    Step::Pend(waiting)
}

/// When an undecided request has waited for too long.
#[must_use]
pub fn lapses_at(request: &VolttronCertRequest, pending_life: Duration) -> Option<Timestamp> {
    let created = request.metadata.creation_timestamp.as_ref()?.0;
    created.checked_add(pending_life).ok()
}

/// The end of the certificate that status records, if one was issued.
fn certificate_ends(request: &VolttronCertRequest) -> Option<Timestamp> {
    let status = request.status.as_ref()?;
    status.certificate.as_ref()?;
    status.not_after.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests;
