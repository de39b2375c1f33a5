//! Leases: which partitions this process holds.
//!
//! A task looks at all leases every second: renews those held, takes free ones and gives others back until every data
//! plane has its share. While partitions change hands it looks more often, as nobody delivers what is in them. When a server
//! may have forgotten something (a failover, a version that went back), `follower` reads everything anew.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_util::future::join_all;
use tokio::time::{Instant, MissedTickBehavior};

use super::balance::{Moves, Seen, moves, wanted};
use super::index::Index;
use super::keys::{self, LEASE, PODS};
use super::limits::{HAND_OVER_FOR, HAND_OVER_TICK, LEASE_TTL, LEAVE_GRACE, TICK};
use super::shared::{Held, Numbers, Shared, number, unsigned};
use super::{retention, servers};
use crate::store::redis::cluster::{Again, CallError};
use crate::store::redis::reply::Reply;

/// Renews, takes and gives back, for as long as the queue is open.
pub(super) async fn keep(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut live = Vec::new();
    let mut had_resigned = false;
    let mut hands_over_until = Instant::now();
    loop {
        let hands_over = Instant::now() < hands_over_until && is_unsettled(&shared, &live);
        tokio::select! {
            biased;
            _ = ticks.tick() => {}
            () = shared.resigns.notified() => {}
            () = tokio::time::sleep(HAND_OVER_TICK), if hands_over => {
                hand_over(&shared, &live).await;
                continue;
            }
        }
        let resigned = shared.has_resigned();
        let (pods, ()) = tokio::join!(pods(&shared, resigned), servers::look(&shared));
        // Without an answer the last one counts: nobody moves because one server is away.
        if let Ok(pods) = pods {
            if pods != live || resigned != had_resigned {
                hands_over_until = Instant::now() + HAND_OVER_FOR;
            }
            (live, had_resigned) = (pods, resigned);
            shared.is_alone.store(live.len() <= 1, Ordering::Relaxed);
        }
        tick(&shared, &live).await;
        retention::keep_within_budget(&shared).await;
    }
}

/// This one holds other partitions than it should.
fn is_unsettled(shared: &Shared, live: &[String]) -> bool {
    let seen = see_all(shared);
    let held = seen.iter().filter(|seen| matches!(seen, Seen::Mine { .. }));
    seen.contains(&Seen::Leaving) || held.count() < wanted_here(shared, live)
}

/// Gives back what nothing is under way of any more, and takes what others have given back.
async fn hand_over(shared: &Shared, live: &[String]) {
    let seen = see_all(shared);
    let held = seen.iter().filter(|seen| matches!(seen, Seen::Mine { .. }));
    let has_room = held.count() < wanted_here(shared, live);
    let is_of_interest = |seen: &Seen| match seen {
        Seen::Leaving => true,
        Seen::Theirs | Seen::Free(_) => has_room,
        Seen::Mine { .. } => false,
    };
    let looked_at = (0..).zip(&seen).filter(|(_, seen)| is_of_interest(seen));
    join_all(looked_at.map(|(partition, _)| lease(shared, partition, false))).await;
    if has_room {
        let found = moves_here(shared, live).take;
        join_all(
            found
                .iter()
                .map(|partition| lease(shared, *partition, true)),
        )
        .await;
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
    let moves = moves_here(shared, live);
    for partition in &moves.give {
        if let Some(held) = shared.parts[usize::from(*partition)].held.lock().as_mut() {
            held.leaving = Some(Instant::now());
        }
    }
    let leases = (0..shared.parts.len() as u16)
        .map(|partition| lease(shared, partition, moves.take.contains(&partition)));
    join_all(leases).await;
    look_for_failovers(shared);
}

/// What this one is to take and to give back. It takes not even what nobody holds, once it has resigned.
fn moves_here(shared: &Shared, live: &[String]) -> Moves {
    let seen = see_all(shared);
    let rank = live.iter().filter(|name| **name < shared.holder).count();
    let offset = rank * seen.len() / live.len().max(1);
    let mut moves = moves(&seen, wanted_here(shared, live), offset);
    if shared.has_resigned() {
        moves.take.clear();
    }
    moves
}

fn wanted_here(shared: &Shared, live: &[String]) -> usize {
    match shared.has_resigned() {
        true => 0,
        false => wanted(live, &shared.holder, shared.parts.len()),
    }
}

fn see_all(shared: &Shared) -> Vec<Seen> {
    let all = 0..shared.parts.len();
    all.map(|partition| see(shared, partition)).collect()
}

fn see(shared: &Shared, partition: usize) -> Seen {
    let part = &shared.parts[partition];
    match &*part.held.lock() {
        Some(held) if held.leaving.is_some() => Seen::Leaving,
        Some(held) => Seen::Mine {
            is_idle: held.index.waiting() == 0,
        },
        None if part.is_theirs.load(Ordering::Relaxed) => Seen::Theirs,
        None => Seen::Free(
            part.free_since
                .lock()
                .map(|since| since.elapsed())
                .unwrap_or_default(),
        ),
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
        *part.free_since.lock() = None;
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
    let mut free_since = part.free_since.lock();
    *free_since = is_free.then(|| free_since.unwrap_or_else(Instant::now));
    drop(free_since);
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
        // Whoever is to have it looks for it.
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
