//! The pacing rate: how many requests per second may start.
//!
//! Unset until the upstream refuses for the first time, because before that only latency says how much it can take. A
//! cut goes to just below what came through; growth is careful where refusals are expected and bold beyond.

use std::time::{Duration, Instant};

use super::Class;

/// An upstream that takes less is asked this often all the same, or its recovery would not be seen.
const RATE_MIN: f64 = 0.2;
/// Requests that may start at once after a pause; more only at rates where timers are too coarse.
const BURST_MIN: f64 = 2.0;
const BURST_S: f64 = 0.02;
/// What proxied calls may start ahead of the pace; queued requests pay for it.
const PROXIED_AHEAD_S: f64 = 0.2;
const HOLD: Duration = Duration::from_secs(2);
/// Where the goodput at the last cut is no longer taken for the upstream's limit.
const NEAR_END: f64 = 1.1;
const CAREFUL_S: (f64, f64) = (10.0, 40.0);
/// Where the limit in flight is what keeps refusals away.
const CAREFUL_DAMPED_S: (f64, f64) = (10.0, 25.0);
/// Of what was sent, came through: with less, the upstream was failing rather than full.
const PROVING_SHARE: f64 = 0.5;
/// A rate so far above what comes through that it bounds nothing.
const FREE_RATIO: f64 = 4.0;
/// Growth per second beyond it, doubled every [`BOLD_DOUBLING_S`].
const BOLD_GROWTH: f64 = 0.05;
const BOLD_GROWTH_MAX: f64 = 0.5;
const BOLD_DOUBLING_S: f64 = 3.0;

