//! Caps split into shares, so that all pods together never send more than a cap.
//!
//! What a pod may believe is kept in a [`Ledger`]. A pod is raised only by what the others surely do not use: they have
//! confirmed that they are lower, or what they were told before is over. Told a share, a pod uses `per_minute` while
//! the lease lasts, then for as long again the lower one of that and the safe rate, then the safe rate. All safe rates
//! fit into the cap, so pods that hear nothing any more stay below it; and by the time that one rises to its safe rate,
//! those that are lowered to make room for it have heard of it or have outlived what they had.

use std::collections::BTreeMap;
use std::time::Instant;

use sluice_proto::fleet::CapKey;

use crate::facts::PodName;
use crate::limits::LEASE;
use crate::policy::Policy;
use crate::view::{PodView, View};

mod fill;
mod ledger;
#[cfg(test)]
mod tests;

pub(crate) use self::fill::fill;
pub(crate) use self::ledger::{Grant, Ledger};

pub(crate) type Grants = BTreeMap<CapKey, BTreeMap<PodName, Grant>>;

/// Bursts may be so much of a cap. More pods would have more, so a small cap is for few of them at a time.
const BURSTS_MAX: f64 = 0.05;
/// Seconds' worth that a pod may let through at once, or one request.
const BURST_S: f64 = 0.05;
/// Of an equal part: what a pod without demand keeps, so that its first request need not wait for a directive.
const FLOOR: f64 = 0.05;
/// A pod without a backlog gets so much more than it uses.
const HEADROOM: f64 = 1.5;
/// Part of what there is for safe rates that is split equally, so that whoever takes over what another delivered has something to
/// send it with; the rest goes by what pods have use for.
const SAFE_EQUAL: f64 = 0.25;
/// Of an equal part: a share is not raised for less.
const CHANGE_MIN: f64 = 0.02;

/// What a cap leaves for pods to be told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Room {
    /// Without what bursts may add.
    pub(crate) usable: f64,
    /// What a pod uses that has never heard of a manager.
    pub(crate) boot: f64,
    /// Pods that have a part at a time.
    pub(crate) holders: usize,
}

impl Room {
    pub(crate) fn of(cap: f64, pods: usize, pods_max: u32) -> Self {
        let pods = pods.max(1);
        // One request is the least burst of a pod that sends.
        let holders = ((cap * BURSTS_MAX) as usize).clamp(1, pods);
        let bursts = holders as f64 + cap * BURST_S / 60.0;
        Self {
            usable: (cap - bursts).max(cap / 2.0),
            boot: boot(cap, pods_max),
            holders,
        }
    }
}

/// Data planes reckon the same, from their configuration.
pub(crate) fn boot(cap: f64, pods_max: u32) -> f64 {
    cap / (2.0 * f64::from(pods_max.max(1)))
}

/// A new manager has to learn what the one before it told, until all pods were heard or that is over.
pub(crate) fn learns(view: &View, began: Instant, now: Instant) -> bool {
    let all_heard = view.facts_known && view.pods.values().all(|pod| pod.heard.is_some());
    now < began + LEASE * 2 && !all_heard
}

/// What each pod that reports is to be told of each cap. Nothing while the manager learns: pods go on with what they
/// hold, which fits together, and to prolong the leases of some could be too much where others fall back to their safe rates.
pub(crate) fn split(
    ledger: &Ledger,
    view: &View,
    policy: &Policy,
    began: Instant,
    now: Instant,
) -> Grants {
    if learns(view, began, now) {
        return Grants::new();
    }
    let caps = policy.caps.iter();
    caps.map(|(key, cap)| {
        let room = Room::of(*cap, view.pods.len(), policy.scaling.max);
        let split = Split {
            ledger,
            key,
            room,
            view,
            pods_max: policy.scaling.max,
            began,
            now,
        };
        (key.clone(), split.grants())
    })
    .collect()
}

