//! Instances, as users create them.

use crate::playground::Playground;
use crate::{Broker, SOON};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, Resource};
use local_cluster::Base;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::time::Duration;
use volttron_crds::{Condition, VolttronInstance};

/// A `VolttronInstance` in a playground.
#[derive(Clone)]
pub struct Instance<'a> {
    /// Where it is.
    pub playground: &'a Playground,
    /// Its namespace.
    pub namespace: String,
    /// Its `metadata.name`.
    pub name: String,
}

impl Playground {
    /// Creates an instance with this `spec`.
    pub async fn instance(&self, namespace: &str, name: &str, spec: Value) -> Instance<'_> {
        let instance = self.known_instance(namespace, name);
        let body = json!({
            "apiVersion": "volttron.org/v1alpha1", "kind": "VolttronInstance",
            "metadata": {"name": name}, "spec": spec,
        });
        let body: VolttronInstance = serde_json::from_value(body).expect("an instance");
        instance
            .api()
            .create(&PostParams::default(), &body)
            .await
            .unwrap_or_else(|error| panic!("instance {namespace}/{name}: {error}"));
        instance
    }

    /// The kinds of the objects of a broker that exist.
    pub async fn objects_of(&self, namespace: &str, name: &str) -> Vec<&'static str> {
        let client = self.admin();
        let found = [
            (
                "configmap",
                exists::<ConfigMap>(&client, namespace, name).await,
            ),
            ("service", exists::<Service>(&client, namespace, name).await),
            (
                "statefulset",
                exists::<StatefulSet>(&client, namespace, name).await,
            ),
        ];
        let found = found.into_iter().filter(|(_, exists)| *exists);
        found.map(|(kind, _)| kind).collect()
    }

    /// An instance that exists, or will.
    pub fn known_instance(&self, namespace: &str, name: &str) -> Instance<'_> {
        Instance {
            playground: self,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl<'a> Instance<'a> {
    /// Its objects' API, as the administrator.
    pub fn api(&self) -> Api<VolttronInstance> {
        Api::namespaced(self.playground.admin(), &self.namespace)
    }

    /// The name the broker's Service, `StatefulSet` and `ConfigMap` have.
    pub fn broker_name(&self) -> String {
        format!("{}-rabbitmq", self.name)
    }

    /// The host name of the broker's Service.
    pub fn host(&self) -> String {
        format!("{}.{}.svc", self.broker_name(), self.namespace)
    }

    /// The object as it is.
    pub async fn get(&self) -> VolttronInstance {
        self.api()
            .get(&self.name)
            .await
            .unwrap_or_else(|error| panic!("instance {}: {error}", self.name))
    }

    /// Waits until condition `kind` has `status` and, where it is given, `reason`.
    pub async fn condition(
        &self,
        kind: &str,
        status: &str,
        reason: Option<&str>,
        limit: Duration,
    ) -> Condition {
        let what = format!(
            "instance {}/{}: {kind}={status} {}",
            self.namespace,
            self.name,
            reason.unwrap_or_default()
        );
        self.playground
            .eventually(&what, limit, async || {
                let instance = self
                    .api()
                    .get(&self.name)
                    .await
                    .map_err(|error| error.to_string())?;
                let conditions = instance.status.unwrap_or_default().conditions;
                conditions
                    .iter()
                    .find(|it| {
                        it.type_ == kind
                            && it.status == status
                            && reason.is_none_or(|reason| it.reason == reason)
                    })
                    .cloned()
                    .ok_or_else(|| format!("{conditions:#?}"))
            })
            .await
    }

    /// Waits until it is Ready.
    pub async fn ready(&self) {
        self.condition("Ready", "True", None, SOON * 2).await;
    }

    /// Runs its broker, as a kubelet would, and waits until the instance is Ready.
    pub async fn start_broker(&self, base: Base) -> Broker<'a> {
        let broker = Broker::start(self, base).await;
        self.ready().await;
        broker
    }

    /// Deletes it; it may take a while to go.
    pub async fn delete(&self) {
        let _ = self
            .api()
            .delete(&self.name, &DeleteParams::default())
            .await;
    }
}

async fn exists<K>(client: &Client, namespace: &str, name: &str) -> bool
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + Debug
        + DeserializeOwned,
{
    let api = Api::<K>::namespaced(client.clone(), namespace);
    let object = api.get_opt(name).await;
    object.expect("the API server answers").is_some()
}
