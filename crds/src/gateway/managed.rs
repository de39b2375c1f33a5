//! A Redis that the operator runs: the `redis.managed` part.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::data_plane::{IMAGE, Resources};
use super::quantity::Quantity;
use super::{OBJECT_NAME, ObjectRef};

/// A Redis, or a Redis Cluster of three shards, that the operator runs beside the data planes. Kubernetes only.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.topology == oldSelf.topology",
    "message": "the topology cannot change: what is stored would stay behind"
}, {
    "rule": "has(self.tls) == has(oldSelf.tls)",
    "message": "tls cannot be added or removed: servers with it and servers without would not speak with each other"
}, {
    "rule": "self.topology == 'Cluster' || !has(self.replicasPerShard)",
    "message": "replicasPerShard needs topology Cluster"
}]))]
pub struct ManagedRedis {
    /// Cluster (the default): three shards. Standalone: one server. It cannot be changed.
    #[serde(default)]
    pub topology: Topology,
    /// Replicas that every shard has besides its primary: a number from 0 to 2, default 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 2))]
    pub replicas_per_shard: Option<i32>,
    /// Container image of Redis 7.0 or later, or Valkey; unset: the one the operator has when it first makes the pods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = IMAGE))]
    pub image: Option<String>,
    /// The volume of each server.
    #[serde(default)]
    pub storage: Storage,
    /// CPU and memory of each server; unset: 100m and 512Mi are requested, and memory is limited to 512Mi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// TLS between the servers and towards them; unset: none. It cannot be added or removed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ManagedTls>,
}

/// TLS of a Redis that the operator runs.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ManagedTls {
    /// Secret with the keys `tls.crt`, `tls.key` and `ca.crt`, as cert-manager makes them: a certificate for the name
    /// `<gateway>-redis.<namespace>.svc`, which all servers show, and the authorities that vouch for it. When it
    /// changes, servers are replaced one after the other; while authorities change, `ca.crt` holds the old and the new.
    pub certificate_ref: ObjectRef,
}

/// How the servers stand together.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum Topology {
    #[default]
    Cluster,
    Standalone,
}

/// The volume of each server.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!isQuantity(string(self.size)) || !isQuantity(string(oldSelf.size)) || quantity(string(self.size)).compareTo(quantity(string(oldSelf.size))) >= 0",
    "message": "a volume cannot shrink"
}, {
    "rule": "self.mode == oldSelf.mode && has(self.className) == has(oldSelf.className) && (!has(self.className) || self.className == oldSelf.className)",
    "message": "mode and className cannot change"
}]))]
pub struct Storage {
    /// Persistent (the default): a volume that outlives its pod. Ephemeral: what a pod stored goes with it.
    #[serde(default)]
    pub mode: StorageMode,
    /// Size of the volume, default 10Gi; it may only grow.
    #[serde(default = "size")]
    pub size: Quantity,
    /// StorageClass of the volume; unset: the default one of the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub class_name: Option<String>,
    /// Retain (the default) keeps the volumes when the gateway is deleted; Delete does not.
    #[serde(default)]
    pub when_deleted: WhenDeleted,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            mode: StorageMode::default(),
            size: size(),
            class_name: None,
            when_deleted: WhenDeleted::default(),
        }
    }
}

/// Whether what is stored outlives a pod.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum StorageMode {
    #[default]
    Persistent,
    Ephemeral,
}

/// What becomes of the volumes of a gateway that is deleted.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum WhenDeleted {
    #[default]
    Retain,
    Delete,
}

fn size() -> Quantity {
    Quantity("10Gi".to_owned())
}
