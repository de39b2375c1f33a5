//! How many pods there should be: up fast, by what there is and where it goes; down slowly, one drained pod at a time.
//!
//! Waiting that an upstream or a cap causes adds no pods: they would wait as well.

mod load;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::steering::Steering;
use super::{PodState, ScaleDecision, ScaleLimit, ScaleReason};
use crate::facts::PodName;
use crate::policy::{Policy, ScalingMode};
use crate::view::{PodView, View};
use load::{Load, Wish};

/// Fewer or more by less than this is as it should be.
const UP_TOLERANCE: f64 = 0.05;
const DOWN_TOLERANCE: f64 = 0.10;
/// In one step of so long, twice as many or four more.
const STEP: Duration = Duration::from_secs(15);
const STEP_PODS: u32 = 4;
/// Without figures of so many pods none is removed.
const MISSING_MAX: f64 = 0.30;
/// Nothing is removed so soon after pods were added or the manager was new.
const CALM: Duration = Duration::from_secs(60);
/// Left after one pod is gone: so much of what is aimed at.
const AFTER_REMOVAL_MAX: f64 = 0.8;
/// One wish is remembered per this, so that long windows stay small.
const REMEMBER: Duration = Duration::from_secs(5);
/// A pod that is not empty by then ends as it is, and closes its clients by itself, paced.
const DRAIN_MAX: Duration = Duration::from_secs(900);

/// What a decision is made of.
pub(crate) struct Seen<'a> {
    pub(crate) view: &'a View,
    pub(crate) policy: &'a Policy,
    /// As it was decided last.
    pub(crate) steering: &'a Steering,
    pub(crate) learning: bool,
    /// Nothing else is under way.
    pub(crate) calm: bool,
    pub(crate) now: Instant,
}

/// What was seen and wished.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scaler {
    load: Load,
    wishes: VecDeque<(Instant, u32)>,
    step: Option<(Instant, u32)>,
    raised: Option<Instant>,
    /// The pod to remove, and since when.
    victim: Option<(PodName, Instant)>,
}

/// Pods that are not ending.
type Staying<'a> = Vec<(&'a PodName, &'a PodView)>;

impl Scaler {
    pub(crate) fn victim(&self) -> Option<&PodName> {
        self.victim.as_ref().map(|(victim, _)| victim)
    }

    /// `None`: not the manager's to decide.
    pub(crate) fn plan(&mut self, seen: &Seen<'_>) -> Option<ScaleDecision> {
        self.load.remember(seen.view, seen.now);
        let pods = seen.view.pods.iter();
        let staying: Staying<'_> = pods
            .filter(|(_, pod)| pod.facts.is_some() && !pod.terminating())
            .collect();
        let there = u32::try_from(staying.len()).unwrap_or(u32::MAX);
        let current = seen.view.replicas.unwrap_or(there);
        let is_gone = |victim: &PodName| !staying.iter().any(|(name, _)| *name == victim);
        if self.victim().is_some_and(is_gone) {
            self.victim = None;
        }
        let mode = seen.policy.scaling.mode;
        let mut decision = match mode {
            _ if !seen.view.facts_known => None,
            ScalingMode::Fixed => None,
            ScalingMode::Given(asked) => Some(self.given(asked, current, &staying, seen)),
            ScalingMode::Managed => Some(self.managed(current, &staying, seen)),
        };
        if decision
            .as_ref()
            .is_none_or(|decision| decision.wanted >= current)
        {
            self.victim = None;
        }
        if let Some(decision) = &mut decision {
            decision.victim = self.victim().cloned();
            // More than were asked for: one that was to go is on its way, or pods are being replaced.
            if there <= current && self.may_go(seen) {
                decision.replicas = current - 1;
            }
        }
        decision
    }

    /// As many as somebody says; who are too many are drained, one by one.
    fn given(
        &mut self,
        asked: u32,
        current: u32,
        staying: &Staying<'_>,
        seen: &Seen<'_>,
    ) -> ScaleDecision {
        let mut decision = ScaleDecision {
            replicas: asked.max(current),
            of: current,
            wanted: asked,
            reason: ScaleReason::Asked,
            wish: asked,
            limit: None,
            waits: None,
            victim: None,
        };
        if asked >= current {
            return decision;
        }
        if seen.learning {
            decision.waits = Some("the manager is new".into());
            return decision;
        }
        // Nobody can take the clients of the last ones, pods that hear nobody are not told, and which of those go that are replaced
        // at the same time is for Kubernetes: they drain by themselves.
        let all_current = staying.iter().all(|(_, pod)| pod.current());
        let anyone_reports = staying.iter().any(|(_, pod)| pod.reports(seen.now));
        if asked == 0 || !all_current || !anyone_reports {
            self.victim = None;
            decision.replicas = asked;
            return decision;
        }
        self.choose(staying, seen.now);
        decision
    }

