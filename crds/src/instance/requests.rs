//! `spec.approval` and `spec.requests`: which requests an instance takes, how many, and which it
//! approves without an administrator.

use super::parse_or;
use crate::explain::with_values_explained;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use std::time::Duration;

/// Which requests are approved without an administrator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalSpec {
    /// Which requests are approved without an administrator.
    #[serde(default)]
    #[schemars(transform = with_values_explained)]
    pub auto: AutoApproval,
}

/// Which requests are approved without an administrator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AutoApproval {
    /// None: an administrator decides on each.
    Never,
    /// After an administrator has approved one, later ones of the same requester for the same
    /// common name.
    #[default]
    Renewals,
    /// All, as with VOLTTRON's `auto_allow_csr`: anyone who can file a request gets a certificate.
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
    /// How many of them may be in one namespace, the instance's own included: who may make service
    /// accounts there has as many requesters as they like.
    #[serde(default = "default_max_pending_per_namespace")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_pending_per_namespace: i32,
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
            max_pending_per_namespace: default_max_pending_per_namespace(),
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

fn default_pending_ttl() -> String {
    "168h".to_owned()
}

fn default_max_pending() -> i32 {
    1000
}

fn default_max_pending_per_requester() -> i32 {
    100
}

fn default_max_pending_per_namespace() -> i32 {
    500
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
