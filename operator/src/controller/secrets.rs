//! An index of the Secrets the controller made: enough to notice what was changed by hand, without
//! keeping their content.

use super::context::Context;
use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Resource, ResourceExt};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use volttron_crds::{VolttronCertRequest, VolttronInstance, well_known};

type Key = (String, String);
type Fingerprint = [u8; 32];

/// Fingerprints of the content of Secrets, by namespace and name. Clones share them.
#[derive(Clone, Default)]
pub(super) struct SecretIndex(Arc<Mutex<HashMap<Key, Fingerprint>>>);

impl SecretIndex {
    /// Whether the Secret is known to hold exactly `data`.
    pub(super) fn holds(
        &self,
        namespace: &str,
        name: &str,
        data: &BTreeMap<String, ByteString>,
    ) -> bool {
        self.lock().get(&(namespace.to_owned(), name.to_owned())) == Some(&fingerprint(data))
    }

    /// Notes what the controller has just written, so that the watch of it triggers nothing.
    pub(super) fn wrote(&self, namespace: &str, name: &str, data: &BTreeMap<String, ByteString>) {
        self.lock()
            .insert((namespace.to_owned(), name.to_owned()), fingerprint(data));
    }

    /// Forgets what [`Self::wrote`] noted of a write that did not come to pass.
    pub(super) fn did_not_write(&self, namespace: &str, name: &str) {
        self.lock().remove(&(namespace.to_owned(), name.to_owned()));
    }

    fn observed(&self, secret: &Secret) -> bool {
        let seen = secret
            .data
            .as_ref()
            .map_or_else(|| fingerprint(&BTreeMap::new()), fingerprint);
        self.lock().insert(key(secret), seen) != Some(seen)
    }

    fn deleted(&self, secret: &Secret) {
        self.lock().remove(&key(secret));
    }

    fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Key, Fingerprint>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the controller's own Secrets and has their owners reconciled when somebody else changed
/// or deleted one.
pub(super) async fn watch(context: Arc<Context>, stop: CancellationToken) {
    let config = watcher::Config::default().labels(&format!(
        "{}={}",
        well_known::MANAGED_BY_LABEL,
        well_known::MANAGED_BY
    ));
    let events = watcher(Api::<Secret>::all(context.client.clone()), config)
        .default_backoff()
        .take_until(stop.cancelled_owned());
    let mut events = pin!(events);
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => context.secrets.clear(),
            Ok(Event::InitApply(secret) | Event::Apply(secret)) => {
                if context.secrets.observed(&secret) {
                    trigger_owner(&context, &secret);
                }
            }
            Ok(Event::Delete(secret)) => {
                context.secrets.deleted(&secret);
                trigger_owner(&context, &secret);
            }
            Ok(Event::InitDone) => {}
            Err(error) => warn!(kind = "Secret", %error, "watch interrupted; it is resumed"),
        }
    }
}

fn trigger_owner(context: &Context, secret: &Secret) {
    match owner(secret, &context.namespace) {
        Some(Owner::Request(reference)) => context.triggers.request(reference),
        Some(Owner::Instance(reference)) => context.triggers.instance(reference),
        None => {}
    }
}

#[derive(Debug, PartialEq)]
enum Owner {
    Request(ObjectRef<VolttronCertRequest>),
    Instance(ObjectRef<VolttronInstance>),
}

/// Whom a Secret was made for. Anybody who may write Secrets in a namespace can label them like
/// the controller's own, so that only those in the controller's namespace speak for an instance
/// elsewhere.
fn owner(secret: &Secret, own_namespace: &str) -> Option<Owner> {
    let namespace = secret.namespace().unwrap_or_default();
    let request = secret.owner_references().iter().find(|owner| {
        owner.kind == VolttronCertRequest::kind(&()) && owner.controller == Some(true)
    });
    if let Some(owner) = request {
        let reference = ObjectRef::new(&owner.name).within(&namespace);
        return Some(Owner::Request(reference));
    }
    let labels = secret.labels();
    let name = labels.get(well_known::INSTANCE_LABEL)?;
    let of = labels.get(well_known::INSTANCE_NAMESPACE_LABEL)?;
    (*of == namespace || namespace == own_namespace)
        .then(|| Owner::Instance(ObjectRef::new(name).within(of)))
}

fn key(secret: &Secret) -> Key {
    (secret.namespace().unwrap_or_default(), secret.name_any())
}

fn fingerprint(data: &BTreeMap<String, ByteString>) -> Fingerprint {
    let mut digest = Sha256::new();
    for (name, ByteString(value)) in data {
        digest.update(name.len().to_le_bytes());
        digest.update(name);
        digest.update(value.len().to_le_bytes());
        digest.update(value);
    }
    digest.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn secret(namespace: &str, of: &str) -> Secret {
        let labels = json!({well_known::INSTANCE_LABEL: "central", well_known::INSTANCE_NAMESPACE_LABEL: of});
        serde_json::from_value(
            json!({"metadata": {"name": "any", "namespace": namespace, "labels": labels}}),
        )
        .unwrap()
    }

    #[test]
    fn a_label_speaks_for_no_instance_of_another_namespace() {
        let central = ObjectRef::new("central").within("plant");
        let owner = |namespace: &str| owner(&secret(namespace, "plant"), "volttron-system");
        assert_eq!(owner("plant"), Some(Owner::Instance(central.clone())));
        assert_eq!(owner("volttron-system"), Some(Owner::Instance(central)));
        assert_eq!(owner("mallory"), None);
    }
}
