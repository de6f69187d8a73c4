//! The writes that pass a proxy: they are counted, and there can be a fault at each.

use axum::extract::Request;
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::oneshot;

/// When the operator is killed, with respect to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the write reaches the server.
    Before,
    /// After the write was applied, before its answer arrives.
    After,
}

/// The writes that pass a proxy.
#[derive(Default)]
pub struct Writes(Mutex<Counted>);

#[derive(Default)]
struct Counted {
    /// Which paths count.
    paths: Vec<String>,
    writes: Vec<(Instant, String)>,
    fault: Option<Fault>,
}

struct Fault {
    at: usize,
    moment: Moment,
    kill: Arc<dyn Fn() + Send + Sync>,
    fired: oneshot::Sender<String>,
}

impl Writes {
    /// Counts anew the writes to paths that begin with one of these.
    pub fn count(&self, paths: &[String]) {
        *self.counted() = Counted {
            paths: paths.to_vec(),
            ..Counted::default()
        };
    }

    /// The writes since [`Self::count`]: method and path.
    pub fn writes(&self) -> Vec<String> {
        let counted = self.counted();
        counted
            .writes
            .iter()
            .map(|(_, what)| what.clone())
            .collect()
    }

    /// When the first and the last of the writes since [`Self::count`] came.
    pub fn first_and_last_write(&self) -> Option<(Instant, Instant)> {
        let counted = self.counted();
        Some((counted.writes.first()?.0, counted.writes.last()?.0))
    }

    /// Calls `kill` at the `at`th write counted from now on (1 is the first), which is then told to the receiver. Who is only
    /// stopped at it hears the answer when it wakes.
    pub fn kill_at(
        &self,
        at: usize,
        moment: Moment,
        kill: Arc<dyn Fn() + Send + Sync>,
    ) -> oneshot::Receiver<String> {
        let (fired, receiver) = oneshot::channel();
        let mut counted = self.counted();
        counted.writes.clear();
        counted.fault = Some(Fault {
            at,
            moment,
            kill,
            fired,
        });
        receiver
    }

    /// Takes a [`Self::kill_at`] back that has not come to pass.
    pub fn spare(&self) {
        self.counted().fault = None;
    }

    /// Has `forward` pass a request on, unless the fault at it says otherwise.
    pub(crate) async fn pass(
        &self,
        request: Request,
        forward: impl AsyncFnOnce(Request) -> Response,
    ) -> Response {
        let what = format!("{} {}", request.method(), request.uri().path());
        let Some(fault) = self.note(request.method(), request.uri()) else {
            return forward(request).await;
        };
        let answer = match fault.moment {
            Moment::Before => (StatusCode::SERVICE_UNAVAILABLE, "it was killed").into_response(),
            Moment::After => forward(request).await,
        };
        (fault.kill)();
        let _ = fault.fired.send(what);
        answer
    }

    /// Notes a write; returns the fault that belongs to it.
    fn note(&self, method: &Method, uri: &Uri) -> Option<Fault> {
        let path = uri.path();
        let counts = matches!(
            *method,
            Method::POST | Method::PUT | Method::PATCH | Method::DELETE
        ) && !uri.query().unwrap_or_default().contains("dryRun")
            && !path.contains("/events");
        let mut counted = self.counted();
        if !counts || !counted.paths.iter().any(|prefix| path.starts_with(prefix)) {
            return None;
        }
        let what = format!("{method} {path}");
        counted.writes.push((Instant::now(), what));
        let number = counted.writes.len();
        counted.fault.take_if(|fault| fault.at == number)
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
