//! What a data plane knows of a partition that it holds: blocks with entries that wait, in order, per lane. Pure.
//!
//! Costs memory per block, and a few bytes per entry only while an entry of the block is claimed. Numbers of lanes are
//! the store's, as it said them last; an older answer never replaces a newer one.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::block::{Block, Head, Mark};
use super::records::States;
use crate::store::queue::{Lane, LaneStats};

/// Of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting,
    Claimed,
    Settled,
}

#[derive(Debug, Clone)]
struct Known {
    lane: Lane,
    mark: Mark,
    count: u16,
    min_ms: u64,
    /// Empty: all wait.
    places: Box<[Place]>,
    /// Bytes of each request, once one of them was claimed.
    sizes: Box<[u32]>,
}

#[derive(Debug, Default)]
struct LaneIndex {
    /// Numbers of blocks with entries that are not settled.
    blocks: BTreeSet<u64>,
    /// Everything before it is claimed.
    cursor: u64,
    counts: Counts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts {
    pub(super) waiting: u64,
    pub(super) waiting_bytes: u64,
    pub(super) parked: u64,
    /// Of the partition when the store said so.
    pub(super) version: u64,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    /// The first number that is not known.
    tail: u64,
    blocks: BTreeMap<u64, Known>,
    lanes: HashMap<Lane, LaneIndex>,
    /// Of the index that this one follows, after a server may have forgotten something.
    before: BTreeMap<u64, Known>,
}

/// An entry that is claimed, as the store must be told of it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settling {
    pub(super) mark: Mark,
    pub(super) count: u16,
    pub(super) lane: Lane,
    pub(super) request_bytes: u32,
}

impl Index {
    /// Empty; what the store has from `first` on is to be added.
    pub(super) fn new(first: u64) -> Self {
        Self {
            tail: first,
            ..Self::default()
        }
    }

