//! What the queue knows of its entries: segments, lanes, what is claimed. Everything in memory, under one lock.
//!
//! Nothing here reads or writes a file.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

mod claims;

pub(super) use self::claims::{BlockRead, Claiming, Missing};
use super::block::{Block, Head};
use super::cache::Cache;
use super::index::Place;
use super::limits::{BLOCK_CACHE_BYTES, INDEX_CACHE_BYTES, OPEN_SEGMENTS_MAX, TAIL_CACHE_BYTES};
use super::segment::{Body, Change, LaneId, Opened, Segment};
use super::verdicts::{Record, What};
use crate::store::queue::{EntryId, Lane, LaneStats, QueueStats, Token};

const ORDINAL_BITS: u32 = 24;

pub(super) fn token(seq: u64, ordinal: u32) -> Token {
    Token(seq << ORDINAL_BITS | u64::from(ordinal))
}

pub(super) fn place_of(token: Token) -> (u64, u32) {
    let ordinal = token.0 & ((1 << ORDINAL_BITS) - 1);
    (token.0 >> ORDINAL_BITS, ordinal as u32)
}

/// Segment, generation, offset.
pub(super) type BlockKey = (u64, u32, u64);

pub(super) struct State {
    pub(super) segments: BTreeMap<u64, Segment>,
    pub(super) lanes: Vec<LaneState>,
    lane_ids: HashMap<Lane, LaneId, foldhash::fast::RandomState>,
    in_flight: HashMap<Token, InFlight, foldhash::fast::RandomState>,
    /// Blocks as they were written, and blocks that were read again.
    written: Cache<BlockKey, Block>,
    read: Cache<BlockKey, Block>,
    opened: Cache<u64, Opened>,
    pub(super) stored_bytes: u64,
}

pub(super) struct LaneState {
    pub(super) lane: Lane,
    waiting: u64,
    waiting_bytes: u64,
    parked: u64,
    /// Everything before it is settled or claimed: a segment, and an ordinal in it.
    cursor: (u64, u32),
    /// When the entry at the cursor was accepted; `None`: there is none.
    next_ms: Option<u64>,
    /// Tokens of what is claimed and not settled, in order, and when it was accepted.
    in_flight: BTreeMap<u64, u64>,
}

#[derive(Debug, Clone, Copy)]
struct InFlight {
    lane: LaneId,
    lane_number: u32,
    request_bytes: u32,
}

/// A block that is on disk now.
pub(super) struct Written {
    pub(super) head: Head,
    pub(super) offset: u64,
    pub(super) block: Block,
}

impl State {
    pub(super) fn new() -> Self {
        Self {
            segments: BTreeMap::new(),
            lanes: Vec::new(),
            lane_ids: HashMap::default(),
            in_flight: HashMap::default(),
            written: Cache::new(TAIL_CACHE_BYTES, usize::MAX),
            read: Cache::new(BLOCK_CACHE_BYTES, usize::MAX),
            opened: Cache::new(INDEX_CACHE_BYTES, OPEN_SEGMENTS_MAX),
            stored_bytes: 0,
        }
    }

    pub(super) fn find_lane(&self, lane: &Lane) -> Option<LaneId> {
        self.lane_ids.get(lane).copied()
    }

    pub(super) fn lane_id(&mut self, lane: &Lane) -> LaneId {
        if let Some(id) = self.lane_ids.get(lane) {
            return *id;
        }
        let id = self.lanes.len() as LaneId;
        self.lanes.push(LaneState {
            lane: lane.clone(),
            waiting: 0,
            waiting_bytes: 0,
            parked: 0,
            cursor: (0, 0),
            next_ms: None,
            in_flight: BTreeMap::new(),
        });
        self.lane_ids.insert(lane.clone(), id);
        id
    }

    pub(super) fn lane(&self, id: LaneId) -> Lane {
        let known = self.lanes.get(id as usize);
        // A number that nothing was written under has no lane.
        known.map_or_else(
            || Lane {
                partition: 0,
                application: Arc::default(),
                replay: false,
            },
            |lane| lane.lane.clone(),
        )
    }

    /// A segment that was found at the start: its counts join the lanes'.
    pub(super) fn adopt(&mut self, segment: Segment) {
        self.stored_bytes += segment.stored_bytes();
        self.add_counts(&segment);
        self.segments.insert(segment.seq, segment);
    }

