//! What goes: settled blocks that are old, and the oldest settled ones when the budget is short.
//!
//! Only whole blocks go, and only from partitions that this process holds. Waiting entries never do: when nothing else
//! can go, the queue is full.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::block::{Block, Head, lane_field};
use super::follower::{Stored, read};
use super::keys::{DELETE, beside};
use super::limits::{
    DELETE_BLOCKS, HEAD_BYTES, READ_BLOCKS, TRIM_BLOCKS, reopen_bytes, short_bytes,
};
use super::records::States;
use super::shared::{Shared, lane_counts, number, unsigned};
use crate::store::queue::{Horizon, QueueError};
use crate::store::redis::cluster::Again;

/// Which settled blocks go. Pure.
enum Cut {
    /// Accepted before, by application, and by default.
    Before {
        default_ms: u64,
        by_application: BTreeMap<Arc<str>, u64>,
    },
    /// The oldest ones of so many bytes.
    Bytes(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Goes,
    Stays,
    /// And all after it do.
    Ends,
}

impl Cut {
    fn new(horizon: &Horizon, now_ms: u64) -> Self {
        let before = |time: &Duration| {
            now_ms.saturating_sub(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
        };
        Self::Before {
            default_ms: before(&horizon.default),
            by_application: horizon
                .by_application
                .iter()
                .map(|(name, time)| (Arc::clone(name), before(time)))
                .collect(),
        }
    }

    fn fate(&self, head: &Head, is_settled: bool) -> Fate {
        match self {
            Self::Bytes(0) => Fate::Ends,
            Self::Bytes(_) if is_settled => Fate::Goes,
            Self::Bytes(_) => Fate::Stays,
            Self::Before {
                default_ms,
                by_application,
            } => {
                let of_all = by_application.values().copied().chain([*default_ms]);
                let latest = of_all.max().unwrap_or(0);
                // Blocks come about in the order of their times.
                if head.min_ms >= latest.saturating_add(super::limits::SKEW_MS) {
                    return Fate::Ends;
                }
                let before = by_application.get(&head.lane.application);
                if is_settled && head.max_ms < *before.unwrap_or(default_ms) {
                    Fate::Goes
                } else {
                    Fate::Stays
                }
            }
        }
    }
}

/// A block that goes.
struct Going {
    number: u64,
    head: Head,
    bytes: u64,
}

pub(super) async fn trim(
    shared: &Shared,
    horizon: &Horizon,
    now_ms: u64,
) -> Result<(), QueueError> {
    *shared.horizon.lock() = Some(horizon.clone());
    shared
        .budget_bytes
        .store(horizon.budget_bytes, Ordering::Relaxed);
    for partition in 0..shared.parts.len() as u16 {
        let part = &shared.parts[usize::from(partition)];
        let from = part.trim_at.load(Ordering::Relaxed);
        let from = (from > 0).then_some(from);
        let cut = Cut::new(horizon, now_ms);
        let at = sweep(shared, partition, from, cut).await?;
        part.trim_at.store(at.unwrap_or(0), Ordering::Relaxed);
    }
    make_room(shared, 0).await;
    Ok(())
}

pub(super) async fn keep_within_budget(shared: &Shared) {
    make_room(shared, 0).await;
}

/// Whether so many bytes more may be stored; makes room when they are short.
pub(super) async fn has_room(shared: &Shared, bytes: u64) -> bool {
    let budget = shared.budget_bytes.load(Ordering::Relaxed);
    let needed = || shared.stored_bytes().saturating_add(bytes);
    if shared.is_full.load(Ordering::Relaxed) {
        return needed() <= reopen_bytes(budget);
    }
    if needed() > short_bytes(budget) {
        make_room(shared, bytes).await;
    }
    if needed() <= budget {
        return true;
    }
    if !shared.is_full.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            budget_bytes = budget,
            "the queue is full: requests are refused"
        );
    }
    false
}

