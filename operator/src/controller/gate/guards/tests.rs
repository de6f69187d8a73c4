use super::*;
use serde_json::{Value, json};

const USER: &str = "system:serviceaccount:volttron-system:volttron-operator";

/// The policy as the API server shows it, with the fields that it fills in.
fn whole(guard: &Guard) -> Found {
    let mut spec = serde_json::to_value(&guard.spec).unwrap();
    spec["matchConstraints"]["matchPolicy"] = json!("Equivalent");
    spec["matchConstraints"]["namespaceSelector"] = json!({});
    spec["matchConstraints"]["objectSelector"] = json!({});
    let metadata =
        json!({"name": guard.name, "annotations": {"meta.helm.sh/release-name": "volts"}});
    let binding = json!({"policyName": guard.name, "validationActions": ["Deny"]});
    Found {
        policy: serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap(),
        binding: serde_json::from_value(json!({"metadata": metadata, "spec": binding})).unwrap(),
    }
}

fn all() -> Vec<Guard> {
    guards(USER).unwrap()
}

fn gate() -> Guard {
    all().into_iter().find(|it| it.name == GATE).unwrap()
}

/// The faults after the objects were changed as JSON: `{policy, binding}`.
fn after(guard: &Guard, change: impl Fn(&mut Value)) -> Vec<String> {
    let Found { policy, binding } = whole(guard);
    let mut objects = json!({"policy": policy, "binding": binding});
    change(&mut objects);
    let found = Found {
        policy: serde_json::from_value(objects["policy"].take()).unwrap(),
        binding: serde_json::from_value(objects["binding"].take()).unwrap(),
    };
    let faults = guard.faults(&found);
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn the_charts_own_policies_are_whole() {
    for guard in all() {
        assert_eq!(guard.faults(&whole(&guard)), [], "{}", guard.name);
    }
}

#[test]
fn what_is_missing_is_named() {
    for guard in all() {
        let faults = guard.faults(&Found::default());
        let texts: Vec<_> = faults.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                format!("ValidatingAdmissionPolicy {} is missing", guard.name),
                format!("ValidatingAdmissionPolicyBinding {} is missing", guard.name)
            ]
        );
    }
}

