//! The model: pods as data planes behave, a network that delays and cuts, clients that come back, one manager at a time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_manager::{
    Facts, LEASE, PlanSummary, Planner, PodFacts, PodName, PodState, Policy, Rebalance, Scaling,
    TICK,
};
use sluice_proto::fleet::{Cap, CapKey, Directive, Load, Report, Steering, Version};
use sluice_proto::fleet_wire as wire;

pub(crate) const STEP: Duration = Duration::from_millis(250);
/// Between fences and what carries new connections.
const SLICE_DELAY: Duration = Duration::from_secs(1);
/// A client that was closed is back after this at most.
const BACK_WITHIN_S: f64 = 3.0;
/// A data plane that never heard a manager sends nothing under a cap for so long.
const BOOT_AFTER: Duration = Duration::from_secs(20);

pub(crate) fn policy(caps: &[(CapKey, f64)]) -> Policy {
    Policy {
        applications: std::collections::BTreeSet::new(),
        caps: caps.iter().cloned().collect(),
        scaling: Scaling {
            max: 8,
            ..Scaling::default()
        },
        rebalance: Rebalance::Steer,
        moves_per_second: None,
        fence_delay: Duration::from_secs(15),
        steering: true,
    }
}

/// What a pod believes about one cap.
#[derive(Clone, Copy)]
struct Belief {
    per_minute: f64,
    safe: f64,
    until: Instant,
}

impl Belief {
    fn now(&self, now: Instant) -> f64 {
        if now < self.until {
            self.per_minute
        } else if now < self.until + LEASE {
            self.per_minute.min(self.safe)
        } else {
            self.safe
        }
    }
}

pub(crate) struct Pod {
    instance: u64,
    started: Instant,
    pub(crate) ready: bool,
    pub(crate) connections: u64,
    pub(crate) shed_total: u64,
    pub(crate) terminating: bool,
    /// It was told to end: from when to when.
    ends: Option<(Instant, Instant)>,
    /// Its queue is for others, and it sends nothing any more.
    pub(crate) sends_nothing: bool,
    pub(crate) drain_requested: bool,
    pub(crate) current: bool,
    /// It runs, and neither reports nor hears.
    pub(crate) cut_off: bool,
    /// It reports, and hears nothing.
    pub(crate) deaf: bool,
    /// What it says of its load is not true; what it has carried out is.
    pub(crate) lies: bool,
    /// It says again what it said some reports ago, beside what it says now.
    pub(crate) stale: bool,
    /// Each cap under which something waits here.
    pub(crate) waits: BTreeMap<CapKey, bool>,
    pub(crate) cpu_per_client: f64,
    beliefs: BTreeMap<CapKey, Belief>,
    heard: bool,
    applied: Version,
    steering: Steering,
    shed_to: u64,
    sequence: u64,
    sent_at: BTreeMap<u64, Instant>,
    sent: BTreeMap<CapKey, f64>,
    cpu_seconds: f64,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) random: fastrand::Rng,
    pub(crate) policy: Policy,
    pub(crate) planner: Option<Planner>,
    term: u64,
    pub(crate) pods: BTreeMap<PodName, Pod>,
    up: VecDeque<(Instant, Report)>,
    down: VecDeque<(Instant, PodName, Directive)>,
    next_tick: Instant,
    pub(crate) plan: Arc<PlanSummary>,
    /// Pods that new clients reach, each from when on.
    endpoints: VecDeque<(Instant, Vec<PodName>)>,
    returning: VecDeque<(Instant, u64)>,
    /// Requests sent under each cap, by step, over the last minute.
    minute: BTreeMap<CapKey, VecDeque<f64>>,
    pub(crate) worst: BTreeMap<CapKey, f64>,
    pub(crate) sent: BTreeMap<CapKey, f64>,
    pub(crate) closed_by_second: Vec<u64>,
    began: Instant,
    pub(crate) facts: bool,
    /// What Kubernetes was asked for.
    pub(crate) replicas: Option<u32>,
    names: u64,
}

impl World {
    pub(crate) fn new(policy: Policy, pods: usize, seed: u64) -> Self {
        // Any point in time; far from the clock's beginning.
        let now = base();
        let mut world = Self {
            now,
            random: fastrand::Rng::with_seed(seed),
            planner: None,
            policy,
            term: 1_000,
            pods: BTreeMap::new(),
            up: VecDeque::new(),
            down: VecDeque::new(),
            next_tick: now,
            plan: Arc::default(),
            endpoints: VecDeque::new(),
            returning: VecDeque::new(),
            minute: BTreeMap::new(),
            worst: BTreeMap::new(),
            sent: BTreeMap::new(),
            closed_by_second: Vec::new(),
            began: now,
            facts: true,
            replicas: None,
            names: 0,
        };
        for _ in 0..pods {
            world.add();
        }
        world.start_manager();
        world
    }

