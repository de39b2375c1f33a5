//! The thread that keeps the queue's house: fsync of what was written without, indexes of finished segments,
//! checkpoints, retention, room within the budget, repacking, and the reserve.
//!
//! It wakes every second and when poked. It alone rewrites segments; it never settles anything.

use std::fs;
use std::io;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;
use tracing::{debug, warn};

use super::block::Unpacker;
use super::compact::compact;
use super::disk::Kind;
use super::limits::{CHECKPOINT_RECORDS, REPACK_PAUSE, RESERVE_BYTES, SYNC_PAUSE, short_bytes};
use super::retention::{self, Cut};
use super::segment::{Body, Segment};
use super::shared::Shared;
use crate::clock::unix_ms;
use crate::store::queue::Horizon;

/// How long the writer is given to finish its segment.
const SEAL_WAIT: Duration = Duration::from_secs(5);

const NICE: i32 = 5;

#[derive(Default)]
pub(super) struct Upkeep {
    asked: Mutex<Asked>,
    wake: Condvar,
}

#[derive(Default)]
struct Asked {
    poked: bool,
    closed: bool,
    horizon: Option<Horizon>,
    trims: Vec<(u64, oneshot::Sender<()>)>,
}

impl Upkeep {
    /// Something is to be done.
    pub(super) fn poke(&self) {
        let mut asked = self.asked.lock();
        if !asked.poked {
            asked.poked = true;
            self.wake.notify_one();
        }
    }

    /// Nothing waits any more in some segment; that is urgent when there is no room.
    pub(super) fn note_done(&self, full: bool) {
        if full {
            self.poke();
        }
    }

    pub(super) fn trim(&self, horizon: Horizon, now_ms: u64) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut asked = self.asked.lock();
        asked.horizon = Some(horizon);
        if !asked.closed {
            asked.trims.push((now_ms, sender));
        }
        asked.poked = true;
        self.wake.notify_one();
        receiver
    }

    pub(super) fn close(&self) {
        self.asked.lock().closed = true;
        self.wake.notify_one();
    }
}

pub(super) struct Keeper {
    shared: Arc<Shared>,
    unpacker: Unpacker,
    synced: Instant,
    repack_from: Instant,
    /// Of the live segment: its number and how much of it was fsynced.
    synced_log: (u64, u64),
}

impl Keeper {
    pub(super) fn new(shared: Arc<Shared>, unpacker: Unpacker) -> Self {
        Self {
            shared,
            unpacker,
            synced: Instant::now(),
            repack_from: Instant::now(),
            synced_log: (0, 0),
        }
    }

    /// Until closed; then everything is finished once more.
    pub(super) fn run(mut self) {
        // Of this thread: what it rewrites is less urgent than what comes in. Not every system allows it.
        rustix::process::setpriority_process(None, NICE).ok();
        loop {
            let Asked {
                closed,
                horizon,
                trims,
                ..
            } = self.wait();
            self.sync();
            self.finish_segments();
            let urgent = self.is_short() || self.has_damage();
            if let Some(now) = trims.iter().map(|(now, _)| *now).max() {
                self.trim(horizon.as_ref(), now);
            } else if urgent && !closed {
                self.trim(horizon.as_ref(), unix_ms());
            }
            if !closed && !urgent {
                self.repack(horizon.as_ref());
            }
            self.save_checkpoints(closed);
            self.keep_reserve();
            self.shared.made_room();
            for (_, done) in trims {
                // Whoever does not wait any more does not hear it.
                done.send(()).ok();
            }
            if closed {
                break;
            }
        }
        self.shared.settles.sync(&self.shared);
    }

    fn wait(&self) -> Asked {
        let mut asked = self.shared.upkeep.asked.lock();
        if !asked.poked && !asked.closed {
            self.shared.upkeep.wake.wait_for(&mut asked, SYNC_PAUSE);
        }
        asked.poked = false;
        Asked {
            poked: true,
            closed: asked.closed,
            horizon: asked.horizon.clone(),
            trims: std::mem::take(&mut asked.trims),
        }
    }

