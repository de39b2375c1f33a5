//! What a scenario file says: an upstream, a load, and what must come of it.

use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    pub seconds: f64,
    #[serde(default = "three")]
    pub seeds: u64,
    #[serde(default)]
    pub limiters: Limiters,
    pub load: Load,
    pub upstream: Upstream,
    #[serde(default)]
    pub faults: Vec<Fault>,
    pub expect: Vec<Expect>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limiters {
    /// When each of them begins to send.
    pub join_at_s: Vec<f64>,
    pub concurrency_min: u32,
    pub concurrency_max: u32,
    pub timeout_s: f64,
}

impl Default for Limiters {
    fn default() -> Self {
        Self {
            join_at_s: vec![0.0],
            concurrency_min: 1,
            concurrency_max: 1000,
            timeout_s: 30.0,
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Load {
    /// There is always more to send.
    Endless,
    /// So many, all there at the start.
    Requests(u64),
    /// One after the other at a fixed interval.
    Regular { requests: u64, interval_ms: f64 },
    /// Random arrivals; each phase lasts until the next.
    Arrivals(Vec<Phase>),
    /// Endless, and proxied calls beside it.
    WithProxied { per_second: f64 },
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    pub from_s: f64,
    pub per_second: f64,
}

/// Every stage that is there is passed, in this order.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Of a request that waits for nothing.
    pub base_ms: f64,
    #[serde(default)]
    pub rate: Option<Rate>,
    #[serde(default)]
    pub concurrency: Option<Concurrency>,
    #[serde(default)]
    pub workers: Option<Workers>,
    /// Instead of workers: latency that depends on what is in flight.
    #[serde(default)]
    pub link: Option<Link>,
    /// Requests per second, where it does not follow from the stages.
    #[serde(default)]
    pub capacity: Option<f64>,
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Refused at once.
    Reject,
    /// Refused after the base latency.
    Defer,
    /// Never answered.
    Drop,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    pub per_second: f64,
    pub burst: f64,
    #[serde(default = "reject")]
    pub action: Action,
    #[serde(default)]
    pub retry_after_s: Option<f64>,
    #[serde(default)]
    pub changes: Vec<Change>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    pub limit: u32,
    #[serde(default = "reject")]
    pub action: Action,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workers {
    pub count: f64,
    /// Above it: refused.
    pub queue: usize,
    /// The part of the service time that is random (exponential).
    #[serde(default = "half")]
    pub random: f64,
    /// One in `n` requests takes `factor` times as long.
    #[serde(default)]
    pub slow: Option<Slow>,
    #[serde(default)]
    pub changes: Vec<Change>,
    #[serde(default)]
    pub service_changes: Vec<Change>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slow {
    pub one_in: u32,
    pub factor: f64,
}

/// From `at_s` on it is `to`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    pub at_s: f64,
    pub to: f64,
}

#[derive(Debug, Clone, Copy, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub struct Link {
    /// Added per further request in flight, in base latencies.
    pub scale: f64,
    pub knee_start: Option<u32>,
    pub knee_exp: f64,
    /// Exponential, in base latencies.
    pub jitter: f64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    pub from_s: f64,
    pub to_s: f64,
    pub kind: FaultKind,
    #[serde(default = "one")]
    pub share: f64,
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// 503 at once.
    Reject,
    /// No connection.
    Refuse,
    /// Never answered.
    Hang,
}

/// Bounds for a part of the run. What is not there is not asked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    #[serde(default)]
    pub from_s: f64,
    #[serde(default)]
    pub to_s: Option<f64>,
    /// Of what the upstream could do while there was something to send.
    #[serde(default)]
    pub used_min: Option<f64>,
    #[serde(default)]
    pub rejected_max: Option<f64>,
    /// Median time in the upstream's queue, in base latencies.
    #[serde(default)]
    pub queue_max: Option<f64>,
    /// Latencies in base latencies.
    #[serde(default)]
    pub p50_max: Option<f64>,
    #[serde(default)]
    pub p99_max: Option<f64>,
    #[serde(default)]
    pub in_flight_max: Option<f64>,
    #[serde(default)]
    pub in_flight_mean: Option<(f64, f64)>,
    /// Answers per second.
    #[serde(default)]
    pub rate_mean: Option<(f64, f64)>,
    #[serde(default)]
    pub sent_per_second_max: Option<f64>,
    /// In every stretch of 5 s, of what the upstream could do.
    #[serde(default)]
    pub used_always_min: Option<f64>,
    /// Proxied calls that had to wait at all.
    #[serde(default)]
    pub proxied_held_max: Option<f64>,
    /// The smallest limiter's part of all answers, times their number.
    #[serde(default)]
    pub fair_min: Option<f64>,
    /// All requests done by then.
    #[serde(default)]
    pub done_by_s: Option<f64>,
}

fn three() -> u64 {
    3
}
fn reject() -> Action {
    Action::Reject
}
fn half() -> f64 {
    0.5
}
fn one() -> f64 {
    1.0
}
