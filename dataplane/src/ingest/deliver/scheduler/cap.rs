//! A cap in requests per minute on what is queued and on calls together, and this data plane's part of it.
//!
//! Calls go first, but where something is queued they get half at most. Whoever is held by the cap is not overtaken by
//! cheaper requests under the same cap.
//!
//! Where other data planes have the rest of the cap, no minute may have more than all parts together, although parts move from
//! one to the other at any time. A request that fits into the burst is within what its own data plane may send in any stretch of
//! time. One that costs more is, in every minute around it, when one of two things is true before, and it is paid for
//! afterwards:
//! - with it, the last minute had no more than the lowest rate of that minute allows, and it is paid for within the lease;
//! - as much as it costs was left unused just before it: whatever minute one looks at holds what was saved, or what is paid, or
//!   enough of both.
//!
//! What costs more than a minute of the part goes by the second way, as nothing would let it go otherwise. Whoever lowered the
//! part is told so only when the last large one is paid for.

use std::time::{Duration, Instant};

use crate::fleet::shares::{Boot, Grant, InForce, Why, in_force};
use crate::ingest::deliver::gcra::Gcra;
use crate::ingest::deliver::minute::Minute;

/// Part of a cap that calls may use while something else waits.
const CALLS_DIVISOR: f64 = 2.0;

/// How often one that waits for the minute before to be over looks again.
const MINUTE_STEP: Duration = Duration::from_secs(1);

/// Part of a minute's requests that may come late, and how many at most.
const SLACK: f64 = 0.01;
const SLACK_MAX: f64 = 1.0;

/// What the manager says of a cap. Without a manager it says nothing, and the cap is used whole.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Part {
    pub(super) boot: Option<Boot>,
    pub(super) grant: Option<Grant>,
}

pub(super) struct Cap {
    requests_per_minute: u32,
    part: Part,
    in_force: InForce,
    all: Gcra,
    calls: Gcra,
    /// Nobody may go before; set for the one that was held first.
    until: Option<Instant>,
    /// Someone waits until enough is left unused.
    saving: bool,
    /// Kept from the first large request on, where the cap is shared.
    minute: Option<Box<Minute>>,
    sent_total: u64,
}

impl Cap {
    pub(super) fn new(requests_per_minute: u32, part: Part, now: Instant) -> Self {
        let in_force = in_force(part.boot, part.grant, whole(requests_per_minute), now);
        let (rate, slack) = pace(in_force);
        let mut all = Gcra::new(rate, now);
        all.set_slack(slack, now);
        Self {
            requests_per_minute,
            part,
            in_force,
            all,
            calls: Gcra::new(in_force.per_minute / CALLS_DIVISOR, now),
            until: None,
            saving: false,
            minute: None,
            sent_total: 0,
        }
    }

    /// What was used stays used when the rate changes.
    pub(super) fn configure(cap: &mut Option<Self>, wanted: Option<u32>, part: Part, now: Instant) {
        match (cap.as_mut(), wanted) {
            (Some(cap), Some(wanted)) => {
                cap.requests_per_minute = wanted;
                cap.share(part, now);
            }
            (_, wanted) => *cap = wanted.map(|wanted| Self::new(wanted, part, now)),
        }
    }

    /// Another part of it from now on. Returns whether the rate has changed, and when what was sent at a higher one is paid for.
    pub(super) fn share(&mut self, part: Part, now: Instant) -> (bool, Option<Instant>) {
        self.follow(now);
        self.part = part;
        let before = self.in_force.per_minute;
        let next = in_force(part.boot, part.grant, whole(self.requests_per_minute), now);
        let lowered =
            next.per_minute < before || next.safe_per_minute < self.in_force.safe_per_minute;
        let paid = self.paid_at(now).filter(|_| lowered);
        self.set(next, now);
        (before != next.per_minute, paid)
    }

    /// When what was sent beyond the burst is paid for, at the rate in force. `None`: it is.
    pub(super) fn paid_at(&self, now: Instant) -> Option<Instant> {
        let owed = self.all.owed(now) - self.all.burst();
        (owed > 0.0).then(|| self.all.after(owed, now))
    }

    /// Notices that a lease has ended, or the silence after the start.
    fn follow(&mut self, now: Instant) {
        if self.in_force.until.is_some_and(|until| until <= now) {
            let whole = whole(self.requests_per_minute);
            self.set(in_force(self.part.boot, self.part.grant, whole, now), now);
        }
        if let Some(minute) = &mut self.minute {
            minute.follow(self.all.per_minute(), now);
        }
    }

