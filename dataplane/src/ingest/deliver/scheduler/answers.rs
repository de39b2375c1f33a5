//! What comes back: attempts that ended, verdicts that were recorded, lanes that an upstream turned away.

use std::time::{Duration, Instant};

use super::{LaneId, Scheduler, UpstreamId};
use crate::ingest::deliver::lane::Seq;
use crate::ingest::limiter::{Class, Sample};

/// An entry under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ingest::deliver) struct Attempt {
    pub(in crate::ingest::deliver) lane: LaneId,
    pub(in crate::ingest::deliver) seq: Seq,
}

impl Scheduler {
    /// A request that was sent has ended. Its entry, if it is one, is told separately.
    pub(in crate::ingest::deliver) fn ended(
        &mut self,
        id: UpstreamId,
        class: Class,
        sample: Sample,
        now: Instant,
    ) {
        let Some(upstream) = self.upstreams.get_mut(id) else {
            return;
        };
        upstream.count(sample.outcome);
        upstream.limiter.settled(class, sample, now);
        upstream.in_flight = upstream.in_flight.saturating_sub(1);
        self.in_flight = self.in_flight.saturating_sub(1);
        let (group, gone) = (upstream.group, upstream.retired && upstream.in_flight == 0);
        if gone {
            self.remove_upstream(id);
        }
        self.unblock(group);
    }

    /// The entry has its verdict; it leaves when that is recorded.
    pub(in crate::ingest::deliver) fn settle(
        &mut self,
        attempt: Attempt,
        delivered: bool,
        now: Instant,
    ) {
        self.with_window(attempt.lane, |window| window.settle(attempt.seq));
        if let Some(lane) = self.lanes.get_mut(attempt.lane) {
            if delivered {
                lane.paused_until = None;
                self.applications[lane.application].succeeded_at = Some(now);
            }
            self.refresh_application(attempt.lane, now);
        }
    }

    /// The verdict is recorded.
    pub(in crate::ingest::deliver) fn recorded(&mut self, attempt: Attempt, now: Instant) {
        self.with_window(attempt.lane, |window| window.remove(attempt.seq));
        if self.lanes.contains(attempt.lane) {
            self.refresh(attempt.lane, now);
            self.feed(attempt.lane);
        }
    }

    /// The entry is sent again, not before the given instant.
    pub(in crate::ingest::deliver) fn retry(
        &mut self,
        attempt: Attempt,
        at: Instant,
        attempts: u32,
        now: Instant,
    ) {
        self.with_window(attempt.lane, |window| {
            window.retry(attempt.seq, at, attempts)
        });
        if self.lanes.contains(attempt.lane) {
            self.refresh_application(attempt.lane, now);
            self.feed(attempt.lane);
        }
    }

    /// The upstream does not take the application's requests for now: the lane rests, and then tries with one request.
    pub(in crate::ingest::deliver) fn pause_lane(
        &mut self,
        id: LaneId,
        pause: Duration,
        now: Instant,
    ) {
        if let Some(lane) = self.lanes.get_mut(id) {
            let until = now + pause;
            lane.paused_until = Some(lane.paused_until.map_or(until, |set| set.max(until)));
            self.refresh(id, now);
        }
    }

    /// Room that the lane's application has given back may be what another lane of it waits for.
    fn refresh_application(&mut self, id: LaneId, now: Instant) {
        let Some(lane) = self.lanes.get(id) else {
            return;
        };
        let application = lane.application;
        // An application has two lanes per partition at most.
        for index in 0..self.applications[application].lanes.len() {
            let other = self.applications[application].lanes[index];
            self.refresh(other, now);
        }
    }
}
