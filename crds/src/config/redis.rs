//! The Redis that the data planes of a gateway share.

use super::{Secret, TlsMaterial};

/// One Redis, or one Redis Cluster: the servers say which.
#[derive(Debug, Clone, PartialEq)]
pub struct Redis {
    /// Where to start; at least one.
    pub seeds: Vec<RedisAddress>,
    /// `None`: plain TCP.
    pub tls: Option<RedisTls>,
    /// `None`: the user `default`.
    pub username: Option<String>,
    pub password: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RedisAddress {
    /// A name, or an IP address without brackets.
    pub host: String,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq)]
pub struct RedisTls {
    /// Certificates of the authorities, PEM; `None`: those of the system.
    pub ca: Option<Secret>,
    /// Shown to servers that ask for one.
    pub client: Option<TlsMaterial>,
    /// The name that every server's certificate must bear; `None`: the host it is reached by.
    pub server_name: Option<String>,
}
