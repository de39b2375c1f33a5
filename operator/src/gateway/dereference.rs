//! First step: gathers everything that the other steps look at.
//!
//! Reads the world and, of what Gateway and Applications refer to, the contents. Judges nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use kube::Client;
use kube::api::DynamicObject;
use serde_json::Value;
use sluice_crds::objects::{ApplicationObject, GatewayObject, Objects};

use crate::kinds::Kind;
use crate::object::DATA_PLANE;
use crate::pods::PodView;
use crate::shelf::Key;
use crate::world::{Live, Reference, References, World, references_of};

/// What there is of one Gateway at one moment.
#[derive(Debug)]
pub struct Snapshot {
    pub key: Key,
    pub gateway: Arc<DynamicObject>,
    /// In the order of the outcomes of `resolve`.
    pub applications: Vec<Arc<DynamicObject>>,
    /// What `resolve` judges: this Gateway, its Applications and what they refer to.
    pub objects: Objects,
    pub live: Live,
    pub pods: Vec<Arc<PodView>>,
}

impl Snapshot {
    /// How many pods Kubernetes was asked for; `None`: nothing yet.
    pub fn replicas(&self) -> Option<i32> {
        let key = (Kind::Deployment, self.key.1.clone());
        let replicas = self.live.get(&key)?.data.pointer("/spec/replicas")?;
        i32::try_from(replicas.as_i64()?).ok()
    }
}

/// The Applications that name a Gateway, in all namespaces.
pub fn applications_of(world: &World, gateway: &Key) -> Vec<Arc<DynamicObject>> {
    world.applications_of(gateway)
}

/// Everything that a Gateway and its Applications refer to.
pub fn references(
    gateway: &DynamicObject,
    applications: &[Arc<DynamicObject>],
) -> BTreeSet<Reference> {
    let of = |object: &DynamicObject| {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let spec = object.data.get("spec").unwrap_or(&Value::Null);
        references_of(namespace, spec)
    };
    let mut all = of(gateway);
    for application in applications {
        all.extend(of(application));
    }
    all
}

/// Reads what `wanted` names. `managed_redis` is how to reach the Redis that the operator runs for this Gateway.
pub async fn dereference(
    client: &Client,
    world: &World,
    references: &References,
    gateway: Arc<DynamicObject>,
    applications: Vec<Arc<DynamicObject>>,
    wanted: &BTreeSet<Reference>,
) -> Result<Snapshot, kube::Error> {
    let key = identity(&gateway);
    let mut objects = Objects {
        gateways: vec![GatewayObject {
            namespace: key.0.clone(),
            name: key.1.clone(),
            spec: spec(&gateway),
        }],
        ..Objects::default()
    };
    for application in &applications {
        let (namespace, name) = identity(application);
        if let Some(labels) = world.namespaces.get("", &namespace) {
            let labels = (*labels).clone();
            objects.namespaces.insert(namespace.clone(), labels);
        }
        objects.applications.push(ApplicationObject {
            namespace,
            name,
            created: application.metadata.creation_timestamp.clone(),
            spec: spec(application),
        });
    }
    references
        .fetch(client, world, wanted, &mut objects)
        .await?;
    Ok(Snapshot {
        live: world.live(&key),
        pods: world.pods_of(&key, DATA_PLANE),
        key,
        gateway,
        applications,
        objects,
    })
}

pub fn identity(object: &DynamicObject) -> Key {
    let metadata = &object.metadata;
    (
        metadata.namespace.clone().unwrap_or_default(),
        metadata.name.clone().unwrap_or_default(),
    )
}

fn spec(object: &DynamicObject) -> Value {
    object.data.get("spec").cloned().unwrap_or_default()
}
