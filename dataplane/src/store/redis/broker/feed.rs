//! What one subscribed channel has been handed, and what is to be done with what comes next. Pure.
//!
//! Every message comes twice, once from each server that carries the channel, so second copies are told by offset and
//! id; without a position by publisher and serial. The offsets of what is delivered follow each other; whenever that
//! cannot be kept up, or the stream turns out to have another history than what was delivered, the feed is *healed*:
//! live messages wait, the stream is read from the last position on, and what cannot be had is told as lost.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::frame::{At, Id};
use crate::relay::channel::Channel;
use crate::store::redis::limits::{HELD_BYTES, HELD_MESSAGES, PUBLISHERS_KNOWN, RECENT_IDS};

/// Copies too old to be known by their id make a feed doubt its history no more often than this.
const DOUBT_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Feed {
    pub(super) channel: Channel,
    /// Tells this subscription from an earlier one of the same channel.
    pub(super) number: u64,
    last: Option<Box<Last>>,
    /// The last serial of each publisher, of messages without position; the latest last.
    publishers: Vec<(u64, u64)>,
    healing: Option<Box<Healing>>,
    /// Something may have been missed before it was known where the stream stands.
    was_interrupted: bool,
}

/// The position that the next publication has to follow.
struct Last {
    offset: u64,
    epoch: Arc<str>,
    /// Ids of the publications up to `offset`, the latest at the back.
    ids: VecDeque<Id>,
    /// It was read, not delivered: publications up to it may still come, and be new to somebody.
    is_read: bool,
    doubted_at: Option<Instant>,
}

#[derive(Default)]
struct Healing {
    held: VecDeque<Bytes>,
    held_bytes: usize,
    has_overflowed: bool,
    /// Something says that the stream's history may not be what was delivered.
    is_strict: bool,
}

/// Why a feed is healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// Something was missed.
    Gap,
    /// The stream may have lost what was delivered.
    Doubt,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Deliver,
    Drop,
    /// It waits for the end of the healing.
    Hold,
    /// Begin to heal. If the stream has it, it is among what is read then; so it does not wait.
    Heal(Cause),
}

/// A part of a stream, read from the last position on, that position's own publication included.
#[derive(Debug, Clone, Default)]
pub(super) struct Part {
    pub(super) epoch: Arc<str>,
    pub(super) top: u64,
    pub(super) top_id: Option<Id>,
    pub(super) entries: Vec<(u64, Bytes)>,
    /// There may be more.
    pub(super) is_full: bool,
}

/// What a part of a stream came to.
#[derive(Debug, PartialEq)]
pub(super) enum Healed {
    /// To be delivered in order, after telling the loss if there is one.
    Missed {
        entries: Vec<(u64, Bytes)>,
        lost: bool,
    },
    /// What was delivered is no longer what the stream holds: its epoch is void.
    Diverged(Arc<str>),
}

impl Feed {
    pub(super) fn new(channel: Channel, number: u64) -> Self {
        Self {
            channel,
            number,
            last: None,
            publishers: Vec::new(),
            healing: None,
            was_interrupted: false,
        }
    }

    /// Where a publication without position stands.
    pub(super) fn is_new(&mut self, id: Id) -> bool {
        let known = self
            .publishers
            .iter()
            .position(|(of, _)| *of == id.publisher);
        if let Some(index) = known {
            if id.serial <= self.publishers[index].1 {
                return false;
            }
            self.publishers.remove(index);
        } else if self.publishers.len() >= PUBLISHERS_KNOWN {
            self.publishers.remove(0);
        }
        self.publishers.push((id.publisher, id.serial));
        true
    }

    /// Where a publication of the stream stands. What is to be delivered counts as delivered.
    pub(super) fn judge(&mut self, at: At<'_>, id: Id, now: Instant) -> Verdict {
        if self.healing.is_some() {
            return Verdict::Hold;
        }
        let Some(last) = &mut self.last else {
            self.last = Some(Box::new(Last::new(at.offset, at.epoch.into(), Some(id))));
            return Verdict::Deliver;
        };
        if at.epoch != &*last.epoch {
            return Verdict::Heal(Cause::Doubt);
        }
        let next = last.offset.saturating_add(1);
        if last.is_read && at.offset <= next {
            **last = Last::new(at.offset, last.epoch.clone(), Some(id));
            return Verdict::Deliver;
        }
        if at.offset == next {
            last.advance(at.offset, Some(id));
            return Verdict::Deliver;
        }
        if at.offset > next {
            return Verdict::Heal(Cause::Gap);
        }
        match last.id_of(at.offset) {
            Some(known) if known == id => Verdict::Drop,
            Some(_) => Verdict::Heal(Cause::Doubt),
            None => {
                let is_due = |at: Instant| now.duration_since(at) >= DOUBT_INTERVAL;
                if last.doubted_at.is_none_or(is_due) {
                    last.doubted_at = Some(now);
                    Verdict::Heal(Cause::Doubt)
                } else {
                    Verdict::Drop
                }
            }
        }
    }

    /// Somebody read the stream's top: if nothing is known of the stream yet, what follows has to follow that. Returns
    /// whether the feed should be healed.
    pub(super) fn note_top(&mut self, offset: u64, epoch: &Arc<str>, id: Option<Id>) -> bool {
        if self.last.is_some() {
            return false;
        }
        let mut last = Last::new(offset, epoch.clone(), id);
        last.is_read = true;
        self.last = Some(Box::new(last));
        std::mem::take(&mut self.was_interrupted)
    }

