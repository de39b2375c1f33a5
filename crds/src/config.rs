//! The resolved configuration of one gateway: what `resolve` makes and all other code reads.
//!
//! Every value here is valid: bounds are checked, references are followed, defaults are filled in. Optional
//! limits are `None` when the user set none.
//!
//! `config_file` carries it from the operator to a pod, between versions that differ: what has no `default` here was
//! there from the beginning, and every field that is added needs one.

mod ingest;
mod jwks;
mod redis;
pub(crate) mod secret;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use self::ingest::{
    Accept, Application, Delivery, Dialect, Durability, Generic, Health, Ingest, Ordering,
    RequestPart, RetentionBudget, UnknownKeys, Upstream,
};
pub use self::jwks::JwksSource;
pub use self::redis::{Redis, RedisAddress, RedisTls};
pub use self::secret::Secret;

/// Everything one data plane needs to serve one gateway.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayConfig {
    pub name: String,
    pub namespace: String,
    pub listeners: Vec<Listener>,
    pub relay: Relay,
    /// `None`: the gateway takes no HTTP requests for delivery.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingest: Option<Arc<Ingest>>,
    /// `None`: the process keeps everything itself and is the only one of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<Arc<Redis>>,
    /// How many data planes there may be at most, this one included: what one that never heard of a manager may use of a limit
    /// that all of them share.
    #[serde(default = "one")]
    pub data_planes_max: u32,
    pub drain: Drain,
}

fn one() -> u32 {
    1
}

/// A port on which clients connect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    pub name: String,
    pub port: u16,
    /// `Some` for protocol HTTPS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMaterial>,
}

/// A certificate chain and its private key, both PEM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TlsMaterial {
    pub certificate: Secret,
    pub private_key: Secret,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Relay {
    pub authentication: Authentication,
    /// Options of channels whose name has no namespace part.
    pub default_namespace: Arc<Namespace>,
    /// Options of channels named `<namespace>:<rest>`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespaces: BTreeMap<String, Arc<Namespace>>,
    /// Subscribe every connection with a user to its channel `#<user>`.
    pub personal_channel: bool,
    pub limits: Limits,
    pub heartbeat: Heartbeat,
    /// Key of the HTTP server API; without one the API is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_api_key: Option<Secret>,
}

impl Relay {
    /// The relay of a gateway that has none: nobody may connect, and there is no server API.
    pub fn closed() -> Self {
        Self {
            authentication: Authentication {
                jwt: None,
                anonymous: false,
                expiry_grace: Duration::ZERO,
            },
            default_namespace: Arc::new(Namespace::closed()),
            namespaces: BTreeMap::new(),
            personal_channel: false,
            limits: Limits::closed(),
            heartbeat: Heartbeat {
                interval: Duration::from_secs(25),
                timeout: Duration::from_secs(8),
            },
            server_api_key: None,
        }
    }

    /// Nobody may connect, by whatever way: there is nothing to serve.
    pub fn is_closed(&self) -> bool {
        self.authentication.admits_nobody() && self.server_api_key.is_none()
    }

