//! TLS as the broker and we want it: our certificate, its CA, its name.

use crate::credentials::Credentials;
use rustls::ClientConfig;
use rustls::crypto::aws_lc_rs;
use rustls::sign::SingleCertAndKey;
use std::sync::Arc;

/// Trusts the instance's CAs and no others, shows our certificate, speaks TLS 1.3 or 1.2. The
/// broker's name is verified against the host that is dialled.
pub fn client_config(credentials: &Credentials) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(credentials.roots())
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(
            credentials.certified_key(),
        )));
    Ok(Arc::new(config))
}
