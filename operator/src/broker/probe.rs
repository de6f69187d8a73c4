//! What a broker makes of a client certificate, found out at its AMQP port and without a login. It
//! is how the controller proves that a broker enforces a revocation list, trusts a CA or serves a
//! certificate: files that were mounted say only what it should do.

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig, RootCertStore};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How long a probe may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long a refusal is waited for before anything is sent.
const REFUSAL: Duration = Duration::from_millis(250);
/// The client's first bytes in AMQP 0-9-1 (section 4.2.2 of its specification).
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";
/// How the answer begins: a method frame on channel 0 of any size that holds `connection.start`.
const FRAME_METHOD: u8 = 1;
const CONNECTION_START: [u8; 4] = [0, 10, 0, 10];

/// A client certificate to probe with.
#[derive(Clone, Copy)]
pub struct ClientPair<'a> {
    /// The certificate with the chain below the root (PEM).
    pub chain: &'a str,
    /// Its private key (PEM).
    pub key: &'a str,
}

/// What a broker made of the certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It went on to AMQP.
    Accepted {
        /// What it showed of itself: its certificate and what it sent along (DER).
        server_chain: Vec<Vec<u8>>,
    },
    /// It refused the certificate.
    Refused(RefusedBy),
    /// Its own certificate is not one that the given roots vouch for.
    Mistrusted(String),
    /// It gave no answer, or none that says anything: to be tried again.
    Unreachable(String),
}

/// The TLS alert a certificate was refused with (RFC 8446, section 6.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedBy {
    /// `certificate_revoked`: it is on the list that is enforced.
    Revoked,
    /// `unknown_ca`: its CA is not trusted.
    UnknownCa,
    /// `certificate_expired`; RabbitMQ says it of one that is not valid yet, too.
    Expired,
    /// Another one. RabbitMQ says `bad_certificate` where it has no revocation list of the CA, or
    /// none that is in force.
    Other(AlertDescription),
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accepted { .. } => f.write_str("accepted"),
            Self::Refused(RefusedBy::Revoked) => f.write_str("refused as revoked"),
            Self::Refused(RefusedBy::UnknownCa) => f.write_str("refused: unknown CA"),
            Self::Refused(RefusedBy::Expired) => f.write_str("refused as expired"),
            Self::Refused(RefusedBy::Other(alert)) => write!(f, "refused with alert {alert:?}"),
            Self::Mistrusted(why) => write!(f, "the broker's own certificate: {why}"),
            Self::Unreachable(why) => f.write_str(why),
        }
    }
}

/// Connects to the AMQP port at `address` (host and port) as a client with this certificate, or
/// without one, trusting `roots` (PEM) alone to vouch for `server_name`.
///
/// With TLS 1.3 a broker says what it thinks of a client certificate after the client's side of the
/// handshake is done, so that only the AMQP answer shows that the certificate was accepted.
pub async fn probe(
    address: &str,
    server_name: &str,
    roots: &str,
    client: Option<ClientPair<'_>>,
) -> Probe {
    let config = match config(roots, client) {
        Ok(config) => config,
        Err(why) => return Probe::Unreachable(why),
    };
    let Ok(name) = ServerName::try_from(server_name.to_owned()) else {
        return Probe::Unreachable(format!("`{server_name}` is no host name"));
    };
    match timeout(LIMIT, exchange(address, name, config)).await {
        Ok(Ok(server_chain)) => Probe::Accepted { server_chain },
        Ok(Err(error)) => judge(&error),
        Err(_) => Probe::Unreachable(format!("no answer from {address} within {LIMIT:?}")),
    }
}

/// A configuration of its own for each probe: a session that is resumed would show what the broker
/// thought of the certificate earlier.
fn config(roots: &str, client: Option<ClientPair<'_>>) -> Result<ClientConfig, String> {
    let certificates = |text: &str| {
        CertificateDer::pem_slice_iter(text.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| error.to_string())
    };
    let mut store = RootCertStore::empty();
    for root in certificates(roots)? {
        store.add(root).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(store);
    let mut config = match client {
        None => builder.with_no_client_auth(),
        Some(ClientPair { chain, key }) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes());
            let key = key.map_err(|error| error.to_string())?;
            let chain = certificates(chain)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| error.to_string())?
        }
    };
    config.resumption = Resumption::disabled();
    Ok(config)
}

async fn exchange(
    address: &str,
    name: ServerName<'static>,
    config: ClientConfig,
) -> io::Result<Vec<Vec<u8>>> {
    let tcp = TcpStream::connect(address).await?;
    let mut tls = TlsConnector::from(Arc::new(config))
        .connect(name, tcp)
        .await?;
    // A server waits for the client's header. Where it has something to say before, that is the
    // alert; bytes on the way to a server that has closed would make its alert get lost.
    let mut first = [0];
    if let Ok(read) = timeout(REFUSAL, tls.read(&mut first)).await {
        return Err(unexpected(read?));
    }
    tls.write_all(&PROTOCOL_HEADER).await?;
    tls.flush().await?;
    let mut answer = [0; 11];
    tls.read_exact(&mut answer).await?;
    if answer[0] != FRAME_METHOD || answer[7..] != CONNECTION_START {
        return Err(unexpected(answer.len()));
    }
    Ok(server_chain(&tls))
}

fn unexpected(length: usize) -> io::Error {
    if length == 0 {
        return io::ErrorKind::UnexpectedEof.into();
    }
    io::Error::other("what answers does not speak AMQP 0-9-1")
}

fn server_chain(tls: &TlsStream<TcpStream>) -> Vec<Vec<u8>> {
    let (_, connection) = tls.get_ref();
    let certificates = connection.peer_certificates().unwrap_or_default();
    certificates
        .iter()
        .map(|certificate| certificate.to_vec())
        .collect()
}

fn judge(error: &io::Error) -> Probe {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::AlertReceived(alert)) => Probe::Refused(match alert {
            AlertDescription::CertificateRevoked => RefusedBy::Revoked,
            AlertDescription::UnknownCA => RefusedBy::UnknownCa,
            AlertDescription::CertificateExpired => RefusedBy::Expired,
            other => RefusedBy::Other(*other),
        }),
        Some(rustls::Error::InvalidCertificate(why)) => Probe::Mistrusted(why.to_string()),
        // Also an alert that was lost: a server that closes while it is being written to takes
        // what it said last along.
        _ if error.kind() == io::ErrorKind::UnexpectedEof => {
            Probe::Unreachable("the broker closed the connection without saying why".to_owned())
        }
        _ => Probe::Unreachable(error.to_string()),
    }
}
