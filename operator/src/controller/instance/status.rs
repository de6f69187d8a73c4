//! The next status of an instance. Pure.

use super::authority::Found;
use super::generations::Generations;
use super::rotate::Rotation;
use super::{Fault, gate_fault};
use crate::controller::gate::{GateState, Stamping};
use crate::controller::runtime::Authorities;
use crate::controller::text::{MESSAGE, shortened};
use crate::pki::Authority;
use jiff::Timestamp;
use volttron_crds::{
    AuthorityStatus, AutoApproval, OtherAuthorityStatus, Phase, RequestCounts, VolttronInstance,
    VolttronInstanceStatus, set_condition,
};

/// The condition that tells of a rotation of the CA.
pub(super) const ROTATING: &str = "CertificateAuthorityRotating";
/// Its reason where a rotation has ended and nothing is amiss.
pub(super) const COMPLETED: &str = "Completed";

/// The condition that warns of an instance which approves everything.
const APPROVES_ALL: &str = "AutoApproval";
/// The condition that warns of decisions which carry no name, where they could.
const UNSIGNED: &str = "DecisionsUnsigned";
/// The conditions that are there only to warn.
pub(super) const WARNINGS: [&str; 2] = [APPROVES_ALL, UNSIGNED];

/// What was found.
#[derive(Clone, Copy)]
pub(super) struct Observed<'a> {
    pub(super) authorities: &'a Found,
    pub(super) rotation: &'a Rotation,
    pub(super) broker_fault: Option<&'a Fault>,
}

/// What was found of the admission policies.
#[derive(Clone, Copy)]
pub(super) struct Policies<'a> {
    pub(super) gate: &'a GateState,
    pub(super) stamping: &'a Stamping,
}

/// The status that says what was found.
pub(super) fn next(
    instance: &VolttronInstance,
    observed: Observed<'_>,
    policies: Policies<'_>,
    phases: impl Iterator<Item = Option<Phase>>,
    now: Timestamp,
) -> VolttronInstanceStatus {
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let generation = instance.metadata.generation;
    let mut status = instance.status.clone().unwrap_or_default();
    status.observed_generation = generation;
    status.amqp_address = Some(super::objects::amqp_address(instance));
    status.requests = Some(count(phases));
    if let Some(held) = &observed.authorities.held {
        status.ca = Some(authority_status(&held.generations, &held.authorities));
    }
    set_rotating(&mut status, observed.rotation, generation, now);
    set_approves_all(&mut status, instance, now);
    set_unsigned(&mut status, policies.stamping, generation, now);
    let mut set = |kind: &str, fault: Option<&Fault>, reason: &str, message: &str| {
        let (reason, message) = fault.map_or((reason, message), |fault| {
            (fault.reason, fault.message.as_str())
        });
        let message = shortened(message.to_owned(), MESSAGE);
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
    let (authority, broker) = (observed.authorities.fault.as_ref(), observed.broker_fault);
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
    let gate = gate_fault(policies.gate);
    set(
        "Ready",
        authority.or(broker).or(gate.as_ref()),
        "Ready",
        "approved requests are signed and the broker takes connections",
    );
    status
}

fn authority_status(generations: &Generations, authorities: &Authorities) -> AuthorityStatus {
    let signing = &authorities.signing;
    let other = |authority: &Authority, generation: i64| OtherAuthorityStatus {
        generation,
        not_after: authority.not_after().to_string(),
        sha256: authority.sha256().to_owned(),
    };
    let number = generations.number;
    let (next, previous) = (&authorities.next, &authorities.previous);
    AuthorityStatus {
        generation: number,
        not_after: signing.not_after().to_string(),
        sha256: signing.sha256().to_owned(),
        bundle: authorities.bundle().to_owned(),
        next: next.as_deref().map(|next| other(next, number + 1)),
        previous: previous.as_deref().map(|it| other(it, number - 1)),
        rotation_request: generations.honoured.clone(),
    }
}

fn set_approves_all(
    status: &mut VolttronInstanceStatus,
    instance: &VolttronInstance,
    now: Timestamp,
) {
    if instance.spec.approval.auto == AutoApproval::Always {
        let message = "spec.approval.auto is Always: whoever can file a request gets a certificate, \
                       and nobody looks at it; set it to Renewals to have administrators decide";
        let generation = instance.metadata.generation;
        set_condition(
            &mut status.conditions,
            APPROVES_ALL,
            true.into(),
            "EveryRequestIsApproved",
            message,
            generation,
            now,
        );
    } else {
        status.conditions.retain(|it| it.type_ != APPROVES_ALL);
    }
}

fn set_unsigned(
    status: &mut VolttronInstanceStatus,
    stamping: &Stamping,
    generation: Option<i64>,
    now: Timestamp,
) {
    match stamping {
        Stamping::Missing(what) => {
            let message = format!(
                "nobody writes down who decides on requests, although this API server can: {what}. \
                 (Where charts are rendered without a cluster, set stamping.enabled=true; to do \
                 without, false)"
            );
            set_condition(
                &mut status.conditions,
                UNSIGNED,
                true.into(),
                "StampingMissing",
                message.chars().take(1000).collect::<String>(),
                generation,
                now,
            );
        }
        Stamping::AsItCan => status.conditions.retain(|it| it.type_ != UNSIGNED),
        // What was found before holds until it is looked.
        Stamping::Unknown => {}
    }
}

/// The condition appears with the first rotation, or with what keeps one from beginning.
fn set_rotating(
    status: &mut VolttronInstanceStatus,
    rotation: &Rotation,
    generation: Option<i64>,
    now: Timestamp,
) {
    let known = status.conditions.iter().any(|it| it.type_ == ROTATING);
    let (holds, reason, message) = match rotation {
        Rotation::Under(progress) => (true, progress.reason, progress.message.clone()),
        Rotation::Resting(Some(fault)) => (false, fault.reason, fault.message.clone()),
        Rotation::Resting(None) if known => {
            let signing = status.ca.as_ref().map(|ca| ca.sha256.as_str());
            let signing = signing.unwrap_or("unknown");
            let message = format!("the CA with SHA-256 {signing} signs, and it alone is trusted");
            (false, COMPLETED, message)
        }
        // The step is told of when what it brought was found.
        Rotation::Resting(None) | Rotation::Stepped => return,
    };
    let conditions = &mut status.conditions;
    let message = shortened(message, MESSAGE);
    set_condition(
        conditions,
        ROTATING,
        holds.into(),
        reason,
        message,
        generation,
        now,
    );
}

fn count(phases: impl Iterator<Item = Option<Phase>>) -> RequestCounts {
    phases.fold(RequestCounts::default(), |mut counts, phase| {
        match phase {
            None | Some(Phase::Pending) => counts.pending += 1,
            Some(Phase::Approved) => counts.approved += 1,
            Some(Phase::Issued) => counts.issued += 1,
            Some(Phase::Denied) => counts.denied += 1,
            Some(Phase::Failed | Phase::Expired) => {}
        }
        counts
    })
}
