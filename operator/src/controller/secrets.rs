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
use std::collections::hash_map::Entry;
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
pub(super) struct SecretIndex(Arc<Mutex<Known>>);

#[derive(Default)]
struct Known {
    contents: HashMap<Key, Content>,
    /// What was to be in Secrets and cannot be, and why.
    hindered: HashMap<Key, (Fingerprint, String)>,
}

#[derive(Default)]
struct Content {
    /// What is in it.
    seen: Option<Fingerprint>,
    /// What the controller has put into it last, whatever somebody else made of it.
    given: Option<Fingerprint>,
}

impl SecretIndex {
    /// Whether the Secret is known to hold exactly `data`.
    pub(super) fn holds(
        &self,
        namespace: &str,
        name: &str,
        data: &BTreeMap<String, ByteString>,
    ) -> bool {
        self.known(namespace, name, |content| content.seen) == Some(fingerprint(data))
    }

    /// Notes what the controller has just written, so that the watch of it triggers nothing.
    pub(super) fn wrote(&self, namespace: &str, name: &str, data: &BTreeMap<String, ByteString>) {
        let key = (namespace.to_owned(), name.to_owned());
        let mut known = self.lock();
        known.hindered.remove(&key);
        let written = Some(fingerprint(data));
        let content = Content {
            seen: written,
            given: written,
        };
        known.contents.insert(key, content);
    }

    /// Forgets what [`Self::wrote`] noted of a write that did not come to pass.
    pub(super) fn did_not_write(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        self.lock().contents.remove(&key);
    }

    /// Whether `data` is what the controller has put into the Secret last. Its owner may have changed
    /// it since.
    pub(super) fn was_given(
        &self,
        namespace: &str,
        name: &str,
        data: &BTreeMap<String, ByteString>,
    ) -> bool {
        self.known(namespace, name, |content| content.given) == Some(fingerprint(data))
    }

    fn known(
        &self,
        namespace: &str,
        name: &str,
        which: impl Fn(&Content) -> Option<Fingerprint>,
    ) -> Option<Fingerprint> {
        let key = (namespace.to_owned(), name.to_owned());
        self.lock().contents.get(&key).and_then(which)
    }

    /// Notes why `data` cannot be put into a Secret.
    pub(super) fn cannot_hold(
        &self,
        namespace: &str,
        name: &str,
        data: &BTreeMap<String, ByteString>,
        why: String,
    ) {
        let key = (namespace.to_owned(), name.to_owned());
        self.lock().hindered.insert(key, (fingerprint(data), why));
    }

    /// Why `data` could not be put into a Secret when that was tried last.
    pub(super) fn hindrance(
        &self,
        namespace: &str,
        name: &str,
        data: &BTreeMap<String, ByteString>,
    ) -> Option<String> {
        let key = (namespace.to_owned(), name.to_owned());
        let known = self.lock();
        let (tried, why) = known.hindered.get(&key)?;
        (*tried == fingerprint(data)).then(|| why.clone())
    }

    /// Forgets a Secret that is wanted no more.
    pub(super) fn forget(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        let mut known = self.lock();
        known.hindered.remove(&key);
        known.change(key, |content| content.given = None);
    }

    fn observed(&self, secret: &Secret) -> bool {
        let seen = secret
            .data
            .as_ref()
            .map_or_else(|| fingerprint(&BTreeMap::new()), fingerprint);
        let mut known = self.lock();
        let content = known.contents.entry(key(secret)).or_default();
        content.seen.replace(seen) != Some(seen)
    }

    fn deleted(&self, secret: &Secret) {
        self.lock()
            .change(key(secret), |content| content.seen = None);
    }

    fn clear(&self) {
        let contents = &mut self.lock().contents;
        contents.retain(|_, content| {
            content.seen = None;
            content.given.is_some()
        });
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn change(&mut self, key: Key, change: impl FnOnce(&mut Content)) {
        if let Entry::Occupied(mut entry) = self.contents.entry(key) {
            change(entry.get_mut());
            if entry.get().seen.is_none() && entry.get().given.is_none() {
                entry.remove();
            }
        }
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

    fn data(content: &str) -> BTreeMap<String, ByteString> {
        BTreeMap::from([("ca.crt".to_owned(), ByteString(content.into()))])
    }

    #[test]
    fn what_was_given_is_known_whatever_the_owner_makes_of_it() {
        let index = SecretIndex::default();
        let (old, new) = (data("old"), data("new"));
        let seen = |content: &BTreeMap<String, ByteString>| Secret {
            data: Some(content.clone()),
            ..secret("plant", "plant")
        };
        let state = |data| {
            (
                index.holds("plant", "any", data),
                index.was_given("plant", "any", data),
            )
        };
        assert!(index.observed(&seen(&old)), "this is news");
        assert_eq!(state(&old), (true, false));
        index.wrote("plant", "any", &new);
        assert!(!index.observed(&seen(&new)), "the controller's own write");
        assert_eq!((state(&old), state(&new)), ((false, false), (true, true)));
        assert!(index.observed(&seen(&old)), "somebody else's write");
        assert_eq!((state(&old), state(&new)), ((true, false), (false, true)));
        index.deleted(&seen(&old));
        index.clear();
        assert_eq!(state(&new), (false, true));
        index.forget("plant", "any");
        assert_eq!(state(&new), (false, false));
        assert!(index.lock().contents.is_empty(), "nothing is kept");
        index.wrote("plant", "any", &new);
        index.did_not_write("plant", "any");
        assert_eq!(state(&new), (false, false));
    }

    #[test]
    fn a_hindrance_is_of_one_content_and_ends_with_a_write() {
        let index = SecretIndex::default();
        let (old, new) = (data("old"), data("new"));
        let why = |data| index.hindrance("plant", "any", data);
        index.cannot_hold("plant", "any", &new, "quota".to_owned());
        assert_eq!((why(&old), why(&new)), (None, Some("quota".to_owned())));
        index.wrote("plant", "any", &new);
        assert_eq!(why(&new), None);
    }

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
