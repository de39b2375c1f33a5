//! What a worker found, as JSON; the reports of several workers add up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::histogram::Histogram;

/// Counts and times of one worker, from `go` on unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Report {
    /// Clients whose connect (and subscribe) succeeded, before `go`.
    pub connected: u64,
    /// Clients that could not, before `go`, by cause.
    pub refused: BTreeMap<String, u64>,
    /// How long the worker ran.
    pub elapsed_ns: u64,
    /// Messages published.
    pub published: u64,
    /// Replies to publishes without and with an error.
    pub accepted: u64,
    /// Error replies by code.
    pub errors: BTreeMap<u32, u64>,
    /// Publications received.
    pub deliveries: u64,
    /// Bytes received on established connections.
    pub received_bytes: u64,
    /// Reads that returned bytes. `deliveries / reads` estimates messages per server write, from above: the kernel
    /// may put several writes together before a busy client reads.
    pub reads: u64,
    /// Publish to receive, nanoseconds; for `reconnect` the time a connect took.
    pub latency: Histogram,
    /// Connections that ended before the worker wanted it, by close code, `eof` or kind of I/O error.
    pub closes: BTreeMap<String, u64>,
    /// When they ended, nanoseconds since `go`.
    pub close_times: Histogram,
    /// The same by close code and second, for a drain's shape.
    pub closes_by_second: BTreeMap<u64, u64>,
    /// Pings answered.
    pub pings: u64,
    /// What the probe saw, second by second.
    pub probe: Vec<ProbeSecond>,
}

/// What a probe saw in one second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeSecond {
    /// Seconds since `go`.
    pub second: u64,
    /// Presence replies with a list.
    pub lists: u64,
    /// Presence replies with an error, by code.
    pub list_errors: BTreeMap<u32, u64>,
    /// Presence requests that got no reply in time.
    pub list_timeouts: u64,
    /// New connections by HTTP status (101 is success; `error` when there was none).
    pub connects: BTreeMap<String, u64>,
}

impl Report {
    /// Adds what another worker found.
    pub fn merge(&mut self, other: Self) {
        self.connected += other.connected;
        self.elapsed_ns = self.elapsed_ns.max(other.elapsed_ns);
        self.published += other.published;
        self.accepted += other.accepted;
        self.deliveries += other.deliveries;
        self.received_bytes += other.received_bytes;
        self.reads += other.reads;
        self.pings += other.pings;
        self.latency.merge(&other.latency);
        self.close_times.merge(&other.close_times);
        add(&mut self.refused, other.refused);
        add(&mut self.errors, other.errors);
        add(&mut self.closes, other.closes);
        add(&mut self.closes_by_second, other.closes_by_second);
        self.probe.extend(other.probe);
    }

    /// Notes that a connection ended at `since_go_ns`.
    pub fn note_close(&mut self, cause: String, since_go_ns: u64) {
        *self.closes.entry(cause).or_default() += 1;
        self.close_times.record(since_go_ns);
        *self
            .closes_by_second
            .entry(since_go_ns / 1_000_000_000)
            .or_default() += 1;
    }
}

fn add<K: Ord>(into: &mut BTreeMap<K, u64>, from: BTreeMap<K, u64>) {
    for (key, count) in from {
        *into.entry(key).or_default() += count;
    }
}
