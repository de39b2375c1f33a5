//! What a load found.

use std::collections::BTreeMap;

use crate::load::histogram::Histogram;

/// Sums over all connections.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Requests sent, retries included.
    pub sent: u64,
    /// Requests answered with 2xx.
    pub acked: u64,
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests sent that got no answer: they may have been taken. Device and number.
    pub in_doubt: Vec<(usize, u64)>,
    /// Connects that failed.
    pub unreachable: u64,
    /// Requests given up when the grace was over.
    pub given_up: u64,
    /// From when it was due to its answer, of requests that were taken at the first try.
    pub latency: Histogram,
    /// The same from when it was sent.
    pub service: Histogram,
    /// 2xx answers by second since the start.
    pub acked_by_second: BTreeMap<u64, u64>,
    /// Start and end on the monotonic clock.
    pub began_ns: u64,
    pub ended_ns: u64,
    first_device: usize,
    acked_by_device: Vec<u64>,
}

impl Outcome {
    pub(super) fn new(first_device: usize, devices: usize) -> Self {
        Self {
            first_device,
            acked_by_device: vec![0; devices],
            ..Self::default()
        }
    }

    pub(super) fn note_acked(&mut self, device: usize, second: u64) {
        self.acked += 1;
        self.acked_by_device[device - self.first_device] += 1;
        *self.acked_by_second.entry(second).or_default() += 1;
    }

    /// Devices and how many of their requests were taken. With retries these are the numbers from 1 on.
    pub fn devices(&self) -> impl Iterator<Item = (usize, u64)> {
        let numbered = self.acked_by_device.iter().enumerate();
        numbered.map(|(index, acked)| (self.first_device + index, *acked))
    }

    /// Answers other than 2xx.
    #[must_use]
    pub fn refused(&self) -> u64 {
        let others = self
            .statuses
            .iter()
            .filter(|(status, _)| !(200..300).contains(*status));
        others.map(|(_, count)| count).sum()
    }

    #[must_use]
    pub fn latency_ms(&self, quantile: f64) -> f64 {
        self.latency.quantile(quantile) as f64 / 1e6
    }

    #[must_use]
    pub fn seconds(&self) -> f64 {
        (self.ended_ns - self.began_ns) as f64 / 1e9
    }
}
