//! What is to be done with a request.

use super::annotation::{Verdict, verdict};
use crate::pki::{CheckedRequest, Rejection};
use jiff::Timestamp;
use volttron_crds::{Phase, VolttronCertRequest};

/// What was observed of a request and of the world around it.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The request.
    pub request: &'a VolttronCertRequest,
    /// What the check of its signing request gave.
    pub checked: &'a Result<CheckedRequest, Rejection>,
    /// What an approved request would still wait for; `None` where everything is ready to sign.
    pub obstacle: Option<&'a Waiting>,
    /// The time.
    pub now: Timestamp,
}

/// What an approved request waits for. The text is the condition's message.
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
            Self::Secret(_) => "SecretExists",
        }
    }
}

/// The next step for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// It can never be signed as it is.
    Fail(&'a Rejection),
    /// It waits for its instance, or for an administrator.
    Pend(Option<&'a Waiting>),
    /// It is approved and waits for something else.
    Hold(Verdict, &'a Waiting),
    /// It is approved: see that user, Secret and status are there. Signs only where no certificate
    /// was made before.
    Issue(Verdict, &'a CheckedRequest),
    /// It was issued and nobody decided otherwise: see that user and Secret stay.
    Keep(&'a CheckedRequest),
    /// It is denied: see that there is no user and no Secret.
    Deny(Verdict),
    /// Its certificate has run out: see that there is no user.
    Expire,
}

/// Decides the next step for a request. Signing needs an approval, always.
#[must_use]
pub fn decide(observed: Observed<'_>) -> Step<'_> {
    let Observed {
        request,
        checked,
        obstacle,
        now,
    } = observed;
    let verdict = verdict(request);
    // A denial holds whatever else is wrong with the request.
    if let Some(denied) = verdict.clone().filter(|verdict| !verdict.approved) {
        return Step::Deny(denied);
    }
    let certificate_ends = certificate_ends(request);
    if certificate_ends.is_some_and(|ends| ends <= now) {
        return Step::Expire;
    }
    let checked = match (checked, obstacle) {
        (Ok(checked), _) => checked,
        (Err(rejection), _) => return Step::Fail(rejection),
    };
    let is_out = certificate_ends.is_some() && request.phase() == Some(Phase::Issued);
    match (verdict, obstacle) {
        (Some(approved), None) => Step::Issue(approved, checked),
        // An issued certificate stays: while the broker is away, and when the annotation is taken
        // away, which is no denial.
        _ if is_out => Step::Keep(checked),
        (Some(approved), Some(obstacle)) => Step::Hold(approved, obstacle),
        (None, obstacle) => Step::Pend(obstacle.filter(|waiting| waiting.is_for_instance())),
    }
}

/// The end of the certificate that status records, if one was issued.
fn certificate_ends(request: &VolttronCertRequest) -> Option<Timestamp> {
    let status = request.status.as_ref()?;
    status.certificate.as_ref()?;
    status.not_after.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests;
