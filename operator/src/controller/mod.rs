//! The controller: observes, lets the pure parts decide, applies, and writes status.

mod approvals;
mod clock;
mod context;
mod error;
mod events;
mod filled;
mod gate;
mod health;
mod identities;
mod instance;
mod metrics;
mod namespaces;
mod request;
mod revocations;
mod room;
mod runtime;
mod secrets;
mod text;
mod triggers;

use crate::leadership::{self, Election, Leadership};
use context::Context;
use filled::Filled;
use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::client::ClientBuilder;
use kube::runtime::reflector::{self, Store};
use kube::runtime::watcher::{self, watcher};
use kube::runtime::{Controller, WatchStreamExt, controller, predicates, reflector as reflect};
use kube::runtime::{Predicate, PredicateConfig};
use kube::{Api, Client, Config, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::hash::Hash;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
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
    /// For how many seconds other replicas leave the lead to one that does not renew its Lease.
    #[arg(long, env = "VOLTTRON_LEASE_DURATION_SECONDS", default_value_t = 15,
          value_parser = clap::value_parser!(u16).range(3..=3600))]
    pub lease_duration_seconds: u16,
    /// How many seconds a request that was superseded by a later one of the same identity stays.
    #[arg(long, env = "VOLTTRON_SUPERSEDED_GRACE_SECONDS", default_value_t = 60)]
    pub superseded_grace_seconds: u64,
    /// How many seconds mounted files are given to follow before a new CA signs, and before an old
    /// one is not trusted any more. A kubelet takes about a minute.
    #[arg(long, env = "VOLTTRON_TRUST_SETTLE_SECONDS", default_value_t = 120)]
    pub trust_settle_seconds: u32,
    /// Whether to warn where the API server could write down who files and who decides on a
    /// request, and does not.
    #[arg(long, env = "VOLTTRON_EXPECT_STAMPING", default_value_t = true,
          action = clap::ArgAction::Set)]
    pub expect_stamping: bool,
}

/// How many requests are worked on at once. Most of them wait for the broker, which takes many users
/// in one call at the price of a few; what goes to the API server at once is bounded apart.
const REQUESTS_AT_ONCE: u16 = 512;

/// How many instances are worked on at once. One whose broker hangs keeps its place for some ten
/// seconds each time, so that there must be places for many of them beside those that are well.
const INSTANCES_AT_ONCE: u16 = 256;

/// How long the Lease is kept after the last work, for Events that wait. They are published from
/// the moment on when the replica is asked to stop, beside the work it has in hand.
const LAST_EVENTS: std::time::Duration = std::time::Duration::from_secs(2);

/// Runs the controller until SIGTERM or SIGINT: it stands by, and leads whenever it has the Lease.
///
/// # Errors
/// Where there is no usable Kubernetes configuration, or the health port is taken.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    let config = Config::infer().await?;
    info!(version = env!("CARGO_PKG_VERSION"), namespace = %settings.namespace, "controller starts");

    let mut of_election = config.clone();
    of_election.default_retry = false;
    let election = Election::new(
        of_election.try_into()?,
        &settings.namespace,
        settings.pod_name.as_deref(),
        settings.lease_duration_seconds,
    );
    let health = health::Health::new(election.seat());
    let serving = health.serve(settings.listen, stop.clone()).await?;
    leadership::run(election, &stop, async |leadership, term| {
        let fence = leadership::fence(&leadership);
        let client = ClientBuilder::try_from(config.clone())?
            .with_layer(&fence)
            .build();
        lead(&settings, client, leadership, &health, term).await;
        Ok(())
    })
    .await?;
    serving.await??;
    info!("controller stopped");
    Ok(())
}

/// Reconciles until `stop`, or until it is dropped, which ends every reconcile where it stands.
async fn lead(
    settings: &Settings,
    client: Client,
    leadership: Leadership,
    health: &health::Health,
    stop: CancellationToken,
) {
    let (triggers, instance_triggers, request_triggers) = triggers::channels();
    let (identities, room) = (identities::Identities::default(), room::Room::default());
    let approvals = approvals::Approvals::default();
    let (instances, instance_stream, instances_filled) =
        cached(Api::<VolttronInstance>::all(client.clone()), |_| ());
    let (requests, request_stream, requests_filled) =
        cached(Api::<VolttronCertRequest>::all(client.clone()), {
            let (identities, room, triggers) = (identities.clone(), room.clone(), triggers.clone());
            let approvals = approvals.clone();
            move |event| {
                room.observe(event);
                approvals.observe(event);
                for gone in identities.observe(event, &triggers) {
                    room.leave(&gone, &triggers);
                }
            }
        });
    let context = Arc::new(Context::new(
        client.clone(),
        leadership,
        settings,
        context::Caches {
            instances: instances.clone(),
            instances_filled,
            requests: requests.clone(),
            requests_filled,
            identities,
            room,
            approvals,
        },
        triggers,
        metrics::Metrics::new(health.counts()),
    ));

    health.show(&context);
    tokio::spawn(secrets::watch(context.clone(), stop.clone()));
    tokio::spawn(namespaces::watch(context.clone(), stop.clone()));
    tokio::spawn(gate::watch(context.clone(), stop.clone()));
    if settings.expect_stamping {
        tokio::spawn(gate::watch_stamping(context.clone(), stop.clone()));
    }
    let reporter = settings.pod_name.as_deref().unwrap_or("volttron-operator");
    let publishing = events::publish(context.clone(), reporter.to_owned(), stop.clone());
    let publishing = AbortOnDropHandle::new(tokio::spawn(publishing));

    let owned = watcher::Config::default().labels(&format!(
        "{}={}",
        well_known::MANAGED_BY_LABEL,
        well_known::MANAGED_BY
    ));
    let instance_controller = Controller::for_stream(instance_stream, instances)
        .owns(Api::<StatefulSet>::all(client.clone()), owned.clone())
        .owns(Api::<Service>::all(client.clone()), owned.clone())
        .owns(Api::<ConfigMap>::all(client.clone()), owned)
        .with_config(controller::Config::default().concurrency(INSTANCES_AT_ONCE))
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
    context.events.close();
    if tokio::time::timeout(LAST_EVENTS, publishing).await.is_err() {
        warn!("not all Events could be published; the next leader tells what was decided");
    }
}

/// A cache of all `K`, and the stream of those that a user changed. Status written by this
/// controller is cached and triggers nothing. `observe` sees each event once it is cached. The
/// cache says when it has been filled.
fn cached<K>(
    api: Api<K>,
    observe: impl Fn(&watcher::Event<K>) + Send + Sync + 'static,
) -> (
    Store<K>,
    impl Stream<Item = Result<K, watcher::Error>> + Send + 'static,
    Filled,
)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Hash + Eq,
{
    let (store, writer) = reflector::store();
    let filled = Filled::default();
    let filling = filled.clone();
    let changed_by_user = predicates::generation
        .combine(predicates::annotations)
        .combine(predicates::finalizers);
    let stream = reflect(
        writer,
        watcher(api, watcher::Config::default())
            .default_backoff()
            .modify(|object| object.managed_fields_mut().clear()),
    )
    .inspect(move |event| match event {
        Ok(event) => {
            observe(event);
            if matches!(event, watcher::Event::InitDone) {
                filling.set();
            }
        }
        Err(error) => warn!(kind = %K::kind(&()), %error, "watch interrupted; it is resumed"),
    })
    .applied_objects()
    .predicate_filter(changed_by_user, PredicateConfig::default());
    (store, stream, filled)
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
