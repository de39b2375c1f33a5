//! Where the blocks of a segment are, lane by lane, in memory and in the index file.
//!
//! The file has a summary in front, which is all that a start reads, and the places of the blocks behind it, which are
//! read when somebody looks into the segment. Each part has its own checksum.

use std::fs::File;
use std::io;

use bytes::Bytes;

use super::block::Head;
use super::disk::read_at;
use super::limits::{NAME_BYTES_MAX, SEGMENT_ENTRIES_MAX};
use crate::store::codec::{Reader, checked, put_bytes, put_crc, put_varint};
use crate::store::queue::{EntryId, Lane};

const MAGIC: &[u8; 8] = b"SLQIDX\0\n";

/// Where a block is and what can be known of it without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: u64,
    pub(super) head_bytes: u32,
    pub(super) body_bytes: u32,
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) min_ms: u64,
    pub(super) max_ms: u64,
}

impl Place {
    pub(super) fn new(offset: u64, head: &Head) -> Self {
        Self {
            offset,
            head_bytes: head.head_bytes() as u32,
            body_bytes: head.body_bytes,
            first: head.first,
            last: head.last,
            min_ms: head.min_ms,
            max_ms: head.max_ms,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.head_bytes as usize + self.body_bytes as usize
    }
}

/// Places by the lane's number, each lane's in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Index {
    lanes: Vec<Vec<Place>>,
    blocks: usize,
}

impl Index {
    pub(super) fn add(&mut self, lane_number: u32, place: Place) {
        let number = lane_number as usize;
        if number >= self.lanes.len() {
            self.lanes.resize_with(number + 1, Vec::new);
        }
        self.lanes[number].push(place);
        self.blocks += 1;
    }

    pub(super) fn lane(&self, lane_number: u32) -> &[Place] {
        self.lanes
            .get(lane_number as usize)
            .map_or(&[], Vec::as_slice)
    }

    /// The lane's first block with an entry at or after an ordinal.
    pub(super) fn seek(&self, lane_number: u32, ordinal: u32) -> Option<Place> {
        let places = self.lane(lane_number);
        let position = places.partition_point(|place| place.last < ordinal);
        places.get(position).copied()
    }

    /// All blocks, by place.
    pub(super) fn by_offset(&self) -> Vec<(u32, Place)> {
        let numbered = self.lanes.iter().enumerate();
        let mut all: Vec<(u32, Place)> = numbered
            .flat_map(|(number, places)| places.iter().map(move |place| (number as u32, *place)))
            .collect();
        all.sort_unstable_by_key(|(_, place)| place.offset);
        all
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    pub(super) fn bytes(&self) -> usize {
        self.blocks * size_of::<Place>() + self.lanes.len() * size_of::<Vec<Place>>()
    }
}

/// What a segment has of a lane, settled or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LaneSummary {
    pub(super) lane: Lane,
    pub(super) entries: u32,
    pub(super) request_bytes: u64,
    /// Of the last one accepted.
    pub(super) max_ms: u64,
}

/// What a start must know of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) segment: u64,
    pub(super) generation: u32,
    pub(super) log_bytes: u64,
    pub(super) blocks: u32,
    pub(super) next_ordinal: u32,
    pub(super) max_id: EntryId,
    pub(super) min_ms: u64,
    pub(super) max_ms: u64,
    /// By number.
    pub(super) lanes: Vec<LaneSummary>,
}

