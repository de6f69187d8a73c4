//! Reads the policies, and tries by dry runs what they must refuse.

mod auto;
mod trial;

use super::GateState;
use super::guards::{self, Found, GATE};
use super::served::{POLICIES, if_found, serves};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use trial::{Trial, Tried, is_refusal, message};
use volttron_crds::{
    GROUP, InstanceReference, VolttronCertRequest, VolttronCertRequestSpec, VolttronInstance,
    well_known,
};

/// Words of the rules about the verb, in both forms of their messages.
const VERB_RULE: &str = "takes the verb 'approve'";
const PROBE: &str = "volttron-gate-probe";
/// Requests on which a decision is tried before the proof is given up: each may vanish meanwhile.
const CANDIDATES: usize = 3;
/// Half of what all annotations of an object may hold, in bytes.
const MOST_ANNOTATED: usize = 128 * 1024;
const MAY_APPROVE: &str = "the controller itself may approve requests, so that it cannot show that \
     others may not: take the verb approve on volttroninstances from it, as the chart's roles do, \
     and run it with the chart's service account";

/// Proves the gate, each time on another request and another instance.
pub(super) struct Prover {
    client: Client,
    namespace: String,
    /// How many requests were tried so far.
    round: usize,
    /// How many instances were.
    instance_round: usize,
}

impl Prover {
    pub(super) fn new(client: Client, namespace: String) -> Self {
        Self {
            client,
            namespace,
            round: 0,
            instance_round: 0,
        }
    }

    /// Reads the policies and tries the dry runs.
    pub(super) async fn prove(
        &mut self,
        instances: &Store<VolttronInstance>,
        requests: &Store<VolttronCertRequest>,
    ) -> Result<GateState, kube::Error> {
        let user = self.user().await?;
        let guards = match guards::guards(&user) {
            Ok(guards) => guards,
            Err(error) => {
                return Ok(GateState::Down(format!(
                    "this controller has been built with a policy it cannot read: {error}"
                )));
            }
        };
        let read = futures::future::try_join_all(guards.iter().map(|guard| self.read(guard.name)));
        let found = match read.await {
            Ok(found) => found,
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                return Ok(GateState::Down(format!(
                    "the controller may not read the admission policies, so that the gate cannot \
                     be proven: {}. To restore its roles: `{}`",
                    status.message,
                    guards::upgrade(&[], &self.namespace)
                )));
            }
            Err(error) => return Err(error),
        };
        if found.iter().any(|it| it.policy.is_none())
            && !serves(&self.client, "validatingadmissionpolicies").await?
        {
            return Ok(GateState::Down(format!(
                "this API server does not serve ValidatingAdmissionPolicy ({POLICIES}), without \
                 which whoever may patch a request could approve it: Kubernetes 1.33 or later is needed"
            )));
        }
        if let Some(other) = guards::written_for(&found, &user) {
            return Ok(GateState::Down(format!(
                "ValidatingAdmissionPolicy volttron-status lets {other} write status, and this \
                 controller is {user}: run it with the chart's service account"
            )));
        }
        let faults: Vec<_> = guards
            .iter()
            .zip(&found)
            .flat_map(|(guard, found)| guard.faults(found))
            .collect();
        if !faults.is_empty() {
            let text = guards::describe(&faults, &found, &self.namespace);
            return Ok(GateState::Down(text));
        }
        let restore = guards::upgrade(&found, &self.namespace);
        if let Some(fault) = self.creation(&user, &restore).await? {
            return Ok(GateState::Down(fault));
        }
        if let Some(fault) = self.auto_approval(instances).await? {
            return Ok(GateState::Down(fault));
        }
        self.decision(requests).await
    }

    /// Who the controller is to the API server.
    async fn user(&self) -> Result<String, kube::Error> {
        let me = Api::<SelfSubjectReview>::all(self.client.clone())
            .create(&PostParams::default(), &SelfSubjectReview::default())
            .await?;
        let info = me.status.and_then(|status| status.user_info);
        Ok(info.and_then(|info| info.username).unwrap_or_default())
    }

    async fn read(&self, name: &str) -> Result<Found, kube::Error> {
        let policies = Api::<ValidatingAdmissionPolicy>::all(self.client.clone());
        let bindings = Api::<ValidatingAdmissionPolicyBinding>::all(self.client.clone());
        let (policy, binding) = tokio::join!(policies.get(name), bindings.get(name));
        Ok(Found {
            policy: if_found(policy)?,
            binding: if_found(binding)?,
        })
    }

    /// Tries to create a request that is already approved. The same request without the decision
    /// is tried as well, so that a refusal for another reason is not taken for the gate.
    async fn creation(&self, user: &str, restore: &str) -> Result<Option<String>, kube::Error> {
        let api = Api::<VolttronCertRequest>::namespaced(self.client.clone(), &self.namespace);
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let undecided = probe(user, false);
        match api.create(&dry_run, &undecided).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if is_refusal(&status) => {
                return Ok(Some(format!(
                    "the controller's own trial of the gate in namespace {} is refused, so that \
                     it cannot be proven: {}. If a role is missing: `{restore}`; if another \
                     admission policy or webhook refuses it, let it pass",
                    self.namespace,
                    message(&status, &undecided.name_any()),
                )));
            }
            Err(error) => return Err(error),
        }
        let decided = probe(user, true);
        let refusal = api.create(&dry_run, &decided).await.map(drop);
        let tried = Tried {
            what: "a request that was created already approved",
            policy: GATE,
            rule: "",
            name: &decided.name_any(),
        };
        Ok(match tried.judge(refusal)? {
            Trial::Refused => None,
            Trial::Accepted(fault) | Trial::Inconclusive(fault) => Some(fault),
            Trial::Gone => Some(format!(
                "namespace {} of the controller is gone, so that the gate cannot be proven in it",
                self.namespace
            )),
        })
    }

    /// Tries to decide on a request, which the controller may change and has no right to decide
    /// on. The decision it tries is always another than the one that stands.
    ///
    /// A request can be gone meanwhile, or be such that something else refuses the trial first:
    /// that tells nothing, and another one is tried, so that no requester can keep the proof away.
    async fn decision(
        &mut self,
        requests: &Store<VolttronCertRequest>,
    ) -> Result<GateState, kube::Error> {
        let mut told = None;
        for _ in 0..CANDIDATES {
            let Some(request) = candidate(requests, self.round) else {
                break;
            };
            // The next trial is on another request, perhaps in another namespace.
            self.round = self.round.wrapping_add(1);
            let (name, namespace) = (request.name_any(), request.namespace().unwrap_or_default());
            let api = Api::<VolttronCertRequest>::namespaced(self.client.clone(), &namespace);
            // The cache may not know yet of a decision, and to write the same one again is no
            // decision: it would be let through.
            let Some(request) = if_found(api.get(&name).await)? else {
                continue;
            };
            let refusal = api
                .patch(&name, &dry_patch(), &Patch::Merge(flipped(&request)))
                .await
                .map(drop);
            let tried = Tried {
                what: "a decision by an account without the verb approve",
                policy: GATE,
                rule: VERB_RULE,
                name: &name,
            };
            match tried.judge(refusal)? {
                Trial::Refused => return Ok(GateState::Stands),
                Trial::Accepted(_)
                    if self
                        .may_approve(
                            &request.instance_namespace(),
                            &request.spec.instance_ref.name,
                        )
                        .await? =>
                {
                    return Ok(GateState::Down(MAY_APPROVE.to_owned()));
                }
                Trial::Accepted(fault) => return Ok(GateState::Down(fault)),
                Trial::Gone => {}
                Trial::Inconclusive(fault) => told = Some(fault),
            }
        }
        Ok(told.map_or(GateState::Untried, GateState::Down))
    }

    async fn may_approve(&self, namespace: &str, instance: &str) -> Result<bool, kube::Error> {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(GROUP.to_owned()),
                    resource: Some("volttroninstances".to_owned()),
                    verb: Some("approve".to_owned()),
                    namespace: Some(namespace.to_owned()),
                    name: Some(instance.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let api = Api::<SelfSubjectAccessReview>::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await?;
        Ok(answer.status.is_some_and(|status| status.allowed))
    }
}

