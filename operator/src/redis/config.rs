//! What the pods run: server configuration, users and scripts, as texts of files.
//!
//! Pure. Works for Redis from 7.0 and Valkey from 7.2. The ConfigMap's part (`files`) holds no secret; the Secret's
//! part (`secret_files`) differs from shard to shard. What is a pod's own (address, name) its entry script adds at
//! start.

mod acl;
mod scripts;

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::topology::Shape;

/// How long a server waits for another before it suspects it.
pub const NODE_TIMEOUT_MS: u32 = 5000;

/// Where the ConfigMap, the Secret of the shard, the certificates and the volume are mounted.
pub const CONFIG_DIR: &str = "/etc/sluice-redis/config";
pub const SECRET_DIR: &str = "/etc/sluice-redis/secret";
pub const TLS_DIR: &str = "/etc/sluice-redis/tls";
pub const DATA_DIR: &str = "/data";

/// The server of each pod listens here, and its bus 10,000 above.
pub const PORT: u16 = 6379;

/// The rest of the container's memory is for connections, buffers, copies made while the file is rewritten, and the
/// allocator.
const MEMORY_PERCENT: u64 = 75;
/// Writes of about a minute, in a part of the memory that does not matter.
const BACKLOG_PARTS: u64 = 16;
const BACKLOG_BYTES_MIN: u64 = 1024 * 1024;
const BACKLOG_BYTES_MAX: u64 = 256 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub shape: Shape,
    pub is_persistent: bool,
    /// The container's limit; `None`: Redis takes what it needs.
    pub memory_limit_bytes: Option<u64>,
    /// Certificates are in `Paths::tls` as `tls.crt`, `tls.key` and `ca.crt`.
    pub is_tls: bool,
    /// A primary stops taking writes when no replica keeps up. The user asks for it.
    pub needs_replica_to_write: bool,
    pub port: u16,
    /// What follows the pod's name in the name that it announces: `.gw-redis.namespace.svc`; empty: announces none.
    pub host_suffix: String,
    pub paths: Paths,
}

/// Where things are in the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    pub config: String,
    pub secret: String,
    pub tls: String,
    pub data: String,
}

impl Default for Paths {
    fn default() -> Self {
        let [config, secret, tls, data] =
            [CONFIG_DIR, SECRET_DIR, TLS_DIR, DATA_DIR].map(str::to_owned);
        Self {
            config,
            secret,
            tls,
            data,
        }
    }
}

pub use acl::{Passwords, secret_files};

/// The ConfigMap's files by name: `redis.conf`, and the scripts `entry.sh` (the container's command), `startup.sh`,
/// `liveness.sh`, `readiness.sh` (probes) and `pre-stop.sh`, each run as `sh <file>`. Pods need `POD_IP` and
/// `POD_NAME` in their environment.
#[must_use]
pub fn files(settings: &Settings) -> BTreeMap<&'static str, String> {
    let mut files = scripts::all(settings);
    files.insert("redis.conf", redis_conf(settings));
    files
}

#[must_use]
pub fn redis_conf(settings: &Settings) -> String {
    let mut conf = Conf(String::new());
    let paths = &settings.paths;
    network(&mut conf, settings);
    conf.line("dir", &paths.data);
    conf.line("aclfile", &format!("{}/users.acl", paths.secret));
    conf.line("include", &format!("{}/replication.conf", paths.secret));
    // No snapshots: the append-only file is the persistence, or there is none.
    conf.line("save", "\"\"");
    conf.line(
        "appendonly",
        if settings.is_persistent { "yes" } else { "no" },
    );
    conf.line("appendfsync", "everysec");
    // The cut-off end of a crash was never acknowledged as written to disk.
    conf.line("aof-load-truncated", "yes");
    if let Some(limit) = settings.memory_limit_bytes {
        conf.line("maxmemory", &(limit / 100 * MEMORY_PERCENT).to_string());
        let backlog = (limit / BACKLOG_PARTS).clamp(BACKLOG_BYTES_MIN, BACKLOG_BYTES_MAX);
        conf.line("repl-backlog-size", &backlog.to_string());
    }
    // A queue that forgets is none: full means an error to whoever writes.
    conf.line("maxmemory-policy", "noeviction");
    conf.line("lazyfree-lazy-user-del", "yes");
    conf.line("lazyfree-lazy-expire", "yes");
    conf.line("repl-diskless-sync", "yes");
    conf.line("repl-diskless-sync-delay", "0");
    // A replica keeps what it has until the new data is there whole.
    conf.line("repl-diskless-load", "disabled");
    conf.line("shutdown-timeout", "10");
    if let Shape::Cluster { replicas, .. } = settings.shape {
        cluster(&mut conf, settings, replicas);
    }
    conf.0
}

fn network(conf: &mut Conf, settings: &Settings) {
    let (plain, tls) = if settings.is_tls {
        (0, settings.port)
    } else {
        (settings.port, 0)
    };
    conf.line("bind", "* -::*");
    conf.line("protected-mode", "no");
    conf.line("port", &plain.to_string());
    if settings.is_tls {
        let dir = &settings.paths.tls;
        conf.line("tls-port", &tls.to_string());
        conf.line("tls-cert-file", &format!("{dir}/tls.crt"));
        conf.line("tls-key-file", &format!("{dir}/tls.key"));
        conf.line("tls-ca-cert-file", &format!("{dir}/ca.crt"));
        // Clients show who they are by password.
        conf.line("tls-auth-clients", "optional");
        conf.line("tls-replication", "yes");
    }
    conf.line("tcp-keepalive", "60");
    conf.line("timeout", "0");
    conf.line("daemonize", "no");
    conf.line("logfile", "\"\"");
}

fn cluster(conf: &mut Conf, settings: &Settings, replicas: u32) {
    conf.line("cluster-enabled", "yes");
    conf.line("cluster-config-file", "nodes.conf");
    conf.line("cluster-node-timeout", &NODE_TIMEOUT_MS.to_string());
    // One dead shard stops its own queues, not all.
    conf.line("cluster-require-full-coverage", "no");
    // A replica belongs to the StatefulSet of its shard.
    conf.line("cluster-allow-replica-migration", "no");
    // How old a replica may be that is elected. Data that is in memory only does not come back with its primary, so
    // even an old copy is better than none; but not 0, which would let one win that has not copied anything yet.
    let validity = if settings.is_persistent { "10" } else { "1000" };
    conf.line("cluster-replica-validity-factor", validity);
    if settings.is_tls {
        conf.line("tls-cluster", "yes");
    }
    if settings.needs_replica_to_write && replicas > 0 {
        conf.line("min-replicas-to-write", "1");
        conf.line("min-replicas-max-lag", "10");
    }
}

struct Conf(String);

impl Conf {
    fn line(&mut self, directive: &str, arguments: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{directive} {arguments}");
    }
}

#[cfg(test)]
mod tests;
