//! The reconcile of a certificate request: survey, check, decide, apply, write status.
//!
//! The order of writes makes that a request is signed once, wherever the controller dies:
//! finalizer; status with the serial number that this request will have; broker user; Secret, by a
//! create that only one can win; status with the certificate. Each step finds what an earlier run
//! left and goes on from there.

mod apply;
mod secret;
mod status;

use super::context::{Context, instance_of};
use super::error::{Error, chain};
use super::events::full_name;
use super::runtime::InstanceRuntime;
use crate::approval::{Observed, Step, Waiting, decide};
use crate::broker::MANAGEMENT_USER;
use crate::pki::{self, CheckedRequest, LeafProfile, Rejection, SerialNumber};
use apply::Patches;
use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::controller::Action;
pub(super) use secret::is_published;
use std::sync::Arc;
use std::time::Duration;
use tracing::{info, warn};
use volttron_crds::{Phase, VolttronCertRequest, well_known};

/// How soon a reconcile that met a newer object is run again.
const CONFLICT_RETRY: Duration = Duration::from_millis(200);
/// The longest sleep until a certificate runs out; clocks may be set meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_hours(6);
/// How soon a request looks whether its instance, which is being deleted, is gone.
const DELETION_RETRY: Duration = Duration::from_secs(2);
/// How soon a request looks again for what should be there by then without a watch telling.
const HOLD_RETRY: Duration = Duration::from_mins(1);

/// The smallest RSA key any instance accepts.
const LOWEST_RSA_BITS: i32 = 2048;

/// Brings one request a step further.
pub(super) async fn reconcile(
    request: Arc<VolttronCertRequest>,
    context: Arc<Context>,
) -> Result<Action, Error> {
    let action = if request.metadata.deletion_timestamp.is_some() {
        forget(&request, &context).await?
    } else {
        advance(&request, &context).await?
    };
    context.succeeded(&full_name(request.as_ref()));
    context.metrics.reconciled("VolttronCertRequest", "ok");
    Ok(action)
}

/// Tries again, later and later.
pub(super) fn on_error(
    request: Arc<VolttronCertRequest>,
    error: &Error,
    context: Arc<Context>,
) -> Action {
    context
        .metrics
        .reconciled("VolttronCertRequest", error.label());
    if matches!(error, Error::Conflict) {
        return Action::requeue(CONFLICT_RETRY);
    }
    let name = full_name(request.as_ref());
    let delay = context.backoff(&name);
    warn!(request = %name, error = %chain(error), ?delay, "reconcile failed; it is tried again");
    Action::requeue(delay)
}

async fn advance(request: &VolttronCertRequest, context: &Context) -> Result<Action, Error> {
    let now = Timestamp::now();
    let (runtime, obstacle) = context.survey(request);
    let checked = check(request, runtime.as_deref());
    let step = decide(Observed {
        request,
        checked: &checked,
        obstacle: obstacle.as_ref(),
        now,
    });
    let patches = Patches::new(context, request, now);
    match step {
        Step::Fail(rejection) => {
            // What is asked for is shown even where this instance cannot give it.
            let readable = pki::check(&request.spec.request, LOWEST_RSA_BITS).ok();
            let next = status::failed(request, readable.as_ref(), rejection, now);
            patches.status(request, next).await?;
            Ok(Action::await_change())
        }
        Step::Pend(waiting) => {
            let request = patches.claim(request).await?;
            let next = status::pending(&request, checked.as_ref().ok(), waiting, now);
            patches.status(&request, next).await?;
            Ok(waiting.map_or_else(Action::await_change, retry_of))
        }
        Step::Hold(verdict, waiting) => {
            let request = patches.claim(request).await?;
            let next = status::held(&request, checked.as_ref().ok(), &verdict, waiting, now);
            patches.status(&request, next).await?;
            Ok(retry_of(waiting))
        }
        Step::Issue(verdict, checked) => match runtime {
            Some(runtime) => issue(request, checked, &verdict, &runtime, &patches).await,
            None => Ok(Action::requeue(HOLD_RETRY)),
        },
        Step::Keep(checked) => keep(request, checked, runtime.as_deref(), context).await,
        Step::Deny(verdict) => {
            let released = release(request, checked.as_ref().ok(), context).await;
            secret::delete(request, context).await?;
            let next = status::denied(request, checked.as_ref().ok(), &verdict, &released, now);
            patches.status(request, next).await?;
            released.map(|()| Action::await_change())
        }
        Step::Expire => {
            release(request, checked.as_ref().ok(), context).await?;
            patches
                .status(request, status::expired(request, now))
                .await?;
            Ok(Action::await_change())
        }
    }
}