/// Deletes the oldest settled blocks while the budget is short.
async fn make_room(shared: &Shared, bytes: u64) {
    let _one = shared.making_room.lock().await;
    let budget = shared.budget_bytes.load(Ordering::Relaxed);
    let total = shared.stored_bytes();
    let needed = total.saturating_add(bytes);
    if needed > short_bytes(budget) {
        // A little more, so that it need not be done again at once.
        let excess = needed - short_bytes(budget) + budget / 32;
        for partition in 0..shared.parts.len() as u16 {
            let part = &shared.parts[usize::from(partition)];
            let own = u128::from(part.bytes.load(Ordering::Relaxed));
            let share = u128::from(excess) * own / u128::from(total.max(1));
            if share == 0 || part.held.lock().is_none() {
                continue;
            }
            let cut = Cut::Bytes(share as u64);
            if let Err(failure) = sweep(shared, partition, None, cut).await {
                tracing::warn!(partition, %failure, "no room can be made in the queue");
            }
        }
    }
    let is_below = shared.stored_bytes() <= reopen_bytes(budget);
    if is_below && shared.is_full.swap(false, Ordering::Relaxed) {
        tracing::info!("the queue takes requests again");
    }
}

/// Looks at blocks from a number on, and deletes those that go. Where to go on; `None`: everything was looked at.
async fn sweep(
    shared: &Shared,
    partition: u16,
    from: Option<u64>,
    mut cut: Cut,
) -> Result<Option<u64>, QueueError> {
    let part = &shared.parts[usize::from(partition)];
    let mut at = from;
    let mut seen = 0;
    // The lowest block that stays, once that is known.
    let mut low = from;
    loop {
        if part.held.lock().is_none() {
            return Ok(None);
        }
        let stretch = read(shared, partition, at, READ_BLOCKS, HEAD_BYTES).await?;
        let mut going = Vec::new();
        let mut has_ended = false;
        seen += stretch.blocks.len();
        for stored in stretch.blocks {
            let Some(head) = Head::parse(&stored.block, partition) else {
                continue;
            };
            match fate(&mut cut, &head, &stored) {
                Fate::Goes => going.push(Going {
                    number: stored.number,
                    bytes: stored.bytes,
                    head,
                }),
                Fate::Stays => low = low.or(Some(stored.number)),
                Fate::Ends => {
                    low = low.or(Some(stored.number));
                    has_ended = true;
                    break;
                }
            }
        }
        let is_end = has_ended || stretch.looked >= stretch.next;
        // Blocks that are appended from now on are not lower.
        let lowest = low.unwrap_or(stretch.looked);
        delete(shared, partition, going, from.is_none().then_some(lowest)).await?;
        if is_end {
            return Ok(None);
        }
        at = Some(stretch.looked);
        if seen >= TRIM_BLOCKS && matches!(cut, Cut::Before { .. }) {
            return Ok(at);
        }
    }
}

fn fate(cut: &mut Cut, head: &Head, stored: &Stored) -> Fate {
    let states = States::parse(&stored.states, head.mark, head.count);
    let fate = cut.fate(head, states.all_settled());
    if let (Fate::Goes, Cut::Bytes(left)) = (fate, cut) {
        let bytes = stored.bytes + stored.states.len() as u64 + head.beside_bytes;
        *left = left.saturating_sub(bytes);
    }
    fate
}

async fn delete(
    shared: &Shared,
    partition: u16,
    going: Vec<Going>,
    low: Option<u64>,
) -> Result<(), QueueError> {
    let (plain, beside): (Vec<_>, Vec<_>) = going
        .into_iter()
        .partition(|going| going.head.beside_bytes == 0);
    for going in &beside {
        let keys = keys_beside(shared, partition, going).await?;
        delete_some(shared, partition, std::slice::from_ref(going), None, keys).await?;
    }
    for going in plain.chunks(DELETE_BLOCKS) {
        delete_some(shared, partition, going, None, Vec::new()).await?;
    }
    if let Some(low) = low.filter(|_| !plain.is_empty() || !beside.is_empty()) {
        delete_some(shared, partition, &[], Some(low), Vec::new()).await?;
    }
    Ok(())
}