    /// Begins anew; claims of blocks that are still there stay.
    pub(super) fn again(self, first: u64) -> Self {
        let mut lanes = self.lanes;
        let mut before = self.before;
        before.extend(self.blocks);
        for lane in lanes.values_mut() {
            lane.blocks.clear();
            lane.cursor = 0;
            lane.counts.version = 0;
        }
        Self {
            tail: first,
            blocks: BTreeMap::new(),
            lanes,
            before,
        }
    }

    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    /// Nothing below it waits.
    pub(super) fn first(&self) -> u64 {
        let first = self.blocks.first_key_value();
        first.map_or(self.tail, |(number, _)| *number)
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Everything before `tail` is known now.
    pub(super) fn reached(&mut self, tail: u64) {
        self.tail = self.tail.max(tail);
    }

    /// The next block; one that is known already is passed over.
    pub(super) fn add(&mut self, number: u64, head: &Head, states: &States) {
        if number < self.tail {
            return;
        }
        self.tail = number + 1;
        let before = self.before.remove(&number);
        if states.all_settled() {
            return;
        }
        let settled = |index: usize| states.outcomes[index].is_some();
        let mut known = Known {
            lane: head.lane.clone(),
            mark: head.mark,
            count: head.count,
            min_ms: head.min_ms,
            places: Box::default(),
            sizes: Box::default(),
        };
        let before = before.filter(|before| before.mark == head.mark);
        let claimed = before
            .as_ref()
            .is_some_and(|before| !before.places.is_empty());
        if claimed || (0..usize::from(head.count)).any(settled) {
            let place = |index: usize| {
                let was = before.as_ref().and_then(|before| before.places.get(index));
                match was {
                    _ if settled(index) => Place::Settled,
                    Some(Place::Claimed) => Place::Claimed,
                    // What was settled and is not any more has to be done again.
                    Some(Place::Settled | Place::Waiting) | None => Place::Waiting,
                }
            };
            known.places = (0..usize::from(head.count)).map(place).collect();
        }
        if let Some(before) = before {
            known.sizes = before.sizes;
        }
        let lane = self.lanes.entry(head.lane.clone()).or_default();
        lane.blocks.insert(number);
        self.blocks.insert(number, known);
    }

    /// The lane's next blocks that have something to claim, oldest first.
    pub(super) fn next_blocks(&mut self, lane: &Lane, most: usize) -> Vec<u64> {
        let Some(lane) = self.lanes.get_mut(lane) else {
            return Vec::new();
        };
        let mut next = Vec::new();
        for number in lane.blocks.range(lane.cursor..) {
            if next.len() >= most {
                break;
            }
            let known = &self.blocks[number];
            if known.places.is_empty() || known.places.contains(&Place::Waiting) {
                if next.is_empty() {
                    lane.cursor = *number;
                }
                next.push(*number);
            }
        }
        if next.is_empty() {
            lane.cursor = self.tail;
        }
        next
    }

    /// Claims entries of a block while `takes` says so; answers their places.
    pub(super) fn claim(
        &mut self,
        number: u64,
        block: &Block,
        states: &States,
        mut takes: impl FnMut(usize) -> bool,
    ) -> Vec<u16> {
        let mut claimed = Vec::new();
        let Some(known) = self.blocks.get_mut(&number) else {
            return claimed;
        };
        if known.mark != block.head.mark {
            return claimed;
        }
        let count = usize::from(known.count);
        if known.places.is_empty() {
            known.places = vec![Place::Waiting; count].into();
        }
        if known.sizes.is_empty() {
            known.sizes = block.rows.iter().map(|row| row.request_bytes).collect();
        }
        for index in 0..count {
            if known.places[index] != Place::Waiting {
                continue;
            }
            if states.outcomes.get(index).copied().flatten().is_some() {
                known.places[index] = Place::Settled;
                continue;
            }
            if !takes(index) {
                break;
            }
            known.places[index] = Place::Claimed;
            claimed.push(index as u16);
        }
        self.drop_if_settled(number);
        claimed
    }

    /// `None`: it is settled, or not known.
    pub(super) fn settling(&self, number: u64, index: u16) -> Option<Settling> {
        let known = self.known(number)?;
        let place = known.places.get(usize::from(index))?;
        (*place == Place::Claimed).then(|| Settling {
            mark: known.mark,
            count: known.count,
            lane: known.lane.clone(),
            request_bytes: known.sizes[usize::from(index)],
        })
    }

    /// Whether the token's block is the one that is known under its number.
    pub(super) fn is_block(&self, number: u64, mark: u8) -> bool {
        let known = self.known(number);
        known.is_some_and(|known| known.mark[0] == mark)
    }

    /// Whether another block is known under the number.
    pub(super) fn is_other(&self, number: u64, mark: Mark) -> bool {
        let known = self.blocks.get(&number);
        known.is_some_and(|known| known.mark != mark)
    }

    /// While everything is read again, what was known before still counts.
    fn known(&self, number: u64) -> Option<&Known> {
        self.blocks
            .get(&number)
            .or_else(|| self.before.get(&number))
    }

    /// Everything that is stored is known again.
    pub(super) fn caught_up(&mut self) {
        self.before.clear();
    }

    /// As if nothing had been claimed.
    pub(super) fn unclaim_all(&mut self) {
        for known in self.blocks.values_mut() {
            for place in &mut known.places {
                if *place == Place::Claimed {
                    *place = Place::Waiting;
                }
            }
        }
        self.before.clear();
        for lane in self.lanes.values_mut() {
            lane.cursor = 0;
        }
    }

    pub(super) fn settled(&mut self, number: u64, index: u16) {
        let known = match self.blocks.get_mut(&number) {
            Some(known) => Some(known),
            None => self.before.get_mut(&number),
        };
        if let Some(known) = known {
            if known.places.is_empty() {
                known.places = vec![Place::Waiting; usize::from(known.count)].into();
            }
            if let Some(place) = known.places.get_mut(usize::from(index)) {
                *place = Place::Settled;
            }
        }
        self.drop_if_settled(number);
    }

    fn drop_if_settled(&mut self, number: u64) {
        let Some(known) = self.blocks.get(&number) else {
            return;
        };
        let done =
            !known.places.is_empty() && known.places.iter().all(|place| *place == Place::Settled);
        if done {
            self.forget(number);
        }
    }

    /// A block that the store does not have any more.
    pub(super) fn forget(&mut self, number: u64) {
        if let Some(known) = self.blocks.remove(&number)
            && let Some(lane) = self.lanes.get_mut(&known.lane)
        {
            lane.blocks.remove(&number);
        }
    }

    /// What the store says of one lane.
    pub(super) fn count(&mut self, lane: Lane, counts: Counts) {
        let lane = self.lanes.entry(lane).or_default();
        if counts.version > lane.counts.version {
            lane.counts = counts;
        }
    }

    /// What the store says of all lanes.
    pub(super) fn count_all(&mut self, all: &HashMap<Lane, Counts>, version: u64) {
        for (lane, counts) in all {
            self.count(lane.clone(), *counts);
        }
        self.lanes.retain(|lane, known| {
            if !all.contains_key(lane) && known.counts.version < version {
                known.counts = Counts {
                    version,
                    ..Counts::default()
                };
            }
            known.counts.waiting > 0 || known.counts.parked > 0 || !known.blocks.is_empty()
        });
    }

    pub(super) fn waiting(&self) -> u64 {
        self.lanes.values().map(|lane| lane.counts.waiting).sum()
    }

    pub(super) fn lane_stats(&self) -> impl Iterator<Item = LaneStats> + '_ {
        let lanes = self.lanes.iter();
        let told = lanes.filter(|(_, lane)| lane.counts.waiting > 0 || lane.counts.parked > 0);
        told.map(|(name, lane)| LaneStats {
            lane: name.clone(),
            waiting: lane.counts.waiting,
            waiting_bytes: lane.counts.waiting_bytes,
            oldest_ms: lane
                .blocks
                .first()
                .filter(|_| lane.counts.waiting > 0)
                .map(|number| self.blocks[number].min_ms),
            parked: lane.counts.parked,
        })
    }
}

#[cfg(test)]
mod tests;
