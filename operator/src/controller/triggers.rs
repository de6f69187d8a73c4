//! Asks for a reconcile from elsewhere in the controller.

use futures::Stream;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use kube::runtime::reflector::ObjectRef;
use volttron_crds::{VolttronCertRequest, VolttronInstance};

/// The sending ends. The controllers drop repeated references, so sending too often is harmless.
#[derive(Clone)]
pub(super) struct Triggers {
    instances: UnboundedSender<ObjectRef<VolttronInstance>>,
    requests: UnboundedSender<ObjectRef<VolttronCertRequest>>,
}

impl Triggers {
    /// Reconciles an instance soon.
    pub(super) fn instance(&self, reference: ObjectRef<VolttronInstance>) {
        // It fails only once the controller has stopped.
        let _ = self.instances.unbounded_send(reference);
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
        },
        instance_stream,
        request_stream,
    )
}
