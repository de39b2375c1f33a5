//! The thread that writes entries.
//!
//! It owns the live segment's file and length. One flush: blocks by lane in one buffer, one write, with `Group` one
//! fsync, then the blocks become visible and the appends are answered. Whatever fails, nothing of that flush is
//! answered with success, and what it left in the file is cut off; a file whose fsync failed is not written to again.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sluice_crds::config::Durability;
use tracing::{info, warn};

use super::block::{BUFFER_KEPT_BYTES, Block, Packer, Row};
use super::disk::Kind;
use super::front::{Append, Work};
use super::index::Index;
use super::limits::{
    BLOCK_REQUEST_BYTES, PROBE_PAUSE, SEGMENT_BLOCKS_MAX, SEGMENT_ENTRIES_MAX, segment_bytes,
};
use super::log::{HEADER_BYTES, Header, VERSION};
use super::segment::{Body, Segment};
use super::shared::Shared;
use super::state::Written;
use crate::clock::unix_ms;
use crate::store::queue::{Lane, QueueError};

pub(super) struct Writer {
    shared: Arc<Shared>,
    packer: Packer,
    live: Option<Live>,
    next_seq: u64,
    buffer: Vec<u8>,
    failing: bool,
}

struct Live {
    seq: u64,
    segment: u64,
    file: Arc<File>,
    /// Everything before it is whole, and durable as configured.
    length: u64,
    next_ordinal: u32,
    blocks: usize,
    lanes: HashMap<Lane, u32, foldhash::fast::RandomState>,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, next_seq: u64) -> io::Result<Self> {
        Ok(Self {
            shared,
            packer: Packer::new()?,
            live: None,
            next_seq,
            buffer: Vec::new(),
            failing: false,
        })
    }

    /// Until the front is closed and everything in it is written.
    pub(super) fn run(mut self) {
        let mut last = None;
        loop {
            match self.shared.front.next(last) {
                Work::Flush(appends) => {
                    last = Some(Instant::now());
                    self.flush(appends);
                }
                Work::Seal => self.seal(),
                Work::Stop => break,
            }
        }
        self.seal();
    }

    fn flush(&mut self, appends: Vec<Append>) {
        match self.store(&appends) {
            Ok(()) => {
                if std::mem::take(&mut self.failing) {
                    info!("the queue's disk takes writes again");
                    self.shared.front.set_failing(None);
                }
                self.shared.changes.send_modify(|version| *version += 1);
                answer(appends, &Ok(()));
            }
            Err(QueueError::Full) => answer(appends, &Err(QueueError::Full)),
            Err(QueueError::Unavailable(why)) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(error = %why, "the queue's disk takes no writes");
                }
                let until = Instant::now() + PROBE_PAUSE;
                self.shared.front.set_failing(Some((until, why.clone())));
                answer(appends, &Err(QueueError::Unavailable(why)));
            }
        }
    }

    fn store(&mut self, appends: &[Append]) -> Result<(), QueueError> {
        let asked: usize = appends
            .iter()
            .map(|append| append.entry.request.len())
            .sum();
        if self.shared.must_refuse(asked as u64) {
            return Err(QueueError::Full);
        }
        let written = self
            .live_for(appends.len())
            .and_then(|mut live| {
                let written = self.write(&mut live, appends);
                // After a failure that leaves doubts about the file it is not kept.
                match written {
                    Ok(written) => {
                        let (seq, length) = (live.seq, live.length);
                        self.live = Some(live);
                        Ok((seq, length, written))
                    }
                    Err(Failed { error, trusted }) => {
                        if trusted {
                            self.live = Some(live);
                        } else {
                            self.shared.seal(live.seq);
                        }
                        Err(error)
                    }
                }
            })
            .map_err(|error| QueueError::Unavailable(format!("cannot write: {error}").into()))?;
        let (seq, length, blocks) = written;
        self.shared.state.lock().publish(seq, length, blocks);
        Ok(())
    }

    /// The live segment, new if there is none or it has no room for so many entries.
    fn live_for(&mut self, entries: usize) -> io::Result<Live> {
        let segment_bytes = segment_bytes(self.shared.budget_bytes());
        if let Some(live) = self.live.take() {
            let room = live.length < segment_bytes
                && live.next_ordinal as usize + entries <= SEGMENT_ENTRIES_MAX as usize
                && live.blocks < SEGMENT_BLOCKS_MAX;
            if room {
                return Ok(live);
            }
            self.shared.seal(live.seq);
        }
        self.create()
    }

    fn create(&mut self) -> io::Result<Live> {
        let seq = self.next_seq;
        let header = Header {
            version: VERSION,
            seq,
            segment: fastrand::u64(..),
            generation: 0,
            created_ms: unix_ms(),
        };
        let path = self.shared.layout.path(seq, Kind::Log);
        let disk = &self.shared.disk;
        let file = disk.create(&path)?;
        let begun = disk.write_at(&file, &header.encode(), 0).and_then(|()| {
            match self.shared.durability() {
                Durability::Group | Durability::Replicated => disk
                    .sync(&file)
                    .and_then(|()| self.shared.layout.sync_dir()),
                Durability::Memory => Ok(()),
            }
        });
        if let Err(error) = begun {
            super::disk::remove(&path);
            return Err(error);
        }
        self.next_seq += 1;
        let file = Arc::new(file);
        let body = Body::Live {
            file: file.clone(),
            index: Index::default(),
        };
        let mut segment = Segment::new(seq, header.segment, 0, body);
        segment.log_bytes = HEADER_BYTES as u64;
        self.shared.state.lock().adopt(segment);
        Ok(Live {
            seq,
            segment: header.segment,
            file,
            length: HEADER_BYTES as u64,
            next_ordinal: 0,
            blocks: 0,
            lanes: HashMap::default(),
        })
    }

    fn write(&mut self, live: &mut Live, appends: &[Append]) -> Result<Vec<Written>, Failed> {
        self.buffer.clear();
        self.buffer.shrink_to(BUFFER_KEPT_BYTES);
        let first = live.next_ordinal;
        let written = pack(&mut self.packer, &mut self.buffer, live, appends);
        let disk = &self.shared.disk;
        let durability = self.shared.durability();
        let mut trusted = true;
        let stored = disk
            .write_at(&live.file, &self.buffer, live.length)
            .and_then(|()| match durability {
                Durability::Memory => Ok(()),
                Durability::Group | Durability::Replicated => {
                    // The kernel may drop what it could not write and say so only once.
                    trusted = false;
                    disk.sync(&live.file)
                }
            });
        if let Err(error) = stored {
            live.next_ordinal = first;
            let cut = disk.cut(&live.file, live.length);
            let trusted = trusted && cut.is_ok();
            return Err(Failed { error, trusted });
        }
        live.length += self.buffer.len() as u64;
        live.blocks += written.len();
        Ok(written)
    }

    fn seal(&mut self) {
        if let Some(live) = self.live.take() {
            self.shared.seal(live.seq);
        }
    }
}

