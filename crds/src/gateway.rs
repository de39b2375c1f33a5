//! The `Gateway` custom resource: what users write.
//!
//! These types are the source of the CRD in `crds/yaml/gateway.yaml`. Bounds, patterns and defaults stand here
//! once: the API server enforces them from the generated schema, and `resolve` enforces the same schema where
//! there is no API server. Rules over several fields are CEL here and code in `resolve`.
//!
//! A field exists only when code honours it. Nothing here reads files or follows references.

#![allow(
    clippy::duplicated_attributes,
    reason = "columns of one table have parts in common"
)]

mod authentication;
mod channel;
mod data_plane;
mod delivery;
mod ingest;
mod limits;
mod managed;
pub mod quantity;
mod redis;
mod scaling;
mod service;
mod status;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, ValidationRule,
};
use kube::{CustomResource, CustomResourceExt};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use authentication::{Anonymous, Authentication, Jwks, Jwt, KeySource, SecretKey};
pub use channel::{
    Access, Allow, ChannelOptions, Delta, Feature, History, NamedOptions, SubscribeAccess, Switch,
};
pub(crate) use data_plane::IMAGE;
pub use data_plane::{Amounts, DataPlane, Drain, PodTemplate, Rebalance, RebalanceMode, Resources};
pub use delivery::{
    Backoff, BackoffOverride, Concurrency, Delivery, DeliveryOverride, Health, Ordering, Upstream,
};
pub use ingest::{
    Accept, Dialect, Durability, Generic, Ingest, RequestPart, Retention, Throttle, UnknownKeys,
};
pub use limits::{Heartbeat, Limits};
pub use managed::{ManagedRedis, ManagedTls, Storage, StorageMode, Topology, WhenDeleted};
pub(crate) use quantity::QUANTITY;
pub use redis::{ExternalRedis, Redis, RedisCredentials, RedisTls};
pub use scaling::{Scaling, ScalingMode};
pub use service::{
    AllowedApplications, AllowedNamespaces, From, Operation, Reconciliation, ScalingOperation,
    Service, ServiceTopology, ServiceType, Steering,
};
pub use status::{ApplicationStatus, GatewayStatus, RedisStatus, ShardStatus};

/// GEP-2257 durations.
pub(crate) const DURATION: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";
/// Names of Kubernetes objects.
pub(crate) const OBJECT_NAME: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";
/// Names of list entries.
pub(crate) const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";
/// Keys of Secrets and ConfigMaps.
pub(crate) const DATA_KEY: &str = "^[-._a-zA-Z0-9]+$";
/// Channel namespaces.
pub(crate) const CHANNEL_NAMESPACE: &str = "^[-a-zA-Z0-9_]{2,}$";
/// Names of headers.
pub(crate) const HEADER: &str = "^[-!#$%&'*+.^_`|~0-9A-Za-z]+$";
/// Names of request parameters.
pub(crate) const PARAMETER: &str = r"^[-A-Za-z0-9_.~:$@!*\[\]]+$";
/// Paths that requests are compared with: nothing that may be written in two ways.
pub(crate) const URL_PATH: &str = "^/[-A-Za-z0-9._~!$&'()*+,;=:@/]*$";
/// Paths with or without a query.
pub(crate) const PROBE_PATH: &str = "^/[-A-Za-z0-9._~!$&'()*+,;=:@%/?]*$";
/// Addresses of upstreams. A rule of the object that holds one: refusals show the text that does not match a pattern or a
/// rule of its own, and this one may hold a password.
pub(crate) const UPSTREAM_URL_RULE: &str = r#"self.url.matches(r"^https?://([A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9.])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/([-A-Za-z0-9._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*)?$")"#;

/// Addresses of Redis: a rule for the same reason.
pub(crate) const REDIS_URL_RULE: &str = r#"!has(self.url) || self.url.matches(r"^rediss?://([A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9.])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(,([A-Za-z0-9]([-A-Za-z0-9._]*[A-Za-z0-9.])?|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?)*/?$")"#;

/// Services and pods are named after a Gateway, with a few letters more, and some of them may have no more than 63.
const NAME_RULE: &str = "self.metadata.name.matches('^[a-z][-a-z0-9]{0,39}$')";
const NAME_MESSAGE: &str =
    "metadata.name must be at most 40 lower-case letters, digits and -, a letter first";

