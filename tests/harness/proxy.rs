//! A reverse proxy between the operator and the API server, for faults at exact moments.

use crate::writes::Writes;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use futures::{FutureExt as _, StreamExt as _};
use jiff::SignedDuration;
use jiff::fmt::rfc2822;
use kube::{Client, Config};
use std::net::Ipv4Addr;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

const MOST_BYTES: usize = 16 << 20;

/// Passes everything on, with the sender's own token, until it is told otherwise.
pub struct FaultProxy {
    url: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    upstream: Client,
    base: String,
    writes: Writes,
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
            writes: Writes::default(),
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

impl Deref for FaultProxy {
    type Target = Writes;

    /// What was written through it. Dry runs and Events never count.
    fn deref(&self) -> &Writes {
        &self.shared.writes
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Shared {
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
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if shared.refuses(request.uri()) {
        return (StatusCode::SERVICE_UNAVAILABLE, "away").into_response();
    }
    if shared.hides(request.uri().path()) {
        return (StatusCode::NOT_FOUND, "404 page not found").into_response();
    }
    let forward = async |request| forward(&shared, request).await;
    shared.writes.pass(request, forward).await
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
