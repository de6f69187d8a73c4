//! The dial path against a small broker of our own, which speaks just enough AMQP.

use super::*;
use crate::credentials::tests::{Authority, authority, sign};
use crate::request::key::AgentKey;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

const NAME: &str = "central.building-7.forwarder";
/// Methods of class connection: index and name in AMQP 0-9-1.
const START: (u16, u16) = (10, 10);
const TUNE: (u16, u16) = (10, 30);
const OPEN_OK: (u16, u16) = (10, 41);
const CLOSE: (u16, u16) = (10, 50);
const CLOSE_OK: (u16, u16) = (10, 51);

/// What the broker does with a connection.
#[derive(Clone, Copy)]
enum Manner {
    /// Lets it in, and answers a close.
    Accept,
    /// Refuses the login with `Connection.Close` and this code and text.
    Refuse(u16, &'static str),
}

/// A broker for as many connections as come, until it is dropped.
struct Broker {
    port: u16,
    task: JoinHandle<()>,
    closes: watch::Receiver<u32>,
    /// Cuts the connections that are open when something is sent.
    cut: watch::Sender<()>,
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `trusts` signs the clients that are let in, `ca` the broker's certificate for `host`.
async fn broker(ca: &Authority, trusts: &Authority, host: &str, manner: Manner) -> Broker {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new([host.to_owned()]).unwrap();
    let leaf = params.signed_by(&key, ca).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(trusts.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (on_close, closes) = watch::channel(0);
    let (cut, cuts) = watch::channel(());
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, on_close, cuts) = (acceptor.clone(), on_close.clone(), cuts.clone());
            tokio::spawn(async move {
                if let Ok(stream) = acceptor.accept(stream).await
                    && talk(stream, manner, cuts).await.is_some()
                {
                    on_close.send_modify(|closes| *closes += 1);
                }
            });
        }
    });
    Broker {
        port,
        task,
        closes,
        cut,
    }
}

/// Talks to one client; `Some` where it closed as it should.
async fn talk(
    mut stream: TlsStream<TcpStream>,
    manner: Manner,
    mut cuts: watch::Receiver<()>,
) -> Option<()> {
    let mut header = [0; 8];
    stream.read_exact(&mut header).await.ok()?;
    assert_eq!(&header, b"AMQP\x00\x00\x09\x01");
    let start = b"\x00\x09\x00\x00\x00\x00\x00\x00\x00\x08EXTERNAL\x00\x00\x00\x05en_US";
    send(&mut stream, START, start).await?;
    let start_ok = read(&mut stream).await?;
    let external = start_ok.windows(9).any(|w| w == b"\x08EXTERNAL");
    assert!(external, "another mechanism than EXTERNAL: {start_ok:?}");
    if let Manner::Refuse(code, text) = manner {
        let mut close = code.to_be_bytes().to_vec();
        close.push(u8::try_from(text.len()).unwrap());
        close.extend_from_slice(text.as_bytes());
        close.extend_from_slice(&[0; 4]);
        send(&mut stream, self::CLOSE, &close).await?;
        return read(&mut stream).await.map(|_| ());
    }
    // No limit on channels, frames of 128 KiB, a heartbeat of 60 s.
    send(&mut stream, TUNE, b"\x00\x00\x00\x02\x00\x00\x00\x3c").await?;
    read(&mut stream).await?;
    read(&mut stream).await?;
    send(&mut stream, OPEN_OK, b"\x00").await?;
    cuts.mark_unchanged();
    loop {
        let method = tokio::select! {
            method = read(&mut stream) => method?,
            _ = cuts.changed() => return None,
        };
        if method.starts_with(&[0, 10, 0, 50]) {
            return send(&mut stream, CLOSE_OK, b"").await;
        }
    }
}

async fn send(stream: &mut TlsStream<TcpStream>, method: (u16, u16), rest: &[u8]) -> Option<()> {
    let size = u32::try_from(rest.len() + 4).unwrap();
    let mut frame = vec![1, 0, 0];
    frame.extend_from_slice(&size.to_be_bytes());
    frame.extend_from_slice(&method.0.to_be_bytes());
    frame.extend_from_slice(&method.1.to_be_bytes());
    frame.extend_from_slice(rest);
    frame.push(0xce);
    stream.write_all(&frame).await.ok()?;
    stream.flush().await.ok()
}

