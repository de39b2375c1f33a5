//! Failures that may or may not be due to load: internal errors, connections that are refused or break.
//!
//! Nothing in them tells an upstream with too much to do from one whose replica is dead or that fails on some requests.
//! So it is tried out: for a moment less is sent than came through before. Failures of load end then, others keep their
//! share. The former keep the load down; the latter are expected from then on, and the limits go back to where they
//! were. What is expected is tried out again now and then. Owns the expected share and the trial under way; moves no
//! limit.

use std::time::{Duration, Instant};

/// Failures from which their share can be told, roughly.
const BLOCK_FAILED: u32 = 8;
/// Before that many results, or seconds, or failures become a reason to act, they are forgotten.
const BLOCK_RESULTS_MAX: u32 = 512;
const BLOCK_S_MAX: f64 = 10.0;
/// The time in which the share is measured at least, also in base latencies: failures overtake answers.
const BLOCK_S_MIN: f64 = 0.1;
const BLOCK_BASES: f64 = 2.0;
/// Failures in such a share that the upstream is relieved at once.
const FLOOD_SHARE: f64 = 0.5;
const FLOOD_FAILED: u32 = 10;
/// Standard errors by which a window, and a block, must lie above what is expected.
const WINDOW_ERRORS: f64 = 4.0;
const BLOCK_ERRORS: f64 = 3.0;
/// A share below it is as good as none.
const CLEAN: f64 = 0.005;
const SHARE_MAX: f64 = 0.95;
/// How far the share may rise by itself from what was found: that was known from few results, but slowly growing load
/// must not take it along.
const SHARE_RISES: f64 = 1.2;
/// Of what came through, the load of a trial: the less, the more failed.
const TRIAL_LOAD: (f64, f64) = (0.5, 0.95);
/// What is left of an excess when it is due to load, and when it is not.
const LEFT_BY_LOAD: f64 = 0.25;
const LEFT_OTHERWISE: f64 = 0.8;
/// The logarithm of the odds at which a trial ends: wrong once in a hundred.
const ODDS: f64 = 4.6;
const TRIAL_RESULTS_MIN: u32 = 12;
const TRIAL_MAX: Duration = Duration::from_secs(10);
/// What was on its way when a trial began is not waited for longer.
const SETTLE_MAX_S: f64 = 10.0;
/// From one trial of what is expected to the next, also in lengths of a trial; doubled each time it is confirmed.
const CONFIRM_MIN: Duration = Duration::from_secs(5);
const CONFIRM_MAX: Duration = Duration::from_secs(120);
const CONFIRM_TRIALS: u32 = 20;

/// What a window brought.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Results {
    pub(super) seconds: f64,
    pub(super) total: u32,
    pub(super) answered: u32,
    pub(super) failed: u32,
    /// Of all failures together.
    pub(super) failed_latency_s: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Advice {
    /// As if nothing had failed.
    Go,
    /// No growth for now.
    Watch,
    /// At once less, whatever the reason.
    Relieve,
    /// So many requests per second for a while.
    Try { rate: f64 },
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Finding {
    /// The upstream takes so much per second and no more.
    Load { through: f64 },
    /// The limits of before the trial are right. `is_news`: it was not known.
    Unrelated { is_news: bool },
}

#[derive(Debug)]
pub(super) struct Trials {
    /// Expected whatever the load.
    share: f64,
    /// Above it, it must be found out anew.
    share_max: f64,
    block: Results,
    /// The block began with more failures than expected.
    watching: bool,
    trial: Option<Trial>,
    confirm_at: Option<Instant>,
    confirm_after: Duration,
}

#[derive(Debug)]
struct Trial {
    /// When results begin to count.
    since: Instant,
    begun: Instant,
    /// What came through before, per second.
    through: f64,
    /// What is expected is tried out, not what exceeds it.
    confirms: bool,
    hypotheses: Hypotheses,
    /// The share before, and of how many results.
    share: f64,
    share_of: u32,
    total: u32,
    failed: u32,
}

/// Shares of failures to expect in a trial.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Hypotheses {
    load: f64,
    unrelated: f64,
}

