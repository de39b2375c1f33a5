//! What the manager believes of each pod: what it said last, when, and what Kubernetes knows of it. Owns no decision.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_proto::fleet::{Phase, Report};

use crate::facts::{Facts, PodFacts, PodName};
use crate::limits::{FORGOTTEN_AFTER, GONE_AFTER, NEVER_HEARD_AFTER, SILENT_AFTER, STALE_AFTER};

mod heard;

pub(crate) use self::heard::{Counts, Heard, Rates};

/// Cores that a pod may say it requests: more or less is a mistake, and would be all of the fleet, or nothing.
const WEIGHT_MIN: f64 = 0.001;
const WEIGHT_MAX: f64 = 1_024.0;
/// CPU is not counted while a pod warms up.
const WARM_UP: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Default)]
pub(crate) struct View {
    pub(crate) pods: BTreeMap<PodName, PodView>,
    /// Kubernetes was heard; before that, pods are known by their reports alone.
    pub(crate) facts_known: bool,
    /// What Kubernetes was asked for, where it is known.
    pub(crate) replicas: Option<u32>,
    /// What processes counted that are gone: in all, and of each application.
    pub(crate) gone: Counts,
    pub(crate) gone_applications: BTreeMap<Arc<str>, Counts>,
}

#[derive(Debug, Clone)]
pub(crate) struct PodView {
    pub(crate) facts: Option<PodFacts>,
    pub(crate) known_since: Instant,
    pub(crate) heard: Option<Heard>,
    /// Its stream ended, and there was no report since.
    left: Option<Instant>,
}

/// What a report changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Noted {
    /// An old one that was overtaken.
    Outdated,
    /// Of the process that was known.
    Same,
    /// The first of a process; one before it in the same pod has ended.
    New,
}

impl View {
    pub(crate) fn set_facts(&mut self, facts: Facts, now: Instant) {
        self.facts_known = true;
        self.replicas = facts.replicas;
        let names: BTreeSet<PodName> = facts.pods.iter().map(|pod| pod.name.clone()).collect();
        for pod in facts.pods {
            let known = self.pods.entry(pod.name.clone());
            let known = known.or_insert_with(|| PodView::new(now));
            known.facts = Some(pod);
        }
        for (name, pod) in &mut self.pods {
            if !names.contains(name) {
                pod.facts = None;
            }
        }
    }

    pub(crate) fn note(&mut self, report: Report, now: Instant) -> Noted {
        let pod = self.pods.entry(report.pod.clone());
        let pod = pod.or_insert_with(|| PodView::new(now));
        pod.left = None;
        let Some(heard) = &mut pod.heard else {
            pod.heard = Some(Heard::first(report, now));
            return Noted::New;
        };
        if heard.report.instance != report.instance {
            let gone = std::mem::replace(heard, Heard::first(report, now));
            self.count_gone(&gone);
            return Noted::New;
        }
        if report.sequence <= heard.report.sequence {
            return Noted::Outdated;
        }
        heard.next(report, now);
        Noted::Same
    }

    /// A pod's stream ended.
    pub(crate) fn note_left(&mut self, pod: &PodName, now: Instant) {
        if let Some(pod) = self.pods.get_mut(pod) {
            pod.left = Some(now);
        }
    }

    /// Forgets pods that are gone: Kubernetes does not know them any more, or, where it is not heard, they were silent for long.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<PodName> {
        let facts_known = self.facts_known;
        let gone = |pod: &PodView| {
            let quiet = pod.heard.as_ref().map_or(pod.known_since, |heard| heard.at);
            let silent = now.saturating_duration_since(quiet);
            let is_unknown = facts_known && !pod.reports(now);
            pod.facts.is_none() && (is_unknown || silent >= FORGOTTEN_AFTER)
        };
        let names: Vec<PodName> = self
            .pods
            .iter()
            .filter(|(_, pod)| gone(pod))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &names {
            let pod = self.pods.remove(name);
            if let Some(gone) = pod.and_then(|pod| pod.heard) {
                self.count_gone(&gone);
            }
        }
        names
    }

    fn count_gone(&mut self, gone: &Heard) {
        self.gone.add(gone.counts());
        for (name, application) in &gone.applications {
            let counts = self.gone_applications.entry(Arc::clone(name));
            counts.or_default().add(application.counts());
        }
    }

    /// Of pods that report.
    pub(crate) fn connections(&self, now: Instant) -> u64 {
        let heard = self.pods.values().filter_map(|pod| pod.fresh(now));
        heard.map(|heard| heard.report.relay.connections).sum()
    }
}

