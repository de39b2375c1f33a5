//! A segment as it is in memory: counts per lane, which entries are settled, and where its blocks can be looked up.
//!
//! Nothing here grows with the number of entries but a bit for each, and that only while some are settled and some
//! are not. No I/O.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::sync::Arc;

use super::bits::Bits;
use super::block::Head;
use super::checkpoint::{Checkpoint, LaneCounts};
use super::index::{Index, LaneSummary, Place, Summary};
use super::verdicts::{Record, What};
use crate::store::queue::{EntryId, Lane, Outcome};

/// Number of a lane in this process.
pub(super) type LaneId = u32;

/// A log and its index, open for reading. Compaction makes a new one.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) generation: u32,
    pub(super) file: Arc<File>,
    pub(super) index: Index,
}

pub(super) enum Body {
    /// Being written.
    Live { file: Arc<File>, index: Index },
    /// Finished; its index is not on disk yet.
    Sealed(Arc<Opened>),
    /// Log and index are on disk.
    Indexed,
}

pub(super) struct Segment {
    pub(super) seq: u64,
    /// Random; names the segment in all its files.
    pub(super) id: u64,
    pub(super) generation: u32,
    pub(super) body: Body,
    pub(super) log_bytes: u64,
    pub(super) index_bytes: u64,
    /// 0: there is no verdict file.
    pub(super) verdicts_bytes: u64,
    pub(super) verdicts_generation: u32,
    pub(super) checkpoint_bytes: u64,
    /// Since the last checkpoint.
    pub(super) records: u64,
    /// By number.
    pub(super) lanes: Vec<SegmentLane>,
    numbers: HashMap<LaneId, u32, foldhash::fast::RandomState>,
    pub(super) next_ordinal: u32,
    pub(super) blocks: u32,
    pub(super) entries: u32,
    pub(super) waiting: u32,
    pub(super) parked: u32,
    settled: Option<Bits>,
    parked_entries: Option<Bits>,
    pub(super) attempts: HashMap<u32, u32>,
    pub(super) max_id: EntryId,
    pub(super) min_ms: u64,
    pub(super) max_ms: u64,
    /// Blocks that cannot be read, by offset. Compaction drops them and counts anew.
    pub(super) damaged: HashSet<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentLane {
    pub(super) lane: LaneId,
    pub(super) entries: u32,
    pub(super) request_bytes: u64,
    pub(super) max_ms: u64,
    pub(super) counts: LaneCounts,
}

/// What a record changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Nothing,
    Settled {
        lane: LaneId,
        parked: bool,
    },
    /// A parked entry got another verdict.
    Unparked {
        lane: LaneId,
    },
}