/// Payload of the next frame.
async fn read(stream: &mut TlsStream<TcpStream>) -> Option<Vec<u8>> {
    let mut header = [0; 7];
    stream.read_exact(&mut header).await.ok()?;
    let size = u32::from_be_bytes(header[3..].try_into().unwrap());
    let mut payload = vec![0; usize::try_from(size).unwrap() + 1];
    stream.read_exact(&mut payload).await.ok()?;
    Some(payload)
}

/// A target on this port, with a certificate of `issuer`, trusting `trusts`.
fn target(port: u16, issuer: &Authority, trusts: &Authority) -> Arc<Target> {
    let key = AgentKey::generate().unwrap();
    let certificate = sign(issuer, NAME, &key);
    let name = NAME.parse().unwrap();
    Arc::new(Target {
        address: format!("amqps://127.0.0.1:{port}/volttron")
            .parse()
            .unwrap(),
        credentials: Credentials::check(&certificate, &trusts.pem(), &key, &name).unwrap(),
    })
}

async fn refused(target: &Target) -> DialError {
    match dial(target, "forwarder-0").await {
        Ok(_) => panic!("the connection was accepted"),
        Err(error) => error,
    }
}

/// Waits until the link is as wanted.
async fn until(link: &mut watch::Receiver<Link>, wanted: impl Fn(&Link) -> bool) -> Link {
    let reached = timeout(Duration::from_secs(20), link.wait_for(|link| wanted(link))).await;
    let reached = reached.map(|link| link.unwrap().clone());
    reached.unwrap_or_else(|_| panic!("the link stayed {:?}", link.borrow().clone()))
}

#[tokio::test]
async fn the_first_byte_on_the_wire_is_a_tls_handshake() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ca = authority("central");
    let target = target(listener.local_addr().unwrap().port(), &ca, &ca);
    let dialling = tokio::spawn(async move { refused(&target).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), 0x16, "not TLS");
    drop(stream);
    let error = dialling.await.unwrap();
    assert!(matches!(error, DialError::Broken(_)), "{error}");
}

#[tokio::test]
async fn a_port_that_speaks_something_else_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ca = authority("central");
    let target = target(listener.local_addr().unwrap().port(), &ca, &ca);
    let dialling = tokio::spawn(async move { refused(&target).await });
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(b"AMQP\x00\x00\x09\x01").await.unwrap();
    let error = dialling.await.unwrap();
    assert!(matches!(error, DialError::Tls(_)), "{error}");
}

#[tokio::test]
async fn a_host_that_does_not_answer_is_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let ca = authority("central");
    let error = refused(&target(port, &ca, &ca)).await;
    assert!(matches!(error, DialError::Unreachable(_)), "{error}");
}

#[tokio::test]
async fn only_the_instances_own_authority_is_trusted() {
    let (ca, other) = (authority("central"), authority("other"));
    let broker = broker(&other, &ca, "127.0.0.1", Manner::Accept).await;
    let error = refused(&target(broker.port, &ca, &ca)).await;
    assert!(matches!(error, DialError::Untrusted(_)), "{error}");
    assert!(error.to_string().contains("status.ca"), "{error}");
}

#[tokio::test]
async fn the_brokers_certificate_must_be_for_the_host_that_is_dialled() {
    let ca = authority("central");
    let broker = broker(&ca, &ca, "other.volttron.svc", Manner::Accept).await;
    let error = refused(&target(broker.port, &ca, &ca)).await;
    assert!(matches!(error, DialError::OtherHost(_)), "{error}");
    assert!(error.to_string().contains("amqpAddress"), "{error}");
}

