//! Real Redis servers for tests: one process (`RedisServer`) or a whole Redis Cluster (`RedisCluster`).
//!
//! Owns the processes and their data: they are killed and removed when dropped, stopped ones too. Every operation
//! takes `&self`, so that a test can break a server while its traffic runs in other tasks. Never skips: without a
//! `redis-server` in the path, starting fails.

mod cluster;
mod links;
mod protocol;
mod server;
mod tls;

pub use cluster::{REDIS_SLOTS, RedisCluster};
pub use links::Links;
pub(crate) use protocol::Connection;
pub use protocol::{CallError, Resp, ask};
pub use server::RedisServer;
pub use tls::Tls;

/// How a server is set up. By default: plain TCP, no password, nothing kept on disk.
#[derive(Debug, Clone)]
pub struct Options {
    /// Serves TLS only, on the cluster bus and to replicas as well.
    pub tls: Option<Tls>,
    /// The password of the user `default`.
    pub password: Option<String>,
    /// Users beside (or, by name, instead of) `default`.
    pub users: Vec<AclUser>,
    /// Writes an append-only file, flushed to disk before every answer.
    pub append_only: bool,
    pub node_timeout_ms: u32,
    /// Further lines of the configuration file: a directive and its arguments, as the file has them.
    pub extra: Vec<(String, String)>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tls: None,
            password: None,
            users: Vec::new(),
            append_only: false,
            node_timeout_ms: 2000,
            extra: Vec::new(),
        }
    }
}

/// A user as Redis' access control has it.
#[derive(Debug, Clone)]
pub struct AclUser {
    pub name: String,
    /// Any password is right without one.
    pub password: Option<String>,
    /// For example `~prefix:* &prefix:* +@all -@dangerous`, or `off`.
    pub rules: String,
}