    pub(crate) fn add(&mut self) -> PodName {
        self.names += 1;
        let name: PodName = format!("pod-{:04}", self.names).into();
        let mut pod = Pod::new(self.now, self.names);
        for key in self.policy.caps.keys() {
            pod.waits.insert(key.clone(), true);
        }
        self.pods.insert(name.clone(), pod);
        name
    }

    /// The user has changed what he wants.
    pub(crate) fn tell_policy(&mut self) {
        let policy = self.policy.clone();
        if let Some(planner) = &mut self.planner {
            planner.set_policy(policy);
        }
    }

    /// Killed; its clients come back to others.
    pub(crate) fn kill(&mut self, name: &PodName) {
        if let Some(pod) = self.pods.remove(name) {
            self.scatter(pod.connections);
        }
    }

    /// A new process in the same pod.
    pub(crate) fn restart(&mut self, name: &PodName) {
        self.names += 1;
        let fresh = Pod::new(self.now, self.names);
        if let Some(old) = self.pods.insert(name.clone(), fresh) {
            self.scatter(old.connections);
            if let Some(new) = self.pods.get_mut(name) {
                new.waits = old.waits;
            }
        }
    }

    /// Told to end by Kubernetes; it has so long.
    pub(crate) fn end(&mut self, name: &PodName, time: Duration) {
        if let Some(pod) = self.pods.get_mut(name) {
            pod.terminating = true;
            pod.ready = false;
            pod.ends = Some((self.now, self.now + time));
        }
    }

    /// Its node is cut off: it goes on sending, and Kubernetes waits to hear that it has ended.
    pub(crate) fn lose(&mut self, name: &PodName) {
        let clients = self.pods.get_mut(name).map_or(0, |pod| {
            pod.cut_off = true;
            pod.terminating = true;
            pod.ready = false;
            std::mem::take(&mut pod.connections)
        });
        self.scatter(clients);
    }

    pub(crate) fn start_manager(&mut self) {
        self.term += 1;
        self.planner = Some(Planner::new(self.term, self.policy.clone(), self.now));
        self.next_tick = self.now;
    }

    pub(crate) fn stop_manager(&mut self) {
        self.planner = None;
        self.down.clear();
    }

