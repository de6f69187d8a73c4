//! The managed broker of an instance: its objects, then the broker itself.

mod reach;

pub(in crate::controller) use reach::Connections;

use super::Fault;
use super::authority::{delete_own_secret, own_secret_metadata};
use super::objects::{self, Parts};
use crate::broker::{Topology, UserKeeperHandle, boot_definitions, password_hash};
use crate::controller::context::Context;
use crate::controller::error::{Attempt, Error, chain};
use crate::controller::events::full_name;
use crate::controller::revocations::{Publication, Target};
use crate::controller::runtime::Authorities;
use crate::pki::{self, Authority, ServerPair, ServerPairState};
use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource, ResourceExt};
use reach::reach;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::fmt::Debug;
use tracing::info;
use volttron_crds::{InstanceName, VolttronInstance, well_known};

/// The broker as it was found.
pub(super) struct Broker {
    /// The keeper of its users, whether it can be reached now or not.
    pub(super) users: Option<UserKeeperHandle>,
    /// Whether it can take users.
    pub(super) state: Result<(), Fault>,
    /// Why its revocation list is not the one it should be. What is not on that list goes on.
    pub(super) list: Option<Fault>,
}

/// Sees that the broker's objects are there, and the broker is set up.
pub(super) async fn ensure(
    instance: &VolttronInstance,
    instance_name: &InstanceName,
    authorities: &Authorities,
    context: &Context,
    now: Timestamp,
) -> Result<Broker, Error> {
    let authority = authorities.signing.as_ref();
    if let Err(fault) = findable(authorities) {
        return as_it_is(instance, instance_name, authority.bundle(), fault, context).await;
    }
    let list = publish_revocations(instance, authorities, context).await?;
    let password = password(instance, context).await?;
    let topology = topology(instance, instance_name);
    // A broker refuses every certificate of a CA without a list: that is there before the broker
    // starts, or trusts another CA.
    if list.is_none() {
        let pair = server_pair(instance, authority, context, now).await?;
        let definitions = boot_definitions(&topology, &password_hash(&password, salt(instance)));
        let parts = Parts {
            bundle: authority.bundle(),
            pair: &pair,
            definitions: &definitions,
        };
        apply(&objects::tls_secret(instance, &parts), context).await?;
        apply(&objects::definitions_secret(instance, &parts), context).await?;
        apply(&objects::config_map(instance), context).await?;
        apply(&objects::service(instance), context).await?;
        apply(&objects::stateful_set(instance, &parts), context).await?;
    }
    let broker = reach(instance, authority.bundle(), &password, &topology, context).await;
    Ok(Broker { list, ..broker })
}

/// The broker of an instance whose CA is of no use now. Nothing is signed for it, and whoever has
/// to go from it goes: it is known by the CAs that were trusted last.
pub(super) async fn without_authority(
    instance: &VolttronInstance,
    instance_name: &InstanceName,
    context: &Context,
) -> Result<Broker, Error> {
    let fault = Fault::new(
        "CertificateAuthorityNotReady",
        "the broker's certificate is signed by the instance's CA, which is not ready",
    );
    let trusted = instance.status.as_ref().and_then(|it| it.ca.as_ref());
    match trusted {
        Some(ca) => as_it_is(instance, instance_name, &ca.bundle, fault, context).await,
        None => Ok(Broker {
            users: None,
            state: Err(fault),
            list: None,
        }),
    }
}

/// The broker that runs, of an instance that has this `fault`: no object of it is changed.
async fn as_it_is(
    instance: &VolttronInstance,
    instance_name: &InstanceName,
    bundle: &str,
    fault: Fault,
    context: &Context,
) -> Result<Broker, Error> {
    let password = password(instance, context).await?;
    let topology = topology(instance, instance_name);
    let broker = reach(instance, bundle, &password, &topology, context).await;
    Ok(Broker {
        users: broker.users,
        state: Err(fault),
        list: None,
    })
}

fn topology(instance: &VolttronInstance, instance_name: &InstanceName) -> Topology {
    Topology {
        instance: instance_name.clone(),
        virtual_host: instance.spec.broker.virtual_host.clone(),
    }
}

/// Whether the broker could find the lists of these CAs.
fn findable(authorities: &Authorities) -> Result<(), Fault> {
    let all = authorities.all();
    let unusable = all.iter().find_map(|it| pki::list_file_of(it).err());
    unusable.map_or(Ok(()), |error| {
        Err(Fault::new(
            "RevocationListUnusable",
            format!(
                "the broker cannot find a revocation list of this CA, and would refuse every \
                 certificate of it: {error}"
            ),
        ))
    })
}

