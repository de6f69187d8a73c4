//! What users write: the examples are accepted, and what is broken is refused with a sentence that helps.

use crate::shared::playground;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::Api;
use serde::Deserialize as _;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use volttron_tests::run;

#[test]
fn the_examples_are_accepted() {
    run(async {
        let playground = playground().await;
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
        let entries = std::fs::read_dir(&folder).expect("there is a folder of examples");
        let paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        let examples = paths
            .iter()
            .filter(|path| path.extension().is_some_and(|kind| kind == "yaml"));
        let mut count = 0;
        for path in examples {
            let text = std::fs::read_to_string(path).unwrap();
            for document in serde_yaml_ng::Deserializer::from_str(&text) {
                let object = Value::deserialize(document).unwrap();
                let namespace = &object["metadata"][if object["kind"] == "Namespace" {
                    "name"
                } else {
                    "namespace"
                }];
                if let Some(namespace) = namespace.as_str() {
                    // A dry run makes none.
                    playground
                        .kubectl(&["create", "namespace", namespace], "")
                        .await;
                }
                if object["kind"] == "ServiceAccount" {
                    let (made, says) = playground
                        .kubectl(&["apply", "-f", "-"], &object.to_string())
                        .await;
                    assert!(made, "{}: {says}", path.display());
                }
            }
            let (accepted, says) = playground
                .kubectl(&["apply", "--dry-run=server", "-f", "-"], &text)
                .await;
            assert!(accepted, "{}: {says}", path.display());
            count += 1;
        }
        assert!(count > 0, "there is no example in {}", folder.display());
    });
}

#[test]
fn a_reader_of_the_readme_has_every_image_of_the_example_in_their_registry() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    let mut lines = readme.lines();
    let line = lines.find(|line| line.starts_with("sed ")).unwrap();
    let (edit, apply) = line.split_once(" | ").unwrap();
    assert!(apply.starts_with("kubectl apply"), "{line}");
    let edited = Command::new("sh")
        .args(["-c", edit])
        .env("registry", "registry.example.com")
        .current_dir(&root)
        .output()
        .unwrap();
    let manifest = String::from_utf8(edited.stdout).unwrap();
    let images: Vec<_> = manifest
        .lines()
        .filter_map(|line| line.trim().strip_prefix("image: "))
        .collect();
    assert!(images.len() >= 2, "{manifest}");
    for image in images {
        let name = image.strip_prefix("registry.example.com/");
        let name = name.unwrap_or_else(|| panic!("{image} is in another registry"));
        let build = format!("docker build -t $registry/{name} ");
        assert!(readme.contains(&build), "no {build:?} in the README");
        let (program, _) = name.split_once(':').unwrap();
        let program = program.strip_prefix("volttron-").unwrap();
        let mut pushes = readme.lines().filter(|line| line.contains("docker push"));
        assert!(
            pushes.any(|line| line.split([' ', ';']).any(|word| word == program)),
            "{name} is not pushed"
        );
    }
}

