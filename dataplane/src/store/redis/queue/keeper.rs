//! Leases: which partitions this process holds, and what it learns of them.
//!
//! A task looks at all leases every second: renews those held, takes free ones and gives others back until every data
//! plane has its share. A task per partition reads what others have appended. When a server may have forgotten
//! something (a failover, a version that went back) what is known is compared with what is stored, and read anew.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::{Instant, MissedTickBehavior};

use super::balance::{Seen, moves, wanted};
use super::block::{Block, Head};
use super::index::Index;
use super::keys::{self, LEASE, PODS, READ};
use super::limits::{
    HEAD_BYTES, LEASE_TTL, LEAVE_GRACE, POLL_MAX, POLL_MIN, READ_BLOCKS, READ_BYTES, READ_LOOKS,
    TICK,
};
use super::records::States;
use super::shared::{Held, Numbers, Shared, number, unsigned};
use super::{retention, servers};
use crate::store::redis::cluster::{Again, CallError};
use crate::store::redis::reply::Reply;

/// Renews, takes and gives back, for as long as the queue is open.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut live = Vec::new();
    loop {
        ticks.tick().await;
        let resigned = shared.has_resigned();
        let (pods, ()) = tokio::join!(pods(&shared, resigned), servers::look(&shared));
        // Without an answer the last one counts: nobody moves because one server is away.
        if let Ok(pods) = pods {
            live = pods;
            shared.is_alone.store(live.len() <= 1, Ordering::Relaxed);
        }
        tick(&shared, &live).await;
        retention::keep_within_budget(&shared).await;
    }
}

/// Who takes part. `leaves`: this one does not any more.
pub(super) async fn pods(shared: &Shared, leaves: bool) -> Result<Vec<String>, CallError> {
    let (slot, key) = keys::pods(&shared.partitions);
    let ttl = if leaves { 0 } else { LEASE_TTL.as_millis() };
    let args = [shared.holder.clone().into(), number(ttl)];
    let answer = shared
        .cluster
        .call(slot, &PODS, &[key], args, Again::Safe)
        .await?;
    let names = answer.list().iter().filter_map(Reply::text);
    Ok(names.map(str::to_owned).collect())
}

async fn tick(shared: &Shared, live: &[String]) {
    let seen: Vec<Seen> = (0..shared.parts.len())
        .map(|partition| see(shared, partition))
        .collect();
    let rank = live.iter().filter(|name| **name < shared.holder).count();
    let offset = rank * seen.len() / live.len().max(1);
    let wanted = match shared.has_resigned() {
        true => 0,
        false => wanted(live, &shared.holder, seen.len()),
    };
    let moves = moves(&seen, wanted, offset);
    for partition in &moves.give {
        if let Some(held) = shared.parts[usize::from(*partition)].held.lock().as_mut() {
            held.leaving = Some(Instant::now());
        }
    }
    let leases = (0..seen.len() as u16).map(|partition| {
        // Not even what nobody holds, once it has resigned.
        let takes = moves.take.contains(&partition) && !shared.has_resigned();
        lease(shared, partition, takes)
    });
    join_all(leases).await;
    look_for_failovers(shared);
}

fn see(shared: &Shared, partition: usize) -> Seen {
    let part = &shared.parts[partition];
    match &*part.held.lock() {
        Some(held) if held.leaving.is_some() => Seen::Leaving,
        Some(held) => Seen::Mine {
            is_idle: held.index.waiting() == 0,
        },
        None if part.is_theirs.load(Ordering::Relaxed) => Seen::Theirs,
        None => Seen::Free(part.free_looks.load(Ordering::Relaxed) as u32),
    }
}

