//! The limit in flight: how many requests may be under way.
//!
//! It follows latency: as long as the median stays near the latency of the empty upstream it grows, and it falls when
//! requests queue up there. Refusals for load cut it, and the point where they came is approached with care.

use std::time::{Duration, Instant};

use super::window::Median;

/// Where a limiter starts: enough to measure with, little enough for any upstream.
const INITIAL: f64 = 1.0;
/// What is left of any limit after a pause.
const LEFT: f64 = 2.0;
/// Growth per window while nothing speaks against it, and later.
const FAST_GROWTH: f64 = 1.5;
const GROWTH: f64 = 1.1;
/// Growth near the end of what latency allows.
const SLOW_GROWTH: f64 = 1.02;
/// Time in the upstream's queue, in mean service times, above which the limit falls, and where growth gets slow.
const TOLERANCE: f64 = 0.6;
const COMFORT: f64 = 0.3;
/// Queueing that is not worth a decision, where base latency is so short that noise looks like it.
const SLACK_S: f64 = 0.003;
/// How long the point of the last refusal is believed.
const CAP_MEMORY: Duration = Duration::from_secs(60);
const HOLD: Duration = Duration::from_secs(2);
/// Idle time after which half of the limit is forgotten.
const FORGET_S: f64 = 300.0;

#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) min: f64,
    pub(super) max: f64,
}

#[derive(Debug, Clone)]
pub(super) struct Flight {
    limit: f64,
    bounds: Bounds,
    /// Below it growth is fast.
    threshold: f64,
    /// Where the upstream refused, and when.
    cap: Option<(f64, Instant)>,
    hold_until: Instant,
    /// Answers per second at the last fast growth.
    grown_at: f64,
    /// The limit at the first of the latency cuts in a row.
    falling_from: Option<f64>,
}

/// What a window's latency did to the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    Grown,
    /// Up by so much that latencies from before say nothing.
    Leapt,
    /// Down for latency.
    Cut,
    /// Down for latency for the last time before the base should be measured again: much lower, and it does not help.
    CutInVain,
}

impl Flight {
    pub(super) fn new(bounds: Bounds, now: Instant) -> Self {
        Self {
            limit: INITIAL.clamp(bounds.min, bounds.max),
            bounds,
            threshold: f64::INFINITY,
            cap: None,
            hold_until: now,
            grown_at: 0.0,
            falling_from: None,
        }
    }

    pub(super) fn limit(&self) -> f64 {
        self.limit
    }

    pub(super) fn set_bounds(&mut self, bounds: Bounds) {
        self.bounds = bounds;
        self.set(self.limit);
    }

    pub(super) fn is_floor(&self) -> bool {
        self.limit <= self.bounds.min
    }

    pub(super) fn max(&self) -> f64 {
        self.bounds.max
    }

    /// A window without refusals. `base` is the base latency and how much longer the mean is than the median; `held`: the
    /// limit was what bounded the load.
    pub(super) fn follow(
        &mut self,
        median: Median,
        base: (f64, f64),
        goodput: Option<f64>,
        held: bool,
        now: Instant,
    ) -> Change {
        let Median {
            value_s: median_s,
            noise,
        } = median;
        let tolerated = noise * tolerated_s(base, TOLERANCE);
        if median_s > tolerated {
            return self.fall(tolerated / median_s);
        }
        self.falling_from = None;
        if !held || now < self.hold_until {
            return Change::None;
        }
        let comfortable = median_s <= (1.0 + noise) / 2.0 * tolerated_s(base, COMFORT);
        let step = if let Some(near) = self.near_cap(now) {
            near
        } else if !comfortable {
            ((SLOW_GROWTH - 1.0) * self.limit).max(0.25)
        } else if self.limit < self.threshold {
            let step = self.fast_step(goodput);
            self.grow(step);
            return Change::Leapt;
        } else {
            ((GROWTH - 1.0) * self.limit).max(0.5)
        };
        self.grow(step)
    }

    /// Nothing is known of latency, only that answers come.
    pub(super) fn creep(&mut self, held: bool, now: Instant) -> Change {
        if !held || now < self.hold_until {
            return Change::None;
        }
        self.grow(0.5)
    }

    /// Refused for load.
    pub(super) fn cut(&mut self, base_s: f64, now: Instant) {
        self.set((0.85 * self.limit).min(self.limit - 1.0));
        self.cap = Some((self.limit, now));
        self.threshold = self.limit;
        self.hold_until = now + HOLD.max(Duration::from_secs_f64((2.0 * base_s).min(10.0)));
        self.falling_from = None;
    }

    /// So many are needed for what the upstream takes.
    pub(super) fn keep(&mut self, needed: f64) {
        self.set(self.limit.max(needed));
    }

    /// After an outage. `unanswered` requests, probes most of all, may take up places for long.
    pub(super) fn restart(&mut self, unanswered: u32, now: Instant) {
        self.threshold = self.limit;
        self.grown_at = 0.0;
        self.set((0.25 * self.limit).max(LEFT.min(self.limit)) + f64::from(unanswered));
        self.hold_until = now;
        self.falling_from = None;
    }

    /// After a time without requests: what was good then may be too much now.
    pub(super) fn forget(&mut self, idle: Duration, now: Instant) {
        self.grown_at = 0.0;
        let kept = 0.5f64.powf(idle.as_secs_f64() / FORGET_S);
        self.threshold = self.threshold.min(self.limit);
        self.set((kept * self.limit).max(LEFT.min(self.limit)));
        self.hold_until = now;
    }

    /// What was refused had nothing to do with the load.
    pub(super) fn restore(&mut self, limit: f64, now: Instant) {
        self.set(limit);
        self.cap = None;
        self.hold_until = now;
    }

    fn fall(&mut self, gradient: f64) -> Change {
        let from = *self.falling_from.get_or_insert(self.limit);
        self.threshold = self.limit;
        self.set(self.limit * (0.5 + 0.5 * gradient).max(0.7));
        if self.limit <= (0.6 * from).max(self.bounds.min) {
            self.falling_from = None;
            return Change::CutInVain;
        }
        Change::Cut
    }

    fn grow(&mut self, step: f64) -> Change {
        let before = self.limit;
        self.set(self.limit + step);
        if self.limit > before {
            Change::Grown
        } else {
            Change::None
        }
    }

    /// Growth that brings no more answers ends fast growth: requests get lost, or wait where latency does not show it.
    fn fast_step(&mut self, goodput: Option<f64>) -> f64 {
        if let Some(goodput) = goodput {
            if goodput <= 1.1 * self.grown_at {
                self.threshold = self.limit / FAST_GROWTH;
                return self.threshold - self.limit;
            }
            self.grown_at = goodput;
        }
        ((FAST_GROWTH - 1.0) * self.limit).max(1.0)
    }

    /// The step near the point of the last refusal.
    fn near_cap(&mut self, now: Instant) -> Option<f64> {
        let (cap, at) = self.cap?;
        if now.saturating_duration_since(at) > CAP_MEMORY || self.limit > 1.25 * cap + 1.0 {
            self.cap = None;
            return None;
        }
        (self.limit >= 0.9 * cap).then(|| (0.01 * self.limit).max(0.1))
    }

    fn set(&mut self, limit: f64) {
        self.limit = limit.clamp(self.bounds.min, self.bounds.max);
    }
}

/// The median of an upstream where requests wait for `queue` mean service times, and at least a little above the base.
fn tolerated_s((base_s, skew): (f64, f64), queue: f64) -> f64 {
    let little_s = (base_s + SLACK_S).min(2.9 * base_s);
    (base_s * (1.0 + queue * skew)).max(little_s)
}
