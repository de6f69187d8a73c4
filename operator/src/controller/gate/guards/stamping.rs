//! The policy by which the API server writes down requester and approver. It is of another kind
//! than the others: what it has in common with them is compared as theirs is. Pure.

use super::{Fault, Found, Guard, describe, same};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::api::{DynamicObject, ObjectMeta};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Name of the policy and of its binding.
pub(in crate::controller::gate) const STAMPING: &str = "volttron-stamping";
/// Kind of the policy, and of its binding.
pub(in crate::controller::gate) const KINDS: [&str; 2] =
    ["MutatingAdmissionPolicy", "MutatingAdmissionPolicyBinding"];
const SPEC: &str =
    include_str!("../../../../../charts/volttron-operator/files/policies/stamping.yaml");

/// What keeps the API server from writing down who decides, and how it is mended; none where the
/// policy and its binding are as in the chart. The policy of the gate tells of the release where
/// nothing else is left of it.
///
/// # Errors
/// Where the chart's spec is no policy's, which a test rules out.
pub(in crate::controller::gate) fn missing(
    policy: Option<&DynamicObject>,
    binding: Option<&DynamicObject>,
    gate: Option<ValidatingAdmissionPolicy>,
    namespace: &str,
) -> Result<Option<String>, serde_yaml_ng::Error> {
    let wanted: Value = serde_yaml_ng::from_str(SPEC)?;
    let guard = Guard {
        name: STAMPING,
        kinds: KINDS,
        spec: as_far_as_alike(&wanted),
    };
    let found = Found {
        policy: policy.map(|it| ValidatingAdmissionPolicy {
            metadata: ours(it),
            spec: Some(as_far_as_alike(&it.data["spec"])),
            status: None,
        }),
        binding: binding.map(|it| ValidatingAdmissionPolicyBinding {
            metadata: ours(it),
            spec: Some(as_far_as_alike(&denying(it.data["spec"].clone()))),
        }),
    };
    let mut faults = guard.faults(&found);
    if let Some(policy) = policy
        && !are_same(&mutations(&policy.data["spec"]), &mutations(&wanted))
    {
        faults.push(Fault {
            kind: KINDS[0],
            name: STAMPING,
            what: Some("has other mutations than this controller expects".to_owned()),
        });
    }
    let gate = Found {
        policy: gate,
        binding: None,
    };
    Ok((!faults.is_empty()).then(|| describe(&faults, &[found, gate], namespace)))
}

/// The fields that both kinds have: all but mutations and validations.
fn as_far_as_alike<T: DeserializeOwned + Default>(spec: &Value) -> T {
    serde_json::from_value(spec.clone()).unwrap_or_default()
}

/// A binding of mutations has no actions to choose from.
fn denying(mut binding: Value) -> Value {
    if let Some(fields) = binding.as_object_mut() {
        fields.insert("validationActions".to_owned(), Value::from(vec!["Deny"]));
    }
    binding
}

fn ours(object: &DynamicObject) -> ObjectMeta {
    ObjectMeta {
        annotations: object.metadata.annotations.clone(),
        ..ObjectMeta::default()
    }
}

/// The expressions, in the order in which they act.
fn mutations(spec: &Value) -> Vec<&str> {
    let list = spec["mutations"].as_array().into_iter().flatten();
    list.map(|it| it["jsonPatch"]["expression"].as_str().unwrap_or_default())
        .collect()
}

fn are_same(one: &[&str], other: &[&str]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(one, other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(spec: &Value) -> DynamicObject {
        let annotations = json!({"meta.helm.sh/release-name": "volts"});
        let object =
            json!({"metadata": {"name": STAMPING, "annotations": annotations}, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    /// As the API server shows the chart's, after `change`.
    fn told(change: impl Fn(&mut Value)) -> Option<String> {
        let mut objects = json!({
            "policy": serde_yaml_ng::from_str::<Value>(SPEC).unwrap(),
            "binding": {"policyName": STAMPING},
        });
        objects["policy"]["matchConstraints"]["namespaceSelector"] = json!({});
        objects["policy"]["matchConstraints"]["matchPolicy"] = json!("Equivalent");
        change(&mut objects);
        let object = |key: &str| (!objects[key].is_null()).then(|| object(&objects[key]));
        let (policy, binding) = (object("policy"), object("binding"));
        missing(policy.as_ref(), binding.as_ref(), None, "volts-system").unwrap()
    }

    #[test]
    fn the_charts_own_stamps() {
        assert_eq!(told(|_| ()), None);
    }

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        assert_eq!(
            told(|objects| objects["binding"] = Value::Null).as_deref(),
            Some(
                "MutatingAdmissionPolicyBinding volttron-stamping is missing. To restore it: \
                 `helm upgrade volts CHART --namespace volts-system --reset-then-reuse-values`"
            )
        );
    }

    #[test]
    fn each_way_to_weaken_it_is_noticed() {
        for (path, value, words) in [
            (
                "/policy/failurePolicy",
                json!("Ignore"),
                "failurePolicy Ignore",
            ),
            (
                "/policy/matchConstraints/namespaceSelector",
                json!({"matchLabels": {"a": "b"}}),
                "narrows it",
            ),
            (
                "/policy/matchConstraints/resourceRules/0/operations",
                json!(["CREATE"]),
                "does not match UPDATE",
            ),
            (
                "/policy/variables/2/expression",
                json!("optional.none()"),
                "another variable decision",
            ),
            (
                "/policy/mutations/1/jsonPatch/expression",
                json!("[]"),
                "other mutations",
            ),
            ("/policy/mutations", json!([]), "other mutations"),
            ("/binding/policyName", json!("another"), "binds policy"),
        ] {
            let said = told(|objects| *objects.pointer_mut(path).unwrap() = value.clone());
            let said = said.unwrap_or_else(|| panic!("{path} was not noticed"));
            assert!(
                said.contains(words) && said.contains("kubectl delete mutatingadmission"),
                "{said}"
            );
        }
    }
}
