//! The way to the broker of an instance, and what it should be.

use super::Broker;
use crate::broker::{
    ManagementClient, ManagementError, Repaired, Topology, UserKeeper, UserKeeperHandle,
    exchange_faults, watch_pulse,
};
use crate::controller::context::Context;
use crate::controller::error::chain;
use crate::controller::events::full_name;
use crate::controller::instance::{Fault, objects};
use crate::pki;
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio_util::task::AbortOnDropHandle;
use tracing::info;
use volttron_crds::VolttronInstance;

/// A connection to a broker, with what it was made from.
#[derive(Clone)]
struct Connection {
    made_from: String,
    topology: Topology,
    client: ManagementClient,
    users: UserKeeperHandle,
    /// Has the instance compared when the broker comes or goes.
    _pulse: Arc<AbortOnDropHandle<()>>,
}

/// The connections to the brokers of all instances.
#[derive(Default)]
pub(in crate::controller) struct Connections(
    Mutex<HashMap<ObjectRef<VolttronInstance>, Connection>>,
);

impl Connections {
    /// Forgets the broker of an instance that is gone.
    pub(super) fn remove(&self, instance: &ObjectRef<VolttronInstance>) {
        self.lock().remove(instance);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectRef<VolttronInstance>, Connection>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compares the broker with what it should be. Its users are handed on whatever comes of that.
pub(super) async fn reach(
    instance: &VolttronInstance,
    bundle: &str,
    password: &str,
    topology: &Topology,
    context: &Context,
) -> Broker {
    match connect(instance, bundle, password, topology, context).await {
        Ok(connection) => Broker {
            state: set_up(instance, &connection, topology, context).await,
            users: Some(connection.users),
            list: None,
        },
        Err(error) => Broker {
            users: None,
            state: Err(fault(&error)),
            list: None,
        },
    }
}

/// Compares the broker with what it should be, and repairs it: its users also where its topology
/// cannot be repaired.
async fn set_up(
    instance: &VolttronInstance,
    connection: &Connection,
    topology: &Topology,
    context: &Context,
) -> Result<(), Fault> {
    let declared = declare(instance, connection, topology).await;
    let declared = declared.map_err(|error| with_hint(fault(&error), instance))?;
    let users = compare_users(instance, connection, context).await;
    declared.and(users.map_err(|error| fault(&error)))
}

/// Sees that the virtual host and its exchanges are there.
async fn declare(
    instance: &VolttronInstance,
    connection: &Connection,
    topology: &Topology,
) -> Result<Result<(), Fault>, ManagementError> {
    let client = &connection.client;
    let found = if client.has_virtual_host(&topology.virtual_host).await? {
        client.exchanges(&topology.virtual_host).await?
    } else {
        Vec::new()
    };
    if exchange_faults(&found).is_empty() {
        return Ok(Ok(()));
    }
    client.import(&topology.definitions()).await?;
    let exchanges = client.exchanges(&topology.virtual_host).await?;
    let faults = exchange_faults(&exchanges);
    if !faults.is_empty() {
        return Ok(Err(Fault::new(
            "TopologyMismatch",
            format!("{}: delete it, and it is made anew", faults.join("; ")),
        )));
    }
    info!(instance = %full_name(instance), "broker topology declared");
    Ok(Ok(()))
}

async fn compare_users(
    instance: &VolttronInstance,
    connection: &Connection,
    context: &Context,
) -> Result<(), Arc<ManagementError>> {
    let wanted = context.names_with_access(&ObjectRef::from_obj(instance));
    let repaired = connection.users.reconcile(wanted).await?;
    if repaired != Repaired::default() {
        info!(
            instance = %full_name(instance), restored = repaired.restored,
            removed = repaired.removed, "broker users repaired"
        );
        let note = format!(
            "broker users compared with requests: {} restored, {} removed",
            repaired.restored, repaired.removed
        );
        context
            .events
            .normal(instance, "BrokerUsersRepaired", "Compare", note);
    }
    Ok(())
}

fn fault(error: &ManagementError) -> Fault {
    Fault::new(error.reason(), chain(error))
}

/// Says where to look when the broker does not answer.
fn with_hint(mut fault: Fault, instance: &VolttronInstance) -> Fault {
    if fault.reason == "Unreachable" {
        let namespace = instance.namespace().unwrap_or_default();
        let name = instance.name_any();
        let place =
            format!("; see `kubectl describe pod -n {namespace} {name}-rabbitmq-0` and its log");
        fault.message.push_str(&place);
    }
    fault
}

async fn connect(
    instance: &VolttronInstance,
    bundle: &str,
    password: &str,
    topology: &Topology,
    context: &Context,
) -> Result<Connection, ManagementError> {
    let made_from = pki::sha256_hex(
        [bundle, password, &topology.virtual_host]
            .join("\0")
            .as_bytes(),
    );
    let reference = ObjectRef::from_obj(instance);
    let known = context.connections.lock().get(&reference).cloned();
    if let Some(known) = known.as_ref().filter(|it| it.made_from == made_from) {
        return Ok(known.clone());
    }
    let address = objects::management_address(instance);
    let client = ManagementClient::new(&address, password, bundle, context.leadership.clone())?;
    // A new CA or password does not make another broker: what its keeper knows stays true.
    let users = match known.filter(|it| it.topology == *topology) {
        Some(known) => {
            known.users.use_client(client.clone()).await;
            known.users
        }
        None => UserKeeper::spawn(client.clone(), topology.clone()),
    };
    let (triggers, instance) = (context.triggers.clone(), reference.clone());
    let pulse = tokio::spawn(watch_pulse(client.clone(), move || {
        triggers.instance(instance.clone());
    }));
    let connection = Connection {
        made_from,
        topology: topology.clone(),
        client,
        users,
        _pulse: Arc::new(AbortOnDropHandle::new(pulse)),
    };
    context
        .connections
        .lock()
        .insert(reference, connection.clone());
    Ok(connection)
}
