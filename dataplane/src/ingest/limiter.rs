//! How fast one upstream may be asked: requests in flight and requests per second, from what it answers.
//!
//! Two limits, because upstreams push back in two ways: latency and refusals for load speak about requests in flight,
//! 429 speaks about requests per second. `flight` and `pace` hold the limits, `base` the latency without a queue,
//! `breaker` stops asking an upstream that only fails, `trial` and `background` find failures that have nothing to do
//! with load: those that do not say why, and those that say that it is load.
//! A [`Limiter`] owns the state of one upstream. It does no I/O, reads no clock, and never queues: whoever asks is told
//! to go or to hold, and tells it of every request that was sent and how it ended.

mod background;
mod base;
mod breaker;
mod decide;
mod flight;
mod pace;
mod timeout;
mod trial;
mod types;
mod window;

#[cfg(test)]
mod tests;

use std::time::{Duration, Instant};

use background::Background;
use base::Base;
use breaker::{Breaker, ProbeEnd};
use decide::Before;
use flight::{Bounds, Flight};
use pace::Pace;
use timeout::Timeout;
use trial::Trials;
use window::{Kind, Window};

pub use breaker::BreakerState;
pub use types::{Cause, Class, Hold, LimiterSettings, Permit, Sample, SampleOutcome, Snapshot};

/// The part of the limit that queued requests leave to proxied calls, once it is more than a few.
const RESERVED: f64 = 0.2;
const RESERVED_FROM: f64 = 5.0;
/// The reserve is kept this long after a proxied call. Without one in sight it would only be lost.
const RESERVE_KEPT: Duration = Duration::from_secs(60);
/// The longest pause an upstream may ask for; a longer one is more likely a mistake.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);
/// A pause after which the upstream is approached slowly.
const LONG_PAUSE: Duration = Duration::from_secs(2);
/// Without a request for this long, limits are what was good then, not what is good now.
const IDLE: Duration = Duration::from_secs(60);
/// When more than this part of the last twenty or so answers are failures, the upstream fails as a whole.
const FAILING: f64 = 0.5;
const FAILING_WEIGHT: f64 = 0.05;
/// A gap after which a window says nothing about rates.
const GAP: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub struct Limiter {
    settings: LimiterSettings,
    random: fastrand::Rng,
    in_flight: [u32; 2],
    flight: Flight,
    pace: Pace,
    base: Base,
    breaker: Breaker,
    background: Background,
    trials: Trials,
    /// The limits before failures whose reason is not known yet.
    before: Option<Before>,
    /// And those before the last failures that seemed to be due to load.
    earlier: Option<(Before, Instant)>,
    timeout: Timeout,
    window: Window,
    /// Answers per second, smoothed.
    goodput: f64,
    /// The best of it, lately: where slow start leads after an outage.
    best: f64,
    /// Of the last answers about this part were failures.
    failing_share: f64,
    retry_after_until: Option<Instant>,
    /// How long the upstream asked to be left alone; what follows depends on it.
    retry_after_length: Duration,
    /// When a limit was last lowered: what was sent before says nothing about the limits now.
    lowered_at: Option<Instant>,
    /// When the limit in flight last grew fast: latencies from before are too good.
    grown_at: Option<Instant>,
    /// A request was sent or ended.
    active_at: Instant,
    proxied_at: Option<Instant>,
    cause: Cause,
}

impl Limiter {
    /// `seed` spreads probes of data planes that start together.
    pub fn new(settings: LimiterSettings, seed: u64, now: Instant) -> Self {
        Self {
            settings,
            random: fastrand::Rng::with_seed(seed),
            in_flight: [0, 0],
            flight: Flight::new(bounds(&settings), now),
            pace: Pace::new(now),
            base: Base::new(now),
            breaker: Breaker::new(),
            background: Background::new(),
            trials: Trials::new(),
            before: None,
            earlier: None,
            timeout: Timeout::new(),
            window: Window::new(now),
            goodput: 0.0,
            best: 0.0,
            failing_share: 0.0,
            retry_after_until: None,
            retry_after_length: Duration::ZERO,
            lowered_at: None,
            grown_at: None,
            active_at: now,
            proxied_at: None,
            cause: Cause::Start,
        }
    }