/// Checks the signing request. A certificate that is out is not taken back because the instance
/// became stricter afterwards.
fn check(
    request: &VolttronCertRequest,
    runtime: Option<&InstanceRuntime>,
) -> Result<CheckedRequest, Rejection> {
    let encoded = &request.spec.request;
    match runtime {
        Some(runtime) if request.phase() == Some(Phase::Issued) => {
            let mut profile = runtime.profile.clone();
            profile.min_rsa_bits = LOWEST_RSA_BITS;
            pki::validate(encoded, &profile)
        }
        Some(runtime) => pki::validate(encoded, &runtime.profile),
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

/// Makes an approved request an issued one, or sees that an issued one has all it needs.
async fn issue(
    request: &VolttronCertRequest,
    checked: &CheckedRequest,
    verdict: &crate::approval::Verdict,
    runtime: &InstanceRuntime,
    patches: &Patches<'_>,
) -> Result<Action, Error> {
    let (Ok(authority), Some(users)) = (&runtime.authority, &runtime.users) else {
        return Ok(Action::requeue(HOLD_RETRY));
    };
    let mut request = patches.claim(request).await?;
    if serial_of(&request).is_none() {
        let next = status::pending(&request, Some(checked), None, patches.now());
        request = patches.status(&request, next).await?;
    }
    let serial = serial_of(&request).ok_or(Error::Incomplete("status.serialNumber"))?;
    let ensured = users
        .ensure(
            checked.common_name.clone(),
            request.uid().unwrap_or_default(),
        )
        .await;
    if let Err(error) = ensured {
        if !error.is_foreign_user() {
            return Err(Error::Broker(error));
        }
        let taken = Waiting::UserName(error.to_string());
        let next = status::held(&request, Some(checked), verdict, &taken, patches.now());
        patches.status(&request, next).await?;
        return Ok(Action::requeue(HOLD_RETRY));
    }
    // It is never closed, so that there is always a permit in the end.
    let _permit = patches.context().writes.acquire().await;
    let recorded = request
        .status
        .as_ref()
        .and_then(|status| status.certificate.as_deref())
        .and_then(|chain| pki::adopt(authority, checked, &serial, chain));
    let life = request
        .spec
        .duration
        .as_deref()
        .and_then(volttron_crds::parse_duration)
        .unwrap_or_else(|| runtime.certificates.life())
        .min(runtime.certificates.max_life());
    let profile = LeafProfile {
        life,
        crl_distribution_point: None,
    };
    let sign = || pki::sign(authority, checked, &serial, &profile, patches.now());
    let stored = secret::store(
        &request,
        authority,
        checked,
        &serial,
        recorded,
        sign,
        patches.context(),
    )
    .await?;
    let issued = match stored {
        secret::Stored::Certificate(certificate) => certificate,
        secret::Stored::Foreign => {
            let taken = Waiting::Secret(request.secret_name());
            let next = status::held(&request, Some(checked), verdict, &taken, patches.now());
            patches.status(&request, next).await?;
            return Ok(Action::requeue(HOLD_RETRY));
        }
    };
    let ends = issued.not_after;
    let was_issued = request.phase() == Some(Phase::Issued);
    let next = status::issued(&request, checked, verdict, &serial, issued, patches.now());
    patches.status(&request, next).await?;
    if !was_issued {
        let elapsed = Timestamp::now().duration_since(patches.now());
        patches.context().metrics.issued.inc();
        patches
            .context()
            .metrics
            .issuance_seconds
            .observe(elapsed.as_secs_f64());
    }
    Ok(until(ends))
}

/// Sees that an issued request keeps its Secret and user, as far as that can be done now.
async fn keep(
    request: &VolttronCertRequest,
    checked: &CheckedRequest,
    runtime: Option<&InstanceRuntime>,
    context: &Context,
) -> Result<Action, Error> {
    let status = request.status.as_ref().ok_or(Error::Incomplete("status"))?;
    if let Some(runtime) = runtime {
        if let (Some(users), None) = (&runtime.users, &runtime.broker_fault) {
            users
                .ensure(
                    checked.common_name.clone(),
                    request.uid().unwrap_or_default(),
                )
                .await
                .map_err(Error::Broker)?;
        }
        if let (Ok(authority), Some(chain)) = (&runtime.authority, &status.certificate) {
            secret::restore(request, chain, authority.bundle(), context).await?;
        }
    }
    let ends = status
        .not_after
        .as_deref()
        .and_then(|text| text.parse().ok());
    Ok(ends.map_or_else(Action::await_change, until))
}

/// A request that is being deleted: its access ends, then the object may go.
async fn forget(request: &VolttronCertRequest, context: &Context) -> Result<Action, Error> {
    if !request
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == well_known::FINALIZER)
    {
        return Ok(Action::await_change());
    }
    let (runtime, _) = context.survey(request);
    let checked = check(request, runtime.as_deref());
    release(request, checked.as_ref().ok(), context).await?;
    Patches::new(context, request, Timestamp::now())
        .release()
        .await?;
    info!(request = %full_name(request), "request forgotten");
    Ok(Action::await_change())
}

/// Ends the access of a request: its user is removed and connections are closed, unless another
/// request needs the same user. Where the instance is gone, so is its broker.
async fn release(
    request: &VolttronCertRequest,
    checked: Option<&CheckedRequest>,
    context: &Context,
) -> Result<(), Error> {
    let reference = instance_of(request);
    let alive = context
        .instances
        .get(&reference)
        .is_some_and(|instance| instance.metadata.deletion_timestamp.is_none());
    // A request that did not pass the checks never had a user, and what it names may be another's.
    let (Some(checked), true) = (checked, alive) else {
        return Ok(());
    };
    let name = checked.common_name.clone();
    let runtime = context.runtimes.of(&reference);
    let fault = runtime
        .as_ref()
        .and_then(|runtime| runtime.broker_fault.clone());
    let users = runtime.and_then(|runtime| runtime.users.clone());
    let users = match (users, fault) {
        (Some(users), None) => users,
        (_, fault) => {
            // What was not issued can have at most a user that an interrupted run made; that is
            // removed when the broker is compared.
            let was_issued = request
                .status
                .as_ref()
                .is_some_and(|status| status.certificate.is_some());
            let away = fault.unwrap_or_else(|| "it was not reached yet".to_owned());
            return if was_issued {
                Err(Error::BrokerAway(away))
            } else {
                Ok(())
            };
        }
    };
    let uid = request.uid().unwrap_or_default();
    let full_name = name.to_string();
    let needed = context.requests_for(&reference).iter().any(|other| {
        other.uid().as_deref() != Some(&uid)
            && other.metadata.deletion_timestamp.is_none()
            && gives_access(other)
            && other.status.as_ref().and_then(|s| s.common_name.as_deref()) == Some(&full_name)
    });
    users
        .release(name, uid, needed)
        .await
        .map_err(Error::Broker)
}

/// Whether a request, as recorded, gives its common name access to the broker.
pub(super) fn gives_access(request: &VolttronCertRequest) -> bool {
    let denied = crate::approval::verdict(request).is_some_and(|verdict| !verdict.approved);
    request.phase() == Some(Phase::Issued) && !denied
}

/// When to look again at what a request waits for. That an instance is gone for good is told by no
/// watch of requests; all else is triggered, and this is for what a trigger has missed.
fn retry_of(waiting: &Waiting) -> Action {
    match waiting {
        Waiting::InstanceDeleted(_) => Action::requeue(DELETION_RETRY),
        _ => Action::requeue(HOLD_RETRY),
    }
}

fn serial_of(request: &VolttronCertRequest) -> Option<SerialNumber> {
    SerialNumber::parse(request.status.as_ref()?.serial_number.as_deref()?)
}

fn until(ends: Timestamp) -> Action {
    let left = ends
        .duration_since(Timestamp::now())
        .max(SignedDuration::from_millis(100));
    Action::requeue(
        Duration::try_from(left)
            .unwrap_or(LONGEST_SLEEP)
            .min(LONGEST_SLEEP),
    )
}
