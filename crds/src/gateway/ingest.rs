//! HTTP requests taken in bursts and delivered calmly: the `ingest` part of a Gateway.
//!
//! What is delivered to, and how, is in `delivery`, which Applications share.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DURATION, Delivery, HEADER, PARAMETER, Switch, URL_PATH, Upstream, enabled};

/// HTTP requests to accept, keep and deliver at the rate the upstreams can take.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
pub struct Ingest {
    /// What is accepted.
    #[serde(default)]
    pub accept: Accept,
    /// What an answered request survives: Memory, Group (the default) or Replicated. Memory: the end of the data plane;
    /// the end of the machine loses what its system had not written. With `redis`: the end of a data plane; Redis loses
    /// what its append-only file had not when it ends, 1 to 2 seconds with `appendfsync everysec`. Group: the end of the
    /// machine as well, by one fsync for all requests of about 2 ms. With `redis` that is the server's work and needs
    /// `appendfsync always` there; a failover may still lose what the replica had not. Replicated, with `redis` only:
    /// the loss of a primary when a replica takes over that had the request; the answer waits until one has, and is 503
    /// when none does in time.
    #[serde(default)]
    pub durability: Durability,
    /// How long requests are kept, delivered or not.
    #[serde(default)]
    pub retention: Retention,
    /// Parts of requests that are not shown to whoever looks at requests, at the monitor or the admin port, at most 32;
    /// default none. They are kept and delivered all the same. A parameter is one of the query or of a form, or a field
    /// at any depth of what is JSON; a body that is neither form nor JSON is not shown at all if a parameter is written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub redact: Vec<RequestPart>,
    /// Bound of the deliveries of all applications together.
    #[serde(default)]
    pub throttle: Throttle,
    /// How requests are delivered.
    #[serde(default)]
    pub delivery: Delivery,
    /// Where requests are delivered, 1 to 32 of them, each with its own name.
    #[schemars(
        length(min = 1, max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub upstreams: Vec<Upstream>,
}

/// What is accepted.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.dialect == 'Generic' || !has(self.generic)",
    "message": "generic needs dialect Generic"
}, {
    "rule": "self.dialect != 'Generic' || self.unknownKeys == 'Accept' || (has(self.generic) && has(self.generic.applicationKey))",
    "message": "no request could be of a known application: set generic.applicationKey, or unknownKeys to Accept"
}]))]
pub struct Accept {
    /// How requests say what routing needs: Countly (the default) or Generic.
    #[serde(default)]
    pub dialect: Dialect,
    /// Path before the paths of the dialect, such as `/collect`, at most 256 characters; default none. Countly: removed
    /// before paths are looked at, and delivered all the same. Generic: only paths below it are taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = URL_PATH),
        extend("x-kubernetes-validations" = [{
            "rule": "!self.contains('//') && !self.split('/').exists(part, part == '.' || part == '..')",
            "message": "no part of the path may be empty, . or .."
        }])
    )]
    pub path_prefix: Option<String>,
    /// Largest request body, in bytes: a number from 1024 to 67108864, default 1048576.
    #[serde(default = "body_bytes")]
    #[schemars(range(min = 1024, max = 67_108_864))]
    pub body_bytes: i32,
    /// Requests under way at the same time, per data plane: a number from 1 to 100000, default 4096.
    #[serde(default = "concurrent_requests")]
    #[schemars(range(min = 1, max = 100_000))]
    pub concurrent_requests: i32,
    /// What every request must carry, beyond what its dialect needs, at most 32 entries; default nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = [{
        "rule": "self.all(a, self.exists_one(b, has(a.header) ? has(b.header) && b.header.lowerAscii() == a.header.lowerAscii() : has(b.parameter) && has(a.parameter) && b.parameter == a.parameter))",
        "message": "every field must be written once"
    }]))]
    pub required_fields: Vec<RequestPart>,
    /// Enabled (the default) refuses requests without the right checksum where the application has a salt; Countly
    /// only.
    #[serde(default = "enabled")]
    pub tamper_check: Switch,
    /// What becomes of requests of no known application: Reject (the default) answers with an error, AcceptAndDiscard
    /// with success, Accept delivers them like others.
    #[serde(default)]
    pub unknown_keys: UnknownKeys,
    /// Where requests of dialect Generic say what routing needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generic: Option<Generic>,
}

impl Default for Accept {
    fn default() -> Self {
        Self {
            dialect: Dialect::default(),
            path_prefix: None,
            body_bytes: body_bytes(),
            concurrent_requests: concurrent_requests(),
            required_fields: Vec::new(),
            tamper_check: enabled(),
            unknown_keys: UnknownKeys::default(),
            generic: None,
        }
    }
}

/// How requests say what routing needs.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum Dialect {
    #[default]
    Countly,
    Generic,
}

/// Requests of no known application.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum UnknownKeys {
    #[default]
    Reject,
    AcceptAndDiscard,
    Accept,
}

/// Where requests of dialect Generic say what routing needs.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Generic {
    /// Names the application of a request; unset: all requests are of no known application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_key: Option<RequestPart>,
    /// Requests with the same value are delivered in their order; unset, or absent in a request: no order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordering_key: Option<RequestPart>,
}

/// A part of a request: exactly one of the two.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "has(self.header) != has(self.parameter)",
    "message": "set exactly one of header and parameter"
}]))]
pub struct RequestPart {
    /// Name of a header, in any case, at most 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = HEADER))]
    pub header: Option<String>,
    /// Name of a parameter of the query or, for Countly, also of the body, at most 128 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = PARAMETER))]
    pub parameter: Option<String>,
}

/// What an answered request survives.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum Durability {
    Memory,
    #[default]
    Group,
    Replicated,
}

/// How long requests are kept, delivered or not.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
pub struct Retention {
    /// Age at which a request is dropped that does not wait any more, be it delivered, parked or discarded: a duration
    /// from 1m to 720h, default 24h. Requests that wait are never dropped.
    #[serde(default = "retention_time")]
    #[schemars(length(max = 32), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1m') && duration(self) <= duration('720h')",
        "message": "must be from 1m to 720h"
    }]))]
    pub time: String,
    /// Size of all requests on disk, in bytes: a number from 67108864 to 17592186044416, default 10737418240. Delivered
    /// requests make room first; when waiting ones alone fill it, new ones are refused.
    #[serde(default = "retention_bytes")]
    #[schemars(range(min = 67_108_864, max = 17_592_186_044_416_i64))]
    pub bytes: i64,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            time: retention_time(),
            bytes: retention_bytes(),
        }
    }
}

/// Bound of the deliveries of all applications together.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Default, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Throttle {
    /// Deliveries per minute: a number from 1 to 1000000000, unset: no limit but what the upstreams can take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub requests_per_minute: Option<i32>,
}

fn body_bytes() -> i32 {
    1_048_576
}

fn concurrent_requests() -> i32 {
    4_096
}

fn retention_time() -> String {
    "24h".to_owned()
}

fn retention_bytes() -> i64 {
    10_737_418_240
}
