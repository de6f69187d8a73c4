//! What came of a trial. Pure.

use super::PROBE;
use kube::core::Status;

/// What is tried, and what has to refuse it.
#[derive(Clone, Copy)]
pub(super) struct Tried<'a> {
    /// What it is, in a few words.
    pub(super) what: &'static str,
    /// The policy that has to refuse it.
    pub(super) policy: &'static str,
    /// Words of the rule that has to.
    pub(super) rule: &'static str,
    /// Name of the object it is tried on.
    pub(super) name: &'a str,
}

/// What came of a trial that should be refused.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Trial {
    /// The policy has refused it.
    Refused,
    /// Nothing has refused it.
    Accepted(String),
    /// What it was tried on has changed or is not there any more.
    Gone,
    /// Something else has refused it.
    Inconclusive(String),
}

impl Tried<'_> {
    /// # Errors
    /// Where the API server has failed rather than answered.
    pub(super) fn judge(self, refusal: Result<(), kube::Error>) -> Result<Trial, kube::Error> {
        let Self {
            what, policy, rule, ..
        } = self;
        match refusal {
            Ok(()) => Ok(Trial::Accepted(format!(
                "{what} was not refused in a trial, although ValidatingAdmissionPolicy {policy} \
                 and its binding look as they should: the API server enforces them some seconds \
                 after they are made, unless its admission plugin ValidatingAdmissionPolicy is off"
            ))),
            Err(kube::Error::Api(status))
                if status.message.contains(policy) && status.message.contains(rule) =>
            {
                Ok(Trial::Refused)
            }
            Err(kube::Error::Api(status)) if status.code == 404 || status.is_conflict() => {
                Ok(Trial::Gone)
            }
            Err(kube::Error::Api(status)) if is_refusal(&status) => {
                Ok(Trial::Inconclusive(format!(
                    "{what} was refused in a trial, but not by ValidatingAdmissionPolicy {policy}, \
                     which therefore is not proven: {}",
                    message(&status, self.name)
                )))
            }
            Err(error) => Err(error),
        }
    }
}

/// Whether the API server has considered it and said no, rather than failed.
pub(super) fn is_refusal(status: &Status) -> bool {
    (400..500).contains(&status.code) && status.code != 429 && status.code != 401
}

/// The message without the trial's own name, so that it is the same each time.
pub(super) fn message(status: &Status, name: &str) -> String {
    status.message.replace(name, PROBE)
}
