//! One gateway's decisions: reports and facts in, a tick once a second, directives and a plan out. Pure: owns all state of the decisions,
//! reads no clock, does no I/O.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_proto::fleet::{
    CapKey, Directive, Report, Share, Steering as Order, UpstreamShare, Version,
};

use crate::facts::{Facts, PodName};
use crate::limits::{LEASE, REFRESH, TICK, VALID};
use crate::plan::autoscale::{Scaler, Seen};
use crate::plan::moves::{Moved, Moves};
use crate::plan::steering::{Steering, steer};
use crate::plan::throttle::{Grants, Ledger, boot, learns, split};
use crate::plan::upstreams::{Ceilings, level};
use crate::plan::{PlanSummary, PodPlan, PodState, ScaleDecision, check};
use crate::policy::Policy;
use crate::view::{Noted, PodView, View};

/// Clients that are moved come back within this: SDKs would all come within a second by themselves.
const SPREAD: Duration = Duration::from_secs(3);

pub struct Planner {
    version: Version,
    began: Instant,
    policy: Policy,
    view: View,
    ledger: Ledger,
    steering: Steering,
    moves: Moves,
    scaler: Scaler,
    told: BTreeMap<PodName, Told>,
    summary: Arc<PlanSummary>,
}

/// The last directive of a pod.
struct Told {
    directive: Directive,
    at: Instant,
}

/// What a tick decided.
pub struct Tick {
    /// For pods that have to hear something.
    pub directives: Vec<(PodName, Directive)>,
    pub summary: Arc<PlanSummary>,
    /// Requests per minute that pods may believe in, before and after.
    pub(crate) believed: BTreeMap<CapKey, (f64, f64)>,
}

impl Planner {
    pub fn new(term: u64, policy: Policy, now: Instant) -> Self {
        Self {
            version: Version {
                term,
                generation: 0,
            },
            began: now,
            policy,
            view: View::default(),
            ledger: Ledger::default(),
            steering: Steering::new(),
            moves: Moves::default(),
            scaler: Scaler::default(),
            told: BTreeMap::new(),
            summary: Arc::default(),
        }
    }

    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// What the last tick came to.
    pub(crate) fn summary(&self) -> &Arc<PlanSummary> {
        &self.summary
    }

    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    pub fn set_facts(&mut self, facts: impl Into<Facts>, now: Instant) {
        self.view.set_facts(facts.into(), now);
    }

    /// Whether the pod has to hear something at once.
    pub fn note(&mut self, report: Report, now: Instant) -> bool {
        if report.applied.term > self.version.term {
            // A manager before this one had a clock that is ahead: data planes hear higher terms only.
            self.version = Version {
                term: report.applied.term + 1,
                generation: 0,
            };
            self.told.clear();
        }
        let (pod, applied) = (report.pod.clone(), report.applied);
        let sends_nothing = report.sends_nothing;
        let noted = self.view.note(report, now);
        match noted {
            Noted::Outdated => return false,
            Noted::New => {
                let pods = self.view.pods.len();
                if let Some(heard) = self.view.pods.get(&pod).and_then(|pod| pod.heard.as_ref()) {
                    let policy = (&self.policy, self.version.term);
                    self.ledger.begin(&heard.report, policy, pods, now);
                }
                self.moves.forget(&pod);
                self.told.remove(&pod);
            }
            Noted::Same if applied.term == self.version.term => self.ledger.confirm(&pod, applied),
            Noted::Same => {}
        }
        if sends_nothing {
            self.ledger.release(&pod);
        }
        noted == Noted::New
    }

    /// A pod's stream ended; it opens another one at once, or it is dead.
    pub fn note_left(&mut self, pod: &PodName, now: Instant) {
        self.view.note_left(pod, now);
    }

    /// When a pod that reports now is silent, if that is before the next tick and nothing more comes: new clients are not to go to it for
    /// longer than they have to.
    pub(crate) fn silent_at(&self, now: Instant) -> Option<Instant> {
        let reporting = self.view.pods.values().filter(|pod| pod.reports(now));
        let silent_at = reporting.filter_map(PodView::silent_at).min();
        silent_at.filter(|at| *at < now + TICK)
    }

    pub fn tick(&mut self, now: Instant) -> Tick {
        for gone in self.view.expire(now) {
            self.told.remove(&gone);
        }
        self.ledger.expire(&self.policy, &self.view, now);
        let believed_before = self.believed(now);
        let learning = learns(&self.view, self.began, now);
        let moving = self.summary.activity.is_some();
        let calm = !learning && !moving && self.view.pods.values().all(PodView::current);
        let seen = Seen {
            view: &self.view,
            policy: &self.policy,
            steering: &self.steering,
            learning,
            calm,
            now,
        };
        let scale = self.scaler.plan(&seen);
        let victim = self.scaler.victim();
        self.steering = steer(&self.view, &self.policy, victim, &self.steering, now);
        let moved = if learning {
            Moved::default()
        } else {
            self.moves
                .plan(&self.view, &self.policy, &self.steering, now)
        };
        let grants = split(&self.ledger, &self.view, &self.policy, self.began, now);
        let ceilings = level(&self.view, now);
        let directives = self.directives(&moved, &grants, &ceilings, now);
        let before = Arc::clone(&self.summary);
        self.summary = Arc::new(self.summarize(learning, &moved, scale, now));
        let after = self.believed(now);
        let believed = after.into_iter().map(|(key, after)| {
            let before = believed_before.get(&key).copied().unwrap_or_default();
            (key, (before, after))
        });
        let mut tick = Tick {
            directives,
            summary: Arc::clone(&self.summary),
            believed: believed.collect(),
        };
        if let Err(wrong) = check::check(self, &tick, &before) {
            debug_assert!(false, "{wrong}");
            self.say_wrong(wrong, &before, &mut tick);
        }
        tick
    }

