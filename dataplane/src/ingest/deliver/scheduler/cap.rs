//! A cap in requests per minute on what is queued and on calls together.
//!
//! Calls go first, but where something is queued they get half at most. Whoever is held by the cap is not overtaken by
//! cheaper requests under the same cap.

use std::time::Instant;

use crate::ingest::deliver::gcra::Gcra;

/// Part of a cap that calls may use while something else waits.
const CALLS_DIVISOR: u32 = 2;

pub(super) struct Cap {
    requests_per_minute: u32,
    all: Gcra,
    calls: Gcra,
    /// Nobody may go before; set for the one that was held first.
    until: Option<Instant>,
}

impl Cap {
    pub(super) fn new(requests_per_minute: u32, now: Instant) -> Self {
        Self {
            requests_per_minute,
            all: Gcra::new(requests_per_minute, now),
            calls: Gcra::new(requests_per_minute / CALLS_DIVISOR, now),
            until: None,
        }
    }

    /// What was used stays used when the rate changes.
    pub(super) fn configure(cap: &mut Option<Self>, wanted: Option<u32>, now: Instant) {
        match (cap.as_mut(), wanted) {
            (Some(cap), Some(wanted)) if cap.requests_per_minute == wanted => {}
            (Some(cap), Some(wanted)) => {
                cap.requests_per_minute = wanted;
                cap.all.set_rate(wanted, now);
                cap.calls.set_rate(wanted / CALLS_DIVISOR, now);
                cap.until = None;
            }
            (_, wanted) => *cap = wanted.map(|wanted| Self::new(wanted, now)),
        }
    }

    /// Whether an entry may go, or when to ask again.
    pub(super) fn check(&mut self, cost: u32, now: Instant) -> Result<(), Instant> {
        if let Some(until) = self.until
            && now < until
        {
            return Err(until);
        }
        let checked = self.all.check(now, cost);
        self.until = checked.err();
        checked
    }

    /// `contended`: something is queued under this cap.
    pub(super) fn check_call(
        &self,
        contended: bool,
        cost: u32,
        now: Instant,
    ) -> Result<(), Instant> {
        if contended {
            self.calls.check(now, cost)?;
        }
        self.all.check(now, cost)
    }

    pub(super) fn take(&mut self, cost: u32, now: Instant) {
        self.all.take(now, cost);
    }

    pub(super) fn take_call(&mut self, cost: u32, now: Instant) {
        self.all.take(now, cost);
        self.calls.take(now, cost);
    }
}
