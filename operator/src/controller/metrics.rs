//! Metrics in the conventions of Prometheus. No label value comes from outside input other than
//! names that Kubernetes has validated. No label is called `instance` or `namespace`: those are
//! Prometheus' own, for the target it scraped.

mod counts;

pub(super) use counts::{Counts, Kind, Word, how};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use volttron_crds::Phase;

/// Labels of what belongs to an instance.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct OfInstance {
    /// Namespace of the instance.
    pub(super) vinst_namespace: String,
    /// Name of the instance, as `kubectl get vinst` shows it.
    pub(super) vinst: String,
}

/// Labels of the count of requests.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct InPhase {
    /// Namespace of the instance.
    vinst_namespace: String,
    /// Name of the instance.
    vinst: String,
    /// The phase, as in status.
    phase: &'static str,
}

impl InPhase {
    /// Of the requests of an instance, those in a phase.
    pub(super) fn of(labels: &OfInstance, phase: &'static str) -> Self {
        Self {
            vinst_namespace: labels.vinst_namespace.clone(),
            vinst: labels.vinst.clone(),
            phase,
        }
    }
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

/// A gauge of each instance.
pub(super) type OfInstances = Family<OfInstance, Gauge>;

/// All metrics of a replica that leads: gauges of the term, and what the process counts.
pub(super) struct Metrics {
    registry: Registry,
    pub(super) counts: Counts,
    pub(super) gate_stands: Gauge,
    pub(super) stamping_missing: Gauge,
    pub(super) broker_ready: OfInstances,
    pub(super) authority_not_before: OfInstances,
    pub(super) authority_not_after: OfInstances,
    pub(super) rotating: OfInstances,
    pub(super) requests: Family<InPhase, Gauge>,
    pub(super) max_pending: OfInstances,
    pub(super) earliest_not_after: OfInstances,
    pub(super) overdue: OfInstances,
    pub(super) expired: OfInstances,
    pub(super) revoked: OfInstances,
    pub(super) list_number: OfInstances,
    pub(super) list_enforced: OfInstances,
}

impl Metrics {
    /// Those of a term that begins.
    pub(super) fn new(counts: Counts) -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("volttron"),
            counts,
            gate_stands: Gauge::default(),
            stamping_missing: Gauge::default(),
            broker_ready: Family::default(),
            authority_not_before: Family::default(),
            authority_not_after: Family::default(),
            rotating: Family::default(),
            requests: Family::default(),
            max_pending: Family::default(),
            earliest_not_after: Family::default(),
            overdue: Family::default(),
            expired: Family::default(),
            revoked: Family::default(),
            list_number: Family::default(),
            list_enforced: Family::default(),
        };
        metrics.register();
        metrics
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        register_leader(registry, true);
        self.counts.register(registry);
        registry.register(
            "approval_gate_standing",
            "1 while the admission policies and their bindings are proven to refuse undue approvals, 0 also before the first proof; nothing is signed while it is 0",
            self.gate_stands.clone(),
        );
        registry.register(
            "stamping_missing",
            "1 while the API server could write down who decides, and does not",
            self.stamping_missing.clone(),
        );
        registry.register(
            "requests",
            "Certificate requests, by instance and phase",
            self.requests.clone(),
        );
        let of_instances = [
            (
                "requests_max_pending",
                "How many requests may wait for a decision at once",
                &self.max_pending,
            ),
            (
                "broker_ready",
                "1 while the broker of the instance can be managed",
                &self.broker_ready,
            ),
            (
                "ca_not_before_timestamp_seconds",
                "Start of the life of the CA certificate that signs, in seconds since 1970",
                &self.authority_not_before,
            ),
            (
                "ca_not_after_timestamp_seconds",
                "End of the life of the CA certificate that signs, in seconds since 1970",
                &self.authority_not_after,
            ),
            (
                "ca_rotating",
                "1 while the CA is being replaced",
                &self.rotating,
            ),
            (
                "certificate_earliest_not_after_timestamp_seconds",
                "When the first identity that has a valid certificate will be without one, in seconds since 1970",
                &self.earliest_not_after,
            ),
            (
                "identities_renewal_overdue",
                "Identities that have used up half of the time that they have for renewing",
                &self.overdue,
            ),
            (
                "identities_expired",
                "Identities whose certificate ran out without renewal",
                &self.expired,
            ),
            (
                "revoked_certificates",
                "Certificates on the revocation list",
                &self.revoked,
            ),
            (
                "revocation_list_number",
                "Number of the last revocation list that was signed",
                &self.list_number,
            ),
            (
                "revocation_list_enforced_number",
                "Number of the last revocation list that the broker was seen to enforce",
                &self.list_enforced,
            ),
        ];
        for (name, help, gauges) in of_instances {
            registry.register(name, help, gauges.clone());
        }
    }

    /// The text of `/metrics` (OpenMetrics 1.0).
    pub(super) fn encode(&self) -> String {
        encode(&self.registry)
    }

    /// Forgets an instance that is gone.
    pub(super) fn forget(&self, labels: &OfInstance) {
        for gauges in [
            &self.broker_ready,
            &self.authority_not_before,
            &self.authority_not_after,
            &self.rotating,
            &self.max_pending,
            &self.earliest_not_after,
            &self.overdue,
            &self.expired,
            &self.revoked,
            &self.list_number,
            &self.list_enforced,
        ] {
            gauges.remove(labels);
        }
        for (_, phase) in PHASES {
            self.requests.remove(&InPhase::of(labels, phase));
        }
    }
}

