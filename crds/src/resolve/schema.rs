//! Holds a spec against the schema of the CRD, as the API server does, but in words for users.
//!
//! Every value that does not fit is reported and replaced by one that does, so that the rest can be judged. The walk
//! follows the schema, whose depth is fixed, never the depth of the input.

mod scalar;

use std::collections::BTreeMap;
use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use serde_json::{Map, Value};

use crate::problem::{Problem, nearest, quoted};
use crate::{application, gateway};

/// The schema of the `spec` of one kind.
pub(super) struct Schema {
    spec: Value,
    /// Fields to start from, in words.
    start: &'static str,
}

pub(super) static GATEWAY: LazyLock<Schema> = LazyLock::new(|| {
    Schema::of(
        gateway::crd(),
        "write spec with listeners, and relay or ingest",
    )
});

pub(super) static APPLICATION: LazyLock<Schema> =
    LazyLock::new(|| Schema::of(application::crd(), "write spec with gatewayRef and keys"));

/// What a check found.
pub(super) struct Checked {
    pub(super) problems: Vec<Problem>,
    /// Paths at and below which the repaired value is not what the user wrote.
    pub(super) concerned: Vec<String>,
    pub(super) repaired: Value,
}

impl Schema {
    fn of(crd: CustomResourceDefinition, start: &'static str) -> Self {
        let crd = serde_json::to_value(crd).expect("a CRD has string keys only");
        let spec = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties/spec");
        Self {
            spec: spec.cloned().unwrap_or_default(),
            start,
        }
    }

    pub(super) fn check(&self, object: &str, spec: &Value) -> Checked {
        let mut walk = Walk {
            object,
            problems: Vec::new(),
            concerned: Vec::new(),
        };
        let repaired = if spec.is_null() {
            walk.report("spec", "missing", self.start);
            placeholder(&self.spec)
        } else {
            walk.value(&self.spec, spec, "spec")
        };
        Checked {
            problems: walk.problems,
            concerned: walk.concerned,
            repaired,
        }
    }
}

/// Whether a field is the one at `path` or inside it.
pub(super) fn is_at_or_below(field: &str, path: &str) -> bool {
    field
        .strip_prefix(path)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

struct Walk<'a> {
    object: &'a str,
    problems: Vec<Problem>,
    concerned: Vec<String>,
}