impl Summary {
    /// The index file.
    pub(super) fn encode(&self, index: &Index) -> Vec<u8> {
        let mut body = Vec::new();
        body.extend_from_slice(&self.segment.to_le_bytes());
        body.extend_from_slice(&self.generation.to_le_bytes());
        body.extend_from_slice(&self.max_id.0.to_le_bytes());
        for number in [
            self.log_bytes,
            u64::from(self.blocks),
            u64::from(self.next_ordinal),
            self.min_ms,
            self.max_ms,
            self.lanes.len() as u64,
        ] {
            put_varint(&mut body, number);
        }
        for lane in &self.lanes {
            put_varint(&mut body, u64::from(lane.lane.partition));
            body.push(u8::from(lane.lane.replay));
            put_bytes(&mut body, lane.lane.application.as_bytes());
            put_varint(&mut body, u64::from(lane.entries));
            put_varint(&mut body, lane.request_bytes);
            put_varint(&mut body, lane.max_ms);
        }
        put_crc(&mut body);
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&(body.len() as u32).to_le_bytes());
        out.extend_from_slice(&body);
        let mut places = Vec::with_capacity(index.blocks * 24);
        for lane in &index.lanes {
            put_varint(&mut places, lane.len() as u64);
            for place in lane {
                put_place(&mut places, place);
            }
        }
        put_crc(&mut places);
        out.extend_from_slice(&places);
        out
    }

    /// Reads the summary of an index file, and how long it is. `None`: damaged.
    pub(super) fn read(file: &File) -> io::Result<Option<(Self, u64)>> {
        let length = file.metadata()?.len();
        if length < 12 {
            return Ok(None);
        }
        let front = read_at(file, 0, 12)?;
        let mut reader = Reader::new(front.slice(8..));
        let body = reader.u32().unwrap_or(0) as usize;
        if front[..8] != MAGIC[..] || 12 + body as u64 > length {
            return Ok(None);
        }
        let body = read_at(file, 12, body)?;
        let end = 12 + body.len() as u64;
        Ok(checked(&body)
            .and_then(Self::decode)
            .map(|summary| (summary, end)))
    }

    fn decode(body: Bytes) -> Option<Self> {
        let mut reader = Reader::new(body);
        let mut summary = Self {
            segment: reader.u64()?,
            generation: reader.u32()?,
            max_id: EntryId(reader.u128()?),
            log_bytes: reader.varint()?,
            blocks: reader.varint32()?,
            next_ordinal: reader.varint32()?,
            min_ms: reader.varint()?,
            max_ms: reader.varint()?,
            lanes: Vec::new(),
        };
        let lanes = reader.varint32()?;
        for _ in 0..lanes {
            let partition = reader.varint()?.try_into().ok()?;
            let replay = reader.u8()? == 1;
            let application = reader.text().filter(|name| name.len() <= NAME_BYTES_MAX)?;
            summary.lanes.push(LaneSummary {
                lane: Lane {
                    partition,
                    application,
                    replay,
                },
                entries: reader.varint32()?,
                request_bytes: reader.varint()?,
                max_ms: reader.varint()?,
            });
        }
        (summary.next_ordinal <= SEGMENT_ENTRIES_MAX).then_some(summary)
    }
}

fn put_place(out: &mut Vec<u8>, place: &Place) {
    for number in [
        place.offset,
        u64::from(place.head_bytes),
        u64::from(place.body_bytes),
        u64::from(place.first),
        u64::from(place.last - place.first),
        place.min_ms,
        place.max_ms - place.min_ms,
    ] {
        put_varint(out, number);
    }
}

/// Reads the places behind the summary. `None`: damaged.
pub(super) fn read_places(file: &File, summary_end: u64) -> io::Result<Option<Index>> {
    let length = file.metadata()?.len().saturating_sub(summary_end);
    let data = read_at(file, summary_end, length as usize)?;
    Ok(checked(&data).and_then(decode_places))
}

fn decode_places(data: Bytes) -> Option<Index> {
    let mut reader = Reader::new(data);
    let mut index = Index::default();
    let mut number = 0;
    while !reader.is_empty() {
        let count = reader.varint32()?;
        for _ in 0..count {
            let offset = reader.varint()?;
            let head_bytes = reader.varint32()?;
            let body_bytes = reader.varint32()?;
            let first = reader.varint32()?;
            let last = first.checked_add(reader.varint32()?)?;
            let min_ms = reader.varint()?;
            let max_ms = min_ms.checked_add(reader.varint()?)?;
            let place = Place {
                offset,
                head_bytes,
                body_bytes,
                first,
                last,
                min_ms,
                max_ms,
            };
            index.add(number, place);
        }
        number += 1;
    }
    Some(index)
}
