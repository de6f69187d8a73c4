//! The reconcile of an instance: authority, broker objects, broker, status.

mod authority;
mod broker;
mod generations;
mod measure;
mod objects;
mod rotate;
mod rotation;
mod status;

pub(super) use broker::Connections;
pub(super) use objects::crl_config_map;

use super::context::Context;
use super::error::{Attempt, Error, chain};
use super::events::full_name;
use super::gate::GateState;
use super::metrics::Kind;
use super::revocations::{outlives, revocation_secret_name};
use super::runtime::InstanceRuntime;
use crate::broker::MANAGEMENT_USER;
use crate::pki::RequestProfile;
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use rotate::Rotation;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};
use volttron_crds::{VolttronInstance, VolttronInstanceStatus, well_known};

/// How often an instance that is fine is compared with what it should be.
const INTERVAL: Duration = Duration::from_secs(30);

/// A condition that does not hold: its reason and message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Fault {
    reason: &'static str,
    message: String,
}

impl Fault {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// Brings one instance to what its spec says.
pub(super) async fn reconcile(
    instance: Arc<VolttronInstance>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let action = if instance.metadata.deletion_timestamp.is_some() {
        remove(&instance, &context).await?
    } else {
        maintain(&instance, &context).await?
    };
    context
        .metrics
        .counts
        .reconciled(Kind::VolttronInstance, None);
    Ok(action)
}

/// Tries again, later and later.
pub(super) fn on_error(
    instance: Arc<VolttronInstance>,
    error: &Error,
    context: Arc<Context>,
) -> Action {
    context
        .metrics
        .counts
        .reconciled(Kind::VolttronInstance, Some(error.failing()));
    let name = full_name(instance.as_ref());
    let delay = context.backoff(&backoff_key(&instance));
    warn!(instance = %name, error = %chain(error), ?delay, "reconcile failed; it is tried again");
    Action::requeue(delay)
}

async fn maintain(instance: &VolttronInstance, context: &Context) -> Result<Action, Error> {
    // A controller that has just started knows of no request yet: to it every broker user is one
    // too many, and no certificate needs an old CA.
    context.requests_filled.wait().await;
    let now = Timestamp::now();
    let reference = ObjectRef::from_obj(instance);
    let instance_name = match instance.instance_name() {
        Ok(name) => name,
        Err(invalid) => {
            let fault = Fault::new("InvalidInstanceName", invalid.to_string());
            let observed = status::Observed {
                authorities: &authority::Found::nothing(fault.clone()),
                rotation: &Rotation::Resting(None),
                broker_fault: Some(&fault),
            };
            write_status(instance, context, observed, now).await?;
            return Ok(Action::await_change());
        }
    };
    claim(instance, context).await?;

    let found = authority::ensure(instance, &instance_name, context, now).await?;
    let broker = match found.authorities() {
        Some(authorities) => {
            broker::ensure(instance, &instance_name, authorities, context, now).await?
        }
        None => broker::without_authority(instance, &instance_name, context).await?,
    };
    let runtime = InstanceRuntime {
        profile: RequestProfile {
            instance: instance_name.clone(),
            min_rsa_bits: instance.spec.certificates.min_rsa_bits,
            reserved_names: vec![MANAGEMENT_USER.to_owned()],
        },
        certificates: instance.spec.certificates.clone(),
        approval: instance.spec.approval,
        requests: instance.spec.requests.clone(),
        authority: found.signing(),
        authorities: found.authorities().cloned(),
        users: broker.users,
        broker_fault: broker
            .state
            .as_ref()
            .err()
            .map(|fault| fault.message.clone()),
    };
    if context.runtimes.publish(reference.clone(), runtime) {
        context.trigger_requests_of(&reference);
    }
    let signing = found.authorities().map(|it| it.signing.as_ref());
    measure::measure(instance, context, signing, broker.state.is_ok(), now);
    let rotation = match &found.held {
        Some(held) => rotate::advance(instance, &instance_name, held, context, now).await?,
        None => Rotation::Resting(None),
    };
    context
        .metrics
        .rotating
        .get_or_create(&measure::labels_of(instance))
        .set(i64::from(!matches!(rotation, Rotation::Resting(_))));
    let broker_fault = broker.list.as_ref().or(broker.state.as_ref().err());
    let observed = status::Observed {
        authorities: &found,
        rotation: &rotation,
        broker_fault,
    };
    write_status(instance, context, observed, now).await?;
    if matches!(rotation, Rotation::Stepped) {
        return Ok(Action::requeue(Duration::ZERO));
    }
    if found.fault.is_none() && broker_fault.is_none() {
        context.succeeded(&backoff_key(instance));
        let interval = INTERVAL.mul_f64(rand::random_range(0.9..1.1));
        return Ok(Action::requeue(match &rotation {
            Rotation::Under(progress) => interval.min(progress.again),
            Rotation::Resting(_) | Rotation::Stepped => interval,
        }));
    }
    Ok(Action::requeue(context.backoff(&backoff_key(instance))))
}

async fn remove(instance: &VolttronInstance, context: &Context) -> Result<Action, Error> {
    let reference = ObjectRef::from_obj(instance);
    if instance
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == well_known::FINALIZER)
    {
        authority::remove(instance, context).await?;
        broker::remove(instance, context).await?;
        context.revocations.remove(&reference);
        if !outlives(instance) {
            let ledger = revocation_secret_name(&reference);
            authority::delete_own_secret(&ledger, context).await?;
        }
        context.runtimes.remove(&reference);
        context.metrics.forget(&measure::labels_of(instance));
        let_go(instance, context).await?;
        info!(instance = %full_name(instance), "instance removed");
    }
    context.trigger_requests_of(&reference);
    Ok(Action::await_change())
}

