//! What a data plane remembers of itself, for a manager that was not there: the last hour, whether it has a manager or not.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use sluice_proto::fleet::{PAST_MAX, PAST_STEP_S, Past, PastPoint, Queue, Relay};
use tokio::time::sleep;

use super::report::{self, Collector};
use super::reporter::Sides;
use crate::clock::unix_ms;

const PER_MINUTE: f64 = 60.0;
const STEP_MS: u64 = PAST_STEP_S * 1_000;

/// Points, the last one of which ends at a time that is known. Pure.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    /// Unix seconds; a multiple of the step.
    ends_s: u64,
    points: VecDeque<Option<PastPoint>>,
    last: Option<Seen>,
}

/// What is counted and how it is, at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) unix_ms: u64,
    pub(super) relay: Relay,
    pub(super) queue: Queue,
}

impl Remembered {
    /// Makes a point of the time since the last call. Clocks that are put back or forward leave a gap at most.
    pub(super) fn see(&mut self, now: Seen) {
        let ends_s = (now.unix_ms + STEP_MS / 2) / STEP_MS * PAST_STEP_S;
        let before = self.last.replace(now);
        let Some(before) = before.filter(|before| before.unix_ms < now.unix_ms) else {
            return;
        };
        if ends_s <= self.ends_s {
            return;
        }
        let missing = (ends_s - self.ends_s) / PAST_STEP_S - 1;
        if !self.points.is_empty() {
            let missing = usize::try_from(missing).unwrap_or(PAST_MAX).min(PAST_MAX);
            self.points.extend(std::iter::repeat_n(None, missing));
        }
        self.points.push_back(Some(point(&before, &now)));
        let too_many = self.points.len().saturating_sub(PAST_MAX);
        self.points.drain(..too_many);
        self.ends_s = ends_s;
    }

    pub(super) fn told(&self) -> Option<Past> {
        let from_s = self
            .ends_s
            .checked_sub(self.points.len() as u64 * PAST_STEP_S)?;
        (!self.points.is_empty()).then(|| Past {
            from_s,
            points: self.points.iter().copied().collect(),
        })
    }
}

fn point(before: &Seen, now: &Seen) -> PastPoint {
    let seconds = (now.unix_ms - before.unix_ms) as f64 / 1e3;
    let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / seconds;
    let (was, is) = (&before.queue, &now.queue);
    PastPoint {
        arrived_per_minute: (rate(was.arrived_total, is.arrived_total) * PER_MINUTE) as f32,
        delivered_per_minute: (rate(was.delivered_total, is.delivered_total) * PER_MINUTE) as f32,
        failed_per_minute: (rate(was.failed_total, is.failed_total) * PER_MINUTE) as f32,
        waiting: is.waiting as f32,
        oldest_seconds: is.oldest.as_secs_f32(),
        connections: now.relay.connections as f32,
        messages_in_per_second: rate(before.relay.messages_in_total, now.relay.messages_in_total)
            as f32,
        messages_out_per_second: rate(
            before.relay.messages_out_total,
            now.relay.messages_out_total,
        ) as f32,
    }
}

/// Sees for ever.
pub(super) async fn remember(sides: Sides, remembered: Arc<Mutex<Remembered>>) {
    let mut collector = Collector::default();
    loop {
        let queue = match &sides.ingest {
            Some(side) => {
                let config = Arc::clone(&sides.config.borrow());
                let applications = report::applications(&config);
                collector.ingest(side, &applications).await.queue
            }
            None => Queue::default(),
        };
        let seen = Seen {
            unix_ms: unix_ms(),
            relay: report::relay(&sides.relay),
            queue,
        };
        remembered.lock().see(seen);
        sleep(Duration::from_millis(STEP_MS - unix_ms() % STEP_MS)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(seconds: f64, arrived_total: u64) -> Seen {
        Seen {
            unix_ms: (seconds * 1e3) as u64,
            relay: Relay::default(),
            queue: Queue {
                arrived_total,
                ..Queue::default()
            },
        }
    }

    fn told(remembered: &Remembered) -> (u64, Vec<Option<f32>>) {
        let past = remembered.told().unwrap();
        let points = past.points.iter();
        (
            past.from_s,
            points
                .map(|point| point.map(|point| point.arrived_per_minute))
                .collect(),
        )
    }

    #[test]
    fn points_are_of_the_time_between_two_looks() {
        let mut remembered = Remembered::default();
        assert_eq!(remembered.told(), None);
        remembered.see(seen(1_000.0, 5));
        assert_eq!(remembered.told(), None);
        remembered.see(seen(1_010.01, 15));
        assert_eq!(told(&remembered).0, 1_000);
        // Late, and once not at all.
        remembered.see(seen(1_040.0, 45));
        let (from_s, points) = told(&remembered);
        assert_eq!((from_s, points.len()), (1_000, 4));
        assert!(points[1].is_none() && points[2].is_none());
        assert!((points[3].unwrap() - 60.0).abs() < 0.1, "{points:?}");
        // A clock that was put back, and one that was put forward by a year.
        remembered.see(seen(900.0, 50));
        assert_eq!(told(&remembered).1.len(), 4);
        remembered.see(seen(31_536_000.0, 50));
        let (from_s, points) = told(&remembered);
        assert_eq!((from_s, points.len()), (31_536_000 - 3_600, PAST_MAX));
        assert!(points[..PAST_MAX - 1].iter().all(Option::is_none));
    }
}