    /// At most every second.
    fn sync(&mut self) {
        if self.synced.elapsed() < SYNC_PAUSE {
            return;
        }
        self.synced = Instant::now();
        self.shared.settles.sync(&self.shared);
        let live = {
            let state = self.shared.state.lock();
            let live = state.segments.values().next_back();
            live.and_then(|segment| match &segment.body {
                Body::Live { file, .. } => Some((segment.seq, segment.log_bytes, file.clone())),
                Body::Sealed(_) | Body::Indexed => None,
            })
        };
        if let Some((seq, bytes, file)) = live
            && self.synced_log != (seq, bytes)
        {
            match self.shared.disk.sync(&file) {
                Ok(()) => self.synced_log = (seq, bytes),
                Err(error) => warn!(%error, "cannot fsync the queue"),
            }
        }
    }

    fn is_short(&self) -> bool {
        let stored = self.shared.state.lock().stored_bytes;
        stored > short_bytes(self.shared.budget_bytes())
    }

    fn has_damage(&self) -> bool {
        let state = self.shared.state.lock();
        state
            .segments
            .values()
            .any(|segment| !segment.damaged.is_empty())
    }

    fn select(&self, wanted: impl Fn(&Segment) -> bool) -> Vec<u64> {
        let state = self.shared.state.lock();
        let segments = state.segments.values().filter(|segment| wanted(segment));
        segments.map(|segment| segment.seq).collect()
    }

    /// Indexes of segments that are not written to any more.
    fn finish_segments(&self) {
        for seq in self.select(|segment| matches!(segment.body, Body::Sealed(_))) {
            if let Err(error) = self.finish(seq) {
                debug!(segment = seq, %error, "cannot write an index");
            }
        }
    }

    fn finish(&self, seq: u64) -> io::Result<()> {
        let (opened, data) = {
            let state = self.shared.state.lock();
            let Some(segment) = state.segments.get(&seq) else {
                return Ok(());
            };
            let Body::Sealed(opened) = &segment.body else {
                return Ok(());
            };
            let summary = segment.summary(|lane| state.lane(lane));
            (opened.clone(), summary)
        };
        if opened.index.blocks() == 0 && data.next_ordinal == 0 {
            self.shared.remove_segment(seq);
            return Ok(());
        }
        self.shared.disk.sync(&opened.file)?;
        let data = data.encode(&opened.index);
        let layout = &self.shared.layout;
        layout.replace(&*self.shared.disk, seq, Kind::Index, &data)?;
        let mut state = self.shared.state.lock();
        state.resize(seq, |segment| {
            segment.index_bytes = data.len() as u64;
            segment.body = Body::Indexed;
        });
        state.keep_opened(seq, opened);
        Ok(())
    }

    /// Where many verdicts would have to be read at the next start; at the end, wherever there are any.
    fn save_checkpoints(&self, all: bool) {
        let due = |segment: &Segment| {
            let done = segment.waiting == 0 && !segment.is_live();
            segment.records >= CHECKPOINT_RECORDS || (all || done) && segment.records > 0
        };
        for seq in self.select(due) {
            if let Err(error) = self.save_checkpoint(seq) {
                debug!(segment = seq, %error, "cannot write a checkpoint");
            }
        }
    }

    fn save_checkpoint(&self, seq: u64) -> io::Result<()> {
        let (checkpoint, records) = {
            let state = self.shared.state.lock();
            let Some(segment) = state.segments.get(&seq) else {
                return Ok(());
            };
            (segment.checkpoint(), segment.records)
        };
        let data = checkpoint.encode();
        let layout = &self.shared.layout;
        layout.replace(&*self.shared.disk, seq, Kind::Checkpoint, &data)?;
        let mut state = self.shared.state.lock();
        state.resize(seq, |segment| {
            segment.checkpoint_bytes = data.len() as u64;
            segment.records = segment.records.saturating_sub(records);
        });
        Ok(())
    }