/// One look at the lease of a partition. An answer that does not come changes nothing.
pub(super) async fn lease(shared: &Shared, partition: u16, takes: bool) {
    let part = &shared.parts[usize::from(partition)];
    let began = Instant::now();
    let (token, mode) = match &*part.held.lock() {
        Some(held) => {
            let gives = held
                .leaving
                .is_some_and(|since| held.sending.is_empty() || since.elapsed() > LEAVE_GRACE);
            (held.token.clone(), if gives { "give" } else { "keep" })
        }
        None => (Bytes::new(), if takes { "take" } else { "look" }),
    };
    let keys = &shared.keys[usize::from(partition)];
    let names = [keys.lease.clone(), keys.numbers.clone()];
    let args = [
        shared.holder.clone().into(),
        token.clone(),
        Bytes::from_static(mode.as_bytes()),
        number(LEASE_TTL.as_millis()),
    ];
    // Taking it twice gives two tokens, of which the second one counts.
    let call = shared
        .cluster
        .call(keys.slot, &LEASE, &names, args, Again::Safe);
    let Ok(answer) = call.await else {
        return;
    };
    let answer = answer.list();
    part.bytes.store(unsigned(answer.get(3)), Ordering::Relaxed);
    if unsigned(answer.first()) == 1 {
        part.is_theirs.store(false, Ordering::Relaxed);
        part.free_looks.store(0, Ordering::Relaxed);
        held(shared, partition, answer, began);
    } else {
        not_held(shared, partition, answer, mode, &token);
    }
}

fn held(shared: &Shared, partition: u16, answer: &[Reply], began: Instant) {
    let part = &shared.parts[usize::from(partition)];
    let bytes = |at: usize| answer.get(at).and_then(Reply::bytes).cloned();
    let token = bytes(1).unwrap_or_default();
    let epoch = bytes(2).unwrap_or_default();
    let fields = answer.get(4).map_or(&[][..], Reply::list);
    let numbers = Numbers::parse(fields, partition);
    let mut place = part.held.lock();
    let is_same = place.as_ref().is_some_and(|held| held.token == token);
    if !is_same {
        // A data plane that is about to end takes nothing new; the lease runs out by itself.
        if shared.is_closed() || shared.has_resigned() {
            return;
        }
        let generation = part.times_held.fetch_add(1, Ordering::Relaxed) as u8 & 0xf;
        tracing::debug!(partition, "took a queue partition");
        *place = Some(Held {
            token,
            epoch,
            generation,
            index: Index::new(numbers.first),
            version: 0,
            dismissed: 0,
            entries: 0,
            next: numbers.next,
            renewed: began,
            leaving: None,
            sending: Default::default(),
            shard_epoch: None,
            suspicious: false,
        });
    }
    let Some(held) = place.as_mut() else {
        return;
    };
    if !held.is_sure() {
        // What was claimed was refused meanwhile to whoever was to send it, and is to be claimed anew.
        held.generation = part.times_held.fetch_add(1, Ordering::Relaxed) as u8 & 0xf;
        held.index.unclaim_all();
        held.sending.clear();
    }
    held.renewed = began;
    held.next = held.next.max(numbers.next);
    if numbers.version >= held.version {
        held.version = numbers.version;
        held.entries = numbers.entries;
    }
    let waiting = held.index.waiting();
    held.index.count_all(&numbers.lanes, numbers.version);
    let has_more = held.index.waiting() > waiting;
    let is_behind = held.index.tail() < held.next;
    drop(place);
    if !is_same || has_more {
        shared.changed();
    }
    if is_behind {
        part.look.notify_one();
    }
}

fn not_held(shared: &Shared, partition: u16, answer: &[Reply], mode: &str, token: &Bytes) {
    let part = &shared.parts[usize::from(partition)];
    let holder = answer.get(1).and_then(Reply::text).unwrap_or_default();
    let is_free = holder.is_empty() || holder == shared.holder;
    part.is_theirs.store(!is_free, Ordering::Relaxed);
    if is_free {
        part.free_looks.fetch_add(1, Ordering::Relaxed);
    } else {
        part.free_looks.store(0, Ordering::Relaxed);
    }
    if token.is_empty() {
        return;
    }
    let (lost, waiting) = match &*part.held.lock() {
        Some(held) if held.token == *token => {
            let epoch = answer.get(2).and_then(Reply::bytes);
            let is_gone = epoch.is_none_or(|epoch| *epoch != held.epoch);
            (is_gone, held.index.waiting())
        }
        Some(_) | None => return,
    };
    if mode == "give" {
        // Whoever is to have it looks every second.
        part.is_theirs.store(true, Ordering::Relaxed);
        tracing::debug!(partition, "gave a queue partition back");
    } else if lost {
        tracing::error!(
            partition,
            waiting,
            "a queue partition has vanished from Redis: its entries are lost"
        );
    } else {
        tracing::warn!(
            partition,
            holder,
            "the lease of a queue partition was taken over"
        );
    }
    shared.let_go(partition);
}

