//! Reads the policies, and tries by dry runs what they must refuse.

use super::GateState;
use super::guards::{self, Found, GATE};
use jiff::Timestamp;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::Status;
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use volttron_crds::{
    GROUP, InstanceReference, VolttronCertRequest, VolttronCertRequestSpec, well_known,
};

/// Words of the rule about the verb, in both forms of its message.
const VERB_RULE: &str = "takes the verb 'approve'";
const PROBE: &str = "volttron-gate-probe";
/// Requests on which a decision is tried before the proof is given up: each may vanish meanwhile.
const CANDIDATES: usize = 3;
/// Half of what all annotations of an object may hold, in bytes.
const MOST_ANNOTATED: usize = 128 * 1024;
const POLICIES: &str = "admissionregistration.k8s.io/v1";

/// Proves the gate, each time on another request.
pub(super) struct Prover {
    client: Client,
    namespace: String,
    /// How many requests were tried so far.
    round: usize,
}

impl Prover {
    pub(super) fn new(client: Client, namespace: String) -> Self {
        Self {
            client,
            namespace,
            round: 0,
        }
    }

    /// Reads the policies and tries both dry runs.
    pub(super) async fn prove(
        &mut self,
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
        if found.iter().any(|it| it.policy.is_none()) && !self.is_served().await? {
            return Ok(GateState::Down(format!(
                "this API server does not serve ValidatingAdmissionPolicy ({POLICIES}), without \
                 which whoever may patch a request could approve it: it comes with Kubernetes 1.30"
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

    /// Whether the API server knows policies at all.
    async fn is_served(&self) -> Result<bool, kube::Error> {
        let list = if_found(self.client.list_api_group_resources(POLICIES).await)?;
        Ok(list.is_some_and(|list| {
            let mut resources = list.resources.iter();
            resources.any(|it| it.name == "validatingadmissionpolicies")
        }))
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
        let what = "a request that was created already approved";
        Ok(match judge(refusal, what, "", &decided.name_any())? {
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
            let what = "a decision by an account without the verb approve";
            match judge(refusal, what, VERB_RULE, &name)? {
                Trial::Refused => return Ok(GateState::Stands),
                Trial::Accepted(_) if self.may_approve(&request).await? => {
                    return Ok(GateState::Down(
                        "the controller itself may approve requests, so that it cannot show that \
                         others may not: take the verb approve on volttroninstances from it, as \
                         the chart's roles do, and run it with the chart's service account"
                            .to_owned(),
                    ));
                }
                Trial::Accepted(fault) => return Ok(GateState::Down(fault)),
                Trial::Gone => {}
                Trial::Inconclusive(fault) => told = Some(fault),
            }
        }
        Ok(told.map_or(GateState::Untried, GateState::Down))
    }

    async fn may_approve(&self, request: &VolttronCertRequest) -> Result<bool, kube::Error> {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    group: Some(GROUP.to_owned()),
                    resource: Some("volttroninstances".to_owned()),
                    verb: Some("approve".to_owned()),
                    namespace: Some(request.instance_namespace()),
                    name: Some(request.spec.instance_ref.name.clone()),
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

/// What was asked for, where it is there. A kind that is not served is answered in plain text, with
/// no other sign than the code.
fn if_found<T>(answer: Result<T, kube::Error>) -> Result<Option<T>, kube::Error> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        other => other.map(Some),
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

/// What came of a trial that should be refused.
#[derive(Debug, PartialEq, Eq)]
enum Trial {
    /// The gate has refused it.
    Refused,
    /// Nothing has refused it.
    Accepted(String),
    /// What it was tried on has changed or is not there any more.
    Gone,
    /// Something else has refused it.
    Inconclusive(String),
}

fn judge(
    refusal: Result<(), kube::Error>,
    what: &str,
    rule: &str,
    name: &str,
) -> Result<Trial, kube::Error> {
    match refusal {
        Ok(()) => Ok(Trial::Accepted(format!(
            "{what} was not refused in a trial, although ValidatingAdmissionPolicy {GATE} and its \
             binding look as they should: the API server enforces them some seconds after they are \
             made, unless its admission plugin ValidatingAdmissionPolicy is off"
        ))),
        Err(kube::Error::Api(status))
            if status.message.contains(GATE) && status.message.contains(rule) =>
        {
            Ok(Trial::Refused)
        }
        Err(kube::Error::Api(status)) if status.code == 404 || status.is_conflict() => {
            Ok(Trial::Gone)
        }
        Err(kube::Error::Api(status)) if is_refusal(&status) => Ok(Trial::Inconclusive(format!(
            "{what} was refused in a trial, but not by ValidatingAdmissionPolicy {GATE}, which \
                 therefore is not proven: {}",
            message(&status, name)
        ))),
        Err(error) => Err(error),
    }
}

/// Whether the API server has considered it and said no, rather than failed.
fn is_refusal(status: &Status) -> bool {
    (400..500).contains(&status.code) && status.code != 429 && status.code != 401
}

/// The message without the trial's own name, so that it is the same each time.
fn message(status: &Status, name: &str) -> String {
    status.message.replace(name, PROBE)
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
