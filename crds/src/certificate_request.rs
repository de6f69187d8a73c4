//! [`VolttronCertRequest`]: an agent of another instance asks for a certificate.

use crate::conditions::Condition;
use crate::explain::with_values_explained;
use kube::{CustomResource, KubeSchema, ResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A certificate signing request of one agent, for one instance.
#[derive(
    CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
#[kube(
    group = "volttron.org",
    version = "v1alpha1",
    kind = "VolttronCertRequest",
    doc = "An agent's request for a client certificate of a VolttronInstance. Approve it with `kubectl annotate vcr NAME volttron.org/decision=approved`, deny or revoke it with `volttron.org/decision=denied`; `volttron.org/reason` records why.",
    namespaced,
    status = "VolttronCertRequestStatus",
    shortname = "vcr",
    category = "volttron",
    derive = "PartialEq",
    selectable = ".spec.instanceRef.name",
    selectable = ".status.phase",
    validation = kube::core::Rule::new("self.metadata.name.size() <= 249")
        .message("metadata.name must be at most 249 characters: the certificate goes into a Secret named <name>-tls"),
    printcolumn(name = "Instance", type_ = "string", json_path = ".status.instance", description = "The instance that is asked, with its namespace."),
    printcolumn(name = "Common Name", type_ = "string", json_path = ".status.commonName", description = "The identity that is asked for, read from the signing request."),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Requester", type_ = "string", json_path = ".spec.requester"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.notAfter"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Issued')].reason", priority = 1, description = "Why it is not issued, as condition Issued says."),
    printcolumn(name = "Key", type_ = "string", json_path = ".status.keyAlgorithm", priority = 1),
    printcolumn(name = "Fingerprint", type_ = "string", json_path = ".status.keyFingerprint", priority = 1)
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = kube::core::Rule::new("self == oldSelf")
    .message("a request cannot be changed: delete it and file a new one"))]
pub struct VolttronCertRequestSpec {
    /// The instance that is asked to sign.
    pub instance_ref: InstanceReference,
    /// The certificate signing request (PKCS #10): PEM, encoded once more in base64. Its subject
    /// has one common name, `<instance>.<local instance>.<identity>`. At most 36,500 bytes of PEM.
    #[schemars(length(min = 1, max = 49_152))]
    pub request: String,
    /// How long the certificate should live, for example `168h`; cut to the instance's
    /// `certificates.maxDuration`. Default: the instance's `certificates.duration`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 32),
        regex(pattern = r"^([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?$")
    )]
    #[x_kube(validation = kube::core::Rule::new("self.matches('^([0-9]{1,9}[hms])+$') && duration(self) >= duration('1m') && duration(self) <= duration('87600h')")
        .message("must be a duration from 1m to 87600h, such as 168h"))]
    pub duration: Option<String>,
    /// The user who files the request; it must be the user who creates the object. Where the API
    /// server can, it fills this in.
    #[schemars(length(min = 1, max = 512))]
    pub requester: String,
}

impl VolttronCertRequest {
    /// Namespace of the instance this request is for: the request's own unless it names another.
    #[must_use]
    pub fn instance_namespace(&self) -> String {
        let named = self.spec.instance_ref.namespace.clone();
        named.or_else(|| self.namespace()).unwrap_or_default()
    }

    /// The instance this request is for, as `<namespace>/<name>`.
    #[must_use]
    pub fn instance_full_name(&self) -> String {
        format!(
            "{}/{}",
            self.instance_namespace(),
            self.spec.instance_ref.name
        )
    }

    /// Name of the Secret that carries the certificate, in the request's namespace.
    #[must_use]
    pub fn secret_name(&self) -> String {
        format!(
            "{}{}",
            self.name_any(),
            crate::well_known::CERTIFICATE_SECRET_SUFFIX
        )
    }

    /// The phase last recorded; `None` before the controller has seen the request.
    #[must_use]
    pub fn phase(&self) -> Option<Phase> {
        self.status.as_ref().and_then(|status| status.phase)
    }
}

/// A [`crate::VolttronInstance`], by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct InstanceReference {
    /// Name of the VolttronInstance (its metadata.name).
    #[schemars(length(max = 40))]
    #[x_kube(validation = kube::core::Rule::new("self.matches('^[a-z]([a-z0-9-]*[a-z0-9])?$')")
        .message("must be the metadata.name of a VolttronInstance: lower-case letters, digits and '-', beginning with a letter, such as central"))]
    pub name: String,
    /// Namespace of the VolttronInstance. Default: the request's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = kube::core::Rule::new("self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')")
        .message("must be the name of a namespace: lower-case letters, digits and '-', such as volttron"))]
    pub namespace: Option<String>,
}

/// Where a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// Waits for an administrator's decision, or for what condition `Issued` names: its instance,
    /// room, its namespace to be allowed.
    Pending,
    /// Approved and not signed yet; condition `Issued` says what is in the way.
    Approved,
    /// The certificate is signed and the broker takes connections with it.
    Issued,
    /// Denied, by an administrator or because its identity was denied with another request: no
    /// certificate, no access.
    Denied,
    /// Cannot be signed; condition `Failed` says why.
    Failed,
    /// The certificate has run out, or nobody decided within the instance's `requests.pendingTTL`;
    /// condition `Issued` says which.
    Expired,
}

/// What the controller read from the request, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolttronCertRequestStatus {
    /// The instance that is asked, as `<namespace>/<name>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// Where the request stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(transform = with_values_explained)]
    pub phase: Option<Phase>,
    /// `Approved`, `Denied`, `Issued` and `Failed`, and `Conflict` where another requester has or
    /// wants the same common name, each with reason and message.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// The identity that is asked for, read from the signing request. Check it before you approve.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub common_name: Option<String>,
    /// Algorithm and size of the key that asks, for example `ECDSA P-256` or `RSA 2048`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_algorithm: Option<String>,
    /// SHA-256 of the subject public key info (DER) that asks, in hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_fingerprint: Option<String>,
    /// The decision in force; one of an administrator also where something else keeps it from taking
    /// effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// The signed certificate with the chain up to, and without, the root (PEM). Public.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Serial number of this request's certificate, in hex: set aside before anything is signed,
    /// so that one request never has two.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial_number: Option<String>,
    /// Start of the certificate's life (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// End of the certificate's life (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<String>,
    /// When the owner should file its next request (RFC 3339): two thirds into the certificate's
    /// life, give or take a little so that many do not come at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renew_at: Option<String>,
    /// The Secret with `tls.crt` and `ca.crt`, in the request's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
}

/// The decision on a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decision {
    /// Who decided, as the API server knows the user; absent where it could not be stamped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When the controller recorded the decision (RFC 3339). It stays when only the reason or the
    /// signature changes afterwards.
    pub at: String,
    /// How it came about.
    #[schemars(transform = with_values_explained)]
    pub how: DecisionHow,
    /// The request that carries the decision, as `<namespace>/<name>`, where it is another one of
    /// the same identity: the one whose approval this request renews, or whose denial holds for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// UID of that request. Another request may have its name later on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_uid: Option<String>,
    /// The approver's own words (`volttron.org/reason`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How a decision came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DecisionHow {
    /// An administrator annotated the request.
    Manual,
    /// An administrator approved an earlier request of the same identity.
    Renewal,
    /// The instance approves every request, or the identity was denied with another request.
    Policy,
}

/// An object in the same namespace, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalReference {
    /// The object's name.
    pub name: String,
}
