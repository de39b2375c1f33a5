//! What is sent next, and why the rest is not: lanes in proportion, caps, upstreams.
//!
//! Lanes with the same upstreams form a group. Among groups, and among the lanes of a group, those go first that were
//! served least for their weight. A lane that may not send leaves its queue until the instant, or the event, that
//! changes it; a group whose upstreams take nothing leaves the queue of groups. So a step costs the same however many
//! lanes wait, and none of them delays another. Tokens are taken only when everything agrees. Owns lanes, applications,
//! groups, upstreams and their limits. Takes `now`, does no I/O, never sleeps.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use slab::Slab;
use sluice_crds::config::Delivery;

use self::affinity::Affinity;
use self::application::Application;
use self::cap::Cap;
use self::group::{Group, Upstream};
use self::supply::Supply;
use super::fair::{FairQueue, Flow};
use super::hold::{Held, Hold};
use super::lane::{Sending, Seq, Window};
use crate::fleet::shares::Rates;
use crate::ingest::limiter::Class;
use crate::store::queue::Lane;

mod affinity;
mod answers;
mod application;
mod blame;
mod calls;
mod cap;
mod group;
mod report;
mod settings;
mod shares;
mod supply;

pub(super) use self::answers::Attempt;
pub use self::cap::CapState;
pub use self::report::{CapReport, Figures, LaneReport, UpstreamReport, Waiting};
pub(super) use self::settings::UpstreamChange;
pub(super) use self::supply::{Claim, Load};

pub(super) type LaneId = usize;
pub(super) type GroupId = usize;
pub(super) type UpstreamId = usize;
pub(super) type ApplicationId = usize;

/// Fresh entries go before replayed ones as if their application had this many times the weight: when both wait,
/// replays get a few percent, so that they end one day.
const FRESH_WEIGHT: u64 = 32;

/// How long an application that has sent counts as a neighbour for whom room is kept.
const NEIGHBOUR_MEMORY: Duration = Duration::from_secs(10);
/// Part of the requests in flight that one application leaves to its neighbours: their requests are not to wait for as
/// long as its slowest ones take.
const NEIGHBOUR_SHARE: usize = 10;
/// With less room than this there is nothing to divide.
const NEIGHBOUR_FLIGHT_MIN: usize = 4;

struct LaneState {
    lane: Lane,
    application: ApplicationId,
    window: Window,
    flow: Flow,
    /// What it entered its group's queue with.
    queued_weight: u64,
    /// Why it is not in its group's queue.
    held: Option<Held>,
    /// The upstream does not take the application's requests; afterwards one at a time, until one is taken.
    paused_until: Option<Instant>,
    /// The earliest of its timers that is set.
    timer: Option<Instant>,
    supply: supply::LaneSupply,
    /// Since when nothing but this process keeps what it has from being sent.
    free_since: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Lane(LaneId),
    Group(GroupId),
}

/// An entry on its way.
#[derive(Debug)]
pub(super) struct Dispatch {
    pub(super) lane: LaneId,
    pub(super) seq: Seq,
    pub(super) upstream: UpstreamId,
    pub(super) sending: Sending,
    pub(super) delivery: Arc<Delivery>,
    pub(super) timeout: Duration,
}

/// What trying a lane came to.
enum Step {
    Sent(Dispatch),
    /// The lane or its group left its queue.
    Next,
    /// Nothing can be sent.
    Stop,
}

pub(super) struct Scheduler {
    lanes: Slab<LaneState>,
    lane_of: HashMap<Lane, LaneId, RandomState>,
    applications: Slab<Application>,
    application_of: HashMap<Arc<str>, ApplicationId, RandomState>,
    groups: Slab<Group>,
    /// Of the gateway itself.
    default_group: GroupId,
    upstreams: Slab<Upstream>,
    top: FairQueue,
    cap: Option<Cap>,
    capped_until: Option<Instant>,
    /// When the gateway's cap last held something.
    capped_at: Option<Instant>,
    /// This data plane's parts of what it shares with others.
    rates: Arc<Rates>,
    timers: BinaryHeap<Reverse<(Instant, Timer)>>,
    affinity: Affinity,
    supply: Supply,
    delivery: Arc<Delivery>,
    stopped: Option<Hold>,
    in_flight: usize,
}

impl Scheduler {
    /// The next entry to send. Call until there is none; then look again at [`Scheduler::wake_at`] or after an event.
    pub(super) fn next(&mut self, now: Instant) -> Option<Dispatch> {
        self.fire(now);
        if self.stopped.is_some() {
            return None;
        }
        if self.capped_until.is_some_and(|until| now < until) {
            return None;
        }
        self.capped_until = None;
        loop {
            let groups = &self.groups;
            let group = self
                .top
                .first(|id| groups.get(id).map(|group| group.flow))?;
            let lanes = &self.lanes;
            let queue = &mut self.groups[group].queue;
            let Some(lane) = queue.first(|id| lanes.get(id).map(|lane| lane.flow)) else {
                self.groups[group].flow.leave();
                continue;
            };
            match self.try_lane(group, lane, now) {
                Step::Sent(dispatch) => return Some(dispatch),
                Step::Next => {}
                Step::Stop => return None,
            }
        }
    }

