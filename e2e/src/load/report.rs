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
    /// What clients found that follow numbered messages.
    pub followed: Followed,
    /// What the probe saw, second by second.
    pub probe: Vec<ProbeSecond>,
}

/// What clients found that follow numbered messages.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Followed {
    /// The last numbers of all clients, added up.
    pub reached: u64,
    /// Numbers jumped over without a word of the server, or whose offset did not follow.
    pub lost: u64,
    /// Numbers that came again.
    pub repeated: u64,
    /// How often the server said that it could not recover.
    pub told: u64,
    /// Numbers missing where the server said so.
    pub told_missing: u64,
    /// How often the server took a position back (2500), and other unsubscriptions.
    pub unsubscribed: u64,
    /// Messages that came with a subscribe reply.
    pub recovered: u64,
    /// Clients that came back, each time counted, and tries that failed, by cause.
    pub returns: u64,
    pub failed: BTreeMap<String, u64>,
    /// From a connection's end to the subscribe reply on the next, nanoseconds.
    pub away: Histogram,
    /// When the last of them was back, by the machine's monotonic clock; 0: none was away.
    pub last_return_ns: u64,
    /// Clients without a subscription at the end.
    pub away_at_end: u64,
    /// Publish to receive of clients that have been away, nanoseconds.
    pub latency: Histogram,
}

impl Followed {
    fn merge(&mut self, other: Self) {
        self.reached += other.reached;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.told += other.told;
        self.told_missing += other.told_missing;
        self.unsubscribed += other.unsubscribed;
        self.recovered += other.recovered;
        self.returns += other.returns;
        self.away.merge(&other.away);
        self.last_return_ns = self.last_return_ns.max(other.last_return_ns);
        self.away_at_end += other.away_at_end;
        self.latency.merge(&other.latency);
        add(&mut self.failed, other.failed);
    }
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
        self.followed.merge(other.followed);
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
