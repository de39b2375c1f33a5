//! A histogram with a bounded relative error, small enough to be sent between processes as JSON.
//!
//! Values fall into buckets of an eighth of a power of two, subdivided so that the error stays below 3.2 %.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Sub-buckets per power of two: 32 gives an error below 1/32.
const SUB_BITS: u32 = 5;

/// Counts by bucket; only buckets that were hit take space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    buckets: BTreeMap<u32, u64>,
    count: u64,
    max: u64,
}

impl Histogram {
    /// Adds one value.
    pub fn record(&mut self, value: u64) {
        *self.buckets.entry(bucket_of(value)).or_default() += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// Adds everything `other` holds.
    pub fn merge(&mut self, other: &Self) {
        for (bucket, count) in &other.buckets {
            *self.buckets.entry(*bucket).or_default() += count;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// How many values were recorded.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The largest value recorded.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.max
    }

    /// The value below which the share `quantile` (0 to 1) of all values lies; 0 when there are none.
    #[must_use]
    pub fn quantile(&self, quantile: f64) -> u64 {
        let wanted = (quantile * self.count as f64).ceil() as u64;
        if wanted >= self.count {
            return self.max;
        }
        let mut seen = 0;
        for (bucket, count) in &self.buckets {
            seen += count;
            if seen >= wanted {
                return value_of(*bucket).min(self.max);
            }
        }
        self.max
    }
}

fn bucket_of(value: u64) -> u32 {
    let magnitude = 63 - (value | 1).leading_zeros();
    if magnitude < SUB_BITS {
        // Small values have a bucket each; the cast is exact, they are below 32.
        return value as u32;
    }
    let sub = (value >> (magnitude - SUB_BITS)) as u32 & ((1 << SUB_BITS) - 1);
    ((magnitude - SUB_BITS + 1) << SUB_BITS) | sub
}

/// The middle of a bucket.
fn value_of(bucket: u32) -> u64 {
    let group = bucket >> SUB_BITS;
    let sub = u64::from(bucket & ((1 << SUB_BITS) - 1));
    if group == 0 {
        return sub;
    }
    let shift = group - 1;
    (((1 << SUB_BITS) + sub) << shift) + ((1u64 << shift) >> 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_the_promised_error() {
        let mut histogram = Histogram::default();
        for value in 1..=100_000u64 {
            histogram.record(value * 1000);
        }
        for quantile in [0.01, 0.5, 0.9, 0.99, 0.999] {
            let truth = quantile * 100_000_000.0;
            let error = (histogram.quantile(quantile) as f64 - truth).abs() / truth;
            assert!(error < 0.032, "{quantile}: {error}");
        }
        assert_eq!(histogram.quantile(1.0), 100_000_000);
    }

    #[test]
    fn merging_is_recording_everything_in_one() {
        let (mut left, mut right, mut both) = (
            Histogram::default(),
            Histogram::default(),
            Histogram::default(),
        );
        for value in [0, 1, 31, 32, 33, 1 << 20, u64::MAX] {
            left.record(value);
            both.record(value);
            right.record(value / 3);
            both.record(value / 3);
        }
        left.merge(&right);
        assert_eq!(left, both);
    }
}
