//! Claims and loads: entries of held partitions, with their requests.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{join_all, try_join};

use super::block::Block;
use super::follower::advance;
use super::keys::{Place, beside};
use super::limits::FETCH_BLOCKS;
use super::records::States;
use super::shared::{Cached, Held, Part, Shared, number};
use crate::store::queue::{ClaimLimits, Claimed, Lane, QueueError, Token};
use crate::store::redis::cluster::Again;
use crate::store::redis::reply::Reply;

/// What stands between a claim and its end.
enum Step {
    Done,
    Fetch(Vec<u64>),
    /// Nothing is known to wait; whether everything is known.
    Nothing {
        is_known: bool,
    },
}

pub(super) async fn claim(
    shared: &Shared,
    lane: &Lane,
    limits: ClaimLimits,
) -> Result<Vec<Claimed>, QueueError> {
    let mut claiming = Claiming {
        lane,
        limits,
        bytes: 0,
        claimed: Vec::new(),
    };
    let Some(part) = shared.part(lane.partition) else {
        return Ok(Vec::new());
    };
    let mut has_advanced = false;
    loop {
        let step = claiming.step(shared, part);
        match step {
            Step::Fetch(numbers) if claiming.claimed.is_empty() => {
                fetch(shared, lane.partition, &numbers).await?;
            }
            Step::Nothing { is_known: false } if claiming.claimed.is_empty() && !has_advanced => {
                has_advanced = true;
                advance(shared, lane.partition).await?;
            }
            // What is claimed must reach the caller: it is not handed out again.
            Step::Done | Step::Fetch(_) | Step::Nothing { .. } => return Ok(claiming.claimed),
        }
    }
}

struct Claiming<'a> {
    lane: &'a Lane,
    limits: ClaimLimits,
    bytes: usize,
    claimed: Vec<Claimed>,
}

impl Claiming<'_> {
    fn step(&mut self, shared: &Shared, part: &Part) -> Step {
        match part.held.lock().as_mut() {
            Some(held) if held.is_sure() && held.leaving.is_none() && !shared.is_closed() => {
                self.take_cached(shared, held)
            }
            Some(_) | None => Step::Done,
        }
    }

    fn take_cached(&mut self, shared: &Shared, held: &mut Held) -> Step {
        let partition = self.lane.partition;
        loop {
            if self.claimed.len() >= self.limits.entries {
                return Step::Done;
            }
            let numbers = held.index.next_blocks(self.lane, FETCH_BLOCKS);
            let Some(first) = numbers.first().copied() else {
                let is_known = held.index.tail() >= held.next;
                return Step::Nothing { is_known };
            };
            let cached = shared.cache.lock().get(partition, first);
            let Some((block, states)) = cached else {
                let cache = shared.cache.lock();
                let missing = numbers.into_iter();
                return Step::Fetch(
                    missing
                        .filter(|number| cache.get(partition, *number).is_none())
                        .collect(),
                );
            };
            if !self.take_from(held, first, &block, &states) {
                return Step::Done;
            }
        }
    }

    /// `false`: the limits are reached.
    fn take_from(&mut self, held: &mut Held, number: u64, block: &Block, states: &States) -> bool {
        let mut is_over = false;
        let (limits, before) = (self.limits, self.claimed.len());
        let (mut entries, mut bytes) = (before, self.bytes);
        let indexes = held.index.claim(number, block, states, |index| {
            let size = block.rows[index].request_bytes as usize;
            let fits = entries < limits.entries
                && (entries == 0 || bytes.saturating_add(size) <= limits.bytes);
            is_over |= !fits;
            if fits {
                entries += 1;
                bytes += size;
            }
            fits
        });
        self.bytes = bytes;
        if indexes.is_empty() && !is_over && held.index.is_block(number, block.head.mark[0]) {
            // Another block under the number of one that was known: what is known is out of date.
            let is_stale = held.index.next_blocks(self.lane, 1).first() == Some(&number);
            if is_stale {
                held.suspicious = true;
                held.index.forget(number);
            }
        }
        for index in indexes {
            let at = usize::from(index);
            let row = &block.rows[at];
            let mark = block.head.mark;
            let place = Place::new(self.lane.partition, mark, held.generation, number, index);
            self.claimed.push(Claimed {
                id: row.id,
                token: place.token(),
                key: block.key(&row.key),
                barrier: block.key(&row.barrier),
                cost: row.cost,
                attempts: states.attempts(at),
                request: block.request(at).unwrap_or_default(),
            });
        }
        !is_over
    }
}

