//! Opens when nothing but failures comes back, and asks with single requests whether the upstream is there again.
//!
//! Probes overlap: an upstream that swallows requests must not hide its recovery for as long as a request may take.

use std::time::{Duration, Instant};

/// Failures in a row that open it, at least.
const FAILURES_MIN: u32 = 5;
/// And for how long there was nothing else: refusals overtake answers. Shorter when there were more of them.
const SPAN_S: f64 = 1.0;
const SPAN_MIN_S: f64 = 0.1;
const OPEN_FIRST: Duration = Duration::from_millis(500);
/// An upstream that comes back is seen after at most this and a quarter.
const OPEN_MAX: Duration = Duration::from_secs(4);
/// Unanswered probes at a time: enough to span the longest timeout one may wait.
const PROBES_MAX: u32 = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    Closed,
    Open,
    /// Single requests find out whether the upstream is there again.
    HalfOpen,
}

#[derive(Debug)]
pub(super) struct Breaker {
    failures: u32,
    failing_since: Option<Instant>,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    since: Instant,
    /// The next probe may start.
    until: Instant,
    pause: Duration,
    probes: u32,
}

impl Breaker {
    pub(super) fn new() -> Self {
        Self {
            failures: 0,
            failing_since: None,
            open: None,
        }
    }

    pub(super) fn state(&self, now: Instant) -> BreakerState {
        match &self.open {
            None => BreakerState::Closed,
            Some(open) if now < open.until && open.probes == 0 => BreakerState::Open,
            Some(_) => BreakerState::HalfOpen,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.open.is_none()
    }

    /// Not closed, or about to open.
    pub(super) fn is_failing(&self) -> bool {
        self.open.is_some() || self.failures >= FAILURES_MIN
    }

    /// `None`: a request may start now.
    pub(super) fn wait(&self, now: Instant) -> Option<Instant> {
        let open = self.open.as_ref()?;
        (now < open.until).then_some(open.until)
    }

    pub(super) fn sent(&mut self, spread: f64, now: Instant) {
        if let Some(open) = &mut self.open {
            open.probes = (open.probes + 1).min(PROBES_MAX);
            // More and more time between unanswered probes, within the same bound.
            open.until = now + jittered(open.pause.max(OPEN_FIRST), spread);
            if open.probes > 1 {
                open.pause = (2 * open.pause).min(OPEN_MAX);
            }
        }
    }

    /// A failure while closed; `true`: it has just opened. `usual` is the share of failures that has nothing to do with
    /// load.
    pub(super) fn failed(&mut self, usual: f64, base_s: f64, now: Instant) -> bool {
        if self.open.is_some() {
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        let since = *self.failing_since.get_or_insert(now);
        let span_s = now.saturating_duration_since(since).as_secs_f64();
        let needed = failures_needed(usual);
        let is_many = self.failures >= 2 * needed;
        let span_needed_s = (1.5 * base_s).clamp(if is_many { SPAN_MIN_S } else { SPAN_S }, 10.0);
        if self.failures < needed || span_s < span_needed_s {
            return false;
        }
        self.open = Some(Open {
            since: now,
            until: now + OPEN_FIRST,
            pause: OPEN_FIRST,
            probes: 0,
        });
        true
    }

    /// An answer while closed.
    pub(super) fn answered(&mut self) {
        self.failures = 0;
        self.failing_since = None;
    }

    /// How an attempt ended while not closed; `true`: it has just closed. `sent_at` is `None` for very long ago.
    pub(super) fn probed(&mut self, end: ProbeEnd, sent_at: Option<Instant>, now: Instant) -> bool {
        let Some(open) = &mut self.open else {
            return false;
        };
        let is_probe = sent_at.is_some_and(|sent_at| sent_at >= open.since);
        if is_probe {
            open.probes = open.probes.saturating_sub(1);
        }
        match end {
            ProbeEnd::Answered if is_probe => {
                *self = Self::new();
                return true;
            }
            // From before it opened: a reason to look, not to believe.
            ProbeEnd::Answered | ProbeEnd::Unknown => open.until = open.until.min(now),
            // The next one waits longer. When the next is due was settled when this one was sent: one that was never
            // answered says nothing about now.
            ProbeEnd::Failed if is_probe => open.pause = (2 * open.pause).min(OPEN_MAX),
            ProbeEnd::Failed => {}
        }
        false
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeEnd {
    Answered,
    Failed,
    /// Given up by the one who sent it.
    Unknown,
}

/// So many that chance alone hardly ever brings them, where a share of all attempts fails anyway.
fn failures_needed(usual: f64) -> u32 {
    if usual <= 0.01 {
        return FAILURES_MIN;
    }
    let by_chance = (1e-4f64.ln() / usual.min(0.95).ln()).ceil();
    (by_chance as u32).clamp(FAILURES_MIN, 200)
}

/// A quarter more or less.
fn jittered(pause: Duration, spread: f64) -> Duration {
    pause.mul_f64(0.75 + 0.5 * spread.clamp(0.0, 1.0))
}
