//! Rewrites a segment with only what must stay, so that a few waiting entries do not keep the disk full; and with
//! larger blocks, so that requests which came one by one are compressed together.
//!
//! Entries keep their segment, their ordinals and so their tokens. The new log takes the old one's place by a rename;
//! until then the old one counts, and both fit the verdict file. Verdicts of entries that went are removed only after
//! the rename has reached the disk: without them the old log would have its entries wait again. Blocks
//! that cannot be read are left out, and what waits is counted anew.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use tracing::info;

use super::bits::Bits;
use super::block::{Block, Packer, Row, Unpacker};
use super::disk::{Kind, remove};
use super::index::{Index, Place};
use super::limits::{BLOCK_REQUEST_BYTES, FLUSH_REQUEST_BYTES};
use super::log::{HEADER_BYTES, Header, VERSION};
use super::retention::Cut;
use super::segment::{Body, Opened};
use super::settler::Settle;
use super::shared::{Shared, read_block};
use super::state::BlockRead;
use crate::clock::unix_ms;
use crate::store::queue::Lane;

pub(super) fn compact(
    shared: &Shared,
    unpacker: &mut Unpacker,
    seq: u64,
    cut: &Cut<'_>,
) -> io::Result<()> {
    let opened = shared.open_segment(seq)?;
    let generation = opened.generation + 1;
    let temporary = shared.layout.temporary(seq, Kind::Log);
    let written = rewrite(shared, unpacker, seq, &opened, cut);
    let new = match written {
        Ok(Some(new)) => new,
        Ok(None) => return Ok(()),
        Err(error) => {
            remove(&temporary);
            return Err(error);
        }
    };
    if new.left.is_empty() {
        remove(&temporary);
        shared
            .state
            .lock()
            .change(seq, |segment| segment.recount(&[]));
        shared.state.lock().release_lost(seq, |_| false);
        shared.remove_segment(seq);
        return Ok(());
    }
    let mut left = Bits::default();
    for (ordinal, ..) in &new.left {
        left.set(*ordinal);
    }
    let all = {
        let mut state = shared.state.lock();
        let path = shared.layout.path(seq, Kind::Log);
        if let Err(error) = shared.disk.rename(&temporary, &path) {
            drop(state);
            remove(&temporary);
            return Err(error);
        }
        state.forget_opened(seq);
        let before = state.change(seq, |segment| {
            let before = segment.entries;
            segment.generation = generation;
            segment.blocks = new.index.blocks() as u32;
            // The checkpoint is of the old log.
            segment.records = u64::from(segment.verdicts_bytes > 0) * (u64::MAX / 2);
            segment.log_bytes = new.length;
            segment.body = Body::Sealed(Arc::new(Opened {
                generation,
                file: Arc::new(new.file),
                index: new.index,
            }));
            segment.damaged.clear();
            segment.recount(&new.left);
            before
        });
        state.release_lost(seq, |ordinal| left.get(ordinal));
        before == Some(new.left.len() as u32)
    };
    info!(
        segment = seq,
        entries = new.left.len(),
        bytes = new.length,
        "compacted a segment"
    );
    shared.layout.sync_dir()?;
    if !all {
        // At shutdown it stays as it is: it fits both.
        shared.settles.push(Settle::Rewrite { seq, left }).ok();
    }
    Ok(())
}

struct Rewritten {
    file: File,
    index: Index,
    length: u64,
    /// Ordinal, lane's number, request's size, time.
    left: Vec<(u32, u32, u32, u64)>,
}

/// Writes the new log. `None`: the segment is gone.
fn rewrite(
    shared: &Shared,
    unpacker: &mut Unpacker,
    seq: u64,
    opened: &Opened,
    cut: &Cut<'_>,
) -> io::Result<Option<Rewritten>> {
    let named = {
        let state = shared.state.lock();
        state.segments.get(&seq).map(|segment| {
            let lanes = segment.lanes.iter().map(|of| state.lane(of.lane));
            (segment.id, lanes.collect::<Vec<_>>())
        })
    };
    let Some((id, lanes)) = named else {
        return Ok(None);
    };
    let mut output = Output::create(shared, seq, id, opened.generation + 1, lanes)?;
    for (number, place) in opened.index.by_offset() {
        let read = BlockRead {
            seq,
            generation: opened.generation,
            place,
            file: opened.file.clone(),
        };
        let Some(lane) = output.lanes.get(number as usize).cloned() else {
            continue;
        };
        if goes_whole(shared, &read, &lane, cut) {
            continue;
        }
        let Some(block) = read_block(&read, unpacker)? else {
            shared.report_damage(seq, opened.generation, &place);
            continue;
        };
        let Some(stays) = rows_that_stay(shared, seq, &block, &lane, cut) else {
            return Ok(None);
        };
        for position in stays {
            output.add(
                number,
                block.rows[position].clone(),
                block.request(position),
            );
        }
        output.write_when_much()?;
    }
    output.finish().map(Some)
}

