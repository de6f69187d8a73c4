//! `spec.broker`: the message broker of an instance.

use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The broker of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BrokerSpec {
    /// A single-node RabbitMQ that the operator runs as StatefulSet `<instance>-rabbitmq`.
    #[serde(default)]
    pub managed: ManagedBroker,
    /// The RabbitMQ virtual host of the instance.
    #[serde(default = "default_virtual_host")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = kube::core::Rule::new("self.matches('^[A-Za-z0-9._-]{1,64}$') && self != '.' && self != '..'")
        .message("must be 1 to 64 letters, digits, '.', '_' or '-', such as volttron, and neither '.' nor '..', which addresses cannot carry"))]
    pub virtual_host: String,
}

impl Default for BrokerSpec {
    fn default() -> Self {
        Self {
            managed: ManagedBroker::default(),
            virtual_host: default_virtual_host(),
        }
    }
}

/// A RabbitMQ that the operator runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedBroker {
    /// The image: the official `rabbitmq` image with management, 3.13 or later, or one that is
    /// laid out like it.
    #[serde(default = "default_image")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = kube::core::Rule::new("self.matches('^[^[:space:]]+$')")
        .message("must be the name of an image, without spaces, such as docker.io/library/rabbitmq:4-management"))]
    pub image: String,
    /// The volume of the broker's database. It cannot be changed once the broker runs, like the
    /// volume claim of any StatefulSet.
    #[serde(default)]
    pub storage: StorageSpec,
    /// CPU and memory of the broker's container, as in a pod.
    #[serde(default)]
    pub resources: BrokerResources,
}

impl Default for ManagedBroker {
    fn default() -> Self {
        Self {
            image: default_image(),
            storage: StorageSpec::default(),
            resources: BrokerResources::default(),
        }
    }
}

/// The volume of a managed broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = kube::core::Rule::new("self == oldSelf")
    .message("storage cannot be changed once the broker has its volume; resize the PersistentVolumeClaim itself, or create a new instance"))]
pub struct StorageSpec {
    /// Size of the volume, for example `8Gi`. At least 100Mi: RabbitMQ takes no messages while less
    /// than 50 MB are free.
    #[serde(default = "default_storage_size")]
    #[schemars(schema_with = "quantity")]
    #[x_kube(validation = kube::core::Rule::new("type(self) == int ? self >= 104857600 : isQuantity(self) && quantity(self).compareTo(quantity('100Mi')) >= 0")
        .message("must be a quantity of bytes, at least 100Mi, such as 8Gi"))]
    pub size: Quantity,
    /// StorageClass of the volume. Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = kube::core::Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')")
        .message("must be the name of a StorageClass: lower-case letters, digits, '-' and '.', such as standard"))]
    pub storage_class_name: Option<String>,
}

impl Default for StorageSpec {
    fn default() -> Self {
        Self {
            size: default_storage_size(),
            storage_class_name: None,
        }
    }
}

/// Resources of the broker's container.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = kube::core::Rule::new("!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in self.limits) || !isQuantity(string(self.requests[name])) || !isQuantity(string(self.limits[name])) || quantity(string(self.requests[name])).compareTo(quantity(string(self.limits[name]))) <= 0)")
    .message("requests must not be above limits"))]
pub struct BrokerResources {
    /// What the scheduler sets aside, for example `{cpu: 250m, memory: 512Mi}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    #[x_kube(validation = kube::core::Rule::new("self.all(name, type(self[name]) == int ? self[name] >= 0 : isQuantity(self[name]) && quantity(self[name]).compareTo(quantity('0')) >= 0)")
        .message("must be quantities, none below 0, such as {cpu: 250m, memory: 512Mi}"))]
    pub requests: BTreeMap<String, Quantity>,
    /// What the container may use at most. RabbitMQ stops reading from publishers at 60% of the
    /// memory limit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    #[x_kube(validation = kube::core::Rule::new("self.all(name, type(self[name]) == int ? self[name] >= 0 : isQuantity(self[name]) && quantity(self[name]).compareTo(quantity('0')) >= 0)")
        .message("must be quantities, none below 0, such as {cpu: 1, memory: 512Mi}"))]
    pub limits: BTreeMap<String, Quantity>,
}

impl From<&BrokerResources> for ResourceRequirements {
    fn from(resources: &BrokerResources) -> Self {
        let some = |map: &BTreeMap<String, Quantity>| (!map.is_empty()).then(|| map.clone());
        Self {
            requests: some(&resources.requests),
            limits: some(&resources.limits),
            claims: None,
        }
    }
}

/// A Kubernetes quantity: a number, or text such as `500m` or `1Gi`.
fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "maxLength": 32,
        "x-kubernetes-int-or-string": true,
    })
}

fn quantities(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": quantity(generator),
    })
}

fn default_virtual_host() -> String {
    "volttron".to_owned()
}

fn default_image() -> String {
    "docker.io/library/rabbitmq:4-management".to_owned()
}

fn default_storage_size() -> Quantity {
    Quantity("1Gi".to_owned())
}
