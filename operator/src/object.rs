//! An object as the operator wants it: the fields it has an opinion about, and no others.
//!
//! Names and labels are made here. What an object says besides is made by the builders.

use std::fmt;

use serde_json::{Map, Value, json};

use crate::kinds::Kind;

/// Owner of fields in server-side apply.
pub const FIELD_MANAGER: &str = "sluice-operator";
/// By this label the operator finds what it made.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Names the Gateway that an object belongs to.
pub const GATEWAY_LABEL: &str = "sluice.dev/gateway";
/// Tells the pods of a Gateway apart: `dataplane` or `redis`.
pub const COMPONENT_LABEL: &str = "app.kubernetes.io/component";
pub const DATA_PLANE: &str = "dataplane";
/// Operators' pods, as the chart makes them, have this label with this value.
pub const OPERATOR_LABEL: &str = "app.kubernetes.io/name";
pub const OPERATOR: &str = "sluice-operator";

/// The Gateway that objects belong to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl Owner {
    /// Labels of everything that belongs to it.
    pub fn labels(&self, component: &str) -> Map<String, Value> {
        let mut labels = self.selector(component);
        labels.insert("app.kubernetes.io/name".to_owned(), "sluice".into());
        labels.insert(MANAGED_BY.to_owned(), FIELD_MANAGER.into());
        labels
    }

    /// What chooses its pods; it can never change.
    pub fn selector(&self, component: &str) -> Map<String, Value> {
        let mut labels = Map::new();
        labels.insert(COMPONENT_LABEL.to_owned(), component.into());
        labels.insert(GATEWAY_LABEL.to_owned(), self.name.as_str().into());
        labels
    }

    pub fn reference(&self) -> Value {
        json!({
            "apiVersion": "sluice.dev/v1alpha1",
            "kind": "Gateway",
            "name": self.name,
            "uid": self.uid,
            "controller": true,
            "blockOwnerDeletion": true,
        })
    }
}

/// An object as it should be.
#[derive(Clone, PartialEq)]
pub struct Object {
    pub kind: Kind,
    pub name: String,
    /// Complete, with apiVersion, kind and metadata.
    pub body: Value,
    /// Paths of fields that nobody may set, as JSON pointers.
    pub absent: Vec<&'static str>,
}

impl Object {
    /// An object that belongs to the owner; `body` holds everything but apiVersion, kind and metadata.
    pub fn new(kind: Kind, owner: &Owner, component: &str, name: &str, body: Value) -> Self {
        let resource = kind.resource();
        let mut whole = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": {
                "name": name,
                "namespace": owner.namespace,
                "labels": owner.labels(component),
                "ownerReferences": [owner.reference()],
            },
        });
        if let (Value::Object(whole), Value::Object(body)) = (&mut whole, body) {
            whole.extend(body);
        }
        Self {
            kind,
            name: name.to_owned(),
            body: whole,
            absent: Vec::new(),
        }
    }

    /// Adds a label.
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.body["metadata"]["labels"][key] = value.into();
        self
    }

    /// Adds an annotation.
    pub fn annotate(mut self, key: &str, value: &str) -> Self {
        self.body["metadata"]["annotations"][key] = value.into();
        self
    }

    /// Sees to it that nobody sets a field.
    pub fn without(mut self, pointer: &'static str) -> Self {
        self.absent.push(pointer);
        self
    }
}

impl fmt::Debug for Object {
    /// Without the body, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.name)
    }
}
