//! [`VolttronInstance`]: one VOLTTRON instance that others may connect to.

use crate::conditions::Condition;
use crate::names::{InstanceName, InvalidName};
use crate::parse_duration;
use k8s_openapi::api::core::v1::ResourceRequirements;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;
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
    printcolumn(name = "Pending", type_ = "integer", json_path = ".status.requests.pending", description = "Requests that wait for an administrator."),
    printcolumn(name = "Issued", type_ = "integer", json_path = ".status.requests.issued"),
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

/// The certificate authority: generated here, or brought along; at most one of both.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = kube::core::Rule::new("!(has(self.generated) && has(self.secretRef))")
    .message("ca takes generated or secretRef, not both"))]
pub struct CertificateAuthoritySpec {
    /// A CA that the operator generates and whose key it alone can read. It is replaced after two
    /// thirds of its life, or when annotation `volttron.org/rotate-ca` gets a new value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<GeneratedAuthority>,
    /// A CA of your own: a Secret in the instance's namespace with `tls.crt` (the CA certificate,
    /// followed by its chain if it is an intermediate one) and `tls.key` (PKCS #8, PEM). The CA is
    /// replaced by changing that Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretReference>,
}

/// How the generated CA looks. A change takes effect at the next rotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GeneratedAuthority {
    /// Words of the CA certificate's subject beside its common name, which is
    /// `<instance name> root CA`, with `G2`, `G3` and so on behind it for later ones.
    #[serde(default)]
    pub subject: Subject,
    /// Algorithm of the CA's key.
    #[serde(default)]
    pub key_algorithm: KeyAlgorithm,
    /// Life of the CA certificate, as hours, minutes and seconds (`87600h` is ten years). From 1h
    /// to 262800h.
    #[serde(default = "default_ca_duration")]
    #[schemars(
        length(max = 32),
        regex(pattern = r"^([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?$")
    )]
    #[x_kube(validation = kube::core::Rule::new("self.matches('^([0-9]{1,9}[hms])+$') && duration(self) >= duration('1h') && duration(self) <= duration('262800h')")
        .message("must be a duration from 1h to 262800h, such as 87600h"))]
    pub duration: String,
}

impl GeneratedAuthority {
    /// [`Self::duration`], parsed.
    #[must_use]
    pub fn life(&self) -> Duration {
        parse_or(&self.duration, &default_ca_duration())
    }
}

impl Default for GeneratedAuthority {
    fn default() -> Self {
        Self {
            subject: Subject::default(),
            key_algorithm: KeyAlgorithm::default(),
            duration: default_ca_duration(),
        }
    }
}

/// Distinguished name attributes of RFC 5280, appendix A.1, within its upper bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Subject {
    /// Country (C): two letters, for example `US`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = r"^[A-Z]{2}$"))]
    pub country: Option<String>,
    /// State or province (ST).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub state: Option<String>,
    /// Locality, for example a city (L).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub locality: Option<String>,
    /// Organization (O).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub organization: Option<String>,
    /// Organizational unit (OU).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub organizational_unit: Option<String>,
}

/// Key algorithms of a generated CA.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum KeyAlgorithm {
    /// ECDSA on NIST P-256.
    #[default]
    #[serde(rename = "ECDSA-P256")]
    EcdsaP256,
    /// ECDSA on NIST P-384.
    #[serde(rename = "ECDSA-P384")]
    EcdsaP384,
    /// RSA with 3072 bits.
    #[serde(rename = "RSA-3072")]
    Rsa3072,
    /// RSA with 4096 bits.
    #[serde(rename = "RSA-4096")]
    Rsa4096,
}

