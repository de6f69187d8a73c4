//! The playground and the broker that tests share which disturb neither.

use local_cluster::{Base, Component};
use serde_json::json;
use std::ops::Deref;
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use volttron_tests::{Broker, Playground, Setup};

/// The playground of all tests that neither stop the API server nor kill the operator.
pub async fn playground() -> &'static Playground {
    static PLAYGROUND: OnceCell<Playground> = OnceCell::const_new();
    PLAYGROUND
        .get_or_init(|| Playground::start(Setup::default()))
        .await
}

/// The broker of an instance `central` that nobody disturbs.
pub async fn central() -> &'static Broker<'static> {
    static CENTRAL: OnceCell<Broker<'static>> = OnceCell::const_new();
    CENTRAL
        .get_or_init(async || {
            let playground = playground().await;
            let namespace = playground.namespace("plant").await;
            let instance = playground.instance(&namespace, "central", json!({})).await;
            instance.start_broker(Base::Machine).await
        })
        .await
}

/// For tests that kill the operator.
pub static KILLS: Disturbed = Disturbed::new();

/// A playground for tests that stop what others need: one of them at a time. Its operator is behind a proxy.
pub struct Disturbed {
    playground: OnceCell<Playground>,
    turn: Mutex<()>,
}

/// A playground that nobody else has meanwhile.
pub struct Turn<'a> {
    playground: &'a Playground,
    _turn: MutexGuard<'a, ()>,
}

impl Disturbed {
    /// Started when it is needed.
    pub const fn new() -> Self {
        Self {
            playground: OnceCell::const_new(),
            turn: Mutex::const_new(()),
        }
    }

    /// Waits for its turn; whatever the test before has left, API server and operator run.
    pub async fn lock(&self) -> Turn<'_> {
        let turn = self.turn.lock().await;
        let playground = self
            .playground
            .get_or_init(|| Playground::start(Setup { proxy: true }))
            .await;
        let cluster = playground.cluster().clone();
        tokio::task::spawn_blocking(move || {
            for part in [Component::Etcd, Component::ApiServer] {
                cluster.start_component(part).unwrap();
            }
        })
        .await
        .unwrap();
        playground.proxy().count(&[]);
        playground.proxy().set_away(false);
        if playground.operator().pid().is_none() {
            playground.operator().start_again();
        }
        playground.operator().wait_ready().await;
        Turn {
            playground,
            _turn: turn,
        }
    }
}

impl<'a> Turn<'a> {
    /// The playground, which stays when the turn is over.
    pub fn playground(&self) -> &'a Playground {
        self.playground
    }
}

impl Deref for Turn<'_> {
    type Target = Playground;

    fn deref(&self) -> &Playground {
        self.playground
    }
}
