//! Answers against the document that describes them.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::sluice::root;

/// What describes the monitor's API.
pub fn monitor() -> Result<Value> {
    let text = std::fs::read_to_string(root().join("docs/monitor.yaml"))?;
    Ok(serde_saphyr::from_str(&text)?)
}

/// What a schema names must be there and nothing else, all the way down.
pub fn hold(document: &Value, schema: &Value, shown: &Value, place: &str) -> Result<()> {
    let schema = resolved(document, schema)?;
    if let (Some(items), Some(shown)) = (schema.get("items"), shown.as_array()) {
        return shown
            .iter()
            .try_for_each(|one| hold(document, items, one, place));
    }
    let (properties, Some(object)) = (properties(document, schema)?, shown.as_object()) else {
        return Ok(());
    };
    if properties.is_empty() {
        return Ok(());
    }
    let named: BTreeSet<&String> = properties.iter().map(|(name, _)| name).collect();
    let there: BTreeSet<&String> = object.keys().collect();
    ensure!(
        named == there,
        "{place}: documented {named:?}, shown {there:?}"
    );
    let mut each = properties.iter();
    each.try_for_each(|(name, schema)| {
        hold(document, schema, &object[name], &format!("{place}.{name}"))
    })
}

fn resolved<'a>(document: &'a Value, schema: &'a Value) -> Result<&'a Value> {
    match schema["$ref"].as_str() {
        Some(reference) => {
            let found = document.pointer(reference.trim_start_matches('#'));
            found.with_context(|| format!("{reference} is nowhere"))
        }
        None => Ok(schema),
    }
}

fn properties(document: &Value, schema: &Value) -> Result<Vec<(String, Value)>> {
    let mut all = Vec::new();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        all.extend(properties(document, resolved(document, part)?)?);
    }
    let own = schema["properties"].as_object().into_iter().flatten();
    all.extend(own.map(|(name, schema)| (name.clone(), schema.clone())));
    Ok(all)
}