/// A Secret in the namespace of the object that names it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

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
    #[x_kube(validation = kube::core::Rule::new("self.matches('^[A-Za-z0-9._-]{1,64}$')")
        .message("must be 1 to 64 letters, digits, '.', '_' or '-', such as volttron"))]
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedBroker {
    /// The image: the official `rabbitmq` image with management, 3.13 or later, or one that is
    /// laid out like it.
    #[serde(default = "default_image")]
    #[schemars(length(min = 1, max = 512))]
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
    /// Size of the volume, for example `8Gi`.
    #[serde(default = "default_storage_size")]
    #[schemars(schema_with = "quantity")]
    #[x_kube(validation = kube::core::Rule::new("type(self) == int ? self > 0 : isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))")
        .message("must be a quantity of bytes above 0, such as 8Gi"))]
    pub size: Quantity,
    /// StorageClass of the volume. Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
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
pub struct BrokerResources {
    /// What the scheduler sets aside, for example `{cpu: 250m, memory: 512Mi}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    #[x_kube(validation = kube::core::Rule::new("self.all(name, type(self[name]) == int || isQuantity(self[name]))")
        .message("must be quantities, such as {cpu: 250m, memory: 512Mi}"))]
    pub requests: BTreeMap<String, Quantity>,
    /// What the container may use at most. RabbitMQ stops reading from publishers at 60% of the
    /// memory limit.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "quantities")]
    #[x_kube(validation = kube::core::Rule::new("self.all(name, type(self[name]) == int || isQuantity(self[name]))")
        .message("must be quantities, such as {cpu: 1, memory: 512Mi}"))]
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

/// Bounds on the certificates signed for agents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = kube::core::Rule::new("!self.duration.matches('^([0-9]{1,9}[hms])+$') || !self.maxDuration.matches('^([0-9]{1,9}[hms])+$') || duration(self.duration) <= duration(self.maxDuration)")
    .message("duration must not be longer than maxDuration"))]
pub struct CertificateSpec {
    /// Life of a certificate whose request names none, for example `2160h`. From 1m to 87600h.
    #[serde(default = "default_duration")]
    #[schemars(
        length(max = 32),
        regex(pattern = r"^([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?$")
    )]
    #[x_kube(validation = kube::core::Rule::new("self.matches('^([0-9]{1,9}[hms])+$') && duration(self) >= duration('1m') && duration(self) <= duration('87600h')")
        .message("must be a duration from 1m to 87600h, such as 2160h"))]
    pub duration: String,
    /// The longest life a request can ask for; a longer one is cut to it. From 1m to 87600h.
    #[serde(default = "default_max_duration")]
    #[schemars(
        length(max = 32),
        regex(pattern = r"^([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?$")
    )]
    #[x_kube(validation = kube::core::Rule::new("self.matches('^([0-9]{1,9}[hms])+$') && duration(self) >= duration('1m') && duration(self) <= duration('87600h')")
        .message("must be a duration from 1m to 87600h, such as 8760h"))]
    pub max_duration: String,
    /// The smallest RSA key that is signed, in bits.
    #[serde(default = "default_min_rsa_bits")]
    #[schemars(range(min = 2048, max = 8192))]
    pub min_rsa_bits: i32,
}

impl CertificateSpec {
    /// [`Self::duration`], parsed.
    #[must_use]
    pub fn life(&self) -> Duration {
        parse_or(&self.duration, &default_duration())
    }

    /// [`Self::max_duration`], parsed.
    #[must_use]
    pub fn max_life(&self) -> Duration {
        parse_or(&self.max_duration, &default_max_duration())
    }
}

impl Default for CertificateSpec {
    fn default() -> Self {
        Self {
            duration: default_duration(),
            max_duration: default_max_duration(),
            min_rsa_bits: default_min_rsa_bits(),
        }
    }
}

/// Which requests are approved without an administrator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalSpec {
    /// `Never`: an administrator decides on each request. `Renewals`: after one was approved, later
    /// requests of the same requester for the same common name are approved as renewals. `Always`:
    /// every request is approved, as with VOLTTRON's `auto_allow_csr`; anyone who can file a request
    /// gets a certificate.
    #[serde(default)]
    pub auto: AutoApproval,
}

/// Which requests are approved without an administrator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AutoApproval {
    /// None.
    Never,
    /// Those of an identity that an administrator has approved before.
    #[default]
    Renewals,
    /// All.
    Always,
}