impl Segment {
    pub(super) fn new(seq: u64, id: u64, generation: u32, body: Body) -> Self {
        Self {
            seq,
            id,
            generation,
            body,
            log_bytes: 0,
            index_bytes: 0,
            verdicts_bytes: 0,
            verdicts_generation: 0,
            checkpoint_bytes: 0,
            records: 0,
            lanes: Vec::new(),
            numbers: HashMap::default(),
            next_ordinal: 0,
            blocks: 0,
            entries: 0,
            waiting: 0,
            parked: 0,
            settled: None,
            parked_entries: None,
            attempts: HashMap::new(),
            max_id: EntryId(0),
            min_ms: u64::MAX,
            max_ms: 0,
            damaged: HashSet::new(),
        }
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.body, Body::Live { .. })
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        self.log_bytes + self.index_bytes + self.verdicts_bytes + self.checkpoint_bytes
    }

    /// The segment's number of a lane.
    pub(super) fn number(&self, lane: LaneId) -> Option<u32> {
        self.numbers.get(&lane).copied()
    }

    pub(super) fn has_waiting(&self, lane: LaneId) -> bool {
        self.number(lane)
            .and_then(|number| self.lanes.get(number as usize))
            .is_some_and(|lane| lane.counts.waiting > 0)
    }

    /// Makes a lane known under a number. Numbers between may be unused: what they were for was not written.
    pub(super) fn name_lane(&mut self, number: u32, lane: LaneId) {
        let index = number as usize;
        let unused = SegmentLane {
            lane: LaneId::MAX,
            entries: 0,
            request_bytes: 0,
            max_ms: 0,
            counts: LaneCounts::default(),
        };
        if index >= self.lanes.len() {
            self.lanes.resize(index + 1, unused);
        }
        if self.lanes[index].lane != lane {
            self.lanes[index].lane = lane;
            self.numbers.insert(lane, number);
        }
    }

    /// Counts a block's entries as waiting.
    pub(super) fn count(&mut self, lane: LaneId, head: &Head, max_id: EntryId) {
        self.name_lane(head.lane_number, lane);
        let lane = &mut self.lanes[head.lane_number as usize];
        lane.entries += head.count;
        lane.request_bytes += u64::from(head.request_bytes);
        lane.max_ms = lane.max_ms.max(head.max_ms);
        lane.counts.waiting += head.count;
        lane.counts.waiting_bytes += u64::from(head.request_bytes);
        self.blocks += 1;
        self.entries += head.count;
        self.waiting += head.count;
        self.next_ordinal = self.next_ordinal.max(head.last + 1);
        self.max_id = self.max_id.max(max_id);
        self.min_ms = self.min_ms.min(head.min_ms);
        self.max_ms = self.max_ms.max(head.max_ms);
    }

    /// Takes the counts of an index file: everything waits.
    pub(super) fn count_summary(
        &mut self,
        summary: &Summary,
        mut lane_id: impl FnMut(&Lane) -> LaneId,
    ) {
        for (number, lane) in summary.lanes.iter().enumerate() {
            if lane.entries == 0 {
                continue;
            }
            self.name_lane(number as u32, lane_id(&lane.lane));
            let counts = LaneCounts {
                waiting: lane.entries,
                waiting_bytes: lane.request_bytes,
                parked: 0,
            };
            self.lanes[number] = SegmentLane {
                lane: self.lanes[number].lane,
                entries: lane.entries,
                request_bytes: lane.request_bytes,
                max_ms: lane.max_ms,
                counts,
            };
            self.entries += lane.entries;
        }
        self.waiting = self.entries;
        self.blocks = summary.blocks;
        self.log_bytes = summary.log_bytes;
        self.next_ordinal = summary.next_ordinal;
        self.max_id = summary.max_id;
        self.min_ms = summary.min_ms;
        self.max_ms = summary.max_ms;
    }

    pub(super) fn summary(&self, lane: impl Fn(LaneId) -> Lane) -> Summary {
        let lanes = self.lanes.iter().map(|of| LaneSummary {
            lane: lane(of.lane),
            entries: of.entries,
            request_bytes: of.request_bytes,
            max_ms: of.max_ms,
        });
        Summary {
            segment: self.id,
            generation: self.generation,
            log_bytes: self.log_bytes,
            blocks: self.blocks,
            next_ordinal: self.next_ordinal,
            max_id: self.max_id,
            min_ms: self.min_ms,
            max_ms: self.max_ms,
            lanes: lanes.collect(),
        }
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            segment: self.id,
            generation: self.generation,
            verdicts_generation: self.verdicts_generation,
            verdicts_bytes: self.verdicts_bytes,
            lanes: self.lanes.iter().map(|lane| lane.counts).collect(),
            settled: self.settled.clone(),
            parked: self.parked_entries.clone(),
            attempts: self.attempts.clone(),
        }
    }

    /// Takes a checkpoint that fits. `false`: it does not.
    pub(super) fn restore(&mut self, checkpoint: Checkpoint) -> bool {
        let counts = || checkpoint.lanes.iter().zip(&self.lanes);
        let fits = checkpoint.segment == self.id
            && checkpoint.generation == self.generation
            && checkpoint.lanes.len() <= self.lanes.len()
            && counts().all(|(counts, lane)| counts.waiting <= lane.entries);
        if !fits {
            return false;
        }
        for (lane, counts) in self.lanes.iter_mut().zip(&checkpoint.lanes) {
            lane.counts = *counts;
        }
        self.sum();
        self.settled = checkpoint.settled;
        self.parked_entries = checkpoint.parked;
        self.attempts = checkpoint.attempts;
        true
    }

    fn sum(&mut self) {
        self.entries = self.lanes.iter().map(|lane| lane.entries).sum();
        self.waiting = self.lanes.iter().map(|lane| lane.counts.waiting).sum();
        self.parked = self.lanes.iter().map(|lane| lane.counts.parked).sum();
    }

    pub(super) fn is_settled(&self, ordinal: u32) -> bool {
        match &self.settled {
            Some(settled) => settled.get(ordinal),
            None => self.waiting == 0,
        }
    }

    /// Whether nothing in a block can be waiting.
    pub(super) fn is_done(&self, place: &Place) -> bool {
        match &self.settled {
            Some(settled) => settled.covers(place.first, place.last),
            None => self.waiting == 0,
        }
    }

    pub(super) fn is_parked(&self, ordinal: u32) -> bool {
        self.parked_entries
            .as_ref()
            .is_some_and(|parked| parked.get(ordinal))
    }

    /// Applies a record; a second one for the same entry only where the first parked it.
    pub(super) fn apply(&mut self, record: &Record) -> Change {
        let ordinal = record.ordinal;
        let Some(lane) = self.lanes.get_mut(record.lane_number as usize) else {
            return Change::Nothing;
        };
        let id = lane.lane;
        let settled = match &self.settled {
            Some(settled) => settled.get(ordinal),
            None => self.waiting == 0,
        };
        let verdict = match &record.what {
            What::Attempts(attempts) => {
                if !settled {
                    self.attempts.insert(ordinal, *attempts);
                }
                return Change::Nothing;
            }
            What::Settled(verdict) => verdict,
        };
        let parked = verdict.outcome == Outcome::Parked;
        if settled {
            let was = self.parked_entries.as_mut();
            if parked || !was.is_some_and(|entries| entries.clear(ordinal)) {
                return Change::Nothing;
            }
            lane.counts.parked = lane.counts.parked.saturating_sub(1);
            self.parked = self.parked.saturating_sub(1);
            self.drop_unneeded();
            return Change::Unparked { lane: id };
        }
        self.settled.get_or_insert_default().set(ordinal);
        self.attempts.remove(&ordinal);
        let counts = &mut lane.counts;
        counts.waiting = counts.waiting.saturating_sub(1);
        counts.waiting_bytes = counts
            .waiting_bytes
            .saturating_sub(u64::from(record.request_bytes));
        self.waiting = self.waiting.saturating_sub(1);
        if parked {
            counts.parked += 1;
            self.parked += 1;
            self.parked_entries.get_or_insert_default().set(ordinal);
        }
        self.drop_unneeded();
        Change::Settled { lane: id, parked }
    }

    /// Gives up bitmaps that say nothing.
    pub(super) fn drop_unneeded(&mut self) {
        if self.waiting == 0 && !self.is_live() {
            self.settled = None;
        }
        if self.parked == 0 {
            self.parked_entries = None;
        }
    }

    /// After compaction: counts anew from the entries that are left, (ordinal, lane's number, request's size, time).
    pub(super) fn recount(&mut self, left: &[(u32, u32, u32, u64)]) {
        for lane in &mut self.lanes {
            lane.entries = 0;
            lane.request_bytes = 0;
            lane.max_ms = 0;
            lane.counts = LaneCounts::default();
        }
        let was_done = self.settled.is_none() && self.waiting == 0;
        let parked_before = self.parked_entries.take();
        self.min_ms = u64::MAX;
        self.max_ms = 0;
        for (ordinal, number, request_bytes, ms) in left {
            let settled = match &self.settled {
                Some(settled) => settled.get(*ordinal),
                None => was_done,
            };
            let was_parked = |bits: &Bits| bits.get(*ordinal);
            let parked = parked_before.as_ref().is_some_and(was_parked);
            let Some(lane) = self.lanes.get_mut(*number as usize) else {
                continue;
            };
            lane.entries += 1;
            lane.request_bytes += u64::from(*request_bytes);
            lane.max_ms = lane.max_ms.max(*ms);
            if !settled {
                lane.counts.waiting += 1;
                lane.counts.waiting_bytes += u64::from(*request_bytes);
            }
            if parked {
                lane.counts.parked += 1;
                self.parked_entries.get_or_insert_default().set(*ordinal);
            }
            self.min_ms = self.min_ms.min(*ms);
            self.max_ms = self.max_ms.max(*ms);
        }
        self.sum();
        self.drop_unneeded();
    }
}
