//! The controller: observes, lets the pure parts decide, applies, and writes status.

mod context;
mod error;
mod events;
mod gate;
mod health;
mod instance;
mod metrics;
mod request;
mod runtime;
mod secrets;
mod triggers;

use context::Context;
use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, watcher};
use kube::runtime::{Controller, WatchStreamExt, controller, predicates, reflector as reflect};
use kube::runtime::{Predicate, PredicateConfig};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use volttron_crds::{VolttronCertRequest, VolttronInstance, well_known};

/// How the controller runs.
#[derive(Clone, Debug, clap::Args)]
pub struct Settings {
    /// The namespace this controller runs in. CA keys and broker passwords are kept in Secrets
    /// here, where users of instances have no rights.
    #[arg(long, env = "POD_NAMESPACE")]
    pub namespace: String,
    /// Name of this pod, for Events.
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// Where health and metrics are served.
    #[arg(long, env = "VOLTTRON_LISTEN", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// How many certificates are being written to the API server at once.
    #[arg(long, env = "VOLTTRON_CONCURRENCY", default_value_t = 64,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
    /// How many seconds mounted files are given to follow before a new CA signs, and before an old
    /// one is not trusted any more. A kubelet takes about a minute.
    #[arg(
        long = "trust-settle-seconds",
        env = "VOLTTRON_TRUST_SETTLE",
        default_value_t = 120
    )]
    pub trust_settle: u32,
}

/// How many requests are worked on at once. Most of them wait for the broker, which takes many users
/// in one call at the price of a few; what goes to the API server at once is bounded apart.
const REQUESTS_AT_ONCE: u16 = 512;

/// Runs the controller until SIGTERM or SIGINT.
///
/// # Errors
/// Where there is no usable Kubernetes configuration, or the health port is taken.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    let client = Client::try_default().await?;
    info!(version = env!("CARGO_PKG_VERSION"), namespace = %settings.namespace, "controller starts");

    let reporter = Reporter {
        controller: "volttron-operator".into(),
        instance: settings.pod_name.clone(),
    };
    let events = events::Events::spawn(Recorder::new(client.clone(), reporter));
    let (instances, instance_stream) = cached(Api::<VolttronInstance>::all(client.clone()));
    let (requests, request_stream) = cached(Api::<VolttronCertRequest>::all(client.clone()));
    let (triggers, instance_triggers, request_triggers) = triggers::channels();
    let context = Arc::new(Context::new(
        client.clone(),
        &settings,
        instances.clone(),
        requests.clone(),
        triggers,
        events,
    ));

    let serving = health::serve(settings.listen, context.clone(), stop.clone()).await?;
    tokio::spawn(secrets::watch(context.clone(), stop.clone()));
    tokio::spawn(gate::watch(context.clone(), stop.clone()));

    let owned = watcher::Config::default().labels(&format!(
        "{}={}",
        well_known::MANAGED_BY_LABEL,
        well_known::MANAGED_BY
    ));
    let instance_controller = Controller::for_stream(instance_stream, instances)
        .owns(Api::<StatefulSet>::all(client.clone()), owned.clone())
        .owns(Api::<Service>::all(client.clone()), owned.clone())
        .owns(Api::<ConfigMap>::all(client.clone()), owned)
        .with_config(controller::Config::default().concurrency(16))
        .reconcile_on(instance_triggers)
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(instance::reconcile, instance::on_error, context.clone())
        .for_each(|_| std::future::ready(()));
    let request_controller = Controller::for_stream(request_stream, requests)
        .with_config(controller::Config::default().concurrency(REQUESTS_AT_ONCE))
        .reconcile_on(request_triggers)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(request::reconcile, request::on_error, context.clone())
        .for_each(|_| std::future::ready(()));
    tokio::join!(instance_controller, request_controller);
    serving.await??;
    info!("controller stopped");
    Ok(())
}

/// A cache of all `K`, and the stream of those that a user changed. Status written by this
/// controller is cached and triggers nothing.
fn cached<K>(
    api: Api<K>,
) -> (
    Store<K>,
    impl Stream<Item = Result<K, watcher::Error>> + Send + 'static,
)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq,
{
    let (store, writer) = reflector::store();
    let changed_by_user = predicates::generation
        .combine(predicates::annotations)
        .combine(predicates::finalizers);
    let stream = reflect(
        writer,
        watcher(api, watcher::Config::default())
            .default_backoff()
            .modify(|object| object.managed_fields_mut().clear()),
    )
    .inspect(|event| {
        if let Err(error) = event {
            warn!(kind = %K::kind(&()), %error, "watch interrupted; it is resumed");
        }
    })
    .applied_objects()
    .predicate_filter(changed_by_user, PredicateConfig::default());
    (store, stream)
}

fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
    );
    let token = stop.clone();
    tokio::spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        info!("asked to stop; work in hand is finished first");
        token.cancel();
    });
    Ok(stop)
}