/// A fleet of data planes that serve clients under one configuration.
#[derive(CustomResource, Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[kube(
    group = "sluice.dev",
    version = "v1alpha1",
    kind = "Gateway",
    plural = "gateways",
    shortname = "slgw",
    category = "sluice",
    namespaced,
    derive = "PartialEq",
    status = "GatewayStatus",
    scale(
        spec_replicas_path = ".spec.dataPlane.scaling.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(name = "Replicas", type_ = "string", json_path = ".status.ready"),
    printcolumn(
        name = "Connections",
        type_ = "integer",
        json_path = ".status.connections"
    ),
    printcolumn(name = "Delay", type_ = "string", json_path = ".status.delay"),
    printcolumn(
        name = "Redis",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="RedisReady")].reason"#
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Applications",
        type_ = "integer",
        json_path = ".status.attachedApplications",
        priority = 1
    ),
    printcolumn(
        name = "Image",
        type_ = "string",
        json_path = ".status.image",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    ),
    doc = "A fleet of data planes that serve clients under one configuration."
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.relay) || has(self.ingest)",
    "message": "nothing would be served: set relay, ingest or both"
}, {
    "rule": "!has(self.relay) || !has(self.ingest) || !has(self.ingest.accept.pathPrefix) || !(self.ingest.accept.pathPrefix == '/api' || self.ingest.accept.pathPrefix.startsWith('/api/'))",
    "message": "the paths below /api are those of relay: give ingest another pathPrefix"
}, {
    "rule": "!has(self.ingest) || self.ingest.durability != 'Replicated' || has(self.redis)",
    "message": "durability Replicated needs redis"
}]))]
pub struct GatewaySpec {
    /// Ports on which clients connect, 1 to 16 of them, each with its own name and port.
    #[schemars(
        length(min = 1, max = 16),
        extend(
            "x-kubernetes-list-type" = "map",
            "x-kubernetes-list-map-keys" = ["name"],
            "x-kubernetes-validations" = [{
                "rule": "self.all(a, self.exists_one(b, b.port == a.port))",
                "message": "every listener needs a port of its own"
            }]
        )
    )]
    pub listeners: Vec<Listener>,
    /// Long-lived client connections: who may connect, the options of channels, limits. At least one of `relay` and
    /// `ingest` is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Relay>,
    /// HTTP requests to accept, keep and deliver at the rate the upstreams can take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingest: Option<Ingest>,
    /// What the data planes share; unset: there is one data plane, which keeps everything itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub redis: Option<Redis>,
    /// The processes that serve this gateway.
    #[serde(default)]
    pub data_plane: DataPlane,
    /// The Service through which clients reach the pods. Kubernetes only.
    #[serde(default)]
    pub service: Service,
    /// Whose Applications are taken; unset: those of the gateway's own namespace.
    #[serde(default)]
    pub allowed_applications: AllowedApplications,
    /// What the operator does. Kubernetes only.
    #[serde(default)]
    pub operation: Operation,
}

/// A port on which clients connect.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "(self.protocol == 'HTTPS') == has(self.tls)",
    "message": "protocol HTTPS needs tls, and only HTTPS takes it"
}]))]
pub struct Listener {
    /// Name of the listener: lower-case letters, digits and `-`, at most 63 characters.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub name: String,
    /// TCP port, a number from 1 to 65535.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// HTTP (the default), or HTTPS, which needs `tls`.
    #[serde(default)]
    pub protocol: Protocol,
    /// Certificate of an HTTPS listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Tls>,
}

/// How clients speak to a listener.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum Protocol {
    #[default]
    #[serde(rename = "HTTP")]
    Http,
    #[serde(rename = "HTTPS")]
    Https,
}

/// TLS of a listener.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Tls {
    /// Secret with the keys `tls.crt` (certificate chain, PEM) and `tls.key` (private key, PEM).
    pub certificate_ref: ObjectRef,
}

/// An object in the namespace of the gateway.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
pub struct ObjectRef {
    /// Name of the object, in the namespace of the gateway.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub name: String,
}

/// Long-lived client connections.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Relay {
    /// Who may connect. At least one of `jwt` and `anonymous: Allowed` is needed.
    pub authentication: Authentication,
    /// Enabled (the default) subscribes every connection that has a user to the channel `#<user>`.
    #[serde(default = "enabled")]
    pub personal_channel: Switch,
    /// Options of channels whose name has no namespace part.
    #[serde(default)]
    pub default_namespace: DefaultNamespace,
    /// Options of channels named `<namespace>:<rest>`, at most 128 namespaces. A channel of a namespace that is
    /// not listed does not exist.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 128),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub namespaces: Vec<NamedOptions>,
    /// What one client, one account and one data plane may use.
    #[serde(default)]
    pub limits: Limits,
    /// Pings from server to client.
    #[serde(default)]
    pub heartbeat: Heartbeat,
    /// The HTTP API for the team's own servers; without it the API is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_api: Option<ServerApi>,
}

/// Channels without a namespace part.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default, JsonSchema)]
pub struct DefaultNamespace {
    /// What these channels offer and who may use them.
    #[serde(default)]
    pub options: ChannelOptions,
}

/// The HTTP server API.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerApi {
    /// Secret that holds the key callers send as `X-API-Key`.
    pub key_secret_ref: SecretKey,
}

fn enabled() -> Switch {
    Switch::Enabled
}

/// The CRD as the API server takes it.
pub fn crd() -> CustomResourceDefinition {
    let mut crd = Gateway::crd();
    let schemas = crd.spec.versions.iter_mut();
    let roots = schemas.filter_map(|version| version.schema.as_mut()?.open_api_v3_schema.as_mut());
    for root in roots {
        root.x_kubernetes_validations = Some(vec![ValidationRule {
            rule: NAME_RULE.to_owned(),
            message: Some(NAME_MESSAGE.to_owned()),
            ..ValidationRule::default()
        }]);
    }
    crd
}

impl GatewaySpec {
    /// The most data planes that the user asks for, or allows.
    pub fn data_planes_most(&self) -> i32 {
        self.data_plane.scaling.most()
    }
}
