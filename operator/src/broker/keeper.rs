//! The task that owns the users of one broker.
//!
//! It never waits for the broker: calls run beside it, and their outcomes come back to it. Imports
//! and listings run one at a time, and whatever is ensured meanwhile goes into the next import.
//! Removals wait for neither.

use super::account::{Account, Users};
use super::admission::admit;
use super::claims::Claims;
use super::permissions::clash;
use super::removals::Removals;
use super::users::{Answer, Order, Repaired, SharedError};
use super::{ManagementClient, ManagementError, Topology};
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};
use volttron_crds::CommonName;

/// At most so many users go into one import. RabbitMQ spends some forty milliseconds on any, and
/// what waits for a large one waits long.
const BATCH: usize = 256;

/// What came of a call.
enum Outcome {
    Imported(Result<HashSet<CommonName>, SharedError>),
    Listed(Comparison, Result<Users, SharedError>),
    /// And whether the user was not somebody else's.
    Removed(CommonName, Result<bool, SharedError>),
}

/// A comparison with the broker, and who asked for it.
struct Comparison {
    wanted: HashMap<CommonName, String>,
    /// Released since the comparison before, so that `wanted` may be older than the release.
    released: HashSet<CommonName>,
    done: Answer<Repaired>,
}

pub(super) struct Keeper {
    client: ManagementClient,
    topology: Topology,
    /// Users in here are never removed.
    claims: Claims,
    /// Users known to be on the broker as they should be.
    present: HashSet<CommonName>,
    /// Whether the broker was compared: there is no user of the operator's then that is not known.
    is_compared: bool,
    /// Users that others made, as last listed.
    foreign: HashSet<String>,
    /// Who waits for which user to be imported.
    waiting: Vec<(CommonName, Answer<()>)>,
    /// The users of the import that is under way.
    importing: HashMap<CommonName, Vec<Answer<()>>>,
    /// Whether an import or a listing is under way.
    busy: bool,
    comparisons: VecDeque<(HashMap<CommonName, String>, Answer<Repaired>)>,
    removals: Removals,
    /// Released since the last comparison was begun.
    released: HashSet<CommonName>,
    work: FuturesUnordered<BoxFuture<'static, Outcome>>,
}

impl Keeper {
    pub(super) fn new(client: ManagementClient, topology: Topology) -> Self {
        Self {
            client,
            topology,
            claims: Claims::default(),
            present: HashSet::new(),
            is_compared: false,
            foreign: HashSet::new(),
            waiting: Vec::new(),
            importing: HashMap::new(),
            busy: false,
            comparisons: VecDeque::new(),
            removals: Removals::default(),
            released: HashSet::new(),
            work: FuturesUnordered::new(),
        }
    }

