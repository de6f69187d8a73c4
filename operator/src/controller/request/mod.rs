//! The reconcile of a certificate request: survey, check, decide, apply, write status.
//!
//! The order of writes makes that a request is signed once, wherever the controller dies:
//! finalizer; status with the serial number that this request will have; broker user; Secret, by a
//! create that only one can win; status with the certificate. Each step finds what an earlier run
//! left and goes on from there.

mod apply;
mod end;
mod issue;
mod news;
mod secret;
mod status;
#[cfg(test)]
mod world_tests;

use super::context::{Context, instance_of};
use super::error::{Error, chain};
use super::events::full_name;
use super::identities::Name;
use super::metrics::Kind;
use super::runtime::InstanceRuntime;
use crate::approval::{self, Observed, Ruling, Standing, Step, Waiting, decide, lapses_at};
use crate::broker::{Awaited, MANAGEMENT_USER};
use crate::pki::{self, CheckedRequest, Origin, Rejection};
use apply::Patches;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
pub(super) use secret::{Publication, publication};
use status::Basis;
use std::sync::Arc;
use std::time::Duration;
use tracing::warn;
use volttron_crds::{
    AutoApproval, DecisionHow, Phase, RequestsSpec, VolttronCertRequest, VolttronInstance,
};

/// How soon a reconcile that met a newer object is run again.
const CONFLICT_RETRY: Duration = Duration::from_millis(200);
/// The longest sleep until something runs out; clocks may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_hours(6);
/// How soon a request looks whether the caches have been filled.
const FILL_RETRY: Duration = Duration::from_millis(100);
/// How soon a request looks whether its instance, which is being deleted, is gone.
const DELETION_RETRY: Duration = Duration::from_secs(2);
/// How soon a request looks again for what should be there by then without a watch telling.
const HOLD_RETRY: Duration = Duration::from_mins(1);

/// How long a broker may take before an approval is written down that waits for it.
const BROKER_PATIENCE: Duration = Duration::from_secs(5);

/// The smallest RSA key any instance accepts.
const LOWEST_RSA_BITS: i32 = 2048;

/// Brings one request a step further.
pub(super) async fn reconcile(
    request: Arc<VolttronCertRequest>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    // A controller that has just started would find that the instance does not exist, that there
    // are no others for the name, or that no namespace is allowed.
    if !context.is_filled() {
        return Ok(Action::requeue(FILL_RETRY));
    }
    let again = if request.metadata.deletion_timestamp.is_some() {
        end::forget(&request, &context).await?
    } else {
        match advance(&request, &context).await {
            Err(Error::AtBroker(answer)) => {
                tokio::spawn(go_on(
                    ObjectRef::from_obj(request.as_ref()),
                    answer,
                    context,
                ));
                return Ok(Action::requeue(HOLD_RETRY));
            }
            advanced => advanced?,
        }
    };
    context.succeeded(&full_name(request.as_ref()));
    context
        .metrics
        .counts
        .reconciled(Kind::VolttronCertRequest, None);
    Ok(again.map_or_else(Action::await_change, Action::requeue))
}

/// Tries again, later and later.
pub(super) fn on_error(
    request: Arc<VolttronCertRequest>,
    error: &Error,
    context: Arc<Context>,
) -> Action {
    Action::requeue(put_off(&full_name(request.as_ref()), error, &context))
}

/// How long to wait before the next try.
fn put_off(name: &str, error: &Error, context: &Context) -> Duration {
    context
        .metrics
        .counts
        .reconciled(Kind::VolttronCertRequest, Some(error.failing()));
    if matches!(error, Error::Conflict) {
        return CONFLICT_RETRY;
    }
    let delay = context.backoff(name);
    warn!(request = %name, error = chain(error).as_str(), ?delay, "reconcile failed; it is tried again");
    delay
}

