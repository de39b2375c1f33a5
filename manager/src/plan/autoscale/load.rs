//! How many pods the load asks for, before any limit: the most that connections, their slope, CPU or waiting ask for.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Seen;
use crate::plan::ScaleReason;
use crate::policy::Policy;
use crate::view::View;

/// Totals are remembered for so long, for the slope; and reckoned by in a panic for so long.
const STABLE: Duration = Duration::from_secs(60);
const PANIC: Duration = Duration::from_secs(6);
/// Wanted by the last seconds, as a part of what there is, from which on those alone count.
const PANIC_RATIO: f64 = 1.5;
/// Until a new pod takes clients.
const READY_TIME: Duration = Duration::from_secs(45);
/// What the slope leads to may fill pods so far.
const SLOPE_TARGET: f64 = 0.85;

/// What was seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Load {
    totals: VecDeque<(Instant, u64)>,
    panicked: Option<Instant>,
}

pub(super) struct Wish {
    pub(super) pods: u32,
    pub(super) reason: ScaleReason,
}

impl Load {
    pub(super) fn remember(&mut self, view: &View, now: Instant) {
        self.totals.push_back((now, view.connections(now)));
        let old = |at: &Instant| now.saturating_duration_since(*at) > STABLE;
        while self.totals.front().is_some_and(|(at, _)| old(at)) {
            self.totals.pop_front();
        }
    }

    pub(super) fn panicked_at(&self) -> Option<Instant> {
        self.panicked
    }

    /// The most that anything asks for, where there are `current` pods.
    pub(super) fn wish(&mut self, seen: &Seen<'_>, current: u32) -> Wish {
        let Seen {
            view, policy, now, ..
        } = *seen;
        let scaling = &policy.scaling;
        let capacity = scaling.connections_per_replica.max(1) as f64;
        let pods = |connections: f64, part: f64| (connections / (capacity * part)).ceil() as u32;
        let by_stable = pods(self.mean(STABLE, now), scaling.connections_target);
        let by_short = pods(self.mean(PANIC, now), scaling.connections_target);
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
        let total = self.totals.back().map_or(0, |(_, total)| *total) as f64;
        // A jump is no slope: it does not go on like that.
        let rise = self.slope(now).max(0.0) * READY_TIME.as_secs_f64();
        let ahead = total + rise.min(total);
        let wishes = [
            (by_connections, ScaleReason::Connections),
            (pods(ahead, SLOPE_TARGET), ScaleReason::Slope),
            (by_cpu(view, policy, current, now), ScaleReason::Cpu),
            (
                by_queue(view, policy, current, now),
                ScaleReason::QueueDelay,
            ),
        ];
        let most = wishes.into_iter().max_by_key(|(pods, _)| *pods);
        let (pods, reason) = most.unwrap_or((current, ScaleReason::Steady));
        Wish {
            pods: pods.max(1),
            reason,
        }
    }

    fn mean(&self, window: Duration, now: Instant) -> f64 {
        let recent = self
            .totals
            .iter()
            .filter(|(at, _)| now.saturating_duration_since(*at) <= window);
        let (sum, count) = recent.fold((0, 0), |(sum, count), (_, total)| (sum + total, count + 1));
        sum as f64 / f64::from(count.max(1))
    }

    /// Connections per second, over the last minute, or since the manager began.
    fn slope(&self, now: Instant) -> f64 {
        let Some((first_at, first)) = self.totals.front() else {
            return 0.0;
        };
        let last = self.totals.back().map_or(0, |(_, total)| *total);
        let span = now.saturating_duration_since(*first_at).as_secs_f64();
        if span < PANIC.as_secs_f64() {
            0.0
        } else {
            (last as f64 - *first as f64) / span
        }
    }
}

fn by_cpu(view: &View, policy: &Policy, current: u32, now: Instant) -> u32 {
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
    if requested <= 0.0 {
        return 0;
    }
    (f64::from(current) * used / (requested * policy.scaling.cpu_target)).ceil() as u32
}

/// Only what the gateway itself causes.
fn by_queue(view: &View, policy: &Policy, current: u32, now: Instant) -> u32 {
    let lags = view.pods.values().filter_map(|pod| pod.fresh(now));
    let lag = lags
        .map(|heard| heard.report.queue.dispatch_lag)
        .max()
        .unwrap_or_default();
    let ratio = lag.as_secs_f64() / policy.scaling.queue_delay_target.as_secs_f64().max(0.001);
    if ratio <= 1.0 {
        0
    } else {
        (f64::from(current) * ratio.min(2.0)).ceil() as u32
    }
}
