//! The labels of namespaces, for `spec.requests.allowedNamespaces`.

use super::context::Context;
use super::filled::Filled;
use crate::approval::Waiting;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::{PartialObjectMeta, Selector, SelectorExt};
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::sync::CancellationToken;
use tracing::warn;
use volttron_crds::{AllowedNamespaces, AllowedNamespacesWord, Phase, VolttronCertRequest};

type Labels = BTreeMap<String, String>;

/// The labels of all namespaces.
#[derive(Default)]
pub(super) struct Namespaces {
    labels: Mutex<HashMap<String, Labels>>,
    /// Whether those of all namespaces are known.
    pub(super) filled: Filled,
}

impl Namespaces {
    /// Why an instance in `home` does not take requests from `namespace`, if it does not.
    pub(super) fn shut_out(
        &self,
        namespace: &str,
        home: &str,
        instance: &str,
        allowed: &AllowedNamespaces,
    ) -> Option<Waiting> {
        let why = match allowed {
            AllowedNamespaces::Word(AllowedNamespacesWord::All) => return None,
            AllowedNamespaces::Word(AllowedNamespacesWord::Same) if namespace == home => {
                return None;
            }
            AllowedNamespaces::Word(AllowedNamespacesWord::Same) => {
                "its spec.requests.allowedNamespaces is Same: file the request in the instance's \
                 namespace, or have the instance allow this one"
            }
            AllowedNamespaces::Selected { selector } => {
                match (
                    Selector::try_from(selector.clone()),
                    self.labels_of(namespace),
                ) {
                    (Ok(selector), Some(labels)) if selector.matches(&labels) => return None,
                    // To a selector such as NotIn, no labels are as good as the right ones.
                    (Ok(_), None) => "the labels of the namespace are not known yet",
                    (Ok(_), Some(_)) => {
                        "its spec.requests.allowedNamespaces.selector does not match the \
                         namespace's labels: label the namespace, or change the selector"
                    }
                    (Err(_), _) => {
                        "its spec.requests.allowedNamespaces.selector is no label selector: mend it"
                    }
                }
            }
            AllowedNamespaces::Unreadable(_) => {
                "its spec.requests.allowedNamespaces cannot be read: it must be Same, All or \
                 {selector: ...} with matchLabels and matchExpressions, and nothing else"
            }
        };
        Some(Waiting::Namespace {
            instance: format!("{home}/{instance}"),
            namespace: namespace.to_owned(),
            why,
        })
    }

    fn labels_of(&self, namespace: &str) -> Option<Labels> {
        self.lock().get(namespace).cloned()
    }

    /// Returns whether the labels are others than before.
    fn observed(&self, namespace: &PartialObjectMeta<Namespace>) -> bool {
        let labels = namespace.labels().clone();
        self.lock().insert(namespace.name_any(), labels.clone()) != Some(labels)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Labels>> {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Follows the namespaces; requests of one whose labels have changed look again.
pub(super) async fn watch(context: Arc<Context>, stop: CancellationToken) {
    let api = Api::<PartialObjectMeta<Namespace>>::all(context.client.clone());
    let events = watcher(api, watcher::Config::default())
        .default_backoff()
        .take_until(stop.cancelled_owned());
    let mut events = pin!(events);
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::InitApply(namespace)) => {
                listed.insert(namespace.name_any());
                observe(&context, &namespace);
            }
            Ok(Event::Apply(namespace)) => observe(&context, &namespace),
            Ok(Event::Delete(namespace)) => {
                context.namespaces.lock().remove(&namespace.name_any());
            }
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitDone) => {
                let listed = std::mem::take(&mut listed);
                let namespaces = &context.namespaces;
                namespaces.lock().retain(|name, _| listed.contains(name));
                namespaces.filled.set();
            }
            Err(error) => warn!(kind = "Namespace", %error, "watch interrupted; it is resumed"),
        }
    }
}

fn observe(context: &Context, namespace: &PartialObjectMeta<Namespace>) {
    if context.namespaces.observed(namespace) {
        look_again(context, &namespace.name_any());
    }
}

fn look_again(context: &Context, namespace: &str) {
    let waiting = context
        .requests
        .state_filter(|request: &VolttronCertRequest| {
            request.namespace().as_deref() == Some(namespace)
                && request.phase() != Some(Phase::Issued)
        });
    for request in waiting {
        context
            .triggers
            .request(ObjectRef::from_obj(request.as_ref()));
    }
}
