//! The certificate authority of an instance: generated once into a Secret in the controller's own
//! namespace, or read from the Secret that the instance names.

use super::Fault;
use crate::controller::context::Context;
use crate::controller::error::{Attempt, Error};
use crate::pki::{self, Authority, LeafError};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, ResourceExt};
use std::collections::BTreeMap;
use std::sync::Arc;
use volttron_crds::{InstanceName, VolttronInstance, well_known};

/// The authority of `instance`, generated where there is none yet.
pub(super) async fn ensure(
    instance: &VolttronInstance,
    instance_name: &InstanceName,
    context: &Context,
    now: Timestamp,
) -> Result<Result<Arc<Authority>, Fault>, Error> {
    match &instance.spec.ca.secret_ref {
        Some(reference) => brought(instance, &reference.name, context, now).await,
        None => generated(instance, instance_name, context, now).await,
    }
}

/// Deletes the generated CA of an instance that is being deleted.
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

async fn brought(
    instance: &VolttronInstance,
    name: &str,
    context: &Context,
    now: Timestamp,
) -> Result<Result<Arc<Authority>, Fault>, Error> {
    let namespace = instance.namespace().unwrap_or_default();
    let secrets = Api::<Secret>::namespaced(context.client.clone(), &namespace);
    let Some(secret) = secrets
        .get_opt(name)
        .await
        .attempt("read the Secret of the CA")?
    else {
        return Ok(Err(Fault::new(
            "SecretNotFound",
            format!("Secret {namespace}/{name} does not exist; create it with tls.crt and tls.key"),
        )));
    };
    Ok(load(&secret, now).map(|authority| keep_known(instance, authority, context)))
}

async fn generated(
    instance: &VolttronInstance,
    instance_name: &InstanceName,
    context: &Context,
    now: Timestamp,
) -> Result<Result<Arc<Authority>, Fault>, Error> {
    let name = secret_name(instance);
    let secrets = Api::<Secret>::namespaced(context.client.clone(), &context.namespace);
    if let Some(secret) = secrets
        .get_opt(&name)
        .await
        .attempt("read the Secret of the CA")?
    {
        return Ok(load(&secret, now).map(|authority| keep_known(instance, authority, context)));
    }
    // Certificates that agents hold were signed by a CA that is gone. A new one would lock all of
    // them out without a word, so that is left to a person.
    if let Some(ca) = instance
        .status
        .as_ref()
        .and_then(|status| status.ca.as_ref())
    {
        return Ok(Err(Fault::new(
            "CertificateAuthorityLost",
            format!(
                "Secret {}/{name} with the CA of SHA-256 {} is gone: restore it from a backup; or \
                 delete and create the instance to start with a new CA, which ends every \
                 certificate issued so far",
                context.namespace, ca.sha256
            ),
        )));
    }
    let settings = instance.spec.ca.generated.clone().unwrap_or_default();
    let instance_name = instance_name.clone();
    // An RSA key takes seconds to make.
    let pair =
        tokio::task::spawn_blocking(move || pki::generate(&instance_name, &settings, 1, now))
            .await
            .map_err(|_| Error::Incomplete("the CA key was not made"))?
            .map_err(LeafError::from)?;
    let text = |value: &str| ByteString(value.as_bytes().to_vec());
    let secret = Secret {
        metadata: own_secret_metadata(instance, name, context),
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(BTreeMap::from([
            ("tls.crt".to_owned(), text(&pair.certificate)),
            ("tls.key".to_owned(), text(&pair.key)),
        ])),
        ..Secret::default()
    };
    let parameters = PostParams {
        field_manager: Some(well_known::CONTROLLER_FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    // A create, so that of two controllers only one makes the CA.
    let secret = secrets
        .create(&parameters, &secret)
        .await
        .attempt("create the Secret of the CA")?;
    Ok(load(&secret, now).map(Arc::new))
}

/// Keeps the authority already in use where it is the same, so that nothing is rebuilt for it.
fn keep_known(instance: &VolttronInstance, loaded: Authority, context: &Context) -> Arc<Authority> {
    let runtime = context.runtimes.of(&ObjectRef::from_obj(instance));
    match runtime.and_then(|runtime| runtime.authority.clone().ok()) {
        Some(known) if known.sha256() == loaded.sha256() && known.bundle() == loaded.bundle() => {
            known
        }
        _ => Arc::new(loaded),
    }
}

fn load(secret: &Secret, now: Timestamp) -> Result<Authority, Fault> {
    let place = || {
        format!(
            "Secret {}/{}",
            secret.namespace().unwrap_or_default(),
            secret.name_any()
        )
    };
    let text = |key: &str| {
        let ByteString(value) = secret.data.as_ref()?.get(key)?;
        Some(String::from_utf8_lossy(value).into_owned())
    };
    let required = |key: &'static str| {
        text(key).ok_or_else(|| Fault::new("SecretIncomplete", format!("{} has no {key}", place())))
    };
    let (certificates, key) = (required("tls.crt")?, required("tls.key")?);
    Authority::load(&certificates, &key, text("ca.crt").as_deref(), now)
        .map_err(|error| Fault::new(error.reason(), format!("{}: {error}", place())))
}

/// Name of the Secret of a generated CA. Neither part can hold a dot before the instance's name.
fn secret_name(instance: &VolttronInstance) -> String {
    format!(
        "ca.{}.{}",
        instance.namespace().unwrap_or_default(),
        instance.name_any()
    )
}
