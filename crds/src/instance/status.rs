//! `status` of an instance.

use crate::conditions::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
    /// In phase Pending: they wait for an administrator, or for room.
    pub pending: i64,
    /// Approved, and not signed yet.
    #[serde(default)]
    pub approved: i64,
    /// Signed and valid.
    pub issued: i64,
    /// Denied.
    pub denied: i64,
}
