//! The queue in Redis, for several data planes at once.
//!
//! *Where an entry lies.* A gateway has `QUEUE_PARTITIONS` partitions; all entries of one application lie in one of
//! them. An entry may be ordered with two keys, or with all of its application's: only a partition of the whole
//! application keeps that without asking others. It also lets entries that come together be stored together, which is
//! what makes an entry cheap. The price: one data plane at a time delivers an application.
//!
//! *What is stored.* A partition's keys share a slot: blocks (`q:b`, a hash by sequence number), states of their entries
//! (`q:s`), numbers (`q:n`: what is next, what waits per lane, the holder's token), the lease (`q:l`). Any data plane
//! appends blocks; only the holder of the lease claims, settles and deletes. Each of its scripts checks its token, so a
//! holder that was replaced changes nothing.
//!
//! *What is promised.* `Memory` and `Group`: acknowledged when the primary has it; what a restart or a failover of the
//! primary loses is up to `appendfsync` and to replication, milliseconds to about two seconds. `Replicated`: acknowledged
//! when a replica has it as well. Deliveries are repeated, never lost, when a holder dies or verdicts are lost.
//!
//! Parts: `writer`, `settler` (batches), `keeper` (leases), `follower` (what others appended), `reader` (claims), `search`, `retention`,
//! `servers`; pure: `block`, `records`, `index`, `balance`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use sluice_crds::config::Durability;
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

mod balance;
mod block;
mod follower;
mod index;
mod keeper;
mod keys;
mod limits;
mod reader;
mod records;
mod retention;
mod search;
mod servers;
mod settler;
mod shared;
#[cfg(test)]
mod tests;
mod writer;

use self::keys::{Keys, Place};
use self::limits::{
    APPEND_BYTES, APPEND_JOBS, APPEND_WAITING_BYTES, ENTRY_BYTES_MAX, NAME_BYTES_MAX,
    QUEUE_PARTITIONS, SETTLE_BYTES, SETTLE_JOBS, SETTLE_WAITING_BYTES,
};
use self::records::What;
use self::settler::Record;
use self::shared::{Part, Shared};
use self::writer::Append;
use super::cluster::Cluster;
use super::lanes::{Full, Lanes, Limits};
use super::limits::CALL_DEADLINE;
use super::slots::Partitions;
use crate::store::queue::{
    ClaimLimits, Claimed, EntryId, EntryIds, Filter, Found, Horizon, Lane, LaneStats, NewEntry,
    Page, Queue, QueueError, QueueStats, Token, Verdict,
};

/// What a record costs in the room for waiting ones.
const RECORD_BYTES: usize = 128;
/// What closing waits for deliveries under way.
const CLOSE_GRACE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueSettings {
    /// Names the data plane for people; need not be unique.
    pub holder: String,
    pub durability: Durability,
    pub budget_bytes: u64,
}

/// [`Queue`] in Redis. Dropping it is as if the process was killed: its partitions are taken over when the leases run
/// out. [`RedisQueue::close`] gives them back.
pub struct RedisQueue {
    shared: Arc<Shared>,
    ids: EntryIds,
    tasks: Mutex<Vec<AbortHandle>>,
}

impl RedisQueue {
    /// Waits for nothing: partitions are taken, and entries found, as the servers answer.
    pub fn start(cluster: Arc<Cluster>, settings: QueueSettings) -> Arc<Self> {
        let shared = Arc::new_cyclic(|shared| new_shared(cluster, settings, shared));
        let runtime = shared.cluster.runtime().clone();
        let mut tasks = vec![
            runtime
                .spawn(keeper::keep(Arc::clone(&shared)))
                .abort_handle(),
        ];
        for partition in 0..QUEUE_PARTITIONS {
            let follow = follower::follow(Arc::clone(&shared), partition);
            tasks.push(runtime.spawn(follow).abort_handle());
        }
        Arc::new(Self {
            shared,
            ids: EntryIds::new(EntryId(0)),
            tasks: Mutex::new(tasks),
        })
    }

