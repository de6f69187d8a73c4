//! `spec.ca`: where an instance's certificate authority comes from.

use super::parse_or;
use crate::explain::with_values_explained;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

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
    #[schemars(transform = with_values_explained)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Name of the Secret.
    #[schemars(length(max = 253))]
    #[x_kube(validation = kube::core::Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')")
        .message("must be the name of a Secret: lower-case letters, digits, '-' and '.', such as central-ca"))]
    pub name: String,
}

fn default_ca_duration() -> String {
    "87600h".to_owned()
}
