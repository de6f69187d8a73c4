//! Rights as text: what the table writes down, what objects grant and what kubectl lists, spelled alike.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Rights as `verb resource.group`, `verb resource.group/part@name` or `verb /url`.
pub type Rights = BTreeSet<String>;

/// A role.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Role {
    /// The roles of the cluster that it is part of.
    pub aggregated: Vec<String>,
    /// What it grants.
    pub rights: Rights,
}

/// The roles that a text writes down.
pub fn table(text: &str) -> BTreeMap<String, Role> {
    let mut roles = BTreeMap::<String, Role>::new();
    let mut current = String::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let words = || line.split_whitespace().map(str::to_owned);
        if line.starts_with(' ') {
            let resource = words().next().expect("a resource");
            let (resource, names) = resource.split_once('@').unwrap_or((&resource, ""));
            let names: Vec<String> = names.split(',').map(str::to_owned).collect();
            let role = roles.get_mut(&current).expect("a role comes first");
            for verb in words().skip(1) {
                role.rights.extend(spelled(&verb, resource, &names));
            }
        } else {
            current = words().take(2).collect::<Vec<_>>().join(" ");
            let aggregated = words().skip(4).collect();
            let role = Role {
                aggregated,
                rights: Rights::new(),
            };
            assert!(roles.insert(current.clone(), role).is_none(), "{current}");
        }
    }
    roles
}

fn spelled(verb: &str, resource: &str, names: &[String]) -> Vec<String> {
    let right = |name: &String| match name.as_str() {
        "" => format!("{verb} {resource}"),
        name => format!("{verb} {resource}@{name}"),
    };
    match names {
        [] => vec![right(&String::new())],
        names => names.iter().map(right).collect(),
    }
}

/// The roles among some objects.
pub fn roles_of(objects: &[Value]) -> BTreeMap<String, Role> {
    let roles = objects.iter().filter(|it| it.get("rules").is_some());
    let role = |object: &Value| {
        let labels = object["metadata"]["labels"].as_object();
        let aggregated = labels.into_iter().flatten().filter_map(|(label, value)| {
            let to = label.strip_prefix("rbac.authorization.k8s.io/aggregate-to-")?;
            (value == "true").then(|| to.to_owned())
        });
        let role = Role {
            aggregated: aggregated.collect(),
            rights: texts(&object["rules"], expanded),
        };
        (called(object), role)
    };
    roles.map(role).collect()
}

fn expanded(rule: &Value) -> Vec<String> {
    let list = |field: &str| -> Vec<String> {
        serde_json::from_value(rule[field].clone()).unwrap_or_default()
    };
    let mut rights = Vec::new();
    for verb in list("verbs") {
        for url in list("nonResourceURLs") {
            rights.push(format!("{verb} {url}"));
        }
        for resource in list("resources") {
            for group in list("apiGroups") {
                // As kubectl spells it: a subresource comes last.
                let (resource, part) = resource.split_once('/').unwrap_or((&resource, ""));
                let dot = if group.is_empty() { "" } else { "." };
                let slash = if part.is_empty() { "" } else { "/" };
                let resource = format!("{resource}{dot}{group}{slash}{part}");
                rights.extend(spelled(&verb, &resource, &list("resourceNames")));
            }
        }
    }
    rights
}

/// The bindings among some objects, as sentences.
pub fn bindings_of(objects: &[Value]) -> BTreeSet<String> {
    let bindings = objects.iter().filter(|it| it.get("roleRef").is_some());
    let sentence = |object: &Value| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let subject = |subject: &Value| {
            let namespace = match &subject["namespace"] {
                Value::String(namespace) => format!("{namespace}/"),
                _ => String::new(),
            };
            format!(
                "{} {namespace}{}",
                text(&subject["kind"]),
                text(&subject["name"])
            )
        };
        let subjects: Vec<_> = object["subjects"]
            .as_array()
            .into_iter()
            .flatten()
            .map(subject)
            .collect();
        format!(
            "{}: {} {} to {}",
            called(object),
            text(&object["roleRef"]["kind"]),
            text(&object["roleRef"]["name"]),
            subjects.join(", ")
        )
    };
    bindings.map(sentence).collect()
}

fn called(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
    match &object["metadata"]["namespace"] {
        Value::String(namespace) => format!("{kind} {namespace}/{name}"),
        _ => format!("{kind} {name}"),
    }
}

fn texts(list: &Value, each: impl Fn(&Value) -> Vec<String>) -> Rights {
    list.as_array()
        .into_iter()
        .flatten()
        .flat_map(each)
        .collect()
}

/// One line: resource, `[URLs]`, `[names]`, `[verbs]`.
pub fn listed_rights(line: &str) -> Vec<String> {
    let (resource, lists) = line.split_once('[').expect("a list of URLs");
    let lists: Vec<Vec<String>> = lists
        .split('[')
        .map(|list| {
            let words = list.trim().trim_end_matches(']').split_whitespace();
            words.map(str::to_owned).collect()
        })
        .collect();
    let [urls, names, verbs] = lists.as_slice() else {
        panic!("three lists in {line:?}");
    };
    let resource = resource.trim();
    let right = |verb: &String| match resource {
        "" => urls.iter().map(|url| format!("{verb} {url}")).collect(),
        resource => spelled(verb, resource, names),
    };
    verbs.iter().flat_map(right).collect()
}
