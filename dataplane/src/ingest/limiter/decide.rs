//! What a window means for the limits.

use std::time::{Duration, Instant};

use super::background::{Counts, Restore};
use super::breaker::ProbeEnd;
use super::flight::{Change, Flight};
use super::pace::Pace;
use super::trial::{Advice, Finding};
use super::types::Cause;
use super::window::Kind;
use super::{Limiter, bounds};

/// Time constant of the smoothed goodput; longer where answers take longer.
const GOODPUT_S: f64 = 0.7;
/// How fast the best goodput is forgotten, per second.
const BEST_FADES: f64 = 0.02;
/// Where the load is not bounded by the limits, and in slow start, fewer refusals than these are no reason to lower them.
const STRAY_SHARE: f64 = 0.05;
const SLOW_START_SHARE: f64 = 0.1;
/// What a cut of the rate leaves at least, when little and when almost all is refused.
const CUT_KEEPS_MAX: f64 = 0.8;
const CUT_KEEPS_MIN: f64 = 0.1;
/// In flight on average, in parts of the limit, from which the limit is what bounds the load.
const BOUNDED: f64 = 0.6;
/// Answers of a window that say something about the goodput of that window alone.
const FRESH_ANSWERS: u32 = 10;
/// Of what was good, where slow start begins after an outage.
const OUTAGE_SHARE: f64 = 0.05;
/// How long failures that proved to be due to load are remembered as perhaps the same as those that prove not to be.
const LATELY: Duration = Duration::from_secs(15);

