//! Upstreams that are used together, and which of them gets a request.
//!
//! Lower priorities only when no upstream of a higher one can take it. Among those of one priority the key's last one
//! is preferred; while upstreams have room, requests are divided by weight; when they get full, by load.

use std::sync::Arc;
use std::time::Instant;

use sluice_crds::config;

use super::affinity::AffinityKey;
use super::blame::Blame;
use super::{ApplicationId, GroupId, LaneId, NEIGHBOUR_MEMORY, Scheduler, UpstreamId};
use crate::ingest::deliver::fair::{FairQueue, Flow};
use crate::ingest::deliver::hold::{Held, Hold};
use crate::ingest::deliver::lane::Seq;
use crate::ingest::limiter::{self, Class, Limiter, Permit, SampleOutcome};

/// An upstream with more of its places taken than this part is chosen by load, not by weight alone.
const RELAXED_LOAD: f64 = 0.5;
/// How much busier than the least busy one the key's last upstream may be.
const AFFINITY_LOAD_RATIO: f64 = 1.5;

pub(super) struct Upstream {
    /// For people and metrics: `<application>/<name>` for an application's own.
    pub(super) label: Arc<str>,
    pub(super) config: Arc<config::Upstream>,
    pub(super) group: GroupId,
    pub(super) limiter: Limiter,
    pub(super) blame: Blame,
    pub(super) healthy: bool,
    pub(super) in_flight: usize,
    /// No longer configured; lives until its last answer.
    pub(super) retired: bool,
    /// Virtual time of its share: what it was sent over its weight.
    share: f64,
    pub(super) succeeded_total: u64,
    pub(super) failed_total: u64,
}

impl Upstream {
    pub(super) fn new(
        label: Arc<str>,
        config: Arc<config::Upstream>,
        group: GroupId,
        limiter: Limiter,
    ) -> Self {
        Self {
            label,
            config,
            group,
            limiter,
            blame: Blame::default(),
            healthy: true,
            in_flight: 0,
            retired: false,
            share: 0.0,
            succeeded_total: 0,
            failed_total: 0,
        }
    }

    pub(super) fn count(&mut self, outcome: SampleOutcome) {
        match outcome {
            SampleOutcome::Ok | SampleOutcome::Neutral => self.succeeded_total += 1,
            SampleOutcome::RateLimited { .. }
            | SampleOutcome::Overloaded { .. }
            | SampleOutcome::TimedOut
            | SampleOutcome::Erred
            | SampleOutcome::Failed => self.failed_total += 1,
            SampleOutcome::Abandoned => {}
        }
    }

    fn weight(&self) -> f64 {
        f64::from(self.config.weight.max(1))
    }

    /// Places taken with one more request, as a part of all.
    fn fullness(&self) -> f64 {
        self.limiter.load() * self.weight()
    }
}

#[derive(Default)]
pub(super) struct Group {
    /// Empty for the gateway's, else the application they belong to.
    pub(super) scope: Arc<str>,
    /// By priority.
    pub(super) upstreams: Vec<UpstreamId>,
    /// Its lanes.
    pub(super) queue: FairQueue,
    /// Of all lanes in the queue.
    pub(super) queued_weight: u64,
    /// Its place among groups.
    pub(super) flow: Flow,
    /// None of its upstreams takes a request.
    pub(super) blocked: Option<Held>,
    /// When it last came to that.
    pub(super) blocked_at: Option<Instant>,
    /// The earliest of its timers that is set.
    pub(super) timer: Option<Instant>,
    share: f64,
    /// The two applications that sent last.
    recent: [Option<(ApplicationId, Instant)>; 2],
}

impl Group {
    pub(super) fn new(scope: Arc<str>) -> Self {
        Self {
            scope,
            ..Self::default()
        }
    }

    pub(super) fn sent(&mut self, application: ApplicationId, now: Instant) {
        if self.recent[0].is_some_and(|(last, _)| last != application) {
            self.recent[1] = self.recent[0];
        }
        self.recent[0] = Some((application, now));
    }

    /// Whether another application has sent lately.
    pub(super) fn has_neighbour(&self, application: ApplicationId, now: Instant) -> bool {
        self.recent.iter().flatten().any(|(other, at)| {
            *other != application && now.saturating_duration_since(*at) < NEIGHBOUR_MEMORY
        })
    }

    /// The upstream was sent a request: its share is used by so much. One that comes back does not catch up.
    pub(super) fn charge(&mut self, upstream: &mut Upstream, cost: u32) {
        upstream.share = upstream.share.max(self.share);
        self.share = upstream.share;
        upstream.share += f64::from(cost.max(1)) / upstream.weight();
    }
}

