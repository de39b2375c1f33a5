//! What a limiter is told and what it says.

use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimiterSettings {
    pub concurrency_min: u32,
    pub concurrency_max: u32,
    /// Share of the load among upstreams of the same priority.
    pub weight: u32,
    /// The longest an attempt may take.
    pub timeout_max: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    Queued,
    /// Someone waits for the answer.
    Proxied,
}

impl Class {
    pub(super) fn index(self) -> usize {
        match self {
            Self::Queued => 0,
            Self::Proxied => 1,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    Go,
    Hold {
        why: Hold,
        /// `None`: when a request in flight has ended.
        until: Option<Instant>,
    },
}

impl Permit {
    pub(super) fn hold(why: Hold, until: Option<Instant>) -> Self {
        Self::Hold { why, until }
    }
}

/// Why a request has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hold {
    InFlight,
    Rate,
    Breaker,
    RetryAfter,
}

impl Hold {
    pub fn name(self) -> &'static str {
        match self {
            Self::InFlight => "InFlight",
            Self::Rate => "Rate",
            Self::Breaker => "Breaker",
            Self::RetryAfter => "RetryAfter",
        }
    }
}

/// How an attempt ended, and how long after it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    pub latency: Duration,
    pub outcome: SampleOutcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleOutcome {
    Ok,
    /// 429.
    RateLimited {
        retry_after: Option<Duration>,
    },
    /// Refused in a way that says that there is too much to do.
    Overloaded {
        retry_after: Option<Duration>,
    },
    TimedOut,
    /// Answered with an error that load may explain, or not.
    Erred,
    /// No connection, or it broke.
    Failed,
    /// Answered in a way that says nothing about load.
    Neutral,
    /// Given up by us before there was an answer.
    Abandoned,
}

/// What last moved the limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    Start,
    /// All is well and there was more to send.
    Growing,
    /// Requests queue up at the upstream.
    Latency,
    RateLimited,
    Overloaded,
    /// Slow start after an outage or a pause.
    Recovery,
    /// Nothing was sent for long.
    Idle,
    /// Refusals proved to have nothing to do with load.
    Unrelated,
}

impl Cause {
    pub fn name(self) -> &'static str {
        match self {
            Self::Start => "Start",
            Self::Growing => "Growing",
            Self::Latency => "Latency",
            Self::RateLimited => "RateLimited",
            Self::Overloaded => "Overloaded",
            Self::Recovery => "Recovery",
            Self::Idle => "Idle",
            Self::Unrelated => "Unrelated",
        }
    }
}

/// The state of a limiter, for metrics and for people.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Snapshot {
    pub in_flight: u32,
    /// Requests that may be in flight.
    pub limit: f64,
    /// Requests that may start per second; `None`: as many as the limit in flight allows.
    pub rate: Option<f64>,
    /// Answers per second, lately.
    pub goodput: f64,
    /// Of an answer when no requests queue up at the upstream.
    pub base_latency: Option<Duration>,
    pub breaker: super::BreakerState,
    pub retry_after_until: Option<Instant>,
    /// What the next attempt may take.
    pub timeout: Duration,
    /// The share of attempts that fails whatever the load.
    pub unrelated_failures: f64,
    pub why: Cause,
}
