//! Searches: over all partitions, whoever holds them, directly in the store.
//!
//! Blocks of a partition are almost in the order of their times, so a search begins where the times do and ends
//! [`SKEW_MS`] after them. Its work is bounded: a page may end before it is full, and says where to go on.

use bytes::Bytes;
use futures_util::future::try_join_all;
use tokio::time::Instant;

use super::block::{Block, Head};
use super::follower::read;
use super::index::Settling;
use super::keys::Place;
use super::limits::{FIND_BYTES, FIND_TIME, HEAD_BYTES, PAGE_ENTRIES_MAX, READ_BLOCKS, SKEW_MS};
use super::reader::fill;
use super::records::States;
use super::shared::Shared;
use crate::store::queue::{EntryId, Filter, Found, Page, QueueError, State};

/// A search by halves ends when so few numbers are left.
const NEAR: u64 = 32;

/// What one partition has for a page.
struct Part {
    /// Sorted.
    found: Vec<Found>,
    /// Entries after it may be missing; `None`: none are.
    whole_until: Option<EntryId>,
}

pub(super) async fn find(
    shared: &Shared,
    filter: &Filter,
    after: Option<EntryId>,
    limit: usize,
) -> Result<Page, QueueError> {
    let limit = limit.min(PAGE_ENTRIES_MAX);
    if limit == 0 {
        return Ok(Page::default());
    }
    let parts = (0..shared.parts.len() as u16)
        .map(|partition| find_in(shared, partition, filter, after, limit));
    let parts = try_join_all(parts).await?;
    Ok(page(parts, limit))
}

/// Puts a page together. Pure.
fn page(parts: Vec<Part>, limit: usize) -> Page {
    let whole_until = parts.iter().filter_map(|part| part.whole_until).min();
    let mut found: Vec<Found> = parts.into_iter().flat_map(|part| part.found).collect();
    found.sort_by_key(|found| found.id);
    if let Some(until) = whole_until {
        found.retain(|found| found.id <= until);
    }
    let has_more = found.len() > limit;
    found.truncate(limit);
    let last = found.last().map(|found| found.id);
    let next = if has_more { last } else { whole_until };
    Page { found, next }
}

async fn find_in(
    shared: &Shared,
    partition: u16,
    filter: &Filter,
    after: Option<EntryId>,
    limit: usize,
) -> Result<Part, QueueError> {
    let began = Instant::now();
    let from_ms = filter.from_ms.unwrap_or(0);
    let from_ms = from_ms.max(after.map_or(0, EntryId::accepted_ms));
    let mut at = start(shared, partition, from_ms.saturating_sub(SKEW_MS)).await?;
    let mut part = Part {
        found: Vec::new(),
        whole_until: None,
    };
    let (mut bytes, mut latest_ms) = (0, 0);
    while let Some(from) = at {
        let stretch = read(shared, partition, Some(from), READ_BLOCKS, 0).await?;
        for stored in &stretch.blocks {
            let Some(block) = Block::parse(&stored.block, partition) else {
                continue;
            };
            latest_ms = latest_ms.max(block.head.min_ms);
            // What lies before the page is passed over each time, and must not use up what a page may take.
            if block.head.max_ms >= from_ms {
                bytes += stored.block.len() + stored.states.len();
            }
            if is_past(&part.found, filter, limit, block.head.min_ms) {
                part.found.truncate(limit + 1);
                return Ok(part);
            }
            let states = States::parse(&stored.states, block.head.mark, block.head.count);
            part.found.extend(matching(&block, &states, filter, after));
            part.found.sort_by_key(|found| found.id);
            part.found.truncate(limit + 1);
        }
        at = (stretch.looked < stretch.next).then_some(stretch.looked);
        let is_enough = bytes > FIND_BYTES / shared.parts.len() || began.elapsed() > FIND_TIME;
        if at.is_some() && is_enough && latest_ms > from_ms {
            let first = part.found.first().map(|found| found.id);
            part.whole_until = Some(progress(latest_ms, first, after));
            return Ok(part);
        }
    }
    Ok(part)
}

/// Whether nothing of the page comes at or after that time any more.
fn is_past(found: &[Found], filter: &Filter, limit: usize, min_ms: u64) -> bool {
    let earliest = min_ms.saturating_sub(SKEW_MS);
    let until = filter.until_ms.is_some_and(|until| earliest >= until);
    let full = found
        .get(limit)
        .is_some_and(|last| earliest > last.id.accepted_ms());
    until || full
}

/// How far a search that was ended early has come; `latest_ms` is after `after`. It goes on in any case, even where that
/// relies on times being in order.
fn progress(latest_ms: u64, first: Option<EntryId>, after: Option<EntryId>) -> EntryId {
    let at = |ms: u64| EntryId(u128::from(ms) << 80);
    let safe = at(latest_ms.saturating_sub(SKEW_MS));
    let shows_something = first.is_none_or(|first| first <= safe);
    if Some(safe) > after && shows_something {
        safe
    } else {
        at(latest_ms)
    }
}

fn matching(block: &Block, states: &States, filter: &Filter, after: Option<EntryId>) -> Vec<Found> {
    let other = |name: &std::sync::Arc<str>| *name != block.head.lane.application;
    if filter.application.as_ref().is_some_and(other) {
        return Vec::new();
    }
    let rows = block.rows.iter().enumerate();
    let found = rows.filter(|(index, row)| {
        let ms = row.id.accepted_ms();
        let state = states.outcomes[*index].map_or(State::Waiting, State::Settled);
        Some(row.id) > after
            && filter.key.as_ref().is_none_or(|key| *key == row.key)
            && filter.from_ms.is_none_or(|from| ms >= from)
            && filter.until_ms.is_none_or(|until| ms < until)
            && filter.state.is_none_or(|wanted| wanted == state)
    });
    found
        .map(|(index, _)| found_of(block, states, index))
        .collect()
}

