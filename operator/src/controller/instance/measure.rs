//! The gauges of an instance.

use crate::controller::context::Context;
use crate::controller::metrics::{InPhase, OfInstance, OfInstances, PHASES};
use crate::pki::Authority;
use jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use std::borrow::Borrow;
use std::collections::HashMap;
use volttron_crds::{Phase, VolttronCertRequest, VolttronInstance};

/// Sets what is known of an instance now.
pub(super) fn measure(
    instance: &VolttronInstance,
    context: &Context,
    signing: Option<&Authority>,
    broker_ready: bool,
    now: Timestamp,
) {
    let labels = labels_of(instance);
    let reference = ObjectRef::from_obj(instance);
    let metrics = &context.metrics;
    let set = |gauges: &OfInstances, value: i64| {
        gauges.get_or_create(&labels).set(value);
    };
    let set_time = |gauges: &OfInstances, at: Option<Timestamp>| match at {
        Some(at) => set(gauges, at.as_second()),
        None => drop(gauges.remove(&labels)),
    };
    set(&metrics.broker_ready, i64::from(broker_ready));
    let authority = (&metrics.authority_not_before, &metrics.authority_not_after);
    set_time(authority.0, signing.map(Authority::not_before));
    set_time(authority.1, signing.map(Authority::not_after));
    let (number, enforced, revoked) = context.revocations.of(&reference, context).numbers();
    set(&metrics.list_number, number);
    set(&metrics.list_enforced, enforced);
    set(&metrics.revoked, whole(revoked));

    let requests = context.requests_for(&reference);
    let lives = Lives::of(&requests, now);
    set_time(&metrics.earliest_not_after, lives.earliest_end);
    set(&metrics.overdue, whole(lives.overdue));
    set(&metrics.expired, whole(lives.expired));
    set(
        &metrics.max_pending,
        instance.spec.requests.max_pending.into(),
    );
    for (phase, word) in PHASES {
        let requests = requests.iter();
        let in_phase = requests.filter(|request| request.phase() == Some(phase));
        metrics
            .requests
            .get_or_create(&InPhase::of(&labels, word))
            .set(whole(in_phase.count()));
    }
}

/// The labels of an instance.
pub(super) fn labels_of(instance: &VolttronInstance) -> OfInstance {
    OfInstance {
        vinst_namespace: instance.namespace().unwrap_or_default(),
        vinst: instance.name_any(),
    }
}

fn whole(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// How long the certificates of identities still last. One that was renewed has several, and the
/// best of them counts.
#[derive(Debug, PartialEq, Eq)]
struct Lives {
    /// When the first identity that has a valid certificate will be without one.
    earliest_end: Option<Timestamp>,
    /// How many have a valid certificate, and have used up half of the time for its renewal. A part
    /// of the life, since certificates may live for minutes or for years.
    overdue: usize,
    /// How many had a certificate, were not denied, and have no valid one.
    expired: usize,
}

/// Of one identity.
#[derive(Clone, Copy)]
struct Life {
    ends: Timestamp,
    /// When half of the time for renewing is over.
    overdue_at: Timestamp,
}

impl Lives {
    fn of(requests: &[impl Borrow<VolttronCertRequest>], now: Timestamp) -> Self {
        let mut identities = HashMap::<(&str, &str), Life>::new();
        for request in requests {
            let request: &VolttronCertRequest = request.borrow();
            if let Some((name, life)) = life_of(request) {
                let best = identities
                    .entry((name, &request.spec.requester))
                    .or_insert(life);
                best.ends = best.ends.max(life.ends);
                best.overdue_at = best.overdue_at.max(life.overdue_at);
            }
        }
        let (valid, expired): (Vec<Life>, Vec<Life>) =
            identities.values().partition(|life| life.ends > now);
        Self {
            earliest_end: valid.iter().map(|life| life.ends).min(),
            overdue: valid.iter().filter(|it| it.overdue_at <= now).count(),
            expired: expired.len(),
        }
    }
}

/// Common name and life of a certificate that is in force or has run out. The phase of one whose
/// identity was denied is another.
fn life_of(request: &VolttronCertRequest) -> Option<(&str, Life)> {
    let status = request.status.as_ref()?;
    if !matches!(status.phase, Some(Phase::Issued | Phase::Expired)) {
        return None;
    }
    // Requests that nobody decided on in time end as Expired, too.
    status.certificate.as_ref()?;
    let ends: Timestamp = status.not_after.as_deref()?.parse().ok()?;
    let renew_at = status.renew_at.as_deref().and_then(|it| it.parse().ok());
    let overdue_at = renew_at.map_or(ends, |renew_at: Timestamp| {
        let time = ends.duration_since(renew_at);
        renew_at.checked_add(time / 2).unwrap_or(ends)
    });
    Some((status.common_name.as_deref()?, Life { ends, overdue_at }))
}

#[cfg(test)]
mod tests;
