//! What the sidecar says of itself: `/readyz`, `/healthz` and `/metrics`.

use crate::state::State;
use axum::Router;
use axum::extract;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::io;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Where the sidecar stands, and why, in one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Where the sidecar stands.
    pub state: State,
    /// Why.
    pub reason: String,
}

/// The metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    states: Family<[(&'static str, &'static str); 1], Gauge>,
    expiry: Gauge,
    /// Connections after the first one.
    pub reconnects: Counter,
}

impl Metrics {
    /// All metrics, in their first state.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("volttron_sidecar");
        let states = Family::<[(&'static str, &'static str); 1], Gauge>::default();
        let (expiry, reconnects) = (Gauge::default(), Counter::default());
        registry.register(
            "state",
            "1 for the state the sidecar is in, 0 for the others",
            states.clone(),
        );
        registry.register_with_unit(
            "certificate_expiry_timestamp",
            "End of the certificate's life, in seconds since 1970; 0 without a certificate",
            Unit::Seconds,
            expiry.clone(),
        );
        registry.register(
            "reconnects",
            "Connections to the broker after the first one",
            reconnects.clone(),
        );
        let metrics = Self {
            registry: Arc::new(registry),
            states,
            expiry,
            reconnects,
        };
        metrics.state(State::Filing);
        metrics
    }

    /// Records the state.
    pub fn state(&self, now: State) {
        for state in State::ALL {
            let gauge = self.states.get_or_create(&[("state", state.as_str())]);
            gauge.set(i64::from(state == now));
        }
    }

    /// Records the end of the certificate's life.
    pub fn expiry(&self, not_after: Option<Timestamp>) {
        self.expiry.set(not_after.map_or(0, Timestamp::as_second));
    }
}

#[derive(Clone)]
struct Shared {
    standing: watch::Receiver<Standing>,
    metrics: Metrics,
}

/// Answers until the process ends.
pub async fn serve(
    listener: TcpListener,
    standing: watch::Receiver<Standing>,
    metrics: Metrics,
) -> io::Result<()> {
    axum::serve(listener, router(standing, metrics)).await
}

fn router(standing: watch::Receiver<Standing>, metrics: Metrics) -> Router {
    Router::new()
        .route("/readyz", get(ready))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/metrics", get(scrape))
        .with_state(Shared { standing, metrics })
}

async fn ready(extract::State(shared): extract::State<Shared>) -> (StatusCode, String) {
    let Standing { state, reason } = shared.standing.borrow().clone();
    let code = match state {
        State::Connected => StatusCode::OK,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, format!("{state}: {reason}\n"))
}

async fn scrape(extract::State(shared): extract::State<Shared>) -> impl IntoResponse {
    let mut text = String::new();
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match encode(&mut text, &shared.metrics.registry) {
        Ok(()) => (StatusCode::OK, [(CONTENT_TYPE, kind)], text),
        Err(_) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(CONTENT_TYPE, "text/plain")],
            String::new(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    async fn answer(standing: Standing, path: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_sender, receiver) = watch::channel(standing.clone());
        let metrics = Metrics::new();
        metrics.state(standing.state);
        metrics.expiry(Some(Timestamp::from_second(7200).unwrap()));
        tokio::spawn(serve(listener, receiver, metrics));
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn standing(state: State) -> Standing {
        Standing {
            state,
            reason: "because of this".to_owned(),
        }
    }

    #[tokio::test]
    async fn ready_only_when_connected_and_otherwise_with_the_reason() {
        for state in State::ALL {
            let answer = answer(standing(state), "/readyz").await;
            let code = if state == State::Connected { 200 } else { 503 };
            assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{answer}");
            assert!(
                answer.ends_with(&format!("\r\n\r\n{state}: because of this\n")),
                "{answer}"
            );
        }
    }

    #[tokio::test]
    async fn healthy_whatever_the_state() {
        let answer = answer(standing(State::Denied), "/healthz").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    #[tokio::test]
    async fn metrics_show_state_expiry_and_reconnects() {
        let answer = answer(standing(State::Pending), "/metrics").await;
        for line in [
            r#"volttron_sidecar_state{state="Pending"} 1"#,
            r#"volttron_sidecar_state{state="Connected"} 0"#,
            "volttron_sidecar_certificate_expiry_timestamp_seconds 7200",
            "volttron_sidecar_reconnects_total 0",
        ] {
            assert!(answer.contains(line), "{line} is not in {answer}");
        }
    }

    #[test]
    fn the_table_of_metrics_is_complete() {
        let mut text = String::new();
        encode(&mut text, &Metrics::new().registry).unwrap();
        let mut shown = Vec::new();
        for line in text.lines() {
            if let Some((name, kind)) = line
                .strip_prefix("# TYPE ")
                .and_then(|it| it.split_once(' '))
            {
                let total = if kind == "counter" { "_total" } else { "" };
                shown.push((format!("{name}{total}"), kind.to_owned()));
            }
        }
        let documentation = include_str!("../../docs/metrics.md");
        let rows = documentation
            .lines()
            .filter(|line| line.starts_with("| `volttron_sidecar_"));
        let documented: Vec<_> = rows
            .map(|row| {
                let cells: Vec<&str> = row.split('|').map(str::trim).collect();
                (cells[1].replace('`', ""), cells[2].to_owned())
            })
            .collect();
        assert_eq!(shown, documented);
    }
}