/// After a failover, what was written last may be gone.
fn look_for_failovers(shared: &Shared) {
    let topology = shared.cluster.topology().borrow().clone();
    for (part, keys) in shared.parts.iter().zip(&shared.keys) {
        let mut held = part.held.lock();
        let (Some(held), Some(shard)) = (held.as_mut(), topology.shard(keys.slot)) else {
            continue;
        };
        let before = held.shard_epoch.replace(shard.epoch);
        if before.is_some_and(|before| before != shard.epoch) {
            held.suspicious = true;
            part.look.notify_one();
        }
    }
}

/// Reads what others append to a partition, while it is held.
pub(super) async fn follow(shared: Arc<Shared>, partition: u16) {
    let part = &shared.parts[usize::from(partition)];
    let mut pause = POLL_MAX;
    loop {
        // Without others there is nothing to be learned but what this process does itself.
        let longest = if shared.is_alone.load(Ordering::Relaxed) {
            TICK
        } else {
            POLL_MAX
        };
        // A call that asks for a look ends the pause.
        let _ = tokio::time::timeout(pause, part.look.notified()).await;
        let is_held = part.held.lock().is_some();
        if !is_held {
            pause = longest;
            continue;
        }
        pause = match advance(&shared, partition).await {
            Ok(true) => POLL_MIN,
            Ok(false) => (pause * 2).clamp(POLL_MIN, longest),
            Err(_) => POLL_MAX,
        };
    }
}

/// Reads on until everything is known. `true`: there was something new.
pub(super) async fn advance(shared: &Shared, partition: u16) -> Result<bool, CallError> {
    let part = &shared.parts[usize::from(partition)];
    let _one = part.advancing.lock().await;
    let mut has_news = false;
    loop {
        let step = step(shared, partition).await?;
        has_news |= step.found > 0;
        if step.found > 0 {
            shared.changed();
        }
        if !step.goes_on {
            break;
        }
    }
    if has_news {
        // The numbers of lanes that others appended to.
        lease(shared, partition, false).await;
        shared.changed();
    }
    Ok(has_news)
}

#[derive(Default)]
struct Step {
    found: usize,
    goes_on: bool,
}

async fn step(shared: &Shared, partition: u16) -> Result<Step, CallError> {
    let part = &shared.parts[usize::from(partition)];
    let (token, from, version, is_far) = match &*part.held.lock() {
        Some(held) => {
            let tail = held.index.tail();
            let is_far =
                held.next.saturating_sub(tail) > READ_BLOCKS as u64 || held.index.blocks() > 256;
            (held.token.clone(), tail, held.version, is_far)
        }
        None => return Ok(Step::default()),
    };
    let wanted = if is_far { HEAD_BYTES } else { 0 };
    let answer = read(shared, partition, Some(from), READ_BLOCKS, wanted).await?;
    let gone = match part.held.lock().as_ref() {
        Some(held) if held.token == token => answer.epoch.as_ref() != Some(&held.epoch),
        Some(_) | None => return Ok(Step::default()),
    };
    if gone {
        // The lease tells the whole story.
        lease(shared, partition, false).await;
        return Ok(Step::default());
    }
    let since = Since {
        token,
        from,
        version,
    };
    Ok(learn(shared, partition, answer, &since, is_far))
}

/// What was known when a read began.
struct Since {
    token: Bytes,
    from: u64,
    version: u64,
}