/// A request to try a decision on: another each round.
fn candidate(
    requests: &Store<VolttronCertRequest>,
    round: usize,
) -> Option<Arc<VolttronCertRequest>> {
    let skip = Cell::new(round.checked_rem(requests.len())?);
    let other = requests.find(|request| {
        let left = skip.get();
        skip.set(left.saturating_sub(1));
        left == 0 && has_room(request)
    });
    // Some have gone since they were counted, or the last ones are full.
    other.or_else(|| requests.find(has_room))
}

/// Whether a decision fits. What is as large as the API server lets it be cannot be annotated by
/// anybody, and is refused before the gate is asked.
fn has_room(request: &VolttronCertRequest) -> bool {
    let annotations = request.annotations().iter();
    annotations
        .map(|(key, value)| key.len() + value.len())
        .sum::<usize>()
        < MOST_ANNOTATED
}

/// The opposite of the decision that stands, as long as the request is as it is.
fn flipped(request: &VolttronCertRequest) -> serde_json::Value {
    let stands = request
        .annotations()
        .get(well_known::DECISION)
        .map(String::as_str);
    let other = if stands == Some("approved") {
        "denied"
    } else {
        "approved"
    };
    json!({"metadata": {
        "resourceVersion": request.resource_version(),
        "annotations": {well_known::DECISION: other},
    }})
}

fn dry_patch() -> PatchParams {
    PatchParams {
        dry_run: true,
        field_manager: Some(PROBE.to_owned()),
        ..PatchParams::default()
    }
}

fn probe(user: &str, decided: bool) -> VolttronCertRequest {
    let annotations =
        decided.then(|| BTreeMap::from([(well_known::DECISION.to_owned(), "approved".to_owned())]));
    VolttronCertRequest {
        metadata: ObjectMeta {
            name: Some(format!("{PROBE}-{}", Timestamp::now().as_microsecond())),
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

#[cfg(test)]
mod tests;
