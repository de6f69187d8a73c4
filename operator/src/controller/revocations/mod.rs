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
use super::error::Error;
use crate::revocation::{Certificate, Ledger, Why};
use keeper::{Keeper, Order};
use kube::runtime::reflector::ObjectRef;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot};
use volttron_crds::{VolttronCertRequest, VolttronInstance};

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
