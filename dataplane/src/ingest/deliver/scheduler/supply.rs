//! Which lanes need entries or requests from the queue, and how much of them may be held.
//!
//! A lane is fed when little of it is ready. Memory is bounded twice: entries without their requests per lane and for
//! the process, and bytes of requests for the process, those in flight included. When the bytes are used up, lanes that
//! are not being sent give theirs back and read them again later.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{LaneId, LaneState, Scheduler};
use crate::ingest::deliver::lane::{Seq, Window};
use crate::store::queue::{ClaimLimits, Claimed, Lane, LaneStats, Token};

/// Entries of one lane that are known at a time: as many of one blocked key may be passed to reach other keys.
const LANE_ENTRIES_MAX: usize = 16 * 1024;
/// Of all lanes together; about a hundred bytes each.
const ENTRIES_MAX: usize = 1024 * 1024;
/// What a lane may have even when all lanes together have too many.
const LANE_ENTRIES_MIN: usize = 16;
/// Bytes of requests in this process's delivery, in flight or about to be.
const HELD_BYTES_MAX: usize = 128 * 1024 * 1024;
/// A lane's part of them, and of one claim.
const LANE_BYTES_MIN: usize = 64 * 1024;
const LANE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Ready entries of all lanes that are aimed at, and of one lane: enough to keep sending while the next claim is under
/// way.
const READY_AIM: usize = 16 * 1024;
const LANE_READY_MAX: usize = 256;
/// How often lanes are claimed from although nothing speaks for it.
const THOROUGH_INTERVAL: Duration = Duration::from_secs(10);
/// Calls to the store at a time.
const CALLS_MAX: usize = 16;

#[derive(Debug, Default)]
pub(super) struct LaneSupply {
    /// As the queue last said.
    pub(super) waiting: u64,
    pub(super) parked: u64,
    pub(super) oldest_ms: Option<u64>,
    seen_in: u64,
    claiming: bool,
    pub(super) loading: bool,
    /// The last claim found nothing.
    exhausted: bool,
    /// Something may have come while a claim was under way.
    again: bool,
    /// It is in the line for a claim.
    hungry: bool,
}

#[derive(Debug, Default)]
pub(super) struct Supply {
    hungry: VecDeque<LaneId>,
    loads: VecDeque<LaneId>,
    calls: usize,
    /// Bytes that calls under way may bring.
    promised_bytes: usize,
    held_bytes: usize,
    entries: usize,
    /// Where requests are forgotten next.
    hand: LaneId,
    scan: u64,
    thorough_at: Option<Instant>,
    /// In lanes that nothing waits in.
    pub(super) parked: BTreeMap<Arc<str>, u64>,
}

/// A claim to make.
#[derive(Debug, PartialEq)]
pub(in crate::ingest::deliver) struct Claim {
    pub(in crate::ingest::deliver) id: LaneId,
    pub(in crate::ingest::deliver) lane: Lane,
    pub(in crate::ingest::deliver) limits: ClaimLimits,
}

/// Requests to read again.
#[derive(Debug, PartialEq)]
pub(in crate::ingest::deliver) struct Load {
    pub(in crate::ingest::deliver) id: LaneId,
    pub(in crate::ingest::deliver) entries: Vec<(Seq, Token)>,
    pub(in crate::ingest::deliver) bytes: usize,
}

impl Scheduler {
    /// What the queue says of its lanes.
    pub(in crate::ingest::deliver) fn scanned(&mut self, stats: Vec<LaneStats>, now: Instant) {
        self.supply.scan += 1;
        self.supply.parked.clear();
        let scan = self.supply.scan;
        let thorough = self.supply.thorough_at.is_none_or(|at| now >= at);
        if thorough {
            self.supply.thorough_at = Some(now + THOROUGH_INTERVAL);
        }
        for stats in stats {
            let id = match self.lane_of.get(&stats.lane) {
                Some(id) => *id,
                None if stats.waiting == 0 => {
                    let application = stats.lane.application;
                    *self.supply.parked.entry(application).or_default() += stats.parked;
                    continue;
                }
                None => self.add_lane(stats.lane, now),
            };
            let lane = &mut self.lanes[id];
            lane.supply.seen_in = scan;
            let before = std::mem::replace(&mut lane.supply.waiting, stats.waiting);
            lane.supply.parked = stats.parked;
            lane.supply.oldest_ms = stats.oldest_ms;
            if lane.held.is_none() && lane.is_idle_but_waiting() {
                lane.free_since.get_or_insert(now);
            }
            // Verdicts under way may be counted as waiting or not, and what an operator has dismissed is known here and
            // waits no more: rather claim in vain than miss an entry.
            let known = (lane.window.len() - lane.window.settling()) as u64;
            if stats.waiting != known || stats.waiting > before || thorough {
                lane.supply.exhausted = false;
                lane.supply.again = lane.supply.claiming;
                self.feed(id);
            }
        }
        self.remove_idle_lanes(scan);
    }

