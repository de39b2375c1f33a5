//! What a scenario file says: an upstream, a load, and what must come of it.

use serde::Deserialize;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    pub(crate) seconds: f64,
    #[serde(default = "three")]
    pub(crate) seeds: u64,
    #[serde(default)]
    pub(crate) limiters: Limiters,
    pub(crate) load: Load,
    pub(crate) upstream: Upstream,
    #[serde(default)]
    pub(crate) faults: Vec<Fault>,
    pub(crate) expect: Vec<Expect>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Limiters {
    /// When each of them begins to send.
    pub(crate) join_at_s: Vec<f64>,
    pub(crate) concurrency_min: u32,
    pub(crate) concurrency_max: u32,
    pub(crate) timeout_s: f64,
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
pub(crate) enum Load {
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
pub(crate) struct Phase {
    pub(crate) from_s: f64,
    pub(crate) per_second: f64,
}

/// Every stage that is there is passed, in this order.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Upstream {
    /// Of a request that waits for nothing.
    pub(crate) base_ms: f64,
    #[serde(default)]
    pub(crate) rate: Option<Rate>,
    #[serde(default)]
    pub(crate) concurrency: Option<Concurrency>,
    #[serde(default)]
    pub(crate) workers: Option<Workers>,
    /// Instead of workers: latency that depends on what is in flight.
    #[serde(default)]
    pub(crate) link: Option<Link>,
    /// Requests per second, where it does not follow from the stages.
    #[serde(default)]
    pub(crate) capacity: Option<f64>,
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Action {
    /// Refused at once.
    Reject,
    /// Refused after the base latency.
    Defer,
    /// 500 at once, which does not say that it is for load.
    Error,
    /// Never answered.
    Drop,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rate {
    pub(crate) per_second: f64,
    pub(crate) burst: f64,
    #[serde(default = "reject")]
    pub(crate) action: Action,
    #[serde(default)]
    pub(crate) retry_after_s: Option<f64>,
    #[serde(default)]
    pub(crate) changes: Vec<Change>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Concurrency {
    pub(crate) limit: u32,
    #[serde(default = "reject")]
    pub(crate) action: Action,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Workers {
    pub(crate) count: f64,
    /// Above it: refused.
    pub(crate) queue: usize,
    #[serde(default = "reject")]
    pub(crate) action: Action,
    /// The part of the service time that is random (exponential).
    #[serde(default = "half")]
    pub(crate) random: f64,
    /// One in `n` requests takes `factor` times as long.
    #[serde(default)]
    pub(crate) slow: Option<Slow>,
    #[serde(default)]
    pub(crate) changes: Vec<Change>,
    #[serde(default)]
    pub(crate) service_changes: Vec<Change>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Slow {
    pub(crate) one_in: u32,
    pub(crate) factor: f64,
}

/// From `at_s` on it is `to`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    pub(crate) at_s: f64,
    pub(crate) to: f64,
}

#[derive(Debug, Clone, Copy, Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Link {
    /// Added per further request in flight, in base latencies.
    pub(crate) scale: f64,
    pub(crate) knee_start: Option<u32>,
    pub(crate) knee_exp: f64,
    /// Exponential, in base latencies.
    pub(crate) jitter: f64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fault {
    pub(crate) from_s: f64,
    pub(crate) to_s: f64,
    pub(crate) kind: FaultKind,
    #[serde(default = "one")]
    pub(crate) share: f64,
}

#[derive(Debug, Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FaultKind {
    /// 503 at once.
    Reject,
    /// 500 at once.
    Error,
    /// The connection breaks when the answer is due.
    Close,
    /// No connection.
    Refuse,
    /// Never answered.
    Hang,
}

/// Bounds for a part of the run. What is not there is not asked.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Expect {
    #[serde(default)]
    pub(crate) from_s: f64,
    #[serde(default)]
    pub(crate) to_s: Option<f64>,
    /// Of what the upstream could do while there was something to send.
    #[serde(default)]
    pub(crate) used_min: Option<f64>,
    #[serde(default)]
    pub(crate) rejected_max: Option<f64>,
    /// Median time in the upstream's queue, in base latencies.
    #[serde(default)]
    pub(crate) queue_max: Option<f64>,
    /// Latencies in base latencies.
    #[serde(default)]
    pub p50_max: Option<f64>,
    #[serde(default)]
    pub p99_max: Option<f64>,
    #[serde(default)]
    pub(crate) in_flight_max: Option<f64>,
    #[serde(default)]
    pub(crate) in_flight_mean: Option<(f64, f64)>,
    /// Answers per second.
    #[serde(default)]
    pub(crate) rate_mean: Option<(f64, f64)>,
    #[serde(default)]
    pub(crate) sent_per_second_max: Option<f64>,
    /// In every stretch of 5 s, of what the upstream could do.
    #[serde(default)]
    pub(crate) used_always_min: Option<f64>,
    /// Proxied calls that had to wait at all.
    #[serde(default)]
    pub(crate) proxied_held_max: Option<f64>,
    /// The smallest limiter's part of all answers, times their number.
    #[serde(default)]
    pub(crate) fair_min: Option<f64>,
    /// All requests done by then.
    #[serde(default)]
    pub(crate) done_by_s: Option<f64>,
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