struct Failed {
    error: io::Error,
    /// The file is as it was before.
    trusted: bool,
}

/// Makes blocks of appends: by lane, each lane's in order.
fn pack(
    packer: &mut Packer,
    buffer: &mut Vec<u8>,
    live: &mut Live,
    appends: &[Append],
) -> Vec<Written> {
    let mut lanes: Vec<Vec<&Append>> = Vec::new();
    let mut positions: HashMap<&Lane, usize, foldhash::fast::RandomState> = HashMap::default();
    for append in appends {
        let position = *positions.entry(&append.entry.lane).or_insert(lanes.len());
        if position == lanes.len() {
            lanes.push(Vec::new());
        }
        lanes[position].push(append);
    }
    let mut written = Vec::new();
    for appends in lanes {
        let mut rest = &appends[..];
        while !rest.is_empty() {
            let (block, after) = rest.split_at(block_length(rest));
            rest = after;
            written.push(pack_block(packer, buffer, live, block));
        }
    }
    written
}

/// How many appends make a block, at least one.
fn block_length(appends: &[&Append]) -> usize {
    let mut bytes = 0;
    let fits = |append: &&&Append| {
        bytes += append.entry.request.len();
        bytes <= BLOCK_REQUEST_BYTES
    };
    appends.iter().take_while(fits).count().max(1)
}

fn pack_block(
    packer: &mut Packer,
    buffer: &mut Vec<u8>,
    live: &mut Live,
    appends: &[&Append],
) -> Written {
    let lane = &appends[0].entry.lane;
    let next_number = live.lanes.len() as u32;
    let number = *live.lanes.entry(lane.clone()).or_insert(next_number);
    let offset = live.length + buffer.len() as u64;
    let mut rows = Vec::with_capacity(appends.len());
    let mut requests: Vec<Bytes> = Vec::with_capacity(appends.len());
    for append in appends {
        rows.push(Row::new(live.next_ordinal, &append.entry));
        requests.push(append.entry.request.clone());
        live.next_ordinal += 1;
    }
    let head = packer.pack(buffer, live.segment, number, lane, &rows, &requests);
    Written {
        head,
        offset,
        block: Block::new(rows, requests),
    }
}

/// Whoever does not wait any more does not hear it.
fn answer(appends: Vec<Append>, answer: &Result<(), QueueError>) {
    for append in appends {
        drop(append.done.send(answer.clone()));
    }
}