    pub(super) async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            tokio::select! {
                order = orders.recv() => {
                    let Some(order) = order else { return };
                    self.take(order);
                    // What is there already goes into the same import.
                    while let Ok(order) = orders.try_recv() {
                        self.take(order);
                    }
                }
                Some(outcome) = self.work.next() => self.settle(outcome),
            }
            self.start();
        }
    }

    fn take(&mut self, order: Order) {
        match order {
            Order::Ensure {
                name,
                requester,
                holder,
                done,
            } => self.ensure(name, requester, holder, done),
            Order::Release {
                name,
                holder,
                needed,
                done,
            } => self.release(name, &holder, needed, done),
            Order::Disconnect { name, done } => self.disconnect(&name, done),
            Order::Reconcile { wanted, done } => self.comparisons.push_back((wanted, done)),
            Order::Use(client) => self.client = client,
        }
    }

    fn settle(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Imported(result) => self.imported(result),
            Outcome::Listed(comparison, result) => self.listed(comparison, result),
            Outcome::Removed(name, result) => self.removed(name, result),
        }
    }

    /// Starts what can be started.
    fn start(&mut self) {
        while let Some(name) = self.removals.next() {
            let (client, topology) = (self.client.clone(), self.topology.clone());
            self.work.push(Box::pin(async move {
                let result = client.delete_agent(&name.to_string(), &topology).await;
                Outcome::Removed(name, result.map_err(Arc::new))
            }));
        }
        if self.busy {
            return;
        }
        if let Some((wanted, done)) = self.comparisons.pop_front() {
            self.busy = true;
            let comparison = Comparison {
                wanted,
                released: std::mem::take(&mut self.released),
                done,
            };
            let (client, topology) = (self.client.clone(), self.topology.clone());
            self.work.push(Box::pin(async move {
                let result = client.users(&topology).await;
                Outcome::Listed(comparison, result.map_err(Arc::new))
            }));
        } else {
            self.start_import();
        }
    }

    fn start_import(&mut self) {
        for (name, done) in std::mem::take(&mut self.waiting) {
            let room = self.importing.len() < BATCH || self.importing.contains_key(&name);
            if self.present.contains(&name) {
                let _ = done.send(Ok(()));
            } else if room && !self.removals.holds(&name) {
                self.importing.entry(name).or_default().push(done);
            } else {
                self.waiting.push((name, done));
            }
        }
        if self.importing.is_empty() {
            return;
        }
        self.busy = true;
        let names = self.importing.keys().cloned().collect();
        let (client, topology) = (self.client.clone(), self.topology.clone());
        self.work.push(Box::pin(async move {
            let result = admit(&client, &topology, names).await;
            Outcome::Imported(result.map_err(Arc::new))
        }));
    }

    fn ensure(&mut self, name: CommonName, requester: String, holder: String, done: Answer<()>) {
        if let Some(error) = self.refusal(&name, &requester) {
            let _ = done.send(Err(Arc::new(error)));
            return;
        }
        self.claims.add(name.clone(), requester, holder);
        if self.present.contains(&name) {
            let _ = done.send(Ok(()));
        } else {
            self.removals.retry(&name);
            self.waiting.push((name, done));
        }
    }

    fn refusal(&self, name: &CommonName, requester: &str) -> Option<ManagementError> {
        if let Some(why) = clash(name) {
            let name = name.to_string();
            return Some(ManagementError::UnusableName { name, why });
        }
        let owner = self.claims.owner(name);
        if let Some(owner) = owner.filter(|owner| *owner != requester) {
            return Some(ManagementError::ClaimedByAnother {
                name: name.to_string(),
                requester: owner.to_owned(),
            });
        }
        self.is_foreign(name)
            .then(|| ManagementError::ForeignUser(name.to_string()))
    }

    fn is_foreign(&self, name: &CommonName) -> bool {
        self.foreign.contains(&name.to_string())
    }

    fn release(&mut self, name: CommonName, holder: &str, needed: bool, done: Answer<()>) {
        let is_known = self.claims.owner(&name).is_some() || self.removals.holds(&name);
        if self.claims.give_up(&name, holder) || needed {
            let _ = done.send(Ok(()));
            return;
        }
        self.claims.forget(&name);
        self.released.insert(name.clone());
        // Nobody claims it, so that whoever waited has gone away.
        self.waiting.retain(|(waiting, _)| *waiting != name);
        // Who never had the name cannot have anything called that touches the user of that name.
        let never_had_it = self.is_compared && !is_known;
        if never_had_it || self.is_foreign(&name) {
            let _ = done.send(Ok(()));
        } else {
            self.remove(name, Some(done));
        }
    }

    fn disconnect(&self, name: &CommonName, done: Answer<()>) {
        let (client, topology) = (self.client.clone(), self.topology.clone());
        let name = name.to_string();
        tokio::spawn(async move {
            let result = client.disconnect_agent(&name, &topology).await;
            let _ = done.send(result.map_err(Arc::new));
        });
    }

    fn remove(&mut self, name: CommonName, done: Option<Answer<()>>) {
        self.present.remove(&name);
        self.removals.add(name, done);
    }

    fn removed(&mut self, name: CommonName, result: Result<bool, SharedError>) {
        if let Ok(false) = result {
            self.foreign.insert(name.to_string());
        }
        let result = result.map(drop);
        if let Err(error) = &result {
            let mut others = Vec::new();
            for (waiting, done) in std::mem::take(&mut self.waiting) {
                if waiting == name {
                    let _ = done.send(Err(error.clone()));
                } else {
                    others.push((waiting, done));
                }
            }
            self.waiting = others;
        }
        let importing = self.importing.contains_key(&name);
        self.removals.ended(name, &result, importing);
    }

    fn imported(&mut self, result: Result<HashSet<CommonName>, SharedError>) {
        self.busy = false;
        for (name, waiters) in std::mem::take(&mut self.importing) {
            self.removals.imported(&name);
            let answer = match &result {
                Err(error) => Err(error.clone()),
                Ok(foreign) if foreign.contains(&name) => {
                    self.foreign.insert(name.to_string());
                    Err(Arc::new(ManagementError::ForeignUser(name.to_string())))
                }
                Ok(_) => {
                    if !self.removals.holds(&name) {
                        self.present.insert(name);
                    }
                    Ok(())
                }
            };
            for done in waiters {
                let _ = done.send(answer.clone());
            }
        }
    }

    fn listed(&mut self, comparison: Comparison, result: Result<Users, SharedError>) {
        self.busy = false;
        let Comparison {
            mut wanted,
            released,
            done,
        } = comparison;
        let Users { mut agents, others } = match result {
            Ok(users) => users,
            Err(error) => {
                let _ = done.send(Err(error));
                return;
            }
        };
        self.foreign = others;
        self.is_compared = true;
        wanted.retain(|name, _| {
            !released.contains(name) && !self.released.contains(name) && clash(name).is_none()
        });
        self.claims.record(wanted);
        let names: HashSet<CommonName> = self
            .claims
            .names()
            .filter(|name| !self.is_foreign(name))
            .cloned()
            .collect();
        let mut waiting = HashSet::new();
        for (name, done) in std::mem::take(&mut self.waiting) {
            if self.is_foreign(&name) {
                let error = ManagementError::ForeignUser(name.to_string());
                let _ = done.send(Err(Arc::new(error)));
            } else if names.contains(&name) {
                waiting.insert(name.clone());
                self.waiting.push((name, done));
            }
        }
        self.present.clear();
        // A user that was changed goes, and comes back as it should be. What it has bound meanwhile
        // goes with its connections; taking away one topic permission by one would take all, and it
        // could bind anything until the next is there; and whoever takes over after a half of that
        // sees that a user is missing.
        let (mut restoring, mut removing) = (Vec::new(), Vec::new());
        for name in names {
            let wanted = Account::of_agent(&name, &self.topology);
            self.removals.retry(&name);
            match agents.remove(&name) {
                Some(found) if found != wanted => self.remove(name.clone(), None),
                Some(_) if !self.removals.holds(&name) => {
                    self.present.insert(name);
                    continue;
                }
                _ => {}
            }
            if !waiting.contains(&name) {
                let (sender, receiver) = oneshot::channel();
                self.waiting.push((name, sender));
                restoring.push(receiver);
            }
        }
        for name in agents.into_keys() {
            let (sender, receiver) = oneshot::channel();
            self.remove(name, Some(sender));
            removing.push(receiver);
        }
        tokio::spawn(async move {
            let repaired = Repaired {
                restored: restoring.len(),
                removed: removing.len(),
            };
            let _ = done.send(all(restoring, removing).await.map(|()| repaired));
        });
    }
}

/// Waits for all repairs. One that was given up meanwhile, because its user was released, is done.
async fn all(
    restoring: Vec<oneshot::Receiver<Result<(), SharedError>>>,
    removing: Vec<oneshot::Receiver<Result<(), SharedError>>>,
) -> Result<(), SharedError> {
    for repair in restoring.into_iter().chain(removing) {
        match repair.await {
            Ok(Err(error)) if error.is_about_the_name() => {}
            Ok(result) => result?,
            Err(_) => {}
        }
    }
    Ok(())
}
