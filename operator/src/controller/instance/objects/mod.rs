//! The Kubernetes objects of a managed broker. Pure: an instance in, manifests out. They fit the
//! official `rabbitmq` image and Debian's package alike: the configuration lies in a folder of its
//! own, and the server is started without the image's entry point.

mod configuration;
mod pod;
mod revocation;

pub(super) use configuration::config_map;
pub(super) use pod::stateful_set;
pub(in crate::controller) use revocation::{crl_config_map, revocation_lists_name};

use crate::pki::ServerPair;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};
use serde_json::Value;
use std::collections::BTreeMap;
use volttron_crds::{VolttronInstance, well_known};

/// AMQP over TLS (IANA `amqps`).
const AMQPS: i32 = 5671;
/// RabbitMQ's management API over TLS.
const MANAGEMENT: i32 = 15671;

/// What the broker's objects are made of, beside the instance.
pub(super) struct Parts<'a> {
    /// The CA certificates the broker trusts (PEM).
    pub(super) bundle: &'a str,
    /// The broker's certificate and key.
    pub(super) pair: &'a ServerPair,
    /// What the broker imports at each start.
    pub(super) definitions: &'a Value,
}

/// Where agents connect.
pub(super) fn amqp_address(instance: &VolttronInstance) -> String {
    let host = service_host(instance);
    format!(
        "amqps://{host}:{AMQPS}/{}",
        instance.spec.broker.virtual_host
    )
}

/// Host and port where agents connect, and the name that the broker's certificate has to carry.
pub(super) fn amqp_endpoint(instance: &VolttronInstance) -> (String, String) {
    let host = service_host(instance);
    (format!("{host}:{AMQPS}"), host)
}

/// Where the operator manages the broker.
pub(super) fn management_address(instance: &VolttronInstance) -> String {
    format!("https://{}:{MANAGEMENT}", service_host(instance))
}

/// The names in the broker's certificate.
pub(super) fn broker_names(instance: &VolttronInstance) -> Vec<String> {
    let (name, namespace) = (
        broker_name(instance),
        instance.namespace().unwrap_or_default(),
    );
    vec![
        service_host(instance),
        format!("{name}.{namespace}.svc.cluster.local"),
        format!("{name}.{namespace}"),
        name,
        "localhost".to_owned(),
    ]
}

/// Name of the Secret with the broker's certificate and key.
pub(super) fn tls_secret_name(instance: &VolttronInstance) -> String {
    format!("{}-tls", broker_name(instance))
}

/// Labels of everything that is made for `instance`.
pub(super) fn labels(instance: &VolttronInstance) -> BTreeMap<String, String> {
    let mut labels = selector(instance);
    labels.insert(
        well_known::MANAGED_BY_LABEL.to_owned(),
        well_known::MANAGED_BY.to_owned(),
    );
    let namespace = instance.namespace().unwrap_or_default();
    labels.insert(well_known::INSTANCE_NAMESPACE_LABEL.to_owned(), namespace);
    labels
}

/// The broker's certificate, key and trust bundle.
pub(super) fn tls_secret(instance: &VolttronInstance, parts: &Parts<'_>) -> Secret {
    Secret {
        metadata: metadata(instance, tls_secret_name(instance)),
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(BTreeMap::from([
            bytes("tls.crt", &parts.pair.chain),
            bytes("tls.key", &parts.pair.key),
            bytes("ca.crt", parts.bundle),
        ])),
        ..Secret::default()
    }
}

/// What the broker imports at each start. It holds the hash of the operator's password.
pub(super) fn definitions_secret(instance: &VolttronInstance, parts: &Parts<'_>) -> Secret {
    Secret {
        metadata: metadata(instance, definitions_name(instance)),
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([bytes(
            "definitions.json",
            &parts.definitions.to_string(),
        )])),
        ..Secret::default()
    }
}

/// The broker's stable address.
pub(super) fn service(instance: &VolttronInstance) -> Service {
    let port = |name: &str, number: i32| ServicePort {
        name: Some(name.to_owned()),
        port: number,
        target_port: Some(IntOrString::String(name.to_owned())),
        app_protocol: (number == AMQPS).then(|| "amqps".to_owned()),
        protocol: Some("TCP".to_owned()),
        ..ServicePort::default()
    };
    Service {
        metadata: metadata(instance, broker_name(instance)),
        spec: Some(ServiceSpec {
            selector: Some(selector(instance)),
            ports: Some(vec![port("amqps", AMQPS), port("management", MANAGEMENT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn metadata(instance: &VolttronInstance, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: instance.namespace(),
        labels: Some(labels(instance)),
        owner_references: instance.controller_owner_ref(&()).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn selector(instance: &VolttronInstance) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/name".to_owned(), "rabbitmq".to_owned()),
        (well_known::INSTANCE_LABEL.to_owned(), instance.name_any()),
    ])
}

fn broker_name(instance: &VolttronInstance) -> String {
    format!("{}-rabbitmq", instance.name_any())
}

fn definitions_name(instance: &VolttronInstance) -> String {
    format!("{}-definitions", broker_name(instance))
}

fn service_host(instance: &VolttronInstance) -> String {
    format!(
        "{}.{}.svc",
        broker_name(instance),
        instance.namespace().unwrap_or_default()
    )
}

fn bytes(key: &str, value: &str) -> (String, ByteString) {
    (key.to_owned(), ByteString(value.as_bytes().to_vec()))
}