/// Who may file requests, and how many may wait.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestsSpec {
    /// The namespaces whose requests are taken: `Same` (the instance's own), `All`, or `{selector:
    /// ...}` with a label selector of namespaces. Others wait until they are allowed; certificates
    /// that are issued already stay.
    #[serde(default)]
    #[schemars(schema_with = "allowed_namespaces")]
    pub allowed_namespaces: AllowedNamespaces,
    /// How long a request may wait for a decision, and how long one that came to nothing (denied
    /// with its identity, failed or expired) is kept. As hours, minutes and seconds, from 1m to
    /// 87600h.
    #[serde(default = "default_pending_ttl", rename = "pendingTTL")]
    #[schemars(
        length(max = 32),
        regex(pattern = r"^([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?$")
    )]
    #[x_kube(validation = kube::core::Rule::new("self.matches('^([0-9]{1,9}[hms])+$') && duration(self) >= duration('1m') && duration(self) <= duration('87600h')")
        .message("must be a duration from 1m to 87600h, such as 168h"))]
    pub pending_ttl: String,
    /// How many requests may wait for a decision at once. Later ones are looked at when there is
    /// room; an administrator may decide on them all the same.
    #[serde(default = "default_max_pending")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_pending: i32,
    /// How many of them may be of one requester, so that one cannot use up the others' room.
    #[serde(default = "default_max_pending_per_requester")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_pending_per_requester: i32,
}

impl RequestsSpec {
    /// [`Self::pending_ttl`], parsed.
    #[must_use]
    pub fn pending_life(&self) -> Duration {
        parse_or(&self.pending_ttl, &default_pending_ttl())
    }
}

impl Default for RequestsSpec {
    fn default() -> Self {
        Self {
            allowed_namespaces: AllowedNamespaces::default(),
            pending_ttl: default_pending_ttl(),
            max_pending: default_max_pending(),
            max_pending_per_requester: default_max_pending_per_requester(),
        }
    }
}

/// The namespaces whose requests an instance takes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, deny_unknown_fields)]
pub enum AllowedNamespaces {
    /// By a word.
    Word(AllowedNamespacesWord),
    /// By the namespaces' labels.
    Selected {
        /// Which namespaces.
        #[serde(deserialize_with = "exactly")]
        selector: LabelSelector,
    },
    /// What is neither; it allows none. The schema cannot keep every such value out, and one object
    /// that does not parse must not end the watch of all.
    Unreadable(serde_json::Value),
}

impl Default for AllowedNamespaces {
    fn default() -> Self {
        Self::Word(AllowedNamespacesWord::All)
    }
}

/// Reads a label selector that has nothing else in it: to a misspelt one no label would matter, and
/// it would select every namespace.
fn exactly<'de, D: Deserializer<'de>>(deserializer: D) -> Result<LabelSelector, D::Error> {
    let written = serde_json::Value::deserialize(deserializer)?;
    let selector = LabelSelector::deserialize(&written).map_err(D::Error::custom)?;
    let read = serde_json::to_value(&selector).map_err(D::Error::custom)?;
    if is_within(&written, &read) {
        Ok(selector)
    } else {
        Err(D::Error::custom("a label selector has other fields"))
    }
}

/// Whether every field of `written` is in `read` as well; an empty one may be missing.
fn is_within(written: &serde_json::Value, read: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => written.iter().all(|(key, value)| {
            is_empty(value) || read.get(key).is_some_and(|read| is_within(value, read))
        }),
        (Value::Array(written), Value::Array(read)) => {
            let mut pairs = written.iter().zip(read);
            written.len() == read.len() && pairs.all(|(written, read)| is_within(written, read))
        }
        (written, read) => written == read,
    }
}

fn is_empty(value: &serde_json::Value) -> bool {
    use serde_json::Value;
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// Namespaces by a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AllowedNamespacesWord {
    /// The instance's own.
    Same,
    /// Every one.
    All,
}

/// What the controller observed and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolttronInstanceStatus {
    /// The generation of the spec that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready` (requests are signed and the broker takes connections), `CertificateAuthorityReady`,
    /// `BrokerReady`, and once the CA was or should be replaced `CertificateAuthorityRotating`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Where agents connect, for example `amqps://central-rabbitmq.volttron.svc:5671/volttron`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amqp_address: Option<String>,
    /// The certificate authority in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<AuthorityStatus>,
    /// How many requests there are in which phase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<RequestCounts>,
}

