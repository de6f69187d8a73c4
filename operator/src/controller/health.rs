//! `/healthz`, `/readyz` and `/metrics`, of a replica that leads and of one that stands by.

use super::context::Context;
use super::gate::GateState;
use super::metrics::{self, Counts};
use crate::leadership::Seat;
use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock, Weak};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What health and metrics are told from.
#[derive(Clone)]
pub(super) struct Health {
    seat: watch::Receiver<Seat>,
    /// The work of the term; it is gone when the term is over.
    term: Arc<RwLock<Weak<Context>>>,
    /// What the process counts in all its terms.
    counts: Counts,
}

impl Health {
    pub(super) fn new(seat: watch::Receiver<Seat>) -> Self {
        Self {
            seat,
            term: Arc::default(),
            counts: Counts::default(),
        }
    }

    /// What the process counts in all its terms.
    pub(super) fn counts(&self) -> Counts {
        self.counts.clone()
    }

    /// Tells of the work of a term from now on.
    pub(super) fn show(&self, context: &Arc<Context>) {
        *self.term.write().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(context);
    }

    /// Serves until `stop`.
    pub(super) async fn serve(
        &self,
        address: SocketAddr,
        stop: CancellationToken,
    ) -> anyhow::Result<JoinHandle<std::io::Result<()>>> {
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address} for health and metrics"))?;
        let routes = Router::new()
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .route("/metrics", get(show_metrics))
            .with_state(self.clone());
        Ok(tokio::spawn(async move {
            axum::serve(listener, routes)
                .with_graceful_shutdown(stop.cancelled_owned())
                .await
        }))
    }

    /// What this replica works with, while it leads.
    fn context(&self) -> Option<Arc<Context>> {
        if *self.seat.borrow() != Seat::Leading {
            return None;
        }
        let term = self.term.read().unwrap_or_else(PoisonError::into_inner);
        term.upgrade()
    }
}

async fn ready(State(health): State<Health>) -> (StatusCode, String) {
    if let Some(context) = health.context() {
        return leader_ready(&context);
    }
    match &*health.seat.borrow() {
        // Another can take over from it at once, which is what the readiness of a standby means.
        Seat::StandingBy(leader) => {
            let leader = leader.as_deref().unwrap_or("another replica");
            (StatusCode::OK, format!("ok, standing by for {leader}\n"))
        }
        Seat::Leading => unready("the lead is being taken over".to_owned()),
        Seat::Undecided(why) => unready(format!("neither leading nor standing by: {why}")),
    }
}

/// Ready once the caches are filled and the approval gate was tried.
fn leader_ready(context: &Context) -> (StatusCode, String) {
    if !context.is_filled() {
        return unready("the caches are being filled".to_owned());
    }
    match &*context.gate.borrow() {
        GateState::Unproven => unready("the approval gate was not tried yet".to_owned()),
        GateState::Stands | GateState::Untried => (StatusCode::OK, "ok\n".to_owned()),
        GateState::Down(fault) => (
            StatusCode::OK,
            format!("ok, but nothing is signed while the approval gate is down: {fault}\n"),
        ),
    }
}

fn unready(why: String) -> (StatusCode, String) {
    (StatusCode::SERVICE_UNAVAILABLE, why + "\n")
}

async fn show_metrics(State(health): State<Health>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let text = match health.context() {
        Some(context) => context.metrics.encode(),
        None => metrics::of_a_standby(&health.counts),
    };
    ([(header::CONTENT_TYPE, kind)], text)
}
