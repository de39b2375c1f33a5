//! What the queue's threads and callers have in common.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;
use sluice_crds::config::Durability;
use tokio::sync::watch;
use tracing::error;

use super::block::{Block, Unpacker};
use super::disk::{Disk, Kind, Layout, read_at};
use super::front::Front;
use super::index::{self, Index, Place, Summary};
use super::jobs::Jobs;
use super::limits::{reopen_bytes, short_bytes};
use super::log::{self, HEADER_BYTES};
use super::segment::{Body, LaneId, Opened};
use super::settler::Settles;
use super::state::{BlockRead, Missing, State};
use super::upkeep::Upkeep;

pub(super) struct Shared {
    pub(super) layout: Layout,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) state: Mutex<State>,
    pub(super) front: Front,
    pub(super) settles: Settles,
    pub(super) reads: Jobs,
    pub(super) searches: Jobs,
    pub(super) upkeep: Upkeep,
    pub(super) changes: watch::Sender<u64>,
    budget_bytes: AtomicU64,
    durability: AtomicU8,
    /// Stretches of files that could not be read since the process began.
    pub(super) damaged: AtomicU64,
}

pub(super) struct Parts {
    pub(super) layout: Layout,
    pub(super) disk: Arc<dyn Disk>,
    pub(super) state: State,
    pub(super) reads: Jobs,
    pub(super) searches: Jobs,
    pub(super) budget_bytes: u64,
    pub(super) durability: Durability,
    pub(super) damaged: u64,
}

impl Shared {
    pub(super) fn new(parts: Parts) -> Self {
        let shared = Self {
            layout: parts.layout,
            disk: parts.disk,
            state: Mutex::new(parts.state),
            front: Front::default(),
            settles: Settles::default(),
            reads: parts.reads,
            searches: parts.searches,
            upkeep: Upkeep::default(),
            changes: watch::channel(0).0,
            budget_bytes: AtomicU64::new(parts.budget_bytes),
            durability: AtomicU8::new(0),
            damaged: AtomicU64::new(parts.damaged),
        };
        shared.set_durability(parts.durability);
        shared
    }

    pub(super) fn durability(&self) -> Durability {
        match self.durability.load(Ordering::Relaxed) {
            0 => Durability::Memory,
            _ => Durability::Group,
        }
    }

    pub(super) fn set_durability(&self, durability: Durability) {
        let code = match durability {
            Durability::Memory => 0,
            // A disk has no replica: `resolve` keeps Replicated from here, and Group is the most there is.
            Durability::Group | Durability::Replicated => 1,
        };
        self.durability.store(code, Ordering::Relaxed);
    }