    /// Whether the stream's top is where the feed is.
    pub(super) fn is_at(&self, epoch: &str, offset: u64, id: Option<Id>) -> bool {
        let Some(last) = &self.last else {
            return true;
        };
        let known = last.ids.back().copied();
        let same_id = known.is_none() || id.is_none() || known == id;
        &*last.epoch == epoch && last.offset == offset && same_id
    }

    pub(super) fn is_healing(&self) -> bool {
        self.healing.is_some()
    }

    /// The epoch of what is delivered.
    pub(super) fn epoch(&self) -> Arc<str> {
        self.last
            .as_ref()
            .map_or_else(Arc::default, |last| last.epoch.clone())
    }

    /// From which offset on the stream is to be read; `None`: no stream is followed.
    pub(super) fn offset(&self) -> Option<u64> {
        self.last.as_ref().map(|last| last.offset)
    }

    /// Makes live messages wait. Returns whether a healing has to be started: not without a position, and not twice.
    pub(super) fn begin_healing(&mut self, cause: Cause) -> bool {
        if self.last.is_none() {
            self.was_interrupted = true;
            return false;
        }
        let starts = self.healing.is_none();
        let healing = self.healing.get_or_insert_default();
        healing.is_strict |= cause == Cause::Doubt;
        starts
    }

    pub(super) fn hold(&mut self, message: &[u8]) {
        let Some(healing) = &mut self.healing else {
            return;
        };
        let bytes = healing.held_bytes + message.len();
        if healing.has_overflowed || healing.held.len() >= HELD_MESSAGES || bytes > HELD_BYTES {
            healing.held = VecDeque::new();
            healing.held_bytes = 0;
            healing.has_overflowed = true;
            return;
        }
        healing.held_bytes = bytes;
        healing.held.push_back(Bytes::copy_from_slice(message));
    }

    /// Compares a part of the stream with what was delivered. What is to be delivered counts as delivered.
    pub(super) fn compare(&mut self, part: Part, id_of: impl Fn(&[u8]) -> Option<Id>) -> Healed {
        let is_strict = self
            .healing
            .as_ref()
            .is_some_and(|healing| healing.is_strict);
        let nothing = Healed::Missed {
            entries: Vec::new(),
            lost: false,
        };
        let Some(last) = &mut self.last else {
            return nothing;
        };
        if part.epoch != last.epoch {
            self.restart(part.epoch, part.top, part.top_id);
            return Healed::Missed {
                entries: Vec::new(),
                lost: true,
            };
        }
        let mut entries = part.entries;
        let own = match entries.first() {
            Some((offset, frame)) if *offset == last.offset => id_of(frame),
            _ if part.top == last.offset => part.top_id,
            _ => None,
        };
        let known = last.ids.back().copied();
        let is_other = known.is_some() && own.is_some() && known != own;
        if part.top < last.offset || is_other {
            return Healed::Diverged(last.epoch.clone());
        }
        entries.retain(|(offset, _)| *offset > last.offset);
        // Without the publication itself there is no telling whether it is the one that was delivered.
        let mut lost = is_strict && known.is_some() && own.is_none() && last.offset > 0;
        for (offset, frame) in &entries {
            lost |= *offset != last.offset + 1;
            last.advance(*offset, id_of(frame));
        }
        if !part.is_full && last.offset < part.top {
            lost = true;
            **last = Last::new(part.top, part.epoch, part.top_id);
        }
        Healed::Missed { entries, lost }
    }

    /// The stream goes on from here, whatever was before.
    pub(super) fn restart(&mut self, epoch: Arc<str>, offset: u64, id: Option<Id>) {
        self.last = Some(Box::new(Last::new(offset, epoch, id)));
        if let Some(healing) = &mut self.healing {
            healing.is_strict = false;
        }
    }

    /// Ends the healing, unless more came than could be held. What waited is to be judged now.
    pub(super) fn end_healing(&mut self) -> Option<VecDeque<Bytes>> {
        let healing = self.healing.as_mut()?;
        if std::mem::take(&mut healing.has_overflowed) {
            healing.is_strict = false;
            return None;
        }
        let held = self.healing.take().map(|healing| healing.held);
        Some(held.unwrap_or_default())
    }
}

impl Last {
    fn new(offset: u64, epoch: Arc<str>, id: Option<Id>) -> Self {
        Self {
            offset,
            epoch,
            ids: id.into_iter().collect(),
            is_read: false,
            doubted_at: None,
        }
    }

    fn advance(&mut self, offset: u64, id: Option<Id>) {
        self.is_read = false;
        match id {
            Some(id) if offset == self.offset + 1 => {
                if self.ids.len() >= RECENT_IDS {
                    self.ids.pop_front();
                }
                self.ids.push_back(id);
            }
            _ => self.ids = id.into_iter().collect(),
        }
        self.offset = offset;
    }

    fn id_of(&self, offset: u64) -> Option<Id> {
        let back = usize::try_from(self.offset.checked_sub(offset)?).ok()?;
        let index = self.ids.len().checked_sub(back + 1)?;
        self.ids.get(index).copied()
    }
}

#[cfg(test)]
mod tests;
