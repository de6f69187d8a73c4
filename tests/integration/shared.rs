//! The playground and the broker that tests share which disturb neither.

use tokio::sync::OnceCell;
use volttron_tests::{Broker, Playground, Setup};

use local_cluster::Base;
use serde_json::json;

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
