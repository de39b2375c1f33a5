//! The Redis that the data planes of a gateway share.

use serde::{Deserialize, Serialize};

use super::{Secret, TlsMaterial};

/// One Redis, or one Redis Cluster: the servers say which.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Redis {
    /// Where to start; at least one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<RedisAddress>,
    /// `None`: plain TCP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RedisTls>,
    /// `None`: the user `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisAddress {
    /// A name, or an IP address without brackets.
    pub host: String,
    pub port: u16,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RedisTls {
    /// Certificates of the authorities, PEM; `None`: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<Secret>,
    /// Shown to servers that ask for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<TlsMaterial>,
    /// The name that every server's certificate must bear; `None`: the host it is reached by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
}
