//! Keeps the users of one broker. All changes of users pass through one task, so that a user is
//! never removed under the feet of a request that has just been given it, and so that many
//! requests at once become few calls.

use super::{ManagementClient, ManagementError, Permissions, Topology};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use volttron_crds::CommonName;

/// At most so many users go into one import.
const BATCH: usize = 512;

/// The error of a batch, shared by all that were in it.
pub type SharedError = Arc<ManagementError>;

enum Order {
    Ensure {
        name: CommonName,
        holder: String,
        done: oneshot::Sender<Result<(), SharedError>>,
    },
    Release {
        name: CommonName,
        holder: String,
        needed: bool,
        done: oneshot::Sender<Result<(), SharedError>>,
    },
    Reconcile {
        wanted: HashSet<CommonName>,
        done: oneshot::Sender<Result<Repaired, SharedError>>,
    },
}

/// What a comparison with the broker changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Users that were missing, or had other permissions.
    pub restored: usize,
    /// Users of the operator that nobody needs any more.
    pub removed: usize,
}

/// The way to a [`UserKeeper`]. It ends when the last handle is dropped.
#[derive(Clone, Debug)]
pub struct UserKeeperHandle {
    orders: mpsc::Sender<Order>,
}

impl UserKeeperHandle {
    /// Sees that `name` may log in, on behalf of `holder` (a request's UID). Returns when the user
    /// is on the broker.
    ///
    /// # Errors
    /// [`ManagementError`] where the broker could not be changed.
    pub async fn ensure(&self, name: CommonName, holder: String) -> Result<(), SharedError> {
        self.order(|done| Order::Ensure { name, holder, done })
            .await
    }

    /// Gives up `holder`'s claim on `name`. The user is removed, and its connections are closed,
    /// unless another request holds it or `needed` says so.
    ///
    /// # Errors
    /// [`ManagementError`] where the broker could not be changed.
    pub async fn release(
        &self,
        name: CommonName,
        holder: String,
        needed: bool,
    ) -> Result<(), SharedError> {
        self.order(|done| Order::Release {
            name,
            holder,
            needed,
            done,
        })
        .await
    }

    /// Compares the broker's users with those `wanted` and repairs the difference.
    ///
    /// # Errors
    /// [`ManagementError`] where the broker could not be read or changed.
    pub async fn reconcile(&self, wanted: HashSet<CommonName>) -> Result<Repaired, SharedError> {
        self.order(|done| Order::Reconcile { wanted, done }).await
    }

    async fn order<T>(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<T, SharedError>>) -> Order,
    ) -> Result<T, SharedError> {
        let (done, answer) = oneshot::channel();
        let stopped = || {
            Arc::new(ManagementError::Unreachable {
                address: "the broker".to_owned(),
                detail: "its keeper has been replaced; this is tried again".to_owned(),
            })
        };
        self.orders.send(order(done)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }
}

/// The task that owns the users of one broker.
pub struct UserKeeper {
    client: ManagementClient,
    topology: Topology,
    orders: mpsc::Receiver<Order>,
    /// Who needs which user. Users in here are never removed.
    claims: HashMap<CommonName, HashSet<String>>,
    /// Users known to be on the broker as they should be.
    present: HashSet<CommonName>,
    /// Users that others made, as last listed.
    foreign: HashSet<String>,
}

impl UserKeeper {
    /// Starts the task for the broker behind `client`.
    #[must_use]
    pub fn spawn(client: ManagementClient, topology: Topology) -> UserKeeperHandle {
        let (sender, orders) = mpsc::channel(1024);
        let keeper = Self {
            client,
            topology,
            orders,
            claims: HashMap::new(),
            present: HashSet::new(),
            foreign: HashSet::new(),
        };
        tokio::spawn(keeper.run());
        UserKeeperHandle { orders: sender }
    }

    async fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        while self.orders.recv_many(&mut batch, BATCH).await > 0 {
            let mut ensure = Vec::new();
            for order in batch.drain(..) {
                match order {
                    Order::Ensure { name, done, .. } if self.is_foreign(&name) => {
                        let error = ManagementError::ForeignUser(name.to_string());
                        let _ = done.send(Err(Arc::new(error)));
                    }
                    Order::Ensure { name, holder, done } => {
                        self.claims.entry(name.clone()).or_default().insert(holder);
                        ensure.push((name, done));
                    }
                    // What was asked before is done before.
                    Order::Release {
                        name,
                        holder,
                        needed,
                        done,
                    } => {
                        self.ensure_all(std::mem::take(&mut ensure)).await;
                        let _ = done.send(self.release(name, &holder, needed).await);
                    }
                    Order::Reconcile { wanted, done } => {
                        self.ensure_all(std::mem::take(&mut ensure)).await;
                        let _ = done.send(self.reconcile(wanted).await);
                    }
                }
            }
            self.ensure_all(ensure).await;
        }
    }

    fn is_foreign(&self, name: &CommonName) -> bool {
        self.foreign.contains(&name.to_string())
    }

    async fn ensure_all(
        &mut self,
        wanted: Vec<(CommonName, oneshot::Sender<Result<(), SharedError>>)>,
    ) {
        let missing: HashSet<&CommonName> = wanted
            .iter()
            .map(|(name, _)| name)
            .filter(|name| !self.present.contains(name))
            .collect();
        let result = if missing.is_empty() {
            Ok(())
        } else {
            let definitions = self.topology.agent_definitions(missing.iter().copied());
            self.client.import(&definitions).await.map_err(Arc::new)
        };
        for (name, done) in wanted {
            if result.is_ok() {
                self.present.insert(name);
            }
            let _ = done.send(result.clone());
        }
    }

    async fn release(
        &mut self,
        name: CommonName,
        holder: &str,
        needed: bool,
    ) -> Result<(), SharedError> {
        if let Some(holders) = self.claims.get_mut(&name) {
            holders.remove(holder);
            if !holders.is_empty() {
                return Ok(());
            }
            self.claims.remove(&name);
        }
        if needed || self.is_foreign(&name) {
            return Ok(());
        }
        self.present.remove(&name);
        self.client
            .delete_user(&name.to_string())
            .await
            .map_err(Arc::new)
    }

    async fn reconcile(
        &mut self,
        mut wanted: HashSet<CommonName>,
    ) -> Result<Repaired, SharedError> {
        wanted.extend(self.claims.keys().cloned());
        let users = self
            .client
            .users(&self.topology.virtual_host)
            .await
            .map_err(Arc::new)?;
        self.foreign = users.others;
        wanted.retain(|name| !self.foreign.contains(&name.to_string()));
        let mut found = users.agents;
        let missing: Vec<&CommonName> = wanted
            .iter()
            .filter(|name| {
                found.remove(&name.to_string()).flatten().as_ref()
                    != Some(&Permissions::of_agent(name))
            })
            .collect();
        if !missing.is_empty() {
            let definitions = self.topology.agent_definitions(missing.iter().copied());
            self.client.import(&definitions).await.map_err(Arc::new)?;
        }
        for name in found.keys() {
            self.client.delete_user(name).await.map_err(Arc::new)?;
        }
        let repaired = Repaired {
            restored: missing.len(),
            removed: found.len(),
        };
        self.present = wanted;
        Ok(repaired)
    }
}
