//! Verdicts and used attempts of claimed entries, many in one call; and an operator's wishes.
//!
//! What is recorded for a partition that is no longer held changes nothing: its new holder delivers the entry again. That
//! is said in the log, and is no error that repeating would mend.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::block::lane_field;
use super::index::Settling;
use super::keys::{Place, SETTLE};
use super::limits::{SETTLE_JOBS, SETTLE_PACE};
use super::records::What;
use super::shared::{Held, Shared, lane_counts, number, unsigned};
use crate::store::queue::QueueError;
use crate::store::redis::cluster::Again;
use crate::store::redis::reply::Reply;

/// What becomes of claimed entries of one partition.
pub(super) struct Record {
    pub(super) entries: Vec<(Place, What)>,
    pub(super) done: oneshot::Sender<Result<(), QueueError>>,
}

pub(super) async fn carry_out(shared: Arc<Shared>, partition: u16, jobs: Vec<Record>) {
    let began = Instant::now();
    let mut outcome = Ok(());
    let entries: Vec<&(Place, What)> = jobs.iter().flat_map(|job| &job.entries).collect();
    for entries in entries.chunks(SETTLE_JOBS) {
        outcome = record(&shared, partition, entries).await;
        if outcome.is_err() {
            break;
        }
    }
    for job in jobs {
        // It may have given up meanwhile.
        let _ = job.done.send(outcome.clone());
    }
    tokio::time::sleep_until(began + SETTLE_PACE).await;
}

/// Blocks with what is to be recorded of them.
type Blocks<'a> = BTreeMap<u64, (Settling, Vec<(u16, u32, &'a What)>)>;

async fn record(
    shared: &Shared,
    partition: u16,
    entries: &[&(Place, What)],
) -> Result<(), QueueError> {
    let part = &shared.parts[usize::from(partition)];
    let mut blocks: Blocks<'_> = BTreeMap::new();
    let (token, first) = {
        let mut held = part.held.lock();
        let Some(held) = held.as_mut() else {
            dropped(partition, entries.len());
            return Ok(());
        };
        for (place, what) in entries {
            let known = held.generation == place.generation
                && held.index.is_block(place.number, place.mark);
            let settling = known.then(|| held.index.settling(place.number, place.index));
            let Some(settling) = settling.flatten() else {
                held.sending.remove(&place.token());
                continue;
            };
            let bytes = settling.request_bytes;
            let (_, records) = blocks
                .entry(place.number)
                .or_insert_with(|| (settling, Vec::new()));
            records.push((place.index, bytes, what));
        }
        (held.token.clone(), held.index.first())
    };
    if blocks.is_empty() {
        return Ok(());
    }
    let first = Some(first);
    let answer = call(
        shared,
        partition,
        token.clone(),
        first,
        &blocks,
        Again::Safe,
    )
    .await?;
    let answer = answer.list();
    if unsigned(answer.first()) == 0 {
        tracing::warn!(partition, "the lease of a queue partition was taken over");
        dropped(partition, entries.len());
        let is_same = part
            .held
            .lock()
            .as_ref()
            .is_some_and(|held| held.token == token);
        if is_same {
            shared.let_go(partition);
        }
        return Ok(());
    }
    let mut held = part.held.lock();
    if let Some(held) = held.as_mut() {
        recorded(held, partition, entries, answer);
    }
    part.bytes.store(unsigned(answer.get(2)), Ordering::Relaxed);
    Ok(())
}

fn recorded(held: &mut Held, partition: u16, entries: &[&(Place, What)], answer: &[Reply]) {
    let version = unsigned(answer.get(1));
    held.version = held.version.max(version);
    for (place, what) in entries {
        let is_settled = matches!(what, What::Settled(_))
            && held.generation == place.generation
            && held.index.is_block(place.number, place.mark);
        if is_settled {
            held.index.settled(place.number, place.index);
            held.sending.remove(&place.token());
        }
    }
    for (lane, counts) in lane_counts(answer.get(4..).unwrap_or_default(), partition, version) {
        held.index.count(lane, counts);
    }
}

fn dropped(partition: u16, entries: usize) {
    tracing::warn!(
        partition,
        entries,
        "verdicts dropped: another data plane holds the partition now, and may deliver these entries again"
    );
}

/// `first`: `None` for an operator's wish, which needs no token.
async fn call(
    shared: &Shared,
    partition: u16,
    token: Bytes,
    first: Option<u64>,
    blocks: &Blocks<'_>,
    again: Again,
) -> Result<Reply, QueueError> {
    let keys = &shared.keys[usize::from(partition)];
    let names = [
        keys.numbers.clone(),
        keys.blocks.clone(),
        keys.states.clone(),
    ];
    let mut args = vec![token, first.map_or(Bytes::new(), number)];
    for (block, (settling, records)) in blocks {
        args.push(number(block));
        args.push(Bytes::copy_from_slice(&settling.mark));
        args.push(number(settling.count));
        args.push(lane_field(&settling.lane));
        args.push(number(records.len()));
        for (index, bytes, what) in records {
            args.push(number(index));
            args.push(Bytes::from_static(what.state()));
            args.push(number(bytes));
            args.push(what.record(*index));
        }
    }
    let call = shared.cluster.call(keys.slot, &SETTLE, &names, args, again);
    Ok(call.await?)
}

/// An operator's wish for an entry of any partition. `false`: it is neither waiting nor parked.
pub(super) async fn dismiss(
    shared: &Shared,
    place: Place,
    settling: Settling,
    what: &What,
) -> Result<bool, QueueError> {
    let bytes = settling.request_bytes;
    let records = vec![(place.index, bytes, what)];
    let blocks = BTreeMap::from([(place.number, (settling, records))]);
    // The answer of a second time would not tell what the first one did.
    let again = Again::Never;
    let answer = call(shared, place.partition, Bytes::new(), None, &blocks, again).await?;
    let answer = answer.list();
    let changed = unsigned(answer.get(3)) > 0;
    let version = unsigned(answer.get(1));
    let part = &shared.parts[usize::from(place.partition)];
    if let Some(held) = part.held.lock().as_mut() {
        if held.index.is_block(place.number, place.mark) {
            held.index.settled(place.number, place.index);
        }
        held.version = held.version.max(version);
        if changed {
            held.dismissed += 1;
        }
        let lanes = lane_counts(
            answer.get(4..).unwrap_or_default(),
            place.partition,
            version,
        );
        for (lane, counts) in lanes {
            held.index.count(lane, counts);
        }
    }
    shared.cache.lock().remove(place.partition, place.number);
    Ok(changed)
}
