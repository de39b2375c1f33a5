//! Everything of the cluster that the operator looks at, as far as the watches have shown it.
//!
//! [`World`] is written by `watches` only. Secrets and ConfigMaps of users are known by their version alone; what is in
//! them is read when a Gateway refers to them (`references`), so that not all secrets of a cluster are in this process.

mod references;
mod watches;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube::api::DynamicObject;

use crate::kinds::Kind;
use crate::object::GATEWAY_LABEL;
use crate::packed::Packed;
use crate::pods::PodView;
use crate::shelf::{Key, Shelf};

pub use references::{Reference, References, references_of};
pub use watches::{Change, Sink, Watches, start};

/// The objects of one Gateway, by kind and name.
pub type Live = BTreeMap<(Kind, String), Arc<DynamicObject>>;

#[derive(Debug)]
pub struct World {
    pub gateways: Shelf<Packed>,
    /// By the Gateways that they name.
    pub applications: Shelf<Packed>,
    pub pods: Shelf<PodView>,
    /// What the operator made, of every kind in [`Kind::ALL`].
    pub made: HashMap<Kind, Shelf<Packed>>,
    /// Versions of all Secrets.
    pub secrets: Shelf<String>,
    /// Versions of all ConfigMaps.
    pub config_maps: Shelf<String>,
    /// Labels of namespaces; empty where they may not be watched.
    pub namespaces: Shelf<BTreeMap<String, String>>,
}

impl Default for World {
    fn default() -> Self {
        Self {
            gateways: Shelf::default(),
            applications: Shelf::grouped(Packed::gateway),
            pods: Shelf::grouped(|pod: &PodView| {
                Some((pod.namespace.clone(), pod.gateway.clone()))
            }),
            made: Kind::ALL
                .into_iter()
                .map(|kind| (kind, Shelf::grouped(Packed::gateway)))
                .collect(),
            secrets: Shelf::default(),
            config_maps: Shelf::default(),
            namespaces: Shelf::default(),
        }
    }
}

impl World {
    /// What was made for a Gateway.
    pub fn live(&self, gateway: &Key) -> Live {
        let mut live = Live::new();
        for (kind, shelf) in &self.made {
            let packed = shelf.of_group(gateway);
            for object in packed.iter().filter_map(|packed| packed.unpack()) {
                let name = object.metadata.name.clone().unwrap_or_default();
                live.insert((*kind, name), Arc::new(object));
            }
        }
        live
    }

    /// The Applications that name a Gateway, in all namespaces.
    pub fn applications_of(&self, gateway: &Key) -> Vec<Arc<DynamicObject>> {
        let packed = self.applications.of_group(gateway);
        let objects = packed.iter().filter_map(|packed| packed.unpack());
        objects.map(Arc::new).collect()
    }

    /// Pods of one component of a Gateway.
    pub fn pods_of(&self, gateway: &Key, component: &str) -> Vec<Arc<PodView>> {
        let mut pods = self.pods.of_group(gateway);
        pods.retain(|pod| pod.component == component);
        pods
    }
}

/// The Gateway that an object of the operator belongs to.
pub fn owner_of(object: &DynamicObject) -> Option<Key> {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    Some((namespace, gateway_of(object)?.to_owned()))
}

/// The Gateway that an object of the operator belongs to, in its namespace.
pub fn gateway_of(object: &DynamicObject) -> Option<&str> {
    let labels = object.metadata.labels.as_ref()?;
    labels.get(GATEWAY_LABEL).map(String::as_str)
}

/// The Gateway that an Application names.
pub fn target_of(application: &DynamicObject) -> Option<Key> {
    let reference = application.data.pointer("/spec/gatewayRef")?;
    let namespace = reference["namespace"]
        .as_str()
        .or(application.metadata.namespace.as_deref())?;
    Some((namespace.to_owned(), reference["name"].as_str()?.to_owned()))
}
