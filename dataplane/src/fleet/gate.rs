//! Whether new clients are sent to other data planes. Read for each new client by all workers, without a lock.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Longest time within which refused clients may be told to come back.
const SPREAD_MAX: Duration = Duration::from_secs(600);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fence {
    Open,
    Until(Instant),
    /// Until something else is said.
    Closed,
}

#[derive(Debug)]
pub struct Gate {
    epoch: Instant,
    /// On the clock since `epoch`; 0: open.
    closed_until_us: AtomicU64,
    /// 0: not said.
    spread_s: AtomicU32,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            epoch: Instant::now(),
            closed_until_us: AtomicU64::new(0),
            spread_s: AtomicU32::new(0),
        }
    }
}

impl Gate {
    pub fn set(&self, fence: Fence, spread: Option<Duration>) {
        let until_us = match fence {
            Fence::Open => 0,
            Fence::Until(until) => self.us(until),
            Fence::Closed => u64::MAX,
        };
        let spread_s = spread.map_or(0, |spread| {
            let whole = spread.min(SPREAD_MAX).as_secs_f64().ceil();
            // Bounded just above.
            (whole as u32).max(1)
        });
        self.spread_s.store(spread_s, Ordering::Relaxed);
        self.closed_until_us.store(until_us, Ordering::Relaxed);
    }

    pub fn is_fenced(&self, now: Instant) -> bool {
        match self.closed_until_us.load(Ordering::Relaxed) {
            0 => false,
            until_us => self.us(now) < until_us,
        }
    }

    /// When a client that was refused should come again; `None`: the manager has not said.
    pub fn retry_after_seconds(&self) -> Option<u32> {
        match self.spread_s.load(Ordering::Relaxed) {
            0 => None,
            spread_s => Some(fastrand::u32(1..=spread_s)),
        }
    }

    fn us(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.epoch);
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_fence_ends_by_itself_or_not() {
        let gate = Gate::default();
        let now = Instant::now();
        let at = |s: u64| now + Duration::from_secs(s);
        assert!(!gate.is_fenced(now));
        gate.set(Fence::Until(at(5)), None);
        assert!(gate.is_fenced(now) && gate.is_fenced(at(4)));
        assert!(!gate.is_fenced(at(5)) && !gate.is_fenced(at(6)));
        gate.set(Fence::Closed, None);
        assert!(gate.is_fenced(at(1_000_000)));
        gate.set(Fence::Open, None);
        assert!(!gate.is_fenced(now));
    }

    #[test]
    fn the_times_to_come_again_are_spread() {
        let gate = Gate::default();
        assert_eq!(gate.retry_after_seconds(), None);
        gate.set(Fence::Closed, Some(Duration::from_millis(2_500)));
        let drawn: BTreeSet<_> = (0..200).map(|_| gate.retry_after_seconds()).collect();
        assert_eq!(drawn, BTreeSet::from([Some(1), Some(2), Some(3)]));
        gate.set(Fence::Closed, Some(Duration::from_millis(1)));
        assert_eq!(gate.retry_after_seconds(), Some(1));
    }
}
