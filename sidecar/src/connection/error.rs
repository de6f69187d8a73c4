//! Why a connection did not come about or ended, in words that say what to check.

use rustls::{AlertDescription, CertificateError, Error as TlsError};
use std::io;
use thiserror::Error;

/// AMQP 0-9-1 reply codes.
const CONNECTION_FORCED: u16 = 320;
const ACCESS_REFUSED: u16 = 403;
const NOT_ALLOWED: u16 = 530;

/// Why there is no connection. All of these are tried again.
#[derive(Debug, Error)]
pub enum DialError {
    /// The broker's host or port does not answer.
    #[error("the broker cannot be reached: {0}")]
    Unreachable(#[source] io::Error),
    /// The connection was cut.
    #[error("the connection broke: {0}")]
    Broken(#[source] io::Error),
    /// Nothing came back in time.
    #[error("the broker does not answer: check that its port speaks AMQP over TLS")]
    Timeout,
    /// The broker's certificate is not signed by the instance's CA.
    #[error(
        "the broker's certificate is not trusted: {0}; check that the broker uses a certificate \
         signed by the CA in the VolttronInstance's status.ca"
    )]
    Untrusted(#[source] TlsError),
    /// The broker's certificate is for another host.
    #[error(
        "the broker's certificate is for another host: {0}; check the host in the \
         VolttronInstance's status.amqpAddress"
    )]
    OtherHost(#[source] TlsError),
    /// The broker refused our certificate in the TLS handshake.
    #[error(
        "the broker refuses our certificate ({0:?}); check that it trusts the instance's CA and \
         that the certificate has not run out"
    )]
    CertificateRefused(AlertDescription),
    /// Any other fault of TLS.
    #[error("TLS failed: {0}")]
    Tls(#[source] TlsError),
    /// The broker knows no user of our name.
    #[error(
        "the broker refuses the login: {0}; check that the request is still approved and that \
         the broker has a user with the certificate's common name"
    )]
    LoginRefused(String),
    /// The user may not use the virtual host, or it is missing.
    #[error(
        "the broker refuses the virtual host: {0}; check that it exists and that the user has \
         permissions on it"
    )]
    VirtualHostRefused(String),
    /// The broker's administrator or operator ended the connection.
    #[error(
        "the broker closed the connection: {0}; after a denial its user is removed, and a broker \
         that is restarted comes back"
    )]
    Forced(String),
    /// The broker closed the connection for another reason.
    #[error("the broker closed the connection: {0}")]
    Closed(String),
    /// The broker fell silent.
    #[error("the broker sent no heartbeat")]
    Silent,
    /// A fault of the AMQP library.
    #[error("AMQP failed: {0}")]
    Amqp(#[source] lapin::Error),
}

impl From<lapin::Error> for DialError {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            lapin::ErrorKind::IOError(cause) => from_io(cause),
            lapin::ErrorKind::MissingHeartbeatError => Self::Silent,
            lapin::ErrorKind::ProtocolError(refusal) => {
                let said = refusal.get_message().to_string();
                match refusal.get_id() {
                    ACCESS_REFUSED => Self::LoginRefused(said),
                    NOT_ALLOWED => Self::VirtualHostRefused(said),
                    CONNECTION_FORCED => Self::Forced(said),
                    _ => Self::Closed(said),
                }
            }
            _ => Self::Amqp(error),
        }
    }
}

/// Marks an error of name resolution or TCP, so that it is told apart from one that comes later.
#[derive(Debug, Error)]
#[error("{0}")]
struct NotReached(io::Error);

/// Marks `error` as one from before there was a TCP connection.
#[must_use]
pub fn not_reached(error: io::Error) -> io::Error {
    io::Error::other(NotReached(error))
}

fn from_io(error: &io::Error) -> DialError {
    // io::Error cannot be cloned; its kind and text are what is needed.
    let copy = |error: &io::Error| io::Error::new(error.kind(), error.to_string());
    if let Some(inner) = error.get_ref() {
        if let Some(NotReached(cause)) = inner.downcast_ref() {
            return DialError::Unreachable(copy(cause));
        }
        if let Some(tls) = inner.downcast_ref() {
            return from_tls(tls);
        }
    }
    match error.kind() {
        io::ErrorKind::TimedOut => DialError::Timeout,
        // rustls explains at length that the other side did not say good-bye.
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionAborted => DialError::Broken(
            io::Error::new(error.kind(), "the broker ended it without a word"),
        ),
        _ => DialError::Broken(copy(error)),
    }
}

fn from_tls(error: &TlsError) -> DialError {
    let error = error.clone();
    match &error {
        TlsError::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => DialError::OtherHost(error),
        TlsError::InvalidCertificate(_) => DialError::Untrusted(error),
        TlsError::AlertReceived(alert) => DialError::CertificateRefused(*alert),
        _ => DialError::Tls(error),
    }
}
