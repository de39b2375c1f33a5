//! Clients that are closed so that they come back elsewhere: off pods that end or are to be empty, and, where the user wants it, off pods
//! with too many. One budget for the whole fleet.
//!
//! A pod's order is a total (`shed_to`) that only rises, so that a directive that is lost or doubled does no harm.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::PodState;
use super::steering::{Steered, Steering};
use crate::facts::PodName;
use crate::policy::{Policy, Rebalance};
use crate::view::{PodView, View};

/// The default budget: this part of all clients per second, within these bounds.
const RATE_PART: f64 = 0.01;
const RATE_MIN: f64 = 10.0;
const RATE_MAX: f64 = 500.0;
/// A surplus has to last before anyone is moved.
const PERSISTS: Duration = Duration::from_secs(20);
/// Moved until a pod is this near to its share.
const TARGET: f64 = 1.02;
/// A recipient that uses more of its CPU request halves the rate.
const RECIPIENT_CPU_MAX: f64 = 0.8;
/// When so many of the clients that were there at the beginning are missing, they do not come back: nobody is moved
/// until more of them are here.
const MISSING_MAX: f64 = 0.05;
const MISSING_OVER: f64 = 0.02;
/// Who was closed within so long is on its way: in a small fleet that alone can be a larger part of all.
const ON_THE_WAY: Duration = Duration::from_secs(4);
/// A tick that comes late is not made up for.
const SPAN_MAX: Duration = Duration::from_millis(1_250);
/// Ordered and not done at most: a pod that is late does all of it at once.
const AHEAD: Duration = Duration::from_secs(2);

/// What was ordered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Moves {
    shed_to: BTreeMap<PodName, u64>,
    /// Parts of clients that the last budget had left.
    change: f64,
    last: Option<Instant>,
    /// Clients in all when the moves began that are under way.
    began_with: Option<u64>,
    paused: bool,
}

/// What a tick decided.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Moved {
    pub(crate) shed_to: BTreeMap<PodName, u64>,
    pub(crate) activity: Option<Arc<str>>,
    /// Clients that may be closed per second.
    pub(crate) per_second: f64,
}

impl Moves {
    /// A new process counts from the beginning.
    pub(crate) fn forget(&mut self, pod: &PodName) {
        self.shed_to.remove(pod);
    }

    pub(crate) fn plan(
        &mut self,
        view: &View,
        policy: &Policy,
        steering: &Steering,
        now: Instant,
    ) -> Moved {
        self.shed_to.retain(|pod, _| view.pods.contains_key(pod));
        let total = view.connections(now);
        let per_second = rate(view, policy, steering, total, now);
        let ahead_max = per_second * AHEAD.as_secs_f64();
        // What pods close without an order is of the same budget.
        let unasked = self.follow(view, ahead_max.ceil() as u64);
        let wanted = self.wanted(view, policy, steering, now);
        let span = self
            .last
            .map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        self.last = Some(now);
        if wanted.is_empty() {
            self.began_with = None;
            self.paused = false;
            self.change = 0.0;
            return Moved {
                shed_to: self.shed_to.clone(),
                activity: None,
                per_second,
            };
        }
        self.watch(total, per_second);
        let mut left = self.change + per_second * span.min(SPAN_MAX).as_secs_f64();
        left = (left - unasked as f64).max(-ahead_max);
        let orders = view.pods.iter().map(|(name, pod)| self.ordered(name, pod));
        let ahead = ahead_max - orders.sum::<u64>() as f64;
        left = left.min(ahead.max(0.0));
        if self.paused {
            left = left.min(0.0);
        }
        for (name, count) in &wanted {
            let part = (*count).min(left as u64);
            left -= part as f64;
            *self.shed_to.entry(name.clone()).or_default() += part;
        }
        // A debt is kept; of what was not used, the part of a client.
        self.change = if left < 0.0 { left } else { left.fract() };
        Moved {
            shed_to: self.shed_to.clone(),
            activity: Some(self.words(&wanted, steering)),
            per_second,
        }
    }

    /// Takes over what pods have done; returns how many clients they closed beyond what they were told. `ahead_max`: no pod has more to do
    /// than was ordered at most, or than it has clients. One that seems to has said of itself what was not true, and would close all its clients for it.
    fn follow(&mut self, view: &View, ahead_max: u64) -> u64 {
        let mut unasked = 0;
        for (name, pod) in &view.pods {
            let heard = pod.heard.as_ref();
            let shed = heard.map_or(0, |heard| heard.report.relay.shed_total);
            match self.shed_to.get_mut(name) {
                Some(known) => {
                    unasked += shed.saturating_sub(*known);
                    let more = ahead_max.min(pod.connections());
                    *known = shed.max(*known).min(shed.saturating_add(more));
                }
                None => drop(self.shed_to.insert(name.clone(), shed)),
            }
        }
        unasked
    }