    /// Whether a request may be sent now. Ask only when there is one: being held is what tells the limiter that its
    /// limits bound the load. `Go` reserves nothing until [`Limiter::sent`].
    pub fn permit(&mut self, class: Class, now: Instant) -> Permit {
        self.wake(now);
        if class == Class::Proxied {
            self.proxied_at = Some(now);
        }
        if let Some(until) = self.retry_after_until {
            return Permit::hold(Hold::RetryAfter, Some(until));
        }
        if let Some(until) = self.breaker.wait(now) {
            return Permit::hold(Hold::Breaker, Some(until));
        }
        if !self.has_room(class, now) {
            self.window.held_in_flight = true;
            return Permit::hold(Hold::InFlight, None);
        }
        if self.breaker.is_closed()
            && let Some(until) = self.pace.wait(class, now)
        {
            self.window.held_rate = true;
            return Permit::hold(Hold::Rate, Some(until));
        }
        Permit::Go
    }

    /// A request was sent. Every one that is reported here must be reported to [`Limiter::settled`] once.
    pub fn sent(&mut self, class: Class, now: Instant) {
        self.wake(now);
        let in_flight = &mut self.in_flight[class.index()];
        *in_flight = in_flight.saturating_add(1);
        self.pace.sent(now);
        let spread = self.random.f64();
        self.breaker.sent(spread, now);
        self.window.sent = self.window.sent.saturating_add(1);
        self.active_at = self.active_at.max(now);
    }

    /// A request ended.
    pub fn settled(&mut self, class: Class, sample: Sample, now: Instant) {
        let in_flight = &mut self.in_flight[class.index()];
        *in_flight = in_flight.saturating_sub(1);
        self.active_at = self.active_at.max(now);
        let sent_at = now.checked_sub(sample.latency);
        self.record_time(sample);
        let is_pausing = self.record_retry_after(sample.outcome, now);
        let Some(kind) = kind(sample.outcome) else {
            self.breaker.probed(ProbeEnd::Unknown, sent_at, now);
            return;
        };
        let failed = matches!(kind, Kind::RateLimited | Kind::Overloaded | Kind::Failed);
        self.failing_share += FAILING_WEIGHT * (f64::from(u8::from(failed)) - self.failing_share);
        if !self.breaker.is_closed() {
            self.probe_ended(kind, sent_at, now);
            return;
        }
        let sent_after = |mark: Option<Instant>| {
            mark.is_none_or(|mark| sent_at.is_some_and(|sent_at| sent_at >= mark))
        };
        let is_current = sent_after(self.lowered_at);
        let is_latency_current = is_current && sent_after(self.grown_at);
        if self.trips(kind, now) {
            self.opened(now);
            return;
        }
        if kind == Kind::Ok
            && self
                .base
                .sample(class, sample.latency, self.total_in_flight(), now)
        {
            // The window saw the probe's limit, not its own.
            self.window.restart(now, false);
            return;
        }
        let is_implicit = matches!(kind, Kind::Ok | Kind::Answered | Kind::Failed);
        if is_implicit && let Some(finding) = self.trials.result(failed, sent_at, now) {
            self.found(finding, now);
            return;
        }
        if is_current || !failed {
            let counts = is_latency_current || kind == Kind::Failed;
            self.window
                .add(class, kind, counts.then_some(sample.latency));
        }
        // A pause that the upstream asked for is no part of the window.
        if is_pausing || self.window.is_due(self.base.value_s(), now) {
            self.decide(now);
        }
    }

    /// How long the next attempt may take.
    pub fn timeout(&self) -> Duration {
        self.timeout.value(self.settings.timeout_max)
    }

    /// How busy the upstream is with one more request, in parts of what it can take: the least of several is chosen.
    pub fn load(&self) -> f64 {
        let weight = f64::from(self.settings.weight.max(1));
        (f64::from(self.total_in_flight()) + 1.0) / (self.flight.limit() * weight)
    }

    /// The upstream as a whole fails: what it answers is not the fault of the request that got it.
    pub fn is_failing(&self) -> bool {
        self.breaker.is_failing() || self.failing_share > FAILING
    }

    pub fn snapshot(&self, now: Instant) -> Snapshot {
        Snapshot {
            in_flight: self.total_in_flight(),
            limit: self.flight.limit(),
            rate: self.pace.rate(),
            goodput: self.goodput,
            base_latency: self.base.value_s().map(Duration::from_secs_f64),
            breaker: self.breaker.state(now),
            retry_after_until: self.retry_after_until.filter(|until| *until > now),
            timeout: self.timeout(),
            unrelated_failures: self.unrelated(),
            why: self.cause,
        }
    }