    /// A plan that breaks an invariant is carried out all the same, for there is no other, and is seen in every dump of it.
    fn say_wrong(&mut self, wrong: String, before: &PlanSummary, tick: &mut Tick) {
        if before.wrong.as_deref() != Some(wrong.as_str()) {
            tracing::error!(wrong, "the plan breaks an invariant; please report it");
        }
        let summary = PlanSummary {
            wrong: Some(wrong.into()),
            ..PlanSummary::clone(&tick.summary)
        };
        self.summary = Arc::new(summary);
        tick.summary = Arc::clone(&self.summary);
    }

    fn believed(&self, now: Instant) -> BTreeMap<CapKey, f64> {
        let caps = self.policy.caps.keys();
        caps.map(|key| (key.clone(), self.ledger.total(key, &self.view, now)))
            .collect()
    }

    fn directives(
        &mut self,
        moved: &Moved,
        grants: &Grants,
        ceilings: &Ceilings,
        now: Instant,
    ) -> Vec<(PodName, Directive)> {
        let mut directives = Vec::new();
        for (name, pod) in &self.view.pods {
            let Some(heard) = pod.heard.as_ref().filter(|_| pod.reports(now)) else {
                continue;
            };
            let mut directive = Directive {
                version: Version::default(),
                answers: 0,
                steering: order(self.steering.get(name).map(|steered| steered.state)),
                shed_to: moved
                    .shed_to
                    .get(name)
                    .copied()
                    .unwrap_or(heard.report.relay.shed_total),
                valid: Some(VALID),
                shares: shares(grants, name),
                upstreams: ceilings
                    .get(name)
                    .into_iter()
                    .flatten()
                    .map(ceiling)
                    .collect(),
                report_every: None,
                retry_spread: moved.activity.is_some().then_some(SPREAD),
            };
            let told = self.told.get(name);
            let same = told.is_some_and(|told| {
                told.directive == directive && now.saturating_duration_since(told.at) < REFRESH
            });
            if same {
                continue;
            }
            self.told.insert(
                name.clone(),
                Told {
                    directive: directive.clone(),
                    at: now,
                },
            );
            self.version.generation += 1;
            directive.version = self.version;
            directive.answers = heard.report.sequence;
            for (key, of_pods) in grants {
                if let Some((grant, cap)) = of_pods.get(name).zip(self.policy.caps.get(key)) {
                    let boot = boot(*cap, self.policy.scaling.max);
                    self.ledger
                        .tell(key, name, (*grant, boot), self.version, now);
                }
            }
            directives.push((name.clone(), directive));
        }
        directives
    }

    fn summarize(
        &self,
        learning: bool,
        moved: &Moved,
        scale: Option<ScaleDecision>,
        now: Instant,
    ) -> PlanSummary {
        let heard: Vec<_> = self
            .view
            .pods
            .values()
            .filter_map(|pod| pod.fresh(now))
            .collect();
        let sum = |of: fn(&crate::view::Rates) -> f64| {
            heard.iter().map(|heard| of(&heard.rates)).sum::<f64>()
        };
        let pods = self.steering.iter().map(|(name, steered)| {
            let pod = &self.view.pods[name];
            let plan = PodPlan {
                state: steered.state,
                reason: Arc::clone(&steered.reason),
                connections: pod.connections(),
                fair: steered.fair,
                reporting: pod.reports(now),
                drained: steered.state == PodState::Drained,
            };
            (name.clone(), plan)
        });
        let caps = self.policy.caps.keys().map(|key| {
            let sent = heard.iter().filter_map(|heard| heard.rates.sent.get(key));
            (
                key.clone(),
                (
                    sent.sum::<f64>() * 60.0,
                    self.ledger.total(key, &self.view, now),
                ),
            )
        });
        PlanSummary {
            version: self.version,
            learning,
            pods: pods.collect(),
            scale,
            connections: self.view.connections(now),
            arrived_per_minute: sum(|rates| rates.arrived) * 60.0,
            delivered_per_minute: sum(|rates| rates.delivered) * 60.0,
            failed_per_minute: sum(|rates| rates.failed) * 60.0,
            waiting: heard.iter().map(|heard| heard.report.queue.waiting).sum(),
            oldest: heard
                .iter()
                .map(|heard| heard.report.queue.oldest)
                .max()
                .unwrap_or_default(),
            caps: caps.collect(),
            activity: moved.activity.clone(),
            wrong: None,
        }
    }
}

fn order(state: Option<PodState>) -> Order {
    match state {
        // Who is not ready gets no clients by its endpoint; when it is, it should take them at once.
        Some(PodState::Accepting | PodState::Warming) | None => Order::Accept,
        Some(PodState::Fenced | PodState::Silent) => Order::Fence,
        Some(PodState::Draining | PodState::Drained) => Order::Drain,
    }
}

fn shares(grants: &Grants, pod: &PodName) -> Vec<Share> {
    let of_pod = grants
        .iter()
        .filter_map(|(key, pods)| Some((key, pods.get(pod)?)));
    of_pod
        .map(|(key, grant)| Share {
            key: key.clone(),
            per_minute: grant.per_minute,
            lease: LEASE,
            safe_per_minute: grant.safe,
        })
        .collect()
}

fn ceiling((name, per_second): (&Arc<str>, &f64)) -> UpstreamShare {
    UpstreamShare {
        name: name.clone(),
        per_second: Some(*per_second),
    }
}