/// Limits to go back to when failures prove to have nothing to do with load.
#[derive(Debug, Clone)]
pub(super) struct Before {
    flight: Flight,
    pace: Pace,
    /// The limits were what bounded the load.
    bounded: bool,
}

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
        self.best = (self.best * (1.0 - BEST_FADES * seconds).max(0.5)).max(self.goodput);
        let counts = Counts {
            seconds,
            sent: self.window.sent,
            total: self.window.total(),
            refused: self.window.refused(),
        };
        let limits = Restore {
            limit: self.flight.limit(),
            rate: self.pace.rate(),
            is_floor: self.flight.is_floor()
                && self.window.rate_limited == 0
                && self
                    .pace
                    .rate()
                    .is_some_and(|rate| rate <= 1.1 * self.damped_rate(base_s)),
        };
        if let Some(restore) = self.background.observe(counts, limits) {
            self.interrupt_trial();
            self.flight.restore(restore.limit, now);
            self.pace.restore(restore.rate, now);
            self.cause = Cause::Unrelated;
        } else if self.is_refused(counts) {
            self.interrupt_trial();
            self.cut(counts, base_s, now);
        } else if !self.trials.is_trying() {
            self.weigh(counts, base_s, now);
        }
        let is_changed = self.lowered_at == Some(now) || self.grown_at == Some(now);
        self.window.restart(now, !is_changed);
    }

    /// A window in which what failed does not say why.
    fn weigh(&mut self, counts: Counts, base_s: f64, now: Instant) {
        if !self.trials.is_watching() {
            self.before = None;
        }
        let mut before = self.before.take().unwrap_or_else(|| Before {
            flight: self.flight.clone(),
            pace: self.pace.clone(),
            bounded: false,
        });
        before.bounded |= self.is_bounded(counts);
        let results = self.window.results(counts.seconds);
        match self.trials.observe(results, base_s, now) {
            Advice::Go => self.follow(counts.seconds, true, now),
            Advice::Watch => self.follow(counts.seconds, false, now),
            Advice::Relieve => self.cut(counts, base_s, now),
            Advice::Try { rate } => {
                self.flight.cut(base_s, now);
                self.pace.hold_to(rate, now);
                self.base.abort_probe();
                self.lowered_at = Some(now);
                self.cause = Cause::Overloaded;
            }
        }
        if self.trials.is_watching() || self.trials.is_trying() {
            self.before = Some(before);
        }
    }

    /// A trial is over.
    pub(super) fn found(&mut self, finding: Finding, now: Instant) {
        let Some(before) = self.before.take() else {
            return;
        };
        let is_lately = |at| now.saturating_duration_since(at) < LATELY;
        match finding {
            Finding::Load { through } => {
                let fresh = self.earlier.take().filter(|(_, at)| is_lately(*at));
                self.earlier = fresh.or_else(|| Some((before.clone(), now)));
                self.pace = before.pace;
                self.flight
                    .keep(through * self.base.value_s().unwrap_or(0.0));
                self.pace.found(through, before.bounded, now);
                self.cause = Cause::Overloaded;
            }
            Finding::Unrelated { is_news } => {
                let earlier = self.earlier.take();
                let before = match earlier {
                    // Then it was not load the last time either.
                    Some((earlier, at)) if is_news && is_lately(at) => earlier,
                    _ => before,
                };
                self.flight = before.flight;
                self.pace = before.pace;
                self.flight.set_bounds(bounds(&self.settings));
                self.cause = Cause::Unrelated;
            }
        }
        // What was measured meanwhile was measured under other limits.
        self.grown_at = Some(now);
        self.window.restart(now, false);
    }

    /// What goes on now cannot be compared with what was before.
    pub(super) fn interrupt_trial(&mut self) {
        let was_trying = self.trials.interrupt();
        if let Some(before) = self.before.take()
            && was_trying
        {
            self.flight = before.flight;
            self.flight.set_bounds(bounds(&self.settings));
            self.pace = before.pace;
        }
    }

    fn is_refused(&self, counts: Counts) -> bool {
        if !self.background.is_exceeded(counts) {
            return false;
        }
        let share = f64::from(counts.refused) / f64::from(counts.total.max(1));
        if self.pace.is_slow_start() {
            return share > SLOW_START_SHARE;
        }
        if self.is_bounded(counts) {
            return true;
        }
        counts.refused >= 3 && share > STRAY_SHARE
    }

    fn cut(&mut self, counts: Counts, base_s: f64, now: Instant) {
        let keep = (1.0 - self.window.unanswered_share()).clamp(CUT_KEEPS_MIN, CUT_KEEPS_MAX);
        let sent_rate = f64::from(counts.sent) / counts.seconds;
        let is_rate = self.window.rate_limited > 0;
        let is_load = self.window.overloaded > 0 || self.window.failed > 0;
        self.cause = Cause::RateLimited;
        if is_load {
            self.flight.cut(base_s, now);
            self.cause = Cause::Overloaded;
        }
        let is_bounded = self.is_bounded(counts);
        let through = self.through();
        if is_rate {
            self.pace.cut(through, sent_rate, keep, now);
        } else if is_bounded {
            // The limit in flight is what answers this; the rate only keeps repetitions in bounds.
            let floor = self.damped_rate(base_s);
            self.pace.damp(through, sent_rate, keep, floor, now);
        }
        self.base.abort_probe();
        self.lowered_at = Some(now);
    }

    /// The limits were what bounded the load, not only for a moment.
    fn is_bounded(&self, counts: Counts) -> bool {
        let base_s = self.base.value_s().unwrap_or(0.1);
        let busy = f64::from(counts.total) / counts.seconds * base_s;
        self.window.held_rate
            || (self.window.held_in_flight && busy >= BOUNDED * self.flight.limit())
    }

    /// The least that repetitions are held to: half of what the limit in flight allows.
    fn damped_rate(&self, base_s: f64) -> f64 {
        0.5 * self.flight.limit() / base_s
    }

    /// Where slow start begins at least: at about one request at a time.
    pub(super) fn restart_rate(&self) -> f64 {
        (0.5 / self.base.value_s().unwrap_or(0.1)).clamp(0.5, 50.0)
    }

    /// What may be sent per second to get the present goodput, where some fail whatever the load.
    fn through(&self) -> f64 {
        self.goodput / (1.0 - self.unrelated())
    }

    /// The share of attempts that fails whatever the load.
    pub(super) fn unrelated(&self) -> f64 {
        1.0 - (1.0 - self.background.share()) * (1.0 - self.trials.share())
    }

    /// A window without refusals worth the name.
    fn follow(&mut self, seconds: f64, may_grow: bool, now: Instant) {
        let held = self.window.held_in_flight;
        let through = self.through();
        let held_rate = self.window.held_rate && may_grow;
        self.pace.grow(seconds, through, held_rate, now);
        if self.base.probe_limit().is_some() {
            return;
        }
        let answers = self.window.answered;
        let Some((class, median)) = self.window.median() else {
            if self.window.unmeasured >= FRESH_ANSWERS / 2 {
                self.flight.creep(held && may_grow, now);
            }
            return;
        };
        let median_s = median.value_s;
        let fresh = (answers >= FRESH_ANSWERS).then(|| f64::from(answers) / seconds);
        let bounded = held && self.flight.limit() >= 2.0;
        self.base.observe(class, median_s, bounded, now);
        let base = (
            self.base.of(class).unwrap_or(median_s),
            self.base.skew(class),
        );
        let change = self
            .flight
            .follow(median, base, fresh, held && may_grow, now);
        match change {
            Change::None => {}
            Change::Grown => self.cause = Cause::Growing,
            Change::Leapt => {
                self.cause = Cause::Growing;
                self.grown_at = Some(now);
            }
            Change::Cut | Change::CutInVain => {
                self.cause = Cause::Latency;
                self.lowered_at = Some(now);
            }
        }
        let urgent = change == Change::CutInVain;
        let spread = self.random.f64();
        if (held || urgent) && self.base.is_due(class, urgent, spread, now) {
            self.base
                .start_probe(class, median_s, self.flight.limit(), now);
        }
    }

    /// Tells the breaker; `true`: it opened.
    pub(super) fn trips(&mut self, kind: Kind, now: Instant) -> bool {
        if matches!(kind, Kind::Ok | Kind::Answered) {
            self.breaker.answered();
            return false;
        }
        let base_s = self.base.value_s().unwrap_or(0.0);
        let usual = self.unrelated();
        self.breaker.failed(usual, base_s, now)
    }

    pub(super) fn opened(&mut self, now: Instant) {
        self.interrupt_trial();
        self.trials.reset();
        self.pace.remember(self.best);
        self.base.abort_probe();
        self.background.interrupt();
        self.lowered_at = Some(now);
        self.window.restart(now, false);
        self.cause = Cause::Overloaded;
    }

    pub(super) fn probe_ended(&mut self, kind: Kind, sent_at: Option<Instant>, now: Instant) {
        let end = match kind {
            Kind::Ok | Kind::Answered => ProbeEnd::Answered,
            Kind::RateLimited | Kind::Overloaded | Kind::Failed => ProbeEnd::Failed,
        };
        if !self.breaker.probed(end, sent_at, now) {
            return;
        }
        let floor = self.restart_rate();
        self.pace.restart(OUTAGE_SHARE, self.best, floor, now);
        self.flight.restart(self.total_in_flight(), now);
        self.lowered_at = Some(now);
        self.window.restart(now, false);
        self.cause = Cause::Recovery;
    }
}
