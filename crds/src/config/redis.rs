//! Where state that data planes share lives, as resolved.

use super::{Secret, TlsMaterial};

/// A Redis or Redis Cluster that somebody else runs.
#[derive(Debug, Clone, PartialEq)]
pub struct Redis {
    /// Servers to begin with; of a cluster, any of them leads to all.
    pub seeds: Vec<RedisAddress>,
    /// `Some`: connections are encrypted.
    pub tls: Option<RedisTls>,
    pub username: Option<String>,
    pub password: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RedisAddress {
    pub host: String,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RedisTls {
    /// PEM; `None`: the authorities that the system trusts.
    pub ca: Option<Secret>,
    pub client: Option<TlsMaterial>,
    /// What certificates must name, when that is not the address.
    pub server_name: Option<String>,
}
