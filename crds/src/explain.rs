//! What `kubectl explain` says.

use schemars::Schema;
use serde_json::Value;

/// Appends to the description of an enum what each of its values means, from the doc comments of
/// its variants and in the words of [Kubernetes' own types]. A structural schema has no other place
/// for that.
///
/// [Kubernetes' own types]: https://github.com/kubernetes/kube-openapi/blob/master/pkg/generators/enum.go
pub(crate) fn with_values_explained(schema: &mut Schema) {
    if let Some(schema) = schema.as_object_mut() {
        explain(schema);
    }
}

fn explain(schema: &mut serde_json::Map<String, Value>) {
    // An optional field has its enum and null below it.
    if let Some(Value::Array(either)) = schema.get_mut("anyOf") {
        either
            .iter_mut()
            .filter_map(Value::as_object_mut)
            .for_each(explain);
    }
    let Some(Value::Array(values)) = schema.get("oneOf") else {
        return;
    };
    let lines: String = values
        .iter()
        .filter_map(|value| {
            let (name, means) = (value.get("const")?.as_str()?, value.get("description")?);
            let words: Vec<_> = means.as_str()?.split_whitespace().collect();
            Some(format!("\n - `{name}`: {}", words.join(" ")))
        })
        .collect();
    if let Some(Value::String(description)) = schema.get_mut("description") {
        description.push_str("\n\nPossible values:");
        description.push_str(&lines);
    }
}
