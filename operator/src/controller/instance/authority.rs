//! The certificate authorities of an instance: generated into a Secret in the controller's own
//! namespace, or copied there from the Secret that the instance names. Nothing is ever signed with
//! what is not in that Secret.

use super::Fault;
use super::generations::{CaPair, Generations, Origin, fault_at, incomplete};
use super::rotation::Wanted;
use crate::controller::clock;
use crate::controller::context::Context;
use crate::controller::error::{Attempt, Error};
use crate::controller::events::full_name;
use crate::controller::runtime::Authorities;
use crate::pki::{self, Authority, AuthorityError, LeafError};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;
use tracing::info;
use volttron_crds::{InstanceName, VolttronInstance, well_known};

/// The authorities of an instance as they were found.
pub(super) struct Found {
    /// What the Secret holds; none where it is not there or cannot be used.
    pub(super) held: Option<Held>,
    /// Why nothing may be signed.
    pub(super) fault: Option<Fault>,
}

/// The Secret with the authorities of an instance.
pub(super) struct Held {
    pub(super) generations: Generations,
    pub(super) authorities: Authorities,
    /// What `spec.ca` asks for now.
    pub(super) wanted: Wanted,
    /// The version that was read: what is decided on it is written on it alone.
    version: String,
}

impl Found {
    /// There is none, for this reason.
    pub(super) fn nothing(fault: Fault) -> Self {
        Self {
            held: None,
            fault: Some(fault),
        }
    }

    /// All authorities that are trusted.
    pub(super) fn authorities(&self) -> Option<&Authorities> {
        self.held.as_ref().map(|held| &held.authorities)
    }

    /// The one that signs, or why there is none.
    pub(super) fn signing(&self) -> Result<Arc<Authority>, String> {
        match (&self.fault, self.authorities()) {
            (None, Some(authorities)) => Ok(Arc::clone(&authorities.signing)),
            (Some(fault), _) => Err(fault.message.clone()),
            (None, None) => Err("there is none yet".to_owned()),
        }
    }
}

/// The authorities of `instance`; the first one is made where there is none yet.
pub(super) async fn ensure(
    instance: &VolttronInstance,
    instance_name: &InstanceName,
    context: &Context,
    now: Timestamp,
) -> Result<Found, Error> {
    let wanted = wanted(instance, context, now).await?;
    let name = secret_name(instance);
    let place = format!("Secret {}/{name}", context.namespace);
    let secrets = Api::<Secret>::namespaced(context.client.clone(), &context.namespace);
    let secret = match secrets
        .get_opt(&name)
        .await
        .attempt("read the Secret of the CA")?
    {
        Some(secret) => secret,
        None => match begin(instance, instance_name, &wanted, &place, context, now).await? {
            Ok(secret) => secret,
            Err(fault) => return Ok(Found::nothing(fault)),
        },
    };
    let version = secret.resource_version().unwrap_or_default();
    let known = instance.status.as_ref().and_then(|it| it.ca.as_ref());
    let data = secret.data.unwrap_or_default();
    let generations = match Generations::read(&data, known.map_or(1, |known| known.generation)) {
        Ok(generations) => generations,
        Err(lacks) => return Ok(Found::nothing(incomplete(&place, &lacks))),
    };
    let authorities = match generations.load(now) {
        Ok(authorities) => authorities,
        Err(error) => {
            let fault = fault_at(&place, &error);
            let expired = matches!(error, AuthorityError::Expired { .. });
            let fresh = if expired {
                in_place_of(instance, instance_name, generations, &wanted, now).await?
            } else {
                None
            };
            if let Some(fresh) = fresh {
                if let Err(fault) = by_certain_clock(context).await {
                    return Ok(Found::nothing(fault));
                }
                write(instance, &fresh, &version, context).await?;
                // The watch of this Secret has the instance reconciled again.
                info!(instance = %full_name(instance), "expired CA replaced");
            }
            return Ok(Found::nothing(fault));
        }
    };
    Ok(Found {
        fault: withdrawn(instance, &generations, &wanted),
        held: Some(Held {
            generations,
            authorities,
            wanted,
            version,
        }),
    })
}

impl Held {
    /// Writes what becomes of the authorities, unless somebody else has changed the Secret since it
    /// was read.
    pub(super) async fn write(
        &self,
        instance: &VolttronInstance,
        generations: &Generations,
        context: &Context,
    ) -> Result<(), Error> {
        write(instance, generations, &self.version, context).await
    }
}

/// Deletes the CAs of an instance that is being deleted.
pub(super) async fn remove(instance: &VolttronInstance, context: &Context) -> Result<(), Error> {
    delete_own_secret(&secret_name(instance), context).await
}

