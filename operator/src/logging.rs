//! Structured logs on standard error.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// What is logged by default: kube-rs only repeats what our own lines say.
const DEFAULT: &str = "info,kube_runtime=warn,kube_client=off";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging as `RUST_LOG` says, [`DEFAULT`] where it is not set.
pub fn start(format: Format) {
    let wanted = std::env::var(EnvFilter::DEFAULT_ENV)
        .ok()
        .filter(|wanted| !wanted.is_empty());
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse_lossy(wanted.as_deref().unwrap_or(DEFAULT));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match format {
        Format::Text => logs.with_ansi(false).init(),
        Format::Json => logs.json().flatten_event(true).init(),
    }
}
