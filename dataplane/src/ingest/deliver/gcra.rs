//! A cap in requests per minute: the generic cell rate algorithm, as a debt that is worked off at the capped rate.
//!
//! In any stretch of one second at most a second's worth and the burst are let through. The burst is a twentieth of a
//! second's worth, or one request where that is more, so that a stretch never has more than 1.05 times the cap (or one
//! request above it) and the sender's timers may still be late by 50 ms without losing any of it. What costs more than
//! the burst waits until nothing is owed, is let through whole, and is paid for afterwards. Where that is not enough, the caller
//! asks what was left unused before.

use std::time::{Duration, Instant};

/// Seconds' worth that may go at once.
const BURST_S: f64 = 0.05;
/// Far below one request: rounding of times must not delay what is due.
const EPSILON: f64 = 1e-6;
/// The longest wait that is told; whoever waits asks again. Keeps arithmetic in bounds for any cost.
const WAIT_MAX_S: f64 = 3600.0;

#[derive(Debug, Clone)]
pub struct Gcra {
    per_second: f64,
    /// Requests let through and not yet worked off, at `at`. Below zero: what was left unused since nothing is owed.
    debt: f64,
    at: Instant,
    /// Requests beyond the burst that may go at once, for a sender that comes late.
    slack: f64,
}

impl Gcra {
    /// Owes nothing at first. At a rate of zero nothing goes.
    pub fn new(per_minute: f64, now: Instant) -> Self {
        Self {
            per_second: per_minute / 60.0,
            debt: 0.0,
            at: now,
            slack: 0.0,
        }
    }

    /// Whether `cost` requests may go now, or when to ask again. Takes nothing.
    pub fn check(&self, now: Instant, cost: u32) -> Result<(), Instant> {
        if self.per_second <= 0.0 {
            return Err(now + Duration::from_secs_f64(WAIT_MAX_S));
        }
        let cost = f64::from(cost.max(1));
        let debt_allowed = (self.burst() - cost).max(0.0);
        let excess = self.owed(now) - debt_allowed;
        if excess <= EPSILON {
            return Ok(());
        }
        Err(self.after(excess, now))
    }

    /// Charges `cost` requests, whether or not they were allowed.
    pub fn take(&mut self, now: Instant, cost: u32) {
        self.debt = self.owed(now) + f64::from(cost.max(1));
        self.at = self.at.max(now);
    }

    /// Charges to what was left unused, as far as it goes.
    pub fn take_from_unused(&mut self, now: Instant, cost: u32) {
        self.debt = self.debt_at(now) + f64::from(cost.max(1));
        self.at = self.at.max(now);
    }

    /// What is owed stays owed, and is worked off at the new rate.
    pub fn set_rate(&mut self, per_minute: f64, now: Instant) {
        self.debt = self.debt_at(now);
        self.at = self.at.max(now);
        self.per_second = per_minute / 60.0;
    }

    /// More of it than before is charged at once: it is there for what is late, not for more to be sent.
    pub fn set_slack(&mut self, slack: f64, now: Instant) {
        self.debt = self.debt_at(now) + (slack - self.slack).max(0.0);
        self.at = self.at.max(now);
        self.slack = slack;
    }

    pub fn per_minute(&self) -> f64 {
        self.per_second * 60.0
    }

    /// Requests that may go at once.
    pub fn burst(&self) -> f64 {
        (BURST_S * self.per_second).max(1.0) + self.slack
    }

    /// Requests let through and not yet worked off.
    pub fn owed(&self, now: Instant) -> f64 {
        self.debt_at(now).max(0.0)
    }

    /// What could have gone since nothing is owed and did not.
    pub fn unused(&self, now: Instant) -> f64 {
        (-self.debt_at(now)).max(0.0)
    }

    /// When so much has been worked off, or left unused.
    pub fn after(&self, requests: f64, now: Instant) -> Instant {
        let wait_s = (requests / self.per_second).clamp(0.0, WAIT_MAX_S);
        now + Duration::from_secs_f64(wait_s) + Duration::from_nanos(1)
    }

