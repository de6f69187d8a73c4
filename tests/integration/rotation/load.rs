//! Agents that connect all the time while a CA is replaced.

use super::{STEP, clear_cache};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use volttron_tests::{Broker, Issued, Login};

/// Connections that are tried all the time, and what came of them.
pub(super) struct Load<'a> {
    broker: &'a Broker<'a>,
    over: AtomicBool,
    published: Mutex<Option<Issued>>,
    accepted: Mutex<BTreeMap<&'static str, usize>>,
    refused: Mutex<Vec<String>>,
}

impl<'a> Load<'a> {
    pub(super) fn new(broker: &'a Broker<'a>) -> Self {
        Self {
            broker,
            over: AtomicBool::new(false),
            published: Mutex::default(),
            accepted: Mutex::default(),
            refused: Mutex::default(),
        }
    }

    pub(super) fn end(&self) {
        self.over.store(true, Ordering::SeqCst);
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    /// Hands a certificate to those who wait for one.
    pub(super) fn publish(&self, issued: Issued) {
        *lock(&self.published) = Some(issued);
    }

    pub(super) fn published(&self) -> Option<Issued> {
        lock(&self.published).clone()
    }

    /// Connects again and again, once there is a way to log in.
    pub(super) async fn dial(&self, what: &'static str, login: impl AsyncFn() -> Option<Login>) {
        lock(&self.accepted).insert(what, 0);
        while !self.is_over() {
            if let Some(login) = login().await {
                match self.broker.connect(login).await {
                    Ok(connection) => {
                        *lock(&self.accepted).entry(what).or_default() += 1;
                        let _ = connection.close(200, "enough".into()).await;
                    }
                    Err(why) => lock(&self.refused).push(format!("{what}: {why}")),
                }
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Gives the broker the files that the API server holds, and has it read them.
    pub(super) async fn follow_files(&self) {
        while !self.is_over() {
            self.broker.refresh_files().await;
            clear_cache(self.broker).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    }

    pub(super) async fn until_each_has(&self, count: usize) {
        let before = lock(&self.accepted).clone();
        let enough = || {
            let now = lock(&self.accepted).clone();
            let few = now.iter().find(|(what, now)| **now < before[*what] + count);
            few.map_or(Ok(()), |few| Err(format!("{few:?} of {now:?}")))
        };
        let playground = self.broker.instance.playground;
        playground
            .eventually("everybody has connected again", STEP, async || enough())
            .await;
    }

    pub(super) fn assert_none_refused(&self) {
        let refused = lock(&self.refused);
        let accepted = lock(&self.accepted);
        println!("{accepted:?}");
        assert!(
            refused.is_empty(),
            "refused: {refused:#?}; accepted: {accepted:?}"
        );
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
