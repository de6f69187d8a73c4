//! Proves that the approval gate stands. An annotation can be written by whoever may patch the
//! object, so an approval means something only while the admission policy refuses what is not one.

use super::context::Context;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};
use volttron_crds::{InstanceReference, VolttronCertRequest, VolttronCertRequestSpec, well_known};

/// The policy that refuses requests which are created already decided.
const POLICY: &str = "volttron-approval-gate";
/// How often the gate is proven while it stands, and while it does not.
const INTERVAL: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);

/// Whether the gate stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GateState {
    /// Not tried yet.
    Unproven,
    /// A request created already decided was refused by the policy.
    Stands,
    /// It does not stand, or that cannot be told; the text says what to do.
    Down(String),
}

/// Proves the gate again and again, and has everything reconciled when it changes.
pub(super) async fn watch(context: Arc<Context>, stop: CancellationToken) {
    loop {
        let state = match prove(&context.client, &context.namespace).await {
            Ok(state) => state,
            Err(error) => GateState::Down(format!(
                "it could not be proven: {}",
                super::error::chain(&error)
            )),
        };
        let stands = state == GateState::Stands;
        let before = context.gate.send_replace(state.clone());
        context.metrics.gate_stands.set(i64::from(stands));
        if before != state {
            report(&before, &state);
            for instance in context.instances.state() {
                let reference = ObjectRef::from_obj(instance.as_ref());
                context.trigger_requests_of(&reference);
                context.triggers.instance(reference);
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(if stands { INTERVAL } else { RETRY }) => {}
        }
    }
}

fn report(before: &GateState, now: &GateState) {
    match now {
        GateState::Down(fault) => {
            error!(%fault, "the approval gate is down: nothing is signed until it stands");
        }
        GateState::Stands => info!(
            was_down = matches!(before, GateState::Down(_)),
            "the approval gate stands"
        ),
        GateState::Unproven => {}
    }
}

/// Tries, as a dry run, to create a request that is already approved. The same request without
/// the decision is tried as well, so that a refusal for another reason is not taken for the gate.
async fn prove(client: &Client, namespace: &str) -> Result<GateState, kube::Error> {
    let me = Api::<SelfSubjectReview>::all(client.clone())
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await?;
    let user = me
        .status
        .and_then(|s| s.user_info)
        .and_then(|u| u.username)
        .unwrap_or_default();
    let api = Api::<VolttronCertRequest>::namespaced(client.clone(), namespace);
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };

    match api.create(&dry_run, &probe(&user, false)).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.is_forbidden() || status.is_invalid() => {
            return Ok(GateState::Down(format!(
                "the controller's probe in namespace {namespace} is refused, so that the gate \
                 cannot be proven; run `helm upgrade` to restore roles and policies: {}",
                status.message
            )));
        }
        Err(error) => return Err(error),
    }
    match api.create(&dry_run, &probe(&user, true)).await {
        Ok(_) => Ok(GateState::Down(format!(
            "a request that was created already approved was not refused: \
             ValidatingAdmissionPolicy {POLICY} or its binding is missing, narrowed or not \
             enforced; run `helm upgrade` to restore it"
        ))),
        Err(kube::Error::Api(status)) if status.message.contains(POLICY) => Ok(GateState::Stands),
        Err(kube::Error::Api(status)) if status.is_forbidden() || status.is_invalid() => {
            Ok(GateState::Down(format!(
                "a request that was created already approved was refused, but not by \
                 ValidatingAdmissionPolicy {POLICY}: {}",
                status.message
            )))
        }
        Err(error) => Err(error),
    }
}

fn probe(user: &str, decided: bool) -> VolttronCertRequest {
    let annotations =
        decided.then(|| BTreeMap::from([(well_known::DECISION.to_owned(), "approved".to_owned())]));
    VolttronCertRequest {
        metadata: ObjectMeta {
            name: Some(format!(
                "volttron-gate-probe-{}",
                Timestamp::now().as_microsecond()
            )),
            annotations,
            ..ObjectMeta::default()
        },
        spec: VolttronCertRequestSpec {
            instance_ref: InstanceReference {
                name: "gate-probe".to_owned(),
                namespace: None,
            },
            request: "gate-probe".to_owned(),
            duration: None,
            requester: user.to_owned(),
        },
        status: None,
    }
}