#[test]
fn a_broken_manifest_is_refused_with_a_sentence_that_says_what_to_write() {
    run(async {
        let playground = playground().await;
        let namespace = playground.namespace("broken").await;
        let mut wrong = Vec::new();
        for (name, kind, metadata, spec, words) in broken() {
            let manifest = json!({
                "apiVersion": "volttron.org/v1alpha1", "kind": kind,
                "metadata": {"name": metadata, "namespace": namespace}, "spec": spec,
            });
            let (accepted, says) = playground
                .kubectl(&["apply", "-f", "-"], &manifest.to_string())
                .await;
            if accepted || !says.contains(words) {
                wrong.push(format!("{name}: expected {words:?}: {says}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

#[test]
fn what_cannot_be_changed_later_is_refused_with_a_sentence_that_says_what_to_do() {
    run(async {
        let playground = playground().await;
        let namespace = playground.namespace("changed").await;
        let manifest = |spec: &Value| {
            json!({
                "apiVersion": "volttron.org/v1alpha1", "kind": "VolttronInstance",
                "metadata": {"name": "fixed", "namespace": namespace}, "spec": spec,
            })
            .to_string()
        };
        let spec = json!({"instanceName": "fixed", "ca": {"generated": {"duration": "8760h"}}});
        let (accepted, says) = playground
            .kubectl(&["apply", "-f", "-"], &manifest(&spec))
            .await;
        assert!(accepted, "{says}");
        for (change, words) in [
            (
                json!({"instanceName": "other"}),
                "instanceName cannot be changed",
            ),
            (
                json!({"broker": {"managed": {"storage": {"size": "2Gi"}}}}),
                "storage cannot be changed",
            ),
        ] {
            let mut changed = spec.clone();
            changed
                .as_object_mut()
                .unwrap()
                .extend(change.as_object().unwrap().clone());
            let (accepted, says) = playground
                .kubectl(&["apply", "-f", "-"], &manifest(&changed))
                .await;
            assert!(
                !accepted && says.contains(words),
                "expected {words:?}: {says}"
            );
        }
    });
}

#[test]
fn kubectl_explains_every_field() {
    run(async {
        let playground = playground().await;
        let api = Api::<CustomResourceDefinition>::all(playground.admin());
        let mut silent = Vec::new();
        for name in [
            "volttroninstances.volttron.org",
            "volttroncertrequests.volttron.org",
        ] {
            let definition = api.get(name).await.unwrap();
            let version = definition.spec.versions.into_iter().next().unwrap();
            let schema = version.schema.unwrap().open_api_v3_schema.unwrap();
            walk(&definition.spec.names.kind, &schema, &mut silent);
            for column in version.additional_printer_columns.unwrap() {
                assert!(!column.json_path.is_empty(), "{}", column.name);
            }
        }
        assert!(
            silent.is_empty(),
            "fields and values without a description: {}",
            silent.join(", ")
        );
        for (field, words) in [
            ("vinst.spec.certificates.duration", "Life of a certificate"),
            ("vcr.status.phase", "or nobody decided within"),
            ("vcr.status.decision.how", "An administrator annotated the"),
        ] {
            let (explained, says) = playground.kubectl(&["explain", field], "").await;
            assert!(explained && says.contains(words), "{says}");
        }
    });
}

/// Name, kind, `metadata.name`, `spec`, and words of the refusal.
type Broken = (
    &'static str,
    &'static str,
    &'static str,
    Value,
    &'static str,
);

#[rustfmt::skip] // One case, one line.
fn broken() -> Vec<Broken> {
    let (instance, request) = ("VolttronInstance", "VolttronCertRequest");
    let certificates = |value: Value| json!({"certificates": value});
    let managed = |value: Value| json!({"broker": {"managed": value}});
    let asks = |change: Value| {
        let mut spec = json!({"instanceRef": {"name": "central"}, "request": "Zm9v", "requester": "admin"});
        spec.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        spec
    };
    vec![
        ("a dot in the name", instance, "a.b", json!({}), "metadata.name must be at most 40 lower-case letters"),
        ("a digit first", instance, "7up", json!({}), "beginning with a letter"),
        ("a long name", instance, "a-name-of-more-than-thirty-two-letters", json!({}), "set spec.instanceName"),
        ("a dot in the instance's name", instance, "a", json!({"instanceName": "a.b"}), "no dot: it would make common names ambiguous"),
        ("an empty instance name", instance, "a", json!({"instanceName": ""}), "1 to 32 letters, digits"),
        ("another message bus", instance, "a", json!({"messageBus": "zmq"}), "supported values: \"rmq\""),
        ("two CAs", instance, "a", json!({"ca": {"generated": {}, "secretRef": {"name": "x"}}}), "ca takes generated or secretRef, not both"),
        ("a CA of days", instance, "a", json!({"ca": {"generated": {"duration": "365d"}}}), "must be a duration from 1h to 262800h, such as 87600h"),
        ("a CA of minutes", instance, "a", json!({"ca": {"generated": {"duration": "5m"}}}), "must be a duration from 1h to 262800h"),
        ("a country of three letters", instance, "a", json!({"ca": {"generated": {"subject": {"country": "USA"}}}}), "country"),
        ("another key", instance, "a", json!({"ca": {"generated": {"keyAlgorithm": "RSA-1024"}}}), "supported values: \"ECDSA-P256\""),
        ("a slash in the virtual host", instance, "a", json!({"broker": {"virtualHost": "a/b"}}), "such as volttron"),
        ("this virtual host", instance, "a", json!({"broker": {"virtualHost": "."}}), "neither '.' nor '..', which addresses cannot carry"),
        ("the virtual host above", instance, "a", json!({"broker": {"virtualHost": ".."}}), "neither '.' nor '..', which addresses cannot carry"),
        ("no image", instance, "a", managed(json!({"image": ""})), "must be the name of an image, without spaces, such as docker.io/library/rabbitmq:4-management"),
        ("a space in the image", instance, "a", managed(json!({"image": "rabbitmq :4"})), "must be the name of an image, without spaces"),
        ("no quantity", instance, "a", managed(json!({"storage": {"size": "8 gigs"}})), "must be a quantity of bytes, at least 100Mi, such as 8Gi"),
        ("a few bytes", instance, "a", managed(json!({"storage": {"size": 8}})), "must be a quantity of bytes, at least 100Mi, such as 8Gi"),
        ("a small volume", instance, "a", managed(json!({"storage": {"size": "99Mi"}})), "must be a quantity of bytes, at least 100Mi, such as 8Gi"),
        ("no class", instance, "a", managed(json!({"storage": {"storageClassName": ""}})), "must be the name of a StorageClass"),
        ("a class of its own name", instance, "a", managed(json!({"storage": {"storageClassName": "Fast Disk"}})), "must be the name of a StorageClass"),
        ("no cpu", instance, "a", managed(json!({"resources": {"requests": {"cpu": "lots"}}})), "must be quantities, none below 0, such as {cpu: 250m, memory: 512Mi}"),
        ("less than no cpu", instance, "a", managed(json!({"resources": {"requests": {"cpu": -1}}})), "must be quantities, none below 0"),
        ("no memory", instance, "a", managed(json!({"resources": {"limits": {"memory": "lots"}}})), "must be quantities"),
        ("less than no memory", instance, "a", managed(json!({"resources": {"limits": {"memory": "-1Gi"}}})), "must be quantities, none below 0"),
        ("more than the limit", instance, "a", managed(json!({"resources": {"requests": {"cpu": 2}, "limits": {"cpu": "1500m"}}})), "requests must not be above limits"),
        ("a Secret with a space", instance, "a", json!({"ca": {"secretRef": {"name": "my ca"}}}), "must be the name of a Secret"),
        ("nobody may wait", instance, "a", json!({"requests": {"maxPendingPerNamespace": 0}}), "should be greater than or equal to 1"),
        ("a time beyond all bounds", instance, "a", json!({"requests": {"pendingTTL": "999999999h"}}), "must be a duration from 1m to 87600h, such as 168h"),
        ("an unknown field", instance, "a", json!({"brokr": {}}), "unknown field \"spec.brokr\""),
        ("certificates of days", instance, "a", certificates(json!({"duration": "90d"})), "must be a duration from 1m to 87600h, such as 2160h"),
        ("longer than the longest", instance, "a", certificates(json!({"duration": "9000h"})), "duration must not be longer than maxDuration"),
        ("no time at all", instance, "a", certificates(json!({"duration": ""})), "must be a duration from 1m to 87600h"),
        ("a short key", instance, "a", certificates(json!({"minRsaBits": 1024})), "should be greater than or equal to 2048"),
        ("no instance", request, "a", asks(json!({"instanceRef": null})), "spec.instanceRef"),
        ("a name that no instance has", request, "a", asks(json!({"instanceRef": {"name": "volttron/central"}})), "must be the metadata.name of a VolttronInstance"),
        ("a name that no namespace has", request, "a", asks(json!({"instanceRef": {"name": "central", "namespace": ""}})), "must be the name of a namespace"),
        ("an empty request", request, "a", asks(json!({"request": ""})), "spec.request"),
        ("a request of days", request, "a", asks(json!({"duration": "7d"})), "must be a duration from 1m to 87600h, such as 168h"),
        ("a request of a second", request, "a", asks(json!({"duration": "1s"})), "must be a duration from 1m to 87600h"),
        ("somebody else's request", request, "a", asks(json!({"requester": "mallory"})), "set spec.requester to 'admin'"),
    ]
}

/// Collects the fields below `path` that have no description, and the values that have none.
fn walk(path: &str, schema: &JSONSchemaProps, silent: &mut Vec<String>) {
    for (name, field) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        let standard = ["apiVersion", "kind", "metadata"].contains(&name.as_str())
            && path.matches('.').count() == 1;
        let description = field.description.as_deref().unwrap_or_default();
        if !standard && description.is_empty() {
            silent.push(path.clone());
        }
        for value in field.enum_.iter().flatten() {
            let means = format!("\n - `{}`: ", value.0.as_str().unwrap_or_default());
            if !description.contains(&means) {
                silent.push(format!("{path}: {}", value.0));
            }
        }
        walk(&path, field, silent);
    }
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => walk(&format!("{path}[]"), items, silent),
        Some(JSONSchemaPropsOrArray::Schemas(all)) => {
            for items in all {
                walk(path, items, silent);
            }
        }
        None => {}
    }
}