    fn add_counts(&mut self, segment: &Segment) {
        for of in &segment.lanes {
            if let Some(lane) = self.lanes.get_mut(of.lane as usize) {
                lane.waiting += u64::from(of.counts.waiting);
                lane.waiting_bytes += of.counts.waiting_bytes;
                lane.parked += u64::from(of.counts.parked);
            }
        }
    }

    fn subtract_counts(&mut self, seq: u64) {
        let Some(segment) = self.segments.get(&seq) else {
            return;
        };
        for of in &segment.lanes {
            if let Some(lane) = self.lanes.get_mut(of.lane as usize) {
                lane.waiting = lane.waiting.saturating_sub(of.counts.waiting.into());
                lane.waiting_bytes = lane.waiting_bytes.saturating_sub(of.counts.waiting_bytes);
                lane.parked = lane.parked.saturating_sub(of.counts.parked.into());
            }
        }
    }

    /// Changes a segment in a way that may change its counts or its size.
    pub(super) fn change<T>(
        &mut self,
        seq: u64,
        change: impl FnOnce(&mut Segment) -> T,
    ) -> Option<T> {
        self.subtract_counts(seq);
        let segment = self.segments.get_mut(&seq)?;
        let before = segment.stored_bytes();
        let answer = change(segment);
        let after = segment.stored_bytes();
        self.stored_bytes = self.stored_bytes.saturating_sub(before) + after;
        if let Some(segment) = self.segments.remove(&seq) {
            self.add_counts(&segment);
            self.segments.insert(seq, segment);
        }
        Some(answer)
    }

    /// Only the size changes.
    pub(super) fn resize<T>(
        &mut self,
        seq: u64,
        change: impl FnOnce(&mut Segment) -> T,
    ) -> Option<T> {
        let segment = self.segments.get_mut(&seq)?;
        let before = segment.stored_bytes();
        let answer = change(segment);
        self.stored_bytes = self.stored_bytes.saturating_sub(before) + segment.stored_bytes();
        Some(answer)
    }

    /// Forgets a segment in which nothing waits.
    pub(super) fn remove(&mut self, seq: u64) {
        self.subtract_counts(seq);
        if let Some(segment) = self.segments.remove(&seq) {
            self.stored_bytes = self.stored_bytes.saturating_sub(segment.stored_bytes());
        }
        self.opened.remove(&seq);
    }

    /// Blocks that were written to the live segment become visible.
    pub(super) fn publish(&mut self, seq: u64, log_bytes: u64, written: Vec<Written>) {
        for Written {
            head,
            offset,
            block,
        } in written
        {
            let id = self.lane_id(&head.lane);
            let Some(segment) = self.segments.get_mut(&seq) else {
                return;
            };
            let max_id = block.rows.iter().map(|row| row.id).max();
            segment.count(id, &head, max_id.unwrap_or(EntryId(0)));
            if let Body::Live { index, .. } = &mut segment.body {
                index.add(head.lane_number, Place::new(offset, &head));
            }
            let key = (seq, segment.generation, offset);
            let lane = &mut self.lanes[id as usize];
            if lane.waiting == lane.in_flight.len() as u64 {
                lane.next_ms = block.rows.first().map(|row| row.id.accepted_ms());
            }
            lane.waiting += u64::from(head.count);
            lane.waiting_bytes += u64::from(head.request_bytes);
            let bytes = block.bytes();
            self.written.insert(key, Arc::new(block), bytes);
        }
        self.resize(seq, |segment| segment.log_bytes = log_bytes);
    }

    /// Finishes a live segment.
    pub(super) fn seal(&mut self, seq: u64) {
        if let Some(segment) = self.segments.get_mut(&seq)
            && let Body::Live { file, index, .. } = &mut segment.body
        {
            let opened = Opened {
                generation: segment.generation,
                file: file.clone(),
                index: std::mem::take(index),
            };
            segment.body = Body::Sealed(Arc::new(opened));
            segment.drop_unneeded();
        }
    }

    /// Unless it was rewritten meanwhile.
    pub(super) fn keep_opened(&mut self, seq: u64, opened: Arc<Opened>) {
        let segment = self.segments.get(&seq);
        if segment.is_none_or(|segment| segment.generation != opened.generation) {
            return;
        }
        let bytes = opened.index.bytes();
        self.opened.insert(seq, opened, bytes);
    }

