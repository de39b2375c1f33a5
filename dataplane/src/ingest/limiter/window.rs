//! What came back from the upstream between two decisions.
//!
//! Owns the counts and latencies of one window. It decides nothing but whether enough came back to decide.

use std::time::{Duration, Instant};

use super::Class;
use super::trial::Results;

/// Latencies kept of one window: the median of more would not be a better one.
const SAMPLES_MAX: usize = 256;
/// A median of fewer says little.
pub(super) const MEDIAN_SAMPLES_MIN: usize = 5;
/// Latencies that are kept for the next window when there are no more.
const KEPT_BELOW: usize = 24;
/// Answers after which a window may close before its longest time.
const ANSWERS_MIN: u32 = 5;
const WINDOW_MIN_S: f64 = 0.25;
const WINDOW_MAX_S: f64 = 2.0;
/// A flood of refusals is not watched for a whole window.
const FLOOD_WINDOW_S: f64 = 0.02;
const FLOOD_REFUSALS: u32 = 10;

/// Latencies in seconds, the newest [`SAMPLES_MAX`].
#[derive(Debug, Default)]
pub(super) struct Samples {
    values: Vec<f64>,
    oldest: usize,
}

impl Samples {
    pub(super) fn push(&mut self, value: f64) {
        if self.values.len() < SAMPLES_MAX {
            self.values.push(value);
        } else {
            self.values[self.oldest] = value;
            self.oldest = (self.oldest + 1) % SAMPLES_MAX;
        }
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn clear(&mut self) {
        self.values.clear();
        self.oldest = 0;
    }

    pub(super) fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len().max(1) as f64
    }

    /// `None` for fewer than [`MEDIAN_SAMPLES_MIN`]. Reorders the samples.
    pub(super) fn median(&mut self) -> Option<Median> {
        let count = self.values.len();
        if count < MEDIAN_SAMPLES_MIN {
            return None;
        }
        let (lower, median, upper) = self
            .values
            .select_nth_unstable_by(count / 2, f64::total_cmp);
        let median_s = *median;
        let (_, low, _) = lower.select_nth_unstable_by(lower.len() / 2, f64::total_cmp);
        let low_s = *low;
        let high_s = if upper.is_empty() {
            median_s
        } else {
            let middle = upper.len() / 2;
            *upper.select_nth_unstable_by(middle, f64::total_cmp).1
        };
        // About one and a half standard errors of a median.
        let spread = (high_s - low_s) / median_s.max(1e-6);
        Some(Median {
            value_s: median_s,
            noise: 1.0 + (1.5 * spread / (count as f64).sqrt()).min(1.0),
        })
    }
}

/// What is in the middle of some latencies.
#[derive(Debug, Clone, Copy)]
pub(super) struct Median {
    pub(super) value_s: f64,
    /// The factor by which chance may have raised it.
    pub(super) noise: f64,
}

/// How one attempt ended, as far as windows care.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Answered; its latency counts.
    Ok,
    /// Answered; its latency says nothing.
    Answered,
    RateLimited,
    /// Refused for load, or never answered.
    Overloaded,
    /// Failed, for load or otherwise.
    Failed,
}

#[derive(Debug)]
pub(super) struct Window {
    pub(super) start: Instant,
    pub(super) answered: u32,
    /// Of these, those whose latency says nothing.
    pub(super) unmeasured: u32,
    pub(super) rate_limited: u32,
    pub(super) overloaded: u32,
    pub(super) failed: u32,
    /// Of all failures together.
    pub(super) failed_latency_s: f64,
    pub(super) sent: u32,
    /// A request had to wait because of the limit in flight, or the rate: without it the limits were not what
    /// bounded the load, and a good window says nothing about higher ones.
    pub(super) held_in_flight: bool,
    pub(super) held_rate: bool,
    latencies: [Samples; 2],
}

impl Window {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            start: now,
            answered: 0,
            unmeasured: 0,
            rate_limited: 0,
            overloaded: 0,
            failed: 0,
            failed_latency_s: 0.0,
            sent: 0,
            held_in_flight: false,
            held_rate: false,
            latencies: [Samples::default(), Samples::default()],
        }
    }

    /// Starts anew, but keeps latencies when they are few and `keep_samples`: they were measured under the same limits.
    pub(super) fn restart(&mut self, now: Instant, keep_samples: bool) {
        let [mut queued, mut proxied] = std::mem::take(&mut self.latencies);
        for samples in [&mut queued, &mut proxied] {
            if !keep_samples || samples.len() >= KEPT_BELOW {
                samples.clear();
            }
        }
        *self = Self {
            latencies: [queued, proxied],
            ..Self::new(now)
        };
    }

    pub(super) fn results(&self, seconds: f64) -> Results {
        Results {
            seconds,
            total: self.total(),
            answered: self.answered,
            failed: self.failed,
            failed_latency_s: self.failed_latency_s,
        }
    }

    pub(super) fn add_failed(&mut self, latency: Duration) {
        self.failed = self.failed.saturating_add(1);
        self.failed_latency_s += latency.as_secs_f64();
    }

    /// `latency` is `None` when it was measured under limits that are no longer in force.
    pub(super) fn add(&mut self, class: Class, kind: Kind, latency: Option<Duration>) {
        match kind {
            Kind::Ok => {
                self.answered = self.answered.saturating_add(1);
                if let Some(latency) = latency {
                    self.latencies[class.index()].push(latency.as_secs_f64());
                }
            }
            Kind::Answered => {
                self.answered = self.answered.saturating_add(1);
                self.unmeasured = self.unmeasured.saturating_add(1);
            }
            Kind::RateLimited => self.rate_limited = self.rate_limited.saturating_add(1),
            Kind::Overloaded => self.overloaded = self.overloaded.saturating_add(1),
            Kind::Failed => self.add_failed(latency.unwrap_or_default()),
        }
    }

    /// In a way that says that it is for load.
    pub(super) fn refused(&self) -> u32 {
        self.rate_limited.saturating_add(self.overloaded)
    }

    fn unanswered(&self) -> u32 {
        self.refused().saturating_add(self.failed)
    }

    pub(super) fn total(&self) -> u32 {
        self.answered.saturating_add(self.unanswered())
    }

    pub(super) fn unanswered_share(&self) -> f64 {
        f64::from(self.unanswered()) / f64::from(self.total().max(1))
    }

    pub(super) fn seconds(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.start).as_secs_f64()
    }

    pub(super) fn is_due(&self, base_s: Option<f64>, now: Instant) -> bool {
        let seconds = self.seconds(now);
        let base_s = base_s.unwrap_or(0.0);
        let shortest = (2.0 * base_s).clamp(WINDOW_MIN_S, WINDOW_MAX_S);
        let longest = (3.0 * base_s).max(WINDOW_MAX_S);
        let flood = self.unanswered() >= FLOOD_REFUSALS && self.unanswered() > self.answered;
        (seconds >= shortest && self.total() >= ANSWERS_MIN)
            || (seconds >= longest && self.total() > 0)
            || (seconds >= FLOOD_WINDOW_S && flood)
    }

    /// Of the class that says most: queued requests are alike, proxied calls are whatever people ask for.
    pub(super) fn median(&mut self) -> Option<(Class, Median)> {
        [Class::Queued, Class::Proxied]
            .into_iter()
            .find_map(|class| Some((class, self.latencies[class.index()].median()?)))
    }
}
