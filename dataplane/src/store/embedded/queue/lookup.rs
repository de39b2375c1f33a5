//! Finds entries for operators: by id, and page by page by a filter.
//!
//! Segments and blocks that cannot hold a match are left out by their times and counts; of the others only heads are
//! read. One call reads so much and no more; then it answers with what it has and where to go on. Runs
//! on the searching thread.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;

use super::block::{Block, Head, Row, Unpacker};
use super::disk::{Kind, read_at};
use super::index::Place;
use super::limits::{FIND_BYTES, FIND_TIME, PAGE_ENTRIES_MAX};
use super::segment::{LaneId, Opened, Segment};
use super::shared::{Shared, read_block};
use super::state::BlockRead;
use super::verdicts::{self, Verdicts};
use crate::store::queue::record::lost;
use crate::store::queue::{EntryId, Filter, Found, Lane, Outcome, Page, State, Verdict};

/// Where an entry is.
pub(super) struct Located {
    pub(super) seq: u64,
    pub(super) lane: LaneId,
    pub(super) lane_number: u32,
    pub(super) row: Row,
    read: BlockRead,
}

/// A segment that may hold matches.
struct Candidate {
    seq: u64,
    min_ms: u64,
    /// Its lanes that match, by number.
    lanes: Vec<(u32, LaneId, Lane)>,
}

/// The smallest id of a time.
fn first_id(ms: u64) -> EntryId {
    EntryId(u128::from(ms) << 80)
}

impl Shared {
    /// Those of which the time, the state and the application fit, by their first entry's time.
    fn candidates(&self, filter: &Filter, from_ms: u64, until_ms: u64) -> Vec<Candidate> {
        let state = self.state.lock();
        let may = |segment: &&Segment| {
            let has_state = match filter.state {
                Some(State::Waiting) => segment.waiting > 0,
                Some(State::Settled(Outcome::Parked)) => segment.parked > 0,
                Some(State::Settled(_)) => segment.waiting < segment.entries,
                None => true,
            };
            segment.entries > 0
                && segment.min_ms < until_ms
                && segment.max_ms >= from_ms
                && has_state
        };
        let mut candidates = Vec::new();
        for segment in state.segments.values().filter(may) {
            let numbered = segment.lanes.iter().enumerate();
            let lanes = numbered
                .filter(|(_, of)| of.entries > 0)
                .map(|(number, of)| (number as u32, of.lane, state.lane(of.lane)))
                .filter(|(_, _, lane)| {
                    let wanted = filter.application.as_ref();
                    wanted.is_none_or(|application| *application == lane.application)
                });
            candidates.push(Candidate {
                seq: segment.seq,
                min_ms: segment.min_ms,
                lanes: lanes.collect(),
            });
        }
        candidates.retain(|candidate| !candidate.lanes.is_empty());
        candidates.sort_by_key(|candidate| candidate.min_ms);
        candidates
    }