    /// Makes the ids of this process's entries.
    pub fn ids(&self) -> &EntryIds {
        &self.ids
    }

    pub fn set_durability(&self, durability: Durability) {
        *self.shared.durability.write() = durability;
    }

    pub fn set_budget(&self, bytes: u64) {
        self.shared.budget_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Why the servers are no good place for a queue; empty: they are. For `/readyz`, beside the cluster's own trouble.
    pub fn trouble(&self) -> watch::Receiver<Arc<str>> {
        self.shared.trouble.subscribe()
    }

    /// How many partitions this process holds, of how many.
    pub fn held(&self) -> (usize, usize) {
        let parts = &self.shared.parts;
        let held = parts.iter().filter(|part| part.held.lock().is_some());
        (held.count(), parts.len())
    }

    /// Claims nothing more, and gives partitions to others as soon as nothing of them is under way. Entries are still taken.
    pub fn resign(&self) {
        self.shared.resigned.store(true, Ordering::Relaxed);
        self.shared.resigns.notify_one();
    }

    /// Takes nothing more, waits a little for deliveries under way, and gives the partitions back. What is called
    /// afterwards finds nothing, or answers [`QueueError::Unavailable`].
    pub async fn close(&self) {
        let shared = &self.shared;
        if shared.is_closed.swap(true, Ordering::Relaxed) {
            return;
        }
        let now = Instant::now();
        let mut is_busy = true;
        while is_busy && now.elapsed() < CLOSE_GRACE {
            let busy = |part: &Part| {
                let held = part.held.lock();
                held.as_ref().is_some_and(|held| !held.sending.is_empty())
            };
            is_busy = shared.parts.iter().any(busy);
            if is_busy {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
        let gives = (0..QUEUE_PARTITIONS).map(|partition| async move {
            let is_held = match shared.parts[usize::from(partition)].held.lock().as_mut() {
                Some(held) => {
                    held.sending.clear();
                    held.leaving = Some(now);
                    true
                }
                None => false,
            };
            if is_held {
                keeper::lease(shared, partition, false).await;
            }
        });
        join_all(gives).await;
        // Nobody waits for its share any more; without an answer they do so for some seconds.
        let _ = keeper::pods(shared, true).await;
    }
}

impl Drop for RedisQueue {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Relaxed);
        for task in self.tasks.lock().drain(..) {
            task.abort();
        }
    }
}

fn new_shared(
    cluster: Arc<Cluster>,
    settings: QueueSettings,
    shared: &std::sync::Weak<Shared>,
) -> Shared {
    let partitions = Partitions::new(&cluster.settings().gateway, QUEUE_PARTITIONS);
    let writer = format!("{:016x}", fastrand::u64(..));
    let runtime = cluster.runtime().clone();
    let appends = Limits {
        batch_jobs: APPEND_JOBS,
        batch_bytes: APPEND_BYTES,
        waiting_bytes: APPEND_WAITING_BYTES,
    };
    let settles = Limits {
        batch_jobs: SETTLE_JOBS,
        batch_bytes: SETTLE_BYTES,
        waiting_bytes: SETTLE_WAITING_BYTES,
    };
    let (of_appends, of_settles) = (shared.clone(), shared.clone());
    Shared {
        keys: (0..QUEUE_PARTITIONS)
            .map(|partition| Keys::new(&partitions, partition))
            .collect(),
        parts: (0..QUEUE_PARTITIONS).map(|_| Part::default()).collect(),
        appends: Lanes::new(
            QUEUE_PARTITIONS,
            appends,
            runtime.clone(),
            Box::new(move |partition, jobs| {
                let shared = of_appends.clone();
                Box::pin(async move {
                    if let Some(shared) = shared.upgrade() {
                        writer::carry_out(shared, partition, jobs).await;
                    }
                })
            }),
        ),
        settles: Lanes::new(
            QUEUE_PARTITIONS,
            settles,
            runtime,
            Box::new(move |partition, jobs| {
                let shared = of_settles.clone();
                Box::pin(async move {
                    if let Some(shared) = shared.upgrade() {
                        settler::carry_out(shared, partition, jobs).await;
                    }
                })
            }),
        ),
        holder: format!("{}.{writer}", settings.holder),
        writer: writer.into(),
        partitions,
        cluster,
        cache: Mutex::default(),
        changes: watch::Sender::new(0),
        durability: RwLock::new(settings.durability),
        budget_bytes: AtomicU64::new(settings.budget_bytes),
        horizon: Mutex::new(None),
        full: RwLock::default(),
        unreplicated: RwLock::default(),
        is_full: AtomicBool::new(false),
        is_closed: AtomicBool::new(false),
        resigned: AtomicBool::new(false),
        resigns: Notify::new(),
        is_alone: AtomicBool::new(false),
        trouble: watch::Sender::new(Arc::default()),
        making_room: tokio::sync::Mutex::default(),
    }
}

fn shutting_down() -> QueueError {
    QueueError::Unavailable("shutting down".into())
}

fn too_much(_: Full) -> QueueError {
    QueueError::Unavailable("too much is waiting to be stored".into())
}

impl RedisQueue {
    /// Whether the entry may go to its partition's server now.
    fn check_server(&self, partition: u16) -> Result<(), QueueError> {
        let shared = &self.shared;
        let topology = shared.cluster.topology().borrow().clone();
        let slot = shared.keys[usize::from(partition)].slot;
        let Some(shard) = topology.shard(slot) else {
            return Ok(());
        };
        if shared.full.read().contains(&shard.primary) {
            return Err(QueueError::Full);
        }
        let needs_replica = *shared.durability.read() == Durability::Replicated;
        if needs_replica && shared.unreplicated.read().contains(&shard.primary) {
            let reason = format!("redis server {} has no replica", shard.primary);
            return Err(QueueError::Unavailable(reason.into()));
        }
        Ok(())
    }

