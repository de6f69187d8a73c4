//! The `volttron.org/v1alpha1` API: what users write, what the programs report, and the names both
//! agree on.
//!
//! The YAML in `crds/yaml` is generated from these types by the `crdgen` binary.

mod certificate_request;
mod conditions;
mod explain;
mod instance;
mod names;
pub mod well_known;

pub use certificate_request::{
    Decision, DecisionHow, InstanceReference, LocalReference, Phase, VolttronCertRequest,
    VolttronCertRequestSpec, VolttronCertRequestStatus,
};
pub use conditions::{Condition, ConditionStatus, set_condition};
pub use instance::{
    AllowedNamespaces, AllowedNamespacesWord, ApprovalSpec, AuthorityStatus, AutoApproval,
    BrokerResources, BrokerSpec, CertificateAuthoritySpec, CertificateSpec, GeneratedAuthority,
    KeyAlgorithm, ManagedBroker, MessageBus, OtherAuthorityStatus, RequestCounts, RequestsSpec,
    SecretReference, StorageSpec, Subject, VolttronInstance, VolttronInstanceSpec,
    VolttronInstanceStatus,
};
pub use names::{CommonName, Identity, InstanceName, InvalidName};

/// The API group of all resources here.
pub const GROUP: &str = "volttron.org";
/// The served and stored version.
pub const VERSION: &str = "v1alpha1";

/// A [`Go duration`](https://pkg.go.dev/time#ParseDuration) made of whole hours, minutes and
/// seconds (`2160h`, `1h30m`, `90s`) as Kubernetes writes them.
///
/// Returns `None` for anything else, a negative duration or one beyond `u64` seconds.
#[must_use]
pub fn parse_duration(text: &str) -> Option<std::time::Duration> {
    let mut seconds: u64 = 0;
    let mut digits = String::new();
    let mut parts = 0;
    for c in text.chars() {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        let unit = match c {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        let value: u64 = digits.parse().ok()?;
        seconds = seconds.checked_add(value.checked_mul(unit)?)?;
        digits.clear();
        parts += 1;
    }
    (parts > 0 && digits.is_empty()).then_some(std::time::Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::parse_duration;
    use std::time::Duration;

    #[test]
    fn durations_are_read_as_kubernetes_writes_them() {
        let cases = [
            ("2160h", Some(2160 * 3600)),
            ("1h30m", Some(5400)),
            ("90s", Some(90)),
            ("0s", Some(0)),
            ("", None),
            ("90", None),
            ("1d", None),
            ("-1h", None),
            ("99999999999999999999h", None),
        ];
        for (text, seconds) in cases {
            assert_eq!(
                parse_duration(text),
                seconds.map(Duration::from_secs),
                "{text:?}"
            );
        }
    }
}
