//! Kubernetes' `OpenAPI` documents, and whether a manifest is as they say.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Map, Value};

/// The folder `api/openapi-spec/v3` of a Kubernetes release, one document for each group and version, read when first needed.
#[derive(Debug)]
pub struct Schemas {
    folder: PathBuf,
    documents: HashMap<String, Value>,
}

impl Schemas {
    /// Schemas in the given folder.
    ///
    /// # Errors
    /// Where there is no such folder.
    pub fn open(folder: &Path) -> Result<Self> {
        let folder = folder
            .canonicalize()
            .with_context(|| format!("no OpenAPI documents in {}", folder.display()))?;
        Ok(Self {
            folder,
            documents: HashMap::new(),
        })
    }

    /// What is wrong with a manifest: nothing, or each fault with its path.
    ///
    /// # Errors
    /// Where its kind is not one of Kubernetes' own.
    pub fn faults(&mut self, manifest: &Value) -> Result<Vec<String>> {
        let text = |field: &str| manifest[field].as_str().unwrap_or_default().to_owned();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        let (group, version) = api_version.split_once('/').unwrap_or(("", &api_version));
        let document = self
            .document(group, version)
            .with_context(|| format!("{api_version} {kind} is not known to Kubernetes"))?;
        let schemas = &document["components"]["schemas"];
        let schema = schemas
            .as_object()
            .into_iter()
            .flat_map(Map::values)
            .find(|schema| is_of_kind(schema, group, version, &kind))
            .ok_or_else(|| anyhow!("{api_version} has no kind {kind:?}"))?;
        let mut faults = Vec::new();
        Check { schemas }.value(manifest, schema, "", &mut faults);
        Ok(faults)
    }

    fn document(&mut self, group: &str, version: &str) -> Result<&Value> {
        let name = match group {
            "" => format!("api__{version}_openapi.json"),
            group => format!("apis__{group}__{version}_openapi.json"),
        };
        if !self.documents.contains_key(&name) {
            let text = std::fs::read_to_string(self.folder.join(&name))?;
            self.documents
                .insert(name.clone(), serde_json::from_str(&text)?);
        }
        Ok(&self.documents[&name])
    }
}

fn is_of_kind(schema: &Value, group: &str, version: &str, kind: &str) -> bool {
    let kinds = schema["x-kubernetes-group-version-kind"].as_array();
    kinds
        .into_iter()
        .flatten()
        .any(|it| it["group"] == group && it["version"] == version && it["kind"] == kind)
}

struct Check<'a> {
    schemas: &'a Value,
}

impl Check<'_> {
    fn value(&self, value: &Value, schema: &Value, path: &str, faults: &mut Vec<String>) {
        if let Some(reference) = schema["$ref"].as_str() {
            let name = reference.rsplit('/').next().unwrap_or_default();
            return self.value(value, &self.schemas[name], path, faults);
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.value(value, part, path, faults);
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            let fits = |choice: &Value| {
                choice["type"]
                    .as_str()
                    .is_none_or(|kind| is_a(value, kind, &Value::Null))
            };
            if !choices.iter().any(fits) {
                faults.push(format!("{path}: {value} is of none of the types it can be"));
            }
        }
        if let Some(kind) = schema["type"].as_str()
            && !is_a(value, kind, &schema["format"])
        {
            return faults.push(format!("{path}: {value} should be of type {kind}"));
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            faults.push(format!("{path}: {value} is none of {allowed:?}"));
        }
        match value {
            Value::Object(fields) => self.object(fields, schema, path, faults),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.value(item, &schema["items"], &format!("{path}[{index}]"), faults);
                }
            }
            _ => {}
        }
    }

    fn object(
        &self,
        fields: &Map<String, Value>,
        schema: &Value,
        path: &str,
        faults: &mut Vec<String>,
    ) {
        let required = schema["required"].as_array().into_iter().flatten();
        for name in required.filter_map(Value::as_str) {
            if !fields.contains_key(name) {
                faults.push(format!("{path}.{name}: is missing"));
            }
        }
        let known = schema["properties"].as_object();
        let rest = &schema["additionalProperties"];
        for (name, field) in fields {
            let path = format!("{path}.{name}");
            match known.and_then(|known| known.get(name)) {
                Some(schema) => self.value(field, schema, &path, faults),
                None if rest.is_object() => self.value(field, rest, &path, faults),
                None if known.is_some() => faults.push(format!("{path}: is not a field here")),
                None => {}
            }
        }
    }
}

fn is_a(value: &Value, kind: &str, format: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" if format == "int-or-string" => value.is_string() || value.is_i64(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn faults(manifest: &Value) -> Vec<String> {
        let schemas = json!({
            "Service": {
                "type": "object",
                "required": ["spec"],
                "properties": {
                    "kind": {"type": "string"},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "spec": {"allOf": [{"$ref": "#/components/schemas/Spec"}], "default": {}},
                },
            },
            "Spec": {
                "type": "object",
                "properties": {
                    "type": {"type": "string", "enum": ["ClusterIP", "NodePort"]},
                    "ports": {"type": "array", "items": {"$ref": "#/components/schemas/Port"}},
                },
            },
            "Port": {
                "type": "object",
                "properties": {
                    "port": {"type": "integer"},
                    "targetPort": {"oneOf": [{"type": "integer"}, {"type": "string"}]},
                },
            },
        });
        let mut faults = Vec::new();
        Check { schemas: &schemas }.value(manifest, &schemas["Service"], "", &mut faults);
        faults
    }

    #[test]
    fn a_manifest_that_fits_has_no_fault() {
        let fits = json!({
            "kind": "Service", "labels": {"any/thing": "yes"},
            "spec": {"type": "ClusterIP", "ports": [{"port": 8080, "targetPort": "health"}]},
        });
        assert_eq!(faults(&fits), Vec::<String>::new());
    }

    #[test]
    fn each_fault_is_named_with_its_path() {
        let cases = [
            (json!({"kind": "Service"}), ".spec: is missing"),
            (
                json!({"spec": {"prots": []}}),
                ".spec.prots: is not a field here",
            ),
            (
                json!({"spec": {"ports": [{"port": "8080"}]}}),
                ".spec.ports[0].port: \"8080\" should be of type integer",
            ),
            (
                json!({"spec": {"ports": {"port": 1}}}),
                ".spec.ports: {\"port\":1} should be of type array",
            ),
            (
                json!({"spec": {"type": "Internal"}}),
                ".spec.type: \"Internal\" is none of",
            ),
            (
                json!({"spec": {"ports": [{"targetPort": true}]}}),
                ".spec.ports[0].targetPort: true is of none of the types",
            ),
            (
                json!({"labels": {"on": true}, "spec": {}}),
                ".labels.on: true should be of type string",
            ),
            (
                json!({"spec": null}),
                ".spec: null should be of type object",
            ),
        ];
        for (manifest, expected) in cases {
            let found = faults(&manifest);
            assert!(
                found.len() == 1 && found[0].starts_with(expected),
                "{manifest}: {found:?}"
            );
        }
    }
}
