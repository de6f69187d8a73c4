//! Checks what a chart renders, without a cluster: `helm template … | chart-schema-check --openapi FOLDER --crds FOLDER`.
//!
//! Every document must be of a kind that Kubernetes has, with no field that it does not have, each of its type and none missing
//! that is required. The `CustomResourceDefinitions` must be those of the folder, and no role may hold a wildcard.

mod openapi;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use serde::Deserialize as _;
use serde_json::Value;

use openapi::Schemas;

/// Checks rendered manifests, read from standard input, against the `OpenAPI` documents of Kubernetes.
#[derive(Debug, Parser)]
struct Arguments {
    /// Folder `api/openapi-spec/v3` of a Kubernetes release.
    #[arg(long)]
    openapi: PathBuf,
    /// Folder with the `CustomResourceDefinitions` that must be rendered.
    #[arg(long)]
    crds: Option<PathBuf>,
    /// A kind of somebody else's that is let pass, such as `ServiceMonitor`.
    #[arg(long)]
    skip: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .context("cannot read standard input")?;
    let manifests = manifests(&text)?;
    let mut faults = Vec::new();
    let mut schemas = Schemas::open(&arguments.openapi)?;
    for manifest in &manifests {
        let named = title(manifest);
        if arguments.skip.iter().any(|kind| manifest["kind"] == **kind) {
            continue;
        }
        match schemas.faults(manifest) {
            Ok(found) => faults.extend(found.iter().map(|fault| format!("{named}: {fault}"))),
            Err(error) => faults.push(format!("{named}: {error:#}")),
        }
        faults.extend(
            wildcards(manifest)
                .into_iter()
                .map(|fault| format!("{named}: {fault}")),
        );
    }
    if let Some(folder) = &arguments.crds {
        faults.extend(stale_definitions(&manifests, folder)?);
    }
    if manifests.is_empty() {
        faults.push("nothing was rendered".to_owned());
    }
    for fault in &faults {
        eprintln!("{fault}");
    }
    if faults.is_empty() {
        println!("{} manifests are as they should be", manifests.len());
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}

fn manifests(text: &str) -> Result<Vec<Value>> {
    let mut manifests = Vec::new();
    for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let value = Value::deserialize(document)
            .with_context(|| format!("document {} is no YAML", index + 1))?;
        if !value.is_null() {
            manifests.push(value);
        }
    }
    Ok(manifests)
}

fn title(manifest: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    format!(
        "{} {}",
        text(&manifest["kind"]),
        text(&manifest["metadata"]["name"])
    )
}

fn wildcards(manifest: &Value) -> Vec<String> {
    let rules = manifest["rules"].as_array().into_iter().flatten();
    rules
        .flat_map(|rule| rule.as_object().into_iter().flatten())
        .filter(|(_, list)| {
            list.as_array()
                .is_some_and(|list| list.contains(&"*".into()))
        })
        .map(|(field, _)| format!(".rules: {field} holds a wildcard; name what is meant"))
        .collect()
}

/// The chart carries a copy of the definitions, since Helm reads nothing outside of it.
fn stale_definitions(manifests: &[Value], folder: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut rendered: BTreeMap<String, &Value> = manifests
        .iter()
        .filter(|it| it["kind"] == "CustomResourceDefinition")
        .map(|it| (title(it), it))
        .collect();
    for entry in std::fs::read_dir(folder).with_context(|| format!("no {}", folder.display()))? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path)?;
        for definition in self::manifests(&text)? {
            let named = title(&definition);
            match rendered.remove(&named) {
                None => faults.push(format!("{named}: is not rendered")),
                Some(it) if normal(&it["spec"]) != normal(&definition["spec"]) => {
                    faults.push(format!(
                        "{named}: differs from {}: copy it into the chart",
                        path.display()
                    ));
                }
                Some(_) => {}
            }
        }
    }
    faults.extend(
        rendered
            .keys()
            .map(|named| format!("{named}: is not in {}", folder.display())),
    );
    Ok(faults)
}

/// Helm writes a whole number that came as `2048.0` as `2048`.
fn normal(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, field)| (name.clone(), normal(field)))
            .collect(),
        Value::Array(items) => items.iter().map(normal).collect(),
        Value::Number(number) => number.as_f64().into(),
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_in_a_role_is_a_fault() {
        let text = "kind: Role\nrules: [{apiGroups: [''], resources: [pods], verbs: ['*']}]";
        let role = &manifests(text).unwrap()[0];
        assert_eq!(
            wildcards(role),
            [".rules: verbs holds a wildcard; name what is meant"]
        );
    }

    #[test]
    fn a_stale_or_missing_definition_is_a_fault() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            std::fs::write(folder.path().join(name), text).unwrap();
        };
        write(
            "a.yaml",
            "kind: CustomResourceDefinition\nmetadata: {name: a}\nspec: {group: x}",
        );
        write(
            "b.yaml",
            "kind: CustomResourceDefinition\nmetadata: {name: b}\nspec: {group: x}",
        );
        let chart = "kind: CustomResourceDefinition\nmetadata: {name: a, annotations: {k: v}}\nspec: {group: y}\n---\nkind: CustomResourceDefinition\nmetadata: {name: c}\nspec: {}";
        let mut faults = stale_definitions(&manifests(chart).unwrap(), folder.path()).unwrap();
        faults.sort();
        let starts = [
            "CustomResourceDefinition a: differs",
            "CustomResourceDefinition b: is not rendered",
            "CustomResourceDefinition c: is not in",
        ];
        assert_eq!(faults.len(), 3, "{faults:?}");
        assert!(
            faults.iter().zip(starts).all(|(it, s)| it.starts_with(s)),
            "{faults:?}"
        );
    }
}
