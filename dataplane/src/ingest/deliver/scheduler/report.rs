//! What waits and why it is not being sent, as data.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{LaneId, LaneState, Scheduler, UpstreamId};
use crate::ingest::deliver::hold::{Held, Hold};
use crate::ingest::limiter::Snapshot;
use crate::store::queue::Lane;

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
            })
            .collect();
        upstreams.sort_by(|one, other| one.name.cmp(&other.name));
        upstreams
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
