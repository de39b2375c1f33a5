//! What went under a cap in the last minute, and the lowest rate that it had: for requests that cost more than the burst.
//!
//! Kept by the second, and a little more than a minute of it, so that the sums are never too low.

use std::time::Instant;

/// A minute, and the second that has begun.
const SECONDS: usize = 61;

#[derive(Debug, Clone, Copy, Default)]
struct Second {
    sent: f64,
    /// Requests per minute.
    lowest: f64,
}

#[derive(Debug)]
pub(super) struct Minute {
    began: Instant,
    /// By their number since `began`, modulo.
    seconds: [Second; SECONDS],
    last: u64,
}

impl Minute {
    /// Of the time before nothing is known, which counts as a rate of nothing.
    pub(super) fn new(per_minute: f64, now: Instant) -> Self {
        let mut minute = Self {
            began: now,
            seconds: [Second::default(); SECONDS],
            last: 0,
        };
        minute.seconds[0].lowest = per_minute;
        minute
    }

    /// The rate in force since the last call was this one.
    pub(super) fn follow(&mut self, per_minute: f64, now: Instant) {
        let current = now.saturating_duration_since(self.began).as_secs();
        let new = current.saturating_sub(self.last).min(SECONDS as u64);
        for number in 0..new {
            *self.second(current - number) = Second {
                sent: 0.0,
                lowest: per_minute,
            };
        }
        self.last = self.last.max(current);
        let second = self.second(self.last);
        second.lowest = second.lowest.min(per_minute);
    }

    pub(super) fn sent(&mut self, cost: f64) {
        self.second(self.last).sent += cost;
    }

    /// Sent in the last minute, and the lowest rate within it.
    pub(super) fn sums(&self) -> (f64, f64) {
        self.seconds
            .iter()
            .fold((0.0, f64::INFINITY), |(sent, lowest), second| {
                (sent + second.sent, lowest.min(second.lowest))
            })
    }

    fn second(&mut self, number: u64) -> &mut Second {
        // The remainder is below SECONDS.
        &mut self.seconds[(number % SECONDS as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_older_than_a_minute_is_forgotten() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut minute = Minute::new(600.0, start);
        minute.sent(5.0);
        assert_eq!(minute.sums(), (5.0, 0.0));
        minute.follow(600.0, at(60));
        assert_eq!(minute.sums(), (5.0, 600.0));
        minute.sent(7.0);
        minute.follow(600.0, at(61));
        assert_eq!(minute.sums(), (7.0, 600.0));
        minute.follow(300.0, at(61));
        minute.follow(600.0, at(62));
        assert_eq!(minute.sums(), (7.0, 300.0));
        minute.follow(600.0, at(121));
        assert_eq!(minute.sums(), (0.0, 300.0));
        minute.follow(600.0, at(122));
        assert_eq!(minute.sums(), (0.0, 600.0));
        minute.sent(1.0);
        minute.follow(600.0, at(10_000));
        assert_eq!(minute.sums(), (0.0, 600.0));
    }
}
