//! The objects that one resolution reads, wherever they came from: manifests, mounted files or the API server.
//!
//! Gateways and Applications are kept as written, so that `resolve` can name every field that is wrong. Nothing here
//! judges.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};

use serde_json::Value;

use crate::application::Application;
use crate::config::{Redis, Secret};
use crate::gateway::Gateway;

/// Keys and values of a Secret or ConfigMap.
pub type Data = BTreeMap<String, Secret>;

/// Everything a resolution may look at.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    pub gateways: Vec<GatewayObject>,
    pub applications: Vec<ApplicationObject>,
    /// By namespace and name.
    pub secrets: BTreeMap<(String, String), Data>,
    /// By namespace and name.
    pub config_maps: BTreeMap<(String, String), Data>,
    /// Secrets and ConfigMaps as Kubernetes mounts them, by name; they serve references that no object satisfies.
    pub mounted: BTreeMap<String, Data>,
    /// The labels of namespaces, by name, as far as they are known.
    pub namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// How to reach the Redis that an operator runs for a Gateway, by the Gateway's namespace and name.
    pub managed_redis: BTreeMap<(String, String), Redis>,
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

/// An Application as written.
#[derive(Clone, PartialEq)]
pub struct ApplicationObject {
    pub namespace: String,
    pub name: String,
    /// When the API server took it; unknown for most manifests.
    pub created: Option<Time>,
    pub spec: Value,
}

impl fmt::Debug for ApplicationObject {
    /// Without the spec, which holds keys.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApplicationObject")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .field("created", &self.created)
            .finish_non_exhaustive()
    }
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
        let (namespace, name) = identity(&gateway.metadata);
        self.gateways.push(GatewayObject {
            namespace,
            name,
            spec: serde_json::to_value(&gateway.spec).unwrap_or_default(),
        });
    }

    /// Adds an Application that came typed, from the API server.
    pub fn add_application(&mut self, application: &Application) {
        let (namespace, name) = identity(&application.metadata);
        self.applications.push(ApplicationObject {
            namespace,
            name,
            created: application.metadata.creation_timestamp.clone(),
            spec: serde_json::to_value(&application.spec).unwrap_or_default(),
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

/// Namespace and name.
fn identity(metadata: &ObjectMeta) -> (String, String) {
    let namespace = metadata.namespace.as_deref().unwrap_or("default");
    (
        namespace.to_owned(),
        metadata.name.clone().unwrap_or_default(),
    )
}
