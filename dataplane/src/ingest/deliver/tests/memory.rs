//! A queue in memory, with faults on demand.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::store::queue::{
    ClaimLimits, Claimed, EntryId, Filter, Found, Horizon, Lane, LaneStats, NewEntry, Outcome,
    Page, Queue, QueueError, QueueStats, State, Token, Verdict,
};

struct Entry {
    new: NewEntry,
    claimed: bool,
    attempts: u32,
    verdict: Option<Verdict>,
}

#[derive(Default)]
struct Inner {
    entries: BTreeMap<EntryId, Entry>,
    tokens: HashMap<Token, EntryId>,
    /// Ids in the order in which they were appended.
    lanes: BTreeMap<Lane, Vec<EntryId>>,
    settle_calls: usize,
}

pub(in crate::ingest) struct MemoryQueue {
    inner: Mutex<Inner>,
    changes: watch::Sender<u64>,
    pub(in crate::ingest) fail_settle: AtomicBool,
    pub(in crate::ingest) fail_reads: AtomicBool,
    pub(in crate::ingest) full: AtomicBool,
}

impl MemoryQueue {
    pub(in crate::ingest) fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            changes: watch::Sender::new(0),
            fail_settle: AtomicBool::new(false),
            fail_reads: AtomicBool::new(false),
            full: AtomicBool::new(false),
        })
    }

    pub(in crate::ingest) fn verdict(&self, id: EntryId) -> Option<Verdict> {
        self.inner.lock().entries.get(&id)?.verdict.clone()
    }

    pub(in crate::ingest) fn settled(&self, outcome: Outcome) -> usize {
        let inner = self.inner.lock();
        let verdicts = inner
            .entries
            .values()
            .filter_map(|entry| entry.verdict.as_ref());
        verdicts
            .filter(|verdict| verdict.outcome == outcome)
            .count()
    }

    pub(in crate::ingest) fn waiting(&self) -> usize {
        let inner = self.inner.lock();
        inner
            .entries
            .values()
            .filter(|entry| entry.verdict.is_none())
            .count()
    }

    pub(in crate::ingest) fn attempts(&self, id: EntryId) -> u32 {
        self.inner.lock().entries[&id].attempts
    }

    pub(in crate::ingest) fn settle_calls(&self) -> usize {
        self.inner.lock().settle_calls
    }

    fn failure(flag: &AtomicBool) -> Result<(), QueueError> {
        if flag.load(Ordering::Relaxed) {
            return Err(QueueError::Unavailable("told to fail".into()));
        }
        Ok(())
    }
}

fn found(entry: &Entry) -> Found {
    let new = &entry.new;
    Found {
        id: new.id,
        lane: new.lane.clone(),
        key: new.key.clone(),
        barrier: new.barrier.clone(),
        cost: new.cost,
        replay_of: new.replay_of,
        request_bytes: new.request.len() as u32,
        verdict: entry.verdict.clone(),
    }
}

fn matches(entry: &Entry, filter: &Filter) -> bool {
    let state = entry
        .verdict
        .as_ref()
        .map_or(State::Waiting, |verdict| State::Settled(verdict.outcome));
    let at = entry.new.id.accepted_ms();
    filter
        .application
        .as_ref()
        .is_none_or(|application| *application == entry.new.lane.application)
        && filter.key.as_ref().is_none_or(|key| *key == entry.new.key)
        && filter.from_ms.is_none_or(|from| at >= from)
        && filter.until_ms.is_none_or(|until| at < until)
        && filter.state.is_none_or(|wanted| wanted == state)
}

