//! What a managed broker reads when it starts.

use super::{AMQPS, MANAGEMENT, broker_name, metadata};
use crate::pki::sha256_hex;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;
use volttron_crds::VolttronInstance;

/// Where the broker's files are mounted.
pub(super) const FOLDER: &str = "/etc/volttron-rabbitmq";

/// The broker's configuration.
pub(in crate::controller::instance) fn config_map(instance: &VolttronInstance) -> ConfigMap {
    let files = [
        ("rabbitmq.conf", rabbitmq_conf()),
        ("advanced.config", advanced_config()),
        ("enabled_plugins", enabled_plugins()),
    ];
    ConfigMap {
        metadata: metadata(instance, broker_name(instance)),
        data: Some(
            files
                .map(|(name, content)| (name.to_owned(), content))
                .into(),
        ),
        ..ConfigMap::default()
    }
}

/// SHA-256 of what the broker reads only when it starts. Its certificate and the revocation lists
/// are not among it: those it reads anew by itself.
pub(super) fn digest(definitions: &Value) -> String {
    let parts = [
        rabbitmq_conf(),
        advanced_config(),
        enabled_plugins(),
        definitions.to_string(),
    ];
    sha256_hex(parts.join("\0").as_bytes())
}

fn rabbitmq_conf() -> String {
    format!(
        "# TLS with client certificates is the only way in: the options of this listener are in advanced.config.
listeners.tcp = none
listeners.ssl.default = {AMQPS}
# The user is the certificate's common name.
auth_mechanisms.1 = EXTERNAL
ssl_cert_login_from = common_name

# The operator's way in, with a password.
management.ssl.port = {MANAGEMENT}
management.ssl.cacertfile = {FOLDER}/tls/ca.crt
management.ssl.certfile = {FOLDER}/tls/tls.crt
management.ssl.keyfile = {FOLDER}/tls/tls.key
management.ssl.versions.1 = tlsv1.3
management.ssl.versions.2 = tlsv1.2

# Virtual host, exchanges and the operator's user are there from the first moment.
load_definitions = {FOLDER}/definitions/definitions.json
log.console = true
log.console.level = info
"
    )
}

/// The options of the AMQP listener. Revocation lists can be enforced from here only, and what is
/// said of `ssl_options` here replaces all that rabbitmq.conf says of them (RabbitMQ 3.10 and 4.0).
///
/// - `crl_check`: `peer` looks at the client's own certificate. It refuses whoever's CA has no list
///   in force (fail closed); with `true` the CA certificates of the chain would need lists as well,
///   and nobody has one of the root of a CA that was brought along.
/// - `reuse_sessions`: a TLS 1.2 session that is resumed would pass without a look at the list.
fn advanced_config() -> String {
    format!(
        "[{{rabbit, [{{ssl_options, [
  {{cacertfile, \"{FOLDER}/tls/ca.crt\"}},
  {{certfile, \"{FOLDER}/tls/tls.crt\"}},
  {{keyfile, \"{FOLDER}/tls/tls.key\"}},
  {{verify, verify_peer}},
  {{fail_if_no_peer_cert, true}},
  {{depth, 5}},
  {{versions, ['tlsv1.3', 'tlsv1.2']}},
  {{reuse_sessions, false}},
  {{crl_check, peer}},
  {{crl_cache, {{ssl_crl_hash_dir, {{internal, [{{dir, \"{FOLDER}/crl\"}}]}}}}}}
]}}]}}].
"
    )
}

fn enabled_plugins() -> String {
    "[rabbitmq_auth_mechanism_ssl,rabbitmq_management].\n".to_owned()
}