/// One cap, once.
struct Split<'a> {
    ledger: &'a Ledger,
    key: &'a CapKey,
    room: Room,
    view: &'a View,
    pods_max: u32,
    began: Instant,
    now: Instant,
}

/// A pod that reports, and one cap.
struct Part<'a> {
    pod: &'a PodName,
    /// The most that it may use before it hears anything; the most that it may rise to by itself.
    most: f64,
    most_safe: f64,
    last: Option<Grant>,
    wanted: f64,
    waits: bool,
    /// What it says it may use.
    allowed: f64,
    /// It reports, and what it is told does not take effect: to be lowered it has to be waited for.
    deaf: bool,
    /// Requests per minute that it sends.
    uses: f64,
    holds: bool,
}

impl<'a> Split<'a> {
    fn grants(&self) -> BTreeMap<PodName, Grant> {
        let mut parts = self.parts();
        let (kept, kept_safe) = self.kept();
        self.choose_holders(&mut parts);
        self.want(&mut parts, kept);
        let usable = self.room.usable;
        let mut room = usable - kept - parts.iter().map(|part| part.most).sum::<f64>();
        let mut room_safe =
            usable - kept_safe - parts.iter().map(|part| part.most_safe).sum::<f64>();
        let safe_rates = safe_rates(&parts, (usable - kept_safe).max(0.0));
        let grant = |(part, safe): (Part<'a>, f64)| {
            // Who was told nothing yet has not begun: what it would begin with is no claim where there is no room.
            let claim = |most: f64, room: f64| match part.last {
                Some(_) => most,
                None => (most + room.min(0.0)).max(0.0),
            };
            let (most, most_safe) = (claim(part.most, room), claim(part.most_safe, room_safe));
            let grant = Grant {
                per_minute: risen(part.wanted, most, &mut room),
                safe: risen(safe, most_safe, &mut room_safe),
            };
            (part.pod.clone(), grant)
        };
        parts.into_iter().zip(safe_rates).map(grant).collect()
    }

