//! What every reconcile can reach.

use super::Settings;
use super::events::Events;
use super::gate::GateState;
use super::instance::Connections;
use super::metrics::Metrics;
use super::runtime::{InstanceRuntime, Runtimes};
use super::secrets::SecretIndex;
use super::triggers::Triggers;
use crate::approval::Waiting;
use jiff::SignedDuration;
use kube::Client;
use kube::runtime::reflector::{ObjectRef, Store};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use volttron_crds::{VolttronCertRequest, VolttronInstance};

/// What every reconcile can reach.
pub(super) struct Context {
    pub(super) client: Client,
    /// The controller's own namespace.
    pub(super) namespace: String,
    pub(super) instances: Store<VolttronInstance>,
    pub(super) requests: Store<VolttronCertRequest>,
    pub(super) runtimes: Runtimes,
    pub(super) secrets: SecretIndex,
    pub(super) connections: Connections,
    pub(super) gate: watch::Sender<GateState>,
    pub(super) triggers: Triggers,
    pub(super) events: Events,
    pub(super) metrics: Metrics,
    /// How long mounted files are given to follow.
    pub(super) trust_settle: SignedDuration,
    /// Bounds the certificates that are being written at once.
    pub(super) writes: Semaphore,
    attempts: Mutex<HashMap<String, u32>>,
}

impl Context {
    pub(super) fn new(
        client: Client,
        settings: &Settings,
        instances: Store<VolttronInstance>,
        requests: Store<VolttronCertRequest>,
        triggers: Triggers,
        events: Events,
    ) -> Self {
        Self {
            client,
            namespace: settings.namespace.clone(),
            instances,
            requests,
            runtimes: Runtimes::default(),
            secrets: SecretIndex::default(),
            connections: Connections::default(),
            gate: watch::Sender::new(GateState::Unproven),
            triggers,
            events,
            metrics: Metrics::default(),
            trust_settle: SignedDuration::from_secs(settings.trust_settle.into()),
            writes: Semaphore::new(settings.concurrency.into()),
            attempts: Mutex::default(),
        }
    }

    /// The instance a request is for, as far as it is known, and what an approved request would
    /// wait for.
    pub(super) fn survey(
        &self,
        request: &VolttronCertRequest,
    ) -> (Option<Arc<InstanceRuntime>>, Option<Waiting>) {
        let reference = instance_of(request);
        let name = || {
            format!(
                "{}/{}",
                reference.namespace.as_deref().unwrap_or_default(),
                reference.name
            )
        };
        let Some(instance) = self.instances.get(&reference) else {
            return (None, Some(Waiting::Instance(name())));
        };
        if instance.metadata.deletion_timestamp.is_some() {
            return (None, Some(Waiting::InstanceDeleted(name())));
        }
        let Some(runtime) = self.runtimes.of(&reference) else {
            return (
                None,
                Some(Waiting::Authority(
                    "the instance is being set up".to_owned(),
                )),
            );
        };
        let obstacle = match (
            &runtime.authority,
            &runtime.broker_fault,
            &*self.gate.borrow(),
        ) {
            (Err(fault), _, _) => Some(Waiting::Authority(fault.clone())),
            (_, Some(fault), _) => Some(Waiting::Broker(fault.clone())),
            (_, _, GateState::Stands) => None,
            (_, _, GateState::Unproven) => {
                Some(Waiting::Gate("it has not been proven yet".to_owned()))
            }
            (_, _, GateState::Down(fault)) => Some(Waiting::Gate(fault.clone())),
        };
        (Some(runtime), obstacle)
    }

    /// The requests for an instance.
    pub(super) fn requests_for(
        &self,
        instance: &ObjectRef<VolttronInstance>,
    ) -> Vec<Arc<VolttronCertRequest>> {
        self.requests
            .state_filter(|request| instance_of(request) == *instance)
    }

    /// Reconciles all requests of an instance soon.
    pub(super) fn trigger_requests_of(&self, instance: &ObjectRef<VolttronInstance>) {
        for request in self.requests_for(instance) {
            self.triggers.request(ObjectRef::from_obj(request.as_ref()));
        }
    }

    /// How long to wait before the next attempt at `key`: doubled from half a second up to half a
    /// minute, with a jitter of a quarter so that many do not come at once.
    pub(super) fn backoff(&self, key: &str) -> Duration {
        let mut attempts = self.attempts.lock().unwrap_or_else(PoisonError::into_inner);
        let attempt = attempts.entry(key.to_owned()).or_insert(0);
        let base = Duration::from_millis(500) * 2_u32.pow((*attempt).min(6));
        *attempt += 1;
        base.min(Duration::from_secs(30))
            .mul_f64(rand::random_range(0.75..1.25))
    }

    /// Forgets failed attempts at `key`.
    pub(super) fn succeeded(&self, key: &str) {
        self.attempts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key);
    }
}

/// The instance a request names.
pub(super) fn instance_of(request: &VolttronCertRequest) -> ObjectRef<VolttronInstance> {
    ObjectRef::new(&request.spec.instance_ref.name).within(&request.instance_namespace())
}
