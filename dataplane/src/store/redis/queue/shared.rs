//! What the parts of the queue share: partitions and what is held of them, unpacked blocks, numbers.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use sluice_crds::config::Durability;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::block::{Block, lane_of};
use super::index::{Counts, Index};
use super::keys::{Keys, Place};
use super::limits::{CACHE_BYTES, LEASE_TTL};
use super::records::States;
use super::settler::Record;
use super::writer::Append;
use crate::store::queue::{Horizon, Lane, QueueError, Token};
use crate::store::redis::cluster::{CallError, Cluster};
use crate::store::redis::lanes::Lanes;
use crate::store::redis::reply::Reply;
use crate::store::redis::slots::Partitions;
use crate::store::redis::topology::Address;

pub(super) struct Shared {
    pub(super) cluster: Arc<Cluster>,
    pub(super) partitions: Partitions,
    pub(super) keys: Vec<Keys>,
    /// Names this process among those that hold partitions; a new one with every start.
    pub(super) holder: String,
    /// Names it among those that append.
    pub(super) writer: Bytes,
    pub(super) parts: Vec<Part>,
    pub(super) appends: Lanes<Append>,
    pub(super) settles: Lanes<Record>,
    pub(super) cache: Mutex<Cache>,
    pub(super) changes: watch::Sender<u64>,
    pub(super) durability: RwLock<Durability>,
    pub(super) budget_bytes: AtomicU64,
    pub(super) horizon: Mutex<Option<Horizon>>,
    /// Servers that have too little memory left, or no replica where one is needed.
    pub(super) full: RwLock<HashSet<Address>>,
    pub(super) unreplicated: RwLock<HashSet<Address>>,
    /// The budget was used up, and is not far enough below yet.
    pub(super) is_full: AtomicBool,
    pub(super) is_closed: AtomicBool,
    /// Delivers nothing any more, and still takes entries.
    pub(super) resigned: AtomicBool,
    pub(super) resigns: Notify,
    /// No other data plane is known.
    pub(super) is_alone: AtomicBool,
    /// What is wrong with the servers as a queue; empty: nothing.
    pub(super) trouble: watch::Sender<Arc<str>>,
    /// One makes room at a time.
    pub(super) making_room: tokio::sync::Mutex<()>,
}

/// What this process knows of a partition.
#[derive(Default)]
pub(super) struct Part {
    pub(super) held: Mutex<Option<Held>>,
    /// As the store said last.
    pub(super) bytes: AtomicU64,
    /// Since when every look has found no holder.
    pub(super) free_since: Mutex<Option<Instant>>,
    /// Somebody else holds it, or nobody is known to.
    pub(super) is_theirs: AtomicBool,
    /// The next time as holder is told from the last by this.
    pub(super) times_held: AtomicU64,
    /// The last batch of this writer.
    pub(super) batch: AtomicU64,
    /// One reads what is new at a time.
    pub(super) advancing: tokio::sync::Mutex<()>,
    pub(super) look: Notify,
    /// Where trimming goes on; 0: at the beginning.
    pub(super) trim_at: AtomicU64,
    /// Entries that wait to be appended, and the sign that there are enough for a call.
    pub(super) gathered: AtomicUsize,
    pub(super) enough: Notify,
}

/// A partition that this process holds.
pub(super) struct Held {
    pub(super) token: Bytes,
    /// Of the partition: another one means that everything was lost.
    pub(super) epoch: Bytes,
    pub(super) generation: u8,
    pub(super) index: Index,
    pub(super) version: u64,
    pub(super) dismissed: u64,
    pub(super) entries: u64,
    /// The first number that is not given to a block yet.
    pub(super) next: u64,
    pub(super) renewed: Instant,
    /// Since when it is being given back.
    pub(super) leaving: Option<Instant>,
    pub(super) sending: HashSet<Token>,
    /// Of the shard: another one means that writes may have been lost.
    pub(super) shard_epoch: Option<u64>,
    pub(super) suspicious: bool,
}

impl Held {
    /// Whether nobody else can have taken the partition meanwhile.
    pub(super) fn is_sure(&self) -> bool {
        self.renewed.elapsed() < LEASE_TTL
    }
}

impl Shared {
    pub(super) fn part(&self, partition: u16) -> Option<&Part> {
        self.parts.get(usize::from(partition))
    }

    pub(super) fn changed(&self) {
        self.changes.send_modify(|changes| *changes += 1);
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        let bytes = |part: &Part| part.bytes.load(Ordering::Relaxed);
        self.parts.iter().map(bytes).sum()
    }

