//! The Redis that the data planes share: the `redis` part of a Gateway.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::managed::ManagedRedis;
use super::{KeySource, OBJECT_NAME, ObjectRef, REDIS_URL_RULE, SecretKey};

/// Where the data planes keep what they share, so that they act as one. Exactly one of the two is needed.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.managed) != has(self.external)",
    "message": "set exactly one of managed and external"
}]))]
pub struct Redis {
    /// A Redis, or a Redis Cluster, that the operator runs. Kubernetes only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub managed: Option<ManagedRedis>,
    /// A Redis, or a Redis Cluster, that somebody else runs: version 7.0 or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external: Option<ExternalRedis>,
}

/// A Redis that somebody else runs. Exactly one of `url` and `urlSecretRef` is needed.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": REDIS_URL_RULE,
    "fieldPath": ".url",
    "message": "must be redis:// or rediss:// and hosts, each with or without a port; for a user or password use urlSecretRef or credentials"
}, {
    "rule": "has(self.url) != has(self.urlSecretRef)",
    "message": "set exactly one of url and urlSecretRef"
}, {
    "rule": "!has(self.tls) || !has(self.url) || self.url.startsWith('rediss://')",
    "message": "tls needs an address that begins with rediss://"
}]))]
pub struct ExternalRedis {
    /// Address, at most 2048 characters: `redis://host`, with port 6379 if it names none. `rediss://` is TLS. Several
    /// servers to start from, such as nodes of one cluster, stand after one another: `redis://a:6379,b:6379`. It is
    /// shown to everybody who may see the Gateway and holds no user and no password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub url: Option<String>,
    /// Key of a Secret that holds the address, which may have `user:password@` before its first host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_secret_ref: Option<SecretKey>,
    /// How `rediss://` servers are told to be the right ones; unset: by the authorities of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<RedisTls>,
    /// As whom to speak; unset: as the address says, or else without a password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials: Option<RedisCredentials>,
}

/// TLS towards Redis.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RedisTls {
    /// Certificates of the authorities that vouch for the servers, PEM; unset: those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<KeySource>,
    /// Secret with the keys `tls.crt` and `tls.key`, shown to servers that ask for a certificate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_ref: Option<ObjectRef>,
    /// Name that the certificates of all servers bear, lower case, at most 253 characters; unset: the host by which
    /// each is reached, which in a cluster may be an IP address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub server_name: Option<String>,
}

/// As whom to speak to Redis.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.username) || !has(self.usernameSecretRef)",
    "message": "set at most one of username and usernameSecretRef"
}]))]
pub struct RedisCredentials {
    /// Name of the user, at most 256 characters; unset, here and in `usernameSecretRef`: `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub username: Option<String>,
    /// Key of a Secret that holds the name of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username_secret_ref: Option<SecretKey>,
    /// Key of a Secret that holds the password.
    pub password_secret_ref: SecretKey,
}