fn goes_whole(shared: &Shared, read: &BlockRead, lane: &Lane, cut: &Cut<'_>) -> bool {
    let state = shared.state.lock();
    state.segments.get(&read.seq).is_some_and(|segment| {
        segment.damaged.contains(&read.place.offset)
            || segment.is_done(&read.place) && cut.takes(&lane.application, read.place.max_ms)
    })
}

fn rows_that_stay(
    shared: &Shared,
    seq: u64,
    block: &Block,
    lane: &Lane,
    cut: &Cut<'_>,
) -> Option<Vec<usize>> {
    let state = shared.state.lock();
    let segment = state.segments.get(&seq)?;
    let stays = |row: &Row| {
        !segment.is_settled(row.ordinal) || !cut.takes(&lane.application, row.id.accepted_ms())
    };
    let rows = block.rows.iter().enumerate();
    Some(
        rows.filter(|(_, row)| stays(row))
            .map(|(position, _)| position)
            .collect(),
    )
}

/// The log that is being made.
struct Output<'a> {
    shared: &'a Shared,
    packer: Packer,
    id: u64,
    lanes: Vec<Lane>,
    pending: BTreeMap<u32, (Vec<Row>, Vec<Bytes>)>,
    pending_bytes: usize,
    new: Rewritten,
}

impl<'a> Output<'a> {
    fn create(
        shared: &'a Shared,
        seq: u64,
        id: u64,
        generation: u32,
        lanes: Vec<Lane>,
    ) -> io::Result<Self> {
        let file = shared
            .disk
            .create(&shared.layout.temporary(seq, Kind::Log))?;
        let header = Header {
            version: VERSION,
            seq,
            segment: id,
            generation,
            created_ms: unix_ms(),
        };
        shared.disk.write_at(&file, &header.encode(), 0)?;
        Ok(Self {
            shared,
            packer: Packer::new()?,
            id,
            lanes,
            pending: BTreeMap::new(),
            pending_bytes: 0,
            new: Rewritten {
                file,
                index: Index::default(),
                length: HEADER_BYTES as u64,
                left: Vec::new(),
            },
        })
    }

    fn add(&mut self, number: u32, row: Row, request: Bytes) {
        let left = (row.ordinal, number, row.request_bytes, row.id.accepted_ms());
        self.new.left.push(left);
        self.pending_bytes += request.len() + size_of::<Row>();
        let (rows, requests) = self.pending.entry(number).or_default();
        rows.push(row);
        requests.push(request);
    }

    fn write_when_much(&mut self) -> io::Result<()> {
        if self.pending_bytes < FLUSH_REQUEST_BYTES {
            return Ok(());
        }
        self.write()
    }

    fn write(&mut self) -> io::Result<()> {
        self.pending_bytes = 0;
        let mut buffer = Vec::new();
        for (number, (rows, requests)) in std::mem::take(&mut self.pending) {
            let lane = &self.lanes[number as usize];
            let mut from = 0;
            while from < rows.len() {
                let to = from + block_length(&requests[from..]);
                let offset = self.new.length + buffer.len() as u64;
                let (rows, requests) = (&rows[from..to], requests[from..to].concat());
                let head = self
                    .packer
                    .pack(&mut buffer, self.id, number, lane, rows, &requests);
                self.new.index.add(number, Place::new(offset, &head));
                from = to;
            }
        }
        self.shared
            .disk
            .write_at(&self.new.file, &buffer, self.new.length)?;
        self.new.length += buffer.len() as u64;
        Ok(())
    }

    fn finish(mut self) -> io::Result<Rewritten> {
        self.write()?;
        self.shared.disk.sync(&self.new.file)?;
        Ok(self.new)
    }
}

fn block_length(requests: &[Bytes]) -> usize {
    let mut bytes = 0;
    let fits = |request: &&Bytes| {
        bytes += request.len();
        bytes <= BLOCK_REQUEST_BYTES
    };
    requests.iter().take_while(fits).count().max(1)
}
