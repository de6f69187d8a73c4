//! The Kubernetes objects of a managed broker. Pure: an instance in, manifests out. They fit the
//! official `rabbitmq` image and Debian's package alike: the configuration lies in a folder of its
//! own, and the server is started without the image's entry point.

use crate::pki::{ServerPair, sha256_hex};
use k8s_openapi::ByteString;
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource,
    EnvVar, HTTPGetAction, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodSecurityContext,
    PodSpec, PodTemplateSpec, Probe, SeccompProfile, Secret, SecretVolumeSource, SecurityContext,
    Service, ServicePort, ServiceSpec, Volume, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};
use serde_json::Value;
use std::collections::BTreeMap;
use volttron_crds::{VolttronInstance, well_known};

/// AMQP over TLS (IANA `amqps`).
const AMQPS: i32 = 5671;
/// RabbitMQ's management API over TLS.
const MANAGEMENT: i32 = 15671;
/// The `rabbitmq` user and group of the official image.
const RABBITMQ_ID: i64 = 999;
/// Where the broker's configuration is mounted.
const FOLDER: &str = "/etc/volttron-rabbitmq";

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

/// Host, port and the name in the certificate of where agents connect.
pub(super) fn amqp_endpoint(instance: &VolttronInstance) -> (String, String) {
    let host = service_host(instance);
    (format!("{host}:{AMQPS}"), host)
}

/// SHIM
pub(in crate::controller) fn crl_config_map(
    instance: &VolttronInstance,
    lists: &[(String, String)],
) -> ConfigMap {
    ConfigMap {
        metadata: metadata(instance, format!("{}-crl", broker_name(instance))),
        data: Some(lists.iter().cloned().collect()),
        ..ConfigMap::default()
    }
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

/// The broker's configuration.
pub(super) fn config_map(instance: &VolttronInstance) -> ConfigMap {
    let files = [
        ("rabbitmq.conf", rabbitmq_conf()),
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

/// The broker itself.
pub(super) fn stateful_set(instance: &VolttronInstance, parts: &Parts<'_>) -> StatefulSet {
    // A broker reads these only when it starts. Its certificate is not among them: that it reads
    // anew by itself.
    let configuration = format!(
        "{}\0{}\0{}",
        rabbitmq_conf(),
        enabled_plugins(),
        parts.definitions
    );
    let annotations = BTreeMap::from([(
        "volttron.org/configuration-sha256".to_owned(),
        sha256_hex(configuration.as_bytes()),
    )]);
    StatefulSet {
        metadata: metadata(instance, broker_name(instance)),
        spec: Some(StatefulSetSpec {
            replicas: Some(1),
            service_name: Some(broker_name(instance)),
            // A pod that never gets ready, for want of an image say, is replaced when the spec is
            // mended.
            pod_management_policy: Some("Parallel".to_owned()),
            selector: LabelSelector {
                match_labels: Some(selector(instance)),
                ..LabelSelector::default()
            },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta {
                    labels: Some(labels(instance)),
                    annotations: Some(annotations),
                    ..ObjectMeta::default()
                }),
                spec: Some(pod(instance)),
            },
            volume_claim_templates: Some(vec![claim(instance)]),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn pod(instance: &VolttronInstance) -> PodSpec {
    let empty = |name: &str| Volume {
        name: name.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Volume::default()
    };
    let secret = |name: &str, secret: String| Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret),
            default_mode: Some(0o440),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    };
    PodSpec {
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        termination_grace_period_seconds: Some(60),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(RABBITMQ_ID),
            run_as_group: Some(RABBITMQ_ID),
            fs_group: Some(RABBITMQ_ID),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..SeccompProfile::default()
            }),
            ..PodSecurityContext::default()
        }),
        containers: vec![container(instance)],
        volumes: Some(vec![
            Volume {
                name: "config".to_owned(),
                config_map: Some(ConfigMapVolumeSource {
                    name: broker_name(instance),
                    ..ConfigMapVolumeSource::default()
                }),
                ..Volume::default()
            },
            secret("definitions", definitions_name(instance)),
            secret("tls", tls_secret_name(instance)),
            empty("tmp"),
            empty("log"),
        ]),
        ..PodSpec::default()
    }
}