async fn claim(instance: &VolttronInstance, context: &Context) -> Result<(), Error> {
    if instance
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == well_known::FINALIZER)
    {
        return Ok(());
    }
    let patch = json!({
        "apiVersion": VolttronInstance::api_version(&()),
        "kind": VolttronInstance::kind(&()),
        "metadata": {
            "name": instance.name_any(), "uid": instance.uid(),
            "finalizers": [well_known::FINALIZER],
        },
    });
    api(instance, context)
        .patch(&instance.name_any(), &parameters(), &Patch::Apply(patch))
        .await
        .attempt("write the finalizer of the instance")
        .map(drop)
}

/// Lets the object go. Not by server-side apply, which takes nothing away that another has applied
/// as well: an instance that was restored from a backup came with its finalizer.
async fn let_go(instance: &VolttronInstance, context: &Context) -> Result<(), Error> {
    let mut others = instance.finalizers().to_vec();
    others.retain(|finalizer| finalizer != well_known::FINALIZER);
    let patch = json!({
        "metadata": {
            "uid": instance.uid(), "resourceVersion": instance.resource_version(),
            "finalizers": others,
        },
    });
    api(instance, context)
        .patch(
            &instance.name_any(),
            &PatchParams::default(),
            &Patch::Merge(patch),
        )
        .await
        .attempt("remove the finalizer of the instance")
        .map(drop)
}

async fn write_status(
    instance: &VolttronInstance,
    context: &Context,
    observed: status::Observed<'_>,
    now: Timestamp,
) -> Result<(), Error> {
    let requests = context.requests_for(&ObjectRef::from_obj(instance));
    let phases = requests.iter().map(|request| request.phase());
    let policies = status::Policies {
        gate: &context.gate.borrow().clone(),
        stamping: &context.stamping.borrow().clone(),
    };
    let next = status::next(instance, observed, policies, phases, now);
    if instance.status.as_ref() == Some(&next) {
        return Ok(());
    }
    tell(instance, context, &next);
    let patch = json!({
        "apiVersion": VolttronInstance::api_version(&()),
        "kind": VolttronInstance::kind(&()),
        "metadata": {"name": instance.name_any(), "uid": instance.uid()},
        "status": next,
    });
    api(instance, context)
        .patch_status(&instance.name_any(), &parameters(), &Patch::Apply(patch))
        .await
        .attempt("write the status of the instance")
        .map(drop)
}

/// One Event and one log line for each condition that changed.
fn tell(instance: &VolttronInstance, context: &Context, next: &VolttronInstanceStatus) {
    let before = instance
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice());
    for condition in &next.conditions {
        let known = before
            .unwrap_or_default()
            .iter()
            .find(|c| c.type_ == condition.type_);
        if known.is_some_and(|c| c.status == condition.status && c.reason == condition.reason) {
            continue;
        }
        let (reason, note) = (condition.reason.as_str(), condition.message.clone());
        let name = full_name(instance);
        let ended = condition.type_ == status::ROTATING && reason == status::COMPLETED;
        let warns = status::WARNINGS.contains(&condition.type_.as_str());
        if (condition.status == "True" && !warns) || ended {
            info!(instance = %name, condition = %condition.type_, %reason, message = %note);
            context
                .events
                .normal(instance, reason, &condition.type_, note);
        } else {
            warn!(instance = %name, condition = %condition.type_, %reason, message = %note);
            // What starts is not worth a warning yet.
            if known.is_some() || !matches!(condition.type_.as_str(), "Ready" | "BrokerReady") {
                context
                    .events
                    .warning(instance, reason, &condition.type_, note);
            }
        }
    }
}

fn api(instance: &VolttronInstance, context: &Context) -> Api<VolttronInstance> {
    Api::namespaced(
        context.client.clone(),
        &instance.namespace().unwrap_or_default(),
    )
}

fn parameters() -> PatchParams {
    PatchParams::apply(well_known::CONTROLLER_FIELD_MANAGER).force()
}

fn backoff_key(instance: &VolttronInstance) -> String {
    format!("instance {}", full_name(instance))
}

/// Whether the gate stands, for the condition `Ready`.
fn gate_fault(gate: &GateState) -> Option<Fault> {
    match gate {
        GateState::Stands | GateState::Untried => None,
        GateState::Unproven => Some(Fault::new(
            "ApprovalGateUnproven",
            "the approval gate has not been proven yet",
        )),
        GateState::Down(fault) => Some(Fault::new(
            "ApprovalGateMissing",
            format!("nothing is signed while the approval gate is down: {fault}"),
        )),
    }
}