/// Sees that there is a revocation list of each CA. Returns what a person has to mend.
async fn publish_revocations(
    instance: &VolttronInstance,
    authorities: &Authorities,
    context: &Context,
) -> Result<Option<Fault>, Error> {
    let reference = ObjectRef::from_obj(instance);
    let (address, server_name) = objects::amqp_endpoint(instance);
    let users = context
        .runtimes
        .of(&reference)
        .and_then(|runtime| runtime.users.clone());
    let publication = Publication {
        instance: instance.clone(),
        authorities: authorities.all(),
        target: Target {
            address,
            server_name,
            roots: authorities.bundle().to_owned(),
        },
        users,
    };
    let published = context
        .revocations
        .of(&reference, context)
        .publish(publication)
        .await;
    match published {
        Err(error) if error.is_refusal() => Ok(Some(Fault::new(
            "RevocationListNotPublished",
            format!(
                "the broker enforces an earlier revocation list, and no other CA can be introduced: \
                 {}",
                chain(&error)
            ),
        ))),
        other => other.map(|()| None),
    }
}

/// Forgets the broker of an instance that is being deleted. What is in the instance's namespace is
/// removed through owner references.
pub(super) async fn remove(instance: &VolttronInstance, context: &Context) -> Result<(), Error> {
    context.connections.remove(&ObjectRef::from_obj(instance));
    delete_own_secret(&password_secret_name(instance), context).await
}

/// The operator's password on the broker: generated once, kept in the controller's own namespace.
async fn password(instance: &VolttronInstance, context: &Context) -> Result<String, Error> {
    let name = password_secret_name(instance);
    let secrets = Api::<Secret>::namespaced(context.client.clone(), &context.namespace);
    let existing = secrets
        .get_opt(&name)
        .await
        .attempt("read the broker's password")?;
    let stored = existing
        .as_ref()
        .and_then(|secret| secret.data.as_ref()?.get("password"))
        .and_then(|ByteString(value)| String::from_utf8(value.clone()).ok())
        .filter(|password| !password.is_empty());
    if let Some(password) = stored {
        return Ok(password);
    }
    let password = hex::encode(rand::random::<[u8; 24]>());
    let secret = Secret {
        metadata: own_secret_metadata(instance, name.clone(), context),
        type_: Some("kubernetes.io/basic-auth".to_owned()),
        string_data: Some(BTreeMap::from([
            (
                "username".to_owned(),
                crate::broker::MANAGEMENT_USER.to_owned(),
            ),
            ("password".to_owned(), password.clone()),
        ])),
        ..Secret::default()
    };
    if existing.is_some() {
        // It was emptied by hand.
        let patch = Patch::Apply(&secret);
        secrets
            .patch(&name, &parameters(), &patch)
            .await
            .attempt("restore the broker's password")?;
    } else {
        let parameters = PostParams {
            field_manager: Some(well_known::CONTROLLER_FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        secrets
            .create(&parameters, &secret)
            .await
            .attempt("create the broker's password")?;
    }
    Ok(password)
}

async fn server_pair(
    instance: &VolttronInstance,
    authority: &Authority,
    context: &Context,
    now: Timestamp,
) -> Result<ServerPair, Error> {
    let names = objects::broker_names(instance);
    let namespace = instance.namespace().unwrap_or_default();
    let secrets = Api::<Secret>::namespaced(context.client.clone(), &namespace);
    let name = objects::tls_secret_name(instance);
    let existing = secrets
        .get_opt(&name)
        .await
        .attempt("read the broker's certificate")?;
    let text = |key: &str| {
        let ByteString(value) = existing.as_ref()?.data.as_ref()?.get(key)?;
        String::from_utf8(value.clone()).ok()
    };
    let key = match (text("tls.crt"), text("tls.key")) {
        (Some(chain), Some(key)) => {
            match pki::server_pair_state(authority, &chain, &key, &names, now) {
                ServerPairState::Current => return Ok(ServerPair { chain, key }),
                ServerPairState::OtherChain => Some(key),
                ServerPairState::Due => None,
            }
        }
        _ => None,
    };
    info!(instance = %full_name(instance), "broker certificate issued");
    Ok(match key {
        Some(key) => pki::reissue_server_pair(authority, &names, &key, now)?,
        None => pki::issue_server_pair(authority, &names, now)?,
    })
}

pub(super) async fn apply<K>(object: &K, context: &Context) -> Result<(), Error>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Serialize
        + DeserializeOwned
        + Clone
        + Debug,
{
    let namespace = object.namespace().unwrap_or_default();
    Api::<K>::namespaced(context.client.clone(), &namespace)
        .patch(&object.name_any(), &parameters(), &Patch::Apply(object))
        .await
        .attempt("apply an object of the broker")
        .map(drop)
}

fn parameters() -> PatchParams {
    PatchParams::apply(well_known::CONTROLLER_FIELD_MANAGER).force()
}

fn password_secret_name(instance: &VolttronInstance) -> String {
    format!(
        "broker.{}.{}",
        instance.namespace().unwrap_or_default(),
        instance.name_any()
    )
}

/// The salt of the password's hash: fixed for an instance, so that applying the definitions again
/// changes nothing. The password itself is random.
fn salt(instance: &VolttronInstance) -> [u8; 4] {
    let uid = instance.uid().unwrap_or_default();
    let digest = pki::sha256_hex(uid.as_bytes());
    let mut salt = [0; 4];
    salt.copy_from_slice(&digest.as_bytes()[..4]);
    salt
}
