//! Finds the segments of a directory and what they hold, at the start.
//!
//! Finished segments are known by their index's summary and their checkpoint; only what came after is read. A log
//! without index is scanned once: a torn tail is cut off, damage within is stepped over and reported. Nothing that is
//! found makes the start fail but a directory that cannot be read and files of a later version.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::Path;
use std::sync::Arc;

use tracing::{error, info, warn};

use super::OpenError;
use super::bits::Bits;
use super::block::Row;
use super::checkpoint::Checkpoint;
use super::disk::{Kind, Layout, read_at, remove};
use super::index::{Index, Place, Summary};
use super::log::{self, HEADER_BYTES, Header, VERSION};
use super::segment::{Body, Opened, Segment};
use super::state::State;
use super::verdicts;
use crate::store::queue::EntryId;

pub(super) struct Recovered {
    pub(super) state: State,
    pub(super) next_seq: u64,
    pub(super) max_id: EntryId,
    pub(super) damaged: u64,
}

pub(super) fn recover(layout: &Layout) -> Result<Recovered, OpenError> {
    let files = list(layout).map_err(|error| OpenError::io(layout.dir(), error))?;
    let mut recovered = Recovered {
        state: State::new(),
        next_seq: files.keys().next_back().map_or(1, |last| last + 1),
        max_id: EntryId(0),
        damaged: 0,
    };
    for (seq, kinds) in files {
        if !kinds.contains(&Kind::Log) {
            // What is left of a segment that was being removed.
            kinds
                .into_iter()
                .for_each(|kind| remove(&layout.path(seq, kind)));
            continue;
        }
        let path = layout.path(seq, Kind::Log);
        let segment = recover_segment(layout, seq, &mut recovered)
            .map_err(|error| OpenError::io(&path, error))?;
        match segment {
            Found::Segment(segment) => {
                recovered.max_id = recovered.max_id.max(segment.max_id);
                recovered.state.adopt(*segment);
            }
            Found::Nothing => layout
                .remove_segment(seq)
                .map_err(|error| OpenError::io(&path, error))?,
            Found::Unreadable => {
                error!(path = %path.display(), "a segment of the queue is not readable, it is put aside");
                recovered.damaged += 1;
                let aside = path.with_extension("log.bad");
                fs::rename(&path, aside).map_err(|error| OpenError::io(&path, error))?;
            }
            Found::Later(version) => return Err(OpenError::Version { path, version }),
        }
    }
    Ok(recovered)
}

fn list(layout: &Layout) -> io::Result<BTreeMap<u64, Vec<Kind>>> {
    let mut files: BTreeMap<u64, Vec<Kind>> = BTreeMap::new();
    for entry in fs::read_dir(layout.dir())? {
        let path = entry?.path();
        if Layout::is_temporary(&path) {
            remove(&path);
        } else if let Some((seq, kind)) = Layout::parse(&path) {
            files.entry(seq).or_default().push(kind);
        }
    }
    Ok(files)
}

enum Found {
    Segment(Box<Segment>),
    /// No entry was ever stored in it.
    Nothing,
    Unreadable,
    Later(u32),
}

fn recover_segment(layout: &Layout, seq: u64, recovered: &mut Recovered) -> io::Result<Found> {
    let path = layout.path(seq, Kind::Log);
    let file = OpenOptions::new().read(true).write(true).open(&path)?;
    let length = file.metadata()?.len();
    if length <= HEADER_BYTES as u64 {
        return Ok(Found::Nothing);
    }
    let header = Header::decode(&read_at(&file, 0, HEADER_BYTES)?);
    let index = open_existing(&layout.path(seq, Kind::Index))?;
    let summary = match &index {
        Some(index) => Summary::read(index)?.map(|(summary, _)| summary),
        None => None,
    };
    // Either names the segment.
    let (id, generation) = match (&header, &summary) {
        (Some(header), _) if header.version > VERSION => return Ok(Found::Later(header.version)),
        (Some(header), _) => (header.segment, header.generation),
        (None, Some(summary)) => (summary.segment, summary.generation),
        (None, None) => return Ok(Found::Unreadable),
    };
    let fits = |summary: &Summary| {
        summary.segment == id && summary.generation == generation && summary.log_bytes == length
    };
    let (mut segment, left) = match summary.filter(fits) {
        Some(summary) => {
            let mut segment = Segment::new(seq, id, generation, Body::Indexed);
            let state = &mut recovered.state;
            segment.count_summary(&summary, |lane| state.lane_id(lane));
            segment.index_bytes = file_bytes(index.as_ref())?;
            (segment, None)
        }
        None => match scan(&file, seq, id, generation, length, recovered)? {
            Some((segment, left)) => (segment, Some(left)),
            None => return Ok(Found::Nothing),
        },
    };
    recover_verdicts(layout, &mut segment, &file, left)?;
    segment.drop_unneeded();
    Ok(Found::Segment(Box::new(segment)))
}

