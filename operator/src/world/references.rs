//! Secrets and ConfigMaps that Gateways and Applications refer to: which, and what is in them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, Error};
use serde_json::Value;
use sluice_crds::config;
use sluice_crds::objects::{Data, Objects};

use super::World;

/// Depth of references in specs; deeper ones are not looked for.
const DEPTH_MAX: usize = 12;

/// An object that somebody refers to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    Secret(String, String),
    ConfigMap(String, String),
}

/// All that a spec refers to, in its namespace.
pub fn references_of(namespace: &str, spec: &Value) -> BTreeSet<Reference> {
    let mut found = BTreeSet::new();
    walk(namespace, spec, &mut found, 0);
    found
}

fn walk(namespace: &str, value: &Value, found: &mut BTreeSet<Reference>, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = value.get("name").and_then(Value::as_str);
                match (kind_of(field), name) {
                    (Some(reference), Some(name)) => {
                        found.insert(reference(namespace.to_owned(), name.to_owned()));
                    }
                    // What pods refer to is their own business.
                    (None, _) if field == "podTemplate" => {}
                    (_, _) => walk(namespace, value, found, depth + 1),
                }
            }
        }
        Value::Array(items) => {
            for item in items {
                walk(namespace, item, found, depth + 1);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What a field refers to, by the way fields of references are named.
fn kind_of(field: &str) -> Option<fn(String, String) -> Reference> {
    let lower = field.to_ascii_lowercase();
    if lower.ends_with("configmapref") {
        Some(Reference::ConfigMap)
    } else if lower.ends_with("secretref") || lower.ends_with("certificateref") {
        Some(Reference::Secret)
    } else {
        None
    }
}

/// What was read of the objects that are referred to, each with its version.
#[derive(Debug, Default)]
pub struct References {
    read: Mutex<HashMap<Reference, (String, Data)>>,
}

impl References {
    /// Puts what is referred to among the objects. What the watches do not know is not there.
    pub async fn fetch(
        &self,
        client: &Client,
        world: &World,
        wanted: &BTreeSet<Reference>,
        objects: &mut Objects,
    ) -> Result<(), Error> {
        for reference in wanted {
            let version = match reference {
                Reference::Secret(namespace, name) => world.secrets.get(namespace, name),
                Reference::ConfigMap(namespace, name) => world.config_maps.get(namespace, name),
            };
            let Some(version) = version else {
                self.lock().remove(reference);
                continue;
            };
            let known = self.lock().get(reference).cloned();
            let data = match known {
                Some((known, data)) if known == *version => data,
                _ => {
                    let Some((version, data)) = read(client, reference).await? else {
                        continue;
                    };
                    self.lock()
                        .insert(reference.clone(), (version, data.clone()));
                    data
                }
            };
            match reference.clone() {
                Reference::Secret(namespace, name) => {
                    objects.secrets.insert((namespace, name), data);
                }
                Reference::ConfigMap(namespace, name) => {
                    objects.config_maps.insert((namespace, name), data);
                }
            }
        }
        Ok(())
    }

    /// Forgets what nobody refers to any more.
    pub fn retain(&self, is_wanted: impl Fn(&Reference) -> bool) {
        self.lock().retain(|reference, _| is_wanted(reference));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Reference, (String, Data)>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(client: &Client, reference: &Reference) -> Result<Option<(String, Data)>, Error> {
    match reference {
        Reference::Secret(namespace, name) => {
            let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
            let secret = api.get_opt(name).await?;
            Ok(secret.map(|secret| {
                let data = secret.data.unwrap_or_default().into_iter();
                let data = data.map(|(key, value)| (key, config::Secret::new(value.0)));
                let version = secret.metadata.resource_version.unwrap_or_default();
                (version, data.collect())
            }))
        }
        Reference::ConfigMap(namespace, name) => {
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
            let map = api.get_opt(name).await?;
            Ok(map.map(|map| {
                let texts = map.data.unwrap_or_default().into_iter();
                let texts = texts.map(|(key, text)| (key, config::Secret::new(text.into_bytes())));
                let bytes = map.binary_data.unwrap_or_default().into_iter();
                let bytes = bytes.map(|(key, value)| (key, config::Secret::new(value.0)));
                let version = map.metadata.resource_version.unwrap_or_default();
                (version, texts.chain(bytes).collect())
            }))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references_are_found_by_the_names_of_their_fields() {
        let spec = json!({
            "listeners": [{"tls": {"certificateRef": {"name": "a"}}}],
            "relay": {"authentication": {"jwt": {
                "publicKeys": [{"configMapRef": {"name": "b", "key": "k"}}],
                "hmac": [{"secretRef": {"name": "c", "key": "k"}}]
            }}},
            "redis": {"external": {"urlSecretRef": {"name": "d", "key": "k"}}},
            "dataPlane": {"podTemplate": {"spec": {"secretRef": {"name": "no"}}}},
            "gatewayRef": {"name": "no"},
        });
        let secret = |name: &str| Reference::Secret("n".to_owned(), name.to_owned());
        let map = Reference::ConfigMap("n".to_owned(), "b".to_owned());
        let wanted = BTreeSet::from([secret("a"), map, secret("c"), secret("d")]);
        assert_eq!(references_of("n", &spec), wanted);
    }

    /// Every field of the CRDs that is named like a reference is one, and the other way round.
    #[test]
    fn no_reference_of_the_crds_is_missed() {
        fn fields(schema: &Value, found: &mut BTreeSet<String>) {
            let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
                if let Some(items) = schema.get("items") {
                    fields(items, found);
                }
                return;
            };
            for (field, schema) in properties {
                if field.to_lowercase().ends_with("ref") {
                    found.insert(field.clone());
                }
                fields(schema, found);
            }
        }
        let mut found = BTreeSet::new();
        for crd in [sluice_crds::gateway::crd(), sluice_crds::application::crd()] {
            let crd = serde_json::to_value(crd).unwrap();
            let spec = "/spec/versions/0/schema/openAPIV3Schema/properties/spec";
            fields(crd.pointer(spec).unwrap(), &mut found);
        }
        assert!(found.len() > 5, "{found:?}");
        let unknown: Vec<_> = found
            .iter()
            .filter(|field| kind_of(field).is_none())
            .collect();
        assert_eq!(unknown, ["gatewayRef"]);
    }
}
