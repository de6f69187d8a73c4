//! The sidecar beside a VOLTTRON agent. It makes a key, asks a `VolttronInstance` for a
//! certificate, waits for an administrator's approval, and holds the TLS connection to the
//! instance's broker.

mod connection;
mod credentials;
mod driver;
mod report;
mod request;
mod settings;
mod state;

use anyhow::Context as _;
use clap::Parser as _;
use credentials::directory::Directory;
use driver::{Channels, Driver};
use report::{Metrics, Standing};
use request::key::AgentKey;
use settings::{LogFormat, Settings};
use state::{Link, State};
use std::io::{IsTerminal as _, stdout};
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{error, info};
use tracing_subscriber::EnvFilter;

/// Longer than a clean close of the connection takes.
const SHUTDOWN: Duration = Duration::from_secs(6);

/// The libraries' own lines would repeat ours, as errors and for each attempt.
const DEFAULT_FILTER: &str = "info,lapin=off,kube_client=off,kube_runtime=off";

fn main() -> ExitCode {
    let settings = Settings::parse();
    log_to_stdout(settings.log_format);
    match start(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(settings: Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start")?;
    let result = runtime.block_on(run(settings));
    // Not dropped: that would wait for a name look-up to end.
    runtime.shutdown_background();
    result
}

async fn run(settings: Settings) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for signals")?;
    rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a second cryptography provider is linked in"))?;

    let home = settings.home().with_context(|| {
        let namespace = &settings.pod_namespace;
        format!("namespace {namespace:?} cannot be the local instance: set VOLTTRON_LOCAL_INSTANCE")
    })?;
    let directory = settings.credentials_dir.as_deref();
    let directory = directory.map(Directory::open).transpose()?;
    let key = match &directory {
        Some(directory) => directory.key()?,
        None => AgentKey::generate()?,
    };
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("cannot listen on {}", settings.listen))?;
    let client = kube::Client::try_default()
        .await
        .context("no API server: run in a pod, or set KUBECONFIG")?;

    let metrics = Metrics::new();
    let (standing, standing_seen) = watch::channel(Standing {
        state: State::Filing,
        reason: "starting".to_owned(),
    });
    let (target, target_seen) = watch::channel(None);
    let (link, link_seen) = watch::channel(Link::Idle);
    let server = report::serve(listener, standing_seen, metrics.clone());
    tokio::spawn(async {
        if let Err(error) = server.await {
            error!(%error, "readiness cannot be served any more");
        }
    });
    let (name, reconnects) = (settings.pod_name.clone(), metrics.reconnects.clone());
    let holder = tokio::spawn(connection::hold(target_seen, link, name, reconnects));
    let channels = Channels {
        target,
        link: link_seen,
        standing,
        metrics,
    };
    let driver = Driver::new(settings, home, client, key, directory, channels);
    tokio::select! {
        () = driver.run() => {}
        _ = terminate.recv() => info!("SIGTERM: closing the connection"),
        _ = interrupt.recv() => info!("SIGINT: closing the connection"),
    }
    // The driver is gone, and its end of the channel with it: the holder closes and ends.
    if timeout(SHUTDOWN, holder).await.is_err() {
        error!("the connection could not be closed in time");
    }
    Ok(())
}

fn log_to_stdout(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| DEFAULT_FILTER.into());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(stdout().is_terminal());
    match format {
        LogFormat::Text => lines.with_target(false).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
}
