//! Opens one connection: TCP, TLS, AMQP with SASL EXTERNAL, up to the broker's `OpenOk`.

use super::error::{DialError, not_reached};
use super::{Target, tls};
use async_compat::CompatExt as _;
use lapin::tcp::RustlsConnector;
use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, SASLMechanism};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// TCP and TLS are up sooner than this, each, or not at all.
const TRANSPORT: Duration = Duration::from_secs(10);
/// The whole way to `OpenOk`.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Asked of the broker; a dead connection is noticed after about twice as long.
const HEARTBEAT_SECONDS: u16 = 20;
/// The smallest frame every RabbitMQ takes. This connection carries no messages, and lapin
/// allocates 64 frames for its buffers.
const FRAME_MAX: u32 = 8192;

/// An open connection.
pub struct Opened {
    /// The connection; dropping it closes it in the background.
    pub connection: Connection,
    _socket: Socket,
}

/// Opens a connection to `target`, named `name` in RabbitMQ's own lists.
pub async fn dial(target: &Target, name: &str) -> Result<Opened, DialError> {
    let tls = tls::client_config(&target.credentials).map_err(DialError::Tls)?;
    let connector = RustlsConnector::from(tls);
    let socket = Socket::default();
    let handle = Arc::clone(&socket.0);
    let address = target.address.clone();
    let connect = async move |_: AMQPUri, _| {
        let tcp = TcpStream::connect((address.host(), address.port()));
        let tcp = timeout(TRANSPORT, tcp)
            .await
            .unwrap_or_else(|_| Err(timed_out()));
        let tcp = tcp.map_err(not_reached)?;
        tcp.set_nodelay(true)?;
        let duplicate = tcp.as_fd().try_clone_to_owned()?;
        *handle.lock().unwrap_or_else(PoisonError::into_inner) = Some(duplicate.into());
        let stream = AsyncTcpStream::Plain(tcp.compat());
        let stream = stream.into_rustls(&connector, address.host());
        let stream = timeout(TRANSPORT, stream).await;
        Ok(stream.unwrap_or_else(|_| Err(timed_out()))?)
    };
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let runtime = lapin::runtime::default_runtime()?;
    let opening = Connection::connector(uri(target), runtime, connect, properties);
    let connection = timeout(HANDSHAKE, opening)
        .await
        .map_err(|_| DialError::Timeout)??;
    Ok(Opened {
        connection,
        _socket: socket,
    })
}

fn uri(target: &Target) -> AMQPUri {
    let default = AMQPUri::default();
    AMQPUri {
        scheme: AMQPScheme::AMQPS,
        authority: AMQPAuthority {
            host: target.address.host().to_owned(),
            port: target.address.port(),
            ..default.authority
        },
        vhost: target.address.virtual_host().to_owned(),
        query: AMQPQueryString {
            auth_mechanism: Some(SASLMechanism::External),
            heartbeat: Some(HEARTBEAT_SECONDS),
            frame_max: Some(FRAME_MAX),
            ..default.query
        },
    }
}

fn timed_out() -> std::io::Error {
    std::io::ErrorKind::TimedOut.into()
}

/// A second handle on the socket. lapin reads and writes in a thread of its own, which ends when
/// the socket does: shutting it down when the connection is given up leaves no thread behind,
/// however silent the other side is.
#[derive(Default)]
struct Socket(Arc<Mutex<Option<std::net::TcpStream>>>);

impl Drop for Socket {
    fn drop(&mut self) {
        let socket = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(socket) = socket {
            // Fails where it is closed already, which is as well.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}
