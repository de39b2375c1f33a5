//! What waits and why it is not being sent, as data.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_proto::fleet::CapKey;

use super::group::Upstream;
use super::{CapState, LaneId, LaneState, Scheduler, UpstreamId};
use crate::ingest::deliver::hold::{Held, Hold};
use crate::ingest::limiter::Snapshot;
use crate::store::queue::{Lane, QueueStats};

#[derive(Debug, Clone, PartialEq)]
pub struct LaneReport {
    pub lane: Lane,
    pub waiting: u64,
    pub oldest_ms: Option<u64>,
    pub parked: u64,
    /// Claimed and not settled.
    pub known: usize,
    pub ready: usize,
    pub in_flight: usize,
    /// `None`: it is being sent, or nothing waits.
    pub held: Option<Held>,
}

#[derive(Debug, Clone)]
pub struct UpstreamReport {
    /// `<application>/<name>` for an application's own.
    pub name: Arc<str>,
    pub url: String,
    pub priority: u32,
    pub weight: u32,
    pub healthy: bool,
    /// No longer configured; its last answers are waited for.
    pub retired: bool,
    pub limits: Snapshot,
    /// The most per second that is this data plane's part of what it takes; `None`: no other limit than its own.
    pub part: Option<f64>,
    pub succeeded_total: u64,
    pub failed_total: u64,
    /// Requests wait that only its limits hold back.
    pub wanted: bool,
}

/// A cap and this data plane's part of it.
#[derive(Debug, Clone, PartialEq)]
pub struct CapReport {
    pub key: CapKey,
    pub state: CapState,
}

/// What waits of an application, in all its lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    pub entries: u64,
    /// When the oldest was accepted, in unix milliseconds.
    pub oldest_ms: Option<u64>,
    /// What keeps the oldest from being sent; `None`: nothing.
    pub held: Option<Hold>,
}

impl Waiting {
    pub fn add(&mut self, other: Self) {
        self.entries += other.entries;
        let is_older = match (self.oldest_ms, other.oldest_ms) {
            (Some(one), Some(other)) => other < one,
            (one, other) => one.is_none() && other.is_some(),
        };
        if is_older {
            (self.oldest_ms, self.held) = (other.oldest_ms, other.held);
        }
    }
}

/// What the manager is told.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub caps: Vec<CapReport>,
    pub upstreams: Vec<UpstreamReport>,
    pub waiting: BTreeMap<Arc<str>, Waiting>,
    /// Requests that are kept after they failed.
    pub parked: BTreeMap<Arc<str>, u64>,
    /// As the queue says.
    pub queue: QueueStats,
    /// For how long something waits that nothing but this process holds up.
    pub dispatch_lag: Duration,
}

impl Scheduler {
    pub(in crate::ingest::deliver) fn application_name(&self, lane: LaneId) -> Arc<str> {
        let lane = self.lanes.get(lane);
        lane.map_or_else(Arc::default, |lane| Arc::clone(&lane.lane.application))
    }

    /// When an upstream last took a request of the lane's application for good.
    pub(in crate::ingest::deliver) fn succeeded_at(&self, lane: LaneId) -> Option<Instant> {
        let lane = self.lanes.get(lane)?;
        self.applications[lane.application].succeeded_at
    }

    pub(in crate::ingest::deliver) fn call_timeout(&self, upstream: UpstreamId) -> Duration {
        let upstream = self.upstreams.get(upstream);
        upstream.map_or(self.delivery.timeout, |upstream| upstream.limiter.timeout())
    }

    pub(in crate::ingest::deliver) fn lane_reports(&self) -> Vec<LaneReport> {
        let mut lanes: Vec<LaneReport> = self
            .lanes
            .iter()
            .map(|(_, lane)| LaneReport {
                lane: lane.lane.clone(),
                waiting: lane.supply.waiting,
                oldest_ms: lane.supply.oldest_ms,
                parked: lane.supply.parked,
                known: lane.window.len(),
                ready: lane.window.ready_len(),
                in_flight: lane.window.in_flight(),
                held: self.held(lane),
            })
            .collect();
        lanes.sort_by(|one, other| one.lane.cmp(&other.lane));
        lanes
    }

