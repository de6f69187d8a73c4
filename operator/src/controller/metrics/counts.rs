//! What is counted from the start of the process, whoever leads. Every series is there from the
//! first scrape on: `increase` does not see a series that begins with a 1.

use crate::controller::error::Failing;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use std::time::Duration;
use volttron_crds::DecisionHow;

/// A kind of object that is reconciled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(
    clippy::enum_variant_names,
    reason = "they are the names of the kinds in the API"
)]
pub(in crate::controller) enum Kind {
    VolttronInstance,
    VolttronCertRequest,
}

/// Labels of reconciles.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconciled {
    kind: Kind,
    /// `ok`, or the kind of error.
    result: &'static str,
}

/// Labels of decisions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Decided {
    /// `approved`, `denied` or `withdrawn`.
    decision: &'static str,
    /// `manual`, `renewal` or `policy`.
    how: &'static str,
}

impl Decided {
    fn of(word: Word, how: DecisionHow) -> Self {
        Self {
            decision: word.as_str(),
            how: self::how(how),
        }
    }
}

/// What was decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::controller) enum Word {
    Approved,
    Denied,
    /// An earlier decision was taken back.
    Withdrawn,
}

impl Word {
    /// The same in the log and in metrics.
    pub(in crate::controller) fn as_str(self) -> &'static str {
        match self {
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// The decisions there are; nobody is denied by renewal.
const DECISIONS: [(Word, DecisionHow); 6] = [
    (Word::Approved, DecisionHow::Manual),
    (Word::Approved, DecisionHow::Renewal),
    (Word::Approved, DecisionHow::Policy),
    (Word::Denied, DecisionHow::Manual),
    (Word::Denied, DecisionHow::Policy),
    (Word::Withdrawn, DecisionHow::Manual),
];

/// Upper bounds of the time from approval to certificate: from an idle cluster to a broker that was
/// away for minutes.
const ISSUANCE_SECONDS: [f64; 13] = [
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 300.0,
];

/// What is counted. Clones share it.
#[derive(Clone)]
pub(in crate::controller) struct Counts {
    reconciles: Family<Reconciled, Counter>,
    decisions: Family<Decided, Counter>,
    pub(in crate::controller) events_dropped: Counter,
    issued: Counter,
    issuance_seconds: Histogram,
}

impl Default for Counts {
    fn default() -> Self {
        let counts = Self {
            reconciles: Family::default(),
            decisions: Family::default(),
            events_dropped: Counter::default(),
            issued: Counter::default(),
            issuance_seconds: Histogram::new(ISSUANCE_SECONDS),
        };
        for kind in [Kind::VolttronInstance, Kind::VolttronCertRequest] {
            let failures = Failing::ALL.map(Failing::as_str);
            for result in failures.into_iter().chain([OK]) {
                drop(
                    counts
                        .reconciles
                        .get_or_create(&Reconciled { kind, result }),
                );
            }
        }
        for (word, how) in DECISIONS {
            drop(counts.decisions.get_or_create(&Decided::of(word, how)));
        }
        counts
    }
}

/// The result of a reconcile that did not fail.
const OK: &str = "ok";

impl Counts {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "reconciles",
            "Reconciles, by kind and result",
            self.reconciles.clone(),
        );
        registry.register(
            "decisions",
            "Decisions, by how they came about",
            self.decisions.clone(),
        );
        registry.register(
            "events_dropped",
            "Events that were not published, because too many waited or the API server took none",
            self.events_dropped.clone(),
        );
        registry.register(
            "certificates_issued",
            "Certificates that were signed and recorded in their request's status",
            self.issued.clone(),
        );
        registry.register_with_unit(
            "issuance_duration",
            "From when this replica first saw a request approved until its certificate was in its status, queues, waits and failed attempts included",
            Unit::Seconds,
            self.issuance_seconds.clone(),
        );
    }

    /// Counts a reconcile.
    pub(in crate::controller) fn reconciled(&self, kind: Kind, failing: Option<Failing>) {
        let result = failing.map_or(OK, Failing::as_str);
        let labels = Reconciled { kind, result };
        self.reconciles.get_or_create(&labels).inc();
    }

    /// Counts a decision.
    pub(in crate::controller) fn decided(&self, word: Word, how: DecisionHow) {
        self.decisions.get_or_create(&Decided::of(word, how)).inc();
    }

    /// Counts a certificate that took so long.
    pub(in crate::controller) fn issued(&self, elapsed: Duration) {
        self.issued.inc();
        self.issuance_seconds.observe(elapsed.as_secs_f64());
    }
}

/// How a decision came about, the same in the log and in metrics.
pub(in crate::controller) fn how(how: DecisionHow) -> &'static str {
    match how {
        DecisionHow::Manual => "manual",
        DecisionHow::Renewal => "renewal",
        DecisionHow::Policy => "policy",
    }
}