    pub(crate) fn scatter(&mut self, clients: u64) {
        // In groups, each at a moment of its own.
        let mut left = clients;
        while left > 0 {
            let group = left.min(1 + clients / 20);
            let after = Duration::from_secs_f64(self.random.f64() * BACK_WITHIN_S);
            self.returning.push_back((self.now + after, group));
            left -= group;
        }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    fn step(&mut self) {
        self.now += STEP;
        let second = (self.now - self.began).as_secs() as usize;
        self.closed_by_second.resize(second + 1, 0);
        self.report();
        self.manage();
        self.obey();
        self.send();
        self.come_back();
    }

    fn report(&mut self) {
        let whole = (self.now - self.began).subsec_millis() == 0;
        if !whole {
            return;
        }
        for (name, pod) in &mut self.pods {
            if pod.cut_off {
                continue;
            }
            let mut report = pod.report(name, self.now);
            if pod.lies {
                lie(&mut report, &mut self.random);
            }
            let delay = Duration::from_millis(self.random.u64(1..400));
            if pod.stale {
                let late = self.random.u64(2..5);
                let at = self.now + Duration::from_secs(late) + delay;
                self.up.push_back((at, report.clone()));
            }
            self.up.push_back((self.now + delay, report));
        }
    }

    fn manage(&mut self) {
        let Some(planner) = &mut self.planner else {
            self.up.clear();
            return;
        };
        let mut later = VecDeque::new();
        for (at, report) in self.up.drain(..) {
            if at <= self.now {
                planner.note(report, self.now);
            } else {
                later.push_back((at, report));
            }
        }
        self.up = later;
        if self.now < self.next_tick {
            return;
        }
        self.next_tick = self.now + TICK;
        if self.facts {
            let pods = self.pods.iter().map(|(name, pod)| pod.facts(name));
            let facts = Facts {
                pods: pods.collect(),
                replicas: self.replicas,
            };
            planner.set_facts(facts, self.now);
        }
        let tick = planner.tick(self.now);
        self.plan = tick.summary;
        for (pod, directive) in tick.directives {
            let delay = Duration::from_millis(self.random.u64(1..900));
            self.down.push_back((self.now + delay, pod, directive));
        }
        let takes = self
            .plan
            .pods
            .iter()
            .filter(|(_, pod)| pod.state.takes_new());
        let names = takes.map(|(name, _)| name.clone()).collect();
        self.endpoints.push_back((self.now + SLICE_DELAY, names));
    }

    fn obey(&mut self) {
        let mut later = VecDeque::new();
        for (at, name, directive) in std::mem::take(&mut self.down) {
            match self.pods.get_mut(&name) {
                _ if at > self.now => later.push_back((at, name, directive)),
                Some(pod) if !pod.cut_off && !pod.deaf => pod.take(&directive),
                _ => {}
            }
        }
        self.down = later;
        let mut closed = 0;
        for pod in self.pods.values_mut() {
            let due = pod.due(self.now).min(pod.connections);
            pod.shed_total += due;
            pod.connections -= due;
            closed += due;
            pod.cpu_seconds += pod.connections as f64 * pod.cpu_per_client * STEP.as_secs_f64();
        }
        if let Some(second) = self.closed_by_second.last_mut() {
            *second += closed;
        }
        self.scatter(closed);
        self.pods
            .retain(|_, pod| pod.ends.is_none() || pod.connections > 0);
    }

    fn send(&mut self) {
        let (now, started) = (self.now, STEP.as_secs_f64() / 60.0);
        for (key, cap) in self.policy.caps.clone() {
            let boot = cap / (2.0 * f64::from(self.policy.scaling.max));
            let mut sum = 0.0;
            for pod in self.pods.values_mut() {
                if pod.waits.get(&key) != Some(&true) {
                    continue;
                }
                let part = pod.allowed(&key, boot, now).0 * started;
                *pod.sent.entry(key.clone()).or_default() += part;
                sum += part;
            }
            *self.sent.entry(key.clone()).or_default() += sum;
            let minute = self.minute.entry(key.clone()).or_default();
            minute.push_back(sum);
            if minute.len() > 240 {
                minute.pop_front();
            }
            let total: f64 = minute.iter().sum();
            let worst = self.worst.entry(key).or_default();
            *worst = worst.max(total / cap);
        }
    }

    fn come_back(&mut self) {
        while self.endpoints.get(1).is_some_and(|(at, _)| *at <= self.now) {
            self.endpoints.pop_front();
        }
        let here = self
            .endpoints
            .front()
            .map(|(_, names)| names.clone())
            .unwrap_or_default();
        let mut later = VecDeque::new();
        for (at, group) in std::mem::take(&mut self.returning) {
            if at > self.now {
                later.push_back((at, group));
                continue;
            }
            let open = |name: &&PodName| {
                self.pods
                    .get(*name)
                    .is_some_and(|pod| pod.ready && pod.steering == Steering::Accept)
            };
            let open: Vec<&PodName> = here.iter().filter(open).collect();
            let chosen = open
                .get(self.random.usize(0..open.len().max(1)))
                .map(|name| (*name).clone());
            match chosen.and_then(|name| self.pods.get_mut(&name)) {
                Some(pod) => pod.connections += group,
                None => later.push_back((self.now + Duration::from_secs(1), group)),
            }
        }
        self.returning = later;
    }

    /// Clients that are away never come back.
    pub(crate) fn forget_returning(&mut self) {
        self.returning.clear();
    }

    pub(crate) fn total(&self) -> u64 {
        self.pods.values().map(|pod| pod.connections).sum()
    }

    /// Clients that come back in a moment.
    pub(crate) fn away(&self) -> u64 {
        self.returning.iter().map(|(_, clients)| clients).sum()
    }

    pub(crate) fn imbalance(&self) -> f64 {
        let most = self
            .pods
            .values()
            .map(|pod| pod.connections)
            .max()
            .unwrap_or_default();
        most as f64 * self.pods.len() as f64 / self.total().max(1) as f64
    }

    pub(crate) fn state(&self, name: &PodName) -> PodState {
        self.plan.pods[name].state
    }

    pub(crate) fn any(&mut self) -> Option<PodName> {
        let names: Vec<&PodName> = self.pods.keys().collect();
        let chosen = self.random.usize(0..names.len().max(1));
        names.get(chosen).map(|name| (*name).clone())
    }
}

/// Anything that the wire lets through.
fn lie(report: &mut Report, random: &mut fastrand::Rng) {
    let mut count = || match random.u32(0..4) {
        0 => 0,
        1 => u64::MAX,
        2 => random.u64(..),
        _ => random.u64(0..10_000),
    };
    report.relay.connections = count();
    report.relay.opened_total = count();
    report.relay.shed_total = count();
    report.connections_max = Some(count());
    report.load.memory_bytes = count();
    report.queue.waiting = count();
    report.queue.arrived_total = count();
    report.queue.oldest = Duration::from_millis(count());
    report.queue.dispatch_lag = Duration::from_millis(count());
    for cap in &mut report.caps {
        cap.waiting = count();
        cap.sent_total = count();
        cap.arrived_total = count();
    }
    let mut number = || [0.0, 1e-300, 1e300, f64::MAX, random.f64() * 1e6][random.usize(0..5)];
    report.load.cpu_seconds_total = number();
    report.cpu_request_cores = Some(number());
    // What comes out at the other end is bounded.
    let said = Report::try_from(wire::Report::from(report.clone()));
    *report = said.expect("numbers of any size can be read");
}

impl Pod {
    fn new(now: Instant, instance: u64) -> Self {
        Self {
            instance,
            started: now,
            ready: true,
            connections: 0,
            shed_total: 0,
            terminating: false,
            ends: None,
            sends_nothing: false,
            drain_requested: false,
            current: true,
            cut_off: false,
            deaf: false,
            lies: false,
            stale: false,
            waits: BTreeMap::new(),
            cpu_per_client: 0.0,
            beliefs: BTreeMap::new(),
            heard: false,
            applied: Version::default(),
            steering: Steering::Accept,
            shed_to: 0,
            sequence: 0,
            sent_at: BTreeMap::new(),
            sent: BTreeMap::new(),
            cpu_seconds: 0.0,
        }
    }

