//! The objects that one resolution reads, wherever they came from: manifests, mounted files or the API server.
//!
//! Gateways are kept as written, so that `resolve` can name every field that is wrong. Nothing here judges.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::config::Secret;
use crate::gateway::Gateway;

/// Keys and values of a Secret or ConfigMap.
pub type Data = BTreeMap<String, Secret>;

/// Everything a resolution may look at.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    pub gateways: Vec<GatewayObject>,
    /// By namespace and name.
    pub secrets: BTreeMap<(String, String), Data>,
    /// By namespace and name.
    pub config_maps: BTreeMap<(String, String), Data>,
    /// Secrets and ConfigMaps as Kubernetes mounts them, by name; they serve references that no object satisfies.
    pub mounted: BTreeMap<String, Data>,
    /// Reading them found problems: an object may only seem to be missing, and nothing may be served from the rest.
    pub incomplete: bool,
}

/// A Gateway as written.
#[derive(Debug, Clone, PartialEq)]
pub struct GatewayObject {
    pub namespace: String,
    pub name: String,
    pub spec: Value,
}

/// Kinds of objects that references may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    Secret,
    ConfigMap,
}

impl Holder {
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::Secret => "Secret",
            Self::ConfigMap => "ConfigMap",
        }
    }
}

impl Objects {
    /// Adds a Gateway that came typed, from the API server.
    pub fn add_gateway(&mut self, gateway: &Gateway) {
        let metadata = &gateway.metadata;
        self.gateways.push(GatewayObject {
            namespace: metadata
                .namespace
                .clone()
                .unwrap_or_else(|| "default".to_owned()),
            name: metadata.name.clone().unwrap_or_default(),
            spec: serde_json::to_value(&gateway.spec).unwrap_or_default(),
        });
    }

    pub(crate) fn data(&self, holder: Holder, namespace: &str, name: &str) -> Option<&Data> {
        let objects = match holder {
            Holder::Secret => &self.secrets,
            Holder::ConfigMap => &self.config_maps,
        };
        objects
            .get(&(namespace.to_owned(), name.to_owned()))
            .or_else(|| self.mounted.get(name))
    }
}
