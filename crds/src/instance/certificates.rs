//! `spec.certificates`: what is signed for agents.

use super::parse_or;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use std::time::Duration;

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

fn default_duration() -> String {
    "2160h".to_owned()
}

fn default_max_duration() -> String {
    "8760h".to_owned()
}

fn default_min_rsa_bits() -> i32 {
    2048
}