    /// `None`: the segment is gone meanwhile.
    fn open_for_search(&self, seq: u64) -> io::Result<Option<Arc<Opened>>> {
        match self.open_segment(seq) {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn locate(&self, id: EntryId) -> io::Result<Option<Located>> {
        let ms = id.accepted_ms();
        for candidate in self.candidates(&Filter::default(), ms, ms + 1) {
            let Some(opened) = self.open_for_search(candidate.seq)? else {
                continue;
            };
            for (number, lane, _) in candidate.lanes {
                let places = opened.index.lane(number).iter();
                for place in places.filter(|place| place.min_ms <= ms && ms <= place.max_ms) {
                    let Some(rows) = self.rows(candidate.seq, &opened, place)? else {
                        continue;
                    };
                    if let Some(row) = rows.into_iter().find(|row| row.id == id) {
                        let read = BlockRead {
                            seq: candidate.seq,
                            generation: opened.generation,
                            place: *place,
                            file: opened.file.clone(),
                        };
                        return Ok(Some(Located {
                            seq: candidate.seq,
                            lane,
                            lane_number: number,
                            row,
                            read,
                        }));
                    }
                }
            }
        }
        Ok(None)
    }

    /// The entries of a block, without their requests. `None`: damaged.
    fn rows(&self, seq: u64, opened: &Opened, place: &Place) -> io::Result<Option<Vec<Row>>> {
        let data = match read_at(&opened.file, place.offset, place.head_bytes as usize) {
            Ok(data) => data,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Bytes::new(),
            Err(error) => return Err(error),
        };
        let rows = Head::parse(&data).map(|(_, rows)| rows);
        if rows.is_none() {
            self.report_damage(seq, opened.generation, place);
        }
        Ok(rows)
    }

    pub(super) fn get(
        &self,
        id: EntryId,
        unpacker: &mut Unpacker,
    ) -> io::Result<Option<(Found, Bytes)>> {
        let Some(located) = self.locate(id)? else {
            return Ok(None);
        };
        let Some(block): Option<Block> = read_block(&located.read, unpacker)? else {
            self.report_damage(located.seq, located.read.generation, &located.read.place);
            return Ok(None);
        };
        let position = block.position(located.row.ordinal);
        let request = position.map(|position| block.request(position));
        let mut known = Known::default();
        let found = self.describe(located.seq, located.lane, &located.row, &mut known)?;
        Ok(found.zip(request))
    }

    /// `None`: the segment is gone meanwhile.
    fn describe(
        &self,
        seq: u64,
        lane: LaneId,
        row: &Row,
        known: &mut Known,
    ) -> io::Result<Option<Found>> {
        let (lane, settled, parked) = {
            let state = self.state.lock();
            let Some(segment) = state.segments.get(&seq) else {
                return Ok(None);
            };
            let settled = segment.is_settled(row.ordinal);
            (state.lane(lane), settled, segment.is_parked(row.ordinal))
        };
        let verdict = if settled {
            Some(known.verdict(self, seq, row.ordinal, parked)?)
        } else {
            None
        };
        Ok(Some(Found {
            id: row.id,
            lane,
            key: Bytes::copy_from_slice(&row.key),
            barrier: Bytes::copy_from_slice(&row.barrier),
            cost: row.cost,
            replay_of: row.replay_of,
            request_bytes: row.request_bytes,
            verdict,
        }))
    }

    pub(super) fn find(
        &self,
        filter: &Filter,
        after: Option<EntryId>,
        limit: usize,
    ) -> io::Result<Page> {
        let after_ms = after.map_or(0, EntryId::accepted_ms);
        let from_ms = filter.from_ms.unwrap_or(0).max(after_ms);
        let until_ms = filter.until_ms.unwrap_or(u64::MAX);
        let mut search = Search {
            shared: self,
            filter,
            after,
            from_ms,
            until_ms,
            limit: limit.clamp(1, PAGE_ENTRIES_MAX),
            matches: BTreeMap::new(),
            known: Known::default(),
            bytes: 0,
            begun: Instant::now(),
        };
        let candidates = self.candidates(filter, from_ms, until_ms);
        let mut frontier = None;
        for (position, candidate) in candidates.iter().enumerate() {
            // They are in order of that.
            let later_ms = candidates
                .get(position + 1)
                .map_or(u64::MAX, |later| later.min_ms);
            frontier = search.visit(candidate, later_ms)?;
            if frontier.is_some() {
                break;
            }
        }
        Ok(search.page(frontier))
    }
}

struct Search<'a> {
    shared: &'a Shared,
    filter: &'a Filter,
    after: Option<EntryId>,
    from_ms: u64,
    until_ms: u64,
    limit: usize,
    /// The smallest so far, one more than asked for.
    matches: BTreeMap<EntryId, Found>,
    known: Known,
    bytes: usize,
    begun: Instant,
}

impl Search<'_> {
    /// Looks through a segment. `Some`: it broke off, and what was accepted at or after that time has not all been
    /// seen; `later_ms` is when the segments after it begin.
    fn visit(&mut self, candidate: &Candidate, later_ms: u64) -> io::Result<Option<u64>> {
        if self.is_beyond(candidate.min_ms) {
            return Ok(None);
        }
        let Some(opened) = self.shared.open_for_search(candidate.seq)? else {
            return Ok(None);
        };
        let mut places: Vec<(LaneId, Place)> = Vec::new();
        for (number, lane, _) in &candidate.lanes {
            let fits =
                |place: &&Place| place.min_ms < self.until_ms && place.max_ms >= self.from_ms;
            let of_lane = opened.index.lane(*number).iter().filter(fits);
            places.extend(of_lane.map(|place| (*lane, *place)));
        }
        places.sort_by_key(|(_, place)| place.min_ms);
        for (lane, place) in places {
            if self.is_beyond(place.min_ms) {
                break;
            }
            // Not before the next call would begin later than this one.
            let frontier = place.min_ms.min(later_ms);
            if frontier > self.from_ms + 1 && self.is_tired() {
                return Ok(Some(frontier));
            }
            self.bytes += place.head_bytes as usize;
            if let Some(rows) = self.shared.rows(candidate.seq, &opened, &place)? {
                self.pick(candidate.seq, lane, &rows)?;
            }
        }
        Ok(None)
    }

