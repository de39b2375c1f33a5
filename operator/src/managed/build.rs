//! Objects of a managed Redis: one StatefulSet per shard, whose pods only the operator replaces.
//!
//! Pure. As with the data plane, the pod template is kept as it was first made for the same wishes.

mod pod;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value, json};
use sluice_crds::gateway::{ManagedRedis, Resources, StorageMode, WhenDeleted, quantity};

use super::{REDIS, SHARD_LABEL, name, shard_name, wanted};
use crate::digest;
use crate::kinds::Kind;
use crate::object::{DATA_PLANE, OPERATOR, OPERATOR_LABEL, Object, Owner};
use crate::redis::config::{self, PORT, Passwords, Settings};
use crate::world::Live;

/// The bus of a server listens this much above its port.
const BUS_PORT: u16 = PORT + 10_000;

/// What a Redis is made of.
#[derive(Debug, Clone)]
pub struct Plan<'a> {
    pub owner: &'a Owner,
    pub spec: &'a ManagedRedis,
    pub default_image: &'a str,
    pub passwords: &'a Passwords,
    /// Tells the certificate that the servers show from another one; `None`: no TLS, or it is not known.
    pub certificate: Option<&'a str>,
    /// Pods that each shard may have now, by the planner; empty: it has not said yet.
    pub pods: &'a [u32],
    /// What there is.
    pub live: &'a Live,
}

/// Everything that replaces pods when it changes; see the inputs of the data plane.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Inputs<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<&'a Resources>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls: Option<(&'a str, Option<&'a str>)>,
}

/// Name of the revision that holds the pod template.
pub fn revision_name(owner: &Owner, spec: &ManagedRedis, certificate: Option<&str>) -> String {
    let tls = spec.tls.as_ref();
    let inputs = Inputs {
        image: spec.image.as_deref(),
        resources: spec.resources.as_ref(),
        tls: tls.map(|tls| (tls.certificate_ref.name.as_str(), certificate)),
    };
    let inputs = serde_json::to_string(&inputs).expect("texts can be written as JSON");
    format!("{}-{}", name(owner), digest::short(inputs.as_bytes()))
}

/// In the order in which they are made.
pub fn build(plan: &Plan<'_>, pinned: Option<&Value>) -> Vec<Object> {
    let owner = plan.owner;
    let template = pinned.map_or_else(|| pod::template(plan), Clone::clone);
    let revision = json!({"revision": 1, "data": {"template": template}});
    let revision_name = revision_name(owner, plan.spec, plan.certificate);
    let mut objects = vec![
        super::secret(owner, plan.passwords),
        config_map(plan),
        Object::new(
            Kind::ControllerRevision,
            owner,
            REDIS,
            &revision_name,
            revision,
        ),
        service(owner),
        network_policy(owner),
    ];
    for shard in 0..wanted(plan.spec).shape.shards() {
        objects.push(shard_secret(plan, shard));
        objects.push(disruption_budget(owner, shard));
        objects.push(stateful_set(plan, shard, &template));
    }
    objects
}

fn settings(plan: &Plan<'_>) -> Settings {
    let wanted = wanted(plan.spec);
    let limit = pod::memory_limit(plan.spec.resources.as_ref());
    let bytes = quantity::milli(&limit).map(|milli| milli / 1000);
    Settings {
        shape: wanted.shape,
        is_persistent: wanted.is_persistent,
        memory_limit_bytes: bytes.and_then(|bytes| u64::try_from(bytes).ok()),
        is_tls: plan.spec.tls.is_some(),
        needs_replica_to_write: false,
        port: PORT,
        host_suffix: format!(".{}.{}.svc", name(plan.owner), plan.owner.namespace),
        paths: config::Paths::default(),
    }
}

fn config_map(plan: &Plan<'_>) -> Object {
    let files = config::files(&settings(plan));
    let data: Map<String, Value> = files
        .into_iter()
        .map(|(name, text)| (name.to_owned(), text.into()))
        .collect();
    let name = name(plan.owner);
    Object::new(
        Kind::ConfigMap,
        plan.owner,
        REDIS,
        &name,
        json!({"data": data}),
    )
}

fn shard_secret(plan: &Plan<'_>, shard: u32) -> Object {
    let files = config::secret_files(plan.passwords, shard);
    let data: Map<String, Value> = files
        .into_iter()
        .map(|(name, text)| (name.to_owned(), STANDARD.encode(text).into()))
        .collect();
    let name = shard_name(plan.owner, shard);
    let body = json!({"type": "Opaque", "data": data});
    Object::new(Kind::Secret, plan.owner, REDIS, &name, body)
}

