//! The task that keeps the revocation list of one instance: many orders at once become one list.

mod stored;

pub(in crate::controller) use stored::revocation_secret_name;

use super::list::PublishedList;
use super::{RevocationsOf, View};
use crate::broker::{ClientPair, Probe, RefusedBy, UserKeeperHandle, probe};
use crate::controller::context::Context;
use crate::controller::error::{Attempt, Error, chain};
use crate::controller::instance::crl_config_map;
use crate::controller::secrets::SecretIndex;
use crate::controller::triggers::Triggers;
use crate::pki::Authority;
use crate::revocation::{Certificate, Why};
use futures::FutureExt;
use futures::future::{BoxFuture, Fuse, FusedFuture};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Client, ResourceExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use stored::Stored;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tracing::{debug, info, warn};
use volttron_crds::{VolttronInstance, well_known};

/// How soon the broker is tried after a list was published, and how rarely in the end.
const FIRST_TRIAL: Duration = Duration::from_millis(250);
const LAST_TRIAL: Duration = Duration::from_secs(10);
/// How often the ledger is written on top of what somebody else has just written.
const TRIES: u32 = 4;

/// What became of an order.
pub(super) type Outcome = Result<(), Arc<Error>>;

pub(super) enum Order {
    Revoke {
        certificates: Vec<Certificate>,
        identity: Option<(String, String)>,
        why: Why,
        done: oneshot::Sender<Outcome>,
    },
    Remember {
        certificate: Certificate,
        done: oneshot::Sender<Outcome>,
    },
    Publish {
        publication: Box<Publication>,
        done: oneshot::Sender<Outcome>,
    },
}

/// What a list is made of beside the ledger, and where it is tried.
pub(in crate::controller) struct Publication {
    /// The instance.
    pub(in crate::controller) instance: VolttronInstance,
    /// All trusted CAs whose key is known, the one that signs certificates first.
    pub(in crate::controller) authorities: Vec<Arc<Authority>>,
    /// The broker that enforces the list.
    pub(in crate::controller) target: Target,
    /// The broker's users, if it was reached before.
    pub(in crate::controller) users: Option<UserKeeperHandle>,
}

/// Where a broker takes AMQP connections.
#[derive(Clone)]
pub(in crate::controller) struct Target {
    /// `host:port`.
    pub(in crate::controller) address: String,
    /// The name in its certificate.
    pub(in crate::controller) server_name: String,
    /// The CA certificates that vouch for it (PEM).
    pub(in crate::controller) roots: String,
}

pub(super) struct Keeper {
    reference: ObjectRef<VolttronInstance>,
    client: Client,
    /// The controller's own namespace, where the ledger is.
    namespace: String,
    secrets: SecretIndex,
    triggers: Triggers,
    orders: mpsc::Receiver<Order>,
    view: Arc<Mutex<View>>,
    publication: Option<Publication>,
    list: Option<PublishedList>,
    /// The ledger as it was read or written last; none where there is no Secret.
    stored: Option<Stored>,
    /// When it may be asked again whether the clock is right.
    next_doubt: Instant,
    /// Whether the list that was signed last is in its `ConfigMap`.
    is_published: bool,
    next_trial: Instant,
    pause: Duration,
}

impl Keeper {
    pub(super) fn spawn(
        reference: ObjectRef<VolttronInstance>,
        context: &Context,
    ) -> RevocationsOf {
        let (sender, orders) = mpsc::channel(1024);
        let view = Arc::<Mutex<View>>::default();
        let keeper = Self {
            reference,
            client: context.client.clone(),
            namespace: context.namespace.clone(),
            secrets: context.secrets.clone(),
            triggers: context.triggers.clone(),
            orders,
            view: view.clone(),
            publication: None,
            list: None,
            stored: None,
            next_doubt: Instant::now(),
            is_published: false,
            next_trial: Instant::now(),
            pause: FIRST_TRIAL,
        };
        tokio::spawn(keeper.run());
        RevocationsOf {
            orders: sender,
            view,
        }
    }

    async fn run(mut self) {
        let mut batch = Vec::new();
        // Beside the orders: a broker that hangs keeps a trial for seconds, and denials do not wait.
        let mut trial = Fuse::terminated();
        loop {
            let (rests, next_trial) = (trial.is_terminated(), self.next_trial);
            tokio::select! {
                count = self.orders.recv_many(&mut batch, 512) => {
                    if count == 0 {
                        return;
                    }
                    self.handle(std::mem::take(&mut batch)).await;
                }
                () = tokio::time::sleep_until(next_trial), if rests && self.is_unproven() => {
                    trial = self.trial();
                }
                (number, seen) = &mut trial => self.tried(number, seen).await,
            }
        }
    }

    async fn handle(&mut self, orders: Vec<Order>) {
        let mut waiting = Vec::with_capacity(orders.len());
        let outcome = self.carry_out(orders, &mut waiting).await.map_err(|error| {
            let instance = &self.reference;
            warn!(%instance, error = %chain(&error), "the revocation list could not be kept; it is tried again");
            Arc::new(error)
        });
        for done in waiting {
            let _ = done.send(outcome.clone());
        }
    }