    /// Clients to close, of each pod: of those that end, the next first; then other drains, then surpluses.
    fn wanted(
        &self,
        view: &View,
        policy: &Policy,
        steering: &Steering,
        now: Instant,
    ) -> Vec<(PodName, u64)> {
        let someone = steering.values().any(|steered| steered.state.takes_new());
        let mut ending = Vec::new();
        let mut drains = Vec::new();
        let mut surpluses = Vec::new();
        for (name, steered) in steering {
            let pod = &view.pods[name];
            // Without one who takes them they would come back to where they were.
            if !someone || !pod.reports(now) {
                continue;
            }
            let ordered = self.ordered(name, pod);
            let lasts = now.saturating_duration_since(steered.since);
            let has = pod.connections().saturating_sub(ordered);
            if pod.ends() {
                // One that does not say when closes them by itself.
                ending.extend(pod.ends_in().map(|left| (left, name.clone(), has)));
                continue;
            }
            if steered.state == PodState::Draining && lasts >= policy.fence_delay && has > 0 {
                drains.push((name.clone(), has));
            }
            let moves = policy.rebalance == Rebalance::Move && steered.surplus;
            if moves && lasts >= policy.fence_delay.max(PERSISTS) {
                let above = has.saturating_sub((steered.fair * TARGET) as u64);
                surpluses.push((name.clone(), above));
            }
        }
        // The fullest first.
        surpluses.sort_by(|(x, a), (y, b)| b.cmp(a).then_with(|| x.cmp(y)));
        ending.sort();
        let ending = ending.into_iter().map(|(_, name, count)| (name, count));
        let wanted = ending.chain(drains).chain(surpluses);
        wanted.filter(|(_, count)| *count > 0).collect()
    }

    /// Told, and not done yet.
    fn ordered(&self, name: &PodName, pod: &PodView) -> u64 {
        let done = pod
            .heard
            .as_ref()
            .map_or(0, |heard| heard.report.relay.shed_total);
        let told = self.shed_to.get(name).copied().unwrap_or_default();
        told.saturating_sub(done)
    }

    fn watch(&mut self, total: u64, per_second: f64) {
        let began_with = *self.began_with.get_or_insert(total);
        // Who came meanwhile counts as there from the beginning.
        let began_with = began_with.max(total);
        self.began_with = Some(began_with);
        let missing = (began_with - total) as f64;
        let part = if self.paused {
            MISSING_OVER
        } else {
            MISSING_MAX
        };
        let on_the_way = per_second * ON_THE_WAY.as_secs_f64();
        self.paused = missing > (began_with as f64 * part).max(on_the_way);
    }

    fn words(&self, wanted: &[(PodName, u64)], steering: &Steering) -> Arc<str> {
        let is_drain = |name: &PodName| {
            let steered = steering.get(name);
            steered.is_some_and(|steered: &Steered| steered.state == PodState::Draining)
        };
        let word = |(name, count): &(PodName, u64)| match is_drain(name) {
            true => format!("draining {name}, {count} clients left"),
            false => format!("moving {count} clients off {name}"),
        };
        let mut words = wanted
            .iter()
            .take(3)
            .map(word)
            .collect::<Vec<_>>()
            .join("; ");
        if self.paused {
            words.push_str("; paused, as clients do not come back");
        }
        words.into()
    }
}

/// Clients that may be closed per second by directives.
fn rate(view: &View, policy: &Policy, steering: &Steering, total: u64, now: Instant) -> f64 {
    let default = (total as f64 * RATE_PART).clamp(RATE_MIN, RATE_MAX);
    let budget = policy.moves_per_second.unwrap_or(default);
    let is_hot = |(name, steered): (&PodName, &Steered)| {
        let pod = &view.pods[name];
        let request = pod
            .heard
            .as_ref()
            .and_then(|heard| heard.report.cpu_request_cores);
        let used = pod.fresh(now).map(|heard| heard.rates.cpu_cores);
        steered.state.takes_new()
            && request
                .zip(used)
                .is_some_and(|(request, used)| used > request * RECIPIENT_CPU_MAX)
    };
    if steering.iter().any(is_hot) {
        budget / 2.0
    } else {
        budget
    }
}