    /// The options of a channel by its user-visible name, or `None` for an unknown namespace.
    ///
    /// The namespace part ends at the first `:`; a leading `$` (token required) is not part of it.
    pub fn namespace_of(&self, channel: &str) -> Option<&Arc<Namespace>> {
        let bare = channel.strip_prefix('$').unwrap_or(channel);
        match bare.split_once(':') {
            None => Some(&self.default_namespace),
            Some((namespace, _)) => self.namespaces.get(namespace),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Authentication {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// Clients without a token may connect; they have an empty user id.
    pub anonymous: bool,
    /// How long a client may stay after its token expired and before it is closed.
    #[serde(with = "text::time")]
    pub expiry_grace: Duration,
}

impl Authentication {
    pub fn admits_nobody(&self) -> bool {
        self.jwt.is_none() && !self.anonymous
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Jwt {
    /// Shared secrets for HS256/384/512: any of them may have signed (rotation).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hmac_secrets: Vec<Secret>,
    /// PEM public keys for RS, PS, ES and EdDSA: any of them may have signed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub public_keys: Vec<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks: Option<Jwks>,
    /// Required value of `aud` / `iss` when set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audience: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Claim that names the account. When set, tokens without it are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account_claim: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Jwks {
    pub source: JwksSource,
    #[serde(with = "text::time")]
    pub refresh: Duration,
}

/// Who may use an operation on a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Allowed {
    Nobody,
    /// Clients subscribed to the channel. For `subscribe` itself: clients with a subscription token for it.
    Subscriber,
    /// Clients that connected with a token (a non-empty user).
    Authenticated,
    Anyone,
}

/// A stream property that clients may get when they ask for it, or always get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Feature {
    Disabled,
    OnRequest,
    Always,
}

/// Channel options.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Namespace {
    pub presence: bool,
    pub join_leave: Feature,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
    /// Needs history.
    pub recovery: Feature,
    /// Needs history.
    pub positioning: Feature,
    /// Clients may negotiate fossil deltas.
    pub delta: bool,
    pub subscribe: Allowed,
    pub publish: Allowed,
    pub ask_presence: Allowed,
    pub ask_history: Allowed,
}

impl Namespace {
    fn closed() -> Self {
        Self {
            presence: false,
            join_leave: Feature::Disabled,
            history: None,
            recovery: Feature::Disabled,
            positioning: Feature::Disabled,
            delta: false,
            subscribe: Allowed::Nobody,
            publish: Allowed::Nobody,
            ask_presence: Allowed::Nobody,
            ask_history: Allowed::Nobody,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct History {
    pub size: u32,
    #[serde(with = "text::time")]
    pub ttl: Duration,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Limits {
    /// Largest inbound WebSocket message.
    pub message_bytes: usize,
    /// Bytes waiting to be sent to one client before it is closed as slow (3008).
    pub queue_bytes_per_client: usize,
    pub channels_per_client: usize,
    pub channel_name_bytes: usize,
    /// Per data plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_per_account: Option<usize>,
    /// New connections per second, per data plane.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_per_second: Option<u32>,
    /// Publish, send and rpc commands of one client; above it they get error 111.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_second_per_client: Option<u32>,
    /// All commands of one client; above it the client is closed with 3013.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commands_per_second_per_client: Option<u32>,
    /// Publish, send and rpc commands of all clients of one account; above it they get error 111.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_second_per_account: Option<u32>,
}

impl Limits {
    /// Of a relay that serves nobody: the least that is valid.
    fn closed() -> Self {
        Self {
            message_bytes: 1_024,
            queue_bytes_per_client: 1_024,
            channels_per_client: 1,
            channel_name_bytes: 1,
            connections: None,
            connections_per_account: None,
            connections_per_second: None,
            messages_per_second_per_client: None,
            commands_per_second_per_client: None,
            messages_per_second_per_account: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Heartbeat {
    #[serde(with = "text::time")]
    pub interval: Duration,
    /// A client that owes a pong for longer is closed with 3012.
    #[serde(with = "text::time")]
    pub timeout: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Connections are closed evenly over this time.
    #[serde(with = "text::time")]
    pub timeout: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_secret_is_printed() {
        let url = |text: &str| format!("{:?}", JwksSource::Url(text.to_owned()));
        assert_eq!(
            url("https://a:p@ss@keys.example/j@wks?x=1"),
            "Url(https://keys.example/j@wks?x=1)"
        );
        assert_eq!(url("file:///etc/a@b"), "Url(file:///etc/a@b)");
        assert_eq!(
            format!("{:?}", Secret::new(&b"pass"[..])),
            "Secret(4 bytes)"
        );
    }

    #[test]
    fn a_relay_that_anything_may_reach_is_not_closed() {
        assert!(Relay::closed().is_closed());
        let mut anonymous = Relay::closed();
        anonymous.authentication.anonymous = true;
        let mut server_api = Relay::closed();
        server_api.server_api_key = Some(Secret::new(*b"key"));
        let mut tokens = Relay::closed();
        tokens.authentication.jwt = Some(Jwt {
            hmac_secrets: vec![Secret::new(*b"key")],
            public_keys: Vec::new(),
            jwks: None,
            audience: None,
            issuer: None,
            account_claim: None,
        });
        for open in [anonymous, server_api, tokens] {
            assert!(!open.is_closed(), "{open:?}");
        }
    }
}
