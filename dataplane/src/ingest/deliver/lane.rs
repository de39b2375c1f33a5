//! The window of one lane: entries that were claimed and not settled yet, in order per key.
//!
//! Of a key only the first entry may be sent; the next one follows when the first one's verdict is recorded, so that a
//! crash never repeats an entry after its successor. An entry that failed stays the first of its key while other keys
//! go on. An entry with a barrier is in the line of both its keys, a fence in the line of all. What waits behind others
//! can be a stub without its request, so that a blocked key's backlog takes little memory and the lane can look past
//! it. Owns the state of each entry and the requests held; decides nothing about rates and knows no upstream but by
//! number.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use slab::Slab;
use std::time::Instant;

use super::hold::{Held, Hold};
use crate::ingest::entry::EVERY_KEY;
use crate::store::queue::{Claimed, EntryId, Token};

/// Names an entry of a window; later claimed ones are greater.
pub(super) type Seq = u64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Behind another entry of one of its keys.
    Blocked,
    Ready,
    /// Failed; first of its keys all the same.
    Backoff(Instant),
    InFlight,
    /// Its verdict is being recorded.
    Settling,
}

#[derive(Debug)]
struct Entry {
    id: EntryId,
    token: Token,
    /// Lines it stands in; without any it has no order.
    lines: [Option<usize>; 2],
    cost: u32,
    attempts: u32,
    /// In a row, whoever's fault it was; decides how long to back off.
    failures: u32,
    request_bytes: usize,
    request: Option<Bytes>,
    state: State,
}

#[derive(Debug)]
struct Line {
    key: Bytes,
    entries: VecDeque<Seq>,
}

/// What may be sent next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) seq: Seq,
    pub(super) cost: u32,
    pub(super) has_request: bool,
}

/// An entry as it goes out.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Sending {
    pub(super) id: EntryId,
    pub(super) token: Token,
    pub(super) cost: u32,
    pub(super) attempts: u32,
    pub(super) failures: u32,
    pub(super) request: Bytes,
}

#[derive(Debug, Default)]
pub(super) struct Window {
    ordered: bool,
    entries: BTreeMap<Seq, Entry>,
    /// Entries that are ordered with all others, earlier and later.
    fences: BTreeSet<Seq>,
    lines: Slab<Line>,
    line_of: HashMap<Bytes, usize, RandomState>,
    /// Oldest first, so that an entry that failed goes before later ones once its time has come.
    ready: BTreeSet<Seq>,
    backoff: BTreeSet<(Instant, Seq)>,
    last_seq: Seq,
    in_flight: usize,
    settling: usize,
    held_bytes: usize,
}

