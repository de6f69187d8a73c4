//! Makes an approved request an issued one, and keeps it so.

use super::apply::Patches;
use super::{HOLD_RETRY, Survey, end, left_until, retry_of, secret, status};
use crate::approval::{Ruling, Waiting, with_access};
use crate::controller::context::{Context, instance_of};
use crate::controller::error::Error;
use crate::controller::events::full_name;
use crate::controller::runtime::InstanceRuntime;
use crate::pki::{self, CheckedRequest, LeafProfile, SerialNumber, SignedCertificate};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use std::time::{Duration, Instant};
use volttron_crds::{Phase, VolttronCertRequest};

/// Says that an approved request waits for something else.
pub(super) async fn hold(
    request: &VolttronCertRequest,
    survey: &Survey,
    ruling: &Ruling,
    waiting: &Waiting,
    patches: &Patches<'_>,
) -> Result<Duration, Error> {
    patches.context().approvals.since(request);
    let request = patches.claim(request).await?;
    let next = status::held(survey.basis(&request), ruling, waiting);
    patches.status(&request, next).await?;
    Ok(retry_of(waiting))
}

/// Makes an approved request an issued one, or sees that an issued one has all it needs.
pub(super) async fn issue(
    request: &VolttronCertRequest,
    checked: &CheckedRequest,
    ruling: &Ruling,
    survey: &Survey,
    patches: &Patches<'_>,
) -> Result<Duration, Error> {
    let context = patches.context();
    let approved_since = match request.phase() {
        // Another certificate for one that had been issued.
        Some(Phase::Issued) => Instant::now(),
        _ => context.approvals.since(request),
    };
    let Some(runtime) = &survey.runtime else {
        return Ok(HOLD_RETRY);
    };
    let (Ok(authority), Some(users)) = (&runtime.authority, &runtime.users) else {
        return Ok(HOLD_RETRY);
    };
    if let Some(waiting) = unenforced(request, checked, survey, context) {
        return hold(request, survey, ruling, &waiting, patches).await;
    }
    let request = patches.claim(request).await?;
    let (request, serial, recorded) =
        numbered(request, checked, ruling, survey, runtime, patches).await?;
    let ensured = users
        .ensure(
            checked.common_name.clone(),
            request.spec.requester.clone(),
            request.uid().unwrap_or_default(),
        )
        .await;
    if let Err(error) = ensured {
        if !error.is_about_the_name() {
            return Err(Error::Broker(error));
        }
        let taken = Waiting::UserName(error.to_string());
        return hold(&request, survey, ruling, &taken, patches).await;
    }
    // It is never closed, so that there is always a permit in the end.
    let _permit = context.writes.acquire().await;
    if let (None, Some(waiting)) = (&recorded, context.without_gate()) {
        // It went while the broker took its time.
        if request.phase() == Some(Phase::Issued) {
            return Ok(HOLD_RETRY);
        }
        return hold(&request, survey, ruling, &waiting, patches).await;
    }
    let profile = LeafProfile {
        life: life_of(&request, runtime),
        // No web address serves the list yet.
        crl_distribution_point: None,
    };
    let sign = || pki::sign(authority, checked, &serial, &profile, survey.now);
    let adopt = |chain: &str| runtime.adopt(checked, &serial, chain);
    let bundle = authority.bundle();
    let stored = secret::store(&request, bundle, recorded, adopt, sign, context).await?;
    let certificate = match stored {
        secret::Stored::Certificate(certificate) => certificate,
        secret::Stored::Foreign => {
            let taken = Waiting::Secret(request.secret_name());
            if request.phase() == Some(Phase::Issued) {
                // Who took the Secret's place does not end an access by that.
                let next = status::misplaced(survey.basis(&request), ruling, &taken);
                patches.status(&request, next).await?;
                return Ok(HOLD_RETRY);
            }
            return hold(&request, survey, ruling, &taken, patches).await;
        }
    };
    let ends = certificate.not_after;
    let was_issued = request.phase() == Some(Phase::Issued);
    let renew_at = pki::renew_at(certificate.not_before, ends, &serial);
    let basis = survey.basis(&request);
    let next = status::issued(basis, ruling, &serial, certificate, renew_at);
    patches.status(&request, next).await?;
    if !was_issued {
        context.metrics.counts.issued(approved_since.elapsed());
        context.approvals.forget(&request);
    }
    Ok(left_until(ends))
}

