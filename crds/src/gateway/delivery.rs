//! Where requests are delivered, and how. A Gateway says it for all, an Application for its own requests.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{DURATION, LABEL, PROBE_PATH, UPSTREAM_URL_RULE};

/// How requests are delivered.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
pub struct Delivery {
    /// Failures of a request itself (not of the upstream as a whole) after which it is parked: a number from 1 to 1000,
    /// default 10.
    #[serde(default = "attempts")]
    #[schemars(range(min = 1, max = 1000))]
    pub attempts: i32,
    /// Time between the attempts of one request.
    #[serde(default)]
    pub backoff: Backoff,
    /// The longest one attempt may take: a duration from 100ms to 10m, default 30s.
    #[serde(default = "timeout")]
    #[schemars(length(max = 32), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('100ms') && duration(self) <= duration('10m')",
        "message": "must be from 100ms to 10m"
    }]))]
    pub timeout: String,
    /// PerKey (the default) delivers requests with the same ordering key (Countly: of the same device) one after the
    /// other, in the order of their arrival; None delivers them as they come.
    #[serde(default)]
    pub ordering: Ordering,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            attempts: attempts(),
            backoff: Backoff::default(),
            timeout: timeout(),
            ordering: Ordering::default(),
        }
    }
}

/// Order of deliveries.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq, Default, JsonSchema)]
pub enum Ordering {
    #[default]
    PerKey,
    None,
}

/// Time between the attempts of one request: it grows from `initial` to `max`.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "duration(self.initial) <= duration(self.max)",
    "message": "initial must not be longer than max"
}]))]
pub struct Backoff {
    /// Time after the first failure: a duration from 10ms to 1h, default 1s, not longer than max.
    #[serde(default = "backoff_initial")]
    #[schemars(length(max = 32), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('10ms') && duration(self) <= duration('1h')",
        "message": "must be from 10ms to 1h"
    }]))]
    pub initial: String,
    /// Longest time between two attempts: a duration from 10ms to 24h, default 1m.
    #[serde(default = "backoff_max")]
    #[schemars(length(max = 32), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('10ms') && duration(self) <= duration('24h')",
        "message": "must be from 10ms to 24h"
    }]))]
    pub max: String,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: backoff_initial(),
            max: backoff_max(),
        }
    }
}

/// What an Application wants otherwise than its Gateway; what is unset is as the Gateway says.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
pub struct DeliveryOverride {
    /// Failures of a request itself after which it is parked: a number from 1 to 1000; unset: as the Gateway says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub attempts: Option<i32>,
    /// Time between the attempts of one request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<BackoffOverride>,
    /// The longest one attempt may take: a duration from 100ms to 10m; unset: as the Gateway says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('100ms') && duration(self) <= duration('10m')",
        "message": "must be from 100ms to 10m"
    }]))]
    pub timeout: Option<String>,
    /// PerKey or None; unset: as the Gateway says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordering: Option<Ordering>,
}

/// Time between the attempts of one request.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "!has(self.initial) || !has(self.max) || duration(self.initial) <= duration(self.max)",
    "message": "initial must not be longer than max"
}]))]
pub struct BackoffOverride {
    /// Time after the first failure: a duration from 10ms to 1h, not longer than max; unset: as the Gateway says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('10ms') && duration(self) <= duration('1h')",
        "message": "must be from 10ms to 1h"
    }]))]
    pub initial: Option<String>,
    /// Longest time between two attempts: a duration from 10ms to 24h; unset: as the Gateway says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('10ms') && duration(self) <= duration('24h')",
        "message": "must be from 10ms to 24h"
    }]))]
    pub max: Option<String>,
}

/// A server that requests are delivered to.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": UPSTREAM_URL_RULE,
    "fieldPath": ".url",
    "message": "must be http:// or https://, a host, and optionally a port and a path"
}, {
    "rule": "!isURL(self.url) || url(self.url).getPort() == '' || (int(url(self.url).getPort()) >= 1 && int(url(self.url).getPort()) <= 65535)",
    "fieldPath": ".url",
    "message": "the port must be from 1 to 65535"
}]))]
pub struct Upstream {
    /// Name of the upstream: lower-case letters, digits and `-`, at most 63 characters.
    #[schemars(length(min = 1, max = 63), regex(pattern = LABEL))]
    pub name: String,
    /// `http://` or `https://`, a host, and optionally a port and a path that is put before the path of every request;
    /// at most 2048 characters. The certificate behind `https://` must be good for the host by the authorities of the
    /// system, or by those that the process's variable SSL_CERT_FILE names (on Kubernetes by dataPlane.podTemplate).
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// Share of the load among upstreams of the same priority: a number from 1 to 1000, default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub weight: i32,
    /// Upstreams with a lower number come first, the others get what those cannot take: a number from 0 to 1000,
    /// default 0.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: i32,
    /// Bounds of the requests in flight to it.
    #[serde(default)]
    pub concurrency: Concurrency,
    /// Checks without which the upstream gets no requests; unset: it is not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// Bounds of the requests in flight, per data plane. Between them the number follows what the upstream can take.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [{
    "rule": "self.min <= self.max",
    "message": "min must not be greater than max"
}]))]
pub struct Concurrency {
    /// Never fewer at a time: a number from 1 to 100000, default 1, not greater than max.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 100_000))]
    pub min: i32,
    /// Never more at a time: a number from 1 to 100000, default 1000.
    #[serde(default = "concurrency_max")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max: i32,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            min: one(),
            max: concurrency_max(),
        }
    }
}

/// GET requests that tell whether an upstream is well.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, JsonSchema)]
pub struct Health {
    /// Path, and optionally a query, such as `/ping`, after the path of the upstream's url; at most 1024 characters.
    #[schemars(length(min = 1, max = 1024), regex(pattern = PROBE_PATH))]
    pub path: String,
    /// Time between checks: a duration from 1s to 10m, default 5s.
    #[serde(default = "health_interval")]
    #[schemars(length(max = 32), regex(pattern = DURATION), extend("x-kubernetes-validations" = [{
        "rule": "duration(self) >= duration('1s') && duration(self) <= duration('10m')",
        "message": "must be from 1s to 10m"
    }]))]
    pub interval: String,
}

fn attempts() -> i32 {
    10
}

fn backoff_initial() -> String {
    "1s".to_owned()
}

fn backoff_max() -> String {
    "1m".to_owned()
}

fn timeout() -> String {
    "30s".to_owned()
}

fn one() -> i32 {
    1
}

fn concurrency_max() -> i32 {
    1_000
}

fn health_interval() -> String {
    "5s".to_owned()
}
