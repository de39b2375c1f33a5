//! How a fleet is now, as the monitor shows it: what pods said, what is planned, and why. Made when somebody looks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;
use sluice_proto::fleet::CapKey;

use crate::plan::{PlanSummary, ScaleDecision};
use crate::policy::Policy;
use crate::view::{Counts, Heard, View};

const PER_MINUTE: f64 = 60.0;

/// A gateway. Rates are smoothed over about two seconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// A new manager learns first what the fleet holds.
    pub learning: bool,
    /// What is under way, in words.
    pub activity: Option<Arc<str>>,
    pub flow: Flow,
    pub queue_bytes: u64,
    pub connections: u64,
    pub messages_in_per_second: f64,
    pub messages_out_per_second: f64,
    pub scale: Option<Scale>,
    pub pods: Vec<Pod>,
    pub upstreams: Vec<Upstream>,
    /// How many applications there are.
    pub applications: usize,
}

/// Requests: what comes, what goes, what waits, and what it may be.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Flow {
    pub arrived_per_minute: f64,
    pub delivered_per_minute: f64,
    pub failed_per_minute: f64,
    /// Counted since the oldest pod that the manager heard of began.
    pub arrived: u64,
    pub delivered: u64,
    pub failed: u64,
    pub waiting: u64,
    pub parked: u64,
    /// Age of the oldest that waits.
    pub oldest_seconds: f64,
    /// Requests per minute that may be sent; `None`: no cap.
    pub limit_per_minute: Option<f64>,
    /// Under the cap.
    pub sent_per_minute: Option<f64>,
    /// What keeps the oldest from being sent, in a word; empty: nothing.
    pub held: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Application {
    pub name: Arc<str>,
    #[serde(flatten)]
    pub flow: Flow,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    pub name: Arc<str>,
    pub state: String,
    pub reason: Arc<str>,
    pub reporting: bool,
    /// Since its last report; `None`: there was none.
    pub reported_seconds_ago: Option<f64>,
    pub node: Option<Arc<str>>,
    pub zone: Option<Arc<str>>,
    pub release: Arc<str>,
    pub connections: u64,
    /// Connections that would be its part.
    pub fair: f64,
    pub cpu_cores: f64,
    pub cpu_request_cores: Option<f64>,
    pub memory_bytes: u64,
    /// 0: no limit.
    pub memory_limit_bytes: u64,
    /// The longest that a worker was late in the last second.
    pub loop_delay_ms: f64,
    pub overload_level: u32,
    pub arrived_per_minute: f64,
    pub delivered_per_minute: f64,
    pub waiting: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scale {
    pub replicas: u32,
    pub wanted: u32,
    pub wish: u32,
    pub reason: String,
    pub limit: Option<String>,
    pub waits: Option<Arc<str>>,
    pub victim: Option<Arc<str>>,
}

/// What all pods together do with an upstream.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Upstream {
    pub name: Arc<str>,
    pub succeeded_per_minute: f64,
    pub succeeded: u64,
    pub failed: u64,
    pub in_flight: u64,
    pub in_flight_limit: f64,
    /// Requests per minute that it was found to take; `None`: it is not paced.
    pub pace_per_minute: Option<f64>,
    /// Pods to which it is closed: its breaker is open, or it asked for a pause.
    pub closed: usize,
    pub pods: usize,
    /// Requests wait that only its limits hold back.
    pub wanted: bool,
}

pub(crate) fn snapshot(view: &View, policy: &Policy, plan: &PlanSummary, now: Instant) -> Snapshot {
    let heard = || view.pods.values().filter_map(|pod| pod.fresh(now));
    let applications = applications(view, policy, now);
    Snapshot {
        learning: plan.learning,
        activity: plan.activity.clone(),
        flow: flow(view, policy, &applications, now),
        queue_bytes: heard().map(|heard| heard.report.queue.bytes).sum(),
        connections: view.connections(now),
        messages_in_per_second: heard().map(|heard| heard.rates.messages_in).sum(),
        messages_out_per_second: heard().map(|heard| heard.rates.messages_out).sum(),
        scale: plan.scale.as_ref().map(scale),
        pods: pods(view, plan, now),
        upstreams: upstreams(view, now),
        applications: applications.len(),
    }
}