    pub(in crate::ingest::deliver) fn upstream_reports(&self, now: Instant) -> Vec<UpstreamReport> {
        let mut upstreams: Vec<UpstreamReport> = self
            .upstreams
            .iter()
            .map(|(_, upstream)| UpstreamReport {
                name: Arc::clone(&upstream.label),
                url: upstream.config.url.clone(),
                priority: upstream.config.priority,
                weight: upstream.config.weight,
                healthy: upstream.healthy,
                retired: upstream.retired,
                limits: upstream.limiter.snapshot(now),
                part: self.rates.ceiling(&upstream.label, now),
                succeeded_total: upstream.succeeded_total,
                failed_total: upstream.failed_total,
                wanted: self.is_wanted(upstream),
            })
            .collect();
        upstreams.sort_by(|one, other| one.name.cmp(&other.name));
        upstreams
    }

    fn is_wanted(&self, upstream: &Upstream) -> bool {
        let Some(group) = self.groups.get(upstream.group) else {
            return false;
        };
        let holds = |held: Held| match held.why {
            Hold::Rate | Hold::InFlight | Hold::Breaker | Hold::RetryAfter => true,
            Hold::Cap
            | Hold::GlobalCap
            | Hold::Paused
            | Hold::UpstreamPaused
            | Hold::OrderBlocked
            | Hold::Backoff
            | Hold::UnhealthyUpstream
            | Hold::Store
            | Hold::Draining => false,
        };
        group.queued_weight > 0 && group.blocked.is_some_and(holds)
    }

    pub(in crate::ingest::deliver) fn cap_reports(&mut self, now: Instant) -> Vec<CapReport> {
        let applications = self.applications.iter_mut();
        let mut caps: Vec<CapReport> = applications
            .filter_map(|(_, application)| {
                Some(CapReport {
                    key: CapKey::Application(Arc::clone(&application.name)),
                    state: application.cap.as_mut()?.state(now),
                })
            })
            .collect();
        caps.extend(self.cap.as_mut().map(|cap| CapReport {
            key: CapKey::Gateway,
            state: cap.state(now),
        }));
        caps.sort_by(|one, other| one.key.cmp(&other.key));
        caps
    }

    pub(in crate::ingest::deliver) fn figures(&mut self, now: Instant, now_ms: u64) -> Figures {
        let mut figures = Figures {
            caps: self.cap_reports(now),
            upstreams: self.upstream_reports(now),
            parked: self.supply.parked.clone(),
            ..Figures::default()
        };
        for (_, lane) in &self.lanes {
            if lane.supply.parked > 0 {
                let name = Arc::clone(&lane.lane.application);
                *figures.parked.entry(name).or_default() += lane.supply.parked;
            }
            if lane.supply.waiting == 0 {
                continue;
            }
            let waiting = Waiting {
                entries: lane.supply.waiting,
                oldest_ms: lane.supply.oldest_ms,
                held: self.held(lane).map(|held| held.why),
            };
            let name = Arc::clone(&lane.lane.application);
            figures.waiting.entry(name).or_default().add(waiting);
            let lag = self.lag(lane, now, now_ms);
            figures.dispatch_lag = figures.dispatch_lag.max(lag);
        }
        figures
    }

    /// How long nothing has held the lane up but this process' own work. Upstreams and caps that were in the way a moment ago
    /// will be so in a moment again.
    fn lag(&self, lane: &LaneState, now: Instant, now_ms: u64) -> Duration {
        let (Some(free_since), Some(oldest_ms)) = (lane.free_since, lane.supply.oldest_ms) else {
            return Duration::ZERO;
        };
        if self.held(lane).is_some() {
            return Duration::ZERO;
        }
        let group = &self.groups[self.applications[lane.application].group];
        let since = [group.blocked_at, self.capped_at]
            .into_iter()
            .flatten()
            .fold(free_since, Instant::max);
        let age = Duration::from_millis(now_ms.saturating_sub(oldest_ms));
        now.saturating_duration_since(since).min(age)
    }

    /// The first thing in the way of a lane that has something to send.
    fn held(&self, lane: &LaneState) -> Option<Held> {
        if lane.supply.waiting == 0 && lane.window.len() == 0 {
            return None;
        }
        if let Some(why) = self.stopped {
            return Some(Held { why, until: None });
        }
        if !lane.flow.waits() {
            return lane.held;
        }
        if let Some(until) = self.capped_until {
            return Some(Held {
                why: Hold::GlobalCap,
                until: Some(until),
            });
        }
        self.groups[self.applications[lane.application].group].blocked
    }
}