    fn set(&mut self, next: InForce, now: Instant) {
        self.in_force = next;
        let (rate, slack) = pace(next);
        if rate == self.all.per_minute() {
            return;
        }
        if let Some(minute) = &mut self.minute {
            minute.follow(self.all.per_minute(), now);
            minute.follow(rate, now);
        }
        self.all.set_rate(rate, now);
        self.all.set_slack(slack, now);
        self.calls.set_rate(next.per_minute / CALLS_DIVISOR, now);
        self.until = None;
    }

    /// Whether an entry may go, or when to ask again.
    pub(super) fn check(&mut self, cost: u32, now: Instant) -> Result<(), Instant> {
        self.follow(now);
        if let Some(until) = self.until
            && now < until
        {
            return Err(until);
        }
        let is_large = f64::from(cost) > self.all.burst() && self.in_force.why != Why::Configured;
        let mut checked = self.all.check(now, cost);
        if !is_large {
            self.saving = false;
        } else if checked.is_ok() {
            checked = self.check_large(f64::from(cost), now);
        }
        let checked = checked.map_err(|until| self.no_later_than_change(until));
        self.until = checked.err();
        checked
    }

    /// Of one that costs more than the burst while nothing is owed.
    fn check_large(&mut self, cost: f64, now: Instant) -> Result<(), Instant> {
        let (rate, burst) = (self.all.per_minute(), self.all.burst());
        let minute = self
            .minute
            .get_or_insert_with(|| Box::new(Minute::new(rate, now)));
        let (sent, mut lowest) = minute.sums();
        let paid = self.all.after(cost - burst, now);
        if self.in_force.until.is_some_and(|until| until < paid) {
            lowest = lowest.min(self.in_force.safe_per_minute);
        }
        let missing = cost - burst - self.all.unused(now);
        if sent + cost <= lowest + burst || missing <= 0.0 {
            return Ok(());
        }
        self.saving = true;
        // Each second something of the minute before is over.
        Err(self.all.after(missing, now).min(now + MINUTE_STEP))
    }

    /// `contended`: something is queued under this cap.
    pub(super) fn check_call(
        &mut self,
        contended: bool,
        cost: u32,
        now: Instant,
    ) -> Result<(), Instant> {
        self.follow(now);
        let mut checked = self.all.check(now, cost);
        if contended && checked.is_ok() {
            checked = self.calls.check(now, cost);
        }
        checked.map_err(|until| self.no_later_than_change(until))
    }

    pub(super) fn take(&mut self, cost: u32, now: Instant) {
        self.saving = false;
        self.all.take(now, cost);
        self.count(cost);
    }

    pub(super) fn take_call(&mut self, cost: u32, now: Instant) {
        if self.saving {
            // Or calls would keep the one that saves from ever having enough.
            self.all.take_from_unused(now, cost);
        } else {
            self.all.take(now, cost);
        }
        self.calls.take(now, cost);
        self.count(cost);
    }

    fn count(&mut self, cost: u32) {
        self.sent_total = self.sent_total.saturating_add(cost.into());
        if let Some(minute) = &mut self.minute {
            minute.sent(cost.into());
        }
    }

    fn no_later_than_change(&self, until: Instant) -> Instant {
        self.in_force
            .until
            .map_or(until, |change| change.min(until))
    }

    /// The whole cap, what of it is allowed here now, and what was sent.
    pub(super) fn state(&mut self, now: Instant) -> CapState {
        self.follow(now);
        CapState {
            requests_per_minute: self.requests_per_minute,
            in_force: self.in_force,
            told: self.part.grant.is_some(),
            sent_total: self.sent_total,
        }
    }
}

/// How a cap is, as data.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CapState {
    pub requests_per_minute: u32,
    pub in_force: InForce,
    /// The manager has said something about it.
    pub told: bool,
    /// Deliveries and calls; of a bulk request its parts.
    pub sent_total: u64,
}

/// Rate and slack of a part. A request that its cap would let go may have to wait a little for another cap, and what is lost by that
/// is made up for: so much of a minute is kept back for it that no minute has more than the part and the burst.
fn pace(in_force: InForce) -> (f64, f64) {
    if in_force.why == Why::Configured {
        return (in_force.per_minute, 0.0);
    }
    let slack = (in_force.per_minute * SLACK).min(SLACK_MAX);
    (in_force.per_minute - slack, slack)
}

/// Nothing a minute counts as one.
fn whole(requests_per_minute: u32) -> f64 {
    requests_per_minute.max(1).into()
}

#[cfg(test)]
mod tests;