    pub(super) fn budget_bytes(&self) -> u64 {
        self.budget_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn set_budget(&self, bytes: u64) {
        self.budget_bytes.store(bytes, Ordering::Relaxed);
        self.made_room();
        self.upkeep.poke();
    }

    /// Whether so many more bytes would be beyond the budget, also without what is settled.
    pub(super) fn must_refuse(&self, asked: u64) -> bool {
        let budget = self.budget_bytes();
        let stored = || self.state.lock().stored_bytes.saturating_add(asked);
        if stored() <= short_bytes(budget) {
            return false;
        }
        self.upkeep.poke();
        if stored() <= budget {
            return false;
        }
        self.remove_settled(budget.saturating_sub(asked));
        let full = stored() > budget;
        if full {
            self.front.set_full(true);
        }
        full
    }

    /// Takes entries again after there was no room, if there is some now.
    pub(super) fn made_room(&self) {
        let room = self.state.lock().stored_bytes <= reopen_bytes(self.budget_bytes());
        if room && self.front.is_full() {
            self.front.set_full(false);
        }
    }

    /// Removes segments in which nothing waits, oldest first, until no more than so many bytes are stored.
    pub(super) fn remove_settled(&self, until_bytes: u64) {
        loop {
            let oldest = {
                let state = self.state.lock();
                if state.stored_bytes <= until_bytes {
                    break;
                }
                let mut segments = state.segments.values();
                let done = segments.find(|segment| !segment.is_live() && segment.waiting == 0);
                done.map(|segment| segment.seq)
            };
            match oldest {
                Some(seq) if self.remove_segment(seq) => {}
                Some(_) | None => break,
            }
        }
    }

    /// `false`: the files could not be removed.
    pub(super) fn remove_segment(&self, seq: u64) -> bool {
        if let Err(error) = self.layout.remove_segment(seq) {
            error!(segment = seq, %error, "cannot remove a segment of the queue");
            return false;
        }
        self.settles.forget(seq);
        self.state.lock().remove(seq);
        true
    }

    /// The live segment is finished; the rest is upkeep's.
    pub(super) fn seal(&self, seq: u64) {
        self.state.lock().seal(seq);
        self.upkeep.poke();
    }

    /// Reads what a step needs.
    pub(super) fn fetch(&self, missing: Missing, unpacker: &mut Unpacker) -> io::Result<()> {
        match missing {
            Missing::Segment(seq) => {
                let opened = self.open_segment(seq)?;
                self.state.lock().keep_opened(seq, opened);
            }
            Missing::Block(read) => match read_block(&read, unpacker)? {
                Some(block) => self.state.lock().keep_block(read.key(), Arc::new(block)),
                None => self.report_damage(read.seq, read.generation, &read.place),
            },
        }
        Ok(())
    }

    /// A block that cannot be read is left out from now on, and the segment is to be compacted.
    pub(super) fn report_damage(&self, seq: u64, generation: u32, place: &Place) {
        let new = {
            let mut state = self.state.lock();
            let segment = state.segments.get_mut(&seq);
            segment.is_some_and(|segment| {
                segment.generation == generation && segment.damaged.insert(place.offset)
            })
        };
        if new {
            let (offset, entries) = (place.offset, place.last - place.first + 1);
            error!(
                segment = seq,
                offset, entries, "a block of the queue is damaged, its entries are lost"
            );
            self.damaged.fetch_add(1, Ordering::Relaxed);
            self.upkeep.poke();
        }
    }

    /// Opens a segment's log and reads its index, from the log if need be.
    pub(super) fn open_segment(&self, seq: u64) -> io::Result<Arc<Opened>> {
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let (file, id, generation) = {
            let state = self.state.lock();
            let segment = state.segments.get(&seq).ok_or_else(gone)?;
            let generation = segment.generation;
            match &segment.body {
                Body::Sealed(opened) => return Ok(opened.clone()),
                Body::Live { file, index, .. } => {
                    let opened = Opened {
                        generation,
                        file: file.clone(),
                        index: index.clone(),
                    };
                    return Ok(Arc::new(opened));
                }
                // Under the lock, so that compaction does not put another file in its place meanwhile.
                Body::Indexed => (
                    File::open(self.layout.path(seq, Kind::Log))?,
                    segment.id,
                    generation,
                ),
            }
        };
        let index = match self.read_index(seq, id, generation)? {
            Some(index) => index,
            None => {
                let mut index = Index::default();
                log::scan(&file, id, false, |offset, head, _| {
                    index.add(head.lane_number, Place::new(offset, head));
                })?;
                index
            }
        };
        Ok(Arc::new(Opened {
            generation,
            file: Arc::new(file),
            index,
        }))
    }

    fn read_index(&self, seq: u64, id: u64, generation: u32) -> io::Result<Option<Index>> {
        let file = match File::open(self.layout.path(seq, Kind::Index)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let Some((summary, end)) = Summary::read(&file)? else {
            return Ok(None);
        };
        if summary.segment != id || summary.generation != generation {
            return Ok(None);
        }
        index::read_places(&file, end)
    }

    /// Makes sure that the age of a lane's next entry is known.
    pub(super) fn refresh(&self, lane: LaneId, unpacker: &mut Unpacker) {
        loop {
            let missing = self.state.lock().refresh(lane);
            let Some(missing) = missing else { break };
            if let Err(error) = self.fetch(missing, unpacker) {
                error!(%error, "cannot read the queue");
                break;
            }
        }
    }
}

/// `None`: damaged.
pub(super) fn read_block(read: &BlockRead, unpacker: &mut Unpacker) -> io::Result<Option<Block>> {
    debug_assert!(read.place.offset >= HEADER_BYTES as u64);
    match read_at(&read.file, read.place.offset, read.place.bytes()) {
        Ok(data) => Ok(Block::parse(&data, unpacker)),
        // The file was cut.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