#[tokio::test]
async fn a_certificate_the_broker_does_not_take_is_told_apart() {
    let (ca, other) = (authority("central"), authority("other"));
    let broker = broker(&ca, &ca, "127.0.0.1", Manner::Accept).await;
    let error = refused(&target(broker.port, &other, &ca)).await;
    assert!(
        matches!(error, DialError::CertificateRefused(_)),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_refused_login_shows_the_brokers_words() {
    let ca = authority("central");
    let cases = [
        (403, "ACCESS_REFUSED - Login was refused", "still approved"),
        (
            530,
            "NOT_ALLOWED - vhost volttron not found",
            "virtual host",
        ),
        (541, "INTERNAL_ERROR", "closed the connection"),
    ];
    for (code, said, words) in cases {
        let broker = broker(&ca, &ca, "127.0.0.1", Manner::Refuse(code, said)).await;
        let error = refused(&target(broker.port, &ca, &ca)).await.to_string();
        assert!(error.contains(said) && error.contains(words), "{error}");
    }
}

#[tokio::test]
async fn a_connection_is_held_and_closed_cleanly_when_it_is_not_wanted_any_more() {
    let ca = authority("central");
    let mut broker = broker(&ca, &ca, "127.0.0.1", Manner::Accept).await;
    let (wanted, target_seen) = watch::channel(Some(target(broker.port, &ca, &ca)));
    let (link_sender, mut link) = watch::channel(Link::Idle);
    let reconnects = Counter::default();
    let holder = hold(
        target_seen,
        link_sender,
        "forwarder-0".to_owned(),
        reconnects.clone(),
    );
    let holder = tokio::spawn(holder);
    until(&mut link, |link| *link == Link::Open(None)).await;

    wanted.send_replace(None);
    until(&mut link, |link| *link == Link::Idle).await;
    broker.closes.wait_for(|closes| *closes == 1).await.unwrap();

    wanted.send_replace(Some(target(broker.port, &ca, &ca)));
    until(&mut link, |link| *link == Link::Open(None)).await;
    drop(wanted);
    timeout(Duration::from_secs(10), holder)
        .await
        .unwrap()
        .unwrap();
    broker.closes.wait_for(|closes| *closes == 2).await.unwrap();
    assert_eq!(reconnects.get(), 1);
}

#[tokio::test]
async fn a_connection_that_breaks_is_opened_again() {
    let ca = authority("central");
    let broker = broker(&ca, &ca, "127.0.0.1", Manner::Accept).await;
    let (_wanted, target_seen) = watch::channel(Some(target(broker.port, &ca, &ca)));
    let (link_sender, mut link) = watch::channel(Link::Idle);
    let reconnects = Counter::default();
    let counted = reconnects.clone();
    tokio::spawn(hold(
        target_seen,
        link_sender,
        "forwarder-0".to_owned(),
        counted,
    ));
    for connection in 0..3 {
        let open = |link: &Link| *link == Link::Open(None) && reconnects.get() == connection;
        until(&mut link, open).await;
        broker.cut.send_replace(());
    }
}

#[tokio::test]
async fn an_attempt_is_given_up_when_the_connection_is_not_wanted_any_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ca = authority("central");
    let silent = target(listener.local_addr().unwrap().port(), &ca, &ca);
    let (wanted, target_seen) = watch::channel(Some(silent));
    let (link_sender, mut link) = watch::channel(Link::Idle);
    let holder = hold(target_seen, link_sender, "a".to_owned(), Counter::default());
    let holder = tokio::spawn(holder);
    let (_stream, _) = listener.accept().await.unwrap();
    until(&mut link, |link| *link == Link::Opening(None)).await;
    drop(wanted);
    timeout(Duration::from_secs(2), holder)
        .await
        .unwrap()
        .unwrap();
}

#[test]
fn the_delays_grow_from_half_a_second_to_half_a_minute() {
    let delays: Vec<_> = backoff().take(12).collect();
    assert!(delays[0] >= Duration::from_millis(500) && delays[0] <= Duration::from_secs(1));
    assert!(delays.iter().all(|delay| *delay <= Duration::from_secs(30)));
    assert!(delays[11] >= Duration::from_secs(15), "{delays:?}");
}
