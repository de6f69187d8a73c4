//! A TLS client of one version, which keeps its sessions.

use super::authority::Pair;
use super::probe::PROTOCOL_HEADER;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{AlertDescription, ClientConfig, RootCertStore, SupportedProtocolVersion};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use volttron_tests::{Broker, eventually};

/// How long a broker is asked for an answer that says something.
pub const SEEN: Duration = Duration::from_secs(30);

pub struct Client {
    address: String,
    name: ServerName<'static>,
    config: Arc<ClientConfig>,
}

impl Client {
    pub fn new(
        broker: &Broker<'_>,
        roots: &str,
        pair: &Pair,
        version: &'static SupportedProtocolVersion,
    ) -> Self {
        let certificates = |text: &str| -> Vec<CertificateDer<'static>> {
            CertificateDer::pem_slice_iter(text.as_bytes())
                .collect::<Result<_, _>>()
                .unwrap()
        };
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(certificates(roots));
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        let config = ClientConfig::builder_with_protocol_versions(&[version])
            .with_root_certificates(store)
            .with_client_auth_cert(certificates(&pair.chain), key)
            .unwrap();
        Self {
            address: format!("{}:5671", broker.address()),
            name: ServerName::try_from(broker.instance.host()).unwrap(),
            config: Arc::new(config),
        }
    }

    /// Connects until the broker begins with AMQP, or says by an alert why not. An alert can be lost on the way.
    pub async fn says(&self) -> Result<(), AlertDescription> {
        eventually("the broker answers", SEEN, async || {
            let error = match self.connect().await {
                Ok(()) => return Ok(Ok(())),
                Err(error) => error,
            };
            let alert = error.get_ref().and_then(|inner| inner.downcast_ref());
            match alert {
                Some(rustls::Error::AlertReceived(alert)) => Ok(Err(*alert)),
                _ => Err(error.to_string()),
            }
        })
        .await
    }

    async fn connect(&self) -> io::Result<()> {
        let tcp = TcpStream::connect(&self.address).await?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let mut tls = connector.connect(self.name.clone(), tcp).await?;
        tls.write_all(&PROTOCOL_HEADER).await?;
        let mut answer = [0; 11];
        tls.read_exact(&mut answer).await?;
        assert_eq!(answer[7..], [0, 10, 0, 10], "connection.start");
        Ok(())
    }
}
