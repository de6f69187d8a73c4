//! Proves that the approval gate stands. An annotation can be written by whoever may patch the
//! object, so an approval means something only while the admission policy refuses what is not one.
//!
//! Two things make the proof: the policies are read and hold every rule they should, for every
//! object ([`guards`]); and the API server refuses what they forbid, as dry runs show ([`probe`]).
//! It is given at start, every few seconds, and whenever a policy or binding changes ([`changes`]).

mod changes;
mod guards;
mod probe;
mod served;
mod stamping;

use super::context::Context;
use super::error::chain;
use changes::{Change, Changes};
use kube::runtime::reflector::ObjectRef;
use probe::Prover;
pub(super) use stamping::{Stamping, watch as watch_stamping};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

/// How often the gate is proven while it stands, and while it does not.
const INTERVAL: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(2);
/// How long one proof may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long a proof holds when the next one cannot be had because the API server does not answer.
/// A policy that was seen to change or go is never waited for.
const PROOF_HOLDS: Duration = Duration::from_secs(30);

/// Whether the gate stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum GateState {
    /// Not tried yet.
    Unproven,
    /// The policies are as they should be and refuse a request created already decided. There is
    /// no request yet on which an undue decision could be tried: that comes with the first one.
    Untried,
    /// What a decision without the verb and a request created already decided meet is a refusal.
    Stands,
    /// It does not stand, or that cannot be told; the text says what to do.
    Down(String),
}

/// Proves the gate again and again, and has everything reconciled when it changes.
pub(super) async fn watch(context: Arc<Context>, stop: CancellationToken) {
    let mut changes = Changes::watch(&context.client, &stop);
    let mut prover = Prover::new(context.client.clone(), context.namespace.clone());
    // What is there is tried at once, rather than as the first request.
    let filled = context.requests_filled.wait();
    let _ = tokio::time::timeout(RETRY, filled).await;
    let mut last_proof = Instant::now();
    while !stop.is_cancelled() {
        changes.forget();
        let proof = prover.prove(&context.instances, &context.requests);
        let state = tokio::select! {
            () = stop.cancelled() => return,
            fault = changes.removal() => removed(&context, &fault),
            proof = tokio::time::timeout(PATIENCE, proof) => match proof {
                Ok(Ok(state)) => {
                    // It tells of policies that were changed meanwhile.
                    if changes.any() && !matches!(state, GateState::Down(_)) {
                        continue;
                    }
                    last_proof = Instant::now();
                    state
                }
                Ok(Err(error)) => unanswered(&context, last_proof, &chain(&error)),
                Err(_) => unanswered(&context, last_proof, &format!("no answer within {PATIENCE:?}")),
            },
        };
        let pause = match &state {
            GateState::Stands | GateState::Untried if last_proof.elapsed() < RETRY => INTERVAL,
            _ => RETRY,
        };
        debug!(?state, "the approval gate was tried");
        publish(&context, state);
        tokio::select! {
            () = stop.cancelled() => return,
            change = changes.next() => if let Change::Removed(fault) = change {
                publish(&context, removed(&context, &fault));
            },
            () = context.first_request.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// The state when something of the gate has just been removed, before all of it was looked at.
fn removed(context: &Context, what: &str) -> GateState {
    let restore = guards::upgrade(&[], &context.namespace);
    GateState::Down(format!("{what}. To restore it: `{restore}`"))
}

/// The state when the API server does not answer: what it was, for a while.
fn unanswered(context: &Context, last_proof: Instant, why: &str) -> GateState {
    let before = context.gate.borrow().clone();
    let stood = matches!(before, GateState::Stands | GateState::Untried);
    if stood && last_proof.elapsed() < PROOF_HOLDS {
        debug!(%why, "the approval gate could not be proven; the last proof holds for a while");
        return before;
    }
    GateState::Down(format!("it could not be proven: {why}"))
}

fn publish(context: &Context, state: GateState) {
    let stands = matches!(state, GateState::Stands | GateState::Untried);
    context.metrics.gate_stands.set(i64::from(stands));
    let before = context.gate.send_replace(state.clone());
    if before == state {
        return;
    }
    report(&before, &state);
    for instance in context.instances.state() {
        let reference = ObjectRef::from_obj(instance.as_ref());
        context.trigger_requests_of(&reference);
        context.triggers.instance(reference);
    }
}

fn report(before: &GateState, now: &GateState) {
    match (before, now) {
        (GateState::Down(_), GateState::Down(fault)) => {
            warn!(%fault, "the approval gate is still down");
        }
        (_, GateState::Down(fault)) => {
            error!(%fault, "the approval gate is down: nothing is signed until it stands");
        }
        (GateState::Down(_) | GateState::Unproven, GateState::Stands | GateState::Untried) => {
            info!(
                was_down = matches!(before, GateState::Down(_)),
                "the approval gate stands"
            );
        }
        _ => {}
    }
}
