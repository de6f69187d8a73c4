//! The playground and the broker that tests share which disturb neither.

use jiff::SignedDuration;
use local_cluster::{Base, Component};
use serde_json::json;
use std::ops::Deref;
use tokio::sync::{Mutex, MutexGuard, OnceCell, Semaphore, SemaphorePermit};
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

/// How many playgrounds there are for tests that stop what others need.
const DISTURBED: usize = 2;

/// A playground that nobody else has meanwhile, whose operator is behind a proxy.
pub struct Turn {
    ground: &'static Ground,
    slot: MutexGuard<'static, Option<&'static Ground>>,
    _permit: SemaphorePermit<'static>,
}

/// What one test after the other has.
struct Ground {
    playground: Playground,
    plant: OnceCell<Broker<'static>>,
}

/// Waits until a playground is free that may be disturbed. Whatever the test before has left, API server and operator run.
pub async fn disturbed() -> Turn {
    static FREE: Semaphore = Semaphore::const_new(DISTURBED);
    static SLOTS: [Mutex<Option<&Ground>>; DISTURBED] =
        [const { Mutex::const_new(None) }; DISTURBED];
    let permit = FREE.acquire().await.unwrap();
    let mut slot = SLOTS
        .iter()
        .find_map(|slot| slot.try_lock().ok())
        .expect("as many slots as permits");
    let ground = match *slot {
        Some(ground) => ground,
        None => slot.insert(Box::leak(Box::new(Ground::start().await))),
    };
    let turn = Turn {
        ground,
        slot,
        _permit: permit,
    };
    let playground = &ground.playground;
    let cluster = playground.cluster().clone();
    tokio::task::spawn_blocking(move || {
        for part in [Component::Etcd, Component::ApiServer] {
            cluster.start_component(part).unwrap();
        }
    })
    .await
    .unwrap();
    playground.proxy().count(&[]);
    playground.proxy().hide(None);
    playground.proxy().set_away(false);
    playground.proxy().refuse(&[]);
    playground.proxy().set_ahead(SignedDuration::ZERO);
    if playground.operator().pid().is_none() {
        playground.operator().start_again();
    } else {
        playground.operator().resume();
    }
    playground.operator().wait_ready().await;
    turn
}

impl Ground {
    async fn start() -> Self {
        let setup = Setup {
            proxy: true,
            superseded_grace: Some(3),
            ..Setup::default()
        };
        Self {
            playground: Playground::start(setup).await,
            plant: OnceCell::const_new(),
        }
    }
}

impl Turn {
    /// The broker of an instance `central` in this playground; the instance is Ready.
    pub async fn plant(&self) -> &'static Broker<'static> {
        let playground = &self.ground.playground;
        let start = async || {
            let namespace = playground.namespace("plant").await;
            let instance = playground.instance(&namespace, "central", json!({}));
            instance.await.start_broker(Base::Machine).await
        };
        let broker = self.ground.plant.get_or_init(start).await;
        broker.instance.ready().await;
        broker
    }
}

impl Deref for Turn {
    type Target = Playground;

    fn deref(&self) -> &Playground {
        &self.ground.playground
    }
}

impl Drop for Turn {
    /// What a test that failed has left is nobody's: one failure is to be seen as one.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.ground.playground.operator().kill();
            *self.slot = None;
        }
    }
}
