//! The revocation list of each instance: written down before anything else, published for the
//! broker, and proven to be enforced there.
//!
//! RabbitMQ knows the common name alone. A denied certificate is kept out by removing its user, at
//! once; but when the same name is approved again, for another key, only the list keeps the denied
//! certificate out. So a name that was denied gets its user back when the broker is proven to
//! refuse what is on the list.

mod keeper;
mod list;

pub(super) use keeper::{Publication, Target, revocation_secret_name};
pub(super) use list::ListError;

use super::context::Context;
use super::error::{Attempt, Error};
use crate::revocation::{Certificate, Ledger, MOST_OF_IDENTITY, Why};
use k8s_openapi::api::core::v1::Secret;
use keeper::{Keeper, Order};
use kube::Api;
use kube::runtime::reflector::ObjectRef;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};
use volttron_crds::{Phase, VolttronCertRequest, VolttronInstance};

/// The revocation lists of all instances.
#[derive(Default)]
pub(super) struct Revocations(Mutex<HashMap<ObjectRef<VolttronInstance>, RevocationsOf>>);

impl Revocations {
    /// The list of one instance; its keeper is started when there is none yet.
    pub(super) fn of(
        &self,
        instance: &ObjectRef<VolttronInstance>,
        context: &Context,
    ) -> RevocationsOf {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(instance.clone())
            .or_insert_with(|| Keeper::spawn(instance.clone(), context))
            .clone()
    }

    /// Whether what is revoked of an instance that is gone is still written down: its CA lives on
    /// with somebody who may make the instance anew.
    pub(super) async fn outlive(
        &self,
        instance: &ObjectRef<VolttronInstance>,
        context: &Context,
    ) -> Result<bool, Error> {
        let name = revocation_secret_name(instance);
        let secrets = Api::<Secret>::namespaced(context.client.clone(), &context.namespace);
        let secret = secrets
            .get_metadata_opt(&name)
            .await
            .attempt("read the ledger of revoked certificates")?;
        let outlives = context
            .instances
            .get(instance)
            .is_none_or(|going| outlives(&going));
        Ok(secret.is_some() && outlives)
    }

    /// Forgets an instance that is gone.
    pub(super) fn remove(&self, instance: &ObjectRef<VolttronInstance>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(instance);
    }
}

/// What is known of one instance's list.
#[derive(Default)]
struct View {
    ledger: Ledger,
    /// Whether the ledger was read.
    loaded: bool,
    /// What the broker made of the last probe.
    last_probe: String,
    /// Requests that wait until the list is enforced.
    waiting: HashSet<ObjectRef<VolttronCertRequest>>,
    /// By common name and requester, the requests that no approver has asked for and that were let
    /// pass: one counts before its status says so.
    admitted: HashMap<(String, String), HashSet<ObjectRef<VolttronCertRequest>>>,
}

/// The revocation list of one instance. Clones share it.
#[derive(Clone)]
pub(super) struct RevocationsOf {
    orders: mpsc::Sender<Order>,
    view: Arc<Mutex<View>>,
}

impl RevocationsOf {
    /// Takes `certificates` out of use, and with them all that are remembered of `identity` (common
    /// name and requester). Returns when that is written down and published.
    ///
    /// # Errors
    /// [`Error::Revocation`]
    pub(super) async fn revoke(
        &self,
        certificates: Vec<Certificate>,
        identity: Option<(String, String)>,
        why: Why,
    ) -> Result<(), Error> {
        self.order(|done| Order::Revoke {
            certificates,
            identity,
            why,
            done,
        })
        .await
    }

    /// Remembers a certificate whose request is about to be removed.
    ///
    /// # Errors
    /// [`Error::Revocation`]
    pub(super) async fn remember(&self, certificate: Certificate) -> Result<(), Error> {
        self.order(|done| Order::Remember { certificate, done })
            .await
    }

    /// Sees that there is a list of each trusted CA, as fresh as it should be.
    ///
    /// # Errors
    /// [`Error::Revocation`]
    pub(super) async fn publish(&self, publication: Publication) -> Result<(), Error> {
        self.order(|done| Order::Publish {
            publication: Box::new(publication),
            done,
        })
        .await
    }