    fn facts(&self, name: &PodName) -> PodFacts {
        PodFacts {
            name: name.clone(),
            ready: self.ready,
            terminating: self.terminating,
            node: None,
            zone: None,
            current_revision: self.current,
            drain_requested: self.drain_requested,
        }
    }

    /// Clients to close now.
    fn due(&self, now: Instant) -> u64 {
        let ordered = self.shed_to.saturating_sub(self.shed_total);
        let Some((since, until)) = self.ends else {
            return ordered;
        };
        let heard = self.heard && !self.cut_off && !self.deaf;
        if heard && now < since + (until - since) / 2 {
            return ordered;
        }
        let left = (since + (until - since).mul_f64(0.9)).saturating_duration_since(now);
        let steps = left.as_secs_f64() / STEP.as_secs_f64();
        ordered.max((self.connections as f64 / steps.max(1.0)).ceil() as u64)
    }

    /// Requests per minute, and how long its lease lasts.
    fn allowed(&self, key: &CapKey, boot: f64, now: Instant) -> (f64, Duration) {
        if self.sends_nothing {
            return (0.0, Duration::ZERO);
        }
        match self.beliefs.get(key) {
            Some(belief) => (belief.now(now), belief.until.saturating_duration_since(now)),
            None if self.heard => (0.0, Duration::ZERO),
            None if now < self.started + BOOT_AFTER => (0.0, Duration::ZERO),
            None => (boot, Duration::ZERO),
        }
    }

    fn report(&mut self, name: &PodName, now: Instant) -> Report {
        self.sequence += 1;
        self.sent_at.insert(self.sequence, now);
        self.sent_at
            .retain(|sequence, _| sequence + 60 > self.sequence);
        let caps = self.waits.iter().map(|(key, waits)| {
            let (allowed, left) = self.allowed(key, 0.0, now);
            Cap {
                key: key.clone(),
                arrived_total: 0,
                sent_total: self.sent.get(key).copied().unwrap_or_default() as u64,
                waiting: if *waits { 1_000 } else { 0 },
                oldest: Duration::ZERO,
                allowed_per_minute: allowed,
                lease_left: left,
                safe_per_minute: self.beliefs.get(key).map(|belief| belief.safe),
            }
        });
        let mut report = Report {
            gateway: "n/g".into(),
            pod: name.clone(),
            instance: format!("{}", self.instance).into(),
            sequence: self.sequence,
            applied: self.applied,
            cpu_request_cores: Some(1.0),
            caps: caps.collect(),
            load: Load {
                cpu_seconds_total: self.cpu_seconds,
                ..Load::default()
            },
            ..Report::default()
        };
        report.sends_nothing = self.sends_nothing;
        report.relay.connections = self.connections;
        report.relay.shed_total = self.shed_total;
        report.ends_in = self
            .ends
            .map(|(_, until)| until.saturating_duration_since(now));
        report
    }

    fn take(&mut self, directive: &Directive) {
        if directive.version < self.applied {
            return;
        }
        // Times count from when the report was sent that it answers.
        let Some(sent_at) = self.sent_at.get(&directive.answers).copied() else {
            return;
        };
        self.heard = true;
        self.applied = directive.version;
        self.steering = directive.steering;
        self.shed_to = directive.shed_to;
        for share in &directive.shares {
            let belief = Belief {
                per_minute: share.per_minute,
                safe: share.safe_per_minute,
                until: sent_at + share.lease,
            };
            self.beliefs.insert(share.key.clone(), belief);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "virtual time begins somewhere")]
fn base() -> Instant {
    Instant::now() + Duration::from_secs(3_600)
}
