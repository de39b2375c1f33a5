//! The base latency: what the upstream needs for a request that waits for no other.
//!
//! Medians below it lower it at once, in proportion to how much they rest on. It rises only when the load is not bounded
//! by the limit in flight, or after a probe: while a queue stands at the upstream for long, nothing else tells the queue
//! from the work, and a base that follows the queue would let it grow without end.

use std::time::{Duration, Instant};

use super::Class;
use super::window::Samples;

/// Samples that move the base by a whole step.
const FULL_WEIGHT: f64 = 64.0;
/// A median up to this much above the base confirms it.
const CONFIRMED: f64 = 1.1;
const INTERVAL_MIN_S: f64 = 20.0;
/// The interval in base latencies: a probe costs a few of them.
const INTERVAL_BASES: f64 = 60.0;
/// Samples of a probe after which it has its answer, and in how many base latencies it ends at the latest.
const PROBE_SAMPLES: usize = 24;
const PROBE_BASES_MAX: f64 = 12.0;
const PROBE_S_MIN: f64 = 0.2;
/// The part of what is needed in flight that a probe leaves.
const PROBE_FLIGHT: f64 = 0.5;

#[derive(Debug)]
pub(super) struct Base {
    values_s: [Option<f64>; 2],
    confirmed_at: Instant,
    probed_at: Instant,
    probe: Option<Probe>,
}

#[derive(Debug)]
struct Probe {
    class: Class,
    /// In flight while it lasts.
    limit: f64,
    since: Instant,
    /// When the requests from before the probe were through.
    drained_at: Option<Instant>,
    samples: Samples,
}

impl Base {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            values_s: [None, None],
            confirmed_at: now,
            probed_at: now,
            probe: None,
        }
    }

    /// Of queued requests, or else of proxied calls.
    pub(super) fn value_s(&self) -> Option<f64> {
        self.values_s[0].or(self.values_s[1])
    }

    pub(super) fn of(&self, class: Class) -> Option<f64> {
        self.values_s[class.index()]
    }

    /// Takes a window's median and returns the base. `bounded`: the limit in flight bounded the load.
    pub(super) fn observe(
        &mut self,
        class: Class,
        median_s: f64,
        count: usize,
        bounded: bool,
        now: Instant,
    ) -> f64 {
        let weight = (count as f64 / FULL_WEIGHT).min(1.0);
        let Some(base_s) = self.of(class) else {
            return self.set(class, median_s, now);
        };
        if median_s <= CONFIRMED * base_s {
            let step = (median_s - base_s).min(0.0) * weight;
            return self.set(class, base_s + step, now);
        }
        if !bounded && self.is_stale(base_s, now) {
            let risen = base_s + (median_s - base_s) * 0.2 * weight;
            self.values_s[class.index()] = Some(risen);
            return risen;
        }
        base_s
    }

    /// The limit that a running probe sets.
    pub(super) fn probe_limit(&self) -> Option<f64> {
        self.probe.as_ref().map(|probe| probe.limit)
    }

    /// Whether a probe is due, `urgent`ly or because the base was not seen for long. `spread` is random in 0..1, so that
    /// data planes do not stay in step by chance for ever.
    pub(super) fn is_due(&self, class: Class, urgent: bool, spread: f64, now: Instant) -> bool {
        let Some(base_s) = self.of(class) else {
            return false;
        };
        if self.probe.is_some() {
            return false;
        }
        let since_probe_s = seconds(self.probed_at, now);
        if urgent {
            return since_probe_s > (20.0 * base_s).max(5.0);
        }
        let interval_s = interval_s(base_s) * (1.0 + 0.1 * spread);
        since_probe_s > interval_s && seconds(self.confirmed_at, now) > interval_s
    }

    pub(super) fn start_probe(&mut self, class: Class, goodput: f64, limit: f64, now: Instant) {
        let Some(base_s) = self.of(class) else { return };
        let needed = (PROBE_FLIGHT * goodput * base_s).min(PROBE_FLIGHT * limit);
        self.probed_at = now;
        self.probe = Some(Probe {
            class,
            limit: needed.max(1.0),
            since: now,
            drained_at: None,
            samples: Samples::default(),
        });
    }

    /// Takes a success during a probe; `true`: the probe has just ended.
    pub(super) fn sample(
        &mut self,
        class: Class,
        latency: Duration,
        in_flight: u32,
        now: Instant,
    ) -> bool {
        let Some(base_s) = self.value_s() else {
            return false;
        };
        let Some(probe) = &mut self.probe else {
            return false;
        };
        if probe.drained_at.is_none() && f64::from(in_flight) <= probe.limit {
            probe.drained_at = Some(now);
        }
        if let (Some(drained_at), true) = (probe.drained_at, class == probe.class) {
            let sent_after = now
                .checked_sub(latency)
                .is_some_and(|sent_at| sent_at >= drained_at);
            if sent_after {
                probe.samples.push(latency.as_secs_f64());
            }
        }
        let longest_s = (PROBE_BASES_MAX * base_s).max(PROBE_S_MIN);
        if probe.samples.len() < PROBE_SAMPLES && seconds(probe.since, now) < longest_s {
            return false;
        }
        let class = probe.class;
        let median = probe.samples.median();
        self.probe = None;
        self.probed_at = now;
        if let Some(median_s) = median {
            self.set(class, median_s, now);
        }
        true
    }

    pub(super) fn abort_probe(&mut self) {
        self.probe = None;
    }

    fn is_stale(&self, base_s: f64, now: Instant) -> bool {
        seconds(self.confirmed_at, now) > interval_s(base_s)
    }

    fn set(&mut self, class: Class, value_s: f64, now: Instant) -> f64 {
        // Half a bucket of the clock of a coarse machine; keeps ratios finite.
        let value_s = value_s.max(1e-5);
        self.values_s[class.index()] = Some(value_s);
        self.confirmed_at = now;
        value_s
    }
}

fn interval_s(base_s: f64) -> f64 {
    (INTERVAL_BASES * base_s).max(INTERVAL_MIN_S)
}

fn seconds(since: Instant, now: Instant) -> f64 {
    now.saturating_duration_since(since).as_secs_f64()
}
