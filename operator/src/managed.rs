//! A Redis that the operator runs for a Gateway: its objects, its passwords, and the passes of the planner in `redis`.
//!
//! `build` is pure. [`Minder`] owns what is remembered of each Redis and has at most one pass over it under way, beside the
//! passes over Gateways, which a server that does not answer must not hold up.

pub mod build;
mod minder;
mod secret;

use sluice_crds::config::{self, RedisAddress};
use sluice_crds::gateway::{ManagedRedis, StorageMode, Topology};

use crate::object::Owner;
use crate::redis::config::{PORT, Passwords};
use crate::redis::{Shape, Wanted};

pub use minder::{Minder, Subject, Wake};
pub use secret::{generate, passwords_of, secret};

/// Of a Redis Cluster. More would have to move slots one day, fewer could not elect.
const SHARDS: u32 = 3;
/// Component label of its pods.
pub const REDIS: &str = "redis";
/// Names the shard of a pod.
pub const SHARD_LABEL: &str = "sluice.dev/shard";

/// Name of what there is one of.
pub fn name(owner: &Owner) -> String {
    format!("{}-redis", owner.name)
}

/// Name of what every shard has.
pub fn shard_name(owner: &Owner, shard: u32) -> String {
    format!("{}-redis-s{shard}", owner.name)
}

pub fn wanted(spec: &ManagedRedis) -> Wanted {
    let shape = match spec.topology {
        Topology::Standalone => Shape::Standalone,
        Topology::Cluster => Shape::Cluster {
            shards: SHARDS,
            replicas: u32::try_from(spec.replicas_per_shard.unwrap_or(1)).unwrap_or(1),
        },
    };
    Wanted {
        shape,
        is_persistent: spec.storage.mode == StorageMode::Persistent,
        may_lose_data: false,
    }
}

/// How data planes reach it. The same for any number of replicas, which come and go.
pub fn connection(owner: &Owner, spec: &ManagedRedis, passwords: &Passwords) -> config::Redis {
    let service = format!("{}.{}.svc", name(owner), owner.namespace);
    let first_pods = (0..wanted(spec).shape.shards())
        .map(|shard| format!("{}-0.{service}", shard_name(owner, shard)));
    let address = |host: String| RedisAddress { host, port: PORT };
    config::Redis {
        seeds: first_pods.map(address).collect(),
        tls: None,
        username: Some("dataplane".to_owned()),
        password: Some(config::Secret::new(
            passwords.data_plane.clone().into_bytes(),
        )),
    }
}