    async fn carry_out(
        &mut self,
        orders: Vec<Order>,
        waiting: &mut Vec<oneshot::Sender<Outcome>>,
    ) -> Result<(), Error> {
        let now = Timestamp::now();
        let loaded = self.load().await;
        let mut ledger = self.view().ledger.clone();
        self.forget_expired(&mut ledger, now).await;
        let (mut is_new, mut is_compared) = (false, false);
        for order in orders {
            match order {
                Order::Revoke {
                    certificates,
                    identity,
                    why,
                    done,
                } => {
                    let identity = identity
                        .as_ref()
                        .map(|(name, requester)| (name.as_str(), requester.as_str()));
                    match ledger.revoke(&certificates, identity, why, now) {
                        Ok(changed) => {
                            is_new |= changed;
                            waiting.push(done);
                        }
                        Err(full) => {
                            let _ = done.send(Err(Arc::new(Error::ListFull(full))));
                        }
                    }
                }
                Order::Remember { certificate, done } => match ledger.remember(&certificate) {
                    Ok(()) => waiting.push(done),
                    Err(full) => {
                        let _ = done.send(Err(Arc::new(Error::ListFull(full))));
                    }
                },
                Order::Publish { publication, done } => {
                    self.publication = Some(*publication);
                    is_compared = true;
                    waiting.push(done);
                }
            }
        }
        loaded?;
        let mut due = is_new || ledger.is_behind() || self.is_due(now);
        if due {
            ledger.number += 1;
        }
        let mut tries = TRIES;
        while let Err(error) = self.save(&ledger).await {
            tries -= 1;
            if tries == 0 || !matches!(error, Error::Conflict) {
                return Err(error);
            }
            if let Some(theirs) = self.read().await? {
                ledger.merge(&theirs);
            }
            if ledger.is_behind() {
                due = true;
                ledger.number += 1;
            }
        }
        if due && let Some(publication) = &self.publication {
            let list = PublishedList::sign(
                ledger.number,
                ledger.revoked(),
                &publication.authorities,
                now,
            )?;
            info!(
                instance = %self.reference, number = list.number,
                certificates = ledger.revoked().len(), "revocation list signed"
            );
            self.list = Some(list);
            self.is_published = false;
            self.pause = FIRST_TRIAL;
            self.next_trial = Instant::now();
        }
        if is_compared || !self.is_published {
            self.publish().await?;
        }
        Ok(())
    }

    fn is_due(&self, now: Timestamp) -> bool {
        let Some(publication) = &self.publication else {
            return false;
        };
        self.list.as_ref().is_none_or(|list| {
            !list.is_current(&publication.authorities, now)
                || (self.is_unproven() && !list.can_be_tried(now))
        })
    }

    /// Whether the broker has yet to be seen to enforce the list.
    fn is_unproven(&self) -> bool {
        let enforced = self.view().ledger.enforced;
        self.list
            .as_ref()
            .is_some_and(|list| list.number > enforced)
    }

    async fn publish(&mut self) -> Result<(), Error> {
        let (Some(publication), Some(list)) = (&self.publication, &self.list) else {
            return Ok(());
        };
        let map = crl_config_map(&publication.instance, &list.files);
        let api =
            Api::<ConfigMap>::namespaced(self.client.clone(), &map.namespace().unwrap_or_default());
        api.patch(&map.name_any(), &parameters(), &Patch::Apply(&map))
            .await
            .attempt("publish the revocation list")?;
        self.is_published = true;
        Ok(())
    }

    /// Asks whether the broker refuses the canary of the list that was signed last.
    fn trial(&self) -> Fuse<BoxFuture<'static, (i64, Probe)>> {
        let (Some(publication), Some(list)) = (&self.publication, &self.list) else {
            return Fuse::terminated();
        };
        let (target, canary) = (publication.target.clone(), list.canary.clone());
        let number = list.number;
        let trial = async move {
            let Target {
                address,
                server_name,
                roots,
            } = &target;
            let canary = ClientPair {
                chain: &canary.chain,
                key: &canary.key,
            };
            let seen = probe(address, server_name, roots, Some(canary)).await;
            (number, seen)
        };
        trial.boxed().fuse()
    }

    /// Notes what the broker made of the canary of list `number`.
    async fn tried(&mut self, number: i64, seen: Probe) {
        debug!(instance = %self.reference, number, %seen, "revocation list tried");
        self.view().last_probe = seen.to_string();
        let is_latest = self.list.as_ref().is_some_and(|list| list.number == number);
        if seen == Probe::Refused(RefusedBy::Revoked) {
            if let Err(error) = self.proven(number).await {
                warn!(instance = %self.reference, error = %chain(&error), "what was proven of the revocation list could not be written down");
            } else {
                return;
            }
        } else if is_latest
            && let Some(list) = &self.list
            && !list.can_be_tried(Timestamp::now())
        {
            // A new one is made for the next reconcile of the instance.
            self.triggers.instance(self.reference.clone());
        }
        // A list that was signed meanwhile is tried at once.
        if is_latest {
            self.next_trial = Instant::now() + self.pause;
            self.pause = (self.pause * 2).min(LAST_TRIAL);
        }
    }

    async fn proven(&mut self, number: i64) -> Result<(), Error> {
        let (mut ledger, before) = {
            let view = self.view();
            (view.ledger.clone(), view.ledger.enforced)
        };
        ledger.enforced = number;
        self.save(&ledger).await?;
        info!(instance = %self.reference, number, "the broker enforces the revocation list");
        let users = self.publication.as_ref().and_then(|it| it.users.clone());
        let waiting = std::mem::take(&mut self.view().waiting);
        let (instance, triggers) = (self.reference.clone(), self.triggers.clone());
        // Beside the orders, as a trial is.
        tokio::spawn(async move {
            // Where one of two certificates of a name was revoked, its connection may be open still.
            for name in ledger.revoked_after(before) {
                if let (Some(users), Ok(name)) = (&users, name.parse())
                    && let Err(error) = users.disconnect(name).await
                {
                    warn!(%instance, error = %chain(&error), "connections of a revoked certificate could not be closed");
                }
            }
            for request in waiting {
                triggers.request(request);
            }
            triggers.instance(instance);
        });
        Ok(())
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn parameters() -> PatchParams {
    PatchParams::apply(well_known::CONTROLLER_FIELD_MANAGER).force()
}
