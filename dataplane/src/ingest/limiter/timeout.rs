//! How long an attempt may take, from how long attempts took.
//!
//! An attempt that ran out of time counts as one that took as long, so that an upstream which got slower than the
//! timeout is soon given more of it.

use std::time::Duration;

/// Attempts before which the longest time is allowed.
const SAMPLES_MIN: f64 = 20.0;
const TIMEOUT_MIN: Duration = Duration::from_secs(2);
/// Attempts after which old ones count half.
const SAMPLES_HALVED: f64 = 2000.0;
/// Upper bounds of the buckets: 1 ms times powers of this, up to two minutes.
const BUCKET_RATIO: f64 = 1.2;
const BUCKETS: usize = 65;

#[derive(Debug)]
pub(super) struct Timeout {
    counts: [f64; BUCKETS],
    total: f64,
}

impl Timeout {
    pub(super) fn new() -> Self {
        Self {
            counts: [0.0; BUCKETS],
            total: 0.0,
        }
    }

    pub(super) fn record(&mut self, latency: Duration) {
        let ratio = (latency.as_secs_f64() * 1000.0).max(1.0);
        let bucket = (ratio.ln() / BUCKET_RATIO.ln()).ceil() as usize;
        self.counts[bucket.min(BUCKETS - 1)] += 1.0;
        self.total += 1.0;
        if self.total >= SAMPLES_HALVED {
            for count in &mut self.counts {
                *count /= 2.0;
            }
            self.total /= 2.0;
        }
    }

    /// Four times the 99th percentile, within bounds.
    pub(super) fn value(&self, max: Duration) -> Duration {
        if self.total < SAMPLES_MIN {
            return max;
        }
        let mut above = self.total;
        let bucket = self.counts.iter().position(|count| {
            above -= count;
            above <= 0.01 * self.total
        });
        let bucket = bucket.unwrap_or(BUCKETS - 1);
        let p99_s = BUCKET_RATIO.powi(i32::try_from(bucket).unwrap_or(i32::MAX)) / 1000.0;
        Duration::from_secs_f64((4.0 * p99_s).min(max.as_secs_f64()))
            .max(TIMEOUT_MIN)
            .min(max)
    }
}