/// Deletes a Secret in the controller's own namespace.
pub(super) async fn delete_own_secret(name: &str, context: &Context) -> Result<(), Error> {
    let secrets = Api::<Secret>::namespaced(context.client.clone(), &context.namespace);
    match secrets.delete(name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop).attempt("delete a Secret of the instance"),
    }
}

/// The `metadata` of a Secret in the controller's own namespace that belongs to `instance`. It has
/// no owner reference, which cannot cross namespaces: the instance's finalizer takes its place.
pub(super) fn own_secret_metadata(
    instance: &VolttronInstance,
    name: String,
    context: &Context,
) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: Some(context.namespace.clone()),
        labels: Some(super::objects::labels(instance)),
        ..ObjectMeta::default()
    }
}

/// A new CA as `spec.ca.generated` describes it.
pub(super) async fn generate(
    instance: &VolttronInstance,
    instance_name: &InstanceName,
    number: i64,
    now: Timestamp,
) -> Result<CaPair, Error> {
    let settings = instance.spec.ca.generated.clone().unwrap_or_default();
    let instance_name = instance_name.clone();
    // An RSA key takes seconds to make.
    let making = move || pki::generate(&instance_name, &settings, number, now);
    let pair = tokio::task::spawn_blocking(making)
        .await
        .map_err(|_| Error::Incomplete("the CA key was not made"))?
        .map_err(LeafError::from)?;
    Ok(CaPair {
        certificate: pair.certificate,
        key: pair.key,
        roots: None,
        origin: Origin::Generated,
    })
}

/// The value of the annotation that asks for a rotation.
pub(super) fn rotation_request(instance: &VolttronInstance) -> Option<&str> {
    let annotations = instance.annotations();
    annotations.get(well_known::ROTATE_CA).map(String::as_str)
}

/// What `spec.ca` asks for.
async fn wanted(
    instance: &VolttronInstance,
    context: &Context,
    now: Timestamp,
) -> Result<Wanted, Error> {
    let Some(name) = instance.spec.ca.secret_ref.as_ref().map(|it| &it.name) else {
        return Ok(Wanted::Generated);
    };
    let namespace = instance.namespace().unwrap_or_default();
    let place = format!("Secret {namespace}/{name}");
    let secret = Api::<Secret>::namespaced(context.client.clone(), &namespace)
        .get_opt(name)
        .await
        .attempt("read the Secret of the CA")?;
    let Some(secret) = secret else {
        let message = format!("{place} does not exist; create it with tls.crt and tls.key");
        return Ok(Wanted::Faulty(Fault::new(MISSING, message)));
    };
    let pair = match CaPair::read(&secret.data.unwrap_or_default(), name) {
        Ok(pair) => pair,
        Err(lacks) => return Ok(Wanted::Faulty(incomplete(&place, &lacks))),
    };
    Ok(match pair.load(now) {
        Ok(authority) => Wanted::Brought(pair, Box::new(authority)),
        Err(error) => Wanted::Faulty(fault_at(&place, &error)),
    })
}

/// The reason of a condition where something waits for a clock that can be believed.
pub(super) const CLOCK_UNCERTAIN: &str = "ClockUncertain";

/// The reason of the condition where a Secret that the instance names is not there.
const MISSING: &str = "SecretNotFound";

/// Who deletes the Secret that the CA came from does not want it to sign any more. What was signed
/// stays good, so that nobody is cut off. A Secret that holds something wrong is a mistake, and
/// the CA in use goes on.
fn withdrawn(
    instance: &VolttronInstance,
    generations: &Generations,
    wanted: &Wanted,
) -> Option<Fault> {
    let named = instance.spec.ca.secret_ref.as_ref()?;
    match wanted {
        Wanted::Faulty(fault)
            if fault.reason == MISSING
                && generations.signing.origin == Origin::Secret(named.name.clone()) =>
        {
            Some(fault.clone())
        }
        _ => None,
    }
}

/// Makes the Secret with the first CA of an instance.
async fn begin(
    instance: &VolttronInstance,
    instance_name: &InstanceName,
    wanted: &Wanted,
    place: &str,
    context: &Context,
    now: Timestamp,
) -> Result<Result<Secret, Fault>, Error> {
    let generations = match first(instance, instance_name, wanted, place, now).await? {
        Ok(generations) => generations,
        Err(fault) => return Ok(Err(fault)),
    };
    if let Err(fault) = by_certain_clock(context).await {
        return Ok(Err(fault));
    }
    create(instance, &generations, context).await.map(Ok)
}

