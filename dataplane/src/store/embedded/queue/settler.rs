//! The thread that records verdicts and attempts.
//!
//! It is the only one that settles anything, so a verdict is decided, written and applied without a race. What comes
//! while it writes is written together next. A call is answered when its records are written; when the disk is full
//! the reserve is given back for them, and beyond that the callers wait.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::bits::Bits;
use super::cache::Cache;
use super::disk::Kind;
use super::front::shutting_down;
use super::limits::{OPEN_VERDICTS_MAX, PROBE_PAUSE, SETTLES_MAX};
use super::segment::Segment;
use super::shared::Shared;
use super::state::{may_dismiss, token};
use super::verdicts::{self, HEADER_BYTES, Record, Verdicts, What};
use crate::store::queue::{Outcome, QueueError, Token};

pub(super) enum Settle {
    /// Of claimed entries; others are left out.
    Claimed {
        records: Vec<(Token, What)>,
        done: oneshot::Sender<Result<(), QueueError>>,
    },
    /// For an operator. Answers whether the entry was waiting or parked.
    Dismiss {
        seq: u64,
        record: Record,
        done: oneshot::Sender<Result<bool, QueueError>>,
    },
    /// After compaction: the file is written anew with the records of the entries that are left.
    Rewrite { seq: u64, left: Bits },
}

pub(super) struct Settles {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    files: Mutex<Cache<u64, File>>,
    /// Segments whose verdict file has something that an fsync has not seen.
    unsynced: Mutex<BTreeMap<u64, Arc<File>>>,
}

#[derive(Default)]
struct Waiting {
    settles: Vec<Settle>,
    closed: bool,
}

impl Default for Settles {
    fn default() -> Self {
        Self {
            waiting: Mutex::default(),
            wake: Condvar::new(),
            files: Mutex::new(Cache::new(usize::MAX, OPEN_VERDICTS_MAX)),
            unsynced: Mutex::default(),
        }
    }
}

impl Settles {
    pub(super) fn push(&self, settle: Settle) -> Result<(), QueueError> {
        let mut waiting = self.waiting.lock();
        if waiting.closed {
            return Err(shutting_down());
        }
        if waiting.settles.len() >= SETTLES_MAX {
            let why = "too many verdicts wait to be written";
            return Err(QueueError::Unavailable(why.into()));
        }
        if waiting.settles.is_empty() {
            self.wake.notify_one();
        }
        waiting.settles.push(settle);
        Ok(())
    }

    fn next(&self) -> Option<Vec<Settle>> {
        let mut waiting = self.waiting.lock();
        while waiting.settles.is_empty() {
            if waiting.closed {
                return None;
            }
            self.wake.wait(&mut waiting);
        }
        Some(std::mem::take(&mut waiting.settles))
    }

    fn wait_closed(&self, time: Duration) -> bool {
        let mut waiting = self.waiting.lock();
        if !waiting.closed {
            self.wake.wait_for(&mut waiting, time);
        }
        waiting.closed
    }

    pub(super) fn close(&self) {
        self.waiting.lock().closed = true;
        self.wake.notify_all();
    }

    /// The segment is gone.
    pub(super) fn forget(&self, seq: u64) {
        self.files.lock().remove(&seq);
        self.unsynced.lock().remove(&seq);
    }

    /// What was written so far survives the machine.
    pub(super) fn sync(&self, shared: &Shared) {
        let unsynced = std::mem::take(&mut *self.unsynced.lock());
        for (seq, file) in unsynced {
            if let Err(error) = shared.disk.sync(&file) {
                warn!(segment = seq, %error, "cannot fsync verdicts");
            }
        }
    }
}

pub(super) struct Settler {
    shared: Arc<Shared>,
}

/// Records to write, by segment.
type Batch = BTreeMap<u64, Vec<Record>>;

/// Who waits for a batch.
enum Waiter {
    Claimed(oneshot::Sender<Result<(), QueueError>>),
    Dismiss(oneshot::Sender<Result<bool, QueueError>>, bool),
}

impl Settler {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Until closed and all is written.
    pub(super) fn run(self) {
        while let Some(settles) = self.shared.settles.next() {
            let mut rewrites = Vec::new();
            let (batch, waiters) = self.decide(settles, &mut rewrites);
            let written = self.write(batch);
            for waiter in waiters {
                let result = if written {
                    Ok(())
                } else {
                    Err(shutting_down())
                };
                // Whoever does not wait any more does not hear it.
                match waiter {
                    Waiter::Claimed(done) => drop(done.send(result)),
                    Waiter::Dismiss(done, there) => drop(done.send(result.map(|()| there))),
                }
            }
            for (seq, left) in rewrites {
                if let Err(error) = self.rewrite(seq, &left) {
                    warn!(segment = seq, %error, "cannot rewrite verdicts");
                }
            }
        }
    }

