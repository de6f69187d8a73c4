//! A reverse proxy between the operator and the API server, for faults at exact moments.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::{FutureExt as _, StreamExt as _};
use jiff::SignedDuration;
use jiff::fmt::rfc2822;
use kube::{Client, Config};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

const MOST_BYTES: usize = 16 << 20;

/// When the operator is killed, with respect to a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Before the write reaches the API server.
    Before,
    /// After the write was applied, before its answer arrives.
    After,
}

/// Passes everything on, with the sender's own token, until it is told otherwise.
pub struct FaultProxy {
    url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    upstream: Client,
    base: String,
    counted: Mutex<Counted>,
    cut: watch::Sender<()>,
    away: AtomicBool,
    /// Which paths are answered with 503.
    refused: Mutex<Vec<String>>,
    hidden: Mutex<Hidden>,
    /// By how many seconds the clock of the API server seems to be ahead.
    ahead: AtomicI64,
}

/// What the API server seems not to serve.
#[derive(Default)]
struct Hidden {
    prefix: Option<String>,
    asked: usize,
}

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

impl FaultProxy {
    /// Starts it in front of the API server of `config`.
    pub(crate) async fn start(config: &Config) -> Self {
        let mut upstream = Config::new(config.cluster_url.clone());
        upstream.root_cert.clone_from(&config.root_cert);
        // A second attempt would be a second write.
        upstream.default_retry = false;
        let shared = Arc::new(Shared {
            upstream: Client::try_from(upstream).expect("a URL and a CA make a client"),
            base: config
                .cluster_url
                .to_string()
                .trim_end_matches('/')
                .to_owned(),
            counted: Mutex::default(),
            cut: watch::Sender::new(()),
            away: AtomicBool::new(false),
            refused: Mutex::default(),
            hidden: Mutex::default(),
            ahead: AtomicI64::new(0),
        });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let routes = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        Self {
            url,
            shared,
            server,
        }
    }

    /// What the operator takes for the API server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Counts anew the writes to paths that begin with one of these. Dry runs and Events never count.
    pub fn count(&self, paths: &[String]) {
        *self.shared.counted() = Counted {
            paths: paths.to_vec(),
            ..Counted::default()
        };
    }

    /// The writes since [`Self::count`]: method and path.
    pub fn writes(&self) -> Vec<String> {
        let counted = self.shared.counted();
        counted
            .writes
            .iter()
            .map(|(_, what)| what.clone())
            .collect()
    }

    /// When the first and the last of the writes since [`Self::count`] came.
    pub fn first_and_last_write(&self) -> Option<(Instant, Instant)> {
        let counted = self.shared.counted();
        Some((counted.writes.first()?.0, counted.writes.last()?.0))
    }

    /// Calls `kill` at the `at`th write counted from now on (1 is the first), which is then told to the receiver.
    pub fn kill_at(
        &self,
        at: usize,
        moment: Moment,
        kill: Arc<dyn Fn() + Send + Sync>,
    ) -> oneshot::Receiver<String> {
        let (fired, receiver) = oneshot::channel();
        let mut counted = self.shared.counted();
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
        self.shared.counted().fault = None;
    }

    /// Ends every answer that is under way, the watches among them.
    pub fn cut(&self) {
        self.shared.cut.send_replace(());
    }

    /// Whether everything is answered with 503, and watches end.
    pub fn set_away(&self, away: bool) {
        self.shared.away.store(away, Ordering::SeqCst);
        self.cut();
    }

    /// Answers with 503 what goes to paths that begin with one of these, and nothing else.
    pub fn refuse(&self, paths: &[&str]) {
        *self.shared.refused() = paths.iter().map(ToString::to_string).collect();
    }

    /// By how much the clock of the API server seems to be ahead of the operator's.
    pub fn set_ahead(&self, ahead: SignedDuration) {
        self.shared.ahead.store(ahead.as_secs(), Ordering::SeqCst);
    }

    /// Answers as an API server that does not serve the paths which begin with `prefix`; or as it is again.
    pub fn hide(&self, prefix: Option<&str>) {
        *self.shared.hidden() = Hidden {
            prefix: prefix.map(str::to_owned),
            asked: 0,
        };
        self.cut();
    }

    /// How often something hidden was asked for.
    pub fn hidden(&self) -> usize {
        self.shared.hidden().asked
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
    fn counted(&self) -> MutexGuard<'_, Counted> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self) -> MutexGuard<'_, Vec<String>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a request is not to be answered.
    fn refuses(&self, uri: &Uri) -> bool {
        let refused = self.refused();
        let refused = refused.iter().any(|path| uri.path().starts_with(path));
        refused || self.away.load(Ordering::SeqCst)
    }

    fn hidden(&self) -> MutexGuard<'_, Hidden> {
        self.hidden.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a path is hidden; counts that it was asked for.
    fn hides(&self, path: &str) -> bool {
        let mut hidden = self.hidden();
        let hides = hidden
            .prefix
            .as_ref()
            .is_some_and(|it| path.starts_with(it));
        hidden.asked += usize::from(hides);
        hides
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
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if shared.refuses(request.uri()) {
        return (StatusCode::SERVICE_UNAVAILABLE, "away").into_response();
    }
    if shared.hides(request.uri().path()) {
        return (StatusCode::NOT_FOUND, "404 page not found").into_response();
    }
    let what = format!("{} {}", request.method(), request.uri().path());
    let fault = shared.note(request.method(), request.uri());
    match fault {
        None => forward(&shared, request).await,
        Some(fault) => {
            if fault.moment == Moment::After {
                let _ = forward(&shared, request).await;
            }
            (fault.kill)();
            let _ = fault.fired.send(what);
            (StatusCode::SERVICE_UNAVAILABLE, "nobody hears this").into_response()
        }
    }
}

async fn forward(shared: &Shared, request: Request) -> Response {
    let failed = |error: String| (StatusCode::BAD_GATEWAY, error).into_response();
    let mut cut = shared.cut.subscribe();
    let (mut parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let Ok(uri) = format!("{}{path}", shared.base).parse() else {
        return failed("no URI".to_owned());
    };
    parts.uri = uri;
    parts.headers.remove(header::HOST);
    let body = match to_bytes(body, MOST_BYTES).await {
        Ok(bytes) => kube::client::Body::from(bytes.to_vec()),
        Err(error) => return failed(error.to_string()),
    };
    match shared.upstream.send(Request::from_parts(parts, body)).await {
        Ok(answer) => {
            let (mut parts, body) = answer.into_parts();
            if let Some(date) = parts.headers.get_mut(header::DATE) {
                let ahead = SignedDuration::from_secs(shared.ahead.load(Ordering::SeqCst));
                *date = later(date, ahead);
            }
            let until = async move { cut.changed().map(drop).await };
            let stream = Body::new(body).into_data_stream();
            let stream = stream.take_until(Box::pin(until));
            Response::from_parts(parts, Body::from_stream(stream))
        }
        Err(error) => failed(error.to_string()),
    }
}

/// A `Date` (RFC 9110, section 5.6.7) that is so much later.
fn later(date: &HeaderValue, by: SignedDuration) -> HeaderValue {
    let said = date.to_str().expect("a date is ASCII");
    let said = rfc2822::DateTimeParser::new().parse_timestamp(said);
    let then = said.expect("the API server sends a date") + by;
    let then = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&then);
    let then = then.expect("a date of four digits' years");
    HeaderValue::try_from(then).expect("a date is ASCII")
}
