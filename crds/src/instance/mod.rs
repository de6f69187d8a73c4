//! [`VolttronInstance`]: one VOLTTRON instance that others may connect to.

mod authority;
mod broker;
mod certificates;
mod requests;
mod status;

pub use authority::{
    CertificateAuthoritySpec, GeneratedAuthority, KeyAlgorithm, SecretReference, Subject,
};
pub use broker::{BrokerResources, BrokerSpec, ManagedBroker, StorageSpec};
pub use certificates::CertificateSpec;
pub use requests::{
    AllowedNamespaces, AllowedNamespacesWord, ApprovalSpec, AutoApproval, RequestsSpec,
};
pub use status::{AuthorityStatus, OtherAuthorityStatus, RequestCounts, VolttronInstanceStatus};

use crate::explain::with_values_explained;
use crate::names::{InstanceName, InvalidName};
use crate::parse_duration;
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A VOLTTRON instance: its certificate authority, its broker, and the rules by which agents of
/// other instances get a certificate.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "volttron.org",
    version = "v1alpha1",
    kind = "VolttronInstance",
    doc = "A VOLTTRON instance: its certificate authority, its RabbitMQ broker, and the rules by which agents of other instances get a certificate.",
    namespaced,
    status = "VolttronInstanceStatus",
    shortname = "vinst",
    category = "volttron",
    derive = "PartialEq",
    validation = kube::core::Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$')")
        .message("metadata.name must be at most 40 lower-case letters, digits and '-', beginning with a letter (no dot): Services and StatefulSets are named after it"),
    validation = kube::core::Rule::new("has(self.spec.instanceName) || self.metadata.name.size() <= 32")
        .message("metadata.name is longer than the 32 characters an instance name may have; set spec.instanceName to the name agents use"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Address", type_ = "string", json_path = ".status.amqpAddress"),
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.requests.pending", description = "Requests that wait for an administrator, or for room."),
    printcolumn(name = "Issued", type_ = "integer", json_path = ".status.requests.issued", description = "Requests whose certificate is signed and valid."),
    printcolumn(name = "CA Expires", type_ = "string", json_path = ".status.ca.notAfter", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = kube::core::Rule::new("has(self.instanceName) == has(oldSelf.instanceName) && (!has(self.instanceName) || self.instanceName == oldSelf.instanceName)")
        .message("instanceName cannot be changed: every common name and broker user is built from it; create a new instance instead")
)]
pub struct VolttronInstanceSpec {
    /// The name by which agents know this instance; it is the first word of every common name.
    /// Letters, digits, `_` and `-`. Default: metadata.name. It cannot be changed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = kube::core::Rule::new("self.matches('^[A-Za-z0-9_-]{1,32}$')")
        .message("must be 1 to 32 letters, digits, '_' or '-' (no dot: it would make common names ambiguous), such as central"))]
    pub instance_name: Option<String>,

    /// The message bus. RabbitMQ (`rmq`) with TLS is the only one there is: ZeroMQ and plaintext
    /// remotes are not supported.
    #[serde(default)]
    #[schemars(transform = with_values_explained)]
    pub message_bus: MessageBus,

    /// Where the certificate authority comes from. Default: a generated one. A change replaces the
    /// CA by rotation: the new one is trusted everywhere before it signs, and the old one is
    /// trusted until nobody needs it.
    #[serde(default)]
    pub ca: CertificateAuthoritySpec,

    /// The RabbitMQ broker of this instance. Default: one that the operator runs.
    #[serde(default)]
    pub broker: BrokerSpec,

    /// What is signed for agents.
    #[serde(default)]
    pub certificates: CertificateSpec,

    /// Which requests are approved without an administrator.
    #[serde(default)]
    pub approval: ApprovalSpec,

    /// Who may file requests, and how many may wait.
    #[serde(default)]
    pub requests: RequestsSpec,
}

impl VolttronInstance {
    /// The instance's name on the bus: `spec.instanceName`, by default `metadata.name`.
    ///
    /// # Errors
    /// [`InvalidName`] where an object that bypassed the schema carries none.
    pub fn instance_name(&self) -> Result<InstanceName, InvalidName> {
        self.spec
            .instance_name
            .clone()
            .unwrap_or_else(|| self.name_any())
            .parse()
    }
}

/// The message buses a remote can be reached over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum MessageBus {
    /// RabbitMQ over mutual TLS.
    #[default]
    Rmq,
}

/// A duration of the spec, or its default where an object that bypassed the schema carries none.
fn parse_or(text: &str, default: &str) -> Duration {
    parse_duration(text)
        .or_else(|| parse_duration(default))
        .unwrap_or_default()
}
