//! Agents: their keys and signing requests, and how they log in.

use crate::{Broker, Issued, openssl};
use async_compat::CompatExt as _;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use lapin::tcp::RustlsConnector;
use lapin::uri::{
    AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo, SASLMechanism,
};
use lapin::{AsyncTcpStream, Connection, ConnectionProperties};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use rustls::client::WantsClientCert;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore};
use std::sync::Arc;
use std::time::Duration;

/// The whole way to the broker's `OpenOk`.
const HANDSHAKE: Duration = Duration::from_secs(20);

/// An agent with its private key.
#[derive(Clone, Debug)]
pub struct Agent {
    /// What it asks to be called.
    pub common_name: String,
    /// Its private key (PEM).
    pub key: String,
    /// Its signing request (PEM).
    pub csr: String,
}

impl Agent {
    /// With a key on P-256.
    pub fn new(common_name: &str) -> Self {
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, common_name);
        let csr = params.serialize_request(&key).and_then(|csr| csr.pem());
        Self {
            common_name: common_name.to_owned(),
            key: key.serialize_pem(),
            csr: csr.expect("a signing request"),
        }
    }

    /// With an RSA key of 2048 bits and a signing request, both made by openssl, as VOLTTRON makes them.
    pub fn rsa(common_name: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let subject = format!("/C=US/ST=Washington/L=Richland/O=PNNL/OU=VOLTTRON/CN={common_name}");
        let args = "req -new -newkey rsa:2048 -nodes -keyout key.pem -out csr.pem -subj";
        let args: Vec<&str> = args.split(' ').chain([subject.as_str()]).collect();
        openssl(folder.path(), &args);
        let read = |name: &str| {
            std::fs::read_to_string(folder.path().join(name)).expect("openssl has written it")
        };
        Self {
            common_name: common_name.to_owned(),
            key: read("key.pem"),
            csr: read("csr.pem"),
        }
    }

    /// A certificate for the agent's name that the agent signed itself.
    pub fn self_signed(&self) -> String {
        let key = KeyPair::from_pem(&self.key).expect("a key");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, self.common_name.as_str());
        params.self_signed(&key).expect("a certificate").pem()
    }
}

/// What stands in `spec.request`: base64.
pub fn encode(csr: impl AsRef<[u8]>) -> String {
    STANDARD.encode(csr)
}

/// How somebody logs in to a broker.
#[derive(Clone, Debug)]
pub struct Login {
    /// Certificate chain and private key (PEM).
    pub certificate: Option<(String, String)>,
    /// The CA certificates to trust (PEM).
    pub trust: String,
    /// User and password, for PLAIN instead of EXTERNAL.
    pub password: Option<(String, String)>,
}

impl Login {
    /// With the certificate that was issued to `agent`.
    pub fn certificate(agent: &Agent, issued: &Issued) -> Self {
        Self {
            certificate: Some((issued.chain.clone(), agent.key.clone())),
            trust: issued.ca.clone(),
            password: None,
        }
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let config = trusting(&self.trust)?;
        let Some((chain, key)) = &self.certificate else {
            return Ok(Arc::new(config.with_no_client_auth()));
        };
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| text(&error))?;
        let config = config.with_client_auth_cert(chain.map_err(|error| text(&error))?, key);
        config.map(Arc::new).map_err(|error| text(&error))
    }
}

/// The beginning of a TLS client's configuration, with trust in these CA certificates (PEM) alone.
pub(crate) fn trusting(
    bundle: &str,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
        let certificate = certificate.map_err(|error| text(&error))?;
        roots.add(certificate).map_err(|error| text(&error))?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| text(&error))?;
    Ok(config.with_root_certificates(roots))
}

impl Broker<'_> {
    /// Opens a connection over TLS, up to the broker's `OpenOk`, to the host that the instance's status names.
    ///
    /// # Errors
    /// Why it was refused.
    pub async fn connect(&self, login: Login) -> Result<Connection, String> {
        let virtual_host = self.instance.get().await.spec.broker.virtual_host;
        let connector = RustlsConnector::from(login.tls()?);
        let (host, address) = (self.instance.host(), self.address());
        let default = AMQPUri::default();
        let (mechanism, user) = match login.password {
            None => (SASLMechanism::External, default.authority.userinfo.clone()),
            Some((username, password)) => {
                (SASLMechanism::Plain, AMQPUserInfo { username, password })
            }
        };
        let uri = AMQPUri {
            scheme: AMQPScheme::AMQPS,
            authority: AMQPAuthority {
                userinfo: user,
                host: host.clone(),
                port: 5671,
            },
            vhost: virtual_host,
            query: AMQPQueryString {
                auth_mechanism: Some(mechanism),
                ..default.query
            },
        };
        let connect = async move |_: AMQPUri, _| {
            let tcp = tokio::net::TcpStream::connect((address, 5671)).await?;
            let stream = AsyncTcpStream::Plain(tcp.compat());
            Ok(stream.into_rustls(&connector, &host).await?)
        };
        let runtime = lapin::runtime::default_runtime().map_err(|error| error.to_string())?;
        let opening = Connection::connector(uri, runtime, connect, ConnectionProperties::default());
        match tokio::time::timeout(HANDSHAKE, opening).await {
            Ok(opened) => opened.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no OpenOk within {HANDSHAKE:?}")),
        }
    }
}
