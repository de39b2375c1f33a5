//! The queue on a local disk: an own log of segments, written by one thread with group commit.
//!
//! Parts: `front` and `writer` (appends), `state` (what is known, in memory), `settler` (verdicts), `lookup`
//! (searches), `upkeep`, `retention` and `compact` (what goes), `recovery` (the start). Files of a segment: `log`,
//! `index`, `verdicts`, `checkpoint`. Memory does not grow with the number of waiting entries. Five threads do all disk
//! I/O; callers wait for them without blocking, from any runtime or none. A lock file keeps a second process out.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use sluice_crds::config::Durability;
use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tracing::{error, info};

mod bits;
mod block;
mod cache;
mod checkpoint;
mod compact;
mod disk;
mod front;
mod index;
mod jobs;
mod limits;
mod log;
mod lookup;
mod recovery;
mod retention;
mod segment;
mod settler;
mod shared;
mod state;
#[cfg(test)]
mod tests;
mod upkeep;
mod verdicts;
mod writer;

use self::block::Unpacker;
use self::disk::{Disk, Layout, RealDisk};
use self::front::{Append, shutting_down};
use self::jobs::{Jobs, JobsReceiver};
use self::limits::{ENTRY_BYTES_MAX, NAME_BYTES_MAX, READS_MAX, SEARCHES_MAX};
use self::settler::{Settle, Settler};
use self::shared::{Parts, Shared};
use self::state::Claiming;
use self::upkeep::Keeper;
use self::verdicts::{Record, What};
use self::writer::Writer;
use crate::store::queue::{
    ClaimLimits, Claimed, EntryId, EntryIds, Filter, Found, Horizon, Lane, LaneStats, NewEntry,
    Page, Queue, QueueError, QueueStats, Token, Verdict,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueOptions {
    pub durability: Durability,
    /// Of all files together.
    pub budget_bytes: u64,
}

#[derive(Debug, Error)]
pub enum OpenError {
    #[error("{path} is in use by another process")]
    InUse { path: PathBuf },
    #[error("{path} was written by a later version (format {version})")]
    Version { path: PathBuf, version: u32 },
    #[error("cannot open {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
}

impl OpenError {
    fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        Self::Io { path, source }
    }
}

/// [`Queue`] in a directory of its own. Dropping it ends its threads as [`EmbeddedQueue::shutdown`] does.
pub struct EmbeddedQueue {
    shared: Arc<Shared>,
    ids: EntryIds,
    running: Mutex<Option<Running>>,
}

struct Running {
    writer: JoinHandle<()>,
    settler: JoinHandle<()>,
    readers: Vec<JoinHandle<()>>,
    keeper: JoinHandle<()>,
    /// Held until the end.
    _lock: File,
}

impl EmbeddedQueue {
    /// Opens or makes the queue in `<dir>/queue`. Takes as long as reading what is not summed up: seconds at most.
    pub fn open(dir: &Path, options: QueueOptions) -> Result<Arc<Self>, OpenError> {
        Self::open_on(dir, options, Arc::new(RealDisk))
    }

    fn open_on(
        dir: &Path,
        options: QueueOptions,
        disk: Arc<dyn Disk>,
    ) -> Result<Arc<Self>, OpenError> {
        let dir = dir.join("queue");
        let io = |error| OpenError::io(&dir, error);
        fs::create_dir_all(&dir).map_err(io)?;
        let layout = Layout::new(dir.clone());
        let lock = take_lock(&layout)?;
        let recovered = recovery::recover(&layout)?;
        let (reads, reads_receiver) = Jobs::new(READS_MAX);
        let (searches, searches_receiver) = Jobs::new(SEARCHES_MAX);
        let shared = Arc::new(Shared::new(Parts {
            layout,
            disk,
            state: recovered.state,
            reads,
            searches,
            budget_bytes: options.budget_bytes,
            durability: options.durability,
            damaged: recovered.damaged,
        }));
        let mut unpacker = Unpacker::new().map_err(io)?;
        let lanes = shared.state.lock().lanes.len();
        for lane in 0..lanes {
            shared.refresh(lane as u32, &mut unpacker);
        }
        let stats = shared.state.lock().stats(options.budget_bytes, true);
        info!(
            waiting = stats.waiting,
            entries = stats.entries,
            bytes = stats.stored_bytes,
            "opened the queue"
        );
        let receivers = [reads_receiver, searches_receiver];
        let running = start(&shared, recovered.next_seq, receivers, lock).map_err(io)?;
        Ok(Arc::new(Self {
            shared,
            ids: EntryIds::new(recovered.max_id),
            running: Mutex::new(Some(running)),
        }))
    }

