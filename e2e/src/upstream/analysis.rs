//! Questions to the records of an upstream.

use std::collections::HashMap;
use std::time::Duration;

use super::record::{Outcome, Record};

/// Most requests that arrived in any window of this length.
#[must_use]
pub fn max_in_window<'a>(records: impl IntoIterator<Item = &'a Record>, window: Duration) -> usize {
    let mut times: Vec<u64> = records
        .into_iter()
        .map(|record| record.arrived_ns)
        .collect();
    times.sort_unstable();
    let window_ns = window.as_nanos() as u64;
    let (mut first, mut most) = (0, 0);
    for (index, time) in times.iter().enumerate() {
        while times[first] + window_ns <= *time {
            first += 1;
        }
        most = most.max(index - first + 1);
    }
    most
}

/// Requests carried out per second between two times, by when they were done.
#[must_use]
pub fn done_per_second(records: &[Record], from_ns: u64, until_ns: u64) -> f64 {
    let done = records
        .iter()
        .filter(|record| is_done(record) && (from_ns..until_ns).contains(&record.done_ns))
        .count();
    done as f64 * 1e9 / (until_ns - from_ns).max(1) as f64
}

/// Whether the upstream spent its capacity on it.
#[must_use]
pub fn is_done(record: &Record) -> bool {
    matches!(
        record.outcome,
        Outcome::Applied | Outcome::DuplicateIgnored | Outcome::Repeated
    )
}

/// The share of requests that were turned away for want of capacity.
#[must_use]
pub fn refused_share(records: &[Record]) -> f64 {
    let refused = records
        .iter()
        .filter(|record| record.outcome == Outcome::Refused)
        .count();
    refused as f64 / records.len().max(1) as f64
}

/// When each request was first carried out, by application, device and number.
#[must_use]
pub fn first_done(records: &[Record]) -> HashMap<(&str, &str, u64), u64> {
    let mut done = HashMap::new();
    for record in records.iter().filter(|record| is_done(record)) {
        done.entry((&*record.app, &*record.device, record.seq))
            .or_insert(record.done_ns);
    }
    done
}

/// Those of the application with this key.
#[must_use]
pub fn of_app(records: &[Record], app: &str) -> Vec<Record> {
    records.iter().filter(|r| &*r.app == app).cloned().collect()
}

/// The part of a cap in requests per minute that was used between two times.
#[must_use]
pub fn used(records: &[Record], cap: usize, (from_ns, until_ns): (u64, u64)) -> f64 {
    let within = |record: &&Record| (from_ns..until_ns).contains(&record.arrived_ns);
    // A span does not begin and end with a request: one more or less says nothing.
    let arrived = records.iter().filter(within).count() as f64 + 1.0;
    arrived / (cap as f64 / 60.0 * (until_ns - from_ns) as f64 / 1e9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_slide() {
        let record = |ms: u64| Record {
            arrived_ns: ms * 1_000_000,
            done_ns: ms * 1_000_000,
            app: "a".into(),
            device: "d".into(),
            seq: 1,
            status: 200,
            outcome: Outcome::Applied,
        };
        // Ten around a whole second: a fixed window would see five.
        let records: Vec<Record> = (0..5)
            .map(|n| record(950 + n))
            .chain((0..5).map(|n| record(1_000 + n)))
            .collect();
        assert_eq!(max_in_window(&records, Duration::from_secs(1)), 10);
        assert_eq!(max_in_window(&records, Duration::from_millis(50)), 5);
        assert!((done_per_second(&records, 0, 2_000_000_000) - 5.0).abs() < 1e-9);
    }
}
