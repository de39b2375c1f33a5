//! An object as text: parsed it takes many times the memory, and most objects are looked at rarely.

use std::fmt;

use kube::api::DynamicObject;

use crate::shelf::Key;

pub struct Packed {
    /// What it is asked for by: the Gateway that it belongs to, or names.
    gateway: Option<Key>,
    text: Box<str>,
}

impl Packed {
    pub fn new(object: &DynamicObject, gateway: Option<Key>) -> Self {
        // Maps have string keys; a text that is no object would be found by nobody.
        let text = serde_json::to_string(object).unwrap_or_default();
        Self {
            gateway,
            text: text.into(),
        }
    }

    pub fn gateway(&self) -> Option<Key> {
        self.gateway.clone()
    }

    pub fn unpack(&self) -> Option<DynamicObject> {
        serde_json::from_str(&self.text).ok()
    }
}

impl fmt::Debug for Packed {
    /// Without the text, which may hold secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packed")
            .field("gateway", &self.gateway)
            .field("bytes", &self.text.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_comes_back_whole() {
        for types in [json!({"apiVersion": "v1", "kind": "Secret"}), json!({})] {
            let mut object = json!({
                "metadata": {
                    "name": "n", "labels": {"a": "b"}, "resourceVersion": "7", "generation": 3,
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                },
                "data": {"k": "aGlkZGVu"}, "spec": {"list": [1, 2.5, null, {"x": true}]},
            });
            for (field, value) in types.as_object().unwrap() {
                object[field] = value.clone();
            }
            let object: DynamicObject = serde_json::from_value(object).unwrap();
            let packed = Packed::new(&object, None);
            assert_eq!(packed.unpack().unwrap(), object);
            assert!(!format!("{packed:?}").contains("aGlk"));
        }
    }
}