    /// Returns when it is known what was written down.
    ///
    /// # Errors
    /// [`Error::Revocation`]
    pub(super) async fn known(&self) -> Result<(), Error> {
        if self.view().loaded {
            return Ok(());
        }
        self.revoke(Vec::new(), None, Why::Deleted).await
    }

    /// Whether the certificate is out of use.
    pub(super) fn is_revoked(&self, serial: &str) -> bool {
        self.view().ledger.is_revoked(serial)
    }

    /// Whether the certificate was written down when its request was about to be removed.
    pub(super) fn is_remembered(&self, serial: &str) -> bool {
        let view = self.view();
        view.ledger.knows(serial) && !view.ledger.is_revoked(serial)
    }

    /// Why `common_name` cannot be let in yet: certificates of that name are revoked, and the
    /// broker was not seen to refuse them. `request` looks again when it was.
    pub(super) fn outstanding(
        &self,
        common_name: &str,
        request: &ObjectRef<VolttronCertRequest>,
    ) -> Option<String> {
        let mut view = self.view();
        if !view.loaded {
            return Some("what is revoked has not been read yet".to_owned());
        }
        let needed = view.ledger.needed_list(common_name)?;
        if needed <= view.ledger.enforced {
            return None;
        }
        view.waiting.insert(request.clone());
        Some(format!(
            "revocation list {needed} is published; the last trial: {}",
            view.last_probe
        ))
    }

    /// Lets a request pass that was approved without being asked for, unless its identity has as many
    /// certificates already as it may; returns how many then. `live` finds a request.
    pub(super) fn admit(
        &self,
        request: &VolttronCertRequest,
        common_name: &str,
        peers: &[Arc<VolttronCertRequest>],
        live: impl Fn(&ObjectRef<VolttronCertRequest>) -> Option<Arc<VolttronCertRequest>>,
    ) -> Option<usize> {
        let requester = &request.spec.requester;
        let own = ObjectRef::from_obj(request);
        let mut view = self.view();
        let View {
            ledger, admitted, ..
        } = &mut *view;
        let is_known = |request: &VolttronCertRequest| {
            let serial = request
                .status
                .as_ref()
                .and_then(|it| it.serial_number.as_deref());
            serial.is_some_and(|serial| ledger.knows(serial))
        };
        let identity = (common_name.to_owned(), requester.clone());
        let admitted = admitted.entry(identity).or_default();
        admitted
            .retain(|it| live(it).is_some_and(|it| may_come_to_something(&it) && !is_known(&it)));
        let mut holders = admitted.clone();
        let peers = peers.iter().filter(|peer| {
            let has_one = matches!(peer.phase(), Some(Phase::Approved | Phase::Issued));
            has_one && peer.spec.requester == *requester && !is_known(peer)
        });
        holders.extend(peers.map(|peer| ObjectRef::from_obj(peer.as_ref())));
        holders.remove(&own);
        let count = holders.len() + ledger.count_of(common_name, requester);
        if count >= MOST_OF_IDENTITY {
            admitted.remove(&own);
            return Some(count);
        }
        admitted.insert(own);
        None
    }

    /// The numbers of the last list and of the last one seen to be enforced, and how many
    /// certificates are on it.
    pub(super) fn numbers(&self) -> (i64, i64, usize) {
        let view = self.view();
        (
            view.ledger.number,
            view.ledger.enforced,
            view.ledger.revoked().len(),
        )
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn order(
        &self,
        order: impl FnOnce(oneshot::Sender<keeper::Outcome>) -> Order,
    ) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        let stopped = || Error::Incomplete("the keeper of the revocation list has ended");
        self.orders.send(order(done)).await.map_err(|_| stopped())?;
        answer
            .await
            .map_err(|_| stopped())?
            .map_err(Error::Revocation)
    }
}

/// Whether the CA of an instance outlives it, and with it every certificate: an instance that is made
/// anew with the same CA has to find what was revoked.
pub(super) fn outlives(instance: &VolttronInstance) -> bool {
    instance.spec.ca.secret_ref.is_some()
}

/// Whether a request that was let pass holds a certificate, or will.
fn may_come_to_something(request: &VolttronCertRequest) -> bool {
    !matches!(
        request.phase(),
        Some(Phase::Denied | Phase::Failed | Phase::Expired)
    )
}
