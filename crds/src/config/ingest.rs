//! What a gateway does with HTTP requests: accept, queue, deliver.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Secret, text};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ingest {
    pub accept: Accept,
    pub durability: Durability,
    pub retention: RetentionBudget,
    /// Parts of requests that are not shown to whoever looks at them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub redact: Vec<RequestPart>,
    /// Deliveries to all upstreams together, per minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    pub delivery: Delivery,
    /// At least one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<Arc<Upstream>>,
    /// By name. No two have a key in common, nor the same name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applications: Vec<Arc<Application>>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Accept {
    pub dialect: Dialect,
    /// Starts with `/` and does not end with one; empty: none. Countly: removed before paths are looked at, and
    /// delivered all the same. Generic: only paths below it are taken.
    pub path_prefix: String,
    /// Largest request body.
    pub body_bytes: usize,
    /// Requests whose body or answer is under way, per data plane.
    pub concurrent_requests: usize,
    /// What every request must carry, beyond what its dialect needs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub required_fields: Vec<RequestPart>,
    /// Check the checksum of requests whose application has a salt (Countly).
    pub tamper_check: bool,
    pub unknown_keys: UnknownKeys,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Dialect {
    Countly,
    Generic(Generic),
}

/// Where a generic request says what routing needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Generic {
    /// Names the application; `None`: every request belongs to an unknown application.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub application_key: Option<RequestPart>,
    /// Requests with the same value are delivered in order; `None`, or absent in a request: no order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ordering_key: Option<RequestPart>,
}

/// A part of a request by which it is routed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RequestPart {
    /// Lower case.
    Header(String),
    /// A parameter; for Countly also one of the body.
    Parameter(String),
}

/// What becomes of requests whose key belongs to no application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UnknownKeys {
    /// Answered with an error.
    Reject,
    /// Answered with success and dropped, for clients that would repeat a refused request for ever.
    AcceptAndDiscard,
    /// Queued like others, in one lane that all unknown keys share.
    Accept,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Durability {
    /// Survives the process, not the machine. With Redis: what Redis lost by its own crash or failover is lost.
    Memory,
    /// Survives the machine: one fsync for all that arrived within about 2 ms. With Redis: as durable as its
    /// append-only file.
    Group,
    /// With Redis only: a replica of the shard had it before the answer.
    Replicated,
}

/// How long requests stay, delivered or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RetentionBudget {
    #[serde(with = "text::time")]
    pub time: Duration,
    /// Of the whole queue. Delivered requests make room first; when waiting ones alone fill it, new ones are refused.
    pub bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Failures of its own (not of the upstream as a whole) after which a request is parked.
    pub attempts: u32,
    #[serde(with = "text::time")]
    pub backoff_initial: Duration,
    #[serde(with = "text::time")]
    pub backoff_max: Duration,
    /// The longest one attempt may take.
    #[serde(with = "text::time")]
    pub timeout: Duration,
    pub ordering: Ordering,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ordering {
    PerKey,
    None,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Upstream {
    /// No two upstreams of a gateway share it: those of an application are `<application>/<name>`.
    pub name: String,
    /// `http://` or `https://`, a host, perhaps a port, and perhaps a path prefix; never with a `/` at its end.
    pub url: String,
    /// Share of the load among upstreams of the same priority.
    pub weight: u32,
    /// Lower first; others only when those cannot take more.
    pub priority: u32,
    /// Bounds of requests in flight, per data plane.
    pub concurrency_min: u32,
    pub concurrency_max: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<Health>,
}

/// An upstream that fails its checks gets no requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    pub path: String,
    #[serde(with = "text::time")]
    pub interval: Duration,
}

/// A tenant of ingest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Application {
    /// Name of the object; never empty.
    pub name: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<Secret>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<u32>,
    /// Share of delivery when there is not enough for all, at least 1.
    pub weight: u32,
    /// Instead of the gateway's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivery: Option<Delivery>,
    /// Instead of the gateway's; empty: the gateway's. One that is written as one of the gateway's is that very one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<Arc<Upstream>>,
    /// Instead of the gateway's time.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "text::optional_time"
    )]
    pub retention: Option<Duration>,
    /// Requests are accepted and wait.
    pub paused: bool,
}
