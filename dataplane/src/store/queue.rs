//! The contract of the queue: requests that were accepted and wait to be delivered, and what became of them.
//!
//! Every sentence is a promise that callers rely on, and has a case in `conformance`. Nothing here knows HTTP: a request
//! is bytes. An entry is *waiting* until it is settled, once, with an outcome; settled entries stay until retention
//! removes them. Entries of a lane are claimed in the order in which they were appended.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;
use tokio::sync::watch;

mod ids;
pub(in crate::store) mod record;

pub use self::ids::EntryIds;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QueueError {
    /// The byte budget is used up by entries that may not be removed yet. Nothing was stored.
    #[error("queue is full")]
    Full,
    /// The store does not take writes now (disk full or failing, shutting down). Nothing was acknowledged.
    #[error("queue unavailable: {0}")]
    Unavailable(Arc<str>),
}

/// Names an entry for ever; ids made later by one process are greater. Its upper 48 bits are the time of acceptance in
/// unix milliseconds. Written as a ULID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub u128);

impl EntryId {
    pub fn accepted_ms(self) -> u64 {
        (self.0 >> 80) as u64
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        ulid::Ulid(self.0).fmt(f)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for EntryId {
    type Err = ulid::DecodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<ulid::Ulid>().map(|id| Self(id.0))
    }
}

/// Where an application's entries wait. A partition is what one data plane owns at a time; the embedded queue has one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane {
    pub partition: u16,
    /// Name of the application; empty for unknown keys.
    pub application: Arc<str>,
    /// Replayed entries wait in a lane of their own, which is served when there is nothing fresh.
    pub replay: bool,
}

/// Entries with the same key in one lane are delivered in order. Empty: no order.
pub type OrderingKey = Bytes;

#[derive(Debug, Clone, PartialEq)]
pub struct NewEntry {
    pub id: EntryId,
    pub lane: Lane,
    pub key: OrderingKey,
    /// A second key whose order this entry belongs to as well (Countly's `old_device_id`); empty: none.
    pub barrier: OrderingKey,
    /// Requests it counts for where rates are limited, at least 1.
    pub cost: u32,
    /// The entry this one repeats, by an operator's wish.
    pub replay_of: Option<EntryId>,
    pub request: Bytes,
}

/// Finds an entry again quickly; valid as long as the process and the entry live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// An entry handed out for delivery.
#[derive(Debug, Clone, PartialEq)]
pub struct Claimed {
    pub id: EntryId,
    pub token: Token,
    pub key: OrderingKey,
    pub barrier: OrderingKey,
    pub cost: u32,
    /// Used up before, also by an earlier process.
    pub attempts: u32,
    pub request: Bytes,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    Delivered,
    /// Kept for an operator to see, replay or discard.
    Parked,
    /// An operator's wish.
    Discarded,
    /// Was parked, and an operator had it queued again as another entry.
    Replayed,
}