    async fn record(&self, entries: Vec<(Token, What)>) -> Result<(), QueueError> {
        let mut by_partition: Vec<Vec<(Place, What)>> = Vec::new();
        by_partition.resize_with(usize::from(QUEUE_PARTITIONS), Vec::new);
        for (token, what) in entries {
            if let Some(place) = Place::of(token) {
                by_partition[usize::from(place.partition)].push((place, what));
            }
        }
        let mut answers = Vec::new();
        for (partition, entries) in by_partition.into_iter().enumerate() {
            if entries.is_empty() {
                continue;
            }
            let (done, answer) = oneshot::channel();
            let bytes = entries.len() * RECORD_BYTES;
            let record = Record { entries, done };
            self.shared
                .settles
                .submit(partition as u16, record, bytes)
                .map_err(too_much)?;
            answers.push(answer);
        }
        for answer in answers {
            answer.await.map_err(|_| shutting_down())??;
        }
        Ok(())
    }
}

#[async_trait]
impl Queue for RedisQueue {
    fn partition_of(&self, application: &str, _key: &[u8]) -> u16 {
        self.shared.partitions.of(application.as_bytes())
    }

    async fn append(&self, entry: NewEntry) -> Result<(), QueueError> {
        let shared = &self.shared;
        let partition = entry.lane.partition;
        let bytes = entry.request.len() + entry.key.len() + entry.barrier.len();
        let name_bytes = entry.lane.application.len();
        if bytes > ENTRY_BYTES_MAX || name_bytes > NAME_BYTES_MAX || partition >= QUEUE_PARTITIONS {
            return Err(QueueError::Unavailable("the entry is too large".into()));
        }
        if shared.is_closed() {
            return Err(shutting_down());
        }
        self.check_server(partition)?;
        if !retention::has_room(shared, bytes as u64).await {
            return Err(QueueError::Full);
        }
        let (done, answer) = oneshot::channel();
        let append = Append { entry, done };
        let part = &shared.parts[usize::from(partition)];
        writer::gathered_one(part);
        let submitted = shared
            .appends
            .submit(partition, append, bytes + RECORD_BYTES);
        if let Err(full) = submitted {
            part.gathered.fetch_sub(1, Ordering::Relaxed);
            return Err(too_much(full));
        }
        match tokio::time::timeout(CALL_DEADLINE, answer).await {
            Ok(answer) => answer.map_err(|_| shutting_down())?,
            Err(_) => Err(QueueError::Unavailable("redis does not answer".into())),
        }
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Of the partitions that this process holds.
    fn lanes(&self) -> Vec<LaneStats> {
        let mut lanes = Vec::new();
        for part in &self.shared.parts {
            if let Some(held) = &*part.held.lock() {
                lanes.extend(held.index.lane_stats());
            }
        }
        lanes
    }

    /// Entries are counted by whoever holds their partition, so that sums over data planes are right; bytes are those of
    /// all partitions, since the budget is.
    fn stats(&self) -> QueueStats {
        let shared = &self.shared;
        let budget_bytes = shared.budget_bytes.load(Ordering::Relaxed);
        let mut stats = QueueStats {
            stored_bytes: shared.stored_bytes(),
            budget_bytes,
            accepting: !shared.is_closed()
                && !shared.is_full.load(Ordering::Relaxed)
                && shared.full.read().is_empty(),
            ..QueueStats::default()
        };
        for part in &shared.parts {
            if let Some(held) = &*part.held.lock() {
                stats.entries += held.entries;
                for lane in held.index.lane_stats() {
                    stats.waiting += lane.waiting;
                    stats.waiting_bytes += lane.waiting_bytes;
                    stats.parked += lane.parked;
                }
            }
        }
        stats
    }

    async fn claim(&self, lane: &Lane, limits: ClaimLimits) -> Result<Vec<Claimed>, QueueError> {
        reader::claim(&self.shared, lane, limits).await
    }

    async fn load(&self, tokens: &[Token]) -> Result<Vec<Option<Bytes>>, QueueError> {
        reader::load(&self.shared, tokens).await
    }

    fn may_send(&self, token: Token) -> bool {
        let Some(place) = Place::of(token) else {
            return false;
        };
        let sends = self.shared.with_place(place, |held| {
            let is_known = held.sending.contains(&token);
            let may = held.is_sure() && (is_known || held.leaving.is_none());
            let is_claimed = held.index.settling(place.number, place.index).is_some();
            (may && is_claimed).then(|| held.sending.insert(token))
        });
        sends.is_some()
    }

    async fn settle(&self, verdicts: Vec<(Token, Verdict)>) -> Result<(), QueueError> {
        let records = verdicts
            .into_iter()
            .map(|(token, verdict)| (token, What::Settled(verdict)));
        self.record(records.collect()).await
    }

    async fn record_attempts(&self, token: Token, attempts: u32) -> Result<(), QueueError> {
        self.record(vec![(token, What::Attempts(attempts))]).await
    }

    async fn dismiss(&self, id: EntryId, verdict: Verdict) -> Result<bool, QueueError> {
        let Some(located) = search::locate(&self.shared, id).await? else {
            return Ok(false);
        };
        let what = What::Settled(verdict);
        settler::dismiss(&self.shared, located.place, located.settling, &what).await
    }

    async fn find(
        &self,
        filter: &Filter,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Page, QueueError> {
        search::find(&self.shared, filter, after, limit).await
    }

    async fn get(&self, id: EntryId) -> Result<Option<(Found, Bytes)>, QueueError> {
        match search::locate(&self.shared, id).await? {
            Some(located) => Ok(Some(located.request(&self.shared).await?)),
            None => Ok(None),
        }
    }

    async fn trim(&self, horizon: &Horizon, now_ms: u64) -> Result<(), QueueError> {
        retention::trim(&self.shared, horizon, now_ms).await
    }
}