impl Walk<'_> {
    fn report(&mut self, path: &str, what: impl Into<String>, instead: impl Into<String>) {
        self.concerned.push(path.to_owned());
        self.problems
            .push(Problem::new(self.object, path, what, instead));
    }

    /// The value if it fits, else one that does.
    fn value(&mut self, schema: &Value, value: &Value, path: &str) -> Value {
        match (kind(schema), value) {
            // Judged by others.
            ("object", Value::Object(_)) if is_open(schema) => value.clone(),
            ("object", Value::Object(map)) => Value::Object(self.object(schema, map, path)),
            ("array", Value::Array(items)) => Value::Array(self.list(schema, items, path)),
            ("object" | "array", other) => {
                let wanted = scalar::wanted(schema, path);
                self.report(
                    path,
                    format!("{} stands here", name_of(other)),
                    format!("write {wanted}"),
                );
                placeholder(schema)
            }
            _ => match scalar::check(schema, value, path) {
                Ok(()) => value.clone(),
                Err((what, instead)) => {
                    self.report(path, what, instead);
                    placeholder(schema)
                }
            },
        }
    }

    fn object(
        &mut self,
        schema: &Value,
        map: &Map<String, Value>,
        path: &str,
    ) -> Map<String, Value> {
        let none = Map::new();
        let properties = schema
            .get("properties")
            .and_then(Value::as_object)
            .unwrap_or(&none);
        let mut fitting = Map::new();
        for (field, value) in map {
            match properties.get(field) {
                // As on the API server, null is the same as absent.
                Some(_) if value.is_null() => {}
                Some(property) => {
                    fitting.insert(
                        field.clone(),
                        self.value(property, value, &format!("{path}.{field}")),
                    );
                }
                None => match schema.get("additionalProperties") {
                    Some(_) if value.is_null() => {}
                    Some(entry) => {
                        let path = format!("{path}[{}]", quoted(field));
                        fitting.insert(field.clone(), self.value(entry, value, &path));
                    }
                    None => self.unknown(properties, field, map, path),
                },
            }
        }
        self.entries(schema, map.len(), path);
        let required = schema
            .get("required")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        for field in required.filter_map(Value::as_str) {
            if fitting.contains_key(field) {
                continue;
            }
            let property = properties.get(field).unwrap_or(&Value::Null);
            // A misspelt name has been reported already, with this one as what to write.
            let misspelt = map.keys().any(|key| {
                !properties.contains_key(key)
                    && nearest(key, properties.keys().map(String::as_str)) == Some(field)
            });
            let missing = format!("{path}.{field}");
            if misspelt {
                self.concerned.push(missing);
            } else {
                self.report(
                    &missing,
                    "missing",
                    format!("add {field}: {}", scalar::wanted(property, field)),
                );
            }
            fitting.insert(field.to_owned(), placeholder(property));
        }
        fitting
    }

    /// How many entries a map has.
    fn entries(&mut self, schema: &Value, entries: usize, path: &str) {
        let bound = |key| schema.get(key).and_then(Value::as_u64);
        let entries = entries as u64;
        if let Some(min) = bound("minProperties").filter(|min| entries < *min) {
            self.report(path, "too few entries", format!("write {min} or more"));
        }
        if let Some(max) = bound("maxProperties").filter(|max| entries > *max) {
            let what = format!("{entries} entries are too many");
            self.report(path, what, format!("write at most {max}"));
        }
    }

    fn unknown(
        &mut self,
        properties: &Map<String, Value>,
        field: &str,
        map: &Map<String, Value>,
        path: &str,
    ) {
        let near = nearest(field, properties.keys().map(String::as_str))
            .filter(|near| !map.contains_key(*near));
        let instead = match near {
            Some(near) => format!("write {near}"),
            None => {
                let known: Vec<&str> = properties.keys().map(String::as_str).collect();
                format!("remove it, or write one of {}", known.join(", "))
            }
        };
        let shown = if is_plain(field) {
            format!("{path}.{field}")
        } else {
            format!("{path}[{}]", quoted(field))
        };
        self.problems
            .push(Problem::new(self.object, shown, "unknown field", instead));
        // What the misspelt field would have said is unknown, so nothing is said of its absence.
        self.concerned
            .extend(near.map(|near| format!("{path}.{near}")));
    }

    fn list(&mut self, schema: &Value, items: &[Value], path: &str) -> Vec<Value> {
        let length = |key| {
            schema
                .get(key)
                .and_then(Value::as_u64)
                .and_then(|n| usize::try_from(n).ok())
        };
        let (min, max) = (
            length("minItems").unwrap_or(0),
            length("maxItems").unwrap_or(usize::MAX),
        );
        if items.len() < min {
            self.report(path, "the list is empty", format!("write {min} or more"));
        }
        if items.len() > max {
            self.report(
                path,
                format!("{} entries are too many", items.len()),
                format!("write at most {max}"),
            );
        }
        let item_schema = schema.get("items").unwrap_or(&Value::Null);
        let fitting: Vec<Value> = items
            .iter()
            .take(max)
            .enumerate()
            .map(|(index, item)| self.value(item_schema, item, &format!("{path}[{index}]")))
            .collect();
        let keys = schema
            .get("x-kubernetes-list-map-keys")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        for key in keys.filter_map(Value::as_str) {
            self.unique(&fitting, key, path);
        }
        fitting
    }

    fn unique(&mut self, items: &[Value], key: &str, path: &str) {
        let mut first_with: BTreeMap<&str, usize> = BTreeMap::new();
        for (index, item) in items.iter().enumerate() {
            let field = format!("{path}[{index}].{key}");
            let Some(text) = item.get(key).and_then(Value::as_str) else {
                continue;
            };
            if self.concerned.contains(&field) {
                continue;
            }
            let first = *first_with.entry(text).or_insert(index);
            if first != index {
                let list = path.rsplit('.').next().unwrap_or(path);
                let what = format!("{} is already used by {list}[{first}]", quoted(text));
                self.report(&field, what, "give each entry a name of its own");
            }
        }
    }
}

fn kind(schema: &Value) -> &str {
    schema
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn is_open(schema: &Value) -> bool {
    schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true))
}

fn is_plain(field: &str) -> bool {
    !field.is_empty()
        && field.len() <= 64
        && field
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
}

/// What stands there, without showing it: it may be a secret in the wrong place.
fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Some value that fits the schema, in the shape of it at least.
fn placeholder(schema: &Value) -> Value {
    if let Some(default) = schema.get("default") {
        return default.clone();
    }
    if let Some(first) = schema
        .get("enum")
        .and_then(Value::as_array)
        .and_then(|choices| choices.first())
    {
        return first.clone();
    }
    match kind(schema) {
        "object" => {
            let required = schema
                .get("required")
                .and_then(Value::as_array)
                .into_iter()
                .flatten();
            let fields = required.filter_map(Value::as_str);
            let property = |field: &str| {
                schema
                    .get("properties")
                    .and_then(|all| all.get(field))
                    .unwrap_or(&Value::Null)
            };
            Value::Object(
                fields
                    .map(|field| (field.to_owned(), placeholder(property(field))))
                    .collect(),
            )
        }
        "array" => Value::Array(Vec::new()),
        "integer" => Value::from(
            schema
                .get("minimum")
                .and_then(Value::as_f64)
                .map_or(0, |min| min as i64),
        ),
        "boolean" => Value::Bool(false),
        _ => Value::String(String::new()),
    }
}

#[cfg(test)]
mod tests;
