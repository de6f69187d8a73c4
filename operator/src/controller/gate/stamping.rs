//! Looks whether the API server writes down who decides. Approval is as safe without, and signing
//! goes on; but nobody should find out only afterwards that the records carry no names.

use super::guards::GATE;
use super::guards::stamping::{KINDS, STAMPING, missing};
use super::served::{POLICIES, if_found, serves};
use crate::controller::context::Context;
use crate::controller::error::chain;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use kube::api::DynamicObject;
use kube::core::ApiResource;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// How often it is looked.
const INTERVAL: Duration = Duration::from_secs(10);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whether decisions are stamped with the name of who made them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::controller) enum Stamping {
    /// Not looked yet.
    Unknown,
    /// They are, or this API server cannot.
    AsItCan,
    /// They are not, and this API server could; the text says why and what to do.
    Missing(String),
}

impl Stamping {
    /// Before the first look. Where nobody expects a stamp, it is never looked.
    pub(in crate::controller) fn at_start(is_expected: bool) -> Self {
        if is_expected {
            Self::Unknown
        } else {
            Self::AsItCan
        }
    }
}

/// Looks again and again, and has the instances tell of it when it changes.
pub(in crate::controller) async fn watch(context: Arc<Context>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        tokio::select! {
            () = stop.cancelled() => return,
            state = tokio::time::timeout(PATIENCE, look(&context.client, &context.namespace)) => match state {
                Ok(Ok(state)) => publish(&context, state),
                Ok(Err(error)) => debug!(error = %chain(&error), "stamping could not be looked at"),
                Err(_) => debug!("stamping could not be looked at: no answer within {PATIENCE:?}"),
            },
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

async fn look(client: &Client, namespace: &str) -> Result<Stamping, kube::Error> {
    let [policy, binding] = KINDS.map(|kind| {
        let plural = match kind {
            "MutatingAdmissionPolicy" => "mutatingadmissionpolicies",
            _ => "mutatingadmissionpolicybindings",
        };
        let (group, version) = POLICIES.split_once('/').unwrap_or_default();
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: POLICIES.to_owned(),
            kind: kind.to_owned(),
            plural: plural.to_owned(),
        };
        Api::<DynamicObject>::all_with(client.clone(), &resource)
    });
    let (policy, binding) = tokio::join!(policy.get(STAMPING), binding.get(STAMPING));
    let (policy, binding) = (if_found(policy)?, if_found(binding)?);
    if policy.is_none() && !serves(client, "mutatingadmissionpolicies").await? {
        return Ok(Stamping::AsItCan);
    }
    let gate = if policy.is_none() && binding.is_none() {
        let policies = Api::<ValidatingAdmissionPolicy>::all(client.clone());
        if_found(policies.get(GATE).await)?
    } else {
        None
    };
    Ok(
        match missing(policy.as_ref(), binding.as_ref(), gate, namespace) {
            Ok(None) => Stamping::AsItCan,
            Ok(Some(what)) => Stamping::Missing(what),
            Err(error) => {
                Stamping::Missing(format!("this controller cannot read its copy: {error}"))
            }
        },
    )
}

fn publish(context: &Context, state: Stamping) {
    let is_missing = matches!(state, Stamping::Missing(_));
    context.metrics.stamping_missing.set(is_missing.into());
    let before = context.stamping.send_replace(state.clone());
    if before == state {
        return;
    }
    match &state {
        Stamping::Missing(what) => warn!(%what, "decisions are not stamped with who made them"),
        Stamping::AsItCan if matches!(before, Stamping::Missing(_)) => {
            info!("decisions are stamped with who made them");
        }
        Stamping::AsItCan | Stamping::Unknown => {}
    }
    for instance in context.instances.state() {
        let instance = ObjectRef::from_obj(instance.as_ref());
        context.triggers.instance(instance);
    }
}
