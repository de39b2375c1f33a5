//! Claiming: a lane's cursor over its blocks, and what is handed out.
//!
//! Where a step needs something from disk it says what ([`Missing`]); the caller reads it without the lock, hands it
//! in, and tries again, so a claim is decided under the lock only.

use std::fs::File;
use std::sync::Arc;

use bytes::Bytes;

use super::super::block::Block;
use super::super::index::Place;
use super::super::segment::{Body, LaneId};
use super::{BlockKey, InFlight, State, place_of, token};
use crate::store::queue::{ClaimLimits, Claimed, Token};

/// What comes next in a lane, or what must be read to know.
pub(in super::super) enum Next {
    Entry {
        seq: u64,
        block: Arc<Block>,
        position: usize,
    },
    Missing(Missing),
    Nothing,
}

pub(in super::super) enum Missing {
    /// A segment's log and index.
    Segment(u64),
    Block(BlockRead),
}

#[derive(Debug, Clone)]
pub(in super::super) struct BlockRead {
    pub(in super::super) seq: u64,
    pub(in super::super) generation: u32,
    pub(in super::super) place: Place,
    pub(in super::super) file: Arc<File>,
}

impl BlockRead {
    pub(in super::super) fn key(&self) -> BlockKey {
        (self.seq, self.generation, self.place.offset)
    }
}

/// What a call to claim has so far.
#[derive(Default)]
pub(in super::super) struct Claiming {
    pub(in super::super) claimed: Vec<Claimed>,
    bytes: usize,
}

impl State {
    /// A lane's first block with an entry at or after an ordinal of a segment. Outer `None`: it must be opened first.
    fn seek(&mut self, seq: u64, number: u32, ordinal: u32) -> Option<Option<BlockRead>> {
        let Some(segment) = self.segments.get(&seq) else {
            return Some(None);
        };
        let cached;
        let (file, index) = match &segment.body {
            Body::Live { file, index, .. } => (file, index),
            Body::Sealed(opened) => (&opened.file, &opened.index),
            Body::Indexed => {
                cached = self.opened.get(&seq)?;
                (&cached.file, &cached.index)
            }
        };
        let place = index.seek(number, ordinal);
        Some(place.map(|place| BlockRead {
            seq,
            generation: segment.generation,
            place,
            file: file.clone(),
        }))
    }

    /// Moves a lane's cursor to its next entry that is neither settled nor claimed.
    pub(in super::super) fn advance(&mut self, id: LaneId) -> Next {
        loop {
            let lane = &self.lanes[id as usize];
            let (seq, ordinal) = lane.cursor;
            let here = self
                .segments
                .get(&seq)
                .filter(|segment| segment.has_waiting(id));
            let found = here.or_else(|| {
                let mut rest = self.segments.range(seq..).map(|(_, segment)| segment);
                rest.find(|segment| segment.has_waiting(id))
            });
            let Some((segment, number)) =
                found.and_then(|segment| Some((segment, segment.number(id)?)))
            else {
                return Next::Nothing;
            };
            let live = segment.is_live();
            let from = if segment.seq == seq { ordinal } else { 0 };
            let seq = segment.seq;
            let Some(read) = self.seek(seq, number, from) else {
                return Next::Missing(Missing::Segment(seq));
            };
            let Some(read) = read else {
                if live {
                    return Next::Nothing;
                }
                self.lanes[id as usize].cursor = (seq + 1, 0);
                continue;
            };
            let segment = &self.segments[&seq];
            if segment.is_done(&read.place) || segment.damaged.contains(&read.place.offset) {
                self.lanes[id as usize].cursor = (seq, read.place.last + 1);
                continue;
            }
            let Some(block) = self.block(&read.key()) else {
                return Next::Missing(Missing::Block(read));
            };
            let segment = &self.segments[&seq];
            let rows = block.rows.iter().enumerate().skip(block.seek(from));
            let waiting = rows
                .map(|(position, row)| (position, row.ordinal))
                .find(|(_, ordinal)| !segment.is_settled(*ordinal));
            let Some((position, ordinal)) = waiting else {
                self.lanes[id as usize].cursor = (seq, read.place.last + 1);
                continue;
            };
            self.lanes[id as usize].cursor = (seq, ordinal);
            return Next::Entry {
                seq,
                block,
                position,
            };
        }
    }