/// A field, what it is set to, and the words that tell of it.
#[rustfmt::skip] // One way, one line.
const WEAKENINGS: &[(&str, &str, &str)] = &[
    ("policy/spec/failurePolicy", r#""Ignore""#, "has failurePolicy Ignore"),
    ("policy/spec/paramKind", r#"{"apiVersion": "v1", "kind": "ConfigMap"}"#, "paramKind"),
    ("policy/spec/matchConstraints/namespaceSelector", r#"{"matchLabels": {"guarded": "yes"}}"#, "matchConstraints.namespaceSelector narrows it"),
    ("policy/spec/matchConstraints/objectSelector", r#"{"matchExpressions": [{"key": "free", "operator": "DoesNotExist"}]}"#, "matchConstraints.objectSelector narrows it"),
    ("policy/spec/matchConstraints/excludeResourceRules", r#"[{"operations": ["UPDATE"]}]"#, "excludeResourceRules"),
    ("policy/spec/matchConstraints/resourceRules/0/operations", r#"["CREATE"]"#, "does not match UPDATE"),
    ("policy/spec/matchConstraints/resourceRules/0/resourceNames", r#"["one"]"#, "does not match"),
    ("policy/spec/matchConstraints/resourceRules/0/apiGroups", r#"["example.org"]"#, "does not match"),
    ("policy/spec/matchConstraints/resourceRules/0/apiVersions", r#"["v1"]"#, "does not match"),
    ("policy/spec/matchConstraints/resourceRules/0/scope", r#""Cluster""#, "does not match"),
    ("policy/spec/matchConstraints/resourceRules", "[]", "does not match"),
    ("policy/spec/matchConditions", r#"[{"name": "never", "expression": "false"}]"#, "its matchCondition never"),
    ("policy/spec/validations/0/expression", r#""true""#, "lacks the rule"),
    ("policy/spec", "null", "does not match"),
    ("binding/spec/policyName", r#""another""#, "binds policy \"another\""),
    ("binding/spec/validationActions", r#"["Audit", "Warn"]"#, "without Deny"),
    ("binding/spec/paramRef", r#"{"name": "some", "parameterNotFoundAction": "Allow"}"#, "paramRef"),
    ("binding/spec/matchResources", r#"{"namespaceSelector": {"matchLabels": {"guarded": "yes"}}}"#, "matchResources.namespaceSelector narrows it"),
    ("binding/spec/matchResources", r#"{"objectSelector": {"matchLabels": {"guarded": "yes"}}}"#, "matchResources.objectSelector narrows it"),
    ("binding/spec/matchResources", r#"{"resourceRules": [{"operations": ["CREATE"]}]}"#, "matchResources.resourceRules narrows it"),
    ("binding/spec/matchResources", r#"{"excludeResourceRules": [{"operations": ["*"]}]}"#, "matchResources.excludeResourceRules narrows it"),
    ("binding/spec", "null", "without Deny"),
];

#[test]
fn each_way_to_weaken_a_policy_is_noticed() {
    for guard in all() {
        for (path, value, words) in WEAKENINGS {
            let (parent, field) = path.rsplit_once('/').unwrap();
            let faults = after(&guard, |objects| {
                let parent = objects.pointer_mut(&format!("/{parent}")).unwrap();
                parent[field] = serde_json::from_str(value).unwrap();
            });
            let told = |fault: &String| fault.contains(words) && fault.contains(guard.name);
            assert!(
                faults.iter().any(told),
                "{} with {path} = {value}: {faults:?}",
                guard.name
            );
        }
    }
}

#[test]
fn each_rule_and_each_variable_counts() {
    let guard = gate();
    let rules = guard.spec.validations.clone().unwrap().len();
    assert!(rules >= 8, "{rules}");
    for rule in 0..rules {
        let faults = after(&guard, |objects| {
            objects["policy"]["spec"]["validations"]
                .as_array_mut()
                .unwrap()
                .remove(rule);
        });
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains("lacks the rule"), "{faults:?}");
    }
    let variables = guard.spec.variables.clone().unwrap().len();
    for variable in 0..variables {
        let faults = after(&guard, |objects| {
            objects["policy"]["spec"]["variables"][variable]["expression"] =
                json!("'system:masters'");
        });
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].contains("has another variable"), "{faults:?}");
    }
}

#[test]
fn what_only_refuses_more_or_reads_the_same_is_no_fault() {
    let guard = gate();
    let faults = after(&guard, |objects| {
        let spec = &mut objects["policy"]["spec"];
        let rules = spec["validations"].as_array_mut().unwrap();
        rules.push(json!({"expression": "request.userInfo.username != 'mallory'"}));
        let folded = rules[1]["expression"]
            .as_str()
            .unwrap()
            .replace(' ', "\n  ");
        rules[1]["expression"] = json!(folded);
        rules[1]["message"] = json!("in another language");
        spec["matchConstraints"]["resourceRules"] = json!([{
            "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"], "operations": ["*"], "scope": "*",
        }]);
        objects["binding"]["spec"]["validationActions"] = json!(["Audit", "Deny"]);
        objects["binding"]["spec"]["matchResources"] = json!({"namespaceSelector": {}, "objectSelector": {"matchLabels": {}}, "matchPolicy": "Exact"});
    });
    assert!(faults.is_empty(), "{faults:?}");
}

#[test]
fn every_resource_is_no_subresource() {
    let status = all()
        .into_iter()
        .find(|it| it.name == "volttron-status")
        .unwrap();
    let with = |resources: Value| {
        after(&status, |objects| {
            objects["policy"]["spec"]["matchConstraints"]["resourceRules"][0]["resources"] =
                resources.clone();
        })
    };
    assert_eq!(with(json!(["*"])).len(), 2);
    assert!(with(json!(["*/*"])).is_empty());
}

#[test]
fn the_text_names_the_command_of_the_release() {
    let guard = gate();
    let mut found = whole(&guard);
    found.binding = None;
    let text = |found: Found| {
        describe(
            &guard.faults(&found),
            std::slice::from_ref(&found),
            "volts-system",
        )
    };
    assert_eq!(
        text(found.clone()),
        "ValidatingAdmissionPolicyBinding volttron-approval-gate is missing. To restore it: \
         `helm upgrade volts CHART --namespace volts-system --reset-then-reuse-values`"
    );
    let spec = found.policy.as_mut().unwrap().spec.as_mut().unwrap();
    spec.failure_policy = Some("Ignore".to_owned());
    let said = text(found);
    assert!(
        said.contains("`kubectl delete validatingadmissionpolicy/volttron-approval-gate && helm upgrade volts CHART"),
        "{said}"
    );
    let said = text(Found::default());
    assert!(
        said.contains("`helm upgrade RELEASE CHART --namespace volts-system"),
        "{said}"
    );
}

#[test]
fn another_account_than_the_charts_is_told_apart() {
    let found: Vec<_> = all().iter().map(whole).collect();
    assert_eq!(written_for(&found, USER), None);
    assert_eq!(
        written_for(&found, "kubernetes-admin").as_deref(),
        Some(USER)
    );
    assert_eq!(written_for(&[], USER), None);
}

#[test]
fn a_text_fits_a_condition() {
    let faults: Vec<_> = all()
        .iter()
        .flat_map(|guard| {
            let mut found = whole(guard);
            found.policy.as_mut().unwrap().spec = None;
            guard.faults(&found)
        })
        .collect();
    let text = describe(&faults, &[], "volttron-system");
    assert!(
        text.chars().count() < 1000 && text.contains("more"),
        "{text}"
    );
}
