//! A Redis that the operator runs for a Gateway: its objects, its passwords, and the passes of the planner in `redis`.
//!
//! `build` is pure. [`Minder`] owns what is remembered of each Redis and has at most one pass over it under way, beside the
//! passes over Gateways, which a server that does not answer must not hold up.

pub mod build;
mod minder;
mod secret;

use std::collections::BTreeMap;

use sluice_crds::config::{self, RedisAddress};
use sluice_crds::gateway::{ManagedRedis, StorageMode, Topology};
use sluice_crds::objects::Data;

use crate::digest;
use crate::kinds::Kind;
use crate::object::Owner;
use crate::redis::config::{PORT, Passwords};
use crate::redis::{Shape, Wanted};
use crate::world::Live;

pub use minder::{Minder, Subject, Tls, Wake};
pub use secret::{generate, passwords_of, secret};

/// By namespace and name.
type Secrets = BTreeMap<(String, String), Data>;

/// Of a Redis Cluster. More would have to move slots one day, fewer could not elect.
const SHARDS: u32 = 3;
/// Component label of its pods.
pub const REDIS: &str = "redis";
/// Names the shard of a pod.
pub const SHARD_LABEL: &str = "sluice.dev/shard";

/// Of pods: which certificate they were made for.
pub const CERTIFICATE_ANNOTATION: &str = "sluice.dev/certificate";
/// Keys of the Secret that has it.
pub const CERTIFICATE_FILES: [&str; 3] = ["tls.crt", "tls.key", "ca.crt"];

/// Name of what there is one of.
pub fn name(owner: &Owner) -> String {
    format!("{}-redis", owner.name)
}

/// Name of what every shard has.
pub fn shard_name(owner: &Owner, shard: u32) -> String {
    format!("{}-redis-s{shard}", owner.name)
}

/// Tells the certificate of the servers from another one: as its Secret has it or, where that is not there, as they were made for.
pub fn certificate(
    spec: &ManagedRedis,
    owner: &Owner,
    secrets: &Secrets,
    live: &Live,
) -> Option<String> {
    let reference = &spec.tls.as_ref()?.certificate_ref;
    let secret = secrets.get(&(owner.namespace.clone(), reference.name.clone()));
    let files = secret.and_then(|data| {
        let files = CERTIFICATE_FILES.map(|file| data.get(file).map(config::Secret::expose));
        files.into_iter().collect::<Option<Vec<_>>>()
    });
    if let Some(files) = files {
        return Some(digest::short(&files.concat()));
    }
    let set = live.get(&(Kind::StatefulSet, shard_name(owner, 0)))?;
    let annotations = set.data.pointer("/spec/template/metadata/annotations")?;
    annotations[CERTIFICATE_ANNOTATION]
        .as_str()
        .map(str::to_owned)
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
        // Its authorities are in a Secret of the user's.
        tls: spec.tls.as_ref().map(|_| config::RedisTls {
            ca: None,
            client: None,
            server_name: Some(service.clone()),
        }),
        username: Some("dataplane".to_owned()),
        password: Some(config::Secret::new(
            passwords.data_plane.clone().into_bytes(),
        )),
    }
}