    fn parts(&self) -> Vec<Part<'a>> {
        let reporting = self
            .view
            .pods
            .iter()
            .filter(|(_, pod)| pod.reports(self.now) && !pod.sends_nothing());
        let part = |(name, pod): (&'a PodName, &'a PodView)| {
            let cap = pod.heard.as_ref().and_then(|heard| {
                let mut caps = heard.report.caps.iter();
                caps.find(|cap| cap.key == *self.key)
                    .map(|cap| (cap, heard))
            });
            let uses = cap
                .and_then(|(_, heard)| heard.rates.sent.get(self.key))
                .copied();
            Part {
                pod: name,
                most: self.most(name),
                most_safe: self.most_safe(name),
                last: self.ledger.last(self.key, name),
                wanted: 0.0,
                deaf: self.ledger.is_deaf(self.key, name, self.now),
                waits: cap.is_some_and(|(cap, _)| cap.waiting > 0),
                allowed: cap.map_or(0.0, |(cap, _)| cap.allowed_per_minute),
                uses: uses.unwrap_or_default() * 60.0,
                holds: true,
            }
        };
        reporting.map(part).collect()
    }

    fn most(&self, pod: &PodName) -> f64 {
        let most = self.ledger.most(self.key, pod, self.now);
        most.unwrap_or(self.room.boot)
    }

    fn most_safe(&self, pod: &PodName) -> f64 {
        let most = self.ledger.most_safe(self.key, pod);
        most.unwrap_or(self.room.boot)
    }

    /// What is left alone for pods that do not report, now and for their safe rates.
    fn kept(&self) -> (f64, f64) {
        let (mut kept, mut kept_safe) = (0.0, 0.0);
        // All safe rates that the manager before this one gave fit together, beside those that were heard of.
        let unheard = (self.room.usable - self.ledger.found(self.key)).max(0.0);
        let mut of_unheard = 0.0;
        for (name, pod) in &self.view.pods {
            let (most, most_safe) = match &pod.heard {
                Some(_) if pod.reports(self.now) => continue,
                Some(_) => (self.most(name), self.most_safe(name)),
                None => {
                    // It may have heard of the manager before this one.
                    if pod.known_since <= self.began + LEASE {
                        of_unheard = unheard;
                    }
                    (self.room.boot, self.room.boot)
                }
            };
            kept += most;
            kept_safe += most_safe;
        }
        kept += of_unheard;
        kept_safe += of_unheard;
        // Gone for Kubernetes, and perhaps only cut off.
        kept += self.ledger.most_of_gone(self.key, self.view, self.now);
        // While there is no manager others may come, as many as there may be, and one more in the course of a rollout. While there is
        // one, it is told of pods before they may send anything.
        let newcomers = (self.pods_max as usize)
            .saturating_sub(self.view.pods.len())
            .max(1);
        (kept, kept_safe + self.room.boot * newcomers as f64)
    }

    /// A cap that is too small for all goes to those that have something to send, and stays with them.
    fn choose_holders(&self, parts: &mut [Part<'a>]) {
        if parts.len() <= self.room.holders {
            return;
        }
        parts.sort_by(|a, b| {
            let by_waiting = b.waits.cmp(&a.waits);
            let by_use = b.uses.total_cmp(&a.uses);
            by_waiting
                .then(by_use)
                .then(b.most.total_cmp(&a.most))
                .then(a.pod.cmp(b.pod))
        });
        for part in &mut parts[self.room.holders..] {
            part.holds = false;
        }
    }

    fn want(&self, parts: &mut [Part<'a>], kept: f64) {
        let deaf = parts.iter().filter(|part| part.deaf);
        let kept_for_deaf: f64 = deaf.map(|part| part.most.max(part.most_safe)).sum();
        let usable = (self.room.usable - kept - kept_for_deaf).max(0.0);
        for part in parts.iter_mut().filter(|part| part.deaf) {
            // Not to be raised by what it did not hear once it hears again.
            part.wanted = part
                .last
                .map_or(0.0, |last| last.per_minute.min(part.allowed));
        }
        let is_holder = |part: &&mut Part<'_>| part.holds && !part.deaf;
        let mut holders: Vec<&mut Part<'_>> = parts.iter_mut().filter(is_holder).collect();
        let equal = usable / holders.len().max(1) as f64;
        let wants = holders.iter().map(|part| match part.waits {
            true => f64::INFINITY,
            false => (part.uses * HEADROOM).max(equal * FLOOR),
        });
        let filled = fill(usable, &wants.collect::<Vec<_>>());
        for (part, filled) in holders.iter_mut().zip(filled) {
            let last = part.last.map(|last| last.per_minute);
            let stays = last.filter(|last| (0.0..equal * CHANGE_MIN).contains(&(filled - last)));
            part.wanted = stays.unwrap_or(filled);
        }
    }
}

/// What each may use when nothing is heard any more.
fn safe_rates(parts: &[Part<'_>], usable: f64) -> Vec<f64> {
    let holders = parts.iter().filter(|part| part.holds);
    let (count, wanted) = holders.fold((0.0, 0.0), |(count, wanted), part| {
        (count + 1.0, wanted + part.wanted)
    });
    let equal = usable / f64::max(count, 1.0);
    let safe = |part: &Part<'_>| {
        if !part.holds {
            return 0.0;
        }
        let by_use = if wanted > 0.0 {
            usable * part.wanted / wanted
        } else {
            equal
        };
        let safe = equal * SAFE_EQUAL + by_use * (1.0 - SAFE_EQUAL);
        let last = part.last.map(|last| last.safe);
        let stays = last.filter(|last| (0.0..equal * CHANGE_MIN).contains(&(safe - last)));
        stays.unwrap_or(safe)
    };
    parts.iter().map(safe).collect()
}

/// As much as is wanted, but no more above what is held already than there is room for.
fn risen(wanted: f64, most: f64, room: &mut f64) -> f64 {
    let rise = (wanted - most).clamp(0.0, room.max(0.0));
    *room -= rise;
    wanted.min(most + rise)
}