impl PodView {
    fn new(now: Instant) -> Self {
        Self {
            facts: None,
            known_since: now,
            heard: None,
            left: None,
        }
    }

    /// What it said, unless that is too old to decide by.
    pub(crate) fn fresh(&self, now: Instant) -> Option<&Heard> {
        let fresh = |heard: &&Heard| now.saturating_duration_since(heard.at) < STALE_AFTER;
        self.heard.as_ref().filter(fresh)
    }

    pub(crate) fn reports(&self, now: Instant) -> bool {
        self.silent_at().is_some_and(|at| now < at)
    }

    /// Until then it counts as one that reports, if nothing more is heard of it. `None`: it never was.
    pub(crate) fn silent_at(&self) -> Option<Instant> {
        let silent_at = self.heard.as_ref()?.at + SILENT_AFTER;
        let gone_at = self.left.map(|left| left + GONE_AFTER);
        Some(gone_at.map_or(silent_at, |gone_at| gone_at.min(silent_at)))
    }

    /// It should report and does not. A pod that never has is one of an older release, as long as no other has either:
    /// the caller knows.
    pub(crate) fn is_silent(&self, now: Instant) -> bool {
        match &self.heard {
            Some(_) => !self.reports(now),
            None => now.saturating_duration_since(self.known_since) >= NEVER_HEARD_AFTER,
        }
    }

    /// Who reports without being known to Kubernetes counts as ready.
    pub(crate) fn ready(&self) -> bool {
        self.facts.as_ref().is_none_or(|facts| facts.ready)
    }

    pub(crate) fn terminating(&self) -> bool {
        self.facts.as_ref().is_some_and(|facts| facts.terminating)
    }

    pub(crate) fn drain_requested(&self) -> bool {
        self.facts
            .as_ref()
            .is_some_and(|facts| facts.drain_requested)
    }

    pub(crate) fn current(&self) -> bool {
        self.facts
            .as_ref()
            .is_none_or(|facts| facts.current_revision)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.heard
            .as_ref()
            .map_or(0, |heard| heard.report.relay.connections)
    }

    /// It was told to end. Where Kubernetes is not heard, a pod of a release that says only that it drains is taken to end; else
    /// that could be about a directive.
    pub(crate) fn ends(&self) -> bool {
        let drains = |heard: &Heard| heard.report.phase == Phase::Draining;
        self.terminating()
            || self.ends_in().is_some()
            || self.facts.is_none() && self.heard.as_ref().is_some_and(drains)
    }

    /// It ends within this time, and until then closes its clients as directives say.
    pub(crate) fn ends_in(&self) -> Option<Duration> {
        self.heard.as_ref().and_then(|heard| heard.report.ends_in)
    }

    /// What it was told of caps is of no account any more.
    pub(crate) fn sends_nothing(&self) -> bool {
        let heard = self.heard.as_ref();
        heard.is_some_and(|heard| heard.report.sends_nothing)
    }

    pub(crate) fn weight(&self) -> f64 {
        let cores = |heard: &Heard| heard.report.cpu_request_cores;
        self.heard
            .as_ref()
            .and_then(cores)
            .filter(|cores| *cores > 0.0)
            .map_or(1.0, |cores| cores.clamp(WEIGHT_MIN, WEIGHT_MAX))
    }

    /// Cores in use, once warm.
    pub(crate) fn cpu_cores(&self, now: Instant) -> Option<f64> {
        let heard = self.fresh(now)?;
        let warm = now.saturating_duration_since(heard.since) >= WARM_UP;
        warm.then_some(heard.rates.cpu_cores)
    }
}