/// Of all applications together.
pub(crate) fn flow(
    view: &View,
    policy: &Policy,
    applications: &[Application],
    now: Instant,
) -> Flow {
    let mut flow = Flow::default();
    let mut counts = view.gone;
    for pod in view.pods.values() {
        if let Some(heard) = &pod.heard {
            counts.add(heard.counts());
        }
        let Some(heard) = pod.fresh(now) else {
            continue;
        };
        flow.arrived_per_minute += heard.rates.arrived * PER_MINUTE;
        flow.delivered_per_minute += heard.rates.delivered * PER_MINUTE;
        flow.failed_per_minute += heard.rates.failed * PER_MINUTE;
        flow.waiting += heard.report.queue.waiting;
        flow.parked += heard.report.queue.parked;
        let oldest = heard.report.queue.oldest.as_secs_f64();
        flow.oldest_seconds = flow.oldest_seconds.max(oldest);
    }
    flow.count(counts);
    flow.cap(view, policy, &CapKey::Gateway, now);
    let oldest = applications.iter().filter(|one| one.flow.waiting > 0);
    let oldest = oldest.max_by(|a, b| a.flow.oldest_seconds.total_cmp(&b.flow.oldest_seconds));
    flow.held = oldest.map_or_else(Arc::default, |one| Arc::clone(&one.flow.held));
    flow
}

/// All that are configured, and those that still have something.
pub(crate) fn applications(view: &View, policy: &Policy, now: Instant) -> Vec<Application> {
    let mut flows: BTreeMap<&Arc<str>, Flow> = BTreeMap::new();
    let mut counts: BTreeMap<&Arc<str>, Counts> = BTreeMap::new();
    for (name, gone) in &view.gone_applications {
        counts.entry(name).or_default().add(*gone);
    }
    for pod in view.pods.values() {
        let Some(heard) = &pod.heard else {
            continue;
        };
        let is_fresh = pod.fresh(now).is_some();
        for (name, served) in &heard.applications {
            counts.entry(name).or_default().add(served.counts());
            if !is_fresh {
                continue;
            }
            let flow = flows.entry(name).or_default();
            flow.arrived_per_minute += served.arrived * PER_MINUTE;
            flow.delivered_per_minute += served.delivered * PER_MINUTE;
            flow.failed_per_minute += served.failed * PER_MINUTE;
            flow.waiting += served.said.waiting;
            flow.parked += served.said.parked;
            let oldest = served.said.oldest.as_secs_f64();
            if served.said.waiting > 0 && oldest >= flow.oldest_seconds {
                flow.oldest_seconds = oldest;
                flow.held = Arc::clone(&served.said.held);
            }
        }
    }
    let has_some = |flow: &Flow| flow.waiting + flow.parked > 0;
    let others = flows.iter().filter(|(_, flow)| has_some(flow));
    let names: BTreeSet<&Arc<str>> = others
        .map(|(name, _)| *name)
        .chain(&policy.applications)
        .collect();
    let shown = names.into_iter().map(|name| {
        let mut flow = flows.remove(name).unwrap_or_default();
        flow.count(counts.get(name).copied().unwrap_or_default());
        flow.cap(view, policy, &CapKey::Application(Arc::clone(name)), now);
        Application {
            name: Arc::clone(name),
            flow,
        }
    });
    shown.collect()
}

impl Flow {
    fn count(&mut self, counts: Counts) {
        self.arrived = counts.arrived;
        self.delivered = counts.delivered;
        self.failed = counts.failed;
    }