    /// When to look again although nothing has happened.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let timer = self.timers.peek().map(|Reverse((at, _))| *at);
        match (timer, self.capped_until) {
            (Some(timer), Some(capped)) => Some(timer.min(capped)),
            (timer, capped) => timer.or(capped),
        }
    }

    /// Sends nothing from now on, or goes on.
    pub(super) fn stop(&mut self, why: Option<Hold>) {
        self.stopped = why;
    }

    /// Requests that were sent and not answered, proxied calls included.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    fn fire(&mut self, now: Instant) {
        while let Some(Reverse((at, timer))) = self.timers.peek().copied()
            && at <= now
        {
            self.timers.pop();
            match timer {
                Timer::Lane(id) => {
                    if let Some(lane) = self.lanes.get_mut(id)
                        && lane.timer == Some(at)
                    {
                        lane.timer = None;
                        self.refresh(id, now);
                    }
                }
                Timer::Group(id) => {
                    if let Some(group) = self.groups.get_mut(id)
                        && group.timer == Some(at)
                    {
                        group.timer = None;
                        self.unblock(id);
                    }
                }
            }
        }
    }

    fn try_lane(&mut self, group: GroupId, id: LaneId, now: Instant) -> Step {
        let Some(head) = self.lanes[id].window.head(now) else {
            self.refresh(id, now);
            return Step::Next;
        };
        if self.crowds(group, id, now) {
            self.hold_lane(id, Hold::InFlight, None);
            return Step::Next;
        }
        let application = &mut self.applications[self.lanes[id].application];
        if let Some(cap) = &mut application.cap
            && let Err(until) = cap.check(head.cost, now)
        {
            self.hold_lane(id, Hold::Cap, Some(until));
            return Step::Next;
        }
        if let Some(cap) = &mut self.cap
            && let Err(until) = cap.check(head.cost, now)
        {
            self.capped_until = Some(until);
            self.capped_at = Some(now);
            return Step::Stop;
        }
        let key = self.affinity_key(group, id, head.seq);
        let known = key.and_then(|key| self.affinity.get(key));
        let upstream = match self.choose(group, known, Class::Queued, now) {
            Ok(upstream) => upstream,
            Err(held) => {
                self.block(group, held, now);
                return Step::Next;
            }
        };
        if !head.has_request {
            self.wait_for_load(id);
            return Step::Next;
        }
        if let Some(key) = key {
            self.affinity.put(key, upstream);
        }
        match self.commit(group, id, head.seq, upstream, now) {
            Some(dispatch) => Step::Sent(dispatch),
            None => {
                self.refresh(id, now);
                Step::Next
            }
        }
    }

    /// Everything agrees: takes the tokens and lets the entry go.
    fn commit(
        &mut self,
        group: GroupId,
        id: LaneId,
        seq: Seq,
        upstream: UpstreamId,
        now: Instant,
    ) -> Option<Dispatch> {
        let lane = &mut self.lanes[id];
        let Some(sending) = lane.window.send(seq) else {
            // Its head is ready and has its request, so this does not happen; leaving the queue prevents a loop.
            self.leave(id);
            return None;
        };
        let application = lane.application;
        let weight = lane.queued_weight;
        self.take_tokens(
            Some(application),
            upstream,
            Class::Queued,
            sending.cost,
            now,
        );
        self.leave(id);
        let group_weight = self.groups[group].queued_weight + weight;
        let state = &mut self.groups[group];
        state
            .queue
            .serve(&mut self.lanes[id].flow, sending.cost, weight);
        self.top.serve(&mut state.flow, sending.cost, group_weight);
        state.sent(application, now);
        if state.queued_weight > 0 {
            self.top.enter(group, &mut state.flow);
        }
        self.refresh(id, now);
        self.feed(id);
        let upstream_timeout = self.upstreams[upstream].limiter.timeout();
        let delivery = Arc::clone(&self.applications[application].delivery);
        Some(Dispatch {
            lane: id,
            seq,
            upstream,
            sending,
            timeout: upstream_timeout.min(delivery.timeout),
            delivery,
        })
    }

    fn take_tokens(
        &mut self,
        application: Option<ApplicationId>,
        upstream: UpstreamId,
        class: Class,
        cost: u32,
        now: Instant,
    ) {
        let take = |cap: &mut Cap| match class {
            Class::Queued => cap.take(cost, now),
            Class::Proxied => cap.take_call(cost, now),
        };
        if let Some(application) = application {
            self.applications[application].cap.as_mut().map(take);
        }
        self.cap.as_mut().map(take);
        let state = &mut self.upstreams[upstream];
        state.limiter.sent(class, now);
        state.in_flight += 1;
        self.in_flight += 1;
        self.groups[self.upstreams[upstream].group].charge(&mut self.upstreams[upstream], cost);
    }

    /// Whether an application would take the room that its neighbours need.
    fn crowds(&self, group: GroupId, id: LaneId, now: Instant) -> bool {
        let lane = &self.lanes[id];
        let flight = self.flight_of(lane.application);
        // Cheap first: most applications are far from any limit.
        if flight < NEIGHBOUR_FLIGHT_MIN - 1
            || !self.groups[group].has_neighbour(lane.application, now)
        {
            return false;
        }
        let room = self.room(group, now);
        let reserved = room.div_ceil(NEIGHBOUR_SHARE);
        room >= NEIGHBOUR_FLIGHT_MIN && flight + reserved >= room
    }

    fn flight_of(&self, application: ApplicationId) -> usize {
        let lanes = self.applications[application].lanes.iter();
        lanes.map(|id| self.lanes[*id].window.in_flight()).sum()
    }

    /// Enters or leaves its group's queue, by what is true now.
    pub(super) fn refresh(&mut self, id: LaneId, now: Instant) {
        match self.why_not(id, now) {
            None => {
                self.enter(id);
                self.lanes[id].free_since.get_or_insert(now);
            }
            Some(Waits::Held(held)) => {
                self.leave(id);
                self.lanes[id].held = Some(held);
                self.lanes[id].free_since = None;
                self.set_lane_timer(id, held.until);
            }
            Some(Waits::Idle) => {
                self.leave(id);
                let lane = &mut self.lanes[id];
                lane.held = None;
                if lane.is_idle_but_waiting() {
                    lane.free_since.get_or_insert(now);
                } else {
                    lane.free_since = None;
                }
            }
        }
    }

    fn why_not(&mut self, id: LaneId, now: Instant) -> Option<Waits> {
        let lane = &mut self.lanes[id];
        let held = |why, until| Some(Waits::Held(Held { why, until }));
        if self.applications[lane.application].paused {
            return held(Hold::Paused, None);
        }
        if let Some(until) = lane.paused_until
            && now < until
        {
            return held(Hold::UpstreamPaused, Some(until));
        }
        if lane.paused_until.is_some() && lane.window.in_flight() > 0 {
            // One probe at a time, until one succeeds.
            return held(Hold::UpstreamPaused, None);
        }
        if lane.supply.loading {
            return Some(Waits::Idle);
        }
        if lane.window.head(now).is_some() {
            return None;
        }
        Some(lane.window.why_none().map_or(Waits::Idle, Waits::Held))
    }

    fn enter(&mut self, id: LaneId) {
        let lane = &mut self.lanes[id];
        lane.held = None;
        if lane.flow.waits() {
            return;
        }
        let application = &self.applications[lane.application];
        let fresh = if lane.lane.replay { 1 } else { FRESH_WEIGHT };
        lane.queued_weight = u64::from(application.weight.max(1)) * fresh;
        let group = &mut self.groups[application.group];
        group.queue.enter(id, &mut lane.flow);
        group.queued_weight += lane.queued_weight;
        if group.blocked.is_none() {
            self.top.enter(application.group, &mut group.flow);
        }
    }

    fn leave(&mut self, id: LaneId) {
        let lane = &mut self.lanes[id];
        if lane.flow.waits() {
            lane.flow.leave();
            let group = &mut self.groups[self.applications[lane.application].group];
            group.queued_weight -= lane.queued_weight;
        }
    }

    fn hold_lane(&mut self, id: LaneId, why: Hold, until: Option<Instant>) {
        self.leave(id);
        self.lanes[id].free_since = None;
        self.lanes[id].held = Some(Held { why, until });
        self.set_lane_timer(id, until);
    }

    fn set_lane_timer(&mut self, id: LaneId, at: Option<Instant>) {
        let Some(at) = at else { return };
        let lane = &mut self.lanes[id];
        if lane.timer.is_none_or(|set| at < set) {
            lane.timer = Some(at);
            self.timers.push(Reverse((at, Timer::Lane(id))));
        }
    }

    fn block(&mut self, id: GroupId, held: Held, now: Instant) {
        let group = &mut self.groups[id];
        group.blocked = Some(held);
        group.blocked_at = Some(now);
        group.flow.leave();
        if let Some(until) = held.until
            && group.timer.is_none_or(|set| until < set)
        {
            group.timer = Some(until);
            self.timers.push(Reverse((until, Timer::Group(id))));
        }
    }

    /// Something has changed for a group's upstreams.
    fn unblock(&mut self, id: GroupId) {
        if let Some(group) = self.groups.get_mut(id)
            && group.blocked.take().is_some()
            && group.queued_weight > 0
        {
            self.top.enter(id, &mut group.flow);
        }
    }
}

/// Why a lane is not in its group's queue.
enum Waits {
    Held(Held),
    /// Nothing to send.
    Idle,
}

#[cfg(test)]
mod tests;