async fn keys_beside(
    shared: &Shared,
    partition: u16,
    going: &Going,
) -> Result<Vec<Bytes>, QueueError> {
    let stretch = read(shared, partition, Some(going.number), 1, 0).await?;
    let stored = stretch.blocks.first();
    let same = stored.filter(|stored| stored.number == going.number);
    let block = same.and_then(|stored| Block::parse(&stored.block, partition));
    let rows = block.map(|block| block.rows).unwrap_or_default();
    let rows = rows.iter().filter(|row| row.is_beside);
    Ok(rows
        .map(|row| beside(&shared.partitions, partition, row.id))
        .collect())
}

async fn delete_some(
    shared: &Shared,
    partition: u16,
    going: &[Going],
    low: Option<u64>,
    beside: Vec<Bytes>,
) -> Result<(), QueueError> {
    let part = &shared.parts[usize::from(partition)];
    let token = match &*part.held.lock() {
        Some(held) => held.token.clone(),
        None => return Ok(()),
    };
    let keys = &shared.keys[usize::from(partition)];
    let mut names = vec![
        keys.numbers.clone(),
        keys.blocks.clone(),
        keys.states.clone(),
    ];
    names.extend(beside);
    let mut args = vec![token, low.map_or(Bytes::new(), number)];
    for going in going {
        args.push(number(going.number));
        args.push(Bytes::copy_from_slice(&going.head.mark));
        args.push(lane_field(&going.head.lane));
        args.push(number(going.head.beside_bytes));
    }
    let call = shared
        .cluster
        .call(keys.slot, &DELETE, &names, args, Again::Safe);
    let answer = call.await?;
    let answer = answer.list();
    if unsigned(answer.first()) == 0 {
        return Ok(());
    }
    let version = unsigned(answer.get(1));
    part.bytes.store(unsigned(answer.get(2)), Ordering::Relaxed);
    if let Some(held) = part.held.lock().as_mut() {
        if version > held.version {
            held.version = version;
            held.entries = unsigned(answer.get(3));
        }
        let lanes = lane_counts(answer.get(5..).unwrap_or_default(), partition, version);
        for (lane, counts) in lanes {
            held.index.count(lane, counts);
        }
    }
    let mut cache = shared.cache.lock();
    for going in going {
        cache.remove(partition, going.number);
    }
    tracing::trace!(
        partition,
        blocks = going.len(),
        bytes = going.iter().map(|going| going.bytes).sum::<u64>(),
        "trimmed the queue"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::queue::{EntryId, Lane, NewEntry};
    use crate::store::redis::queue::block::pack;

    fn head(application: &str, ms: u64) -> Head {
        let entry = NewEntry {
            id: EntryId(u128::from(ms) << 80),
            lane: Lane {
                partition: 0,
                application: application.into(),
                replay: false,
            },
            key: Bytes::new(),
            barrier: Bytes::new(),
            cost: 1,
            replay_of: None,
            request: Bytes::from_static(b"request"),
        };
        pack(&[entry], [0; 4]).block.head
    }

    #[test]
    fn each_application_has_its_time() {
        let hour = Duration::from_secs(3_600);
        let horizon = Horizon {
            default: hour * 2,
            by_application: BTreeMap::from([("short".into(), hour)]),
            budget_bytes: 0,
        };
        let now = 100 * 3_600_000;
        let cut = Cut::new(&horizon, now);
        let age = |application, hours: u64| head(application, now - hours * 3_600_000 - 1);
        assert_eq!(cut.fate(&age("short", 1), true), Fate::Goes);
        assert_eq!(cut.fate(&age("short", 1), false), Fate::Stays);
        assert_eq!(cut.fate(&age("long", 1), true), Fate::Stays);
        assert_eq!(cut.fate(&age("long", 2), true), Fate::Goes);
        assert_eq!(cut.fate(&age("short", 0), true), Fate::Ends);
        assert_eq!(Cut::Bytes(1).fate(&age("long", 0), true), Fate::Goes);
        assert_eq!(Cut::Bytes(1).fate(&age("long", 9), false), Fate::Stays);
        assert_eq!(Cut::Bytes(0).fate(&age("long", 9), true), Fate::Ends);
    }
}
