//! What a window means for the limits.

use std::time::Instant;

use super::Limiter;
use super::background::{Counts, Restore};
use super::breaker::ProbeEnd;
use super::flight::Change;
use super::types::{Cause, SampleOutcome};
use super::window::Kind;

/// Time constant of the smoothed goodput; longer where answers take longer.
const GOODPUT_S: f64 = 0.7;
/// Where the load is not bounded by the limits, and in slow start, fewer refusals than these are no reason to lower them.
const STRAY_SHARE: f64 = 0.05;
const SLOW_START_SHARE: f64 = 0.1;
/// What a cut of the rate leaves at least, usually and when most is refused.
const CUT_FLOOR: f64 = 0.8;
const CUT_FLOOR_FLOOD: f64 = 0.5;
const FLOOD_SHARE: f64 = 0.5;
/// Of what was good, where slow start begins after an outage.
const OUTAGE_SHARE: f64 = 0.05;

impl Limiter {
    /// Closes the window.
    pub(super) fn decide(&mut self, now: Instant) {
        let seconds = self.window.seconds(now).max(1e-3);
        let base_s = self.base.value_s().unwrap_or(0.1);
        let fresh = f64::from(self.window.answered) / seconds;
        let weight = 1.0 - (-seconds / GOODPUT_S.max(2.0 * base_s.min(5.0))).exp();
        self.goodput = if self.goodput == 0.0 {
            fresh
        } else {
            self.goodput + weight * (fresh - self.goodput)
        };
        let counts = Counts {
            seconds,
            sent: self.window.sent,
            total: self.window.total(),
            refused: self.window.refused(),
        };
        let limits = Restore {
            limit: self.flight.limit(),
            rate: self.pace.rate(),
        };
        if let Some(restore) = self.background.observe(counts, limits) {
            self.flight.restore(restore.limit, now);
            self.pace.restore(restore.rate, now);
            self.cause = Cause::Unrelated;
        } else if self.is_refused(counts) {
            self.cut(counts, base_s, now);
        } else {
            self.follow(seconds, now);
        }
        self.window.restart(now, true);
    }

    fn is_refused(&self, counts: Counts) -> bool {
        if !self.background.is_exceeded(counts) {
            return false;
        }
        let share = f64::from(counts.refused) / f64::from(counts.total.max(1));
        if self.pace.is_slow_start() {
            return share > SLOW_START_SHARE;
        }
        if self.window.held_rate || self.window.held_in_flight {
            return true;
        }
        counts.refused >= 3 && share > STRAY_SHARE
    }

    fn cut(&mut self, counts: Counts, base_s: f64, now: Instant) {
        let seconds = counts.seconds;
        let floor = if self.window.refused_share() > FLOOD_SHARE {
            CUT_FLOOR_FLOOD
        } else {
            CUT_FLOOR
        };
        let sent_rate = f64::from(counts.sent) / seconds;
        self.pace.cut(self.goodput, sent_rate, floor, now);
        self.cause = Cause::RateLimited;
        if self.window.overloaded > 0 {
            self.flight.cut(base_s, now);
            self.cause = Cause::Overloaded;
        }
        self.base.abort_probe();
        self.lowered_at = Some(now);
    }

    /// A window without refusals worth the name.
    fn follow(&mut self, seconds: f64, now: Instant) {
        let held = self.window.held_in_flight;
        self.pace
            .grow(seconds, self.goodput, self.window.held_rate, now);
        if self.base.probe_limit().is_some() {
            return;
        }
        let answers = self.window.answered;
        let Some((class, median_s, count)) = self.window.median() else {
            if answers >= 8 && self.base.value_s().is_none() {
                self.flight.creep(held, now);
            }
            return;
        };
        let base_s = self.base.observe(class, median_s, count, held, now);
        let change = self.flight.follow(median_s, base_s, held, now);
        match change {
            Change::None => {}
            Change::Grown => self.cause = Cause::Growing,
            Change::Cut | Change::CutInVain => {
                self.cause = Cause::Latency;
                self.lowered_at = Some(now);
            }
        }
        let urgent = change == Change::CutInVain;
        let spread = self.random.f64();
        if (held || urgent) && self.base.is_due(class, urgent, spread, now) {
            self.base
                .start_probe(class, self.goodput, self.flight.limit(), now);
        }
    }

    /// Tells the breaker; `true`: it opened.
    pub(super) fn trips(&mut self, kind: Kind, outcome: SampleOutcome, now: Instant) -> bool {
        if matches!(kind, Kind::Ok | Kind::Answered) {
            self.breaker.answered();
            return false;
        }
        let at_once = outcome == SampleOutcome::Failed;
        let base_s = self.base.value_s().unwrap_or(0.0);
        let usual = self.background.share();
        self.breaker.failed(usual, base_s, at_once, now)
    }

    pub(super) fn opened(&mut self, now: Instant) {
        self.pace.remember(self.goodput);
        self.base.abort_probe();
        self.background.reset();
        self.lowered_at = Some(now);
        self.window.restart(now, false);
        self.cause = Cause::Overloaded;
    }

    pub(super) fn probe_ended(&mut self, kind: Kind, sent_at: Option<Instant>, now: Instant) {
        let end = match kind {
            Kind::Ok | Kind::Answered => ProbeEnd::Answered,
            Kind::RateLimited | Kind::Overloaded => ProbeEnd::Failed,
        };
        let spread = self.random.f64();
        if !self.breaker.probed(end, sent_at, spread, now) {
            return;
        }
        self.pace.restart(OUTAGE_SHARE, self.goodput, now);
        self.flight.restart(now);
        self.lowered_at = Some(now);
        self.window.restart(now, false);
        self.cause = Cause::Recovery;
    }
}
