//! `/healthz`, `/readyz` and `/metrics`.

use super::context::Context;
use super::gate::GateState;
use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Serves until `stop`.
pub(super) async fn serve(
    address: SocketAddr,
    context: Arc<Context>,
    stop: CancellationToken,
) -> anyhow::Result<JoinHandle<std::io::Result<()>>> {
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address} for health and metrics"))?;
    let routes = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(context);
    Ok(tokio::spawn(async move {
        axum::serve(listener, routes)
            .with_graceful_shutdown(stop.cancelled_owned())
            .await
    }))
}

/// Ready once the caches are filled and the approval gate was tried.
async fn ready(State(context): State<Arc<Context>>) -> impl IntoResponse {
    let filled = async {
        let _ = context.instances.wait_until_ready().await;
        let _ = context.requests.wait_until_ready().await;
    };
    if tokio::time::timeout(Duration::from_millis(100), filled)
        .await
        .is_err()
    {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the caches are being filled\n".to_owned(),
        );
    }
    match &*context.gate.borrow() {
        GateState::Unproven => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the approval gate was not tried yet\n".to_owned(),
        ),
        GateState::Stands | GateState::Untried => (StatusCode::OK, "ok\n".to_owned()),
        GateState::Down(fault) => (
            StatusCode::OK,
            format!("ok, but nothing is signed while the approval gate is down: {fault}\n"),
        ),
    }
}

async fn metrics(State(context): State<Arc<Context>>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], context.metrics.encode())
}