    /// Claims within limits; `Some`: reading that, it can go on.
    pub(in super::super) fn claim(
        &mut self,
        id: LaneId,
        limits: ClaimLimits,
        so_far: &mut Claiming,
    ) -> Option<Missing> {
        while so_far.claimed.len() < limits.entries && self.unclaimed(id) > 0 {
            let (seq, block, position) = match self.advance(id) {
                Next::Entry {
                    seq,
                    block,
                    position,
                } => (seq, block, position),
                Next::Missing(missing) => return Some(missing),
                Next::Nothing => break,
            };
            if !self.claim_rows(id, seq, &block, position, limits, so_far) {
                break;
            }
        }
        None
    }

    /// Claims from one block. `false`: the limit of bytes is reached.
    fn claim_rows(
        &mut self,
        id: LaneId,
        seq: u64,
        block: &Block,
        from: usize,
        limits: ClaimLimits,
        so_far: &mut Claiming,
    ) -> bool {
        let Some(segment) = self.segments.get(&seq) else {
            return true;
        };
        let Some(lane_number) = segment.number(id) else {
            return true;
        };
        let lane = &mut self.lanes[id as usize];
        for (position, row) in block.rows.iter().enumerate().skip(from) {
            if so_far.claimed.len() >= limits.entries {
                break;
            }
            if segment.is_settled(row.ordinal) {
                continue;
            }
            let bytes = row.request_bytes as usize;
            if !so_far.claimed.is_empty() && so_far.bytes + bytes > limits.bytes {
                return false;
            }
            so_far.bytes += bytes;
            let token = token(seq, row.ordinal);
            let in_flight = InFlight {
                lane: id,
                lane_number,
                request_bytes: row.request_bytes,
            };
            self.in_flight.insert(token, in_flight);
            lane.in_flight.insert(token.0, row.id.accepted_ms());
            lane.cursor = (seq, row.ordinal + 1);
            so_far.claimed.push(Claimed {
                id: row.id,
                token,
                key: block.key(&row.key),
                barrier: block.key(&row.barrier),
                cost: row.cost,
                attempts: segment.attempts.get(&row.ordinal).copied().unwrap_or(0),
                request: block.request(position),
            });
        }
        true
    }

    fn unclaimed(&self, id: LaneId) -> u64 {
        let lane = &self.lanes[id as usize];
        lane.waiting.saturating_sub(lane.in_flight.len() as u64)
    }

    /// Finds out when the entry at a lane's cursor was accepted.
    pub(in super::super) fn refresh(&mut self, id: LaneId) -> Option<Missing> {
        let next = match self.unclaimed(id) {
            0 => Next::Nothing,
            _ => self.advance(id),
        };
        let next_ms = match next {
            Next::Entry {
                block, position, ..
            } => Some(block.rows[position].id.accepted_ms()),
            Next::Missing(missing) => return Some(missing),
            Next::Nothing => None,
        };
        self.lanes[id as usize].next_ms = next_ms;
        None
    }

    /// A claimed entry's request; `Ok(None)`: it is not claimed, or settled.
    pub(in super::super) fn load(&mut self, token: Token) -> Result<Option<Bytes>, Missing> {
        let (seq, ordinal) = place_of(token);
        let Some(in_flight) = self.in_flight.get(&token).copied() else {
            return Ok(None);
        };
        let Some(read) = self.seek(seq, in_flight.lane_number, ordinal) else {
            return Err(Missing::Segment(seq));
        };
        let Some(read) = read else {
            return Ok(None);
        };
        let damaged = &self.segments[&seq].damaged;
        if damaged.contains(&read.place.offset) {
            return Ok(None);
        }
        let Some(block) = self.block(&read.key()) else {
            return Err(Missing::Block(read));
        };
        Ok(block
            .position(ordinal)
            .map(|position| block.request(position)))
    }
}
