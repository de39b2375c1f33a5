//! ConfigMap and Secret: the resolved configuration, as `sluice run` reads it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sluice_crds::config_file::{self, CONFIG_FILE};

use super::Validated;
use crate::kinds::Kind;
use crate::object::{DATA_PLANE, Object};

/// The Secret, which has to be there first, and the ConfigMap.
pub(super) fn build(wanted: &Validated) -> (Object, Object) {
    let encoded = config_file::encode(&wanted.config);
    let secrets: Map<String, Value> = encoded
        .secrets
        .iter()
        .map(|(name, secret)| (name.clone(), STANDARD.encode(secret.expose()).into()))
        .collect();
    let owner = &wanted.owner;
    let name = name(&owner.name);
    let secret = json!({"type": "Opaque", "data": secrets});
    let mut data = Map::new();
    data.insert(CONFIG_FILE.to_owned(), encoded.document.into());
    let config_map = json!({"data": data});
    (
        Object::new(Kind::Secret, owner, DATA_PLANE, &name, secret),
        Object::new(Kind::ConfigMap, owner, DATA_PLANE, &name, config_map),
    )
}

pub(super) fn name(gateway: &str) -> String {
    format!("{gateway}-config")
}
