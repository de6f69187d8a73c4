//! Writes a request's finalizer and status by server-side apply.

use super::super::context::{Context, instance_of};
use super::super::error::{Attempt, Error};
use super::super::events::full_name;
use super::super::metrics::{Word, how};
use super::news::{self, Novelty, Withdrawal};
use super::status::SIGNING;
use crate::approval::{TURNED_AWAY, WAITING_FOR_APPROVAL};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};
use tracing::info;
use volttron_crds::{
    Condition, Decision, DecisionHow, Phase, VolttronCertRequest, VolttronCertRequestStatus,
    well_known,
};

/// Writes one request.
pub(super) struct Patches<'a> {
    context: &'a Context,
    api: Api<VolttronCertRequest>,
    name: String,
    uid: Option<String>,
    has_written: AtomicBool,
}

impl<'a> Patches<'a> {
    pub(super) fn new(context: &'a Context, request: &VolttronCertRequest) -> Self {
        let namespace = request.namespace().unwrap_or_default();
        Self {
            context,
            api: Api::namespaced(context.client.clone(), &namespace),
            name: request.name_any(),
            uid: request.uid(),
            has_written: AtomicBool::new(false),
        }
    }

    /// Whether status is as a step wanted it.
    pub(super) fn have_written(&self) -> bool {
        self.has_written.load(Ordering::Relaxed)
    }