impl Trials {
    pub(super) fn new() -> Self {
        Self {
            share: 0.0,
            share_max: 0.0,
            block: Results::default(),
            watching: false,
            trial: None,
            confirm_at: None,
            confirm_after: CONFIRM_MIN,
        }
    }

    pub(super) fn share(&self) -> f64 {
        self.share
    }

    pub(super) fn is_trying(&self) -> bool {
        self.trial.is_some()
    }

    pub(super) fn is_watching(&self) -> bool {
        self.watching
    }

    /// Takes a window outside of a trial. `base_s` is the latency without a queue.
    pub(super) fn observe(&mut self, window: Results, base_s: f64, now: Instant) -> Advice {
        let exceeds = exceeds(window, self.share, WINDOW_ERRORS);
        if !exceeds {
            self.follow(window);
        }
        if exceeds && !self.watching {
            self.watching = true;
            self.block = Results::default();
        }
        self.block.add(window);
        let block = self.block;
        let is_known = block.failed >= BLOCK_FAILED
            && block.answered > 0
            && block.seconds >= (BLOCK_BASES * base_s).max(BLOCK_S_MIN);
        let is_over = block.total >= BLOCK_RESULTS_MAX || block.seconds >= BLOCK_S_MAX;
        if is_known && (self.watching || is_over) && self::exceeds(block, self.share, BLOCK_ERRORS)
        {
            return self.begin(block, window, self.share, base_s, now);
        }
        if is_over {
            self.forget_block();
        }
        if self.confirm_at.is_some_and(|at| now >= at) && !exceeds && self.is_typical(window) {
            return self.begin(window, window, 0.0, base_s, now);
        }
        if window.failed >= FLOOD_FAILED
            && f64::from(window.failed) > FLOOD_SHARE.max(self.share) * f64::from(window.total)
            && exceeds
        {
            return Advice::Relieve;
        }
        if exceeds { Advice::Watch } else { Advice::Go }
    }

    /// Takes a result; `Some`: the trial is over. `sent_at` is `None` for very long ago.
    pub(super) fn result(
        &mut self,
        failed: bool,
        sent_at: Option<Instant>,
        now: Instant,
    ) -> Option<Finding> {
        let trial = self.trial.as_mut()?;
        if now >= trial.since && sent_at.is_some_and(|sent_at| sent_at >= trial.begun) {
            trial.total = trial.total.saturating_add(1);
            trial.failed = trial.failed.saturating_add(u32::from(failed));
        }
        let is_late = now >= trial.since + TRIAL_MAX;
        let is_unrelated = trial
            .hypotheses
            .decide(trial.total, trial.failed, is_late)?;
        let trial = self.trial.take()?;
        self.confirm_at = None;
        if !is_unrelated {
            if trial.confirms {
                // Even what was expected has to do with load.
                self.set_share(0.0);
            }
            self.schedule(CONFIRM_MIN, now);
            return Some(Finding::Load {
                through: trial.through,
            });
        }
        let length = now.saturating_duration_since(trial.begun);
        let is_confirmed = trial.confirms;
        self.set_share(trial.found_share());
        let after = if is_confirmed {
            self.confirm_after * 2
        } else {
            CONFIRM_MIN
        };
        let after = after.max(length * CONFIRM_TRIALS);
        self.schedule(after.min(CONFIRM_MAX.max(length * CONFIRM_TRIALS)), now);
        Some(Finding::Unrelated {
            is_news: !is_confirmed,
        })
    }

    /// The upstream fails as a whole: what was found about a part of it may have been the beginning of that.
    pub(super) fn reset(&mut self) {
        self.set_share(0.0);
        self.confirm_at = None;
    }

    /// Nothing can be compared with what was before; `true`: a trial ends without a finding.
    pub(super) fn interrupt(&mut self) -> bool {
        self.forget_block();
        self.trial.take().is_some()
    }

    fn set_share(&mut self, share: f64) {
        self.share = share.min(SHARE_MAX);
        self.share_max = (SHARE_RISES * self.share).min(SHARE_MAX);
    }

    fn schedule(&mut self, after: Duration, now: Instant) {
        self.confirm_after = after;
        self.confirm_at = (self.share > 0.0).then(|| now + after);
    }