    fn cap(&mut self, view: &View, policy: &Policy, key: &CapKey, now: Instant) {
        let Some(cap) = policy.caps.get(key) else {
            return;
        };
        let heard = view.pods.values().filter_map(|pod| pod.fresh(now));
        let sent = heard.filter_map(|heard| heard.rates.sent.get(key));
        self.limit_per_minute = Some(*cap);
        self.sent_per_minute = Some(sent.sum::<f64>() * PER_MINUTE);
    }
}

fn pods(view: &View, plan: &PlanSummary, now: Instant) -> Vec<Pod> {
    let shown = view.pods.iter().map(|(name, pod)| {
        let planned = plan.pods.get(name);
        let unknown = || "Unknown".to_owned();
        let heard = pod.heard.as_ref();
        let of = |figure: fn(&Heard) -> f64| heard.map_or(0.0, figure);
        Pod {
            name: Arc::clone(name),
            state: planned.map_or_else(unknown, |planned| format!("{:?}", planned.state)),
            reason: planned.map_or_else(Arc::default, |planned| Arc::clone(&planned.reason)),
            reporting: pod.reports(now),
            reported_seconds_ago: heard
                .map(|heard| now.saturating_duration_since(heard.at).as_secs_f64()),
            node: pod.facts.as_ref().and_then(|facts| facts.node.clone()),
            zone: pod.facts.as_ref().and_then(|facts| facts.zone.clone()),
            release: heard.map_or_else(Arc::default, |heard| Arc::clone(&heard.report.release)),
            connections: pod.connections(),
            fair: planned.map_or(0.0, |planned| planned.fair),
            cpu_cores: of(|heard| heard.rates.cpu_cores),
            cpu_request_cores: heard.and_then(|heard| heard.report.cpu_request_cores),
            memory_bytes: heard.map_or(0, |heard| heard.report.load.memory_bytes),
            memory_limit_bytes: heard.map_or(0, |heard| heard.report.load.memory_limit_bytes),
            loop_delay_ms: of(|heard| heard.report.load.loop_delay.as_secs_f64() * 1e3),
            overload_level: heard.map_or(0, |heard| heard.report.load.overload_level),
            arrived_per_minute: of(|heard| heard.rates.arrived * PER_MINUTE),
            delivered_per_minute: of(|heard| heard.rates.delivered * PER_MINUTE),
            waiting: heard.map_or(0, |heard| heard.report.queue.waiting),
        }
    });
    shown.collect()
}

fn scale(scale: &ScaleDecision) -> Scale {
    Scale {
        replicas: scale.replicas,
        wanted: scale.wanted,
        wish: scale.wish,
        reason: format!("{:?}", scale.reason),
        limit: scale.limit.map(|limit| format!("{limit:?}")),
        waits: scale.waits.clone(),
        victim: scale.victim.clone(),
    }
}

fn upstreams(view: &View, now: Instant) -> Vec<Upstream> {
    let mut shown: BTreeMap<Arc<str>, Upstream> = BTreeMap::new();
    for heard in view.pods.values().filter_map(|pod| pod.fresh(now)) {
        for said in &heard.report.upstreams {
            let name = || Arc::clone(&said.name);
            let one = shown.entry(name()).or_insert_with(|| Upstream {
                name: name(),
                ..Upstream::default()
            });
            let rate = heard.rates.upstream.get(&said.name).copied();
            one.succeeded_per_minute += rate.unwrap_or_default() * PER_MINUTE;
            one.succeeded += said.succeeded_total;
            one.failed += said.failed_total;
            one.in_flight += said.in_flight;
            one.in_flight_limit += said.in_flight_limit;
            if let Some(pace) = said.pace_per_second {
                *one.pace_per_minute.get_or_insert(0.0) += pace * PER_MINUTE;
            }
            one.closed += usize::from(said.closed);
            one.pods += 1;
            one.wanted |= said.wanted;
        }
    }
    shown.into_values().collect()
}