    fn decide(
        &self,
        settles: Vec<Settle>,
        rewrites: &mut Vec<(u64, Bits)>,
    ) -> (Batch, Vec<Waiter>) {
        let mut batch = Batch::new();
        let mut waiters = Vec::new();
        // What this batch makes of entries: whether they are parked.
        let mut decided: HashMap<Token, bool> = HashMap::new();
        let state = self.shared.state.lock();
        for settle in settles {
            match settle {
                Settle::Claimed { records, done } => {
                    for (token, what) in records {
                        let Some((seq, record)) = state.record(token, what) else {
                            continue;
                        };
                        if decided.contains_key(&token) {
                            continue;
                        }
                        if let What::Settled(verdict) = &record.what {
                            decided.insert(token, verdict.outcome == Outcome::Parked);
                        }
                        batch.entry(seq).or_default().push(record);
                    }
                    waiters.push(Waiter::Claimed(done));
                }
                Settle::Dismiss { seq, record, done } => {
                    let entry = token(seq, record.ordinal);
                    let segment = state.segments.get(&seq);
                    let there = decided.get(&entry).copied().unwrap_or_else(|| {
                        segment.is_some_and(|segment| may_dismiss(segment, record.ordinal))
                    });
                    if there {
                        decided.insert(entry, false);
                        batch.entry(seq).or_default().push(record);
                    }
                    waiters.push(Waiter::Dismiss(done, there));
                }
                Settle::Rewrite { seq, left } => rewrites.push((seq, left)),
            }
        }
        (batch, waiters)
    }

    /// Writes and applies a batch, however long the disk takes. `false`: the queue was shut down meanwhile.
    fn write(&self, batch: Batch) -> bool {
        let mut all = true;
        for (seq, records) in batch {
            let mut warned = false;
            let mut closed = false;
            loop {
                match self.write_segment(seq, &records) {
                    Ok(()) => break,
                    Err(error) => {
                        if !warned {
                            warn!(%error, "cannot record verdicts, callers wait");
                            warned = true;
                        }
                        if closed {
                            all = false;
                            break;
                        }
                        // Once more after it was closed.
                        closed = self.shared.settles.wait_closed(PROBE_PAUSE);
                    }
                }
            }
            if warned && all {
                info!("verdicts are recorded again");
            }
        }
        all
    }

    fn write_segment(&self, seq: u64, records: &[Record]) -> io::Result<()> {
        let found = {
            let state = self.shared.state.lock();
            let segment = state.segments.get(&seq);
            segment.map(|segment| {
                (
                    segment.id,
                    segment.verdicts_bytes,
                    segment.verdicts_generation,
                )
            })
        };
        // Retention took it.
        let Some((id, length, generation)) = found else {
            return Ok(());
        };
        let mut out = Vec::new();
        if length == 0 {
            out = verdicts::header(id, generation);
        }
        verdicts::put_frames(&mut out, records);
        let file = self.file(seq)?;
        if let Err(error) = self.write_at(&file, &out, length) {
            // What is left of it is written over, or cut off at the next start.
            drop(self.shared.disk.cut(&file, length));
            return Err(error);
        }
        self.shared.settles.unsynced.lock().insert(seq, file);
        let mut state = self.shared.state.lock();
        state.resize(seq, |segment| {
            segment.verdicts_bytes = length + out.len() as u64
        });
        let mut done = false;
        for record in records {
            done |= state.apply(seq, record);
        }
        drop(state);
        if done {
            self.shared.upkeep.note_done(self.shared.front.is_full());
        }
        Ok(())
    }

    /// When the disk is full, the reserve makes room.
    fn write_at(&self, file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        let disk = &self.shared.disk;
        match disk.write_at(file, data, offset) {
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {
                match fs::remove_file(self.shared.layout.reserve()) {
                    Ok(()) => {
                        warn!("the disk is full, the queue's reserve is used for verdicts");
                        disk.write_at(file, data, offset)
                    }
                    Err(_) => Err(error),
                }
            }
            result => result,
        }
    }

    fn file(&self, seq: u64) -> io::Result<Arc<File>> {
        if let Some(file) = self.shared.settles.files.lock().get(&seq) {
            return Ok(file);
        }
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = Arc::new(options.open(self.shared.layout.path(seq, Kind::Verdicts))?);
        self.shared
            .settles
            .files
            .lock()
            .insert(seq, file.clone(), 0);
        Ok(file)
    }

    /// Leaves out what is known of entries that compaction removed.
    fn rewrite(&self, seq: u64, left: &Bits) -> io::Result<()> {
        let found = {
            let state = self.shared.state.lock();
            let of = |segment: &Segment| {
                (
                    segment.id,
                    segment.verdicts_generation,
                    segment.verdicts_bytes,
                )
            };
            state.segments.get(&seq).map(of)
        };
        let Some((id, generation, length)) = found else {
            return Ok(());
        };
        if length == 0 {
            return Ok(());
        }
        let mut known = Verdicts::default();
        verdicts::read(&*self.file(seq)?, HEADER_BYTES as u64, |record| {
            known.add(&record)
        })?;
        let left: Vec<Record> = known
            .records()
            .filter(|record| left.get(record.ordinal))
            .collect();
        let mut out = verdicts::header(id, generation + 1);
        verdicts::put_frames(&mut out, &left);
        let layout = &self.shared.layout;
        layout.replace(&*self.shared.disk, seq, Kind::Verdicts, &out)?;
        self.shared.settles.forget(seq);
        let mut state = self.shared.state.lock();
        state.resize(seq, |segment| {
            segment.verdicts_generation = generation + 1;
            segment.verdicts_bytes = out.len() as u64;
            segment.records = u64::MAX / 2;
        });
        drop(state);
        self.shared.upkeep.poke();
        Ok(())
    }
}
