//! Asks for a reconcile from elsewhere in the controller.

use futures::Stream;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use kube::runtime::reflector::ObjectRef;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use volttron_crds::{VolttronCertRequest, VolttronInstance};

/// How long a change of a request's phase waits for others before its instance counts again.
const COUNT_DELAY: Duration = Duration::from_secs(3);

/// The sending ends. The controllers drop repeated references, so sending too often is harmless.
#[derive(Clone)]
pub(super) struct Triggers {
    instances: UnboundedSender<ObjectRef<VolttronInstance>>,
    requests: UnboundedSender<ObjectRef<VolttronCertRequest>>,
    counting: Arc<Mutex<HashSet<ObjectRef<VolttronInstance>>>>,
}

impl Triggers {
    /// Reconciles an instance soon.
    pub(super) fn instance(&self, reference: ObjectRef<VolttronInstance>) {
        // It fails only once the controller has stopped.
        let _ = self.instances.unbounded_send(reference);
    }

    /// Has an instance count its requests again, once for many changes.
    pub(super) fn count(&self, reference: ObjectRef<VolttronInstance>) {
        if !self.counting().insert(reference.clone()) {
            return;
        }
        let triggers = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(COUNT_DELAY).await;
            triggers.counting().remove(&reference);
            triggers.instance(reference);
        });
    }

    fn counting(&self) -> MutexGuard<'_, HashSet<ObjectRef<VolttronInstance>>> {
        self.counting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reconciles a request soon.
    pub(super) fn request(&self, reference: ObjectRef<VolttronCertRequest>) {
        let _ = self.requests.unbounded_send(reference);
    }
}

/// The triggers and the streams they feed.
pub(super) fn channels() -> (
    Triggers,
    impl Stream<Item = ObjectRef<VolttronInstance>> + Send + 'static,
    impl Stream<Item = ObjectRef<VolttronCertRequest>> + Send + 'static,
) {
    let (instances, instance_stream) = unbounded();
    let (requests, request_stream) = unbounded();
    (
        Triggers {
            instances,
            requests,
            counting: Arc::default(),
        },
        instance_stream,
        request_stream,
    )
}