#[derive(Debug, Clone)]
pub(super) struct Pace {
    rate: Option<f64>,
    /// Others use the rest of what the upstream takes: no more than this, until then.
    ceiling: Option<(f64, Instant)>,
    /// When the next request may start. Lies in the past after a pause.
    next: Instant,
    /// Requests per second that came through when it was last refused.
    good: f64,
    /// Whether `good` is known from refusals beside answers. Before, it is only what there was to send, or what an outage
    /// left of it, and growth does not stop at it.
    proven: bool,
    hold_until: Instant,
    /// Refused last; careful growth counts from here.
    cut_at: Instant,
    /// Seconds of growth beyond the last cut.
    bold_s: f64,
    slow_start: bool,
    /// How long after a cut growth is very careful, and careful.
    careful_s: (f64, f64),
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            rate: None,
            ceiling: None,
            next: now,
            good: 0.0,
            proven: false,
            hold_until: now,
            cut_at: now,
            bold_s: 0.0,
            slow_start: false,
            careful_s: CAREFUL_S,
        }
    }

    pub(super) fn rate(&self) -> Option<f64> {
        self.rate
    }

    /// Returns whether more or less may be sent than before.
    pub(super) fn set_ceiling(&mut self, ceiling: Option<(f64, Instant)>) -> bool {
        let rate = |ceiling: Option<(f64, Instant)>| ceiling.map(|(rate, _)| rate);
        let changed = rate(self.ceiling) != rate(ceiling);
        self.ceiling = ceiling;
        changed
    }

    /// What bounds the next request: the lower of both.
    fn bound(&self, now: Instant) -> Option<f64> {
        let ceiling = self
            .ceiling
            .filter(|(_, until)| now < *until)
            .map(|(rate, _)| rate.max(RATE_MIN));
        match (self.rate, ceiling) {
            (Some(rate), Some(ceiling)) => Some(rate.min(ceiling)),
            (rate, ceiling) => rate.or(ceiling),
        }
    }

    pub(super) fn is_slow_start(&self) -> bool {
        self.slow_start
    }

    /// `None`: a request may start now.
    pub(super) fn wait(&self, class: Class, now: Instant) -> Option<Instant> {
        let rate = self.bound(now)?;
        let ahead_s = match class {
            Class::Queued => 0.0,
            Class::Proxied => PROXIED_AHEAD_S.max(1.0 / rate),
        };
        let at = self
            .next
            .checked_sub(Duration::from_secs_f64(ahead_s))
            .unwrap_or(now);
        (at > now).then_some(at)
    }

    pub(super) fn sent(&mut self, now: Instant) {
        let Some(rate) = self.bound(now) else {
            self.next = now;
            return;
        };
        let burst_s = (BURST_MIN / rate).max(BURST_S);
        let earliest = now
            .checked_sub(Duration::from_secs_f64(burst_s))
            .unwrap_or(now);
        self.next = self.next.max(earliest) + Duration::from_secs_f64(1.0 / rate);
    }

    /// The upstream refused for the rate: down to what came through, but by no more than to `keep` of what was sent.
    pub(super) fn cut(&mut self, goodput: f64, sent_rate: f64, keep: f64, now: Instant) {
        self.careful_s = CAREFUL_S;
        self.lower(goodput, sent_rate, keep, 0.0, now);
    }

    /// The upstream had too much to do and refused in floods.
    pub(super) fn damp(
        &mut self,
        goodput: f64,
        sent_rate: f64,
        keep: f64,
        floor: f64,
        now: Instant,
    ) {
        self.careful_s = CAREFUL_DAMPED_S;
        self.lower(goodput, sent_rate, keep, floor, now);
    }

    fn lower(&mut self, goodput: f64, sent_rate: f64, keep: f64, floor: f64, now: Instant) {
        let current = self.rate.unwrap_or(f64::INFINITY);
        let before = current.min(1.5 * sent_rate.max(goodput));
        let wanted = (0.97 * goodput).max(keep * before).max(floor);
        self.set(wanted.min(current).max(floor), now);
        self.good = goodput;
        self.proven |= keep >= PROVING_SHARE && goodput > 0.0;
        self.hold_until = now + HOLD;
        self.cut_at = now;
        self.bold_s = 0.0;
        self.slow_start = false;
    }

    /// So much and no more for a while.
    pub(super) fn hold_to(&mut self, rate: f64, now: Instant) {
        let current = self.rate.unwrap_or(f64::INFINITY);
        self.set(rate.min(current), now);
        self.hold_until = now + HOLD;
        self.slow_start = false;
    }

    /// The upstream turned out to take so much per second. `bounded`: more would have been sent without the limits.
    pub(super) fn found(&mut self, through: f64, bounded: bool, now: Instant) {
        self.careful_s = CAREFUL_DAMPED_S;
        self.proven = bounded;
        self.lower(through, 0.0, 0.0, 0.0, now);
    }

    /// A good window of `seconds`. `held`: the rate was what bounded the load.
    pub(super) fn grow(&mut self, seconds: f64, goodput: f64, held: bool, now: Instant) {
        let Some(rate) = self.rate else { return };
        if !self.proven {
            if held && (self.slow_start || now >= self.hold_until) {
                self.set(rate * 2f64.powf(seconds.min(2.0)), now);
            } else if rate > FREE_RATIO * goodput.max(RATE_MIN) {
                // Something else bounds the load, as before the first refusal.
                self.rate = None;
                self.slow_start = false;
            }
            return;
        }
        if self.slow_start {
            let doubled = rate * 2f64.powf(seconds.min(2.0));
            self.set(doubled.min(self.good.max(rate)), now);
            self.slow_start = doubled <= 0.8 * self.good;
            return;
        }
        if !held || now < self.hold_until {
            return;
        }
        self.good = (self.good * (1.0 - 0.002 * seconds).max(0.5)).max(goodput);
        let per_second = if rate < 0.9 * self.good {
            0.15
        } else {
            self.careful(rate, goodput, seconds, now)
        };
        self.set(rate * (1.0 + per_second).powf(seconds.min(2.0)), now);
    }

    fn careful(&mut self, rate: f64, goodput: f64, seconds: f64, now: Instant) -> f64 {
        let since_cut_s = now.saturating_duration_since(self.cut_at).as_secs_f64();
        if rate > NEAR_END * goodput.max(RATE_MIN) {
            // More may start than comes through, so something else bounds the load.
            return 0.0;
        }
        match since_cut_s {
            since_s if since_s < self.careful_s.0 => 0.002,
            since_s if since_s < self.careful_s.1 => 0.01,
            _ => {
                self.bold_s += seconds;
                let doublings = (self.bold_s / BOLD_DOUBLING_S).min(8.0);
                (BOLD_GROWTH * 2f64.powf(doublings)).min(BOLD_GROWTH_MAX)
            }
        }
    }

    /// After an outage or a pause: a share of what was good, doubled every second.
    pub(super) fn restart(&mut self, share: f64, goodput: f64, floor: f64, now: Instant) {
        self.good = self.good.max(goodput);
        let start = (share * self.good).max(floor);
        self.set(start, now);
        self.hold_until = now;
        self.slow_start = true;
    }

    /// What was refused had nothing to do with the load.
    pub(super) fn restore(&mut self, rate: Option<f64>, now: Instant) {
        match rate {
            Some(rate) => self.set(rate, now),
            None => self.rate = None,
        }
        self.hold_until = now;
        self.slow_start = false;
    }

    /// What came through before an outage.
    pub(super) fn remember(&mut self, goodput: f64) {
        self.good = self.good.max(goodput);
    }

    fn set(&mut self, rate: f64, now: Instant) {
        let rate = rate.clamp(RATE_MIN, 1e6);
        self.rate = Some(rate);
        self.next = self.next.min(now + Duration::from_secs_f64(1.0 / rate));
    }
}