    pub(super) fn context(&self) -> &'a Context {
        self.context
    }

    /// Sees that the finalizer is there, before anything exists that has to be cleaned up.
    pub(super) async fn claim(
        &self,
        request: &VolttronCertRequest,
    ) -> Result<VolttronCertRequest, Error> {
        if request
            .finalizers()
            .iter()
            .any(|finalizer| finalizer == well_known::FINALIZER)
        {
            return Ok(request.clone());
        }
        self.finalizers(&[well_known::FINALIZER]).await
    }

    /// Lets the object go.
    pub(super) async fn release(&self) -> Result<(), Error> {
        match self.finalizers(&[]).await {
            // Somebody else took the finalizer away and the object is gone.
            Err(Error::Conflict) => Ok(()),
            other => other.map(drop),
        }
    }

    async fn finalizers(&self, finalizers: &[&str]) -> Result<VolttronCertRequest, Error> {
        // The UID keeps the patch from creating the object anew once it is gone.
        let patch = json!({
            "apiVersion": VolttronCertRequest::api_version(&()),
            "kind": VolttronCertRequest::kind(&()),
            "metadata": {"name": self.name, "uid": self.uid, "finalizers": finalizers},
        });
        self.api
            .patch(&self.name, &parameters(), &Patch::Apply(patch))
            .await
            .attempt("write the finalizer of the request")
    }

    /// Writes `next` where it differs from the status of `request`, and tells of the change. The
    /// write is refused when the object has changed meanwhile.
    pub(super) async fn status(
        &self,
        request: &VolttronCertRequest,
        next: VolttronCertRequestStatus,
    ) -> Result<VolttronCertRequest, Error> {
        if request.status.as_ref() == Some(&next) {
            self.has_written.store(true, Ordering::Relaxed);
            return Ok(request.clone());
        }
        let patch = json!({
            "apiVersion": VolttronCertRequest::api_version(&()),
            "kind": VolttronCertRequest::kind(&()),
            "metadata": {"name": self.name, "resourceVersion": request.resource_version()},
            "status": next,
        });
        let written = self
            .api
            .patch_status(&self.name, &parameters(), &Patch::Apply(patch))
            .await
            .attempt("write the status of the request")?;
        self.has_written.store(true, Ordering::Relaxed);
        self.tell(request, &next);
        Ok(written)
    }

    /// One Event and one log line for a decision, also where it cannot take effect, for one that was
    /// taken back, and for a change of phase.
    fn tell(&self, before: &VolttronCertRequest, next: &VolttronCertRequestStatus) {
        let Some(phase) = next.phase else { return };
        let common_name = next.common_name.as_deref().unwrap_or("unknown");
        if let Some(withdrawal) = news::withdrawal(before, next) {
            self.tell_withdrawal(before, next, &withdrawal);
        }
        if let Some((decision, novelty)) = news::decision(before, next) {
            self.tell_decision(before, next, decision, novelty);
        }
        let failure = |conditions: &[Condition]| message(conditions, "Failed");
        let said = before.status.as_ref();
        let same_failure =
            said.map(|it| failure(&it.conditions)) == Some(failure(&next.conditions));
        let waits_for = reason(&next.conditions, "Issued").unwrap_or_default();
        let same = match phase {
            Phase::Failed => same_failure,
            // The status says so; it is of no interest to others.
            Phase::Pending if TURNED_AWAY.contains(&waits_for) => true,
            Phase::Pending => {
                said.and_then(|it| reason(&it.conditions, "Issued")) == Some(waits_for)
            }
            _ => true,
        };
        if before.phase() == Some(phase) && same {
            return;
        }
        info!(request = %full_name(before), %common_name, ?phase, "phase");
        self.context.triggers.count(instance_of(before));
        let events = &self.context.events;
        let issued = message(&next.conditions, "Issued");
        match phase {
            Phase::Pending if TURNED_AWAY.contains(&waits_for) => {}
            Phase::Pending if waits_for != WAITING_FOR_APPROVAL => {
                events.normal(before, "Pending", "Review", issued);
            }
            Phase::Pending => events.normal(before, "Pending", "Review", format!(
                "{common_name} asks for a certificate; approve with `kubectl annotate vcr -n {} {} \
                 {}=approved`",
                before.namespace().unwrap_or_default(), self.name, well_known::DECISION,
            )),
            Phase::Approved if waits_for == SIGNING => {}
            Phase::Approved => events.normal(before, "Waiting", "Approve", issued),
            Phase::Issued => events.normal(before, "Issued", "Sign", issued),
            Phase::Expired => events.warning(before, "Expired", "Expire", issued),
            Phase::Failed => {
                events.minor_warning(before, "Failed", "Check", failure(&next.conditions));
            }
            // The decision has its Event already.
            Phase::Denied => {
                if let Some(pod) = waiting_pod(before) {
                    let note = format!(
                        "connection to VolttronInstance {} as {common_name} was denied (request {}): {}",
                        before.spec.instance_ref.name, self.name, message(&next.conditions, "Denied"),
                    );
                    events.warning_about(pod, "Denied", "Connect", note);
                }
            }
        }
    }

    /// The log line is the audit's: who decided what about whom, how and why.
    fn tell_decision(
        &self,
        before: &VolttronCertRequest,
        next: &VolttronCertRequestStatus,
        decision: &Decision,
        novelty: Novelty,
    ) {
        let word = match next.phase {
            Some(Phase::Denied) => Word::Denied,
            _ => Word::Approved,
        };
        info!(
            decision = word.as_str(), how = how(decision.how),
            by = decision.by.as_deref().unwrap_or("unknown"),
            reason = decision.reason.as_deref().unwrap_or_default(),
            request = %full_name(before), uid = before.uid().unwrap_or_default(),
            instance = %instance_of(before),
            common_name = next.common_name.as_deref().unwrap_or("unknown"),
            requester = before.spec.requester.as_str(),
            key = next.key_fingerprint.as_deref().unwrap_or_default(),
            carried_by = decision.request.as_deref().unwrap_or_default(),
            "decision"
        );
        if novelty == Novelty::Decided {
            self.context.metrics.counts.decided(word, decision.how);
        }
        self.context.events.decided(before, next);
    }

    /// Nobody signs what is taken back, so that the line tells whose decision it was.
    fn tell_withdrawal(
        &self,
        before: &VolttronCertRequest,
        next: &VolttronCertRequestStatus,
        withdrawal: &Withdrawal<'_>,
    ) {
        let (word, manual) = (Word::Withdrawn, DecisionHow::Manual);
        let decided_by = withdrawal.decided_by.unwrap_or("unknown");
        info!(
            decision = word.as_str(), how = how(manual),
            by = "unknown",
            withdrawn = withdrawal.word, decided_by,
            request = %full_name(before), uid = before.uid().unwrap_or_default(),
            instance = %instance_of(before),
            common_name = next.common_name.as_deref().unwrap_or("unknown"),
            requester = before.spec.requester.as_str(),
            key = next.key_fingerprint.as_deref().unwrap_or_default(),
            "decision"
        );
        self.context.metrics.counts.decided(word, manual);
        let events = &self.context.events;
        events.normal(before, "Withdrawn", "Withdraw", withdrawal.sentence(next));
    }
}

fn message(conditions: &[Condition], kind: &str) -> String {
    let condition = conditions.iter().find(|condition| condition.type_ == kind);
    condition
        .map(|condition| condition.message.clone())
        .unwrap_or_default()
}

fn reason<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a str> {
    let condition = conditions.iter().find(|condition| condition.type_ == kind);
    condition.map(|condition| condition.reason.as_str())
}

/// The pod that waits for this request. Only a service account of the same namespace may name one,
/// so that nobody raises Events in somebody else's namespace.
fn waiting_pod(request: &VolttronCertRequest) -> Option<ObjectReference> {
    let namespace = request.namespace()?;
    let prefix = format!("system:serviceaccount:{namespace}:");
    if !request.spec.requester.starts_with(&prefix) {
        return None;
    }
    let annotations = request.annotations();
    Some(ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        namespace: Some(namespace),
        name: Some(annotations.get(well_known::POD_NAME)?.clone()),
        uid: annotations.get(well_known::POD_UID).cloned(),
        ..ObjectReference::default()
    })
}

fn parameters() -> PatchParams {
    PatchParams::apply(well_known::CONTROLLER_FIELD_MANAGER).force()
}
