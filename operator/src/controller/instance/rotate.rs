//! Replaces the certificate authority of an instance: observes, has [`rotation`] decide, and writes.

use super::Fault;
use super::authority::{self, CLOCK_UNCERTAIN, Held, rotation_request};
use super::generations::{CaPair, Generations, Origin};
use super::objects;
use super::rotation::{LATER, Observed, Progress, Step, Wanted, plan};
use crate::broker::{ClientPair, Probe, probe};
use crate::controller::clock::{self, Uncertain};
use crate::controller::context::Context;
use crate::controller::error::Error;
use crate::controller::events::full_name;
use crate::controller::request::{Publication, publication};
use crate::controller::runtime::Authorities;
use crate::pki::{self, Authority, SerialNumber};
use jiff::Timestamp;
use kube::runtime::reflector::ObjectRef;
use tracing::info;
use volttron_crds::{InstanceName, Phase, VolttronCertRequest, VolttronInstance};

/// What came of a look at the authorities.
pub(super) enum Rotation {
    /// None goes on; perhaps there is something to be said.
    Resting(Option<Fault>),
    /// One goes on.
    Under(Progress),
    /// A step was taken; what it needs is done by the next reconcile.
    Stepped,
}

/// Takes the next step of a rotation, if one is to be taken.
pub(super) async fn advance(
    instance: &VolttronInstance,
    instance_name: &InstanceName,
    held: &Held,
    context: &Context,
    now: Timestamp,
) -> Result<Rotation, Error> {
    let generations = &held.generations;
    let (next, previous) = (&held.authorities.next, &held.authorities.previous);
    let requests = context.requests_for(&ObjectRef::from_obj(instance));
    let in_force = || {
        let requests = requests.iter().map(AsRef::as_ref);
        requests.filter(|request| is_in_force(request, now))
    };
    let bundle = held.authorities.bundle();
    let (mut unpublished, mut hindered) = (Vec::new(), Vec::new());
    for request in in_force().filter(|_| next.is_some()) {
        match publication(request, bundle, context) {
            Publication::Due if request.phase() == Some(Phase::Issued) => {
                unpublished.push(full_name(request));
            }
            // Nothing is written for one that is recorded as expired.
            Publication::Done | Publication::Due => {}
            Publication::Hindered(why) => hindered.push(format!("{}: {why}", full_name(request))),
        }
    }
    let mut holders: Vec<_> = previous
        .iter()
        .flat_map(|previous| {
            in_force().filter(|request| needs(request, previous, &held.authorities.signing))
        })
        .map(full_name)
        .collect();
    for names in [&mut unpublished, &mut hindered, &mut holders] {
        names.sort();
    }
    let broker = proof(instance, &held.authorities, now).await?;
    let observed = Observed {
        generations,
        authorities: &held.authorities,
        wanted: &held.wanted,
        request: rotation_request(instance),
        unpublished: &unpublished,
        hindered: &hindered,
        holders: &holders,
        broker: &broker,
        settle: context.trust_settle,
    };
    let step = plan(&observed, now);
    if !matches!(step, Step::Rest(_) | Step::Wait(_))
        && let Err(why) = clock::certain(&context.client).await
    {
        return Ok(without_clock(generations, &why));
    }
    let then = match &step {
        Step::Rest(fault) => return Ok(Rotation::Resting(fault.clone())),
        Step::Wait(progress) => return Ok(Rotation::Under(progress.clone())),
        Step::Introduce => introduce(instance, instance_name, held, now).await?,
        Step::Withdraw => generations.clone().withdraw(),
        Step::Settle => generations.clone().settle(now),
        Step::Activate => generations.clone().activate(),
        Step::Retire => generations.clone().retire(),
        Step::Renew => match &held.wanted {
            Wanted::Brought(pair, _) => generations.clone().renew(pair.clone()),
            Wanted::Generated | Wanted::Faulty(_) => return Ok(Rotation::Resting(None)),
        },
    };
    held.write(instance, &then, context).await?;
    info!(
        instance = %full_name(instance), ?step, generation = then.number,
        signing = held.authorities.signing.sha256(), "CA rotation"
    );
    Ok(Rotation::Stepped)
}