/// Requests of claimed entries.
pub(super) async fn load(
    shared: &Shared,
    tokens: &[Token],
) -> Result<Vec<Option<Bytes>>, QueueError> {
    let mut requests = Vec::with_capacity(tokens.len());
    for token in tokens {
        requests.push(load_one(shared, *token).await?);
    }
    Ok(requests)
}

async fn load_one(shared: &Shared, token: Token) -> Result<Option<Bytes>, QueueError> {
    let Some(place) = Place::of(token) else {
        return Ok(None);
    };
    let is_claimed =
        || shared.with_place(place, |held| held.index.settling(place.number, place.index));
    if is_claimed().is_none() {
        return Ok(None);
    }
    let (partition, index) = (place.partition, usize::from(place.index));
    let cached = shared.cache.lock().get(partition, place.number);
    let (block, states) = match cached {
        Some(cached) => cached,
        None => {
            let mut fetched = fetch(shared, partition, &[place.number]).await?;
            match fetched.pop() {
                Some(fetched) if is_claimed().is_some() => fetched,
                Some(_) | None => return Ok(None),
            }
        }
    };
    let is_other = block.head.mark[0] != place.mark;
    if is_other || states.outcomes.get(index).copied().flatten().is_some() {
        return Ok(None);
    }
    Ok(block.request(index))
}

/// Reads blocks into the cache. One that is not there any more is forgotten.
async fn fetch(
    shared: &Shared,
    partition: u16,
    numbers: &[u64],
) -> Result<Vec<Cached>, QueueError> {
    let keys = &shared.keys[usize::from(partition)];
    let hash = |key: &Bytes| {
        let mut args = vec![key.clone()];
        args.extend(numbers.iter().map(number));
        shared
            .cluster
            .command(keys.slot, "HMGET", args, Again::Safe)
    };
    let (blocks, states) = try_join(hash(&keys.blocks), hash(&keys.states)).await?;
    let mut fetched = Vec::new();
    for ((number, block), state) in numbers.iter().zip(blocks.list()).zip(states.list()) {
        let parsed = block
            .bytes()
            .and_then(|block| Block::parse(block, partition));
        let Some(mut block) = parsed else {
            let part = &shared.parts[usize::from(partition)];
            if let Some(held) = part.held.lock().as_mut() {
                tracing::error!(partition, block = number, "a block of the queue is lost");
                held.index.forget(*number);
            }
            continue;
        };
        fill(shared, partition, &mut block).await?;
        let state = state.bytes().cloned().unwrap_or_default();
        let states = States::parse(&state, block.head.mark, block.head.count);
        let cached = (Arc::new(block), Arc::new(states));
        shared.cache.lock().put(partition, *number, cached.clone());
        fetched.push(cached);
    }
    Ok(fetched)
}

/// Reads what is kept beside a block.
pub(super) async fn fill(
    shared: &Shared,
    partition: u16,
    block: &mut Block,
) -> Result<(), QueueError> {
    let slot = shared.keys[usize::from(partition)].slot;
    let gets = block.missing().into_iter().map(|(index, id)| async move {
        let key = beside(&shared.partitions, partition, id);
        let request = shared
            .cluster
            .command(slot, "GET", vec![key], Again::Safe)
            .await?;
        Ok::<_, QueueError>((index, id, request))
    });
    for got in join_all(gets).await {
        let (index, id, request) = got?;
        let is_there = request
            .bytes()
            .is_some_and(|request| block.set_request(index, request));
        if !is_there && request != Reply::Nil {
            tracing::error!(%id, "a request of the queue cannot be read");
        }
    }
    Ok(())
}
