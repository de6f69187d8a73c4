//! What the tests have in common: a cluster with the chart installed and the real operator beside it, brokers that run as the
//! operator's manifests say, agents with their keys, and faults on demand.
//!
//! ```text
//! run(async {
//!     let playground = shared().await;                       // or Playground::start(Setup::default()).await
//!     let space = playground.space("orders").await;          // a namespace of its own, with a service account that files requests
//!     let instance = playground.instance("orders", "central", json!({})).await;
//!     let broker = instance.start_broker(Base::Machine).await;
//!     let agent = Agent::new("central.plant.forwarder");
//!     space.file("forwarder", &instance, &agent.csr).await;
//!     space.approve("forwarder").await;
//!     let issued = space.issued("forwarder").await;
//!     broker.connect(Login::certificate(&agent, &issued)).await.unwrap();
//! });
//! ```
//!
//! Everything panics with the state of what it waited for, and the end of the operator's log.

#![allow(clippy::missing_panics_doc, reason = "a test harness panics by design")]
#![allow(
    clippy::must_use_candidate,
    reason = "what a test asks for it uses, or it asks for the panic"
)]

mod agent;
mod broker;
mod children;
mod instance;
mod linter;
mod management;
#[allow(
    clippy::module_inception,
    reason = "its node is what the module is about"
)]
#[path = "../e2e/support/mod.rs"]
pub mod node;
mod openssl;
mod operator;
mod people;
mod playground;
mod proxy;
mod request;
mod volumes;
mod wait;
mod writes;

pub use agent::{Agent, Login, encode};
pub use broker::Broker;
pub use instance::Instance;
pub use linter::{Finding, lint};
pub use management::ManagementProxy;
pub use openssl::{openssl, openssl_fails, openssl_with};
pub use operator::{Answer, Operator, sidecar_program};
pub use playground::{Playground, Replica, SYSTEM, Setup};
pub use proxy::FaultProxy;
pub use request::{Issued, Space};
pub use wait::{SOON, eventually};
pub use writes::{Moment, Writes};

use std::sync::LazyLock;
use tokio::runtime::{Builder, Runtime};

/// Runs a test on the runtime that all tests of the process share, so that they can share clients.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        // A second installation can only be of the same provider.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .expect("a runtime")
    });
    RUNTIME.block_on(test)
}

/// Runs blocking work beside the tests.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work)
        .await
        .expect("blocking work does not panic")
}