    /// Makes the ids of this queue's entries.
    pub fn ids(&self) -> &EntryIds {
        &self.ids
    }

    pub fn set_durability(&self, durability: Durability) {
        self.shared.set_durability(durability);
    }

    pub fn set_budget(&self, bytes: u64) {
        self.shared.set_budget(bytes);
    }

    /// Stretches of its files that could not be read since it was opened. Their entries are lost.
    pub fn damaged(&self) -> u64 {
        self.shared.damaged.load(Ordering::Relaxed)
    }

    /// Takes no more, writes what was taken, and ends the threads. Blocks until that is done. What is called
    /// afterwards answers [`QueueError::Unavailable`].
    pub fn shutdown(&self) {
        let Some(running) = self.running.lock().take() else {
            return;
        };
        let shared = &self.shared;
        shared.front.close();
        join(running.writer);
        shared.reads.close();
        shared.searches.close();
        running.readers.into_iter().for_each(join);
        shared.settles.close();
        join(running.settler);
        // Last: it writes down what the others left.
        shared.upkeep.close();
        join(running.keeper);
        shared.state.lock().drop_caches();
    }
}

impl Drop for EmbeddedQueue {
    fn drop(&mut self) {
        self.shutdown();
    }
}

fn take_lock(layout: &Layout) -> Result<File, OpenError> {
    let path = layout.lock();
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    let file = options
        .open(&path)
        .map_err(|error| OpenError::io(&path, error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse {
            path: layout.dir().to_owned(),
        }),
        Err(TryLockError::Error(error)) => Err(OpenError::io(&path, error)),
    }
}

fn start(
    shared: &Arc<Shared>,
    next_seq: u64,
    receivers: [JobsReceiver; 2],
    lock: File,
) -> io::Result<Running> {
    let writer = Writer::new(shared.clone(), next_seq)?;
    let settler = Settler::new(shared.clone());
    let keeper = Keeper::new(shared.clone(), Unpacker::new()?);
    let mut readers = Vec::new();
    for (receiver, name) in receivers.into_iter().zip(["queue-read", "queue-search"]) {
        let unpacker = Unpacker::new()?;
        let shared = shared.clone();
        readers.push(spawn(name, move || receiver.serve(&shared, unpacker))?);
    }
    Ok(Running {
        writer: spawn("queue-write", move || writer.run())?,
        settler: spawn("queue-settle", move || settler.run())?,
        keeper: spawn("queue-keep", move || keeper.run())?,
        readers,
        _lock: lock,
    })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    thread::Builder::new().name(name.into()).spawn(run)
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        error!("a thread of the queue panicked");
    }
}

fn unavailable(error: &io::Error) -> QueueError {
    QueueError::Unavailable(format!("cannot read: {error}").into())
}

