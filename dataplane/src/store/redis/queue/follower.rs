//! What others have appended to the partitions that are held, and what may have been lost: read, and put into the index.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use super::block::{Block, Head};
use super::keeper::lease;
use super::keys::READ;
use super::limits::{HEAD_BYTES, POLL_MAX, POLL_MIN, READ_BLOCKS, READ_BYTES, READ_LOOKS, TICK};
use super::records::States;
use super::shared::{Held, Shared, number, unsigned};
use crate::store::redis::cluster::{Again, CallError};
use crate::store::redis::reply::Reply;

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
