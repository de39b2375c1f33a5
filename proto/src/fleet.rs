//! What data planes and the manager tell each other, as plain types: `fleet.proto` says what each field means.
//!
//! Conversions bound what comes from outside: texts, lists, and numbers that are none. What one side does not say is here what harms
//! nobody: nothing wanted, nothing held, new clients taken.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::convert::{APPLICATIONS_MAX, CAPS_MAX, Malformed, TEXT_BYTES_MAX, UPSTREAMS_MAX};
pub use self::past::{PAST_MAX, PAST_STEP_S};

mod convert;
mod past;
#[cfg(test)]
mod tests;

/// How a data plane is. Totals count from the start of its process.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// `<namespace>/<name>`.
    pub gateway: Arc<str>,
    pub pod: Arc<str>,
    /// Random, of the process.
    pub instance: Arc<str>,
    pub sequence: u64,
    pub release: Arc<str>,
    /// The directive that is in force; `(0, 0)`: none was ever.
    pub applied: Version,
    pub phase: Phase,
    /// `None`: not said.
    pub cpu_request_cores: Option<f64>,
    pub connections_max: Option<u64>,
    pub relay: Relay,
    pub load: Load,
    pub caps: Vec<Cap>,
    pub upstreams: Vec<Upstream>,
    pub queue: Queue,
    /// It ends within this time, and until then closes clients as directives say. `None`: it does not, or closes them by itself.
    pub ends_in: Option<Duration>,
    /// Its parts of caps are free, whatever it was told.
    pub sends_nothing: bool,
    /// Those of which something has changed since the last report of the stream.
    pub applications: Vec<Application>,
    /// In the first report of a stream: how it was until now.
    pub past: Option<Past>,
}

/// How a data plane was, in points of [`PAST_STEP_S`] one after the other.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Past {
    /// Unix seconds at which the first point begins; a multiple of the step.
    pub from_s: u64,
    /// `None`: nothing is known of that time.
    pub points: Vec<Option<PastPoint>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PastPoint {
    pub arrived_per_minute: f32,
    pub delivered_per_minute: f32,
    pub failed_per_minute: f32,
    pub waiting: f32,
    pub oldest_seconds: f32,
    pub connections: f32,
    pub messages_in_per_second: f32,
    pub messages_out_per_second: f32,
}

/// Which directive, of which manager: a higher term is a later manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version {
    pub term: u64,
    pub generation: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    #[default]
    Serving,
    Draining,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Relay {
    pub connections: u64,
    pub opened_total: u64,
    pub refused_total: u64,
    pub shed_total: u64,
    pub messages_in_total: u64,
    pub messages_out_total: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Load {
    pub cpu_seconds_total: f64,
    pub memory_bytes: u64,
    pub memory_limit_bytes: u64,
    pub loop_delay: Duration,
    /// 0: none; 1: sheds queries; 2: sheds connections.
    pub overload_level: u32,
}

/// What a limit in requests per minute is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CapKey {
    /// All deliveries of the gateway.
    Gateway,
    /// Those of one application.
    Application(Arc<str>),
}

#[derive(Debug, Clone, PartialEq)]
pub struct Cap {
    pub key: CapKey,
    pub arrived_total: u64,
    pub sent_total: u64,
    pub waiting: u64,
    pub oldest: Duration,
    pub allowed_per_minute: f64,
    /// Zero: `allowed_per_minute` is the safe rate.
    pub lease_left: Duration,
    /// `None`: not said.
    pub safe_per_minute: Option<f64>,
}

/// What became of an application's requests in one data plane.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Application {
    pub name: Arc<str>,
    pub arrived_total: u64,
    pub delivered_total: u64,
    pub failed_total: u64,
    pub waiting: u64,
    pub parked: u64,
    pub oldest: Duration,
    /// What keeps the oldest from being sent, in a word; empty: nothing.
    pub held: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Upstream {
    pub name: Arc<str>,
    pub succeeded_total: u64,
    pub failed_total: u64,
    pub in_flight: u64,
    pub in_flight_limit: f64,
    /// `None`: not paced.
    pub pace_per_second: Option<f64>,
    pub closed: bool,
    pub wanted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Queue {
    pub waiting: u64,
    pub bytes: u64,
    pub parked: u64,
    pub oldest: Duration,
    pub arrived_total: u64,
    pub delivered_total: u64,
    pub failed_total: u64,
    pub dispatch_lag: Duration,
}

/// What a data plane should do.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Directive {
    pub version: Version,
    /// Sequence of the last report that was known; times count from when that one was sent.
    pub answers: u64,
    pub steering: Steering,
    /// `Relay::shed_total` to reach.
    pub shed_to: u64,
    /// How long steering and shedding hold; `None`: until the next directive.
    pub valid: Option<Duration>,
    pub shares: Vec<Share>,
    pub upstreams: Vec<UpstreamShare>,
    /// `None`: every second.
    pub report_every: Option<Duration>,
    /// `None`: as the data plane sees fit.
    pub retry_spread: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Steering {
    #[default]
    Accept,
    /// No new clients; those that are here stay, and requests of ingest are taken.
    Fence,
    /// As fenced, and the pod is to be empty.
    Drain,
}

/// A part of a cap.
#[derive(Debug, Clone, PartialEq)]
pub struct Share {
    pub key: CapKey,
    pub per_minute: f64,
    pub lease: Duration,
    pub safe_per_minute: f64,
}

/// A part of what an upstream takes.
#[derive(Debug, Clone, PartialEq)]
pub struct UpstreamShare {
    pub name: Arc<str>,
    /// `None`: no limit but the data plane's own.
    pub per_second: Option<f64>,
}

const APPLICATION: &str = "application/";

impl fmt::Display for CapKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Gateway => f.write_str("gateway"),
            Self::Application(name) => write!(f, "{APPLICATION}{name}"),
        }
    }
}

impl CapKey {
    /// `None`: a kind that a later release knows.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "gateway" {
            return Some(Self::Gateway);
        }
        let name = text.strip_prefix(APPLICATION)?;
        (!name.is_empty()).then(|| Self::Application(name.into()))
    }
}