    fn is_tired(&self) -> bool {
        self.bytes >= FIND_BYTES || self.begun.elapsed() >= FIND_TIME
    }

    /// Whether there are enough matches before a time.
    fn is_beyond(&self, ms: u64) -> bool {
        self.matches.len() > self.limit
            && self
                .matches
                .last_key_value()
                .is_some_and(|(last, _)| *last < first_id(ms))
    }

    fn pick(&mut self, seq: u64, lane: LaneId, rows: &[Row]) -> io::Result<()> {
        for row in rows {
            let ms = row.id.accepted_ms();
            let key = self.filter.key.as_ref();
            let fits = self.after.is_none_or(|after| row.id > after)
                && ms >= self.from_ms
                && ms < self.until_ms
                && key.is_none_or(|key| *key == row.key);
            let full = self.matches.len() > self.limit;
            let last = self.matches.last_key_value().map(|(last, _)| *last);
            if !fits || full && last.is_some_and(|last| last < row.id) {
                continue;
            }
            let Some(found) = self.shared.describe(seq, lane, row, &mut self.known)? else {
                return Ok(());
            };
            let state = match &found.verdict {
                None => State::Waiting,
                Some(verdict) => State::Settled(verdict.outcome),
            };
            if self.filter.state.is_some_and(|wanted| wanted != state) {
                continue;
            }
            self.matches.insert(found.id, found);
            if self.matches.len() > self.limit + 1 {
                self.matches.pop_last();
            }
        }
        Ok(())
    }

    /// `frontier`: what was accepted then or later has not all been seen.
    fn page(mut self, frontier: Option<u64>) -> Page {
        let mut next = None;
        if let Some(frontier) = frontier {
            let unsure = self.matches.split_off(&first_id(frontier));
            drop(unsure);
            next = Some(EntryId(first_id(frontier).0.saturating_sub(1)));
        }
        let more = self.matches.len() > self.limit;
        let found: Vec<Found> = self.matches.into_values().take(self.limit).collect();
        if more {
            next = found.last().map(|last| last.id);
        }
        Page { found, next }
    }
}

/// Verdicts of the segment that was asked about last, and how much of its file was read for that.
#[derive(Default)]
struct Known(Option<(u64, u64, Verdicts)>);

impl Known {
    fn verdict(
        &mut self,
        shared: &Shared,
        seq: u64,
        ordinal: u32,
        parked: bool,
    ) -> io::Result<Verdict> {
        let path = shared.layout.path(seq, Kind::Verdicts);
        if self.0.as_ref().is_none_or(|(of, ..)| *of != seq) {
            self.0 = Some(read_verdicts(seq, &path)?);
        }
        let known = |this: &Self| this.0.as_ref().and_then(|(.., known)| known.get(ordinal));
        if let Some(verdict) = known(self) {
            return Ok(verdict);
        }
        // Settled since the file was read?
        let length = path.metadata().map_or(0, |metadata| metadata.len());
        if self.0.as_ref().is_some_and(|(_, read, _)| *read != length) {
            self.0 = Some(read_verdicts(seq, &path)?);
        }
        // Else the count survived a crash that what was counted did not.
        let outcome = if parked {
            Outcome::Parked
        } else {
            Outcome::Delivered
        };
        Ok(known(self).unwrap_or_else(|| lost(outcome)))
    }
}

fn read_verdicts(seq: u64, path: &Path) -> io::Result<(u64, u64, Verdicts)> {
    let mut verdicts = Verdicts::default();
    let mut length = 0;
    match File::open(path) {
        Ok(file) => {
            length = file.metadata()?.len();
            let from = verdicts::HEADER_BYTES as u64;
            verdicts::read(&file, from, |record| verdicts.add(&record))?;
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok((seq, length, verdicts))
}
