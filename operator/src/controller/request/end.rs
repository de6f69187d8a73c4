//! The end of a request's access: by denial, by deletion, by running out, or because a later
//! request of the same identity has taken its place.

use super::apply::Patches;
use super::{CONFLICT_RETRY, LOWEST_RSA_BITS, Survey, secret, status};
use crate::approval::{is_denial_needed, with_access};
use crate::controller::context::{Context, instance_of};
use crate::controller::error::{Attempt, Error};
use crate::controller::events::full_name;
use crate::controller::revocations::RevocationsOf;
use crate::controller::runtime::Authorities;
use crate::pki::{self, SerialNumber};
use crate::revocation::{Certificate, Why};
use jiff::Timestamp;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use std::sync::Arc;
use std::time::Duration;
use tracing::{debug, info};
use volttron_crds::{CertificateSpec, Phase, VolttronCertRequest, well_known};

/// Ends the access of a denied request: its user is removed, its connections are closed, its
/// certificate is revoked, and its Secret is deleted. Returns the serial number that was set aside
/// for it and that nothing is known to be signed under: what turns up in the Secret later is told
/// by it.
pub(super) async fn deny(
    request: &VolttronCertRequest,
    survey: &Survey,
    context: &Context,
) -> Result<Option<String>, Error> {
    // The identity is denied as a whole, so what is remembered of it goes as well. Later on it may
    // be approved again by another request, while this one stays denied.
    let is_new = !status::is_out(request);
    let identity = identity_of(request, survey).filter(|_| is_new);
    let (released, revoked) = tokio::join!(
        release(request, survey, context),
        revoke(request, identity, Why::Denied, context),
    );
    // What an interrupted run signed is known from the Secret alone.
    if revoked.is_ok() || certificate_of(request).is_some() {
        secret::delete(request, context).await?;
    }
    released?;
    let is_used = revoked?;
    Ok(serial_of(request)
        .filter(|_| !is_used)
        .map(ToOwned::to_owned))
}

/// A request that is being deleted: its access ends, then the object may go. Returns when to look
/// again, if it may not go yet.
pub(super) async fn forget(
    request: &VolttronCertRequest,
    context: &Context,
) -> Result<Option<Duration>, Error> {
    context
        .room
        .leave(&ObjectRef::from_obj(request), &context.triggers);
    if !is_claimed(request) {
        return Ok(None);
    }
    let survey = Survey::of(request, context);
    let is_last = survey.peers.iter().all(|peer| {
        peer.spec.requester != request.spec.requester || peer.metadata.deletion_timestamp.is_some()
    });
    let was_superseded = match serial_of(request) {
        Some(serial) if instance_is_alive(request, context) => {
            let revocations = context.revocations.of(&instance_of(request), context);
            revocations.known().await?;
            revocations.is_remembered(serial)
        }
        _ => false,
    };
    let identity = identity_of(request, &survey).filter(|_| is_last);
    let revoked = async {
        if was_superseded && !is_last {
            return Ok(false);
        }
        revoke(request, identity, Why::Deleted, context).await
    };
    let (released, revoked) = tokio::join!(release(request, &survey, context), revoked);
    released?;
    revoked?;
    // Kubernetes' garbage collector would do it too, but it misses an owner whose successor has the
    // same name when its watch was cut off meanwhile; and then the Secret is in the successor's way.
    if may_have_secret(request) {
        secret::delete(request, context).await?;
    }
    if is_denial_needed(request, &survey.peers) {
        return Ok(Some(CONFLICT_RETRY));
    }
    Patches::new(context, request).release().await?;
    info!(request = %full_name(request), "request forgotten");
    Ok(None)
}

/// How soon it is looked again whether the ledger has room.
const ROOM_RETRY: Duration = Duration::from_hours(1);

