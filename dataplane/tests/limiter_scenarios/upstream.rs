//! The simulated upstream.

use std::collections::VecDeque;

use crate::scenario::{Action, Change, Fault, FaultKind, Scenario, Upstream as Spec};

/// How long a refusal takes.
const REFUSAL_S: f64 = 0.005;
const NO_CONNECTION_S: f64 = 0.001;

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Reply {
    Ok,
    RateLimited(Option<f64>),
    Overloaded,
    Erred,
    Failed,
}

/// What becomes of a request that has arrived.
#[derive(Debug, PartialEq)]
pub(crate) enum Arrival {
    /// Refused or failed.
    Ends {
        after_s: f64,
        reply: Reply,
    },
    /// Taken; it is over then, and [`Upstream::leave`] must be called.
    Runs {
        after_s: f64,
    },
    /// Waits for a worker.
    Waits,
    Lost,
}

pub(crate) struct Upstream {
    spec: Spec,
    faults: Vec<Fault>,
    random: fastrand::Rng,
    in_flight: u32,
    busy: u32,
    waiting: VecDeque<usize>,
    tokens: f64,
    tokens_at_s: f64,
}

impl Upstream {
    pub(crate) fn new(scenario: &Scenario, seed: u64) -> Self {
        let spec = scenario.upstream.clone();
        Self {
            tokens: spec.rate.as_ref().map_or(0.0, |rate| rate.burst),
            spec,
            faults: scenario.faults.clone(),
            random: fastrand::Rng::with_seed(seed),
            in_flight: 0,
            busy: 0,
            waiting: VecDeque::new(),
            tokens_at_s: 0.0,
        }
    }

    pub(crate) fn base_s(&self) -> f64 {
        self.spec.base_ms / 1000.0
    }

    /// Requests per second it can answer; `None`: no bound is known.
    pub(crate) fn capacity(&self, now_s: f64) -> Option<f64> {
        let down = self
            .faults
            .iter()
            .any(|fault| fault.share >= 1.0 && fault.from_s <= now_s && now_s < fault.to_s);
        if down {
            return Some(0.0);
        }
        if self.spec.capacity.is_some() {
            return self.spec.capacity;
        }
        let rate = self
            .spec
            .rate
            .as_ref()
            .map(|rate| at(rate.per_second, &rate.changes, now_s));
        let concurrency = self
            .spec
            .concurrency
            .as_ref()
            .map(|limit| f64::from(limit.limit) / self.base_s());
        let workers = self.spec.workers.as_ref().map(|workers| {
            let slow = workers.slow.map_or(1.0, |slow| {
                1.0 + (slow.factor - 1.0) / f64::from(slow.one_in)
            });
            at(workers.count, &workers.changes, now_s) / (self.service_s(now_s) * slow)
        });
        [rate, concurrency, workers]
            .into_iter()
            .flatten()
            .reduce(f64::min)
    }

    pub(crate) fn arrive(&mut self, id: usize, now_s: f64) -> Arrival {
        if let Some(end) = self.fault(now_s) {
            return end;
        }
        if let Some(end) = self.over_rate(now_s) {
            return end;
        }
        if let Some(limit) = &self.spec.concurrency
            && self.in_flight >= limit.limit
        {
            return self.refuse(limit.action, Reply::Overloaded);
        }
        let Some(workers) = &self.spec.workers else {
            self.in_flight += 1;
            return Arrival::Runs {
                after_s: self.link_s(),
            };
        };
        let count = at(workers.count, &workers.changes, now_s);
        if f64::from(self.busy) < count {
            self.in_flight += 1;
            self.busy += 1;
            Arrival::Runs {
                after_s: self.serve_s(now_s),
            }
        } else if count > 0.0 && self.waiting.len() < workers.queue {
            self.in_flight += 1;
            self.waiting.push_back(id);
            Arrival::Waits
        } else {
            self.refuse(workers.action, Reply::Overloaded)
        }
    }

