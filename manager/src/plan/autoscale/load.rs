//! How many pods the load asks for, before any limit: the most that connections, their slope, CPU or waiting ask for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Seen;
use crate::plan::ScaleReason;
use crate::view::View;

/// Totals are remembered for so long, for the slope; and reckoned by in a panic for so long.
const STABLE: Duration = Duration::from_secs(60);
const PANIC: Duration = Duration::from_secs(6);
/// Wanted by the last seconds, as a part of what there is, from which on those alone count.
const PANIC_RATIO: f64 = 1.5;
/// Until a new pod takes clients.
const READY_TIME: Duration = Duration::from_secs(45);
/// CPU and waiting jump; what lasts for so long counts.
const CPU_WINDOW: Duration = Duration::from_secs(30);
const LAG_WINDOW: Duration = Duration::from_secs(15);
/// What the slope leads to may fill pods so far.
const SLOPE_TARGET: f64 = 0.85;

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Load {
    /// Connections of all pods.
    totals: Series,
    /// See [`cpu`] and [`lag`].
    cpu: Series,
    lag: Series,
    panicked: Option<Instant>,
}

pub(super) struct Wish {
    pub(super) pods: u32,
    pub(super) reason: ScaleReason,
}

impl Load {
    pub(super) fn remember(&mut self, view: &View, now: Instant) {
        self.totals.push(view.connections(now) as f64, now);
        self.cpu.push(cpu(view, now), now);
        self.lag.push(lag(view, now), now);
    }

    pub(super) fn panicked_at(&self) -> Option<Instant> {
        self.panicked
    }

    /// The most that anything asks for, where there are `current` pods.
    pub(super) fn wish(&mut self, seen: &Seen<'_>, current: u32) -> Wish {
        let (scaling, now) = (&seen.policy.scaling, seen.now);
        let capacity = scaling.connections_per_replica.max(1) as f64;
        let pods = |connections: f64, part: f64| (connections / (capacity * part)).ceil() as u32;
        let by_stable = pods(self.totals.mean(STABLE, now), scaling.connections_target);
        let by_short = pods(self.totals.mean(PANIC, now), scaling.connections_target);
        let ratio = f64::from(by_short) / f64::from(current.max(1));
        if ratio >= PANIC_RATIO {
            self.panicked = Some(now);
        }
        let panics = self
            .panicked
            .is_some_and(|at| now.saturating_duration_since(at) < STABLE);
        let by_connections = if panics {
            by_short.max(by_stable).max(current)
        } else {
            by_stable.max(by_short)
        };
        let total = self.totals.last();
        // A jump is no slope: it does not go on like that.
        let rise = self.slope(now).max(0.0) * READY_TIME.as_secs_f64();
        let ahead = total + rise.min(total);
        let cpu = self.cpu.steady(CPU_WINDOW, now) / scaling.cpu_target;
        let by_cpu = (f64::from(current) * cpu).ceil() as u32;
        let target = scaling.queue_delay_target.as_secs_f64().max(0.001);
        let late = self.lag.steady(LAG_WINDOW, now) / target;
        let by_queue = if late > 1.0 {
            (f64::from(current) * late.min(2.0)).ceil() as u32
        } else {
            0
        };
        let wishes = [
            (by_connections, ScaleReason::Connections),
            (pods(ahead, SLOPE_TARGET), ScaleReason::Slope),
            (by_cpu, ScaleReason::Cpu),
            (by_queue, ScaleReason::QueueDelay),
        ];
        let most = wishes.into_iter().max_by_key(|(pods, _)| *pods);
        let (pods, reason) = most.unwrap_or((current, ScaleReason::Connections));
        Wish {
            pods: pods.max(1),
            reason,
        }
    }

    /// Connections per second, over the last minute, or since the manager began.
    fn slope(&self, now: Instant) -> f64 {
        let Some((first_at, first)) = self.totals.0.front() else {
            return 0.0;
        };
        let span = now.saturating_duration_since(*first_at);
        if span < PANIC {
            0.0
        } else {
            (self.totals.last() - first) / span.as_secs_f64()
        }
    }
}

/// What was there, by time; older than [`STABLE`] is forgotten.
#[derive(Debug, Clone, Default)]
struct Series(VecDeque<(Instant, f64)>);

impl Series {
    fn push(&mut self, value: f64, now: Instant) {
        self.0.push_back((now, value));
        let old = |at: &Instant| now.saturating_duration_since(*at) > STABLE;
        while self.0.front().is_some_and(|(at, _)| old(at)) {
            self.0.pop_front();
        }
    }

    fn last(&self) -> f64 {
        self.0.back().map_or(0.0, |(_, value)| *value)
    }

    fn mean(&self, window: Duration, now: Instant) -> f64 {
        let recent = self
            .0
            .iter()
            .filter(|(at, _)| now.saturating_duration_since(*at) <= window);
        let (sum, count) = recent.fold((0.0, 0), |(sum, count), (_, value)| {
            (sum + value, count + 1)
        });
        sum / f64::from(count.max(1))
    }

    /// 0 until as much as the window was seen: a moment says little.
    fn steady(&self, window: Duration, now: Instant) -> f64 {
        let first = self.0.front();
        let seen = first.is_some_and(|(at, _)| now.saturating_duration_since(*at) >= window);
        if seen { self.mean(window, now) } else { 0.0 }
    }
}

/// Used by pods that are warm, as a part of what they request.
fn cpu(view: &View, now: Instant) -> f64 {
    let mut used = 0.0;
    let mut requested = 0.0;
    for pod in view.pods.values() {
        let request = pod
            .heard
            .as_ref()
            .and_then(|heard| heard.report.cpu_request_cores);
        if let Some((cores, request)) = pod.cpu_cores(now).zip(request) {
            used += cores;
            requested += request;
        }
    }
    if requested > 0.0 {
        used / requested
    } else {
        0.0
    }
}

/// Of the pod where requests wait the longest for what only the gateway itself causes, in seconds.
fn lag(view: &View, now: Instant) -> f64 {
    let heard = view.pods.values().filter_map(|pod| pod.fresh(now));
    let lag = heard.map(|heard| heard.report.queue.dispatch_lag).max();
    lag.unwrap_or_default().as_secs_f64()
}
