//! How many pods there should be: up fast, by what there is and where it goes; down slowly, one drained pod at a time.
//!
//! Waiting that an upstream or a cap causes adds no pods: they would wait as well.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{ScaleDecision, ScaleReason};
use crate::facts::PodName;
use crate::policy::{Policy, ScalingMode};
use crate::view::{PodView, View};

/// Totals are remembered for so long, for the slope; and reckoned by in a panic for so long.
const STABLE: Duration = Duration::from_secs(60);
const PANIC: Duration = Duration::from_secs(6);
/// Wanted by the last seconds, as a part of what there is, from which on those alone count.
const PANIC_RATIO: f64 = 1.5;
/// Until a new pod takes clients.
const READY_TIME: Duration = Duration::from_secs(45);
/// What the slope leads to may fill pods so far.
const SLOPE_TARGET: f64 = 0.85;
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

/// What was seen and wished.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scaler {
    totals: VecDeque<(Instant, u64)>,
    wishes: VecDeque<(Instant, u32)>,
    step: Option<(Instant, u32)>,
    raised: Option<Instant>,
    panicked: Option<Instant>,
    wanted: Option<u32>,
    victim: Option<PodName>,
}

struct Wish {
    pods: u32,
    reason: ScaleReason,
}

impl Scaler {
    pub(crate) fn victim(&self) -> Option<&PodName> {
        self.victim.as_ref()
    }

    /// `None`: not the manager's to decide.
    pub(crate) fn plan(
        &mut self,
        view: &View,
        policy: &Policy,
        calm: bool,
        now: Instant,
    ) -> Option<ScaleDecision> {
        self.remember(view, now);
        if policy.scaling.mode != ScalingMode::Managed || !view.facts_known {
            self.victim = None;
            return None;
        }
        let staying: Vec<(&PodName, &PodView)> = view
            .pods
            .iter()
            .filter(|(_, pod)| pod.facts.is_some() && !pod.terminating())
            .collect();
        let current = u32::try_from(staying.len()).unwrap_or(u32::MAX);
        let wish = self.wish(view, policy, current, now);
        let (min, max) = (policy.scaling.min, policy.scaling.max);
        self.wish_for(wish.pods.clamp(min, max), policy, now);
        let mut limited = None;
        if wish.pods > max {
            limited = Some(format!("max is {max}"));
        }
        let bounded = wish.pods.clamp(min, max);
        let reason = if wish.pods < min {
            ScaleReason::Minimum
        } else {
            wish.reason
        };
        let wanted =
            if f64::from(bounded) > f64::from(current) * (1.0 + UP_TOLERANCE) || current < min {
                self.up(current, bounded, now)
            } else {
                let (wanted, why) = self.down(&staying, view, policy, calm, now);
                limited = limited.or(why);
                wanted
            };
        if policy.scaling.paused {
            self.victim = None;
            limited = Some("scaling is paused".to_owned());
        }
        self.wanted = Some(wanted);
        Some(ScaleDecision {
            wanted: if policy.scaling.paused {
                current
            } else {
                wanted
            },
            reason: if wanted == current {
                ScaleReason::Steady
            } else {
                reason
            },
            unlimited: wish.pods,
            limited: limited.map(Arc::from),
            victim: self.victim.clone(),
        })
    }