fn found_of(block: &Block, states: &States, index: usize) -> Found {
    let row = &block.rows[index];
    Found {
        id: row.id,
        lane: block.head.lane.clone(),
        key: block.key(&row.key),
        barrier: block.key(&row.barrier),
        cost: row.cost,
        replay_of: row.replay_of,
        request_bytes: row.request_bytes,
        verdict: states.verdict(index),
    }
}

/// The number of the first block that is not earlier than a time; `None`: there is nothing.
async fn start(shared: &Shared, partition: u16, ms: u64) -> Result<Option<u64>, QueueError> {
    let first = probe(shared, partition, None).await?;
    if first.low >= first.next {
        return Ok(None);
    }
    let (mut low, mut high) = (first.low, first.next);
    if first.found.is_none_or(|(_, min_ms)| min_ms >= ms) {
        return Ok(Some(low));
    }
    while high - low > NEAR {
        let middle = low + (high - low) / 2;
        let probe = probe(shared, partition, Some(middle)).await?;
        match probe.found {
            Some((number, min_ms)) if number < high && min_ms < ms => low = number + 1,
            // Nothing between the middle and the end is early enough, or there is nothing there.
            Some(_) => high = middle,
            None if probe.looked < high => low = probe.looked,
            None => high = middle,
        }
    }
    Ok(Some(low))
}

struct Probe {
    low: u64,
    next: u64,
    looked: u64,
    /// The first block, and when its first entry was accepted.
    found: Option<(u64, u64)>,
}

async fn probe(shared: &Shared, partition: u16, from: Option<u64>) -> Result<Probe, QueueError> {
    let stretch = read(shared, partition, from, 1, HEAD_BYTES).await?;
    let found = stretch.blocks.first().and_then(|stored| {
        let head = Head::parse(&stored.block, partition)?;
        Some((stored.number, head.min_ms))
    });
    Ok(Probe {
        low: stretch.low,
        next: stretch.next,
        looked: stretch.looked,
        found,
    })
}

/// An entry, and where it is.
pub(super) struct Located {
    pub(super) place: Place,
    pub(super) settling: Settling,
    pub(super) found: Found,
    block: Block,
}

impl Located {
    pub(super) async fn request(mut self, shared: &Shared) -> Result<(Found, Bytes), QueueError> {
        fill(shared, self.place.partition, &mut self.block).await?;
        let request = self.block.request(usize::from(self.place.index));
        let request = request.ok_or_else(|| {
            QueueError::Unavailable("the request of the entry cannot be read".into())
        })?;
        Ok((self.found, request))
    }
}

pub(super) async fn locate(shared: &Shared, id: EntryId) -> Result<Option<Located>, QueueError> {
    let parts = (0..shared.parts.len() as u16).map(|partition| locate_in(shared, partition, id));
    let located = try_join_all(parts).await?;
    Ok(located.into_iter().flatten().next())
}

async fn locate_in(
    shared: &Shared,
    partition: u16,
    id: EntryId,
) -> Result<Option<Located>, QueueError> {
    let ms = id.accepted_ms();
    let mut at = start(shared, partition, ms.saturating_sub(SKEW_MS)).await?;
    while let Some(from) = at {
        let heads = read(shared, partition, Some(from), READ_BLOCKS, HEAD_BYTES).await?;
        for stored in &heads.blocks {
            let Some(head) = Head::parse(&stored.block, partition) else {
                continue;
            };
            if head.min_ms > ms.saturating_add(SKEW_MS) {
                return Ok(None);
            }
            if !(head.min_ms..=head.max_ms).contains(&ms) {
                continue;
            }
            if let Some(located) = look_into(shared, partition, stored.number, id).await? {
                return Ok(Some(located));
            }
        }
        at = (heads.looked < heads.next).then_some(heads.looked);
    }
    Ok(None)
}

async fn look_into(
    shared: &Shared,
    partition: u16,
    number: u64,
    id: EntryId,
) -> Result<Option<Located>, QueueError> {
    let stretch = read(shared, partition, Some(number), 1, 0).await?;
    let Some(stored) = stretch.blocks.first() else {
        return Ok(None);
    };
    let Some(block) = Block::parse(&stored.block, partition) else {
        return Ok(None);
    };
    let Some(index) = block.rows.iter().position(|row| row.id == id) else {
        return Ok(None);
    };
    let head = &block.head;
    let states = States::parse(&stored.states, head.mark, head.count);
    let settling = Settling {
        mark: head.mark,
        count: head.count,
        lane: head.lane.clone(),
        request_bytes: block.rows[index].request_bytes,
    };
    let place = Place::new(partition, head.mark, 0, stored.number, index as u16);
    Ok(Some(Located {
        place,
        settling,
        found: found_of(&block, &states, index),
        block,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_search_that_is_ended_early_gets_on() {
        let at = |ms: u64| EntryId(u128::from(ms) << 80);
        let table = [
            // latest, first found, after, expected
            (100_000, Some(at(60_000)), Some(at(50_000)), at(95_000)),
            (100_000, Some(at(98_000)), Some(at(50_000)), at(100_000)),
            (100_000, None, Some(at(50_000)), at(95_000)),
            (100_000, None, Some(at(99_000)), at(100_000)),
            (3_000, Some(at(1)), None, at(3_000)),
        ];
        for (latest_ms, first, after, expected) in table {
            assert_eq!(progress(latest_ms, first, after), expected);
            assert!(Some(expected) > after);
        }
    }
}