    /// A segment was rewritten: what was read of it before is of no use.
    pub(super) fn forget_opened(&mut self, seq: u64) {
        self.opened.remove(&seq);
    }

    pub(super) fn keep_block(&mut self, key: BlockKey, block: Arc<Block>) {
        let bytes = block.bytes();
        self.read.insert(key, block, bytes);
    }

    pub(super) fn drop_caches(&mut self) {
        self.written.clear();
        self.read.clear();
    }

    fn block(&mut self, key: &BlockKey) -> Option<Arc<Block>> {
        self.written.get(key).or_else(|| self.read.get(key))
    }

    /// The record of a claimed entry's verdict or attempts, and its segment. `None`: it is not claimed, or settled.
    pub(super) fn record(&self, token: Token, what: What) -> Option<(u64, Record)> {
        let in_flight = self.in_flight.get(&token)?;
        let (seq, ordinal) = place_of(token);
        let record = Record {
            ordinal,
            lane_number: in_flight.lane_number,
            request_bytes: in_flight.request_bytes,
            what,
        };
        Some((seq, record))
    }

    /// Applies a record that is on disk. `true`: now nothing waits in its segment any more.
    pub(super) fn apply(&mut self, seq: u64, record: &Record) -> bool {
        let Some(segment) = self.segments.get_mut(&seq) else {
            return false;
        };
        let change = segment.apply(record);
        segment.records += 1;
        let done = segment.waiting == 0;
        match change {
            Change::Nothing => return false,
            Change::Unparked { lane } => {
                let lane = &mut self.lanes[lane as usize];
                lane.parked = lane.parked.saturating_sub(1);
                return false;
            }
            Change::Settled { lane, parked } => {
                let lane = &mut self.lanes[lane as usize];
                lane.waiting = lane.waiting.saturating_sub(1);
                lane.waiting_bytes = lane
                    .waiting_bytes
                    .saturating_sub(u64::from(record.request_bytes));
                lane.parked += u64::from(parked);
            }
        }
        self.release(token(seq, record.ordinal));
        done
    }

    fn release(&mut self, token: Token) {
        if let Some(in_flight) = self.in_flight.remove(&token)
            && let Some(lane) = self.lanes.get_mut(in_flight.lane as usize)
        {
            lane.in_flight.remove(&token.0);
        }
    }

    /// After compaction lost damaged blocks: what was claimed of them is not any more.
    pub(super) fn release_lost(&mut self, seq: u64, is_left: impl Fn(u32) -> bool) {
        let of_segment = |token: &&Token| {
            let (of, ordinal) = place_of(**token);
            of == seq && !is_left(ordinal)
        };
        let lost: Vec<Token> = self.in_flight.keys().filter(of_segment).copied().collect();
        lost.into_iter().for_each(|token| self.release(token));
    }

    pub(super) fn lane_stats(&self) -> Vec<LaneStats> {
        let lanes = self.lanes.iter();
        let live = lanes.filter(|lane| lane.waiting > 0 || lane.parked > 0);
        live.map(|lane| {
            let first = lane.in_flight.first_key_value().map(|(_, ms)| *ms);
            let oldest_ms = first.into_iter().chain(lane.next_ms).min();
            LaneStats {
                lane: lane.lane.clone(),
                waiting: lane.waiting,
                waiting_bytes: lane.waiting_bytes,
                oldest_ms: oldest_ms.filter(|_| lane.waiting > 0),
                parked: lane.parked,
            }
        })
        .collect()
    }

    pub(super) fn stats(&self, budget_bytes: u64, accepting: bool) -> QueueStats {
        let segments = self.segments.values();
        QueueStats {
            waiting: self.lanes.iter().map(|lane| lane.waiting).sum(),
            waiting_bytes: self.lanes.iter().map(|lane| lane.waiting_bytes).sum(),
            parked: self.lanes.iter().map(|lane| lane.parked).sum(),
            entries: segments.map(|segment| u64::from(segment.entries)).sum(),
            stored_bytes: self.stored_bytes,
            budget_bytes,
            accepting,
        }
    }
}

/// Whether an operator's verdict may replace what an entry has.
pub(super) fn may_dismiss(segment: &Segment, ordinal: u32) -> bool {
    !segment.is_settled(ordinal) || segment.is_parked(ordinal)
}