/// The certificate authority of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorityStatus {
    /// Counts the CAs this instance has had, from 1.
    pub generation: i64,
    /// End of the CA certificate's life (RFC 3339).
    pub not_after: String,
    /// SHA-256 of the CA certificate (DER), in hex.
    pub sha256: String,
    /// The CA certificates to trust, PEM. Public: the sidecar trusts these and nothing else.
    pub bundle: String,
    /// While the CA is being replaced: the one that is trusted and does not sign yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<OtherAuthorityStatus>,
    /// While the CA is being replaced: the one that does not sign any more and is still trusted,
    /// because certificates that it has signed are in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<OtherAuthorityStatus>,
    /// The value of annotation `volttron.org/rotate-ca` that was followed last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation_request: Option<String>,
}

/// A certificate authority that is trusted and does not sign.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OtherAuthorityStatus {
    /// Its place among the CAs of this instance.
    pub generation: i64,
    /// End of the CA certificate's life (RFC 3339).
    pub not_after: String,
    /// SHA-256 of the CA certificate (DER), in hex.
    pub sha256: String,
}

/// Requests of an instance, counted by phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RequestCounts {
    /// Waiting for an administrator, or approved and not signed yet.
    pub pending: i64,
    /// Signed and valid.
    pub issued: i64,
    /// Denied by an administrator.
    pub denied: i64,
}

/// A Kubernetes quantity: a number, or text such as `500m` or `1Gi`.
fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "maxLength": 32,
        "x-kubernetes-int-or-string": true,
    })
}

/// A word or an object. A structural schema has no type for that, and no rule may read a field
/// without one, so each other type is shut out by bounds that no value of it can meet.
fn allowed_namespaces(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "x-kubernetes-preserve-unknown-fields": true,
        "anyOf": [
            {"enum": ["Same", "All"]},
            {
                "required": ["selector"],
                "minLength": 1, "maxLength": 0,
                "minItems": 1, "maxItems": 0,
                "minimum": 1, "maximum": 0,
                "not": {"enum": [true, false]},
            },
        ],
    })
}

fn quantities(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": quantity(generator),
    })
}

fn parse_or(text: &str, default: &str) -> Duration {
    parse_duration(text)
        .or_else(|| parse_duration(default))
        .unwrap_or_default()
}

fn default_ca_duration() -> String {
    "87600h".to_owned()
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

fn default_duration() -> String {
    "2160h".to_owned()
}

fn default_max_duration() -> String {
    "8760h".to_owned()
}

fn default_min_rsa_bits() -> i32 {
    2048
}

fn default_pending_ttl() -> String {
    "168h".to_owned()
}

fn default_max_pending() -> i32 {
    1000
}

fn default_max_pending_per_requester() -> i32 {
    100
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_selector_is_read_exactly_or_not_at_all() {
        let read = |value| serde_json::from_value::<AllowedNamespaces>(value).unwrap();
        let expression = json!({"key": "a", "operator": "Exists", "values": []});
        for exact in [
            json!({"selector": {}}),
            json!({"selector": {"matchLabels": {"a": "b"}, "matchExpressions": null}}),
            json!({"selector": {"matchExpressions": [expression]}}),
        ] {
            let selected = read(exact.clone());
            assert!(
                matches!(selected, AllowedNamespaces::Selected { .. }),
                "{exact}: {selected:?}"
            );
        }
        let expression = json!({"key": "a", "operator": "In", "value": ["b"]});
        for other in [
            json!("Some"),
            json!({"selector": {"matchLabels": 5}}),
            json!({"selector": {"matchLabel": {"a": "b"}}}),
            json!({"selector": {"matchExpressions": [expression]}}),
            json!({"selector": {}, "names": ["a"]}),
        ] {
            assert_eq!(read(other.clone()), AllowedNamespaces::Unreadable(other));
        }
    }
}
