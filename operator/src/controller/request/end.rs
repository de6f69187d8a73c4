//! The end of a request's access: by denial, by deletion, by running out, or because a later
//! request of the same identity has taken its place.

use super::apply::Patches;
use super::{CONFLICT_RETRY, Survey, secret, status};
use crate::approval::{is_denial_needed, with_access};
use crate::controller::context::{Context, instance_of};
use crate::controller::error::{Attempt, Error};
use crate::controller::events::full_name;
use crate::pki;
use crate::revocation::{Certificate, Why};
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use std::sync::Arc;
use std::time::Duration;
use tracing::info;
use volttron_crds::{Phase, VolttronCertRequest, well_known};

/// Ends the access of a denied request: its user is removed, its connections are closed, its
/// certificate is revoked, and its Secret is deleted.
pub(super) async fn deny(
    request: &VolttronCertRequest,
    survey: &Survey,
    context: &Context,
) -> Result<(), Error> {
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
    released.and(revoked)
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
    let revocations = context.revocations.of(&instance_of(request), context);
    if serial_of(request).is_some() && instance_is_alive(request, context) {
        revocations.known().await?;
    }
    let was_superseded = serial_of(request).is_some_and(|serial| revocations.is_remembered(serial));
    if instance_is_alive(request, context) {
        let identity = identity_of(request, &survey).filter(|_| is_last);
        let revoked = async {
            if was_superseded && !is_last {
                return Ok(());
            }
            revoke(request, identity, Why::Deleted, context).await
        };
        let (released, revoked) = tokio::join!(release(request, &survey, context), revoked);
        released.and(revoked)?;
    }
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

/// Removes a request that nobody needs any more. Its certificate is remembered, so that it is
/// revoked when its identity is denied.
pub(super) async fn retire(
    request: &VolttronCertRequest,
    survey: &Survey,
    context: &Context,
) -> Result<(), Error> {
    if let Some(certificate) = certificate_of(request).filter(|it| it.not_after > survey.now) {
        context
            .revocations
            .of(&instance_of(request), context)
            .remember(certificate)
            .await?;
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
    Ok(())
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
    let users = runtime.and_then(|runtime| runtime.users.clone());
    let users = match (users, fault) {
        (Some(users), None) => users,
        (_, fault) => {
            // What was not issued can have at most a user that an interrupted run made; that is
            // removed when the broker is compared.
            let away = fault.unwrap_or_else(|| "it was not reached yet".to_owned());
            return if certificate_of(request).is_some() {
                Err(Error::BrokerAway(away))
            } else {
                Ok(())
            };
        }
    };
    let mut all = survey.peers.clone();
    all.push(Arc::new(request.clone()));
    let needed = with_access(&all).any(|other| other.uid() != request.uid());
    users
        .release(
            checked.common_name.clone(),
            request.uid().unwrap_or_default(),
            needed,
        )
        .await
        .map_err(Error::Broker)
}

/// Puts the request's certificate onto the revocation list, and what is remembered of `identity`.
async fn revoke(
    request: &VolttronCertRequest,
    identity: Option<(String, String)>,
    why: Why,
    context: &Context,
) -> Result<(), Error> {
    if !instance_is_alive(request, context) {
        return Ok(());
    }
    let certificate = match certificate_of(request) {
        Some(certificate) => Some(certificate),
        None => left_behind(request, context).await?,
    };
    let certificates: Vec<_> = certificate.into_iter().collect();
    if certificates.is_empty() && identity.is_none() {
        return Ok(());
    }
    context
        .revocations
        .of(&instance_of(request), context)
        .revoke(certificates, identity, why)
        .await
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

/// The certificate that an interrupted run signed for the request and could not record.
async fn left_behind(
    request: &VolttronCertRequest,
    context: &Context,
) -> Result<Option<Certificate>, Error> {
    if !may_have_secret(request) {
        return Ok(None);
    }
    let chain = secret::left_behind(request, context).await?;
    let found = chain.as_deref().and_then(pki::serial_and_end);
    let common_name = request
        .status
        .as_ref()
        .and_then(|it| it.common_name.clone());
    Ok(found.map(|(serial, not_after)| Certificate {
        serial: serial.to_string(),
        not_after,
        common_name: common_name.unwrap_or_default(),
        requester: request.spec.requester.clone(),
    }))
}

/// Whether a certificate may be in the Secret that status does not tell of. The API server carries
/// a write of a controller that died out even seconds later, after the denial was recorded.
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
