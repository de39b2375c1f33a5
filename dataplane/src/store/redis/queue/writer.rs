//! Appends: what comes together for a partition is stored together, in one call.
//!
//! Appends of a partition begin some milliseconds apart, or as soon as enough entries have gathered, so that a call carries
//! many. A lone entry does not wait. Repeating a call does no harm: the store knows this writer's last batch.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use sluice_crds::config::Durability;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::block::{Packed, fits, lane_field, pack};
use super::keys::{APPEND, beside};
use super::limits::{APPEND_ENOUGH, APPEND_PACE_MAX, APPEND_PACE_MIN, BESIDE_TTL_MS};
use super::records::States;
use super::shared::{Part, Shared, lane_counts, number, unsigned};
use crate::clock::unix_ms;
use crate::store::queue::{Lane, NewEntry, QueueError};
use crate::store::redis::cluster::{Again, CallError};
use crate::store::redis::reply::Reply;

pub(super) struct Append {
    pub(super) entry: NewEntry,
    pub(super) done: oneshot::Sender<Result<(), QueueError>>,
}

/// One batch. Ends when the next one may begin.
pub(super) async fn carry_out(shared: Arc<Shared>, partition: u16, jobs: Vec<Append>) {
    let began = Instant::now();
    let part = &shared.parts[usize::from(partition)];
    part.gathered.fetch_sub(jobs.len(), Ordering::Relaxed);
    // Who has given up has been told that it failed.
    let jobs = jobs.into_iter().filter(|job| !job.done.is_closed());
    let (entries, waiting): (Vec<_>, Vec<_>) = jobs.map(|job| (job.entry, job.done)).unzip();
    if entries.is_empty() {
        return;
    }
    let count = entries.len();
    let outcome = append(&shared, partition, entries).await;
    if let Err(failure) = &outcome {
        tracing::warn!(partition, %failure, entries = count, "entries not stored");
    }
    for done in waiting {
        // It may have given up meanwhile.
        let _ = done.send(outcome.clone());
    }
    tokio::time::sleep_until(began + APPEND_PACE_MIN).await;
    let until = began + pace(count);
    // A notice may be of entries that have gone already.
    while part.gathered.load(Ordering::Relaxed) < APPEND_ENOUGH {
        let enough = tokio::time::timeout_at(until, part.enough.notified());
        if enough.await.is_err() {
            break;
        }
    }
}

/// Counts an entry that is about to be submitted; with enough of them nothing is waited for.
pub(super) fn gathered_one(part: &Part) {
    if part.gathered.fetch_add(1, Ordering::Relaxed) + 1 == APPEND_ENOUGH {
        part.enough.notify_one();
    }
}

/// How long after this append the next one begins at the latest: who comes alone has nobody to wait for.
fn pace(entries: usize) -> Duration {
    let entries = u32::try_from(entries).unwrap_or(u32::MAX);
    APPEND_PACE_MIN.saturating_mul(entries).min(APPEND_PACE_MAX)
}

async fn append(shared: &Shared, partition: u16, entries: Vec<NewEntry>) -> Result<(), QueueError> {
    let packed = pack_all(entries);
    let keys = &shared.keys[usize::from(partition)];
    let mut names = vec![keys.numbers.clone(), keys.blocks.clone()];
    let besides = packed.iter().flat_map(|packed| &packed.beside);
    let mut sets = Vec::new();
    for (id, bytes) in besides {
        let key = beside(&shared.partitions, partition, *id);
        names.push(key.clone());
        let args = vec![
            key,
            bytes.clone(),
            Bytes::from_static(b"PX"),
            number(BESIDE_TTL_MS),
        ];
        sets.push(shared.cluster.command(keys.slot, "SET", args, Again::Safe));
    }
    for set in join_all(sets).await {
        set?;
    }
    let part = &shared.parts[usize::from(partition)];
    let batch = part.batch.fetch_add(1, Ordering::Relaxed) + 1;
    let now_s = unix_ms() / 1_000;
    let mut args = vec![shared.writer.clone(), number(batch), number(now_s)];
    for packed in &packed {
        let head = &packed.block.head;
        args.push(lane_field(&head.lane));
        args.push(number(head.count));
        args.push(number(head.request_bytes));
        args.push(number(packed.bytes.len() as u64 + head.beside_bytes));
        args.push(packed.bytes.clone());
    }
    let answer = call(shared, keys.slot, &names, args).await?;
    stored(shared, partition, packed, answer.list());
    Ok(())
}

