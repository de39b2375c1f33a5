//! One document of a manifest: which object it is, and its data.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::Secret;
use crate::gateway::OBJECT_NAME;
use crate::objects::{ApplicationObject, Data, GatewayObject, Objects};
use crate::problem::{Problem, nearest, quoted};
use crate::resolve::pattern;

const KINDS: [&str; 5] = ["Gateway", "Application", "Secret", "ConfigMap", "List"];
/// Of the kinds of Sluice.
const SLUICE_VERSION: &str = "sluice.dev/v1alpha1";
/// A List in a List is of no use; deeper ones are refused.
const LIST_DEPTH_MAX: usize = 4;

/// Adds the objects of a document, which came from `file`.
pub(super) fn take(
    file: &str,
    document: Value,
    objects: &mut Objects,
    problems: &mut Vec<Problem>,
) {
    let mut reader = Reader {
        file,
        objects,
        problems,
    };
    reader.document(document, 0);
}

struct Reader<'a> {
    file: &'a str,
    objects: &'a mut Objects,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    fn document(&mut self, document: Value, depth: usize) {
        let mut document = match document {
            // What an empty document, or a file of comments, reads as.
            Value::Null => return,
            Value::Object(map) => map,
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return self.refuse(
                    "a document is not an object",
                    "write apiVersion, kind, metadata and spec",
                );
            }
        };
        let text = |key: &str| {
            document
                .get(key)
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned()
        };
        let (kind, version) = (text("kind"), text("apiVersion"));
        let list = kind == "List" || (kind.ends_with("List") && document.contains_key("items"));
        if list {
            let items = document.remove("items").unwrap_or_default();
            return self.list(&kind, items, depth);
        }
        let wanted = match kind.as_str() {
            "Gateway" | "Application" => SLUICE_VERSION,
            "Secret" | "ConfigMap" => "v1",
            "" => {
                return self.refuse(
                    "a document has no kind",
                    format!("write kind: {}", KINDS.join(", kind: ")),
                );
            }
            other => return self.unknown_kind(other),
        };
        let Some((namespace, name)) = self.identity(&kind, &document) else {
            return;
        };
        let object = format!("{kind} {namespace}/{name}");
        if version != wanted {
            let what = if version.is_empty() {
                "missing".to_owned()
            } else {
                format!("{} is unknown", quoted(&version))
            };
            self.problems.push(Problem::new(
                &object,
                "apiVersion",
                what,
                format!("write {wanted}"),
            ));
        }
        let identity = (namespace, name);
        match kind.as_str() {
            "Gateway" => self.gateway(&object, identity, document),
            "Application" => self.application(&object, identity, document),
            holder => self.holder(holder, &object, identity, document),
        }
    }

    fn list(&mut self, kind: &str, items: Value, depth: usize) {
        let Value::Array(items) = items else {
            return self.refuse(
                format!("{kind} has no list of items"),
                "give it items, or remove it",
            );
        };
        if depth >= LIST_DEPTH_MAX {
            return self.refuse(
                "lists are nested too deeply",
                "put the objects into one List",
            );
        }
        for item in items {
            self.document(item, depth + 1);
        }
    }

    fn refuse(&mut self, what: impl Into<String>, instead: impl Into<String>) {
        self.problems.push(Problem::new(
            format!("file {}", self.file),
            "",
            what,
            instead,
        ));
    }

    fn unknown_kind(&mut self, kind: &str) {
        let instead = match nearest(kind, KINDS) {
            Some(known) => format!("write {known}"),
            None => format!("write one of {}", KINDS.join(", ")),
        };
        let what = format!("{} is an unknown kind", quoted(kind));
        self.problems.push(Problem::new(
            format!("file {}", self.file),
            "kind",
            what,
            instead,
        ));
    }

    /// Namespace and name.
    fn identity(&mut self, kind: &str, document: &Map<String, Value>) -> Option<(String, String)> {
        let metadata = document.get("metadata");
        let field = |key: &str| metadata.and_then(|metadata| metadata.get(key));
        let namespace = match field("namespace") {
            None | Some(Value::Null) => "default",
            Some(namespace) => namespace.as_str().unwrap_or_default(),
        };
        let name = field("name").and_then(Value::as_str).unwrap_or_default();
        let valid = |text: &str| pattern::matches(OBJECT_NAME, text) && text.len() <= 253;
        for (key, text) in [("name", name), ("namespace", namespace)] {
            if !valid(text) {
                let what = if field(key).is_none() {
                    "missing".to_owned()
                } else {
                    "not a name".to_owned()
                };
                let instead = format!("write {}", pattern::description(OBJECT_NAME));
                let object = format!("file {}", self.file);
                self.problems.push(Problem::new(
                    object,
                    format!("{kind} metadata.{key}"),
                    what,
                    instead,
                ));
                return None;
            }
        }
        Some((namespace.to_owned(), name.to_owned()))
    }

    fn gateway(
        &mut self,
        object: &str,
        (namespace, name): (String, String),
        document: Map<String, Value>,
    ) {
        let spec = self.spec(object, document);
        self.objects.gateways.push(GatewayObject {
            namespace,
            name,
            spec,
        });
    }

    fn application(
        &mut self,
        object: &str,
        (namespace, name): (String, String),
        document: Map<String, Value>,
    ) {
        let created = self.created(object, &document);
        let spec = self.spec(object, document);
        self.objects.applications.push(ApplicationObject {
            namespace,
            name,
            created,
            spec,
        });
    }

    /// What an object of Sluice wants, as written.
    fn spec(&mut self, object: &str, mut document: Map<String, Value>) -> Value {
        let known = ["apiVersion", "kind", "metadata", "spec", "status"];
        self.known_fields(object, &document, &known);
        document.remove("spec").unwrap_or_default()
    }

    /// When the API server took the object, where the manifest came from there.
    fn created(&mut self, object: &str, document: &Map<String, Value>) -> Option<Time> {
        let written = document
            .get("metadata")
            .and_then(|metadata| metadata.get("creationTimestamp"))
            .filter(|written| !written.is_null())?;
        let created = Time::deserialize(written).ok();
        if created.is_none() {
            self.problems.push(Problem::new(
                object,
                "metadata.creationTimestamp",
                "not a time",
                "write one such as 2026-01-31T12:00:00Z, or remove it",
            ));
        }
        created
    }

    fn known_fields(&mut self, object: &str, document: &Map<String, Value>, known: &[&str]) {
        for field in document
            .keys()
            .filter(|field| !known.contains(&field.as_str()))
        {
            let instead = match nearest(field, known.iter().copied()) {
                Some(near) => format!("write {near}"),
                None => format!("remove it, or write one of {}", known.join(", ")),
            };
            self.problems.push(Problem::new(
                object,
                field.escape_debug().to_string(),
                "unknown field",
                instead,
            ));
        }
    }

    fn holder(
        &mut self,
        kind: &str,
        object: &str,
        key: (String, String),
        document: Map<String, Value>,
    ) {
        let common = ["apiVersion", "kind", "metadata", "type", "immutable"];
        let secret = kind == "Secret";
        // Plain text, and base64; plain text wins, as it does on the API server.
        let (encoded, plain) = if secret {
            ("data", "stringData")
        } else {
            ("binaryData", "data")
        };
        self.known_fields(
            object,
            &document,
            &[&common[..], &[encoded, plain]].concat(),
        );
        let mut data: Data = BTreeMap::new();
        for (section, decode) in [(encoded, true), (plain, false)] {
            self.section(object, section, document.get(section), decode, &mut data);
        }
        let known = if secret {
            &mut self.objects.secrets
        } else {
            &mut self.objects.config_maps
        };
        if known.insert(key, data).is_some() {
            let instead = "keep one of them, or rename one";
            self.problems.push(Problem::new(
                object,
                "metadata.name",
                "two objects have this name",
                instead,
            ));
        }
    }

    fn section(
        &mut self,
        object: &str,
        section: &str,
        entries: Option<&Value>,
        decode: bool,
        data: &mut Data,
    ) {
        let entries = match entries {
            None | Some(Value::Null) => return,
            Some(Value::Object(entries)) => entries,
            Some(_) => {
                let what = "not a map of keys and values";
                return self.problems.push(Problem::new(
                    object,
                    section,
                    what,
                    "write key: value lines",
                ));
            }
        };
        for (key, value) in entries {
            let field = format!("{section}[{}]", quoted(key));
            let Some(text) = value.as_str() else {
                let problem =
                    Problem::new(object, field, "the value is not text", "put it in quotes");
                self.problems.push(problem);
                continue;
            };
            let bytes = if decode {
                decode_base64(text)
            } else {
                Some(text.as_bytes().to_vec())
            };
            match bytes {
                Some(bytes) => {
                    data.insert(key.clone(), Secret::new(bytes));
                }
                None => {
                    let instead = if section == "data" {
                        "encode the value, or write it as it is under stringData"
                    } else {
                        "encode the value, or write it as it is under data"
                    };
                    self.problems.push(Problem::new(
                        object,
                        field,
                        "the value is not base64",
                        instead,
                    ));
                }
            }
        }
    }
}

/// Base64 as people wrap it: line breaks do not count.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let compact: String = text.split_whitespace().collect();
    STANDARD.decode(compact).ok()
}