#[async_trait]
impl Queue for MemoryQueue {
    async fn append(&self, entry: NewEntry) -> Result<(), QueueError> {
        if self.full.load(Ordering::Relaxed) {
            return Err(QueueError::Full);
        }
        let mut inner = self.inner.lock();
        let token = Token(inner.tokens.len() as u64);
        inner.tokens.insert(token, entry.id);
        inner
            .lanes
            .entry(entry.lane.clone())
            .or_default()
            .push(entry.id);
        let stored = Entry {
            new: entry,
            claimed: false,
            attempts: 0,
            verdict: None,
        };
        inner.entries.insert(stored.new.id, stored);
        self.changes.send_modify(|changes| *changes += 1);
        Ok(())
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn lanes(&self) -> Vec<LaneStats> {
        let inner = self.inner.lock();
        let lanes = inner.lanes.iter().map(|(lane, ids)| {
            let entries = || ids.iter().map(|id| &inner.entries[id]);
            let waiting = entries().filter(|entry| entry.verdict.is_none());
            let is_parked = |verdict: &Verdict| verdict.outcome == Outcome::Parked;
            LaneStats {
                lane: lane.clone(),
                waiting: waiting.clone().count() as u64,
                waiting_bytes: waiting
                    .clone()
                    .map(|entry| entry.new.request.len() as u64)
                    .sum(),
                oldest_ms: waiting
                    .clone()
                    .map(|entry| entry.new.id.accepted_ms())
                    .min(),
                parked: entries()
                    .filter(|entry| entry.verdict.as_ref().is_some_and(is_parked))
                    .count() as u64,
            }
        });
        lanes
            .filter(|lane| lane.waiting + lane.parked > 0)
            .collect()
    }

    fn stats(&self) -> QueueStats {
        QueueStats {
            waiting: self.waiting() as u64,
            accepting: true,
            ..QueueStats::default()
        }
    }

    async fn claim(&self, lane: &Lane, limits: ClaimLimits) -> Result<Vec<Claimed>, QueueError> {
        Self::failure(&self.fail_reads)?;
        tokio::task::yield_now().await;
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let mut claimed = Vec::new();
        let mut bytes = 0;
        let tokens: HashMap<EntryId, Token> = inner
            .tokens
            .iter()
            .map(|(token, id)| (*id, *token))
            .collect();
        for id in inner.lanes.get(lane).into_iter().flatten() {
            let entry = inner.entries.get_mut(id).unwrap();
            if entry.claimed || entry.verdict.is_some() {
                continue;
            }
            bytes += entry.new.request.len();
            if claimed.len() == limits.entries || (bytes > limits.bytes && !claimed.is_empty()) {
                break;
            }
            entry.claimed = true;
            claimed.push(Claimed {
                id: *id,
                token: tokens[id],
                key: entry.new.key.clone(),
                barrier: entry.new.barrier.clone(),
                cost: entry.new.cost,
                attempts: entry.attempts,
                request: entry.new.request.clone(),
            });
        }
        Ok(claimed)
    }

    async fn load(&self, tokens: &[Token]) -> Result<Vec<Option<Bytes>>, QueueError> {
        Self::failure(&self.fail_reads)?;
        let inner = self.inner.lock();
        let load = |token: &Token| {
            let entry = &inner.entries[&inner.tokens[token]];
            entry.verdict.is_none().then(|| entry.new.request.clone())
        };
        Ok(tokens.iter().map(load).collect())
    }

    async fn settle(&self, verdicts: Vec<(Token, Verdict)>) -> Result<(), QueueError> {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        Self::failure(&self.fail_settle)?;
        let mut inner = self.inner.lock();
        inner.settle_calls += 1;
        for (token, verdict) in verdicts {
            let id = inner.tokens[&token];
            inner
                .entries
                .get_mut(&id)
                .unwrap()
                .verdict
                .get_or_insert(verdict);
        }
        Ok(())
    }

    async fn record_attempts(&self, token: Token, attempts: u32) -> Result<(), QueueError> {
        let mut inner = self.inner.lock();
        let id = inner.tokens[&token];
        inner.entries.get_mut(&id).unwrap().attempts = attempts;
        Ok(())
    }

    async fn dismiss(&self, id: EntryId, verdict: Verdict) -> Result<bool, QueueError> {
        let mut inner = self.inner.lock();
        let Some(entry) = inner.entries.get_mut(&id) else {
            return Ok(false);
        };
        let parked = |verdict: &Verdict| verdict.outcome == Outcome::Parked;
        let open = entry.verdict.as_ref().is_none_or(parked);
        if open {
            entry.verdict = Some(verdict);
        }
        Ok(open)
    }

    async fn find(
        &self,
        filter: &Filter,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Page, QueueError> {
        let inner = self.inner.lock();
        let mut all = inner
            .entries
            .iter()
            .filter(|(id, entry)| after.is_none_or(|after| **id > after) && matches(entry, filter))
            .map(|(_, entry)| found(entry));
        let found: Vec<Found> = all.by_ref().take(limit).collect();
        let next = all.next().and(found.last().map(|last| last.id));
        Ok(Page { found, next })
    }

    async fn get(&self, id: EntryId) -> Result<Option<(Found, Bytes)>, QueueError> {
        let inner = self.inner.lock();
        let entry = inner.entries.get(&id);
        Ok(entry.map(|entry| (found(entry), entry.new.request.clone())))
    }

    async fn trim(&self, _horizon: &Horizon, _now_ms: u64) -> Result<(), QueueError> {
        Ok(())
    }
}
