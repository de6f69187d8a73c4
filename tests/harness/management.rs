//! A proxy between the operator and the management API of one broker, which holds calls back and has faults at exact moments.

use crate::agent::trusting;
use crate::request::text;
use crate::writes::Writes;
use crate::{Broker, Instance, Playground};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::serve::Listener;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const PORT: u16 = 15671;
const AMQP_PORT: u16 = 5671;
const MOST_BYTES: usize = 64 << 20;

/// Passes the operator's calls on to the broker, with the broker's own certificate.
pub struct ManagementProxy<'a> {
    playground: &'a Playground,
    host: String,
    shared: Arc<Shared>,
    address: IpAddr,
    server: JoinHandle<()>,
}

struct Shared {
    upstream: reqwest::Client,
    base: String,
    /// The beginning of the paths that are held back.
    holding: watch::Sender<Option<String>>,
    held: AtomicUsize,
    writes: Writes,
}

impl<'a> Broker<'a> {
    /// Puts a proxy between the operator and this broker, and none between its other replicas and it. Connections that the operator
    /// has already stay as they are.
    pub async fn behind_proxy(&self) -> ManagementProxy<'a> {
        let instance = &self.instance;
        let secrets = Api::<Secret>::namespaced(instance.playground.admin(), &instance.namespace);
        let secret = secrets
            .get(&format!("{}-tls", instance.broker_name()))
            .await
            .expect("the broker's certificate");
        let host = instance.host();
        let tls = trusting(&text(&secret, "ca.crt")).expect("a CA");
        let upstream = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.with_no_client_auth())
            .resolve(&host, SocketAddr::new(self.address(), PORT))
            .no_proxy();
        let shared = Arc::new(Shared {
            upstream: upstream.build().expect("an HTTP client"),
            base: format!("https://{host}:{PORT}"),
            holding: watch::Sender::new(None),
            held: AtomicUsize::new(0),
            writes: Writes::default(),
        });
        let (listener, address) = free_address().await;
        let listener = TlsListener {
            listener,
            acceptor: acceptor(&text(&secret, "tls.crt"), &text(&secret, "tls.key")),
        };
        let routes = Router::new().fallback(pass).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, routes).await;
        });
        instance.playground.divert(&host, Some(address));
        ManagementProxy {
            playground: instance.playground,
            host,
            shared,
            address,
            server,
        }
    }
}

impl Instance<'_> {
    /// Gives the operator an address for this instance's broker that takes connections and never
    /// answers; until the listener is dropped.
    pub async fn hang_broker(&self) -> TcpListener {
        let (listener, address) = free_address().await;
        self.playground.set_address(&self.host(), Some(address));
        listener
    }
}

impl ManagementProxy<'_> {
    /// Holds back the calls of paths that begin with `path`, until [`Self::let_go`].
    pub fn hold(&self, path: &str) {
        self.shared.held.store(0, Ordering::SeqCst);
        self.shared.holding.send_replace(Some(path.to_owned()));
    }

    /// Passes everything on, also what is held back.
    pub fn let_go(&self) {
        self.shared.holding.send_replace(None);
    }

    /// Takes AMQP connections at this address and never answers; until the listener is dropped.
    pub async fn hang_amqp(&self) -> TcpListener {
        let listener = TcpListener::bind((self.address, AMQP_PORT)).await;
        listener.expect("nobody else has the port")
    }

    /// How many calls have been held back since [`Self::hold`].
    pub fn held(&self) -> usize {
        self.shared.held.load(Ordering::SeqCst)
    }
}

impl Deref for ManagementProxy<'_> {
    type Target = Writes;

    /// What was written through it.
    fn deref(&self) -> &Writes {
        &self.shared.writes
    }
}

impl Drop for ManagementProxy<'_> {
    fn drop(&mut self) {
        self.playground.divert(&self.host, None);
        self.server.abort();
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let is_held = |holding: &Option<String>| {
        holding
            .as_ref()
            .is_some_and(|prefix| path.starts_with(prefix))
    };
    let mut holding = shared.holding.subscribe();
    if is_held(&holding.borrow()) {
        shared.held.fetch_add(1, Ordering::SeqCst);
    }
    if holding.wait_for(|it| !is_held(it)).await.is_err() {
        return (StatusCode::BAD_GATEWAY, "the proxy ends").into_response();
    }
    let forward = async |request| forward(&shared, request).await;
    shared.writes.pass(request, forward).await
}

async fn forward(shared: &Shared, request: Request) -> Response {
    let failed = |error: String| (StatusCode::BAD_GATEWAY, error).into_response();
    let (mut parts, body) = request.into_parts();
    parts.headers.remove(header::HOST);
    let url = format!("{}{}", shared.base, parts.uri);
    let body = match to_bytes(body, MOST_BYTES).await {
        Ok(body) => body,
        Err(error) => return failed(error.to_string()),
    };
    let call = shared.upstream.request(parts.method, url);
    let answer = match call.headers(parts.headers).body(body).send().await {
        Ok(answer) => answer,
        Err(error) => return failed(format!("{error:?}")),
    };
    let status = answer.status();
    match answer.bytes().await {
        Ok(bytes) => (status, Body::from(bytes)).into_response(),
        Err(error) => failed(error.to_string()),
    }
}

/// The management API's port on a loopback address that nobody has.
async fn free_address() -> (TcpListener, IpAddr) {
    for number in std::process::id().. {
        let [_, _, high, low] = number.to_be_bytes();
        let address = IpAddr::from(Ipv4Addr::new(127, 77, high, low));
        if let Ok(listener) = TcpListener::bind((address, PORT)).await {
            return (listener, address);
        }
    }
    unreachable!("there are more addresses than processes")
}

fn acceptor(chain: &str, key: &str) -> TlsAcceptor {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(chain.expect("a chain"), key)
        .expect("a pair");
    TlsAcceptor::from(Arc::new(config))
}

struct TlsListener {
    listener: TcpListener,
    acceptor: TlsAcceptor,
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = Listener::accept(&mut self.listener).await;
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}
