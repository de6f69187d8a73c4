//! The requests that both the operator and the bare client work on.

use anyhow::Context as _;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::json;
use std::time::Duration;
use volttron_crds::{
    InstanceReference, Phase, VolttronCertRequest, VolttronCertRequestSpec, well_known,
};

/// How many writes are under way while the load is prepared.
const PREPARING: usize = 16;

/// A number of requests in one namespace.
pub struct Load {
    /// A cluster administrator.
    pub client: Client,
    /// The account that files.
    pub agent: Client,
    /// The user who approves.
    pub approver: Client,
    pub namespace: String,
    pub instance: InstanceReference,
    pub requester: String,
    pub count: usize,
}

impl Load {
    /// Files all requests.
    pub async fn file(&self) -> anyhow::Result<()> {
        let api = self.requests_as(&self.agent);
        // One key for all: what is measured is not how fast a client makes keys.
        let key = KeyPair::generate()?;
        stream::iter(0..self.count)
            .map(|index| {
                let (api, key) = (api.clone(), &key);
                async move {
                    let request = self.request(index, key)?;
                    api.create(&PostParams::default(), &request)
                        .await
                        .context("file a request")?;
                    anyhow::Ok(())
                }
            })
            .buffer_unordered(PREPARING)
            .try_collect::<()>()
            .await
    }

    /// Approves all requests.
    pub async fn approve(&self) -> anyhow::Result<()> {
        let api = self.requests_as(&self.approver);
        let patch = json!({"metadata": {"annotations": {(well_known::DECISION): "approved"}}});
        stream::iter(0..self.count)
            .map(|index| {
                let (api, patch) = (api.clone(), &patch);
                async move {
                    api.patch(&name(index), &PatchParams::default(), &Patch::Merge(patch))
                        .await
                        .context("approve a request")?;
                    anyhow::Ok(())
                }
            })
            .buffer_unordered(PREPARING)
            .try_collect::<()>()
            .await
    }

    /// Waits until every request is in `phase`.
    pub async fn wait_for(&self, phase: Phase, deadline: Duration) -> anyhow::Result<()> {
        let everything = async {
            loop {
                let listed = self.requests().list(&ListParams::default()).await?;
                let reached = listed.iter().filter(|r| r.phase() == Some(phase)).count();
                if reached == self.count {
                    return anyhow::Ok(());
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        };
        tokio::time::timeout(deadline, everything)
            .await
            .with_context(|| format!("not all requests were {phase:?} within {deadline:?}"))?
    }

    /// Fails unless every request has its certificate in status and in its Secret.
    pub async fn verify(&self) -> anyhow::Result<()> {
        let requests = self.requests().list(&ListParams::default()).await?;
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.namespace)
            .list(&ListParams::default())
            .await?;
        for request in &requests {
            let certificate = request
                .status
                .as_ref()
                .and_then(|s| s.certificate.as_deref());
            let certificate = certificate
                .with_context(|| format!("request {} has no certificate", request.name_any()))?;
            let stored = secrets
                .iter()
                .find(|secret| secret.name_any() == request.secret_name());
            let stored = stored
                .and_then(|secret| secret.data.as_ref()?.get("tls.crt"))
                .with_context(|| format!("Secret {} is missing", request.secret_name()))?;
            anyhow::ensure!(
                stored.0 == certificate.as_bytes(),
                "Secret {} holds another certificate than status",
                request.secret_name()
            );
        }
        anyhow::ensure!(requests.items.len() == self.count, "a request is missing");
        Ok(())
    }

    /// Deletes all requests and waits until they and their Secrets are gone.
    pub async fn clear(&self) -> anyhow::Result<()> {
        let (requests, ours) = (self.requests(), ListParams::default());
        requests
            .delete_collection(&DeleteParams::default(), &ours)
            .await?;
        none_left(&requests, &ours).await?;
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        // Those of requests; the broker's keep their label of the broker.
        let ours = ListParams::default().labels("volttron.org/instance,!app.kubernetes.io/name");
        secrets
            .delete_collection(&DeleteParams::default(), &ours)
            .await?;
        none_left(&secrets, &ours).await
    }

    /// The common name of the request with this number.
    pub fn common_name(&self, index: usize) -> String {
        format!("{}.bench.agent{index}", self.instance.name)
    }

    /// The requests, as the administrator.
    pub fn requests(&self) -> Api<VolttronCertRequest> {
        self.requests_as(&self.client)
    }

    fn requests_as(&self, client: &Client) -> Api<VolttronCertRequest> {
        Api::namespaced(client.clone(), &self.namespace)
    }

    fn request(&self, index: usize, key: &KeyPair) -> anyhow::Result<VolttronCertRequest> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, self.common_name(index));
        let spec = VolttronCertRequestSpec {
            instance_ref: self.instance.clone(),
            request: STANDARD.encode(params.serialize_request(key)?.pem()?),
            duration: None,
            requester: self.requester.clone(),
        };
        Ok(VolttronCertRequest::new(&name(index), spec))
    }
}

async fn none_left<K>(api: &Api<K>, which: &ListParams) -> anyhow::Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let gone = async {
        while !api.list(&which.clone().limit(1)).await?.items.is_empty() {
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_mins(5), gone)
        .await
        .context("the requests and Secrets were not gone within five minutes")?
}

/// The name of the request with this number.
pub fn name(index: usize) -> String {
    format!("agent-{index:05}")
}