/// Goes on with a request when its broker has answered. It holds no place meanwhile: many requests
/// go into one call of a broker, and one that hangs delays no others.
async fn go_on(request: ObjectRef<VolttronCertRequest>, answer: Awaited, context: Arc<Context>) {
    match answer.answer().await {
        Err(error) if !error.is_about_the_name() => {
            let namespace = request.namespace.as_deref().unwrap_or_default();
            let name = format!("{namespace}/{}", request.name);
            let delay = put_off(&name, &Error::Broker(error), &context);
            tokio::time::sleep(delay).await;
        }
        // The reconcile finds the answer.
        _ => {}
    }
    context.triggers.request(request);
}

/// What is known of a request when it is reconciled.
struct Survey {
    /// The instance, unless it is being deleted.
    instance: Option<Arc<VolttronInstance>>,
    runtime: Option<Arc<InstanceRuntime>>,
    obstacle: Option<Waiting>,
    checked: Result<CheckedRequest, Rejection>,
    /// What is asked for, where the instance cannot give it. It is shown all the same, and a denial
    /// of its identity holds.
    read: Option<CheckedRequest>,
    /// All other requests for the same instance and common name.
    peers: Vec<Arc<VolttronCertRequest>>,
    standing: Standing,
    now: Timestamp,
}

impl Survey {
    fn of(request: &VolttronCertRequest, context: &Context) -> Self {
        let instance = context.instances.get(&instance_of(request));
        let instance = instance.filter(|it| it.metadata.deletion_timestamp.is_none());
        let (runtime, obstacle) = context.survey(request);
        let checked = check(request, runtime.as_deref());
        let read = match &checked {
            Ok(_) => None,
            Err(_) => pki::check(&request.spec.request, LOWEST_RSA_BITS).ok(),
        };
        let peers = checked
            .as_ref()
            .ok()
            .or(read.as_ref())
            .map_or_else(Vec::new, |checked| {
                context.peers_of(request, &name_of(request, checked))
            });
        let auto = runtime
            .as_ref()
            .map_or(AutoApproval::Never, |runtime| runtime.approval.auto);
        let standing = approval::standing(request, &peers, auto);
        Self {
            instance,
            runtime,
            obstacle,
            checked,
            read,
            peers,
            standing,
            now: Timestamp::now(),
        }
    }

    fn basis<'a>(&'a self, request: &'a VolttronCertRequest) -> Basis<'a> {
        Basis {
            request,
            checked: self.checked.as_ref().ok().or(self.read.as_ref()),
            standing: &self.standing,
            now: self.now,
        }
    }

    fn requests(&self) -> RequestsSpec {
        self.instance
            .as_ref()
            .map(|instance| instance.spec.requests.clone())
            .unwrap_or_default()
    }

    /// Whether the instance is there and nothing is known of its CA and broker yet.
    fn is_early(&self) -> bool {
        self.instance.is_some() && self.runtime.is_none()
    }
}

/// Returns when to look again, if nothing happens before.
async fn advance(
    request: &VolttronCertRequest,
    context: &Context,
) -> Result<Option<Duration>, Error> {
    let survey = Survey::of(request, context);
    let waits = request.phase() == Some(Phase::Pending) && survey.standing.ruling.is_none();
    if survey.is_early() && survey.checked.is_ok() && waits {
        // What it waits for is told already. It is called when the instance is known.
        return Ok(None);
    }
    let again = take_step(request, &survey, context).await?;
    let Some(removable) = approval::removable_at(
        request,
        &survey.peers,
        context.superseded_grace,
        survey.requests().pending_life(),
    ) else {
        return Ok(again);
    };
    if removable <= survey.now {
        return end::retire(request, &survey, context).await;
    }
    let left = left_until(removable);
    Ok(Some(again.map_or(left, |again| again.min(left))))
}

