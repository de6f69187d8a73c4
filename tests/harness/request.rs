//! Requests, as agents file them and administrators decide on them.

use crate::encode;
use crate::people;
use crate::playground::Playground;
use crate::{Instance, SOON};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use std::time::Duration;
use volttron_crds::{
    InstanceReference, Phase, VolttronCertRequest, VolttronCertRequestSpec, well_known,
};

/// A namespace with agents in it.
pub struct Space<'a> {
    /// Where it is.
    pub playground: &'a Playground,
    /// The namespace.
    pub namespace: String,
    /// The agents' service account, as the API server knows it.
    pub user: String,
    agent: Client,
}

/// What an issued request has given to its agent.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The request as it stands.
    pub request: VolttronCertRequest,
    /// `tls.crt` of its Secret.
    pub chain: String,
    /// `ca.crt` of its Secret.
    pub ca: String,
}

impl Playground {
    /// Makes a namespace whose service account `agent` files requests.
    pub async fn space(&self, name: &str) -> Space<'_> {
        let namespace = self.namespace(name).await;
        self.space_of(namespace, "agent").await
    }

    async fn space_of(&self, namespace: String, account: &str) -> Space<'_> {
        let made = ServiceAccount {
            metadata: ObjectMeta {
                name: Some(account.to_owned()),
                ..ObjectMeta::default()
            },
            ..ServiceAccount::default()
        };
        Api::namespaced(self.admin(), &namespace)
            .create(&PostParams::default(), &made)
            .await
            .expect("a service account");
        let token = people::token(&self.admin(), &namespace, account).await;
        Space {
            playground: self,
            user: format!("system:serviceaccount:{namespace}:{account}"),
            agent: self.client_with_token(&token),
            namespace,
        }
    }
}

