//! Where the broker is.

use lapin::uri::AMQPUri;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// RabbitMQ's port for AMQP over TLS.
const DEFAULT_PORT: u16 = 5671;

/// An `amqps://` address: TLS is not optional.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    host: String,
    port: u16,
    virtual_host: String,
}

/// Not an address the sidecar connects to.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the instance's address {0:?} is not amqps://<host>:<port>/<virtual host>")]
pub struct InvalidAddress(String);

impl Address {
    /// Host name or IP address: what is dialled, and what the broker's certificate must be for.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// RabbitMQ's virtual host, decoded.
    #[must_use]
    pub fn virtual_host(&self) -> &str {
        &self.virtual_host
    }
}

impl FromStr for Address {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(text.to_owned());
        let rest = text.strip_prefix("amqps://").ok_or_else(invalid)?;
        // lapin decodes the virtual host; it takes no IPv6 host, so that is read here.
        let uri: AMQPUri = text.parse().map_err(|_| invalid())?;
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = match authority.strip_prefix('[') {
            Some(rest) => rest.split_once(']').ok_or_else(invalid)?,
            None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
        };
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().map_err(|_| invalid())?,
            None if port.is_empty() => DEFAULT_PORT,
            None => return Err(invalid()),
        };
        if host.is_empty() || host.contains('@') || port == 0 {
            return Err(invalid());
        }
        Ok(Self {
            host: host.to_owned(),
            port,
            virtual_host: uri.vhost,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "amqps://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "amqps://{}:{}", self.host, self.port)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let cases = [
            (
                "amqps://central-rabbitmq.volttron.svc:5671/volttron",
                ("central-rabbitmq.volttron.svc", 5671, "volttron"),
            ),
            ("amqps://127.0.0.1:35671/a%2Fb", ("127.0.0.1", 35671, "a/b")),
            ("amqps://[::1]:5672/v", ("::1", 5672, "v")),
            ("amqps://broker/v", ("broker", 5671, "v")),
        ];
        for (text, (host, port, virtual_host)) in cases {
            let address: Address = text.parse().unwrap();
            assert_eq!(
                (address.host(), address.port(), address.virtual_host()),
                (host, port, virtual_host),
                "{text}"
            );
        }
    }

    #[test]
    fn an_address_without_tls_or_host_is_refused() {
        for text in [
            "",
            "broker:5671",
            "amqp://broker:5672/volttron",
            "https://broker/v",
            "amqps://",
            "amqps:///volttron",
            "amqps://broker:x/v",
            "amqps://broker:0/v",
            "amqps://guest:guest@broker/v",
            "amqps://[::1/v",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text:?} was taken");
        }
    }
}