    fn remove_idle_lanes(&mut self, scan: u64) {
        let idle: Vec<LaneId> = self
            .lanes
            .iter()
            .filter(|(_, lane)| lane.supply.seen_in != scan && lane.is_idle())
            .map(|(id, _)| id)
            .collect();
        for id in idle {
            self.remove_lane(id);
        }
        for (_, lane) in &mut self.lanes {
            if lane.supply.seen_in != scan {
                lane.supply.waiting = 0;
                lane.supply.parked = 0;
                lane.supply.oldest_ms = None;
            }
        }
        self.forget_applications();
    }

    /// Whether anything is queued, as far as claims have shown.
    pub(super) fn knows_entries(&self) -> bool {
        self.supply.entries > 0
    }

    /// Puts a lane in the line for a claim when it needs one.
    pub(super) fn feed(&mut self, id: LaneId) {
        if self.wants(id)
            && let Some(lane) = self.lanes.get_mut(id)
            && !lane.supply.hungry
        {
            lane.supply.hungry = true;
            self.supply.hungry.push_back(id);
        }
    }

    fn wants(&self, id: LaneId) -> bool {
        let Some(lane) = self.lanes.get(id) else {
            return false;
        };
        !lane.supply.claiming
            && !lane.supply.exhausted
            && !self.applications[lane.application].paused
            && lane.window.ready_len() < self.lane_ready()
            && lane.window.len() < self.lane_entries()
    }

    fn lane_ready(&self) -> usize {
        (READY_AIM / self.lanes.len().max(1)).clamp(1, LANE_READY_MAX)
    }

    fn lane_entries(&self) -> usize {
        if self.supply.entries < ENTRIES_MAX {
            LANE_ENTRIES_MAX
        } else {
            LANE_ENTRIES_MIN
        }
    }

    fn lane_bytes(&self) -> usize {
        (HELD_BYTES_MAX / 2 / self.lanes.len().max(1)).clamp(LANE_BYTES_MIN, LANE_BYTES_MAX)
    }

    /// The next claim to make; [`Scheduler::claimed`] is to follow.
    pub(in crate::ingest::deliver) fn next_claim(&mut self) -> Option<Claim> {
        if self.stopped.is_some() {
            return None;
        }
        loop {
            let id = *self.supply.hungry.front()?;
            if !self.wants(id) {
                self.supply.hungry.pop_front();
                if let Some(lane) = self.lanes.get_mut(id) {
                    lane.supply.hungry = false;
                }
                continue;
            }
            let bytes = self.lane_bytes();
            if !self.may_call(bytes) {
                return None;
            }
            self.supply.hungry.pop_front();
            self.supply.promised_bytes += bytes;
            let ready = self.lane_ready();
            let room = self.lane_entries() - self.lanes[id].window.len();
            let lane = &mut self.lanes[id];
            lane.supply.hungry = false;
            lane.supply.claiming = true;
            return Some(Claim {
                id,
                lane: lane.lane.clone(),
                limits: ClaimLimits {
                    entries: (ready * 2).min(room),
                    bytes,
                },
            });
        }
    }

    /// `None`: the store failed; the lane asks again when it is fed.
    pub(in crate::ingest::deliver) fn claimed(
        &mut self,
        claim: &Claim,
        entries: Option<Vec<Claimed>>,
        now: Instant,
    ) {
        self.supply.calls -= 1;
        self.supply.promised_bytes -= claim.limits.bytes;
        let held_bytes_max = self.lane_bytes();
        let Some(lane) = self.lanes.get_mut(claim.id) else {
            return;
        };
        lane.supply.claiming = false;
        let Some(entries) = entries else { return };
        lane.supply.exhausted = entries.is_empty() && !lane.supply.again;
        lane.supply.again = false;
        self.with_window(claim.id, |window| {
            for entry in entries {
                window.push(entry, held_bytes_max);
            }
        });
        self.refresh(claim.id, now);
        self.feed(claim.id);
    }