impl<'a> Space<'a> {
    /// The same namespace, with another service account that files requests.
    pub async fn sibling(&self, account: &str) -> Space<'a> {
        self.playground
            .space_of(self.namespace.clone(), account)
            .await
    }

    /// The requests here, as the administrator.
    pub fn api(&self) -> Api<VolttronCertRequest> {
        Api::namespaced(self.playground.admin(), &self.namespace)
    }

    /// A client of the service account that files requests.
    pub fn agent(&self) -> kube::Client {
        self.agent.clone()
    }

    /// The Secrets here, as the administrator.
    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.playground.admin(), &self.namespace)
    }

    /// Files a request with a PEM signing request, as the agents' service account.
    pub async fn file(&self, name: &str, instance: &Instance<'_>, csr: &str) {
        self.try_file(name, instance, &encode(csr.as_bytes()), None)
            .await
            .unwrap_or_else(|error| panic!("request {name}: {error}"));
    }

    /// Files a request with whatever is to stand in `spec.request`.
    ///
    /// # Errors
    /// The API server's refusal.
    pub async fn try_file(
        &self,
        name: &str,
        instance: &Instance<'_>,
        request: &str,
        duration: Option<&str>,
    ) -> kube::Result<VolttronCertRequest> {
        let object = VolttronCertRequest {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            spec: VolttronCertRequestSpec {
                instance_ref: InstanceReference {
                    name: instance.name.clone(),
                    namespace: Some(instance.namespace.clone()),
                },
                request: request.to_owned(),
                duration: duration.map(str::to_owned),
                requester: self.user.clone(),
            },
            status: None,
        };
        Api::<VolttronCertRequest>::namespaced(self.agent.clone(), &self.namespace)
            .create(&PostParams::default(), &object)
            .await
    }

    /// Approves a request, as the approver.
    pub async fn approve(&self, name: &str) {
        self.decide(name, json!({well_known::DECISION: "approved"}))
            .await;
    }

    /// Denies a request, as the approver.
    pub async fn deny(&self, name: &str, reason: &str) {
        let annotations = json!({well_known::DECISION: "denied", well_known::REASON: reason});
        self.decide(name, annotations).await;
    }

    async fn decide(&self, name: &str, annotations: serde_json::Value) {
        self.try_decide(name, annotations)
            .await
            .unwrap_or_else(|error| panic!("the decision on {name}: {error}"));
    }

    /// Writes these annotations, as the approver.
    ///
    /// # Errors
    /// The API server's refusal, or that it is away.
    pub async fn try_decide(&self, name: &str, annotations: serde_json::Value) -> kube::Result<()> {
        let patch = json!({"metadata": {"annotations": annotations}});
        Api::<VolttronCertRequest>::namespaced(self.playground.approver(), &self.namespace)
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
            .map(drop)
    }

    /// The request as it is.
    pub async fn get(&self, name: &str) -> VolttronCertRequest {
        self.api()
            .get(name)
            .await
            .unwrap_or_else(|error| panic!("request {name}: {error}"))
    }

    /// Waits until a request is in `phase`.
    pub async fn phase(&self, name: &str, phase: Phase) -> VolttronCertRequest {
        self.phase_within(name, phase, SOON).await
    }

    /// Waits until a request is in `phase`, no longer than `limit`.
    pub async fn phase_within(
        &self,
        name: &str,
        phase: Phase,
        limit: Duration,
    ) -> VolttronCertRequest {
        self.until(name, &format!("is {phase:?}"), limit, |request| {
            request.phase() == Some(phase)
        })
        .await
    }

    /// Waits until `condition` of a request has `reason`, and returns its message.
    pub async fn says(&self, name: &str, condition: &str, reason: &str) -> String {
        let what = format!("has {condition} with reason {reason}");
        let message = |request: &VolttronCertRequest| {
            let status = request.status.clone().unwrap_or_default();
            let mut conditions = status.conditions.into_iter();
            conditions
                .find(|it| it.type_ == condition && it.reason == reason)
                .map(|it| it.message)
        };
        let request = self
            .until(name, &what, SOON * 2, |request| message(request).is_some())
            .await;
        message(&request).unwrap_or_default()
    }

    /// Waits until a request is as `wanted` says.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&VolttronCertRequest) -> bool,
    ) -> VolttronCertRequest {
        let what = format!("request {}/{name} {what}", self.namespace);
        self.playground
            .eventually(&what, limit, async || {
                let request = self.api().get(name).await;
                let request = request.map_err(|error| error.to_string())?;
                if wanted(&request) {
                    return Ok(request);
                }
                Err(format!("{:#?}", request.status))
            })
            .await
    }

    /// Waits until a request is issued, and returns what its Secret holds.
    pub async fn issued(&self, name: &str) -> Issued {
        self.issued_within(name, SOON * 2).await
    }

    /// Waits until a request is issued, no longer than `limit`.
    pub async fn issued_within(&self, name: &str, limit: Duration) -> Issued {
        let request = self.phase_within(name, Phase::Issued, limit).await;
        let secret = self.secret(name).await.expect("the Secret is there first");
        Issued {
            request,
            chain: text(&secret, "tls.crt"),
            ca: text(&secret, "ca.crt"),
        }
    }

    /// The Secret of a request.
    pub async fn secret(&self, name: &str) -> Option<Secret> {
        self.secrets()
            .get_opt(&format!("{name}-tls"))
            .await
            .expect("the API server answers")
    }

    /// Deletes a request, as the administrator.
    pub async fn delete(&self, name: &str) {
        self.api()
            .delete(name, &DeleteParams::default())
            .await
            .unwrap_or_else(|error| panic!("deleting {name}: {error}"));
    }

    /// Waits until a request is gone.
    pub async fn gone(&self, name: &str) {
        self.playground
            .eventually(
                &format!("request {name} is gone"),
                SOON,
                async || match self.api().get_opt(name).await {
                    Ok(None) => Ok(()),
                    other => Err(format!("{other:?}")),
                },
            )
            .await;
    }
}

/// A value of a Secret, as text; empty where it is missing.
pub(crate) fn text(secret: &Secret, key: &str) -> String {
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    value
        .map(|ByteString(bytes)| String::from_utf8_lossy(bytes).into_owned())
        .unwrap_or_default()
}
