//! The Secret `<request>-tls`: the certificate with its chain, and the CA to trust. Never a key.

use super::super::context::Context;
use super::super::error::{Attempt, Error};
use crate::pki::{LeafError, SignedCertificate};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Status;
use kube::{Api, Resource, ResourceExt};
use std::collections::BTreeMap;
use volttron_crds::{VolttronCertRequest, well_known};

/// What came of storing a certificate.
pub(super) enum Stored {
    /// The certificate is in the Secret.
    Certificate(SignedCertificate),
    /// A Secret of that name exists and is not this request's; it was left as it is.
    Foreign,
}

/// Sees that the Secret holds this request's certificate: the one already recorded in status, or
/// one that an interrupted run left in the Secret and that `adopt` recognises, or else the one that
/// `sign` makes now.
pub(super) async fn store(
    request: &VolttronCertRequest,
    bundle: &str,
    recorded: Option<SignedCertificate>,
    adopt: impl Fn(&str) -> Option<SignedCertificate>,
    sign: impl Fn() -> Result<SignedCertificate, LeafError>,
    context: &Context,
) -> Result<Stored, Error> {
    let namespace = request.namespace().unwrap_or_default();
    let name = request.secret_name();
    if let Some(certificate) = recorded {
        let kept = restore(request, &certificate.chain, bundle, context).await?;
        return Ok(if kept {
            Stored::Certificate(certificate)
        } else {
            Stored::Foreign
        });
    }
    let api = Api::<Secret>::namespaced(context.client.clone(), &namespace);
    let signed = sign()?;
    let secret = build(request, &signed.chain, bundle)?;
    let data = secret.data.clone().unwrap_or_default();
    context.secrets.wrote(&namespace, &name, &data);
    let parameters = PostParams {
        field_manager: Some(well_known::CONTROLLER_FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let created = api.create(&parameters, &secret).await;
    if created.is_err() {
        context.secrets.did_not_write(&namespace, &name);
    }
    match created {
        Ok(_) => return Ok(Stored::Certificate(signed)),
        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
        Err(error) => return Err(error).attempt("create the Secret of the certificate"),
    }
    let existing = api
        .get(&name)
        .await
        .attempt("read the Secret of the certificate")?;
    if !is_owned_by(&existing, request) {
        return Ok(Stored::Foreign);
    }
    let left_behind = text_of(&existing, "tls.crt").and_then(|chain| adopt(&chain));
    let certificate = left_behind.unwrap_or(signed);
    restore(request, &certificate.chain, bundle, context).await?;
    Ok(Stored::Certificate(certificate))
}

/// Sees that the Secret holds `chain` and `bundle`. Returns false where a Secret of that name is
/// somebody else's.
pub(super) async fn restore(
    request: &VolttronCertRequest,
    chain: &str,
    bundle: &str,
    context: &Context,
) -> Result<bool, Error> {
    let namespace = request.namespace().unwrap_or_default();
    let name = request.secret_name();
    let secret = build(request, chain, bundle)?;
    let data = secret.data.clone().unwrap_or_default();
    if context.secrets.holds(&namespace, &name, &data) {
        return Ok(true);
    }
    let api = Api::<Secret>::namespaced(context.client.clone(), &namespace);
    let existing = api
        .get_opt(&name)
        .await
        .attempt("read the Secret of the certificate")?;
    if existing
        .as_ref()
        .is_some_and(|existing| !is_owned_by(existing, request))
    {
        let why = "a Secret of that name is somebody else's".to_owned();
        context.secrets.cannot_hold(&namespace, &name, &data, why);
        return Ok(false);
    }
    if existing.and_then(|existing| existing.data).as_ref() != Some(&data) {
        let parameters = PatchParams::apply(well_known::CONTROLLER_FIELD_MANAGER).force();
        let written = api.patch(&name, &parameters, &Patch::Apply(&secret)).await;
        if let Err(kube::Error::Api(status)) = &written
            && is_refusal(status)
        {
            let why = status.message.clone();
            context.secrets.cannot_hold(&namespace, &name, &data, why);
        }
        written.attempt("restore the Secret of the certificate")?;
    }
    context.secrets.wrote(&namespace, &name, &data);
    Ok(true)
}

/// The certificate chain that an interrupted run may have left in the Secret.
pub(super) async fn left_behind(
    request: &VolttronCertRequest,
    context: &Context,
) -> Result<Option<String>, Error> {
    let namespace = request.namespace().unwrap_or_default();
    let secret = Api::<Secret>::namespaced(context.client.clone(), &namespace)
        .get_opt(&request.secret_name())
        .await
        .attempt("read the Secret of the certificate")?;
    Ok(secret
        .filter(|secret| is_owned_by(secret, request))
        .and_then(|secret| text_of(&secret, "tls.crt")))
}

/// How far the Secret of an issued request is.
pub(in crate::controller) enum Publication {
    /// It holds what it should, or did when it was written last.
    Done,
    /// It is written soon.
    Due,
    /// It cannot be written, for this reason.
    Hindered(String),
}

/// How far the Secret of an issued request is, which is to hold its certificate and `bundle`.
pub(in crate::controller) fn publication(
    request: &VolttronCertRequest,
    bundle: &str,
    context: &Context,
) -> Publication {
    let status = request.status.as_ref();
    let chain = status.and_then(|status| status.certificate.as_deref());
    let built = build(request, chain.unwrap_or_default(), bundle);
    let Some(data) = built.ok().and_then(|secret| secret.data) else {
        return Publication::Due;
    };
    let (namespace, name) = (
        request.namespace().unwrap_or_default(),
        request.secret_name(),
    );
    // What its owner does with it afterwards holds nobody up.
    if context.secrets.holds(&namespace, &name, &data)
        || context.secrets.was_given(&namespace, &name, &data)
    {
        return Publication::Done;
    }
    let hindrance = context.secrets.hindrance(&namespace, &name, &data);
    hindrance.map_or(Publication::Due, Publication::Hindered)
}

/// Removes the Secret of a request that was denied or deleted.
pub(super) async fn delete(request: &VolttronCertRequest, context: &Context) -> Result<(), Error> {
    let namespace = request.namespace().unwrap_or_default();
    let name = request.secret_name();
    context.secrets.forget(&namespace, &name);
    let api = Api::<Secret>::namespaced(context.client.clone(), &namespace);
    let Some(existing) = api
        .get_opt(&name)
        .await
        .attempt("read the Secret of the certificate")?
    else {
        return Ok(());
    };
    if !is_owned_by(&existing, request) {
        return Ok(());
    }
    let exactly_this = DeleteParams {
        preconditions: Some(Preconditions {
            uid: existing.uid(),
            resource_version: None,
        }),
        ..DeleteParams::default()
    };
    match api.delete(&name, &exactly_this).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other.map(drop).attempt("delete the Secret of the request"),
    }
}

fn build(request: &VolttronCertRequest, chain: &str, bundle: &str) -> Result<Secret, Error> {
    let owner = request
        .controller_owner_ref(&())
        .ok_or(Error::Incomplete("metadata.uid"))?;
    let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let text = |value: &str| ByteString(value.as_bytes().to_vec());
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(request.secret_name()),
            namespace: request.namespace(),
            labels: Some(BTreeMap::from([
                label(well_known::MANAGED_BY_LABEL, well_known::MANAGED_BY),
                label(well_known::INSTANCE_LABEL, &request.spec.instance_ref.name),
                label(
                    well_known::INSTANCE_NAMESPACE_LABEL,
                    &request.instance_namespace(),
                ),
            ])),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([
            ("tls.crt".to_owned(), text(chain)),
            ("ca.crt".to_owned(), text(bundle)),
        ])),
        ..Secret::default()
    })
}

/// Whether the API server will not have an object as it is: a quota, a policy, or a namespace that
/// is being deleted. That may last, unlike a conflict or too many calls.
fn is_refusal(status: &Status) -> bool {
    (400..500).contains(&status.code) && ![408, 409, 429].contains(&status.code)
}

fn is_owned_by(secret: &Secret, request: &VolttronCertRequest) -> bool {
    let uid = request.uid();
    secret
        .owner_references()
        .iter()
        .any(|owner| Some(&owner.uid) == uid.as_ref())
}

fn text_of(secret: &Secret, key: &str) -> Option<String> {
    let ByteString(value) = secret.data.as_ref()?.get(key)?;
    String::from_utf8(value.clone()).ok()
}