/// Removes a request that nobody needs any more. Its certificate is remembered, so that it is
/// revoked when its identity is denied. Where there is no room for that, the request stays until its
/// certificate has run out; returns when to look again.
pub(super) async fn retire(
    request: &VolttronCertRequest,
    survey: &Survey,
    context: &Context,
) -> Result<Option<Duration>, Error> {
    if let Some(certificate) = certificate_of(request).filter(|it| it.not_after > survey.now) {
        let revocations = context.revocations.of(&instance_of(request), context);
        match revocations.remember(certificate).await {
            Err(Error::Revocation(error)) if matches!(*error, Error::ListFull(_)) => {
                debug!(request = %full_name(request), %error, "superseded, and kept");
                return Ok(Some(ROOM_RETRY));
            }
            other => other?,
        }
    }
    let api = Api::<VolttronCertRequest>::namespaced(
        context.client.clone(),
        &request.namespace().unwrap_or_default(),
    );
    let exactly_this = DeleteParams {
        preconditions: Some(Preconditions {
            uid: request.uid(),
            resource_version: request.resource_version(),
        }),
        ..DeleteParams::default()
    };
    match api.delete(&request.name_any(), &exactly_this).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop).attempt("delete the superseded request"),
    }?;
    info!(request = %full_name(request), phase = ?request.phase(), "request removed: it is superseded, or came to nothing");
    Ok(None)
}

/// Gives up a request's claim on its broker user. The user is removed and connections are closed,
/// unless another request has access by the same name. Where the instance is gone, so is its
/// broker.
pub(super) async fn release(
    request: &VolttronCertRequest,
    survey: &Survey,
    context: &Context,
) -> Result<(), Error> {
    // A request that did not pass the checks never had a user, and what it names may be another's.
    let Ok(checked) = &survey.checked else {
        return Ok(());
    };
    if !instance_is_alive(request, context) {
        return Ok(());
    }
    let runtime = context.runtimes.of(&instance_of(request));
    let fault = runtime
        .as_ref()
        .and_then(|runtime| runtime.broker_fault.clone());
    // What was not issued can have at most a user that an interrupted run made; that is removed
    // when the broker is compared.
    let may_have_user = certificate_of(request).is_some();
    let Some(users) = runtime.and_then(|runtime| runtime.users.clone()) else {
        let away = fault.unwrap_or_else(|| "it was not reached yet".to_owned());
        return if may_have_user {
            Err(Error::BrokerAway(away))
        } else {
            Ok(())
        };
    };
    let mut all = survey.peers.clone();
    all.push(Arc::new(request.clone()));
    let needed = with_access(&all).any(|other| other.uid() != request.uid());
    // Whatever else is wrong: where its users can be changed, the agent is out.
    let released = users
        .release(
            checked.common_name.clone(),
            request.uid().unwrap_or_default(),
            needed,
        )
        .await;
    match released {
        Err(_) if fault.is_some() && !may_have_user => Ok(()),
        released => released.map_err(Error::Broker),
    }
}

/// Puts the request's certificate onto the revocation list, and what is remembered of `identity`.
/// While the instance is away it is written down for the day when it is made anew. Returns whether the request has one.
async fn revoke(
    request: &VolttronCertRequest,
    identity: Option<(String, String)>,
    why: Why,
    context: &Context,
) -> Result<bool, Error> {
    let reference = instance_of(request);
    let is_away = !instance_is_alive(request, context);
    let may_matter = certificate_of(request).is_some() || is_signed_perhaps(request);
    if is_away && !(may_matter && context.revocations.outlive(&reference, context).await?) {
        return Ok(false);
    }
    let certificate = match (certificate_of(request), is_signed_perhaps(request)) {
        (Some(certificate), _) => Some(certificate),
        (None, true) => set_aside(request, context),
        (None, false) if is_away => None,
        (None, false) => left_behind(request, context).await?,
    };
    let certificates: Vec<_> = certificate.into_iter().collect();
    let has_one = !certificates.is_empty();
    if has_one || identity.is_some() {
        context
            .revocations
            .of(&reference, context)
            .revoke(certificates, identity, why)
            .await?;
    }
    Ok(has_one)
}

/// Whether a certificate that is neither in use nor revoked would log in once `request`'s name has
/// its user back: its end could not be written down. To be asked where nobody has access by that
/// name.
pub(super) fn is_at_large(
    request: &VolttronCertRequest,
    now: Timestamp,
    revocations: &RevocationsOf,
) -> bool {
    let is_revoked = |serial: &str| revocations.is_revoked(serial);
    if let Some(known) = certificate_of(request) {
        let is_superseded = request.metadata.deletion_timestamp.is_some()
            && revocations.is_remembered(&known.serial);
        return known.not_after > now && !is_revoked(&known.serial) && !is_superseded;
    }
    let is_denied = request.phase() == Some(Phase::Denied) && !status::is_out(request);
    is_denied && serial_of(request).is_some_and(|serial| !is_revoked(serial))
}

