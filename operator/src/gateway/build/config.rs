//! ConfigMap and Secret: the resolved configuration, as `sluice run` reads it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use sluice_crds::config_file::{self, CONFIG_FILE};

use super::Validated;
use crate::digest;
use crate::kinds::Kind;
use crate::object::{DATA_PLANE, Object};

/// The spec that the configuration was made from, for operators that begin while there is a wrong one.
pub const ACCEPTED_SPEC: &str = "sluice.dev/accepted-spec";
/// Certificates by which data planes know the manager, beside the configuration: what replaces them is seen without a restart.
pub(super) const TRUSTED_FILE: &str = "manager-ca.crt";
/// All annotations of an object together may have 256 KiB. What is longer is not kept.
const SPEC_BYTES_MAX: usize = 192 * 1024;

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
    if !wanted.trusted.is_empty() {
        data.insert(TRUSTED_FILE.to_owned(), (*wanted.trusted).into());
    }
    let config_map = json!({"data": data});
    let secret = Object::new(Kind::Secret, owner, DATA_PLANE, &name, secret);
    let mut config_map = Object::new(Kind::ConfigMap, owner, DATA_PLANE, &name, config_map);
    let spec = serde_json::to_string(&wanted.spec).unwrap_or_default();
    if spec.len() <= SPEC_BYTES_MAX {
        config_map = config_map.annotate(ACCEPTED_SPEC, &spec);
    }
    (secret, config_map)
}

/// Tells one configuration, secrets included, from another.
pub(super) fn digest(wanted: &Validated) -> String {
    let (secret, config_map) = build(wanted);
    let whole = format!("{}{}", config_map.body["data"], secret.body["data"]);
    digest::short(whole.as_bytes())
}

pub(super) fn name(gateway: &str) -> String {
    format!("{gateway}-config")
}