/// The text of `/metrics` while another replica leads. Gauges are left out: nobody should be alarmed
/// by a gate that a standby does not watch. What is counted is there, so that it is known to have
/// been 0 when this replica takes the lead.
pub(super) fn of_a_standby(counts: &Counts) -> String {
    let mut registry = Registry::with_prefix("volttron");
    register_leader(&mut registry, false);
    counts.register(&mut registry);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::error::Failing;
    use std::time::Duration;
    use volttron_crds::DecisionHow;

    #[test]
    fn what_is_counted_begins_at_0_and_a_standby_shows_it_too() {
        let counts = Counts::default();
        let texts = [of_a_standby(&counts), Metrics::new(counts.clone()).encode()];
        for text in texts {
            let counted: Vec<&str> = text
                .lines()
                .filter(|line| {
                    let is_sample = !line.starts_with('#');
                    is_sample && (line.contains("_total") || line.contains("_duration_"))
                })
                .collect();
            // Two kinds with each result, six decisions, Events that were dropped, certificates, and
            // the histogram.
            let failures = 2 * (Failing::ALL.len() + 1);
            assert_eq!(counted.len(), failures + 6 + 1 + 1 + 13 + 3, "{counted:#?}");
            for line in counted {
                assert!(line.ends_with(" 0") || line.ends_with(" 0.0"), "{line}");
            }
        }
    }

    #[test]
    fn each_is_counted_in_a_series_that_was_there_before() {
        let counts = Counts::default();
        let lines = |counts: &Counts| of_a_standby(counts).lines().count();
        let before = lines(&counts);
        for kind in [Kind::VolttronInstance, Kind::VolttronCertRequest] {
            counts.reconciled(kind, None);
            for failing in Failing::ALL {
                counts.reconciled(kind, Some(failing));
            }
        }
        for how in [DecisionHow::Manual, DecisionHow::Policy] {
            counts.decided(Word::Denied, how);
            counts.decided(Word::Approved, how);
        }
        counts.decided(Word::Approved, DecisionHow::Renewal);
        counts.decided(Word::Withdrawn, DecisionHow::Manual);
        counts.issued(Duration::from_secs(200));
        assert_eq!(lines(&counts), before);
        let text = of_a_standby(&counts);
        for line in [
            "volttron_decisions_total{decision=\"approved\",how=\"renewal\"} 1",
            "volttron_reconciles_total{kind=\"VolttronInstance\",result=\"ok\"} 1",
            "volttron_issuance_duration_seconds_bucket{le=\"120.0\"} 0",
            "volttron_issuance_duration_seconds_bucket{le=\"300.0\"} 1",
        ] {
            assert!(text.lines().any(|it| it == line), "no {line} in {text}");
        }
    }

    #[test]
    fn a_standby_shows_no_gauge_but_that_it_stands_by() {
        let text = of_a_standby(&Counts::default());
        let gauges: Vec<&str> = text.lines().filter(|it| it.ends_with(" gauge")).collect();
        assert_eq!(gauges, ["# TYPE volttron_leader gauge"]);
        assert!(text.contains("\nvolttron_leader 0\n"), "{text}");
    }
}
