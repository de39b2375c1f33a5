//! The base latency: what the upstream needs for a request that waits for no other.
//!
//! Medians of many requests lower it at once. It rises only when the load is not bounded by the limit in flight, or
//! after a probe: while a queue stands at the upstream for long, nothing else tells the queue from the work, and a base
//! that follows the queue would let it grow without end.

use std::time::{Duration, Instant};

use super::Class;
use super::window::{MEDIAN_SAMPLES_MIN, Samples};

/// Samples whose median lowers the base. With fewer, chance alone would wear it down.
const POOL: usize = 128;
const SKEW_MAX: f64 = 8.0;
/// How far the base may rise from the median of the first samples while there are few.
const FIRST_GROWS: f64 = 1.3;
/// A median up to this much above the base confirms it.
const CONFIRMED: f64 = 1.1;
const INTERVAL_MIN_S: f64 = 20.0;
/// The interval in base latencies: a probe costs a few of them.
const INTERVAL_BASES: f64 = 60.0;
/// Samples of a probe after which it has its answer, and in how many base latencies it ends at the latest.
const PROBE_SAMPLES: usize = 20;
const PROBE_BASES: f64 = 5.0;
const PROBE_BASES_MAX: f64 = 100.0;
const PROBE_S_MIN: f64 = 0.2;
/// The part of what is needed in flight that a probe leaves.
const PROBE_FLIGHT: f64 = 0.6;
/// A probe that lowers latency by more than this part has not seen the end of the queue, or the base was right.
const HELPED: f64 = 0.2;

#[derive(Debug)]
pub(super) struct Base {
    values_s: [Option<f64>; 2],
    /// Mean over median: how uneven requests are.
    skews: [f64; 2],
    /// Of the first samples, until there are enough.
    first_s: [Option<f64>; 2],
    pools: [Samples; 2],
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
    /// Median latency before it.
    before_s: f64,
}

impl Base {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            values_s: [None, None],
            skews: [1.0, 1.0],
            first_s: [None, None],
            pools: [Samples::default(), Samples::default()],
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

    pub(super) fn skew(&self, class: Class) -> f64 {
        self.skews[class.index()]
    }

    /// Takes a window's median, which raises the base when the load was not `bounded` by the limit in flight.
    pub(super) fn observe(&mut self, class: Class, median_s: f64, bounded: bool, now: Instant) {
        if let Some(base_s) = self.of(class)
            && median_s > CONFIRMED * base_s
            && !bounded
            && self.is_stale(base_s, now)
        {
            self.values_s[class.index()] = Some(base_s + 0.1 * (median_s - base_s));
        }
    }

    fn pool(&mut self, class: Class, latency: Duration, now: Instant) {
        let known = self.of(class);
        let pool = &mut self.pools[class.index()];
        pool.push(latency.as_secs_f64());
        let is_first = self.first_s[class.index()].is_some();
        if pool.len() < POOL && known.is_some() && !is_first {
            return;
        }
        let Some(median_s) = pool.median().map(|median| median.value_s) else {
            return;
        };
        let Some(base_s) = known else {
            self.first_s[class.index()] = Some(median_s);
            self.set(class, median_s, now);
            return;
        };
        if pool.len() < POOL {
            // The first few samples may have been lucky.
            if let Some(first_s) = self.first_s[class.index()] {
                self.set(class, median_s.min(FIRST_GROWS * first_s).max(base_s), now);
            }
            return;
        }
        let skew = (pool.mean() / median_s.max(1e-5)).clamp(1.0, SKEW_MAX);
        pool.clear();
        let known_skew = &mut self.skews[class.index()];
        *known_skew = (*known_skew + skew) / 2.0;
        self.first_s[class.index()] = None;
        if median_s < base_s / CONFIRMED {
            self.set(class, median_s, now);
        } else if median_s < CONFIRMED * base_s {
            self.set(class, base_s + 0.2 * (median_s - base_s), now);
        }
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

    pub(super) fn start_probe(&mut self, class: Class, median_s: f64, limit: f64, now: Instant) {
        let Some(base_s) = self.of(class) else { return };
        let needed = PROBE_FLIGHT * limit * (base_s / median_s.max(1e-5)).min(1.0);
        self.probed_at = now;
        self.probe = Some(Probe {
            class,
            limit: needed.max(1.0),
            since: now,
            drained_at: None,
            samples: Samples::default(),
            before_s: median_s,
        });
    }

    /// Takes a success; `true`: a probe has just ended.
    pub(super) fn sample(
        &mut self,
        class: Class,
        latency: Duration,
        in_flight: u32,
        now: Instant,
    ) -> bool {
        self.pool(class, latency, now);
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
        let running_s = seconds(probe.since, now);
        let is_measured = probe.samples.len() >= PROBE_SAMPLES
            || (probe.samples.len() >= MEDIAN_SAMPLES_MIN
                && running_s > (PROBE_BASES * base_s).max(PROBE_S_MIN));
        if is_measured || running_s > (PROBE_BASES_MAX * base_s).max(10.0) {
            self.end_probe(now);
            return true;
        }
        false
    }

    fn end_probe(&mut self, now: Instant) {
        let Some(mut probe) = self.probe.take() else {
            return;
        };
        self.probed_at = now;
        self.confirmed_at = now;
        let (Some(median), Some(base_s)) = (probe.samples.median(), self.of(probe.class)) else {
            return;
        };
        let median_s = median.value_s;
        let helped = median_s < (1.0 - HELPED) * probe.before_s;
        let known_s = if median_s < CONFIRMED * base_s || !helped {
            // Halfway, because a short probe is noisy; all the way when the base is far off.
            if median_s < 1.5 * base_s && median_s > base_s / 1.5 {
                (base_s + median_s) / 2.0
            } else {
                median_s
            }
        } else {
            base_s
        };
        self.set(probe.class, known_s, now);
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
