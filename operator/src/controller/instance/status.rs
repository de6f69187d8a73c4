//! The next status of an instance. Pure.

use super::{Fault, gate_fault};
use crate::controller::gate::GateState;
use crate::pki::Authority;
use jiff::Timestamp;
use volttron_crds::{
    AuthorityStatus, Phase, RequestCounts, VolttronInstance, VolttronInstanceStatus, set_condition,
};

/// What was found.
#[derive(Clone, Copy)]
pub(super) struct Observed<'a> {
    pub(super) authority: Result<&'a Authority, &'a Fault>,
    pub(super) broker_fault: Option<&'a Fault>,
}

/// The status that says what was found.
pub(super) fn next(
    instance: &VolttronInstance,
    observed: Observed<'_>,
    gate: &GateState,
    phases: impl Iterator<Item = Option<Phase>>,
    now: Timestamp,
) -> VolttronInstanceStatus {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let generation = instance.metadata.generation;
    let mut status = instance.status.clone().unwrap_or_default();
    status.observed_generation = generation;
    status.amqp_address = Some(super::objects::amqp_address(instance));
    status.requests = Some(count(phases));
    if let Ok(authority) = observed.authority {
        let known = status.ca.as_ref();
        status.ca = Some(AuthorityStatus {
            generation: match known {
                Some(known) if known.sha256 == authority.sha256() => known.generation,
                Some(known) => known.generation + 1,
                None => 1,
            },
            not_after: authority.not_after().to_string(),
            sha256: authority.sha256().to_owned(),
            bundle: authority.bundle().to_owned(),
        });
    }
    let mut set = |kind: &str, fault: Option<&Fault>, reason: &str, message: &str| {
        let (reason, message) = fault.map_or((reason, message), |fault| {
            (fault.reason, fault.message.as_str())
        });
        let message: String = message.chars().take(1000).collect();
        let conditions = &mut status.conditions;
        set_condition(
            conditions,
            kind,
            fault.is_none().into(),
            reason,
            message,
            generation,
            now,
        );
    };
    let (authority, broker) = (observed.authority.err(), observed.broker_fault);
    set(
        "CertificateAuthorityReady",
        authority,
        "Loaded",
        "the CA can sign",
    );
    set(
        "BrokerReady",
        broker,
        "Reachable",
        "the broker is reachable and set up",
    );
    let gate = gate_fault(gate);
    set(
        "Ready",
        authority.or(broker).or(gate.as_ref()),
        "Ready",
        "approved requests are signed and the broker takes connections",
    );
    status
}

fn count(phases: impl Iterator<Item = Option<Phase>>) -> RequestCounts {
    phases.fold(RequestCounts::default(), |mut counts, phase| {
        match phase {
            None | Some(Phase::Pending | Phase::Approved) => counts.pending += 1,
            Some(Phase::Issued) => counts.issued += 1,
            Some(Phase::Denied) => counts.denied += 1,
            Some(Phase::Failed | Phase::Expired) => {}
        }
        counts
    })
}