/// What became of an entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    pub outcome: Outcome,
    /// Machine-readable, in PascalCase, such as `AttemptsExhausted`; empty when there is nothing to say.
    pub reason: Arc<str>,
    /// Of the last attempt; 0: there was no answer.
    pub http_status: u16,
    pub attempts: u32,
    /// Empty: none was asked.
    pub upstream: Arc<str>,
    pub at_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClaimLimits {
    pub entries: usize,
    /// Of requests; one entry is handed out whatever its size.
    pub bytes: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LaneStats {
    pub lane: Lane,
    pub waiting: u64,
    /// Of requests as they were given, before compression.
    pub waiting_bytes: u64,
    /// When the oldest waiting entry was accepted.
    pub oldest_ms: Option<u64>,
    pub parked: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueStats {
    pub waiting: u64,
    pub waiting_bytes: u64,
    pub parked: u64,
    /// Settled ones included.
    pub entries: u64,
    /// What the store uses of its budget.
    pub stored_bytes: u64,
    pub budget_bytes: u64,
    /// Whether an append would be taken now.
    pub accepting: bool,
}

/// Where retention cuts.
#[derive(Debug, Clone, PartialEq)]
pub struct Horizon {
    pub default: Duration,
    pub by_application: BTreeMap<Arc<str>, Duration>,
    pub budget_bytes: u64,
}

/// Which entries to find; what is `None` is not asked.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Filter {
    pub application: Option<Arc<str>>,
    pub key: Option<OrderingKey>,
    /// Accepted at or after, and before.
    pub from_ms: Option<u64>,
    pub until_ms: Option<u64>,
    pub state: Option<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum State {
    Waiting,
    Settled(Outcome),
}

/// An entry as an operator sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    pub id: EntryId,
    pub lane: Lane,
    pub key: OrderingKey,
    pub barrier: OrderingKey,
    pub cost: u32,
    pub replay_of: Option<EntryId>,
    pub request_bytes: u32,
    /// `None`: waiting.
    pub verdict: Option<Verdict>,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct Page {
    /// Oldest first.
    pub found: Vec<Found>,
    /// Where to go on; `None`: that was all.
    pub next: Option<EntryId>,
}

#[async_trait]
pub trait Queue: Send + Sync {
    /// Where entries of an application with this key belong. An entry's second key leads to the same partition.
    fn partition_of(&self, _application: &str, _key: &[u8]) -> u16 {
        0
    }

    /// Stores an entry. When it returns `Ok` the entry is durable as configured and will be claimed. After an error
    /// it is not known to be stored, and the same entry may be appended again. Appends that come together are
    /// stored together.
    async fn append(&self, entry: NewEntry) -> Result<(), QueueError>;

    /// Changes whenever a lane may have something to claim that it did not have before.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Lanes that have something waiting or parked.
    fn lanes(&self) -> Vec<LaneStats>;

    fn stats(&self) -> QueueStats;

    /// The next waiting entries of a lane, in order, each handed out once per process. Empty: nothing left for now.
    async fn claim(&self, lane: &Lane, limits: ClaimLimits) -> Result<Vec<Claimed>, QueueError>;

    /// Requests of claimed entries again, in the order asked: whoever claimed them need not keep them. An entry that was
    /// settled meanwhile may be `None`.
    async fn load(&self, tokens: &[Token]) -> Result<Vec<Option<Bytes>>, QueueError>;

    /// Whether a claimed entry is still this process's to deliver; asked right before each attempt. After `false` it is not,
    /// and is to be forgotten: another process delivers it, or an operator dismissed it.
    fn may_send(&self, _token: Token) -> bool {
        true
    }

    /// Records verdicts of claimed entries. When it returns, a process that is killed does not hand them out again.
    /// An entry already settled keeps its verdict.
    async fn settle(&self, verdicts: Vec<(Token, Verdict)>) -> Result<(), QueueError>;

    /// Records how many attempts a claimed entry has used up.
    async fn record_attempts(&self, token: Token, attempts: u32) -> Result<(), QueueError>;

    /// Settles a waiting or parked entry for an operator as `Discarded` or `Replayed`. `false`: it is not there, or
    /// neither waiting nor parked. Who claimed it learns it from [`Queue::load`] or not at all.
    async fn dismiss(&self, id: EntryId, verdict: Verdict) -> Result<bool, QueueError>;

    /// Entries that match, oldest first, beginning after `after`.
    async fn find(
        &self,
        filter: &Filter,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Page, QueueError>;

    /// One entry with its request.
    async fn get(&self, id: EntryId) -> Result<Option<(Found, Bytes)>, QueueError>;

    /// Sets where retention cuts, and removes what lies below it: settled entries older than their time, and, oldest
    /// first, more settled ones when the budget is short. Waiting entries are never removed.
    async fn trim(&self, horizon: &Horizon, now_ms: u64) -> Result<(), QueueError>;
}