async fn take_step(
    request: &VolttronCertRequest,
    survey: &Survey,
    context: &Context,
) -> Result<Option<Duration>, Error> {
    let (shut_out, crowded_out) = limits(request, survey, context);
    let requests = survey.requests();
    let step = decide(Observed {
        request,
        checked: &survey.checked,
        standing: &survey.standing,
        shut_out: shut_out.as_ref(),
        crowded_out: crowded_out.as_ref(),
        obstacle: survey.obstacle.as_ref(),
        pending_life: requests.pending_life(),
        now: survey.now,
    });
    if !matches!(step, Step::Issue(..) | Step::Hold(..)) {
        context.approvals.forget(request);
    }
    let patches = Patches::new(context, request);
    // Then it is removed, where nobody needs it; see `advance`.
    let kept = requests.pending_life().min(LONGEST_SLEEP);
    match step {
        Step::Fail(rejection) => {
            let next = status::failed(survey.basis(request), rejection);
            patches.status(request, next).await?;
            Ok(Some(kept))
        }
        Step::Pend(waiting) => {
            let request = patches.claim(request).await?;
            let next = status::pending(survey.basis(&request), waiting.as_ref());
            patches.status(&request, next).await?;
            let lapses = lapses_at(&request, requests.pending_life());
            let lapses = lapses.filter(|at| *at > survey.now).map(left_until);
            let retry = waiting.as_ref().map(retry_of);
            Ok([lapses, retry].into_iter().flatten().min())
        }
        Step::Lapse => {
            let next = status::lapsed(survey.basis(request), &requests.pending_ttl);
            patches.status(request, next).await?;
            Ok(Some(kept))
        }
        Step::Hold(ruling, waiting) => issue::hold(request, survey, &ruling, waiting, &patches)
            .await
            .map(Some),
        Step::Issue(ruling, checked) => {
            let issued = issue::issue(request, checked, &ruling, survey, &patches).await;
            if matches!(issued, Err(Error::AtBroker(_))) && is_fresh(request, context) {
                return issued.map(Some);
            }
            let recorded = record_approval(request, &ruling, survey, &patches).await;
            let again = issued?;
            recorded.map(|()| Some(again))
        }
        Step::Keep(checked) => {
            let next = status::kept(survey.basis(request));
            let request = patches.status(request, next).await?;
            issue::keep(&request, checked, survey, context).await
        }
        Step::Deny(ruling) => {
            let ended = end::deny(request, survey, context).await;
            let claimed;
            let mut request = request;
            if ruling.how == DecisionHow::Manual {
                // So that it cannot be deleted before it has reached the rest of its identity.
                claimed = patches.claim(request).await?;
                request = &claimed;
            }
            if survey.standing.denial_waits {
                let next = status::read(survey.basis(request));
                patches.status(request, next).await?;
                return ended.map(|_| Some(CONFLICT_RETRY));
            }
            let next = status::denied(survey.basis(request), &ruling, &ended);
            patches.status(request, next).await?;
            let stays = ruling.how == DecisionHow::Manual;
            ended.map(|_| (!stays).then_some(kept))
        }
        Step::Expire => {
            let released = end::release(request, survey, context).await;
            let basis = survey.basis(request);
            let next = if released.is_ok() || request.phase() == Some(Phase::Expired) {
                status::expired(basis)
            } else {
                status::kept(basis)
            };
            patches.status(request, next).await?;
            released.map(|()| Some(kept))
        }
    }
}

/// Whether a request has been approved just now, so that it need not be told that it waits.
fn is_fresh(request: &VolttronCertRequest, context: &Context) -> bool {
    request.phase() != Some(Phase::Issued)
        && context.approvals.since(request).elapsed() < BROKER_PATIENCE
}

/// Sees that an approval is recorded, however little of what follows from it could be done. When it
/// was made counts for the identity.
async fn record_approval(
    request: &VolttronCertRequest,
    ruling: &Ruling,
    survey: &Survey,
    patches: &Patches<'_>,
) -> Result<(), Error> {
    if patches.have_written() {
        return Ok(());
    }
    let basis = survey.basis(request);
    let next = if request.phase() == Some(Phase::Issued) {
        status::kept(basis)
    } else {
        status::unfinished(basis, ruling)
    };
    patches.status(request, next).await.map(drop)
}

