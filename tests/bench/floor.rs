//! The floor: a bare client that only does the writes without which no certificate is issued. It
//! watches nothing, checks nothing and signs nothing.

use super::load::{Load, name};
use anyhow::Context as _;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use volttron_crds::{VolttronCertRequestStatus, well_known};
use volttron_tests::{Instance, Playground, SYSTEM};

/// As many users go into one import as the operator puts there.
const BATCH: usize = 512;

/// What the floor needs to reach the broker.
pub struct Broker {
    pub http: reqwest::Client,
    pub address: String,
    pub password: String,
}

/// Writes what `load` needs as the controller's account `client`, `concurrency` at a time. The
/// Secrets and statuses have the size of `secret` and `status`, which the operator once wrote.
pub async fn run(
    load: &Load,
    client: &Client,
    broker: &Broker,
    secret: &Secret,
    status: &VolttronCertRequestStatus,
    concurrency: usize,
) -> anyhow::Result<Duration> {
    let listed = load.requests().list(&ListParams::default()).await?;
    let owners: HashMap<String, OwnerReference> = listed
        .iter()
        .filter_map(|request| Some((request.name_any(), request.controller_owner_ref(&())?)))
        .collect();
    let started = Instant::now();
    let indices: Vec<usize> = (0..load.count).collect();
    for batch in indices.chunks(BATCH) {
        broker.import(load, batch).await?;
    }
    let secrets = Api::<Secret>::namespaced(client.clone(), &load.namespace);
    let requests: Api<volttron_crds::VolttronCertRequest> =
        Api::namespaced(client.clone(), &load.namespace);
    let data: BTreeMap<String, ByteString> = secret.data.clone().unwrap_or_default();
    stream::iter(indices)
        .map(|index| {
            let (secrets, requests, data) = (secrets.clone(), requests.clone(), data.clone());
            let owner = owners.get(&name(index)).cloned();
            async move {
                let secret = Secret {
                    metadata: ObjectMeta {
                        name: Some(format!("{}-tls", name(index))),
                        labels: secret.metadata.labels.clone(),
                        owner_references: owner.map(|owner| vec![owner]),
                        ..ObjectMeta::default()
                    },
                    type_: secret.type_.clone(),
                    data: Some(data),
                    ..Secret::default()
                };
                secrets
                    .create(&PostParams::default(), &secret)
                    .await
                    .context("create a Secret")?;
                let patch = json!({
                    "apiVersion": "volttron.org/v1alpha1",
                    "kind": "VolttronCertRequest",
                    "metadata": {"name": name(index)},
                    "status": status,
                });
                let parameters = PatchParams::apply(well_known::CONTROLLER_FIELD_MANAGER).force();
                requests
                    .patch_status(&name(index), &parameters, &Patch::Apply(patch))
                    .await
                    .context("write a status")?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(concurrency)
        .try_collect::<()>()
        .await?;
    Ok(started.elapsed())
}

impl Broker {
    /// The broker of `instance`, with the operator's password.
    pub async fn of(
        playground: &Playground,
        instance: &Instance<'_>,
        broker: &volttron_tests::Broker<'_>,
    ) -> anyhow::Result<Self> {
        let name = format!("broker.{}.{}", instance.namespace, instance.name);
        let secret = Api::<Secret>::namespaced(playground.admin(), SYSTEM)
            .get(&name)
            .await?;
        let password = secret.data.as_ref().and_then(|data| data.get("password"));
        let password = password.context("the broker's Secret has no password")?;
        let ca = instance
            .get()
            .await
            .status
            .and_then(|status| status.ca)
            .context("no CA")?;
        let host = instance.host();
        let http = reqwest::Client::builder()
            .no_proxy()
            .tls_certs_only([reqwest::Certificate::from_pem(ca.bundle.as_bytes())?])
            .resolve(&host, SocketAddr::new(broker.address(), 0))
            .build()?;
        Ok(Self {
            http,
            address: format!("https://{host}:15671"),
            password: String::from_utf8(password.0.clone())?,
        })
    }

    async fn import(&self, load: &Load, indices: &[usize]) -> anyhow::Result<()> {
        let names: Vec<String> = indices
            .iter()
            .map(|index| load.common_name(*index))
            .collect();
        let users: Vec<Value> = names
            .iter()
            .map(|name| {
                json!({
                    "name": name, "password_hash": "",
                    "hashing_algorithm": "rabbit_password_hashing_sha256",
                    "tags": ["volttron-agent"],
                })
            })
            .collect();
        let topics: Vec<Value> = names
            .iter()
            .map(|name| {
                let write = format!("^(__pubsub__\\..+|[^.]+\\.{name})$");
                let read = format!("^(__pubsub__\\..+|{name})$");
                json!({"user": name, "vhost": "volttron", "exchange": "volttron", "write": write, "read": read})
            })
            .collect();
        let permissions: Vec<Value> = names
            .iter()
            .map(|name| {
                let own = format!("^({name}(\\.pubsub\\..+)?|amq\\.gen-.+|volttron)$");
                json!({"user": name, "vhost": "volttron", "configure": own, "write": own, "read": own})
            })
            .collect();
        // Who has permissions and no topic permissions may bind anything; RabbitMQ imports the
        // former first.
        self.post(json!({"users": users, "topic_permissions": topics}))
            .await?;
        self.post(json!({"permissions": permissions})).await
    }

    async fn post(&self, definitions: Value) -> anyhow::Result<()> {
        self.http
            .post(format!("{}/api/definitions", self.address))
            .basic_auth("volttron-operator", Some(&self.password))
            .json(&definitions)
            .send()
            .await?
            .error_for_status()
            .context("import users into the broker")?;
        Ok(())
    }
}