    /// A request is over; the next ones begin, with the time they take.
    pub(crate) fn leave(&mut self, now_s: f64) -> Vec<(usize, f64)> {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.busy = self.busy.saturating_sub(1);
        self.begin(now_s)
    }

    /// Begins what may begin, when there are more workers than before.
    pub(crate) fn begin(&mut self, now_s: f64) -> Vec<(usize, f64)> {
        let Some(workers) = &self.spec.workers else {
            return Vec::new();
        };
        let count = at(workers.count, &workers.changes, now_s);
        let mut begun = Vec::new();
        while f64::from(self.busy) < count {
            let Some(id) = self.waiting.pop_front() else {
                break;
            };
            self.busy += 1;
            begun.push((id, self.serve_s(now_s)));
        }
        begun
    }

    fn fault(&mut self, now_s: f64) -> Option<Arrival> {
        let random = self.random.f64();
        let fault = self
            .faults
            .iter()
            .find(|fault| fault.from_s <= now_s && now_s < fault.to_s && random < fault.share)?;
        Some(match fault.kind {
            FaultKind::Reject => ends(REFUSAL_S, Reply::Overloaded),
            FaultKind::Error => ends(REFUSAL_S, Reply::Erred),
            FaultKind::Close => ends(self.base_s(), Reply::Failed),
            FaultKind::Refuse => ends(NO_CONNECTION_S, Reply::Failed),
            FaultKind::Hang => Arrival::Lost,
        })
    }

    fn over_rate(&mut self, now_s: f64) -> Option<Arrival> {
        let rate = self.spec.rate.as_ref()?;
        let per_second = at(rate.per_second, &rate.changes, now_s);
        self.tokens = (self.tokens + (now_s - self.tokens_at_s) * per_second).min(rate.burst);
        self.tokens_at_s = now_s;
        if self.tokens < 1.0 {
            return Some(self.refuse(rate.action, Reply::RateLimited(rate.retry_after_s)));
        }
        self.tokens -= 1.0;
        None
    }

    fn refuse(&self, action: Action, reply: Reply) -> Arrival {
        match action {
            Action::Reject => ends(REFUSAL_S, reply),
            Action::Error => ends(REFUSAL_S, Reply::Erred),
            Action::Defer => ends(self.base_s(), reply),
            Action::Drop => Arrival::Lost,
        }
    }

    fn service_s(&self, now_s: f64) -> f64 {
        let changes = self
            .spec
            .workers
            .as_ref()
            .map_or(&[][..], |workers| &workers.service_changes);
        at(self.spec.base_ms, changes, now_s) / 1000.0
    }

    fn serve_s(&mut self, now_s: f64) -> f64 {
        let exponential = -(1.0 - self.random.f64()).ln();
        let mean_s = self.service_s(now_s);
        let Some(workers) = &self.spec.workers else {
            return mean_s;
        };
        let factor = match workers.slow {
            Some(slow) if self.random.u32(0..slow.one_in) == 0 => slow.factor,
            _ => 1.0,
        };
        mean_s * factor * (1.0 - workers.random + workers.random * exponential)
    }

    /// `in_flight` counts the request itself.
    fn link_s(&mut self) -> f64 {
        let link = self.spec.link.unwrap_or_default();
        let exponential = -(1.0 - self.random.f64()).ln();
        let knee = link.knee_start.map_or(0.0, |start| {
            let over = i32::try_from(self.in_flight.saturating_sub(start)).unwrap_or(i32::MAX);
            link.knee_exp.powi(over) - 1.0
        });
        let scale = f64::from(self.in_flight - 1) * link.scale;
        self.base_s() * (1.0 + scale + knee + link.jitter * exponential)
    }
}

fn ends(after_s: f64, reply: Reply) -> Arrival {
    Arrival::Ends { after_s, reply }
}

fn at(first: f64, changes: &[Change], now_s: f64) -> f64 {
    changes
        .iter()
        .rev()
        .find(|change| change.at_s <= now_s)
        .map_or(first, |change| change.to)
}
