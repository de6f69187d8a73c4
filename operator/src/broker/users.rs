//! The way to the keeper of a broker's users.

use super::keeper::Keeper;
use super::{ManagementClient, ManagementError, Topology};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use volttron_crds::CommonName;

/// How long an answer is waited for. What was asked for goes on without whoever asked.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the answer about a user is waited for before whoever asked may do something else: as
/// long as a broker takes that has nothing else to do.
const SHORTLY: Duration = Duration::from_millis(100);

/// The error of a call, shared by all that waited for it.
pub type SharedError = Arc<ManagementError>;
/// How an order is answered.
pub(super) type Answer<T> = oneshot::Sender<Result<T, SharedError>>;

pub(super) enum Order {
    Ensure {
        name: CommonName,
        requester: String,
        holder: String,
        done: Answer<()>,
    },
    Release {
        name: CommonName,
        holder: String,
        needed: bool,
        done: Answer<()>,
    },
    Disconnect {
        name: CommonName,
        done: Answer<()>,
    },
    Reconcile {
        wanted: HashMap<CommonName, String>,
        done: Answer<Repaired>,
    },
    Use(ManagementClient),
}

/// What a comparison with the broker changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Users that were missing, or were not as they should be.
    pub restored: usize,
    /// Users of the operator that nobody needs any more.
    pub removed: usize,
}

/// What came of asking for a user.
#[derive(Debug)]
#[must_use]
pub enum Ensured {
    /// The user is on the broker.
    Present,
    /// The broker takes its time: the answer is still to come.
    Asked(Awaited),
}

/// An answer that is still to come.
#[derive(Debug)]
pub struct Awaited {
    answer: oneshot::Receiver<Result<(), SharedError>>,
    address: String,
}

impl Awaited {
    /// Waits for the answer.
    ///
    /// # Errors
    /// As [`UserKeeperHandle::ensure`], and [`ManagementError::Slow`] where it takes long.
    pub async fn answer(self) -> Result<(), SharedError> {
        let Self { answer, address } = self;
        match timeout(PATIENCE, answer).await {
            Ok(answer) => answer.map_err(|_| stopped(&address))?,
            Err(_) => Err(Arc::new(ManagementError::Slow(address))),
        }
    }
}

fn stopped(address: &str) -> SharedError {
    Arc::new(ManagementError::Unreachable {
        address: address.to_owned(),
        detail: "its keeper has been replaced; this is tried again".to_owned(),
    })
}

/// Starts the task that keeps the users of one broker.
pub struct UserKeeper;

impl UserKeeper {
    /// Starts the task for the broker behind `client`. It ends when the last handle is dropped.
    #[must_use]
    pub fn spawn(client: ManagementClient, topology: Topology) -> UserKeeperHandle {
        let (sender, orders) = mpsc::channel(1024);
        let address = client.address().to_owned();
        tokio::spawn(Keeper::new(client, topology).run(orders));
        UserKeeperHandle {
            orders: sender,
            address,
        }
    }
}

/// The way to the keeper of a broker's users. All changes of users pass through its one task, so
/// that a user is never removed under the feet of a request that has just been given it, a name
/// never goes to two requesters, and many requests at once become few calls.
#[derive(Clone, Debug)]
pub struct UserKeeperHandle {
    orders: mpsc::Sender<Order>,
    address: String,
}

impl UserKeeperHandle {
    /// Sees that `name` may log in, on behalf of `holder` (a request's UID) of `requester`. The
    /// claim stays, also after an error, until it is released.
    ///
    /// # Errors
    /// [`ManagementError::ClaimedByAnother`], [`ManagementError::ForeignUser`] and
    /// [`ManagementError::UnusableName`] where the name is not to be had, others where the broker
    /// could not be changed.
    pub async fn ensure(
        &self,
        name: CommonName,
        requester: String,
        holder: String,
    ) -> Result<Ensured, SharedError> {
        let order = |done| Order::Ensure {
            name,
            requester,
            holder,
            done,
        };
        let mut answer = self.send(order).await?;
        match timeout(SHORTLY, &mut answer).await {
            Ok(answer) => answer
                .map_err(|_| stopped(&self.address))?
                .map(|()| Ensured::Present),
            Err(_) => Ok(Ensured::Asked(Awaited {
                answer,
                address: self.address.clone(),
            })),
        }
    }

    /// Gives up `holder`'s claim on `name`. The user is removed, and its connections are closed,
    /// unless another request holds it or `needed` says so. This waits for no other change.
    ///
    /// # Errors
    /// [`ManagementError`] where the broker could not be changed.
    pub async fn release(
        &self,
        name: CommonName,
        holder: String,
        needed: bool,
    ) -> Result<(), SharedError> {
        let order = self.order(|done| Order::Release {
            name,
            holder,
            needed,
            done,
        });
        self.patiently(order).await
    }

    /// Closes the connections of `name`, which may connect again where its certificate is good.
    /// This waits for no other change.
    ///
    /// # Errors
    /// [`ManagementError`] where the broker could not do it.
    pub async fn disconnect(&self, name: CommonName) -> Result<(), SharedError> {
        let order = self.order(|done| Order::Disconnect { name, done });
        self.patiently(order).await
    }

    /// Compares the broker's users with those `wanted`, each with its requester, and repairs the
    /// difference.
    ///
    /// # Errors
    /// [`ManagementError`] where the broker could not be read or changed.
    pub async fn reconcile(
        &self,
        wanted: HashMap<CommonName, String>,
    ) -> Result<Repaired, SharedError> {
        self.order(|done| Order::Reconcile { wanted, done }).await
    }

    /// Lets the keeper use another client of the same broker from now on, for example one that
    /// trusts a new CA too. What it knows stays.
    pub async fn use_client(&self, client: ManagementClient) {
        // It fails only where the task has been cancelled with the runtime.
        let _ = self.orders.send(Order::Use(client)).await;
    }

    async fn patiently<T>(
        &self,
        order: impl Future<Output = Result<T, SharedError>>,
    ) -> Result<T, SharedError> {
        timeout(PATIENCE, order)
            .await
            .unwrap_or_else(|_| Err(Arc::new(ManagementError::Slow(self.address.clone()))))
    }

    async fn order<T>(&self, order: impl FnOnce(Answer<T>) -> Order) -> Result<T, SharedError> {
        let answer = self.send(order).await?;
        answer.await.map_err(|_| stopped(&self.address))?
    }

    async fn send<T>(
        &self,
        order: impl FnOnce(Answer<T>) -> Order,
    ) -> Result<oneshot::Receiver<Result<T, SharedError>>, SharedError> {
        let (done, answer) = oneshot::channel();
        let sent = self.orders.send(order(done)).await;
        sent.map_err(|_| stopped(&self.address))?;
        Ok(answer)
    }
}