    fn keep_reserve(&self) {
        let path = self.shared.layout.reserve();
        if path.exists() {
            return;
        }
        let disk = &self.shared.disk;
        let kept = disk.create(&path).and_then(|file| {
            let zeros = vec![0; RESERVE_BYTES];
            disk.write_at(&file, &zeros, 0)
        });
        if kept.is_err() {
            // While there is no room for it, what there is is for verdicts.
            drop(fs::remove_file(&path));
        }
    }

    /// Retention, then room within the budget, then what can be had by rewriting.
    fn trim(&mut self, horizon: Option<&Horizon>, now_ms: u64) {
        let shared = self.shared.clone();
        let old = {
            let state = shared.state.lock();
            let mut live = state.segments.values().filter(|segment| segment.is_live());
            live.any(|segment| {
                horizon.is_some_and(|horizon| retention::seal_is_due(segment, horizon, now_ms))
                    || !segment.damaged.is_empty()
            })
        };
        if old {
            self.seal_live();
        }
        if let Some(horizon) = horizon {
            let expired = {
                let state = shared.state.lock();
                let segments = state.segments.values();
                let expired = segments.filter(|segment| {
                    retention::has_expired(segment, |lane| state.lane(lane), horizon, now_ms)
                });
                expired.map(|segment| segment.seq).collect::<Vec<_>>()
            };
            for seq in expired {
                shared.remove_segment(seq);
            }
        }
        let budget = shared.budget_bytes();
        if self.is_short() {
            shared.remove_settled(short_bytes(budget));
        }
        let live_has_settled =
            |segment: &Segment| segment.is_live() && segment.waiting < segment.entries;
        if self.is_short() && !self.select(live_has_settled).is_empty() {
            self.seal_live();
            shared.remove_settled(short_bytes(budget));
        }
        self.compact_segments(horizon, now_ms);
    }

    fn compact_segments(&mut self, horizon: Option<&Horizon>, now_ms: u64) {
        for seq in self.select(|segment| !segment.is_live()) {
            let short = self.is_short();
            let worth = {
                let state = self.shared.state.lock();
                let segment = state.segments.get(&seq);
                segment.is_some_and(|segment| {
                    let cut = Cut {
                        horizon,
                        now_ms,
                        short,
                    };
                    !segment.damaged.is_empty()
                        || retention::is_worth_compacting(segment, |lane| state.lane(lane), &cut)
                })
            };
            if worth {
                let cut = Cut {
                    horizon,
                    now_ms,
                    short,
                };
                if let Err(error) = compact(&self.shared, &mut self.unpacker, seq, &cut) {
                    warn!(segment = seq, %error, "cannot compact a segment");
                    break;
                }
                self.sync();
                self.finish_segments();
            }
        }
    }

    /// One segment at a time: there is no hurry.
    fn repack(&mut self, horizon: Option<&Horizon>) {
        if Instant::now() < self.repack_from {
            return;
        }
        let Some(seq) = self.select(retention::is_worth_repacking).first().copied() else {
            return;
        };
        let cut = Cut {
            horizon,
            now_ms: unix_ms(),
            short: false,
        };
        if let Err(error) = compact(&self.shared, &mut self.unpacker, seq, &cut) {
            debug!(segment = seq, %error, "cannot repack a segment");
            self.repack_from = Instant::now() + REPACK_PAUSE;
        }
        self.finish_segments();
    }

    /// Has the writer finish its segment, and waits until it did.
    fn seal_live(&self) {
        let live = self.select(Segment::is_live);
        if live.is_empty() {
            return;
        }
        self.shared.front.ask_to_seal();
        let due = Instant::now() + SEAL_WAIT;
        while Instant::now() < due && self.select(Segment::is_live) == live {
            thread::sleep(Duration::from_millis(1));
        }
        self.finish_segments();
    }
}