    /// No more than so much per second until then, whatever the upstream would take. Returns whether that is new.
    pub fn set_ceiling(&mut self, ceiling: Option<(f64, Instant)>) -> bool {
        self.pace.set_ceiling(ceiling)
    }

    pub fn reconfigure(&mut self, settings: LimiterSettings) {
        self.settings = settings;
        self.flight.set_bounds(bounds(&settings));
    }

    fn total_in_flight(&self) -> u32 {
        self.in_flight[0].saturating_add(self.in_flight[1])
    }

    fn has_room(&self, class: Class, now: Instant) -> bool {
        if !self.breaker.is_closed() {
            // Probes are few, and must not wait for the end of requests that may never be answered.
            return f64::from(self.total_in_flight()) < self.flight.max();
        }
        let mut limit = self.flight.limit();
        if let Some(probe) = self.base.probe_limit() {
            limit = limit.min(probe);
        }
        let limit = limit.max(1.0).floor();
        let total = f64::from(self.total_in_flight());
        let reserved = (RESERVED * limit).floor();
        let is_reserved = limit >= RESERVED_FROM && self.expects_proxied(now);
        match class {
            Class::Queued if is_reserved => {
                // Not even a flood of proxied calls takes everything from the queue.
                let queued = f64::from(self.in_flight[Class::Queued.index()]);
                total < limit && (total < limit - reserved || queued < reserved)
            }
            Class::Queued => total < limit,
            Class::Proxied => total < (limit + reserved.max(1.0)).min(self.flight.max()),
        }
    }

    fn expects_proxied(&self, now: Instant) -> bool {
        self.in_flight[Class::Proxied.index()] > 0
            || self
                .proxied_at
                .is_some_and(|at| now.saturating_duration_since(at) < RESERVE_KEPT)
    }

    /// Notices that time has passed.
    fn wake(&mut self, now: Instant) {
        if let Some(until) = self.retry_after_until
            && now >= until
        {
            self.retry_after_until = None;
            self.interrupt_trial();
            if self.retry_after_length >= LONG_PAUSE {
                let floor = self.restart_rate();
                self.pace.restart(0.5, self.best, floor, now);
                self.cause = Cause::Recovery;
            }
            self.window.restart(now, false);
        }
        let quiet = now.saturating_duration_since(self.active_at);
        // At a low rate a gap may be no more than the pause between two requests.
        let gap = GAP.max(Duration::from_secs_f64(
            3.0 / self.pace.rate().unwrap_or(f64::INFINITY),
        ));
        if self.total_in_flight() > 0 || quiet < gap {
            return;
        }
        self.active_at = now;
        self.base.abort_probe();
        self.interrupt_trial();
        self.window.restart(now, true);
        if quiet >= IDLE && self.breaker.is_closed() {
            self.flight.forget(quiet, now);
            self.cause = Cause::Idle;
        }
    }

    fn record_time(&mut self, sample: Sample) {
        if matches!(sample.outcome, SampleOutcome::Ok | SampleOutcome::TimedOut) {
            self.timeout.record(sample.latency);
        }
    }

    /// `true`: a pause begins.
    fn record_retry_after(&mut self, outcome: SampleOutcome, now: Instant) -> bool {
        let (SampleOutcome::RateLimited { retry_after }
        | SampleOutcome::Overloaded { retry_after }) = outcome
        else {
            return false;
        };
        let Some(wait) = retry_after.filter(|wait| !wait.is_zero()) else {
            return false;
        };
        let wait = wait.min(RETRY_AFTER_MAX);
        let until = now + wait;
        let before = self.retry_after_until;
        if before.is_none_or(|before| before < until) {
            self.retry_after_until = Some(until);
            self.retry_after_length = wait;
        }
        before.is_none()
    }
}

/// `None`: the end of a request that says nothing about the upstream.
fn kind(outcome: SampleOutcome) -> Option<Kind> {
    match outcome {
        SampleOutcome::Ok => Some(Kind::Ok),
        SampleOutcome::Neutral => Some(Kind::Answered),
        SampleOutcome::RateLimited { .. } => Some(Kind::RateLimited),
        SampleOutcome::Overloaded { .. } | SampleOutcome::TimedOut => Some(Kind::Overloaded),
        SampleOutcome::Erred | SampleOutcome::Failed => Some(Kind::Failed),
        SampleOutcome::Abandoned => None,
    }
}

fn bounds(settings: &LimiterSettings) -> Bounds {
    let min = settings.concurrency_min.max(1);
    Bounds {
        min: f64::from(min),
        max: f64::from(settings.concurrency_max.max(min)),
    }
}
