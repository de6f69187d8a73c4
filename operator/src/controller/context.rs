//! What every reconcile can reach.

use super::Settings;
use super::approvals::Approvals;
use super::events::Events;
use super::filled::Filled;
use super::gate::{GateState, Stamping};
use super::identities::{Identities, Name};
use super::instance::Connections;
use super::metrics::Metrics;
use super::namespaces::Namespaces;
use super::revocations::Revocations;
use super::room::Room;
use super::runtime::{InstanceRuntime, Runtimes};
use super::secrets::SecretIndex;
use super::triggers::Triggers;
use crate::approval::{Waiting, with_access};
use crate::leadership::Leadership;
use jiff::SignedDuration;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Client, ResourceExt};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, Semaphore, watch};
use volttron_crds::{CommonName, VolttronCertRequest, VolttronInstance};

/// The caches, and what is known by following them.
pub(super) struct Caches {
    pub(super) instances: Store<VolttronInstance>,
    pub(super) instances_filled: Filled,
    pub(super) requests: Store<VolttronCertRequest>,
    pub(super) requests_filled: Filled,
    pub(super) identities: Identities,
    pub(super) room: Room,
    pub(super) approvals: Approvals,
}

/// What every reconcile can reach.
pub(super) struct Context {
    /// Writes only as long as this replica leads.
    pub(super) client: Client,
    /// Whether this replica may act.
    pub(super) leadership: Leadership,
    /// The controller's own namespace.
    pub(super) namespace: String,
    pub(super) instances: Store<VolttronInstance>,
    pub(super) instances_filled: Filled,
    pub(super) requests: Store<VolttronCertRequest>,
    pub(super) requests_filled: Filled,
    pub(super) runtimes: Runtimes,
    /// Which requests are for the same name.
    pub(super) identities: Identities,
    /// Room for requests that wait for a decision.
    pub(super) room: Room,
    /// Since when requests are approved.
    pub(super) approvals: Approvals,
    pub(super) namespaces: Namespaces,
    pub(super) revocations: Revocations,
    /// How long a request that was superseded stays.
    pub(super) superseded_grace: Duration,
    pub(super) secrets: SecretIndex,
    pub(super) connections: Connections,
    pub(super) gate: watch::Sender<GateState>,
    pub(super) stamping: watch::Sender<Stamping>,
    /// There is a request on which the gate can be tried in full.
    pub(super) first_request: Notify,
    pub(super) triggers: Triggers,
    pub(super) events: Events,
    pub(super) metrics: Metrics,
    /// How long mounted files are given to follow.
    pub(super) trust_settle: SignedDuration,
    /// Bounds the certificates that are being written at once.
    pub(super) writes: Semaphore,
    writes_at_once: usize,
    attempts: Mutex<HashMap<String, u32>>,
}

impl Context {
    pub(super) fn new(
        client: Client,
        leadership: Leadership,
        settings: &Settings,
        caches: Caches,
        triggers: Triggers,
        metrics: Metrics,
    ) -> Self {
        let Caches {
            instances,
            instances_filled,
            requests,
            requests_filled,
            identities,
            room,
            approvals,
        } = caches;
        Self {
            client,
            leadership,
            namespace: settings.namespace.clone(),
            instances,
            instances_filled,
            requests,
            requests_filled,
            runtimes: Runtimes::default(),
            identities,
            room,
            approvals,
            namespaces: Namespaces::default(),
            revocations: Revocations::default(),
            superseded_grace: Duration::from_secs(settings.superseded_grace_seconds),
            secrets: SecretIndex::default(),
            connections: Connections::default(),
            gate: watch::Sender::new(GateState::Unproven),
            stamping: watch::Sender::new(Stamping::at_start(settings.expect_stamping)),
            first_request: Notify::new(),
            triggers,
            events: Events::new(metrics.counts.events_dropped.clone()),
            metrics,
            trust_settle: SignedDuration::from_secs(settings.trust_settle_seconds.into()),
            writes: Semaphore::new(settings.concurrency.into()),
            writes_at_once: settings.concurrency.into(),
            attempts: Mutex::default(),
        }
    }