/// No step is taken by a clock that may be wrong: to one that runs ahead certificates look expired,
/// and what is made by it is not valid yet for everybody else.
fn without_clock(generations: &Generations, why: &Uncertain) -> Rotation {
    let message = format!("the next step waits: {why}");
    if generations.next.is_none() && generations.previous.is_none() {
        return Rotation::Resting(Some(Fault::new(CLOCK_UNCERTAIN, message)));
    }
    Rotation::Under(Progress {
        reason: CLOCK_UNCERTAIN,
        message,
        again: LATER,
    })
}

async fn introduce(
    instance: &VolttronInstance,
    instance_name: &InstanceName,
    held: &Held,
    now: Timestamp,
) -> Result<Generations, Error> {
    let generations = held.generations.clone();
    let signing = &held.authorities.signing;
    let load = |pair: &CaPair| {
        let loaded = pair.load(now);
        loaded.map_err(|_| Error::Incomplete("the CA that was made"))
    };
    let mut number = generations.number + 1;
    let mut next = match &held.wanted {
        Wanted::Brought(pair, _) => pair.clone(),
        Wanted::Generated | Wanted::Faulty(_) => {
            authority::generate(instance, instance_name, number, now).await?
        }
    };
    let mut loaded = load(&next)?;
    // A CA that was exported from another life of the instance may be called so already.
    while next.origin == Origin::Generated && loaded.is_namesake_of(signing) {
        number += 1;
        next = authority::generate(instance, instance_name, number, now).await?;
        loaded = load(&next)?;
    }
    let cross = pki::cross_sign(signing, &loaded, now)?.unwrap_or_default();
    Ok(generations.introduce(next, cross, rotation_request(instance)))
}

/// Proves, while a CA is being replaced, that the broker is ready for the next step: that it trusts
/// the CA that is introduced; or that it shows a certificate of the one that signs by now. It is
/// asked over TLS, because files that were written say only what it should do.
async fn proof(
    instance: &VolttronInstance,
    authorities: &Authorities,
    now: Timestamp,
) -> Result<Result<(), String>, Error> {
    let Authorities {
        signing,
        next,
        previous,
    } = authorities;
    if next.is_none() && previous.is_none() {
        return Ok(Ok(()));
    }
    let client = next.as_ref().unwrap_or(signing);
    let pair = pki::issue_probe_pair(client, &SerialNumber::random(), now)?;
    let pair = ClientPair {
        chain: &pair.chain,
        key: &pair.key,
    };
    let (address, name) = objects::amqp_endpoint(instance);
    let answer = probe(&address, &name, authorities.bundle(), Some(pair)).await;
    Ok(match answer {
        Probe::Accepted { server_chain } => match previous {
            Some(previous) if !follows(&server_chain, signing, previous) => Err(
                "it still shows the old one; RabbitMQ looks for changed files every two minutes"
                    .to_owned(),
            ),
            _ => Ok(()),
        },
        other => Err(format!(
            "a client with a certificate of the new CA: {other}"
        )),
    })
}

/// Whether what a broker shows is by `signing`, and good without `previous`.
fn follows(chain: &[Vec<u8>], signing: &Authority, previous: &Authority) -> bool {
    let shown = chain.first();
    shown.is_some_and(|shown| signing.issued_der(shown)) && !previous.is_needed_for(chain, signing)
}

/// Whether a request has a certificate that somebody may use. One that is recorded as expired and
/// has not was so by a clock that ran ahead, and comes back.
fn is_in_force(request: &VolttronCertRequest, now: Timestamp) -> bool {
    let Some(status) = (request.status.as_ref()).filter(|status| status.certificate.is_some())
    else {
        return false;
    };
    let ends = status.not_after.as_deref();
    let ends = ends.and_then(|ends| ends.parse::<Timestamp>().ok());
    matches!(status.phase, Some(Phase::Issued | Phase::Expired))
        && request.metadata.deletion_timestamp.is_none()
        && ends.is_none_or(|ends| ends > now)
}

/// Whether the certificate of a request is accepted only as long as `previous` is trusted.
fn needs(request: &VolttronCertRequest, previous: &Authority, signing: &Authority) -> bool {
    let status = request.status.as_ref();
    let chain = status.and_then(|status| status.certificate.as_deref());
    let blocks = chain.and_then(|chain| pem::parse_many(chain).ok());
    blocks.is_some_and(|blocks| {
        let chain: Vec<_> = blocks.iter().map(pem::Pem::contents).collect();
        previous.is_needed_for(&chain, signing)
    })
}