    fn managed(&mut self, current: u32, staying: &Staying<'_>, seen: &Seen<'_>) -> ScaleDecision {
        let scaling = &seen.policy.scaling;
        let (min, max) = (scaling.min, scaling.max);
        let Wish { pods: wish, reason } = self.load.wish(seen, current);
        let bounded = wish.clamp(min, max);
        self.wish_for(bounded, seen.policy, seen.now);
        let more = f64::from(bounded) > f64::from(current) * (1.0 + UP_TOLERANCE) || current < min;
        let (wanted, waits) = if scaling.paused {
            (current, None)
        } else if more {
            (self.up(current, bounded, seen.now), None)
        } else {
            self.down(current, staying, seen)
        };
        let limit = match (scaling.paused, wish > max) {
            (true, _) => Some(ScaleLimit::Paused),
            (false, true) => Some(ScaleLimit::Maximum),
            (false, false) => None,
        };
        let reason = if wish < min {
            ScaleReason::Minimum
        } else {
            reason
        };
        ScaleDecision {
            replicas: wanted.max(current),
            of: current,
            wanted,
            reason,
            wish: wish.max(min),
            limit,
            waits: waits.map(Into::into),
            victim: None,
        }
    }

    fn wish_for(&mut self, pods: u32, policy: &Policy, now: Instant) {
        let window = policy.scaling.scale_down_window;
        match self.wishes.back_mut() {
            Some((at, most)) if now.saturating_duration_since(*at) < REMEMBER => {
                *most = pods.max(*most)
            }
            _ => self.wishes.push_back((now, pods)),
        }
        let old = |at: &Instant| now.saturating_duration_since(*at) > window + REMEMBER;
        while self.wishes.front().is_some_and(|(at, _)| old(at)) {
            self.wishes.pop_front();
        }
    }

    fn up(&mut self, current: u32, bounded: u32, now: Instant) -> u32 {
        let base = match self.step {
            Some((at, base)) if now.saturating_duration_since(at) < STEP => base,
            _ => {
                self.step = Some((now, current));
                current
            }
        };
        let most = (base * 2).max(base + STEP_PODS);
        self.raised = Some(now);
        bounded.min(most).max(current)
    }

    /// One pod less at most, and why not where that is so.
    fn down(
        &mut self,
        current: u32,
        staying: &Staying<'_>,
        seen: &Seen<'_>,
    ) -> (u32, Option<String>) {
        let highest = self.wishes.iter().map(|(_, pods)| *pods).max();
        let highest = highest.unwrap_or(current);
        let is_allowed = current <= seen.policy.scaling.max;
        if is_allowed && f64::from(highest) > f64::from(current) * (1.0 - DOWN_TOLERANCE) {
            return (current, None);
        }
        // Its own drain is no reason to stop.
        if self.victim.is_some() {
            return (current - 1, None);
        }
        if let Some(why) = self.not_now(current, staying, seen) {
            return (current, Some(why));
        }
        self.choose(staying, seen.now);
        (current - 1, None)
    }

    fn not_now(&self, current: u32, staying: &Staying<'_>, seen: &Seen<'_>) -> Option<String> {
        let scaling = &seen.policy.scaling;
        if current <= scaling.min {
            return Some(format!("min is {}", scaling.min));
        }
        let since = |at: Instant| seen.now.saturating_duration_since(at);
        let first = self.wishes.front();
        let remembered = first.map_or(Duration::ZERO, |(at, _)| since(*at));
        // Above what is allowed there is nothing to wait for.
        if remembered + REMEMBER < scaling.scale_down_window && current <= scaling.max {
            return Some("pods are removed after a while of less load only".to_owned());
        }
        let (there, missing) = (staying.len(), missing(staying, seen.now));
        if missing as f64 > there as f64 * MISSING_MAX {
            return Some(format!("{missing} of {there} pods do not report"));
        }
        let recent = |at: Option<Instant>| at.is_some_and(|at| since(at) < CALM);
        if !seen.calm || recent(self.raised) || recent(self.load.panicked_at()) {
            return Some("pods were added, moved or replaced a moment ago".to_owned());
        }
        if current > scaling.max {
            return None;
        }
        let total: u64 = staying.iter().map(|(_, pod)| pod.connections()).sum();
        let aim = scaling.connections_per_replica as f64 * scaling.connections_target;
        let after = total as f64 / ((current - 1).max(1) as f64 * aim);
        (after > AFTER_REMOVAL_MAX).then(|| {
            format!(
                "the others would be at {:.0} % of what is aimed at",
                after * 100.0
            )
        })
    }

    /// Of an old revision, then with the fewest clients; whom it was before stays it.
    fn choose(&mut self, staying: &Staying<'_>, now: Instant) {
        if self.victim.is_some() {
            return;
        }
        let order = |(name, pod): &&(&PodName, &PodView)| {
            (pod.current(), pod.connections(), (*name).clone())
        };
        let least = staying.iter().min_by_key(order);
        self.victim = least.map(|(name, _)| ((*name).clone(), now));
    }

    /// Whether the pod to remove has nobody left, or cannot be emptied by waiting.
    fn may_go(&self, seen: &Seen<'_>) -> bool {
        let Some((victim, since)) = &self.victim else {
            return false;
        };
        let waited = seen.now.saturating_duration_since(*since);
        // Who carries new connections has to learn of it first.
        if waited < seen.policy.fence_delay {
            return false;
        }
        let steered = seen.steering.get(victim);
        let is_empty = steered.is_some_and(|steered| steered.state == PodState::Drained);
        let hears = seen
            .view
            .pods
            .get(victim)
            .is_some_and(|pod| pod.reports(seen.now));
        is_empty || !hears || waited >= DRAIN_MAX
    }
}

fn missing(staying: &Staying<'_>, now: Instant) -> usize {
    let silent = staying.iter().filter(|(_, pod)| pod.fresh(now).is_none());
    silent.count()
}
