//! What each pod may believe about each cap.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sluice_proto::fleet::{CapKey, Report, Version};

use super::Room;
use crate::facts::PodName;
use crate::limits::{LEASE, REFRESH};
use crate::policy::Policy;
use crate::view::View;

/// For a directive's way, and for clocks that do not run alike.
const MARGIN: Duration = Duration::from_secs(2);

/// What a pod is told about one cap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Grant {
    pub(crate) per_minute: f64,
    pub(crate) safe: f64,
}

/// A grant on its way, or in force.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Told {
    version: Version,
    grant: Grant,
    /// The pod's lease is over by then.
    until: Instant,
}

impl Told {
    /// Only the safe rate is left of it.
    fn is_over(&self, now: Instant) -> bool {
        now >= self.until + LEASE
    }

    /// The most that the pod may use, from now on until it could be told something else for sure.
    fn most(&self, now: Instant) -> f64 {
        let Grant { per_minute, safe } = self.grant;
        // It cannot rise to its safe rate sooner than a whole lease from now.
        if now + MARGIN < self.until {
            per_minute
        } else {
            per_minute.max(safe)
        }
    }
}

impl Told {
    /// What is used by a process that nobody can tell anything any more. That has ended, most likely: Kubernetes forgets pods whose
    /// kubelet has said so.
    fn left(&self, now: Instant) -> f64 {
        let Grant { per_minute, safe } = self.grant;
        if now < self.until {
            per_minute
        } else {
            per_minute.min(safe)
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Held {
    /// In the order of their versions: the first may be confirmed, the others are on their way.
    told: Vec<Told>,
    /// What a pod may fall back to without any of these: what it began with, or what is left of those that are over.
    rest: f64,
}

impl Held {
    fn most(&self, now: Instant) -> f64 {
        let told = self.told.iter().map(|told| told.most(now));
        told.fold(self.rest, f64::max)
    }

    /// It has confirmed nothing of late, although it was told again and again.
    fn is_deaf(&self, now: Instant) -> bool {
        let oldest = self.told.first();
        oldest.is_some_and(|told| now + LEASE > told.until + REFRESH * 2 + MARGIN)
    }

    fn most_safe(&self) -> f64 {
        let told = self.told.iter().map(|told| told.grant.safe);
        told.fold(self.rest, f64::max)
    }
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    held: BTreeMap<CapKey, BTreeMap<PodName, Held>>,
    /// Safe rates that pods had from a manager before this one, where they were heard: with those of the others they fit into the cap.
    found: BTreeMap<CapKey, BTreeMap<PodName, f64>>,
}

impl Ledger {
    /// A process that has just begun to report. One that never heard of a manager uses what pods begin with; another
    /// holds what it says, and may fall back to an equal part.
    pub(crate) fn begin(
        &mut self,
        report: &Report,
        (policy, term): (&Policy, u64),
        pods: usize,
        now: Instant,
    ) {
        for (key, cap) in &policy.caps {
            let room = Room::of(*cap, pods, policy.scaling.max);
            let said = report.caps.iter().find(|cap| cap.key == *key);
            let mut held = Held {
                told: Vec::new(),
                rest: room.boot,
            };
            if report.applied != Version::default() {
                let equal = (room.usable / room.holders as f64).max(room.boot);
                let safe = said.and_then(|said| said.safe_per_minute).unwrap_or(equal);
                if report.applied.term != term {
                    let found = self.found.entry(key.clone()).or_default();
                    found.entry(report.pod.clone()).or_insert(safe);
                }
                held.told.extend(said.map(|said| Told {
                    version: Version::default(),
                    grant: Grant {
                        per_minute: said.allowed_per_minute,
                        safe,
                    },
                    // No manager gives a longer one.
                    until: now + said.lease_left.min(LEASE),
                }));
                // The safe rate is what it falls back to, not what it uses.
                held.rest = if held.told.is_empty() { safe } else { 0.0 };
            }
            let pods = self.held.entry(key.clone()).or_default();
            pods.insert(report.pod.clone(), held);
        }
    }

    /// It sends nothing any more, whatever it was told.
    pub(crate) fn release(&mut self, pod: &PodName) {
        for held in self.held.values_mut().filter_map(|pods| pods.get_mut(pod)) {
            *held = Held::default();
        }
    }

    /// What was told before this version is used no more.
    pub(crate) fn confirm(&mut self, pod: &PodName, applied: Version) {
        for held in self.held.values_mut().filter_map(|pods| pods.get_mut(pod)) {
            let newest = held.told.iter().rposition(|told| told.version == applied);
            if let Some(newest) = newest {
                held.told.drain(..newest);
                held.rest = 0.0;
            }
        }
    }

    /// `boot`: what it uses before it hears of this cap for the first time.
    pub(crate) fn tell(
        &mut self,
        key: &CapKey,
        pod: &PodName,
        (grant, boot): (Grant, f64),
        version: Version,
        now: Instant,
    ) {
        let until = now + LEASE;
        let pods = self.held.entry(key.clone()).or_default();
        let held = pods.entry(pod.clone()).or_insert_with(|| Held {
            told: Vec::new(),
            rest: boot,
        });
        held.told.push(Told {
            version,
            grant,
            until,
        });
    }

    /// Keeps what somebody may still believe. Bounded: a grant is over after two leases.
    pub(crate) fn expire(&mut self, policy: &Policy, view: &View, now: Instant) {
        self.held.retain(|key, _| policy.caps.contains_key(key));
        self.found.retain(|key, _| policy.caps.contains_key(key));
        for pods in self.held.values_mut() {
            for held in pods.values_mut() {
                let over = held.told.iter().filter(|told| told.is_over(now));
                held.rest = over.map(|told| told.grant.safe).fold(held.rest, f64::max);
                held.told.retain(|told| !told.is_over(now));
            }
            pods.retain(|pod, held| view.pods.contains_key(pod) || !held.told.is_empty());
        }
    }

    /// `None`: it was told nothing yet, and uses what pods begin with.
    pub(super) fn most(&self, key: &CapKey, pod: &PodName, now: Instant) -> Option<f64> {
        self.get(key, pod).map(|held| held.most(now))
    }

    pub(super) fn most_safe(&self, key: &CapKey, pod: &PodName) -> Option<f64> {
        self.get(key, pod).map(Held::most_safe)
    }

    /// Safe rates of pods that were heard, which they had from a manager before this one.
    pub(super) fn found(&self, key: &CapKey) -> f64 {
        self.found
            .get(key)
            .into_iter()
            .flat_map(BTreeMap::values)
            .sum()
    }

    pub(super) fn is_deaf(&self, key: &CapKey, pod: &PodName, now: Instant) -> bool {
        self.get(key, pod).is_some_and(|held| held.is_deaf(now))
    }

    pub(super) fn last(&self, key: &CapKey, pod: &PodName) -> Option<Grant> {
        self.get(key, pod)?.told.last().map(|told| told.grant)
    }

    /// Of pods that are gone for Kubernetes, and may only be cut off.
    pub(super) fn most_of_gone(&self, key: &CapKey, view: &View, now: Instant) -> f64 {
        let held = self.held.get(key).into_iter().flatten();
        let gone = held.filter(|(pod, _)| !view.pods.contains_key(*pod));
        let left = |held: &Held| {
            held.told
                .iter()
                .map(|told| told.left(now))
                .fold(0.0, f64::max)
        };
        gone.map(|(_, held)| left(held)).sum()
    }

    /// What all pods together may use now.
    pub(crate) fn total(&self, key: &CapKey, view: &View, now: Instant) -> f64 {
        let held = self.held.get(key).into_iter().flatten();
        let known = held.filter(|(pod, _)| view.pods.contains_key(*pod));
        let known: f64 = known.map(|(_, held)| held.most(now)).sum();
        known + self.most_of_gone(key, view, now)
    }

    fn get(&self, key: &CapKey, pod: &PodName) -> Option<&Held> {
        self.held.get(key)?.get(pod)
    }
}