    /// Failures are as many as expected: they have not just ended.
    fn is_typical(&self, window: Results) -> bool {
        window.answered > 0 && window.failed > 0 && window.share() >= self.share / 2.0
    }

    fn forget_block(&mut self) {
        self.block = Results::default();
        self.watching = false;
    }

    /// `expected` is what is taken for granted.
    fn begin(
        &mut self,
        before: Results,
        last: Results,
        expected: f64,
        base_s: f64,
        now: Instant,
    ) -> Advice {
        self.forget_block();
        let confirms = expected < self.share;
        let share = if confirms { self.share } else { before.share() };
        let through = before.goodput().max(last.goodput()) / (1.0 - expected);
        let slowest_s = base_s.max(before.failed_latency_s / f64::from(before.failed.max(1)));
        let settle = Duration::from_secs_f64((1.5 * slowest_s).min(SETTLE_MAX_S));
        let excess = (share - expected).max(0.0);
        self.trial = Some(Trial {
            since: now + settle,
            begun: now,
            through,
            confirms,
            hypotheses: Hypotheses::new(expected, share),
            share,
            share_of: before.total,
            total: 0,
            failed: 0,
        });
        let load = (1.0 - 1.5 * excess).clamp(TRIAL_LOAD.0, TRIAL_LOAD.1);
        Advice::Try {
            rate: load * through,
        }
    }

    fn follow(&mut self, window: Results) {
        if self.share == 0.0 {
            return;
        }
        let weight = (f64::from(window.total) / 400.0).min(0.5);
        self.share += (window.share() - self.share) * weight;
        self.share = self.share.min(self.share_max);
        if self.share < CLEAN {
            self.set_share(0.0);
            self.confirm_at = None;
        }
    }
}

impl Trial {
    /// The share of failures that are not due to load.
    fn found_share(&self) -> f64 {
        let during = f64::from(self.failed) / f64::from(self.total.max(1));
        if self.confirms {
            // Some of it may have to do with load after all.
            let noise = 2.0 * (during * (1.0 - during) / f64::from(self.total.max(1))).sqrt();
            return self.share.min(during + noise);
        }
        let (before, total) = (f64::from(self.share_of), f64::from(self.total));
        (self.share * before + f64::from(self.failed)) / (before + total).max(1.0)
    }
}

impl Hypotheses {
    fn new(expected: f64, share: f64) -> Self {
        let excess = (share - expected).max(CLEAN);
        let part = |part: f64| (expected + part * excess).clamp(1e-3, 0.99);
        Self {
            load: part(LEFT_BY_LOAD),
            unrelated: part(LEFT_OTHERWISE),
        }
    }

    /// Whether `failed` of `total` speak for `unrelated`; `None`: for neither clearly. `late`: no more will come.
    fn decide(self, total: u32, failed: u32, late: bool) -> Option<bool> {
        let answered = f64::from(total.saturating_sub(failed));
        let by_failures = f64::from(failed) * (self.unrelated / self.load).ln();
        let by_answers = answered * ((1.0 - self.unrelated) / (1.0 - self.load)).ln();
        let odds = by_failures + by_answers;
        if late || (total >= TRIAL_RESULTS_MIN && odds.abs() > ODDS) {
            return Some(odds > 0.0);
        }
        None
    }
}

impl Results {
    fn add(&mut self, window: Self) {
        self.seconds += window.seconds;
        self.total = self.total.saturating_add(window.total);
        self.answered = self.answered.saturating_add(window.answered);
        self.failed = self.failed.saturating_add(window.failed);
        self.failed_latency_s += window.failed_latency_s;
    }

    fn share(self) -> f64 {
        f64::from(self.failed) / f64::from(self.total.max(1))
    }

    fn goodput(self) -> f64 {
        f64::from(self.answered) / self.seconds.max(1e-3)
    }
}

fn exceeds(results: Results, expected: f64, errors: f64) -> bool {
    let total = f64::from(results.total);
    let noise = errors * (total * expected * (1.0 - expected)).sqrt();
    f64::from(results.failed) > total * expected + noise + 0.01 * total
}

#[cfg(test)]
mod tests;
