//! The pod of a managed broker, and the `StatefulSet` that keeps it.

use super::configuration::{FOLDER, digest};
use super::{
    AMQPS, MANAGEMENT, Parts, broker_name, definitions_name, labels, metadata,
    revocation_lists_name, selector, tls_secret_name,
};
use k8s_openapi::api::apps::v1::{StatefulSet, StatefulSetSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, ContainerPort, EmptyDirVolumeSource, EnvVar,
    HTTPGetAction, PersistentVolumeClaim, PersistentVolumeClaimSpec, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, SeccompProfile, SecretVolumeSource, SecurityContext, Volume,
    VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use std::collections::BTreeMap;
use volttron_crds::VolttronInstance;

/// The `rabbitmq` user and group of the official image.
const RABBITMQ_ID: i64 = 999;

/// The broker itself.
pub(in crate::controller::instance) fn stateful_set(
    instance: &VolttronInstance,
    parts: &Parts<'_>,
) -> StatefulSet {
    let annotations = BTreeMap::from([(
        "volttron.org/configuration-sha256".to_owned(),
        digest(parts.definitions),
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
    let config_map = |name: &str, map: String| Volume {
        name: name.to_owned(),
        config_map: Some(ConfigMapVolumeSource {
            name: map,
            ..ConfigMapVolumeSource::default()
        }),
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
            config_map("config", broker_name(instance)),
            config_map("crl", revocation_lists_name(instance)),
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
            mount("crl", &format!("{FOLDER}/crl"), true),
            mount("data", "/var/lib/rabbitmq", false),
            mount("log", "/var/log/rabbitmq", false),
            mount("tmp", "/tmp", false),
        ]),
        ..Container::default()
    }
}

/// The broker's environment (<https://www.rabbitmq.com/docs/configure#supported-environment-variables>).
/// Distribution and its port mapper listen on loopback alone: there is one node.
fn environment() -> [(&'static str, String); 9] {
    [
        ("HOME", "/var/lib/rabbitmq".to_owned()),
        ("RABBITMQ_NODENAME", "rabbit@localhost".to_owned()),
        (
            "RABBITMQ_CONFIG_FILE",
            format!("{FOLDER}/config/rabbitmq.conf"),
        ),
        (
            "RABBITMQ_ADVANCED_CONFIG_FILE",
            format!("{FOLDER}/config/advanced.config"),
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