async fn call(
    shared: &Shared,
    slot: u16,
    names: &[Bytes],
    args: Vec<Bytes>,
) -> Result<Reply, CallError> {
    let cluster = &shared.cluster;
    let durability = *shared.durability.read();
    match durability {
        Durability::Memory | Durability::Group => {
            cluster.call(slot, &APPEND, names, args, Again::Safe).await
        }
        Durability::Replicated => cluster.call_replicated(slot, &APPEND, names, args).await,
    }
}

fn pack_all(entries: Vec<NewEntry>) -> Vec<Packed> {
    let mut lanes: HashMap<Lane, usize> = HashMap::new();
    let mut by_lane: Vec<Vec<NewEntry>> = Vec::new();
    for entry in entries {
        let at = *lanes.entry(entry.lane.clone()).or_insert_with(|| {
            by_lane.push(Vec::new());
            by_lane.len() - 1
        });
        by_lane[at].push(entry);
    }
    let mut packed = Vec::new();
    let mark = || fastrand::u32(..).to_be_bytes();
    for entries in by_lane {
        let mut rest = entries.as_slice();
        while !rest.is_empty() {
            let (mut count, mut bytes) = (0, 0);
            while let Some(next) = rest.get(count)
                && fits(count, bytes, next.request.len())
            {
                bytes += next.request.len();
                count += 1;
            }
            let (block, left) = rest.split_at(count);
            packed.push(pack(block, mark()));
            rest = left;
        }
    }
    packed
}

/// Takes in what was stored, as far as this process holds the partition.
fn stored(shared: &Shared, partition: u16, packed: Vec<Packed>, answer: &[Reply]) {
    let part = &shared.parts[usize::from(partition)];
    let first = unsigned(answer.first());
    let version = unsigned(answer.get(1));
    part.bytes.store(unsigned(answer.get(2)), Ordering::Relaxed);
    {
        let mut held = part.held.lock();
        let Some(held) = held.as_mut() else {
            return;
        };
        // Others may have appended in between; a writer's repeated batch tells no numbers.
        if held.index.tail() != first || answer.len() < 8 {
            let marks = (first..).zip(&packed);
            // Another block under the number of one of these: the server has forgotten that one.
            held.suspicious |= marks
                .take_while(|(number, _)| *number < held.index.tail())
                .any(|(number, packed)| held.index.is_other(number, packed.block.head.mark));
            part.look.notify_one();
            return;
        }
        // A backlog is claimed from its beginning: what comes now is wanted much later.
        let is_wanted = held.index.blocks() < 256;
        for (number, packed) in (first..).zip(packed) {
            let states = States::waiting(packed.block.rows.len());
            held.index.add(number, &packed.block.head, &states);
            if is_wanted {
                let cached = (Arc::new(packed.block), Arc::new(states));
                shared.cache.lock().put(partition, number, cached);
            }
        }
        held.next = held.next.max(held.index.tail());
        if version > held.version {
            held.version = version;
            held.entries = unsigned(answer.get(3));
        }
        for (lane, counts) in lane_counts(&answer[4..], partition, version) {
            held.index.count(lane, counts);
        }
    }
    shared.changed();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_alone_does_not_wait_for_others() {
        assert_eq!(pace(1), APPEND_PACE_MIN);
        assert_eq!(pace(4), APPEND_PACE_MIN * 4);
        assert_eq!(pace(500), APPEND_PACE_MAX);
        assert_eq!(pace(usize::MAX), APPEND_PACE_MAX);
    }
}