    /// The lane's next entry is known, but its request is not here.
    pub(super) fn wait_for_load(&mut self, id: LaneId) {
        self.leave(id);
        self.lanes[id].held = None;
        self.lanes[id].supply.loading = true;
        self.supply.loads.push_back(id);
    }

    /// The next requests to read; [`Scheduler::loaded`] is to follow.
    pub(in crate::ingest::deliver) fn next_load(&mut self, now: Instant) -> Option<Load> {
        if self.stopped.is_some() {
            return None;
        }
        loop {
            let id = *self.supply.loads.front()?;
            let ready = self.lane_ready();
            let missing = self.lanes[id].window.missing(ready, self.lane_bytes());
            if missing.is_empty() {
                self.supply.loads.pop_front();
                self.lanes[id].supply.loading = false;
                self.refresh(id, now);
                continue;
            }
            let seqs = missing.iter().map(|(seq, _)| *seq);
            let bytes = self.lanes[id].window.request_bytes(seqs);
            if !self.may_call(bytes) {
                return None;
            }
            self.supply.loads.pop_front();
            self.supply.promised_bytes += bytes;
            return Some(Load {
                id,
                entries: missing,
                bytes,
            });
        }
    }

    /// `None`: the store failed; the same is asked again.
    pub(in crate::ingest::deliver) fn loaded(
        &mut self,
        load: &Load,
        requests: Option<Vec<Option<Bytes>>>,
        now: Instant,
    ) {
        self.supply.calls -= 1;
        self.supply.promised_bytes -= load.bytes;
        let Some(requests) = requests else {
            self.supply.loads.push_back(load.id);
            return;
        };
        self.with_window(load.id, |window| {
            for ((seq, _), request) in load.entries.iter().zip(requests) {
                window.loaded(*seq, request);
            }
        });
        self.lanes[load.id].supply.loading = false;
        self.refresh(load.id, now);
        self.feed(load.id);
    }

    /// Takes a place for a call that brings so many bytes, if there is one.
    fn may_call(&mut self, bytes: usize) -> bool {
        if self.supply.calls >= CALLS_MAX {
            return false;
        }
        self.forget_for(bytes);
        let used = self.supply.held_bytes + self.supply.promised_bytes;
        // When nothing is under way, nothing will make room either: then it is one, however large.
        let idle = self.supply.calls == 0 && self.in_flight == 0;
        if used + bytes > HELD_BYTES_MAX && !idle {
            return false;
        }
        self.supply.calls += 1;
        true
    }

    /// Makes room by forgetting requests of one lane after the other.
    fn forget_for(&mut self, bytes: usize) {
        let lanes = self.lanes.capacity();
        for _ in 0..lanes {
            let used = self.supply.held_bytes + self.supply.promised_bytes;
            if used + bytes <= HELD_BYTES_MAX {
                return;
            }
            self.supply.hand = (self.supply.hand + 1) % lanes;
            let hand = self.supply.hand;
            self.with_window(hand, Window::forget_requests);
        }
    }

    /// Changes a window, and keeps the sums.
    pub(super) fn with_window(&mut self, id: LaneId, change: impl FnOnce(&mut Window)) {
        let Some(lane) = self.lanes.get_mut(id) else {
            return;
        };
        let window = &mut lane.window;
        self.supply.held_bytes -= window.held_bytes();
        self.supply.entries -= window.len();
        change(window);
        self.supply.held_bytes += window.held_bytes();
        self.supply.entries += window.len();
    }
}

impl LaneState {
    /// Entries wait for it to take them from the queue.
    pub(super) fn is_idle_but_waiting(&self) -> bool {
        let known = self.window.in_flight() + self.window.settling();
        self.supply.waiting > known as u64
    }

    fn is_idle(&self) -> bool {
        self.window.len() == 0 && !self.supply.claiming && !self.supply.loading
    }
}