/// Sees that an issued request keeps its Secret and user, as far as that can be done now.
pub(super) async fn keep(
    request: &VolttronCertRequest,
    checked: &CheckedRequest,
    survey: &Survey,
    context: &Context,
) -> Result<Option<Duration>, Error> {
    let status = request.status.as_ref().ok_or(Error::Incomplete("status"))?;
    if let Some(runtime) = &survey.runtime {
        if let (Some(users), None) = (&runtime.users, &runtime.broker_fault) {
            users
                .ensure(
                    checked.common_name.clone(),
                    request.spec.requester.clone(),
                    request.uid().unwrap_or_default(),
                )
                .await
                .map_err(Error::Broker)?;
        }
        // Also while nothing may be signed.
        if let (Some(authorities), Some(chain)) = (&runtime.authorities, &status.certificate) {
            secret::restore(request, chain, authorities.bundle(), context).await?;
        }
    }
    let ends = status
        .not_after
        .as_deref()
        .and_then(|text| text.parse().ok());
    Ok(ends.map(left_until))
}

/// Whether a revoked certificate of the same name would come in together with this one. Where
/// another request has access by that name, the name is in use already.
fn unenforced(
    request: &VolttronCertRequest,
    checked: &CheckedRequest,
    survey: &Survey,
    context: &Context,
) -> Option<Waiting> {
    let in_use = with_access(&survey.peers).next().is_some();
    if request.phase() == Some(Phase::Issued) || in_use {
        return None;
    }
    let revocations = context.revocations.of(&instance_of(request), context);
    let mut peers = survey.peers.iter();
    if let Some(peer) = peers.find(|peer| end::is_at_large(peer, survey.now, &revocations)) {
        return Some(Waiting::Revocation(format!(
            "that of request {} could not be put onto the revocation list; its condition Issued \
             says why",
            full_name(peer.as_ref())
        )));
    }
    revocations
        .outstanding(
            &checked.common_name.to_string(),
            &ObjectRef::from_obj(request),
        )
        .map(Waiting::Revocation)
}

/// The serial number the certificate has or will have, and the certificate that is recorded under
/// it, if that is still good. One that was revoked, or is of a CA that this instance no longer
/// trusts, is not: a new number is set aside then.
async fn numbered(
    request: VolttronCertRequest,
    checked: &CheckedRequest,
    ruling: &Ruling,
    survey: &Survey,
    runtime: &InstanceRuntime,
    patches: &Patches<'_>,
) -> Result<(VolttronCertRequest, SerialNumber, Option<SignedCertificate>), Error> {
    let context = patches.context();
    let revocations = context.revocations.of(&instance_of(&request), context);
    let status = request.status.as_ref();
    let known = status
        .and_then(|status| SerialNumber::parse(status.serial_number.as_deref()?))
        .filter(|serial| !revocations.is_revoked(&serial.to_string()));
    if let Some(serial) = known {
        let Some(chain) = status.and_then(|status| status.certificate.as_deref()) else {
            return Ok((request, serial, None));
        };
        let recorded = runtime.adopt(checked, &serial, chain);
        if recorded.is_some() {
            return Ok((request, serial, recorded));
        }
    }
    let serial = SerialNumber::random();
    let next = status::numbered(survey.basis(&request), ruling, &serial);
    let request = patches.status(&request, next).await?;
    Ok((request, serial, None))
}

fn life_of(request: &VolttronCertRequest, runtime: &InstanceRuntime) -> Duration {
    let asked = request.spec.duration.as_deref();
    asked
        .and_then(volttron_crds::parse_duration)
        .unwrap_or_else(|| runtime.certificates.life())
        .min(runtime.certificates.max_life())
}