    fn remember(&mut self, view: &View, now: Instant) {
        self.totals.push_back((now, view.connections(now)));
        let old = |at: &Instant| now.saturating_duration_since(*at) > STABLE;
        while self.totals.front().is_some_and(|(at, _)| old(at)) {
            self.totals.pop_front();
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

    /// The most that anything asks for.
    fn wish(&mut self, view: &View, policy: &Policy, current: u32, now: Instant) -> Wish {
        let scaling = &policy.scaling;
        let capacity = scaling.connections_per_replica.max(1) as f64;
        let pods = |connections: f64, part: f64| (connections / (capacity * part)).ceil() as u32;
        let stable = self.mean(STABLE, now);
        let short = self.mean(PANIC, now);
        let by_stable = pods(stable, scaling.connections_target);
        let by_short = pods(short, scaling.connections_target);
        let ratio = f64::from(by_short) / f64::from(current.max(1));
        if ratio >= PANIC_RATIO {
            self.panicked = Some(now);
        }
        let panics = self
            .panicked
            .is_some_and(|at| now.saturating_duration_since(at) < STABLE);
        let by_connections = if panics {
            by_short.max(by_stable).max(current)
        } else {
            by_stable.max(by_short)
        };
        let total = self.totals.back().map_or(0, |(_, total)| *total) as f64;
        // A jump is no slope: it does not go on like that.
        let rise = self.slope(now).max(0.0) * READY_TIME.as_secs_f64();
        let ahead = total + rise.min(total);
        let by_slope = pods(ahead, SLOPE_TARGET);
        let wishes = [
            (by_connections, ScaleReason::Connections),
            (by_slope, ScaleReason::Slope),
            (by_cpu(view, policy, current, now), ScaleReason::Cpu),
            (
                by_queue(view, policy, current, now),
                ScaleReason::QueueDelay,
            ),
        ];
        let most = wishes.into_iter().max_by_key(|(pods, _)| *pods);
        let (pods, reason) = most.unwrap_or((current, ScaleReason::Steady));
        Wish {
            pods: pods.max(1),
            reason,
        }
    }

    fn mean(&self, window: Duration, now: Instant) -> f64 {
        let recent = self
            .totals
            .iter()
            .filter(|(at, _)| now.saturating_duration_since(*at) <= window);
        let (sum, count) = recent.fold((0, 0), |(sum, count), (_, total)| (sum + total, count + 1));
        sum as f64 / f64::from(count.max(1))
    }

    /// Connections per second, over the last minute, or since the manager began.
    fn slope(&self, now: Instant) -> f64 {
        let Some((first_at, first)) = self.totals.front() else {
            return 0.0;
        };
        let last = self.totals.back().map_or(0, |(_, total)| *total);
        let span = now.saturating_duration_since(*first_at).as_secs_f64();
        if span < PANIC.as_secs_f64() {
            0.0
        } else {
            (last as f64 - *first as f64) / span
        }
    }

    fn up(&mut self, current: u32, bounded: u32, now: Instant) -> u32 {
        self.victim = None;
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
        staying: &[(&PodName, &PodView)],
        view: &View,
        policy: &Policy,
        calm: bool,
        now: Instant,
    ) -> (u32, Option<String>) {
        let current = u32::try_from(staying.len()).unwrap_or(u32::MAX);
        let highest = self
            .wishes
            .iter()
            .map(|(_, pods)| *pods)
            .max()
            .unwrap_or(current);
        if f64::from(highest) > f64::from(current) * (1.0 - DOWN_TOLERANCE) {
            self.victim = None;
            return (current, None);
        }
        // Its own drain is no reason to stop.
        if self
            .victim
            .as_ref()
            .is_some_and(|victim| view.pods.contains_key(victim))
        {
            return (current - 1, None);
        }
        let window = policy.scaling.scale_down_window;
        let seen = self
            .wishes
            .front()
            .map_or(Duration::ZERO, |(at, _)| now.saturating_duration_since(*at));
        if seen + REMEMBER < window {
            return (
                current,
                Some("pods are removed after a while of less load only".to_owned()),
            );
        }
        if let Some(why) = self.not_now(staying, policy, calm, now) {
            self.victim = None;
            return (current, Some(why));
        }
        let goes_on = self
            .victim
            .as_ref()
            .is_some_and(|victim| view.pods.contains_key(victim));
        if !goes_on {
            self.victim = victim(staying);
        }
        (current - 1, None)
    }

    fn not_now(
        &self,
        staying: &[(&PodName, &PodView)],
        policy: &Policy,
        calm: bool,
        now: Instant,
    ) -> Option<String> {
        let current = staying.len();
        if current as u32 <= policy.scaling.min {
            return Some(format!("min is {}", policy.scaling.min));
        }
        let missing = staying
            .iter()
            .filter(|(_, pod)| pod.fresh(now).is_none())
            .count();
        if missing as f64 > current as f64 * MISSING_MAX {
            return Some(format!("{missing} of {current} pods do not report"));
        }
        let recent =
            |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) < CALM);
        if !calm || recent(self.raised) || recent(self.panicked) {
            return Some("pods were added, moved or replaced a moment ago".to_owned());
        }
        let total: u64 = staying.iter().map(|(_, pod)| pod.connections()).sum();
        let scaling = &policy.scaling;
        let aim = scaling.connections_per_replica as f64 * scaling.connections_target;
        let after = total as f64 / ((current - 1).max(1) as f64 * aim);
        (after > AFTER_REMOVAL_MAX).then(|| {
            format!(
                "the others would be at {:.0} % of what is aimed at",
                after * 100.0
            )
        })
    }
}

/// Of an old revision, then with the fewest clients.
fn victim(staying: &[(&PodName, &PodView)]) -> Option<PodName> {
    let order =
        |(name, pod): &&(&PodName, &PodView)| (pod.current(), pod.connections(), (*name).clone());
    staying
        .iter()
        .min_by_key(order)
        .map(|(name, _)| (*name).clone())
}

fn by_cpu(view: &View, policy: &Policy, current: u32, now: Instant) -> u32 {
    let mut used = 0.0;
    let mut requested = 0.0;
    for pod in view.pods.values() {
        let request = pod
            .heard
            .as_ref()
            .and_then(|heard| heard.report.cpu_request_cores);
        if let Some((cores, request)) = pod.cpu_cores(now).zip(request) {
            used += cores;
            requested += request;
        }
    }
    if requested <= 0.0 {
        return 0;
    }
    (f64::from(current) * used / (requested * policy.scaling.cpu_target)).ceil() as u32
}

/// Only what the gateway itself causes.
fn by_queue(view: &View, policy: &Policy, current: u32, now: Instant) -> u32 {
    let lags = view.pods.values().filter_map(|pod| pod.fresh(now));
    let lag = lags
        .map(|heard| heard.report.queue.dispatch_lag)
        .max()
        .unwrap_or_default();
    let ratio = lag.as_secs_f64() / policy.scaling.queue_delay_target.as_secs_f64().max(0.001);
    if ratio <= 1.0 {
        0
    } else {
        (f64::from(current) * ratio.min(2.0)).ceil() as u32
    }
}