    /// Whether certificates are being written.
    pub(super) fn is_writing(&self) -> bool {
        self.writes.available_permits() < self.writes_at_once
    }

    /// Whether everything that a decision on a request is made from has been read.
    pub(super) fn is_filled(&self) -> bool {
        let caches = [
            &self.instances_filled,
            &self.requests_filled,
            &self.namespaces.filled,
        ];
        caches.into_iter().all(Filled::is_set)
    }

    /// The instance a request is for, as far as it is known, and what an approved request would
    /// wait for.
    pub(super) fn survey(
        &self,
        request: &VolttronCertRequest,
    ) -> (Option<Arc<InstanceRuntime>>, Option<Waiting>) {
        let reference = instance_of(request);
        let Some(instance) = self.instances.get(&reference) else {
            return (None, Some(Waiting::Instance(request.instance_full_name())));
        };
        if instance.metadata.deletion_timestamp.is_some() {
            let name = request.instance_full_name();
            return (None, Some(Waiting::InstanceDeleted(name)));
        }
        let Some(runtime) = self.runtimes.of(&reference) else {
            return (
                None,
                Some(Waiting::Authority(
                    "the instance is being set up".to_owned(),
                )),
            );
        };
        let obstacle = match (&runtime.authority, &runtime.broker_fault) {
            (Err(fault), _) => Some(Waiting::Authority(fault.clone())),
            (_, Some(fault)) => Some(Waiting::Broker(fault.clone())),
            _ => self.without_gate(),
        };
        (Some(runtime), obstacle)
    }

    /// Why nothing may be signed now, unless the approval gate stands.
    pub(super) fn without_gate(&self) -> Option<Waiting> {
        let why = match &*self.gate.borrow() {
            GateState::Stands => return None,
            GateState::Unproven => "it has not been proven yet".to_owned(),
            GateState::Untried => {
                self.first_request.notify_one();
                "it is being tried on this request".to_owned()
            }
            GateState::Down(fault) => fault.clone(),
        };
        Some(Waiting::Gate(why))
    }

    /// The requests for an instance.
    pub(super) fn requests_for(
        &self,
        instance: &ObjectRef<VolttronInstance>,
    ) -> Vec<Arc<VolttronCertRequest>> {
        self.requests
            .state_filter(|request| instance_of(request) == *instance)
    }

    /// All requests for the same instance and common name but `request` itself.
    pub(super) fn peers_of(
        &self,
        request: &VolttronCertRequest,
        name: &Name,
    ) -> Vec<Arc<VolttronCertRequest>> {
        let own = ObjectRef::from_obj(request);
        let peers = self.identities.of(name);
        peers
            .into_iter()
            .filter(|peer| *peer != own)
            .filter_map(|peer| self.requests.get(&peer))
            .collect()
    }

    /// The common names that have access to the broker of an instance, each with its requester.
    pub(super) fn names_with_access(
        &self,
        instance: &ObjectRef<VolttronInstance>,
    ) -> HashMap<CommonName, String> {
        let requests = self.requests_for(instance);
        let mut by_name = HashMap::<&str, Vec<Arc<VolttronCertRequest>>>::new();
        for request in &requests {
            let status = request.status.as_ref();
            if let Some(name) = status.and_then(|status| status.common_name.as_deref()) {
                by_name.entry(name).or_default().push(request.clone());
            }
        }
        let with_access = |(name, group): (&str, Vec<Arc<VolttronCertRequest>>)| {
            // A name that two requesters have got somehow is the first one's.
            let holder = with_access(&group).min_by_key(|request| request.creation_timestamp())?;
            Some((name.parse().ok()?, holder.spec.requester.clone()))
        };
        by_name.into_iter().filter_map(with_access).collect()
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