impl Window {
    pub(super) fn new(ordered: bool) -> Self {
        Self {
            ordered,
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn ready_len(&self) -> usize {
        self.ready.len()
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Entries whose verdict is under way to the store: they may count as waiting there or not.
    pub(super) fn settling(&self) -> usize {
        self.settling
    }

    /// Of requests held, those in flight included.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Without order, what waited for others is free at once. With it, only what comes from now on stands in line.
    pub(super) fn set_ordered(&mut self, ordered: bool) {
        if self.ordered && !ordered {
            self.lines.clear();
            self.line_of.clear();
            self.fences.clear();
            for (seq, entry) in &mut self.entries {
                entry.lines = [None; 2];
                if entry.state == State::Blocked {
                    entry.state = State::Ready;
                    self.ready.insert(*seq);
                }
            }
        }
        self.ordered = ordered;
    }

    /// Takes a claimed entry; its request is kept within the given bytes for the window, or when it is the next to go.
    pub(super) fn push(&mut self, claimed: Claimed, held_bytes_max: usize) {
        self.last_seq += 1;
        let seq = self.last_seq;
        let first = self.line(seq, &claimed.key);
        let second = if claimed.barrier == claimed.key {
            None
        } else {
            self.line(seq, &claimed.barrier)
        };
        if self.ordered && (claimed.key == EVERY_KEY || claimed.barrier == EVERY_KEY) {
            self.fences.insert(seq);
        }
        let request_bytes = claimed.request.len();
        let fits = self.held_bytes + request_bytes <= held_bytes_max;
        let lines = [first, second];
        let is_ready = self.is_first(seq, lines);
        let next_to_go = is_ready && self.ready.is_empty();
        let request = (fits || next_to_go).then_some(claimed.request);
        if request.is_some() {
            self.held_bytes += request_bytes;
        }
        let entry = Entry {
            id: claimed.id,
            token: claimed.token,
            lines,
            cost: claimed.cost.max(1),
            attempts: claimed.attempts,
            failures: 0,
            request_bytes,
            request,
            state: State::Blocked,
        };
        self.entries.insert(seq, entry);
        if is_ready {
            self.unblock(seq);
        }
    }

    /// Stands in the line of a key.
    fn line(&mut self, seq: Seq, key: &Bytes) -> Option<usize> {
        if !self.ordered || key.is_empty() || key == EVERY_KEY {
            return None;
        }
        let line = match self.line_of.get(key) {
            Some(line) => *line,
            None => {
                // A copy, because the key may be a part of a larger buffer that need not stay.
                let key = Bytes::copy_from_slice(key);
                let line = self.lines.insert(Line {
                    key: key.clone(),
                    entries: VecDeque::new(),
                });
                self.line_of.insert(key, line);
                line
            }
        };
        self.lines[line].entries.push_back(seq);
        Some(line)
    }

    fn is_first(&self, seq: Seq, lines: [Option<usize>; 2]) -> bool {
        let passes_fences = match self.fences.first() {
            Some(fence) if *fence == seq => {
                let oldest = self.entries.first_key_value();
                oldest.is_none_or(|(oldest, _)| *oldest >= seq)
            }
            Some(fence) => *fence > seq,
            None => true,
        };
        let mut lines = lines.into_iter().flatten();
        passes_fences && lines.all(|line| self.lines[line].entries.front() == Some(&seq))
    }

    /// Makes an entry ready if nothing is before it any more.
    fn unblock(&mut self, seq: Seq) {
        let Some(lines) = self.entries.get(&seq).map(|entry| entry.lines) else {
            return;
        };
        if self.is_first(seq, lines)
            && let Some(entry) = self.entries.get_mut(&seq)
            && entry.state == State::Blocked
        {
            entry.state = State::Ready;
            self.ready.insert(seq);
        }
    }

    /// What may go now. Entries whose time to try again has come are ready from here on.
    pub(super) fn head(&mut self, now: Instant) -> Option<Head> {
        while let Some((due, seq)) = self.backoff.first().copied()
            && due <= now
        {
            self.backoff.pop_first();
            if let Some(entry) = self.entries.get_mut(&seq) {
                entry.state = State::Ready;
                self.ready.insert(seq);
            }
        }
        let seq = *self.ready.first()?;
        let entry = self.entries.get(&seq)?;
        Some(Head {
            seq,
            cost: entry.cost,
            has_request: entry.request.is_some(),
        })
    }

    /// The key of an entry, for what is remembered of it; `None`: it has no order.
    pub(super) fn key(&self, seq: Seq) -> Option<&Bytes> {
        let line = self.entries.get(&seq)?.lines[0]?;
        Some(&self.lines[line].key)
    }

    /// A ready entry with its request goes out.
    pub(super) fn send(&mut self, seq: Seq) -> Option<Sending> {
        let entry = self.entries.get_mut(&seq)?;
        if entry.state != State::Ready {
            return None;
        }
        let request = entry.request.clone()?;
        self.ready.remove(&seq);
        entry.state = State::InFlight;
        self.in_flight += 1;
        Some(Sending {
            id: entry.id,
            token: entry.token,
            cost: entry.cost,
            attempts: entry.attempts,
            failures: entry.failures,
            request,
        })
    }

    /// An entry that was sent has its verdict, which is yet to be recorded.
    pub(super) fn settle(&mut self, seq: Seq) {
        if let Some(entry) = self.entries.get_mut(&seq)
            && entry.state == State::InFlight
        {
            self.in_flight -= 1;
            self.settling += 1;
            entry.state = State::Settling;
            if entry.request.take().is_some() {
                self.held_bytes -= entry.request_bytes;
            }
        }
    }

    /// An entry that was sent is to be sent again. Its request is read again then, which shows whether an operator
    /// has dismissed it meanwhile.
    pub(super) fn retry(&mut self, seq: Seq, at: Instant, attempts: u32) {
        if let Some(entry) = self.entries.get_mut(&seq)
            && entry.state == State::InFlight
        {
            self.in_flight -= 1;
            entry.state = State::Backoff(at);
            entry.attempts = attempts;
            entry.failures = entry.failures.saturating_add(1);
            if entry.request.take().is_some() {
                self.held_bytes -= entry.request_bytes;
            }
            self.backoff.insert((at, seq));
        }
    }

    /// An entry is no longer the lane's: its verdict is recorded, or somebody else settled it.
    pub(super) fn remove(&mut self, seq: Seq) {
        let Some(entry) = self.entries.remove(&seq) else {
            return;
        };
        match entry.state {
            State::Blocked => {}
            State::Ready => {
                self.ready.remove(&seq);
            }
            State::Backoff(at) => {
                self.backoff.remove(&(at, seq));
            }
            State::InFlight => self.in_flight -= 1,
            State::Settling => self.settling -= 1,
        }
        if entry.request.is_some() {
            self.held_bytes -= entry.request_bytes;
        }
        let was_fence = self.fences.remove(&seq);
        for line in entry.lines.into_iter().flatten() {
            self.leave_line(line, seq);
        }
        let next_fence = self.fences.first().copied();
        if was_fence {
            let end = next_fence.unwrap_or(Seq::MAX);
            let behind: Vec<Seq> = self.entries.range(seq..end).map(|(seq, _)| *seq).collect();
            for seq in behind {
                self.unblock(seq);
            }
        }
        if let Some(fence) = next_fence {
            self.unblock(fence);
        }
    }

    fn leave_line(&mut self, line: usize, seq: Seq) {
        let waiting = &mut self.lines[line].entries;
        // Whoever leaves is the first, but for entries that vanish while they wait.
        match waiting.front() {
            Some(first) if *first == seq => {
                waiting.pop_front();
            }
            _ => waiting.retain(|other| *other != seq),
        }
        let Some(next) = waiting.front().copied() else {
            let line = self.lines.remove(line);
            self.line_of.remove(&line.key);
            return;
        };
        self.unblock(next);
    }

    /// Ready entries whose request is not here, in order, up to the given bytes but at least one.
    pub(super) fn missing(&self, entries_max: usize, bytes_max: usize) -> Vec<(Seq, Token)> {
        let mut bytes = 0;
        let mut missing = Vec::new();
        for seq in &self.ready {
            let Some(entry) = self.entries.get(seq) else {
                continue;
            };
            if entry.request.is_some() {
                continue;
            }
            bytes += entry.request_bytes;
            if missing.len() == entries_max || (bytes > bytes_max && !missing.is_empty()) {
                break;
            }
            missing.push((*seq, entry.token));
        }
        missing
    }

    /// How much [`Window::missing`] would read for these.
    pub(super) fn request_bytes(&self, seqs: impl IntoIterator<Item = Seq>) -> usize {
        seqs.into_iter()
            .filter_map(|seq| self.entries.get(&seq))
            .map(|entry| entry.request_bytes)
            .sum()
    }

    /// A request that was read again; `None`: somebody else settled the entry.
    pub(super) fn loaded(&mut self, seq: Seq, request: Option<Bytes>) {
        let Some(request) = request else {
            self.remove(seq);
            return;
        };
        if let Some(entry) = self.entries.get_mut(&seq)
            && entry.request.is_none()
            && matches!(
                entry.state,
                State::Blocked | State::Ready | State::Backoff(_)
            )
        {
            entry.request_bytes = request.len();
            entry.request = Some(request);
            self.held_bytes += entry.request_bytes;
        }
    }

    /// Forgets the requests of entries that are not in flight: they are read again when their turn comes.
    pub(super) fn forget_requests(&mut self) {
        for entry in self.entries.values_mut() {
            let idle = matches!(
                entry.state,
                State::Blocked | State::Ready | State::Backoff(_)
            );
            if idle && entry.request.take().is_some() {
                self.held_bytes -= entry.request_bytes;
            }
        }
    }

    /// When an entry that failed is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.backoff.first().map(|(due, _)| *due)
    }

    /// Why there is no head, when something waits that is not under way.
    pub(super) fn why_none(&self) -> Option<Held> {
        if let Some(due) = self.next_due() {
            return Some(Held {
                why: Hold::Backoff,
                until: Some(due),
            });
        }
        let under_way = self.in_flight + self.settling;
        (self.entries.len() > under_way).then_some(Held {
            why: Hold::OrderBlocked,
            until: None,
        })
    }
}

#[cfg(test)]
mod tests;