impl Scheduler {
    /// The upstream of a group for the next request, or what is in the way of all of them.
    pub(super) fn choose(
        &mut self,
        group: GroupId,
        known: Option<UpstreamId>,
        class: Class,
        now: Instant,
    ) -> Result<UpstreamId, Held> {
        let group = &self.groups[group];
        let mut held: Option<Held> = None;
        let mut best: Option<UpstreamId> = None;
        let mut priority = None;
        for id in group.upstreams.iter().copied() {
            let level = self.upstreams[id].config.priority;
            if best.is_some() && priority != Some(level) {
                break;
            }
            priority = Some(level);
            match permit(&mut self.upstreams[id], class, now) {
                Err(why) => held = Some(held.map_or(why, |before| sooner(before, why))),
                Ok(()) => {
                    best = Some(best.map_or(id, |other| self.better(group, other, id)));
                }
            }
        }
        let Some(best) = best else {
            return Err(held.unwrap_or(Held {
                why: Hold::UnhealthyUpstream,
                until: None,
            }));
        };
        Ok(known
            .filter(|known| self.keeps(best, *known, class, now))
            .unwrap_or(best))
    }

    fn better(&self, group: &Group, first: UpstreamId, second: UpstreamId) -> UpstreamId {
        let (one, other) = (&self.upstreams[first], &self.upstreams[second]);
        let relaxed =
            |upstream: &Upstream| upstream.in_flight == 0 || upstream.fullness() <= RELAXED_LOAD;
        let first_wins = match (relaxed(one), relaxed(other)) {
            (true, true) => one.share.max(group.share) <= other.share.max(group.share),
            (false, false) => one.limiter.load() <= other.limiter.load(),
            (first_relaxed, _) => first_relaxed,
        };
        if first_wins { first } else { second }
    }

    /// Whether a key stays with the upstream that served it last.
    fn keeps(&mut self, best: UpstreamId, known: UpstreamId, class: Class, now: Instant) -> bool {
        if best == known {
            return true;
        }
        let best = &self.upstreams[best];
        let (priority, group) = (best.config.priority, best.group);
        // One request fills a small limit: an idle upstream that has just come back is not busy for that.
        let best_fullness = if best.in_flight == 0 {
            0.0
        } else {
            best.fullness()
        };
        let busiest = (best_fullness * AFFINITY_LOAD_RATIO).max(RELAXED_LOAD);
        let Some(known) = self.upstreams.get_mut(known) else {
            return false;
        };
        !known.retired
            && known.group == group
            && known.config.priority == priority
            && known.fullness() <= busiest
            && permit(known, class, now).is_ok()
    }

    /// What is remembered under which name; `None`: there is no choice, or no order.
    pub(super) fn affinity_key(&self, group: GroupId, id: LaneId, seq: Seq) -> Option<AffinityKey> {
        if self.groups[group].upstreams.len() < 2 {
            return None;
        }
        let lane = &self.lanes[id];
        let key = lane.window.key(seq)?;
        Some(self.affinity.key((lane.application, key)))
    }

    /// Requests that a group's upstreams may have in flight.
    pub(super) fn room(&self, group: GroupId, now: Instant) -> usize {
        let upstreams = self.groups[group].upstreams.iter();
        upstreams
            .map(|id| &self.upstreams[*id])
            .filter(|upstream| upstream.healthy)
            // Saturates, and limits are bounded far below.
            .map(|upstream| upstream.limiter.snapshot(now).limit as usize)
            .sum()
    }

    /// The result of a health check.
    pub(in crate::ingest::deliver) fn set_healthy(&mut self, id: UpstreamId, healthy: bool) {
        if let Some(upstream) = self.upstreams.get_mut(id) {
            upstream.healthy = healthy;
            let group = upstream.group;
            self.unblock(group);
        }
    }
}

fn permit(upstream: &mut Upstream, class: Class, now: Instant) -> Result<(), Held> {
    if !upstream.healthy {
        return Err(Held {
            why: Hold::UnhealthyUpstream,
            until: None,
        });
    }
    match upstream.limiter.permit(class, now) {
        Permit::Go => Ok(()),
        Permit::Hold { why, until } => Err(Held {
            why: match why {
                limiter::Hold::InFlight => Hold::InFlight,
                limiter::Hold::Rate => Hold::Rate,
                limiter::Hold::Breaker => Hold::Breaker,
                limiter::Hold::RetryAfter => Hold::RetryAfter,
            },
            until,
        }),
    }
}

/// What ends first tells best what is waited for; instants are known better than events.
fn sooner(one: Held, other: Held) -> Held {
    match (one.until, other.until) {
        (Some(first), Some(second)) if second < first => other,
        (None, Some(_)) => other,
        _ => one,
    }
}