    fn debt_at(&self, now: Instant) -> f64 {
        let elapsed_s = now.saturating_duration_since(self.at).as_secs_f64();
        self.debt - elapsed_s * self.per_second
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Times in seconds and costs of what goes through when `asked` come with these pauses and each waits its turn.
    fn sent(cap: &mut Gcra, start: Instant, asked: &[(u64, u32)]) -> Vec<(f64, u32)> {
        let mut now = start;
        let mut sent = Vec::new();
        for (pause_us, cost) in asked {
            now += Duration::from_micros(*pause_us);
            while let Err(until) = cap.check(now, *cost) {
                assert!(until > now);
                now = until;
            }
            cap.take(now, *cost);
            sent.push(((now - start).as_secs_f64(), *cost));
        }
        sent
    }

    fn most_in_a_second(sent: &[(f64, u32)]) -> u64 {
        (0..sent.len())
            .map(|first| {
                sent[first..]
                    .iter()
                    .take_while(|(at_s, _)| at_s - sent[first].0 <= 1.0)
                    .map(|(_, cost)| u64::from(*cost))
                    .sum()
            })
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn a_backlog_goes_at_the_cap() {
        let start = Instant::now();
        let mut cap = Gcra::new(6_000.0, start);
        let sent = sent(&mut cap, start, &[(0, 1); 1_000]);
        let last_s = sent[999].0;
        assert!((9.9..=10.0).contains(&last_s), "{last_s}");
        assert!(most_in_a_second(&sent) <= 105);
    }

    #[test]
    fn more_than_the_burst_goes_when_nothing_is_owed_and_is_paid_for() {
        let start = Instant::now();
        let mut cap = Gcra::new(6_000.0, start);
        assert_eq!(cap.check(start, 100), Ok(()));
        cap.take(start, 100);
        let until = cap.check(start, 1).unwrap_err();
        assert!((until - start).as_secs_f64() > 0.95);
        assert_eq!(cap.check(until, 1), Ok(()));
        assert!(cap.check(until, 100).is_err());
        assert_eq!(cap.check(start + Duration::from_secs(1), 100), Ok(()));
    }

    #[test]
    fn a_new_rate_keeps_the_debt() {
        let start = Instant::now();
        let mut cap = Gcra::new(60.0, start);
        cap.take(start, 61);
        cap.set_rate(600.0, start);
        let until = cap.check(start, 1).unwrap_err();
        let wait_s = (until - start).as_secs_f64();
        assert!((6.0..6.2).contains(&wait_s), "{wait_s}");
    }

    #[test]
    fn an_hour_of_nothing_saves_nothing_up() {
        let start = Instant::now();
        let mut cap = Gcra::new(6_000.0, start);
        let later = start + Duration::from_secs(3_600);
        let at_once = (0..100)
            .take_while(|_| cap.check(later, 1).map(|()| cap.take(later, 1)).is_ok())
            .count();
        assert_eq!(at_once, 5);
    }

    #[test]
    fn a_clock_read_earlier_does_no_harm() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut cap = Gcra::new(60.0, start);
        cap.take(start, 1);
        let earlier = start - Duration::from_secs(5);
        assert!(cap.check(earlier, 1).is_err());
        cap.take(earlier, 1);
        assert!(cap.check(start + Duration::from_millis(1_900), 1).is_err());
        assert!(cap.check(start + Duration::from_millis(2_001), 1).is_ok());
    }

    #[test]
    fn what_is_left_unused_is_counted_until_something_goes() {
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        let mut cap = Gcra::new(60.0, start);
        assert_eq!(cap.unused(at(10)), 10.0);
        cap.set_rate(120.0, at(10));
        assert_eq!(cap.unused(at(20)), 30.0);
        cap.take_from_unused(at(20), 5);
        assert_eq!((cap.unused(at(20)), cap.owed(at(20))), (25.0, 0.0));
        cap.take(at(20), 4);
        assert_eq!((cap.unused(at(20)), cap.owed(at(20))), (0.0, 4.0));
        assert_eq!((cap.unused(at(23)), cap.owed(at(23))), (2.0, 0.0));
    }

    #[test]
    fn nothing_goes_at_a_rate_of_zero_and_fractions_count() {
        let start = Instant::now();
        let mut cap = Gcra::new(0.0, start);
        assert!(cap.check(start + Duration::from_secs(9_999), 1).is_err());
        cap.set_rate(0.5, start);
        assert_eq!(cap.check(start, 1), Ok(()));
        cap.take(start, 1);
        assert!(cap.check(start + Duration::from_secs(119), 1).is_err());
        assert_eq!(cap.check(start + Duration::from_secs(120), 1), Ok(()));
    }

    proptest! {
        #[test]
        fn no_second_has_more_than_the_cap_and_the_burst(
            per_minute in 1u32..100_000,
            asked in prop::collection::vec((0u64..2_000_000, 1u32..4), 1..200),
        ) {
            let start = Instant::now();
            let mut cap = Gcra::new(per_minute.into(), start);
            let largest = asked.iter().map(|(_, cost)| *cost).max().unwrap_or(1);
            let sent = sent(&mut cap, start, &asked);
            let cap_per_second = f64::from(per_minute) / 60.0;
            let burst = cap.burst().max(f64::from(largest));
            prop_assert!(most_in_a_second(&sent) as f64 <= cap_per_second + burst + 1e-3);
        }

        #[test]
        fn single_requests_stay_within_five_percent_or_one(
            per_minute in 1u32..100_000,
            pauses in prop::collection::vec(0u64..20_000, 1..300),
        ) {
            let start = Instant::now();
            let mut cap = Gcra::new(per_minute.into(), start);
            let asked: Vec<(u64, u32)> = pauses.into_iter().map(|pause| (pause, 1)).collect();
            let sent = sent(&mut cap, start, &asked);
            let cap_per_second = f64::from(per_minute) / 60.0;
            let bound = (cap_per_second * 1.05).max(cap_per_second + 1.0);
            prop_assert!(most_in_a_second(&sent) as f64 <= bound + 1e-3);
        }

        #[test]
        fn everything_goes_in_the_end_whatever_the_rate_does(
            rates in prop::collection::vec(1u32..100_000, 1..20),
            cost in 1u32..5_000,
        ) {
            let mut now = Instant::now();
            let mut cap = Gcra::new(1_000.0, now);
            for rate in rates {
                cap.set_rate(rate.into(), now);
                let mut asked = 0;
                while let Err(until) = cap.check(now, cost) {
                    now = until;
                    asked += 1;
                    prop_assert!(asked < 200);
                }
                cap.take(now, cost);
            }
        }
    }
}