/// Gives pods their names, also those that are not ready: they have to find each other first.
fn service(owner: &Owner) -> Object {
    let body = json!({
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": true,
            "selector": owner.selector(REDIS),
            "ports": [
                {"name": "redis", "port": PORT, "targetPort": PORT, "protocol": "TCP"},
                {"name": "bus", "port": BUS_PORT, "targetPort": BUS_PORT, "protocol": "TCP"},
            ],
        },
    });
    Object::new(Kind::Service, owner, REDIS, &name(owner), body)
}

/// Only the data planes, the servers themselves and operators reach it.
fn network_policy(owner: &Owner) -> Object {
    let pods = |component: &str| json!({"podSelector": {"matchLabels": owner.selector(component)}});
    let operators = json!({
        "namespaceSelector": {},
        "podSelector": {"matchLabels": {OPERATOR_LABEL: OPERATOR}},
    });
    let body = json!({
        "spec": {
            "podSelector": {"matchLabels": owner.selector(REDIS)},
            "policyTypes": ["Ingress"],
            "ingress": [
                {
                    "ports": [{"port": PORT, "protocol": "TCP"}],
                    "from": [pods(DATA_PLANE), pods(REDIS), operators],
                },
                {"ports": [{"port": BUS_PORT, "protocol": "TCP"}], "from": [pods(REDIS)]},
            ],
        },
    });
    Object::new(Kind::NetworkPolicy, owner, REDIS, &name(owner), body)
}

fn shard_selector(owner: &Owner, shard: u32) -> Map<String, Value> {
    let mut selector = owner.selector(REDIS);
    selector.insert(SHARD_LABEL.to_owned(), shard.to_string().into());
    selector
}

fn disruption_budget(owner: &Owner, shard: u32) -> Object {
    let body = json!({
        "spec": {
            "maxUnavailable": 1,
            "selector": {"matchLabels": shard_selector(owner, shard)},
        },
    });
    let name = shard_name(owner, shard);
    Object::new(Kind::PodDisruptionBudget, owner, REDIS, &name, body)
}

fn stateful_set(plan: &Plan<'_>, shard: u32, template: &Value) -> Object {
    let owner = plan.owner;
    let name = shard_name(owner, shard);
    let live = plan.live.get(&(Kind::StatefulSet, name.clone()));
    let live = live.map(|live| &live.data);
    let whole = wanted(plan.spec).shape.pods();
    let planned = usize::try_from(shard)
        .ok()
        .and_then(|shard| plan.pods.get(shard));
    // Until the planner has looked, nothing is taken away.
    let replicas = planned.copied().unwrap_or_else(|| {
        let there = live.and_then(|live| live.pointer("/spec/replicas")?.as_u64());
        there.map_or(whole, |there| {
            whole.max(u32::try_from(there).unwrap_or(whole))
        })
    });
    let mut spec = json!({
        "serviceName": super::name(owner),
        "replicas": replicas,
        "selector": {"matchLabels": shard_selector(owner, shard)},
        "podManagementPolicy": "Parallel",
        // The operator replaces pods, one after the other, replicas first.
        "updateStrategy": {"type": "OnDelete"},
        "revisionHistoryLimit": 2,
        "template": pod::of_shard(template, shard),
    });
    if plan.spec.storage.mode == StorageMode::Persistent {
        // Kubernetes takes no other claims later on; what is there stays.
        let there = live.and_then(|live| live.pointer("/spec/volumeClaimTemplates"));
        spec["volumeClaimTemplates"] = there.map_or_else(|| claims(plan), claims_as_they_are);
        let when_deleted = match plan.spec.storage.when_deleted {
            WhenDeleted::Retain => "Retain",
            WhenDeleted::Delete => "Delete",
        };
        spec["persistentVolumeClaimRetentionPolicy"] =
            json!({"whenDeleted": when_deleted, "whenScaled": "Retain"});
    }
    Object::new(
        Kind::StatefulSet,
        owner,
        REDIS,
        &name,
        json!({"spec": spec}),
    )
    .label(SHARD_LABEL, &shard.to_string())
}

fn claims(plan: &Plan<'_>) -> Value {
    let storage = &plan.spec.storage;
    let mut spec = json!({
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": storage.size}},
    });
    if let Some(class) = &storage.class_name {
        spec["storageClassName"] = class.as_str().into();
    }
    json!([{"metadata": {"name": "data"}, "spec": spec}])
}

/// Without what the API server adds.
fn claims_as_they_are(there: &Value) -> Value {
    let there = there.as_array().into_iter().flatten();
    let claims = there.map(|claim| {
        let mut spec = claim["spec"].clone();
        if let Some(spec) = spec.as_object_mut() {
            spec.remove("volumeMode");
        }
        json!({"metadata": {"name": claim["metadata"]["name"]}, "spec": spec})
    });
    Value::Array(claims.collect())
}

#[cfg(test)]
mod tests;