#[async_trait]
impl Queue for EmbeddedQueue {
    async fn append(&self, entry: NewEntry) -> Result<(), QueueError> {
        if front::size_of_entry(&entry) > ENTRY_BYTES_MAX
            || entry.lane.application.len() > NAME_BYTES_MAX
        {
            return Err(QueueError::Unavailable("the entry is too large".into()));
        }
        let (done, answer) = oneshot::channel();
        self.shared.front.push(Append { entry, done })?;
        answer.await.map_err(|_| shutting_down())?
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    fn lanes(&self) -> Vec<LaneStats> {
        self.shared.state.lock().lane_stats()
    }

    fn stats(&self) -> QueueStats {
        let accepting = self.shared.front.is_accepting();
        let budget_bytes = self.shared.budget_bytes();
        self.shared.state.lock().stats(budget_bytes, accepting)
    }

    async fn claim(&self, lane: &Lane, limits: ClaimLimits) -> Result<Vec<Claimed>, QueueError> {
        let mut claiming = Claiming::default();
        let (id, complete, known) = {
            let mut state = self.shared.state.lock();
            let Some(id) = state.find_lane(lane) else {
                return Ok(Vec::new());
            };
            let complete = state.claim(id, limits, &mut claiming).is_none();
            (id, complete, complete && state.refresh(id).is_none())
        };
        // What is at hand goes out at once; what must be read is read meanwhile, for the next call.
        if complete || !claiming.claimed.is_empty() {
            if !known {
                let ahead = move |shared: &Shared, unpacker: &mut Unpacker| {
                    shared.refresh(id, unpacker);
                };
                self.shared.reads.hint(ahead);
            }
            return Ok(claiming.claimed);
        }
        let claim = move |shared: &Shared, unpacker: &mut Unpacker| {
            let mut claiming = Claiming::default();
            loop {
                let missing = shared.state.lock().claim(id, limits, &mut claiming);
                let Some(missing) = missing else { break };
                if let Err(error) = shared.fetch(missing, unpacker) {
                    // What is claimed must reach the caller: it is not handed out again.
                    if claiming.claimed.is_empty() {
                        return Err(unavailable(&error));
                    }
                    break;
                }
            }
            shared.refresh(id, unpacker);
            Ok(claiming.claimed)
        };
        self.shared.reads.run(claim).await
    }

    async fn load(&self, tokens: &[Token]) -> Result<Vec<Option<Bytes>>, QueueError> {
        let at_hand: Result<Vec<_>, _> = {
            let mut state = self.shared.state.lock();
            tokens.iter().map(|token| state.load(*token)).collect()
        };
        if let Ok(requests) = at_hand {
            return Ok(requests);
        }
        let tokens = tokens.to_vec();
        let load = move |shared: &Shared, unpacker: &mut Unpacker| {
            let one = |token: Token| loop {
                let loaded = shared.state.lock().load(token);
                match loaded {
                    Ok(request) => return Ok(request),
                    Err(missing) => shared
                        .fetch(missing, unpacker)
                        .map_err(|error| unavailable(&error))?,
                }
            };
            tokens.into_iter().map(one).collect()
        };
        self.shared.reads.run(load).await
    }

    async fn settle(&self, verdicts: Vec<(Token, Verdict)>) -> Result<(), QueueError> {
        let records = verdicts
            .into_iter()
            .map(|(token, verdict)| (token, What::Settled(verdict)))
            .collect();
        self.record(records).await
    }

    async fn record_attempts(&self, token: Token, attempts: u32) -> Result<(), QueueError> {
        self.record(vec![(token, What::Attempts(attempts))]).await
    }

    async fn dismiss(&self, id: EntryId, verdict: Verdict) -> Result<bool, QueueError> {
        let locate = move |shared: &Shared, _: &mut Unpacker| {
            shared.locate(id).map_err(|error| unavailable(&error))
        };
        let Some(located) = self.shared.searches.run(locate).await? else {
            return Ok(false);
        };
        let record = Record {
            ordinal: located.row.ordinal,
            lane_number: located.lane_number,
            request_bytes: located.row.request_bytes,
            what: What::Settled(verdict),
        };
        let (done, answer) = oneshot::channel();
        let seq = located.seq;
        self.shared
            .settles
            .push(Settle::Dismiss { seq, record, done })?;
        let there = answer.await.map_err(|_| shutting_down())??;
        if there {
            // It may have been the lane's next.
            let again = move |shared: &Shared, unpacker: &mut Unpacker| {
                shared.refresh(located.lane, unpacker);
                Ok(())
            };
            self.shared.searches.run(again).await.ok();
        }
        Ok(there)
    }

    async fn find(
        &self,
        filter: &Filter,
        after: Option<EntryId>,
        limit: usize,
    ) -> Result<Page, QueueError> {
        let filter = filter.clone();
        let find = move |shared: &Shared, _: &mut Unpacker| {
            let page = shared.find(&filter, after, limit);
            page.map_err(|error| unavailable(&error))
        };
        self.shared.searches.run(find).await
    }

    async fn get(&self, id: EntryId) -> Result<Option<(Found, Bytes)>, QueueError> {
        let get = move |shared: &Shared, unpacker: &mut Unpacker| {
            let entry = shared.get(id, unpacker);
            entry.map_err(|error| unavailable(&error))
        };
        self.shared.searches.run(get).await
    }

    async fn trim(&self, horizon: &Horizon, now_ms: u64) -> Result<(), QueueError> {
        self.shared.set_budget(horizon.budget_bytes);
        let done = self.shared.upkeep.trim(horizon.clone(), now_ms);
        done.await.map_err(|_| shutting_down())
    }
}

impl EmbeddedQueue {
    async fn record(&self, records: Vec<(Token, What)>) -> Result<(), QueueError> {
        let (done, answer) = oneshot::channel();
        self.shared
            .settles
            .push(Settle::Claimed { records, done })?;
        answer.await.map_err(|_| shutting_down())?
    }
}