fn open_existing(path: &Path) -> io::Result<Option<File>> {
    match OpenOptions::new().read(true).write(true).open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn file_bytes(file: Option<&File>) -> io::Result<u64> {
    file.map_or(Ok(0), |file| file.metadata().map(|metadata| metadata.len()))
}

/// A log without an index that fits, and the ordinals in it. `None`: there is no entry in it.
fn scan(
    file: &File,
    seq: u64,
    id: u64,
    generation: u32,
    length: u64,
    recovered: &mut Recovered,
) -> io::Result<Option<(Segment, Bits)>> {
    // What it counts is put into place when it is known how much is good.
    let placeholder = Body::Indexed;
    let mut segment = Segment::new(seq, id, generation, placeholder);
    let mut index = Index::default();
    let mut left = Bits::default();
    let state = &mut recovered.state;
    let scanned = log::scan(file, id, true, |offset, head, rows| {
        let max_id = rows.iter().map(|row| row.id).max();
        let lane = state.lane_id(&head.lane);
        segment.count(lane, head, max_id.unwrap_or(EntryId(0)));
        index.add(head.lane_number, Place::new(offset, head));
        add_ordinals(&mut left, rows);
    })?;
    if scanned.damaged > 0 {
        error!(
            segment = seq,
            stretches = scanned.damaged,
            "the queue is damaged, entries are lost"
        );
        recovered.damaged += scanned.damaged;
    }
    if scanned.end < length {
        let bytes = length - scanned.end;
        info!(segment = seq, bytes, "cut the unfinished end of a segment");
        file.set_len(scanned.end)?;
    }
    if index.blocks() == 0 {
        return Ok(None);
    }
    segment.log_bytes = scanned.end;
    segment.body = Body::Sealed(Arc::new(Opened {
        generation,
        file: Arc::new(file.try_clone()?),
        index,
    }));
    Ok(Some((segment, left)))
}

/// `left`: the ordinals that are in the log, where it was scanned. Then the log may be another than the one that the
/// checkpoint was made of, and verdicts may be of entries that are lost.
fn recover_verdicts(
    layout: &Layout,
    segment: &mut Segment,
    log: &File,
    left: Option<Bits>,
) -> io::Result<()> {
    let checkpoint = read_checkpoint(layout, segment)?.filter(|_| left.is_none());
    let path = layout.path(segment.seq, Kind::Verdicts);
    let file = open_existing(&path)?;
    let generation = match &file {
        Some(file) => verdicts::read_header(file, segment.id)?,
        None => None,
    };
    let Some((file, generation)) = file.zip(generation) else {
        // Without its beginning it was never written, or is another segment's.
        remove(&path);
        if let Some(checkpoint) = checkpoint {
            segment.verdicts_generation = checkpoint.verdicts_generation.wrapping_add(1);
            segment.restore(checkpoint);
            segment.records = u64::MAX / 2;
        }
        return Ok(());
    };
    let length = file.metadata()?.len();
    segment.verdicts_generation = generation;
    let first = verdicts::HEADER_BYTES as u64;
    let fits = |checkpoint: &Checkpoint| checkpoint.verdicts_generation == generation;
    let counted = checkpoint.filter(fits).and_then(|checkpoint| {
        let bytes = checkpoint.verdicts_bytes.max(first);
        segment.restore(checkpoint).then_some(bytes)
    });
    // Compaction may have left out entries of which there still are verdicts.
    let left = match (left, counted) {
        (None, None) if segment.generation > 0 => Some(ordinals(log, segment.id)?),
        (left, _) => left,
    };
    let from = counted.unwrap_or(first);
    let mut records = 0;
    let end = verdicts::read(&file, from.min(length), |record| {
        records += 1;
        if left.as_ref().is_none_or(|left| left.get(record.ordinal)) {
            segment.apply(&record);
        }
    })?;
    if end < length {
        warn!(
            segment = segment.seq,
            bytes = length - end,
            "cut the unfinished end of verdicts"
        );
        file.set_len(end)?;
    }
    segment.verdicts_bytes = end;
    segment.records = records;
    if from > length || left.is_some() {
        // The checkpoint knows more than what is left of the file, or there is none that fits.
        segment.records = u64::MAX / 2;
    }
    Ok(())
}

fn read_checkpoint(layout: &Layout, segment: &mut Segment) -> io::Result<Option<Checkpoint>> {
    match fs::read(layout.path(segment.seq, Kind::Checkpoint)) {
        Ok(data) => {
            segment.checkpoint_bytes = data.len() as u64;
            Ok(Checkpoint::decode(&data.into()))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn ordinals(log: &File, id: u64) -> io::Result<Bits> {
    let mut ordinals = Bits::default();
    log::scan(log, id, false, |_, _, rows| {
        add_ordinals(&mut ordinals, rows)
    })?;
    Ok(ordinals)
}

fn add_ordinals(ordinals: &mut Bits, rows: &[Row]) {
    for row in rows {
        ordinals.set(row.ordinal);
    }
}