fn container(instance: &VolttronInstance) -> Container {
    let env = |(name, value): (&str, String)| EnvVar {
        name: name.to_owned(),
        value: Some(value),
        ..EnvVar::default()
    };
    let port = |name: &str, number: i32| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let mount = |name: &str, path: &str, read_only: bool| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    // The page of the management plugin: it is up last, needs no log-in, and is answered over TLS.
    let probe = |period: i32, failures: i32| Probe {
        http_get: Some(HTTPGetAction {
            path: Some("/".to_owned()),
            port: IntOrString::String("management".to_owned()),
            scheme: Some("HTTPS".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(5),
        failure_threshold: Some(failures),
        ..Probe::default()
    };
    Container {
        name: "rabbitmq".to_owned(),
        image: Some(instance.spec.broker.managed.image.clone()),
        command: Some(vec!["rabbitmq-server".to_owned()]),
        env: Some(environment().map(env).into()),
        ports: Some(vec![port("amqps", AMQPS), port("management", MANAGEMENT)]),
        resources: Some((&instance.spec.broker.managed.resources).into()),
        startup_probe: Some(probe(2, 150)),
        readiness_probe: Some(probe(10, 3)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities {
                drop: Some(vec!["ALL".to_owned()]),
                ..Capabilities::default()
            }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![
            mount("config", &format!("{FOLDER}/config"), true),
            mount("definitions", &format!("{FOLDER}/definitions"), true),
            mount("tls", &format!("{FOLDER}/tls"), true),
            mount("data", "/var/lib/rabbitmq", false),
            mount("log", "/var/log/rabbitmq", false),
            mount("tmp", "/tmp", false),
        ]),
        ..Container::default()
    }
}

/// The broker's environment (<https://www.rabbitmq.com/docs/configure#supported-environment-variables>).
/// Distribution and its port mapper listen on loopback alone: there is one node.
fn environment() -> [(&'static str, String); 8] {
    [
        ("HOME", "/var/lib/rabbitmq".to_owned()),
        ("RABBITMQ_NODENAME", "rabbit@localhost".to_owned()),
        (
            "RABBITMQ_CONFIG_FILE",
            format!("{FOLDER}/config/rabbitmq.conf"),
        ),
        ("RABBITMQ_CONFIG_FILES", format!("{FOLDER}/conf.d")),
        (
            "RABBITMQ_ENABLED_PLUGINS_FILE",
            format!("{FOLDER}/config/enabled_plugins"),
        ),
        ("RABBITMQ_LOGS", "-".to_owned()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-kernel inet_dist_use_interface {127,0,0,1}".to_owned(),
        ),
    ]
}

fn rabbitmq_conf() -> String {
    format!(
        "# TLS with client certificates is the only way in.
listeners.tcp = none
listeners.ssl.default = {AMQPS}
ssl_options.cacertfile = {FOLDER}/tls/ca.crt
ssl_options.certfile = {FOLDER}/tls/tls.crt
ssl_options.keyfile = {FOLDER}/tls/tls.key
ssl_options.verify = verify_peer
ssl_options.fail_if_no_peer_cert = true
ssl_options.versions.1 = tlsv1.3
ssl_options.versions.2 = tlsv1.2
ssl_options.depth = 5

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

fn enabled_plugins() -> String {
    "[rabbitmq_auth_mechanism_ssl,rabbitmq_management].\n".to_owned()
}

fn claim(instance: &VolttronInstance) -> PersistentVolumeClaim {
    let storage = &instance.spec.broker.managed.storage;
    PersistentVolumeClaim {
        metadata: ObjectMeta {
            name: Some("data".to_owned()),
            labels: Some(selector(instance)),
            ..ObjectMeta::default()
        },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([(
                    "storage".to_owned(),
                    storage.size.clone(),
                )])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
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