/// What the instance's limits say to an undecided request. One that is decided gives its place up.
fn limits(
    request: &VolttronCertRequest,
    survey: &Survey,
    context: &Context,
) -> (Option<Waiting>, Option<Waiting>) {
    let reference = ObjectRef::from_obj(request);
    if survey.is_early() {
        // Whether it takes a place is not known before its instance is.
        return (None, survey.obstacle.clone());
    }
    if survey.instance.is_none() {
        return (None, None);
    }
    let instance = instance_of(request);
    let requests = survey.requests();
    let shut_out = context.namespaces.shut_out(
        &request.namespace().unwrap_or_default(),
        instance.namespace.as_deref().unwrap_or_default(),
        &instance.name,
        &requests.allowed_namespaces,
    );
    let waits = shut_out.is_none()
        && survey.checked.is_ok()
        && survey.standing.ruling.is_none()
        && request.phase() != Some(Phase::Issued)
        && lapses_at(request, requests.pending_life()).is_none_or(|at| at > survey.now);
    if !waits {
        context.room.leave(&reference, &context.triggers);
        let shut_out = shut_out.or_else(|| too_many(request, survey, context));
        return (shut_out, None);
    }
    let crowded_out = context
        .room
        .enter(request, &instance, &requests, &context.triggers);
    (shut_out, crowded_out)
}

/// Whether the identity has too many certificates for another one that no approver has asked for.
fn too_many(request: &VolttronCertRequest, survey: &Survey, context: &Context) -> Option<Waiting> {
    let ruling = survey.standing.ruling.as_ref()?;
    let is_asked_for = ruling.how == DecisionHow::Manual;
    // One that has passed may be signed already.
    let has_passed = matches!(request.phase(), Some(Phase::Approved | Phase::Issued));
    if !ruling.approved || is_asked_for || has_passed {
        return None;
    }
    let checked = survey.checked.as_ref().ok()?;
    let revocations = context.revocations.of(&instance_of(request), context);
    let name = checked.common_name.to_string();
    let live = |reference: &ObjectRef<VolttronCertRequest>| context.requests.get(reference);
    revocations
        .admit(request, &name, &survey.peers, live)
        .map(Waiting::Certificates)
}

/// Checks the signing request. A certificate that is out is not taken back because the instance
/// became stricter afterwards.
fn check(
    request: &VolttronCertRequest,
    runtime: Option<&InstanceRuntime>,
) -> Result<CheckedRequest, Rejection> {
    let encoded = &request.spec.request;
    let origin = if request.namespace() == Some(request.instance_namespace()) {
        Origin::OwnNamespace
    } else {
        Origin::OtherNamespace
    };
    match runtime {
        Some(runtime) if request.phase() == Some(Phase::Issued) => {
            let mut profile = runtime.profile.clone();
            profile.min_rsa_bits = LOWEST_RSA_BITS;
            pki::validate(encoded, &profile, origin)
        }
        Some(runtime) => pki::validate(encoded, &runtime.profile, origin),
        None => {
            let checked = pki::check(encoded, LOWEST_RSA_BITS)?;
            match checked.common_name.to_string() {
                name if name == MANAGEMENT_USER => Err(Rejection::Reserved(
                    name,
                    "it is an account of the operator",
                )),
                _ => Ok(checked),
            }
        }
    }
}

fn name_of(request: &VolttronCertRequest, checked: &CheckedRequest) -> Name {
    Name {
        instance: instance_of(request),
        common_name: checked.common_name.to_string(),
    }
}

/// When to look again at what a request waits for. That an instance is gone for good is told by no
/// watch of requests; all else is triggered, and this is for what a trigger has missed.
fn retry_of(waiting: &Waiting) -> Duration {
    match waiting {
        Waiting::InstanceDeleted(_) => DELETION_RETRY,
        _ => HOLD_RETRY,
    }
}

fn left_until(at: Timestamp) -> Duration {
    let left = at
        .duration_since(Timestamp::now())
        .max(SignedDuration::from_millis(100));
    Duration::try_from(left)
        .unwrap_or(LONGEST_SLEEP)
        .min(LONGEST_SLEEP)
}
