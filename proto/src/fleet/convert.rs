//! From and to what goes over the wire.

use std::sync::Arc;
use std::time::Duration;

use super::{
    Application, Cap, CapKey, Directive, Load, Past, Phase, Queue, Relay, Report, Share, Steering,
    Upstream, UpstreamShare, Version,
};
use crate::fleet_wire as wire;

/// Names of Kubernetes objects have 253 bytes at most; an upstream's is two of them.
pub const TEXT_BYTES_MAX: usize = 512;
/// Caps in one message: of the gateway and its applications.
pub const CAPS_MAX: usize = 10_001;
/// Applications in one message: at most as many are attached to a gateway.
pub const APPLICATIONS_MAX: usize = 10_000;
/// Upstreams in one message.
pub const UPSTREAMS_MAX: usize = 4_096;

/// Counts above this are taken for this: those of 2,000 data planes can be added up. More is no truth, and must harm nobody else.
const COUNT_MAX: u64 = 1 << 53;
/// So are other numbers.
const NUMBER_MAX: f64 = 1e15;

/// What makes a message unreadable. Everything else is read as far as this release understands it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("{field} is empty")]
    Empty { field: &'static str },
    #[error("{field} has {bytes} bytes, more than {TEXT_BYTES_MAX}")]
    LongText { field: &'static str, bytes: usize },
    #[error("{field} has {entries} entries, more than {max}")]
    LongList {
        field: &'static str,
        entries: usize,
        max: usize,
    },
    #[error("{field} is no number, or below zero")]
    NoNumber { field: &'static str },
}

impl TryFrom<wire::Report> for Report {
    type Error = Malformed;

    fn try_from(report: wire::Report) -> Result<Self, Malformed> {
        let phase = match report.phase() {
            wire::Phase::Unspecified | wire::Phase::Serving => Phase::Serving,
            wire::Phase::Draining => Phase::Draining,
        };
        bounded("caps", report.caps.len(), CAPS_MAX)?;
        bounded("upstreams", report.upstreams.len(), UPSTREAMS_MAX)?;
        bounded("applications", report.applications.len(), APPLICATIONS_MAX)?;
        let caps = report
            .caps
            .into_iter()
            .filter_map(|cap| cap_of(cap).transpose());
        let upstreams = report.upstreams.into_iter().map(Upstream::try_from);
        let applications = report.applications.into_iter().map(Application::try_from);
        Ok(Self {
            gateway: named("gateway", report.gateway)?,
            pod: named("pod", report.pod)?,
            instance: named("instance", report.instance)?,
            sequence: report.sequence,
            release: text("release", report.release)?,
            applied: Version {
                term: report.applied_term,
                generation: report.applied_generation,
            },
            phase,
            cpu_request_cores: said(number("cpu_request_cores", report.cpu_request_cores)?),
            connections_max: (report.connections_max > 0).then(|| count(report.connections_max)),
            relay: report.relay.map(Relay::from).unwrap_or_default(),
            load: report
                .load
                .map(Load::try_from)
                .transpose()?
                .unwrap_or_default(),
            caps: caps.collect::<Result<_, _>>()?,
            upstreams: upstreams.collect::<Result<_, _>>()?,
            queue: report.queue.map(Queue::from).unwrap_or_default(),
            ends_in: (report.ends_in_ms > 0)
                .then(|| Duration::from_millis(report.ends_in_ms.into())),
            sends_nothing: report.sends_nothing,
            applications: applications.collect::<Result<_, _>>()?,
            past: report.past.map(Past::try_from).transpose()?,
        })
    }
}

impl From<Report> for wire::Report {
    fn from(report: Report) -> Self {
        let phase = match report.phase {
            Phase::Serving => wire::Phase::Serving,
            Phase::Draining => wire::Phase::Draining,
        };
        Self {
            gateway: report.gateway.to_string(),
            pod: report.pod.to_string(),
            instance: report.instance.to_string(),
            sequence: report.sequence,
            release: report.release.to_string(),
            applied_term: report.applied.term,
            applied_generation: report.applied.generation,
            phase: phase.into(),
            cpu_request_cores: report.cpu_request_cores.unwrap_or_default(),
            connections_max: report.connections_max.unwrap_or_default(),
            relay: Some(report.relay.into()),
            load: Some(report.load.into()),
            caps: report.caps.into_iter().map(Into::into).collect(),
            upstreams: report.upstreams.into_iter().map(Into::into).collect(),
            queue: Some(report.queue.into()),
            // In its last millisecond it still ends.
            ends_in_ms: report.ends_in.map_or(0, |left| millis32(left).max(1)),
            sends_nothing: report.sends_nothing,
            applications: report.applications.into_iter().map(Into::into).collect(),
            past: report.past.map(Into::into),
        }
    }
}

impl From<wire::Relay> for Relay {
    fn from(relay: wire::Relay) -> Self {
        Self {
            connections: count(relay.connections),
            opened_total: count(relay.opened_total),
            refused_total: count(relay.refused_total),
            shed_total: count(relay.shed_total),
            messages_in_total: count(relay.messages_in_total),
            messages_out_total: count(relay.messages_out_total),
        }
    }
}

impl From<Relay> for wire::Relay {
    fn from(relay: Relay) -> Self {
        Self {
            connections: relay.connections,
            opened_total: relay.opened_total,
            refused_total: relay.refused_total,
            shed_total: relay.shed_total,
            messages_in_total: relay.messages_in_total,
            messages_out_total: relay.messages_out_total,
        }
    }
}

impl TryFrom<wire::Load> for Load {
    type Error = Malformed;

    fn try_from(load: wire::Load) -> Result<Self, Malformed> {
        Ok(Self {
            cpu_seconds_total: number("load.cpu_seconds_total", load.cpu_seconds_total)?,
            memory_bytes: count(load.memory_bytes),
            memory_limit_bytes: count(load.memory_limit_bytes),
            loop_delay: Duration::from_millis(load.loop_delay_ms.into()),
            overload_level: load.overload_level,
        })
    }
}

impl From<Load> for wire::Load {
    fn from(load: Load) -> Self {
        Self {
            cpu_seconds_total: load.cpu_seconds_total,
            memory_bytes: load.memory_bytes,
            memory_limit_bytes: load.memory_limit_bytes,
            loop_delay_ms: millis32(load.loop_delay),
            overload_level: load.overload_level,
        }
    }
}

/// `None`: a cap of a kind that a later release knows.
fn cap_of(cap: wire::Cap) -> Result<Option<Cap>, Malformed> {
    let Some(key) = key("caps.key", &cap.key)? else {
        return Ok(None);
    };
    Ok(Some(Cap {
        key,
        arrived_total: count(cap.arrived_total),
        sent_total: count(cap.sent_total),
        waiting: count(cap.waiting),
        oldest: time(cap.oldest_ms),
        allowed_per_minute: number("caps.allowed_per_minute", cap.allowed_per_minute)?,
        lease_left: time(cap.lease_left_ms),
        safe_per_minute: cap
            .safe_per_minute
            .map(|safe| number("caps.safe_per_minute", safe))
            .transpose()?,
    }))
}

impl From<Cap> for wire::Cap {
    fn from(cap: Cap) -> Self {
        Self {
            key: cap.key.to_string(),
            arrived_total: cap.arrived_total,
            sent_total: cap.sent_total,
            waiting: cap.waiting,
            oldest_ms: millis(cap.oldest),
            allowed_per_minute: cap.allowed_per_minute,
            lease_left_ms: millis(cap.lease_left),
            safe_per_minute: cap.safe_per_minute,
        }
    }
}

impl TryFrom<wire::Application> for Application {
    type Error = Malformed;

    fn try_from(application: wire::Application) -> Result<Self, Malformed> {
        Ok(Self {
            name: named("applications.name", application.name)?,
            arrived_total: count(application.arrived_total),
            delivered_total: count(application.delivered_total),
            failed_total: count(application.failed_total),
            waiting: count(application.waiting),
            parked: count(application.parked),
            oldest: time(application.oldest_ms),
            held: text("applications.held", application.held)?,
        })
    }
}

impl From<Application> for wire::Application {
    fn from(application: Application) -> Self {
        Self {
            name: application.name.to_string(),
            arrived_total: application.arrived_total,
            delivered_total: application.delivered_total,
            failed_total: application.failed_total,
            waiting: application.waiting,
            parked: application.parked,
            oldest_ms: millis(application.oldest),
            held: application.held.to_string(),
        }
    }
}

impl TryFrom<wire::Upstream> for Upstream {
    type Error = Malformed;

    fn try_from(upstream: wire::Upstream) -> Result<Self, Malformed> {
        Ok(Self {
            name: named("upstreams.name", upstream.name)?,
            succeeded_total: count(upstream.succeeded_total),
            failed_total: count(upstream.failed_total),
            in_flight: count(upstream.in_flight),
            in_flight_limit: number("upstreams.in_flight_limit", upstream.in_flight_limit)?,
            pace_per_second: said(number(
                "upstreams.pace_per_second",
                upstream.pace_per_second,
            )?),
            closed: upstream.closed,
            wanted: upstream.wanted,
        })
    }
}

impl From<Upstream> for wire::Upstream {
    fn from(upstream: Upstream) -> Self {
        Self {
            name: upstream.name.to_string(),
            succeeded_total: upstream.succeeded_total,
            failed_total: upstream.failed_total,
            in_flight: upstream.in_flight,
            in_flight_limit: upstream.in_flight_limit,
            pace_per_second: upstream.pace_per_second.unwrap_or_default(),
            closed: upstream.closed,
            wanted: upstream.wanted,
        }
    }
}

impl From<wire::Queue> for Queue {
    fn from(queue: wire::Queue) -> Self {
        Self {
            waiting: count(queue.waiting),
            bytes: count(queue.bytes),
            parked: count(queue.parked),
            oldest: time(queue.oldest_ms),
            arrived_total: count(queue.arrived_total),
            delivered_total: count(queue.delivered_total),
            failed_total: count(queue.failed_total),
            dispatch_lag: time(queue.dispatch_lag_ms),
        }
    }
}

impl From<Queue> for wire::Queue {
    fn from(queue: Queue) -> Self {
        Self {
            waiting: queue.waiting,
            bytes: queue.bytes,
            parked: queue.parked,
            oldest_ms: millis(queue.oldest),
            arrived_total: queue.arrived_total,
            delivered_total: queue.delivered_total,
            failed_total: queue.failed_total,
            dispatch_lag_ms: millis(queue.dispatch_lag),
        }
    }
}

impl TryFrom<wire::Directive> for Directive {
    type Error = Malformed;

    fn try_from(directive: wire::Directive) -> Result<Self, Malformed> {
        let steering = match directive.steering() {
            wire::Steering::Unspecified | wire::Steering::Accept => Steering::Accept,
            wire::Steering::Fence => Steering::Fence,
            wire::Steering::Drain => Steering::Drain,
        };
        bounded("shares", directive.shares.len(), CAPS_MAX)?;
        bounded("upstreams", directive.upstreams.len(), UPSTREAMS_MAX)?;
        let shares = directive.shares.into_iter();
        let upstreams = directive.upstreams.into_iter().map(UpstreamShare::try_from);
        Ok(Self {
            version: Version {
                term: directive.term,
                generation: directive.generation,
            },
            answers: directive.answers,
            steering,
            shed_to: directive.shed_to,
            valid: duration(directive.valid_ms),
            shares: shares
                .filter_map(|share| share_of(share).transpose())
                .collect::<Result<_, _>>()?,
            upstreams: upstreams.collect::<Result<_, _>>()?,
            report_every: duration(directive.report_every_ms.into()),
            retry_spread: duration(directive.retry_spread_ms.into()),
        })
    }
}

impl From<Directive> for wire::Directive {
    fn from(directive: Directive) -> Self {
        let steering = match directive.steering {
            Steering::Accept => wire::Steering::Accept,
            Steering::Fence => wire::Steering::Fence,
            Steering::Drain => wire::Steering::Drain,
        };
        Self {
            term: directive.version.term,
            generation: directive.version.generation,
            answers: directive.answers,
            steering: steering.into(),
            shed_to: directive.shed_to,
            valid_ms: millis(directive.valid.unwrap_or_default()),
            shares: directive.shares.into_iter().map(Into::into).collect(),
            upstreams: directive.upstreams.into_iter().map(Into::into).collect(),
            report_every_ms: millis32(directive.report_every.unwrap_or_default()),
            retry_spread_ms: millis32(directive.retry_spread.unwrap_or_default()),
        }
    }
}

/// `None`: a part of a cap of a kind that a later release knows.
fn share_of(share: wire::Share) -> Result<Option<Share>, Malformed> {
    let Some(key) = key("shares.key", &share.key)? else {
        return Ok(None);
    };
    Ok(Some(Share {
        key,
        per_minute: number("shares.per_minute", share.per_minute)?,
        lease: Duration::from_millis(share.lease_ms),
        safe_per_minute: number("shares.safe_per_minute", share.safe_per_minute)?,
    }))
}

impl From<Share> for wire::Share {
    fn from(share: Share) -> Self {
        Self {
            key: share.key.to_string(),
            per_minute: share.per_minute,
            lease_ms: millis(share.lease),
            safe_per_minute: share.safe_per_minute,
        }
    }
}

impl TryFrom<wire::UpstreamShare> for UpstreamShare {
    type Error = Malformed;

    fn try_from(share: wire::UpstreamShare) -> Result<Self, Malformed> {
        Ok(Self {
            name: named("upstreams.name", share.name)?,
            per_second: said(number("upstreams.per_second", share.per_second)?),
        })
    }
}

impl From<UpstreamShare> for wire::UpstreamShare {
    fn from(share: UpstreamShare) -> Self {
        Self {
            name: share.name.to_string(),
            per_second: share.per_second.unwrap_or_default(),
        }
    }
}

fn text(field: &'static str, value: String) -> Result<Arc<str>, Malformed> {
    if value.len() > TEXT_BYTES_MAX {
        let bytes = value.len();
        return Err(Malformed::LongText { field, bytes });
    }
    Ok(value.into())
}

fn named(field: &'static str, value: String) -> Result<Arc<str>, Malformed> {
    if value.is_empty() {
        return Err(Malformed::Empty { field });
    }
    text(field, value)
}

fn key(field: &'static str, value: &str) -> Result<Option<CapKey>, Malformed> {
    if value.len() > TEXT_BYTES_MAX {
        let bytes = value.len();
        return Err(Malformed::LongText { field, bytes });
    }
    Ok(CapKey::parse(value))
}

pub(super) fn bounded(field: &'static str, entries: usize, max: usize) -> Result<(), Malformed> {
    if entries > max {
        return Err(Malformed::LongList {
            field,
            entries,
            max,
        });
    }
    Ok(())
}

fn count(value: u64) -> u64 {
    value.min(COUNT_MAX)
}

fn time(ms: u64) -> Duration {
    Duration::from_millis(count(ms))
}

pub(super) fn number(field: &'static str, value: f64) -> Result<f64, Malformed> {
    if value.is_finite() && value >= 0.0 {
        Ok(value.min(NUMBER_MAX))
    } else {
        Err(Malformed::NoNumber { field })
    }
}

fn said(value: f64) -> Option<f64> {
    (value > 0.0).then_some(value)
}

fn duration(ms: u64) -> Option<Duration> {
    (ms > 0).then(|| Duration::from_millis(ms))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn millis32(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