    pub(super) fn has_resigned(&self) -> bool {
        self.resigned.load(Ordering::Relaxed)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Runs something on a partition that is held as the token says.
    pub(super) fn with_place<R>(
        &self,
        place: Place,
        then: impl FnOnce(&mut Held) -> Option<R>,
    ) -> Option<R> {
        let mut held = self.part(place.partition)?.held.lock();
        let held = held.as_mut()?;
        let is_it =
            held.generation == place.generation && held.index.is_block(place.number, place.mark);
        if is_it { then(held) } else { None }
    }

    /// Lets a partition go that somebody else has, or that is lost.
    pub(super) fn let_go(&self, partition: u16) {
        let part = &self.parts[usize::from(partition)];
        if part.held.lock().take().is_some() {
            self.cache.lock().drop_partition(partition);
            self.changed();
        }
    }
}

/// What the store says of all lanes of a partition, and of itself.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    pub(super) version: u64,
    pub(super) first: u64,
    pub(super) next: u64,
    pub(super) entries: u64,
    pub(super) lanes: HashMap<Lane, Counts>,
}

impl Numbers {
    /// `fields`: names and values in turn.
    pub(super) fn parse(fields: &[Reply], partition: u16) -> Self {
        let mut numbers = Self::default();
        let number = |reply: &Reply| reply.integer().and_then(|value| u64::try_from(value).ok());
        for pair in fields.chunks_exact(2) {
            let (Some(name), Some(value)) = (pair[0].text(), number(&pair[1])) else {
                continue;
            };
            match name {
                "version" => numbers.version = value,
                "first" => numbers.first = value,
                "next" => numbers.next = value,
                "entries" => numbers.entries = value,
                _ => numbers.lane(name, value, partition),
            }
        }
        for counts in numbers.lanes.values_mut() {
            counts.version = numbers.version;
        }
        numbers
    }

    fn lane(&mut self, name: &str, value: u64, partition: u16) {
        let Some((letter @ ("w" | "b" | "p"), field)) = name.split_at_checked(1) else {
            return;
        };
        let Some(lane) = lane_of(field, partition) else {
            return;
        };
        let counts = self.lanes.entry(lane).or_default();
        match letter {
            "w" => counts.waiting = value,
            "b" => counts.waiting_bytes = value,
            "p" => counts.parked = value,
            _ => {}
        }
    }
}

/// Lanes and their numbers at the end of a script's answer.
pub(super) fn lane_counts(
    answer: &[Reply],
    partition: u16,
    version: u64,
) -> impl Iterator<Item = (Lane, Counts)> + '_ {
    answer.chunks_exact(4).filter_map(move |lane| {
        let number = |at: usize| unsigned(lane.get(at));
        let counts = Counts {
            waiting: number(1),
            waiting_bytes: number(2),
            parked: number(3),
            version,
        };
        Some((lane_of(lane[0].text()?, partition)?, counts))
    })
}

/// 0 for anything else.
pub(super) fn unsigned(reply: Option<&Reply>) -> u64 {
    let number = reply.and_then(Reply::integer).unwrap_or(0);
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn number(value: impl ToString) -> Bytes {
    value.to_string().into()
}

impl From<CallError> for QueueError {
    fn from(error: CallError) -> Self {
        match &error {
            CallError::Refused(reason) if reason.contains("OOM") => Self::Full,
            CallError::Refused(_) | CallError::NotDone(_) | CallError::Unknown(_) => {
                Self::Unavailable(error.to_string().into())
            }
        }
    }
}

/// Unpacked blocks, for claims and loads. The ones that came first go first.
#[derive(Default)]
pub(super) struct Cache {
    blocks: HashMap<(u16, u64), Cached>,
    order: VecDeque<(u16, u64)>,
    bytes: usize,
}

pub(super) type Cached = (Arc<Block>, Arc<States>);

impl Cache {
    pub(super) fn get(&self, partition: u16, number: u64) -> Option<Cached> {
        self.blocks.get(&(partition, number)).cloned()
    }

    pub(super) fn put(&mut self, partition: u16, number: u64, block: Cached) {
        let key = (partition, number);
        self.remove(partition, number);
        self.bytes += block.0.memory_bytes();
        self.blocks.insert(key, block);
        self.order.push_back(key);
        while self.bytes > CACHE_BYTES || self.order.len() > 2 * self.blocks.len() + 64 {
            let Some((partition, number)) = self.order.pop_front() else {
                return;
            };
            // The one that was asked for last stays, however large.
            if (partition, number) != key {
                self.remove(partition, number);
            } else if self.order.is_empty() {
                self.order.push_back(key);
                return;
            }
        }
    }

    pub(super) fn remove(&mut self, partition: u16, number: u64) {
        if let Some((block, _)) = self.blocks.remove(&(partition, number)) {
            self.bytes -= block.memory_bytes();
        }
    }

    pub(super) fn drop_partition(&mut self, partition: u16) {
        let numbers: BTreeSet<u64> = self
            .blocks
            .keys()
            .filter(|(of, _)| *of == partition)
            .map(|(_, number)| *number)
            .collect();
        for number in numbers {
            self.remove(partition, number);
        }
    }
}