fn learn(shared: &Shared, partition: u16, answer: Stretch, since: &Since, is_far: bool) -> Step {
    let part = &shared.parts[usize::from(partition)];
    let mut place = part.held.lock();
    let Some(held) = place.as_mut().filter(|held| held.token == since.token) else {
        return Step::default();
    };
    if answer.next < since.from || answer.version < since.version || held.suspicious {
        tracing::warn!(
            partition,
            "a Redis server may have lost what was written last; what waits is read again"
        );
        let index = std::mem::take(&mut held.index);
        held.index = index.again(answer.first);
        held.suspicious = false;
        (held.version, held.next) = (answer.version, answer.next);
        shared.cache.lock().drop_partition(partition);
        return Step {
            found: 0,
            goes_on: true,
        };
    }
    held.next = held.next.max(answer.next);
    if answer.dismissed != held.dismissed {
        // What is cached may say that a dismissed entry waits.
        held.dismissed = answer.dismissed;
        shared.cache.lock().drop_partition(partition);
    }
    let found = answer.blocks.len();
    for stored in answer.blocks {
        take_in(shared, held, partition, stored, is_far);
    }
    held.index.reached(answer.looked);
    let goes_on = held.index.tail() < held.next;
    if !goes_on {
        held.index.caught_up();
    }
    Step { found, goes_on }
}

fn take_in(shared: &Shared, held: &mut Held, partition: u16, stored: Stored, is_far: bool) {
    let Some(head) = Head::parse(&stored.block, partition) else {
        let block = stored.number;
        tracing::error!(partition, block, "a block of the queue cannot be read");
        return;
    };
    let states = States::parse(&stored.states, head.mark, head.count);
    let is_new = stored.number >= held.index.tail();
    held.index.add(stored.number, &head, &states);
    if !is_far
        && is_new
        && head.beside_bytes == 0
        && let Some(block) = Block::parse(&stored.block, partition)
    {
        let cached = (Arc::new(block), Arc::new(states));
        shared.cache.lock().put(partition, stored.number, cached);
    }
}

/// A stretch of a partition.
#[derive(Debug, Default)]
pub(super) struct Stretch {
    /// `None`: the partition does not exist.
    pub(super) epoch: Option<Bytes>,
    pub(super) low: u64,
    pub(super) next: u64,
    pub(super) version: u64,
    pub(super) dismissed: u64,
    /// The first number that was not looked at.
    pub(super) looked: u64,
    pub(super) first: u64,
    pub(super) blocks: Vec<Stored>,
}

#[derive(Debug)]
pub(super) struct Stored {
    pub(super) number: u64,
    /// Or its beginning.
    pub(super) block: Bytes,
    pub(super) bytes: u64,
    pub(super) states: Bytes,
}

/// `from`: `None` for the lowest. `wanted`: bytes of each block; 0: all.
pub(super) async fn read(
    shared: &Shared,
    partition: u16,
    from: Option<u64>,
    blocks: usize,
    wanted: usize,
) -> Result<Stretch, CallError> {
    let keys = &shared.keys[usize::from(partition)];
    let names = [
        keys.numbers.clone(),
        keys.blocks.clone(),
        keys.states.clone(),
    ];
    let args = [
        from.map_or(Bytes::new(), number),
        number(blocks),
        number(READ_BYTES),
        number(wanted),
        number(READ_LOOKS),
    ];
    let answer = shared
        .cluster
        .call(keys.slot, &READ, &names, args, Again::Safe)
        .await?;
    let answer = answer.list();
    let bytes = |reply: &Reply| reply.bytes().cloned().unwrap_or_default();
    let blocks = answer.get(8..).unwrap_or_default().chunks_exact(4);
    Ok(Stretch {
        epoch: answer.first().and_then(Reply::bytes).cloned(),
        low: unsigned(answer.get(1)),
        next: unsigned(answer.get(2)),
        version: unsigned(answer.get(3)),
        dismissed: unsigned(answer.get(4)),
        looked: unsigned(answer.get(5)),
        first: unsigned(answer.get(7)),
        blocks: blocks
            .map(|block| Stored {
                number: unsigned(block.first()),
                block: bytes(&block[1]),
                bytes: unsigned(block.get(2)),
                states: bytes(&block[3]),
            })
            .collect(),
    })
}