/// The first CA of an instance.
async fn first(
    instance: &VolttronInstance,
    instance_name: &InstanceName,
    wanted: &Wanted,
    place: &str,
    now: Timestamp,
) -> Result<Result<Generations, Fault>, Error> {
    let known = instance.status.as_ref().and_then(|it| it.ca.as_ref());
    let request = rotation_request(instance);
    Ok(match (wanted, known) {
        (Wanted::Faulty(fault), _) => Err(fault.clone()),
        (Wanted::Generated, None) => {
            let pair = generate(instance, instance_name, 1, now).await?;
            Ok(Generations::only(1, pair, request))
        }
        (Wanted::Brought(pair, _), None) => Ok(Generations::only(1, pair.clone(), request)),
        // The very CA is still at hand, and it is the only one in use.
        (Wanted::Brought(pair, authority), Some(known))
            if known.sha256 == authority.sha256() && known.previous.is_none() =>
        {
            let honoured = known.rotation_request.as_deref();
            Ok(Generations::only(known.generation, pair.clone(), honoured))
        }
        // Certificates that agents hold were signed by a CA that is gone. A new one would lock all
        // of them out without a word, so that is left to a person.
        (_, Some(known)) => Err(Fault::new(
            "CertificateAuthorityLost",
            format!(
                "{place} with the CA of SHA-256 {} is gone: restore it from a backup; or delete and \
                 create the instance to start with a new CA, which ends every certificate issued \
                 so far",
                known.sha256
            ),
        )),
    })
}

/// What takes the place of a CA that has expired, and with it all it has signed, so that there is
/// nothing to overlap with: what was introduced or brought along by now, or a generated one where
/// somebody asks for it. It is not made unasked, since a clock that is wrong makes a CA expire too.
async fn in_place_of(
    instance: &VolttronInstance,
    instance_name: &InstanceName,
    expired: Generations,
    wanted: &Wanted,
    now: Timestamp,
) -> Result<Option<Generations>, Error> {
    let request = rotation_request(instance);
    let number = expired.number + 1;
    if let Some((next, _)) = &expired.next
        && next.load(now).is_ok()
    {
        return Ok(Some(expired.activate()));
    }
    let pair = match wanted {
        Wanted::Brought(pair, _) => pair.clone(),
        Wanted::Generated if request.is_some() && request != expired.honoured.as_deref() => {
            generate(instance, instance_name, number, now).await?
        }
        Wanted::Generated | Wanted::Faulty(_) => return Ok(None),
    };
    Ok(Some(Generations::only(number, pair, request)))
}

/// No CA is made, and none is thrown away, by a clock that may be wrong: to one that runs ahead a CA
/// has expired, and what is made by it is not valid yet for everybody else.
async fn by_certain_clock(context: &Context) -> Result<(), Fault> {
    clock::certain(&context.client)
        .await
        .map(drop)
        .map_err(|why| Fault::new(CLOCK_UNCERTAIN, why.to_string()))
}

async fn create(
    instance: &VolttronInstance,
    generations: &Generations,
    context: &Context,
) -> Result<Secret, Error> {
    let data: BTreeMap<String, ByteString> = generations
        .write()
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect();
    let secret = Secret {
        metadata: own_secret_metadata(instance, secret_name(instance), context),
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data),
        ..Secret::default()
    };
    let parameters = PostParams {
        field_manager: Some(well_known::CONTROLLER_FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    // A create, so that of two controllers only one makes the CA.
    Api::<Secret>::namespaced(context.client.clone(), &context.namespace)
        .create(&parameters, &secret)
        .await
        .attempt("create the Secret of the CA")
}

async fn write(
    instance: &VolttronInstance,
    generations: &Generations,
    version: &str,
    context: &Context,
) -> Result<(), Error> {
    let patch = json!({
        "metadata": {"resourceVersion": version, "labels": super::objects::labels(instance)},
        "data": generations.write(),
    });
    let parameters = PatchParams {
        field_manager: Some(well_known::CONTROLLER_FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    };
    Api::<Secret>::namespaced(context.client.clone(), &context.namespace)
        .patch(&secret_name(instance), &parameters, &Patch::Merge(patch))
        .await
        .attempt("write the Secret of the CA")
        .map(drop)
}

/// Name of the Secret of an instance's CAs. Neither part can hold a dot before the instance's name.
fn secret_name(instance: &VolttronInstance) -> String {
    format!(
        "ca.{}.{}",
        instance.namespace().unwrap_or_default(),
        instance.name_any()
    )
}