/// Common name and requester, where the signing request can be read.
fn identity_of(request: &VolttronCertRequest, survey: &Survey) -> Option<(String, String)> {
    let checked = survey.checked.as_ref().ok()?;
    Some((
        checked.common_name.to_string(),
        request.spec.requester.clone(),
    ))
}

/// The certificate that the request's status records.
fn certificate_of(request: &VolttronCertRequest) -> Option<Certificate> {
    let status = request.status.as_ref()?;
    status.certificate.as_ref()?;
    Some(Certificate {
        serial: status.serial_number.clone()?,
        not_after: status.not_after.as_deref()?.parse().ok()?,
        common_name: status.common_name.clone()?,
        requester: request.spec.requester.clone(),
    })
}

/// Whether a certificate may be on its way that neither status nor the Secret tells of: the API
/// server carries the write of a controller that died out even seconds later. Only of a request that
/// was recorded as approved: who may file requests and nothing else puts nothing on the list.
fn is_signed_perhaps(request: &VolttronCertRequest) -> bool {
    let phase = request.phase();
    phase == Some(Phase::Approved) || (phase == Some(Phase::Denied) && !status::is_out(request))
}

/// What may have been signed under the serial number that was set aside, at its longest.
fn set_aside(request: &VolttronCertRequest, context: &Context) -> Option<Certificate> {
    let reference = instance_of(request);
    let instance = context.instances.get(&reference);
    let profile = instance.map_or_else(CertificateSpec::default, |it| it.spec.certificates.clone());
    let not_after = Timestamp::now().checked_add(profile.max_life()).ok()?;
    let runtime = context.runtimes.of(&reference);
    let authorities = runtime.iter().filter_map(|it| it.authorities.as_ref());
    let authorities = authorities.flat_map(Authorities::all);
    let last = authorities.map(|it| it.not_after()).max();
    let status = request.status.as_ref()?;
    Some(Certificate {
        serial: status.serial_number.clone()?,
        not_after: last.map_or(not_after, |last| last.min(not_after)),
        common_name: status.common_name.clone()?,
        requester: request.spec.requester.clone(),
    })
}

/// The certificate that an interrupted run signed for the request and could not record. Anybody who
/// may write Secrets there can put a certificate into that place, somebody else's too; so it counts
/// only where it is of this instance's CA, for this request's key, and under the serial number that
/// was set aside for it.
async fn left_behind(
    request: &VolttronCertRequest,
    context: &Context,
) -> Result<Option<Certificate>, Error> {
    let status = request.status.as_ref();
    let serial = serial_of(request).and_then(SerialNumber::parse);
    let checked = pki::check(&request.spec.request, LOWEST_RSA_BITS).ok();
    let common_name = status.and_then(|it| it.common_name.clone());
    let (Some(serial), Some(checked), Some(common_name)) = (serial, checked, common_name) else {
        return Ok(None);
    };
    let Some(chain) = secret::left_behind(request, context).await? else {
        return Ok(None);
    };
    let runtime = context.runtimes.of(&instance_of(request));
    let Some(runtime) = runtime.filter(|it| it.authorities.is_some()) else {
        return Err(Error::AuthorityAway(request.secret_name()));
    };
    let found = runtime.adopt(&checked, &serial, &chain);
    Ok(found.map(|found| Certificate {
        serial: serial.to_string(),
        not_after: found.not_after,
        common_name,
        requester: request.spec.requester.clone(),
    }))
}

/// Whether the Secret may be there although status does not tell of it.
fn may_have_secret(request: &VolttronCertRequest) -> bool {
    serial_of(request).is_some() || request.phase() == Some(Phase::Denied)
}

fn serial_of(request: &VolttronCertRequest) -> Option<&str> {
    request.status.as_ref()?.serial_number.as_deref()
}

fn instance_is_alive(request: &VolttronCertRequest, context: &Context) -> bool {
    context
        .instances
        .get(&instance_of(request))
        .is_some_and(|instance| instance.metadata.deletion_timestamp.is_none())
}

fn is_claimed(request: &VolttronCertRequest) -> bool {
    request
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == well_known::FINALIZER)
}
