//! Metrics in the conventions of Prometheus. No label value comes from outside input other than
//! names that Kubernetes has validated.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use volttron_crds::Phase;

/// Labels of reconciles.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Reconciled {
    /// `VolttronInstance` or `VolttronCertRequest`.
    pub(super) kind: &'static str,
    /// `ok`, or the kind of error.
    pub(super) result: &'static str,
}

/// Labels of what is counted for an instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfInstance {
    /// Namespace of the instance.
    pub(super) namespace: String,
    /// Name of the instance.
    pub(super) instance: String,
}

/// Labels of the count of requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct InPhase {
    /// Namespace of the instance.
    pub(super) namespace: String,
    /// Name of the instance.
    pub(super) instance: String,
    /// The phase, as in status.
    pub(super) phase: &'static str,
}

/// The phases, as their label has them.
pub(super) const PHASES: [(Phase, &str); 6] = [
    (Phase::Pending, "Pending"),
    (Phase::Approved, "Approved"),
    (Phase::Issued, "Issued"),
    (Phase::Denied, "Denied"),
    (Phase::Failed, "Failed"),
    (Phase::Expired, "Expired"),
];

/// Labels of decisions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Decided {
    /// `approved` or `denied`.
    pub(super) decision: &'static str,
    /// `manual`, `renewal` or `policy`.
    pub(super) how: &'static str,
}

/// All metrics of a replica that leads, for one term.
pub(super) struct Metrics {
    registry: Registry,
    pub(super) reconciles: Family<Reconciled, Counter>,
    decisions: Family<Decided, Counter>,
    pub(super) issued: Counter,
    pub(super) issuance_seconds: Histogram,
    pub(super) gate_stands: Gauge,
    pub(super) stamping_missing: Gauge,
    pub(super) broker_ready: Family<OfInstance, Gauge>,
    pub(super) authority_not_after: Family<OfInstance, Gauge>,
    pub(super) requests: Family<InPhase, Gauge>,
    pub(super) earliest_not_after: Family<OfInstance, Gauge>,
    pub(super) revoked: Family<OfInstance, Gauge>,
    pub(super) list_number: Family<OfInstance, Gauge>,
    pub(super) list_enforced: Family<OfInstance, Gauge>,
    pub(super) rotating: Family<OfInstance, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("volttron"),
            reconciles: Family::default(),
            decisions: Family::default(),
            issued: Counter::default(),
            issuance_seconds: Histogram::new([
                0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
            ]),
            gate_stands: Gauge::default(),
            stamping_missing: Gauge::default(),
            broker_ready: Family::default(),
            authority_not_after: Family::default(),
            requests: Family::default(),
            earliest_not_after: Family::default(),
            revoked: Family::default(),
            list_number: Family::default(),
            list_enforced: Family::default(),
            rotating: Family::default(),
        };
        let registry = &mut metrics.registry;
        register_leader(registry, true);
        registry.register(
            "reconciles",
            "Reconciles, by kind and result",
            metrics.reconciles.clone(),
        );
        registry.register(
            "decisions",
            "Decisions that took effect, by how they came about",
            metrics.decisions.clone(),
        );
        registry.register(
            "certificates_issued",
            "Certificates signed",
            metrics.issued.clone(),
        );
        registry.register_with_unit(
            "issuance_duration",
            "From the start of the reconcile of an approved request to its status",
            Unit::Seconds,
            metrics.issuance_seconds.clone(),
        );
        registry.register(
            "approval_gate_standing",
            "1 while the admission policy is proven to refuse undue approvals; nothing is signed otherwise",
            metrics.gate_stands.clone(),
        );
        registry.register(
            "stamping_missing",
            "1 while the API server could write down who decides, and does not",
            metrics.stamping_missing.clone(),
        );
        registry.register(
            "broker_ready",
            "1 while the broker of the instance can be managed",
            metrics.broker_ready.clone(),
        );
        registry.register(
            "ca_not_after_timestamp_seconds",
            "End of the CA certificate's life, in seconds since 1970",
            metrics.authority_not_after.clone(),
        );
        registry.register(
            "ca_rotating",
            "1 while the CA is being replaced",
            metrics.rotating.clone(),
        );
        registry.register(
            "requests",
            "Certificate requests, by instance and phase",
            metrics.requests.clone(),
        );
        registry.register(
            "certificate_earliest_not_after_timestamp_seconds",
            "When the first agent will be without a valid certificate, in seconds since 1970",
            metrics.earliest_not_after.clone(),
        );
        registry.register(
            "revoked_certificates",
            "Certificates on the revocation list",
            metrics.revoked.clone(),
        );
        registry.register(
            "revocation_list_number",
            "Number of the last revocation list that was signed",
            metrics.list_number.clone(),
        );
        registry.register(
            "revocation_list_enforced_number",
            "Number of the last revocation list that the broker was seen to enforce",
            metrics.list_enforced.clone(),
        );
        metrics
    }
}

/// The text of `/metrics` while another replica leads. The others are left out: nobody should be
/// alarmed by a gate that a standby does not watch.
pub(super) fn of_a_standby() -> String {
    let mut registry = Registry::with_prefix("volttron");
    register_leader(&mut registry, false);
    encode(&registry)
}

fn register_leader(registry: &mut Registry, leads: bool) {
    let leader: Gauge = Gauge::default();
    leader.set(leads.into());
    let help = "1 while this replica leads, 0 while it stands by";
    registry.register("leader", help, leader);
}

fn encode(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = prometheus_client::encoding::text::encode(&mut text, registry);
    text
}

impl Metrics {
    /// The text of `/metrics` (OpenMetrics 1.0).
    pub(super) fn encode(&self) -> String {
        encode(&self.registry)
    }

    /// Forgets an instance that is gone.
    pub(super) fn forget(&self, labels: &OfInstance) {
        for gauges in [
            &self.broker_ready,
            &self.authority_not_after,
            &self.earliest_not_after,
            &self.revoked,
            &self.list_number,
            &self.list_enforced,
            &self.rotating,
        ] {
            gauges.remove(labels);
        }
        for (_, phase) in PHASES {
            self.requests.remove(&InPhase {
                namespace: labels.namespace.clone(),
                instance: labels.instance.clone(),
                phase,
            });
        }
    }

    /// Counts a decision.
    pub(super) fn decided(&self, decision: &'static str, how: &'static str) {
        self.decisions
            .get_or_create(&Decided { decision, how })
            .inc();
    }

    /// Counts a reconcile.
    pub(super) fn reconciled(&self, kind: &'static str, result: &'static str) {
        self.reconciles
            .get_or_create(&Reconciled { kind, result })
            .inc();
    }
}
