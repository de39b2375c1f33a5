//! Blocks: entries of one lane that were stored together, as one value. Pure.
//!
//! A block is a head, which says without unpacking what scripts and indexes need, and a body: a row per entry, then the
//! requests, compressed together when that pays. A request that is too large for a block is kept *beside* it, under a key
//! of its own. What comes from the store may be damaged: it is refused then, and nothing is allocated by a length that the
//! bytes do not bear out.

use std::cell::RefCell;
use std::sync::Arc;

use bytes::Bytes;

use super::limits::{BESIDE_BYTES, BLOCK_ENTRIES_MAX, RAW_BYTES_MAX};
use crate::store::codec::{Reader, compression_pays, put_bytes, put_varint};
use crate::store::queue::{EntryId, Lane, NewEntry, OrderingKey};

/// Scripts look into the first eight bytes: version, flags, mark, number of entries (most significant byte first).
const VERSION: u8 = 1;
const REPLAY: u8 = 1;
const COMPRESSED: u8 = 2;
const FIXED_BYTES: usize = 8;
/// Of a row.
const HAS_REPLAYED: u8 = 1;
const IS_BESIDE: u8 = 2;
/// Nothing is found in less.
const TINY_BYTES: usize = 64;
const COMPRESSION_LEVEL: i32 = 3;

thread_local! {
    /// Making one costs more than compressing a small block.
    static COMPRESSOR: RefCell<Option<zstd::bulk::Compressor<'static>>> =
        RefCell::new(zstd::bulk::Compressor::new(COMPRESSION_LEVEL).ok());
}

/// Tells a block from another one that got the same number after a server forgot the first.
pub(super) type Mark = [u8; 4];

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Head {
    pub(super) lane: Lane,
    pub(super) mark: Mark,
    pub(super) count: u16,
    pub(super) min_ms: u64,
    pub(super) max_ms: u64,
    pub(super) request_bytes: u64,
    /// Stored beside the block.
    pub(super) beside_bytes: u64,
    is_compressed: bool,
    raw_bytes: u32,
    crc: u32,
    body_at: usize,
}

/// An entry without its request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) id: EntryId,
    pub(super) key: OrderingKey,
    pub(super) barrier: OrderingKey,
    pub(super) cost: u32,
    pub(super) replay_of: Option<EntryId>,
    pub(super) request_bytes: u32,
    pub(super) is_beside: bool,
}

#[derive(Debug)]
pub(super) struct Block {
    pub(super) head: Head,
    pub(super) rows: Vec<Row>,
    /// `None`: beside, and not read yet.
    requests: Vec<Option<Bytes>>,
    /// Requests are parts of one buffer, which whoever keeps one should not keep whole.
    is_shared: bool,
}

/// What is to be stored.
pub(super) struct Packed {
    pub(super) block: Block,
    pub(super) bytes: Bytes,
    /// Requests beside it.
    pub(super) beside: Vec<(EntryId, Bytes)>,
}

impl Head {
    /// Also from the beginning of a block, if that is long enough.
    pub(super) fn parse(data: &Bytes, partition: u16) -> Option<Self> {
        if data.len() < FIXED_BYTES || data[0] != VERSION {
            return None;
        }
        let flags = data[1];
        let mark = data[2..6].try_into().ok()?;
        let count = u16::from_be_bytes(data[6..8].try_into().ok()?);
        let rest = data.slice(FIXED_BYTES..);
        let whole = rest.len();
        let mut reader = Reader::new(rest);
        let crc = reader.u32()?;
        let application = reader.text()?;
        let min_ms = reader.varint()?;
        let max_ms = min_ms.checked_add(reader.varint()?)?;
        let request_bytes = reader.varint()?;
        let beside_bytes = reader.varint()?;
        let raw_bytes = reader.varint32()?;
        let body_at = FIXED_BYTES + whole - reader.left();
        let plausible = count > 0 && raw_bytes as usize <= RAW_BYTES_MAX;
        plausible.then_some(Self {
            lane: Lane {
                partition,
                application,
                replay: flags & REPLAY != 0,
            },
            mark,
            count,
            min_ms,
            max_ms,
            request_bytes,
            beside_bytes,
            is_compressed: flags & COMPRESSED != 0,
            raw_bytes,
            crc,
            body_at,
        })
    }
}

impl Block {
    pub(super) fn parse(data: &Bytes, partition: u16) -> Option<Self> {
        let head = Head::parse(data, partition)?;
        let body = data.slice(head.body_at..);
        if crc32c::crc32c(&body) != head.crc {
            return None;
        }
        let raw_bytes = head.raw_bytes as usize;
        let raw = if head.is_compressed {
            let raw = zstd::bulk::decompress(&body, raw_bytes).ok()?;
            Bytes::from(raw)
        } else {
            body
        };
        if raw.len() != raw_bytes {
            return None;
        }
        let mut reader = Reader::new(raw);
        let count = usize::from(head.count);
        let mut rows = Vec::with_capacity(count);
        for _ in 0..count {
            rows.push(parse_row(&mut reader, head.min_ms)?);
        }
        let mut requests = Vec::with_capacity(count);
        for row in &rows {
            requests.push(if row.is_beside {
                None
            } else {
                Some(reader.take(row.request_bytes as usize)?)
            });
        }
        Some(Self {
            head,
            rows,
            requests,
            is_shared: true,
        })
    }

    /// `None`: it is beside the block.
    pub(super) fn request(&self, index: usize) -> Option<Bytes> {
        let request = self.requests.get(index)?.as_ref()?;
        Some(if self.is_shared && self.requests.len() > 1 {
            Bytes::copy_from_slice(request)
        } else {
            request.clone()
        })
    }

    /// Requests beside the block that are not here.
    pub(super) fn missing(&self) -> Vec<(usize, EntryId)> {
        let rows = self.rows.iter().enumerate();
        let missing = rows.filter(|(index, _)| self.requests[*index].is_none());
        missing.map(|(index, row)| (index, row.id)).collect()
    }

    /// What was stored beside the block. `false`: it is damaged.
    pub(super) fn set_request(&mut self, index: usize, packed: &Bytes) -> bool {
        let bytes = self.rows[index].request_bytes as usize;
        match unpack_beside(packed, bytes) {
            Some(request) => {
                self.requests[index] = Some(request);
                true
            }
            None => false,
        }
    }

    pub(super) fn key(&self, key: &OrderingKey) -> OrderingKey {
        if self.is_shared {
            Bytes::copy_from_slice(key)
        } else {
            key.clone()
        }
    }

    /// What it costs to keep.
    pub(super) fn memory_bytes(&self) -> usize {
        let requests: usize = self.requests.iter().flatten().map(Bytes::len).sum();
        let keys = self
            .rows
            .iter()
            .map(|row| row.key.len() + row.barrier.len());
        requests + keys.sum::<usize>() + self.rows.len() * (size_of::<Row>() + 40) + 256
    }
}

fn parse_row(reader: &mut Reader, min_ms: u64) -> Option<Row> {
    let ms = min_ms.checked_add(reader.varint()?)?;
    let random = reader.take(10)?;
    let mut id = [0; 16];
    id[..6].copy_from_slice(&ms.to_be_bytes()[2..]);
    id[6..].copy_from_slice(&random);
    let flags = reader.u8()?;
    let cost = reader.varint32()?;
    let request_bytes = reader.varint32()?;
    let key = reader.bytes()?;
    let barrier = reader.bytes()?;
    let replay_of = if flags & HAS_REPLAYED != 0 {
        Some(EntryId(reader.u128()?))
    } else {
        None
    };
    Some(Row {
        id: EntryId(u128::from_be_bytes(id)),
        key,
        barrier,
        cost,
        replay_of,
        request_bytes,
        is_beside: flags & IS_BESIDE != 0,
    })
}

/// Whether the next entry may be in one block with those before it.
pub(super) fn fits(entries: usize, request_bytes: usize, next_bytes: usize) -> bool {
    entries == 0
        || entries < BLOCK_ENTRIES_MAX
            && next_bytes <= BESIDE_BYTES
            && request_bytes + next_bytes <= BESIDE_BYTES
}

/// Entries of one lane, at least one, as [`fits`] allows.
pub(super) fn pack(entries: &[NewEntry], mark: Mark) -> Packed {
    let ms = |entry: &NewEntry| entry.id.accepted_ms();
    let min_ms = entries.iter().map(ms).min().unwrap_or(0);
    let max_ms = entries.iter().map(ms).max().unwrap_or(0);
    let lane = entries[0].lane.clone();
    let (mut raw, mut beside) = (Vec::new(), Vec::new());
    let (mut rows, mut requests) = (Vec::new(), Vec::new());
    let mut request_bytes = 0_u64;
    for entry in entries {
        let is_beside = entry.request.len() > BESIDE_BYTES;
        let row = Row {
            id: entry.id,
            key: entry.key.clone(),
            barrier: entry.barrier.clone(),
            cost: entry.cost,
            replay_of: entry.replay_of,
            request_bytes: entry.request.len() as u32,
            is_beside,
        };
        put_row(&mut raw, &row, min_ms);
        rows.push(row);
        requests.push(Some(entry.request.clone()));
        request_bytes += entry.request.len() as u64;
        if is_beside {
            beside.push((entry.id, pack_beside(&entry.request)));
        }
    }
    for entry in entries {
        if entry.request.len() <= BESIDE_BYTES {
            raw.extend_from_slice(&entry.request);
        }
    }
    let compressed = compress(&raw);
    let body = compressed.as_deref().unwrap_or(&raw);
    let beside_bytes = beside.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let mut head = Head {
        lane,
        mark,
        count: entries.len() as u16,
        min_ms,
        max_ms,
        request_bytes,
        beside_bytes,
        is_compressed: compressed.is_some(),
        raw_bytes: raw.len() as u32,
        crc: crc32c::crc32c(body),
        body_at: 0,
    };
    let mut out = Vec::with_capacity(body.len() + head.lane.application.len() + 64);
    put_head(&mut out, &head);
    head.body_at = out.len();
    out.extend_from_slice(body);
    Packed {
        block: Block {
            head,
            rows,
            requests,
            is_shared: false,
        },
        bytes: out.into(),
        beside,
    }
}

fn put_head(out: &mut Vec<u8>, head: &Head) {
    out.push(VERSION);
    let flags = if head.lane.replay { REPLAY } else { 0 };
    out.push(flags | if head.is_compressed { COMPRESSED } else { 0 });
    out.extend_from_slice(&head.mark);
    out.extend_from_slice(&head.count.to_be_bytes());
    out.extend_from_slice(&head.crc.to_le_bytes());
    put_bytes(out, head.lane.application.as_bytes());
    put_varint(out, head.min_ms);
    put_varint(out, head.max_ms - head.min_ms);
    put_varint(out, head.request_bytes);
    put_varint(out, head.beside_bytes);
    put_varint(out, u64::from(head.raw_bytes));
}

fn put_row(out: &mut Vec<u8>, row: &Row, min_ms: u64) {
    put_varint(out, row.id.accepted_ms() - min_ms);
    out.extend_from_slice(&row.id.0.to_be_bytes()[6..]);
    let replayed = if row.replay_of.is_some() {
        HAS_REPLAYED
    } else {
        0
    };
    out.push(replayed | if row.is_beside { IS_BESIDE } else { 0 });
    put_varint(out, u64::from(row.cost));
    put_varint(out, u64::from(row.request_bytes));
    put_bytes(out, &row.key);
    put_bytes(out, &row.barrier);
    if let Some(id) = row.replay_of {
        out.extend_from_slice(&id.0.to_le_bytes());
    }
}

/// `None`: it does not pay.
fn compress(raw: &[u8]) -> Option<Vec<u8>> {
    if raw.len() < TINY_BYTES {
        return None;
    }
    let packed = COMPRESSOR.with_borrow_mut(|compressor| match compressor {
        Some(compressor) => compressor.compress(raw).ok(),
        None => None,
    })?;
    compression_pays(raw.len(), packed.len()).then_some(packed)
}

/// A checksum, whether it is compressed, and the request.
fn pack_beside(request: &Bytes) -> Bytes {
    let compressed = compress(request);
    let body = compressed.as_deref().unwrap_or(request);
    let mut out = Vec::with_capacity(body.len() + 5);
    out.extend_from_slice(&crc32c::crc32c(body).to_le_bytes());
    out.push(u8::from(compressed.is_some()));
    out.extend_from_slice(body);
    out.into()
}

fn unpack_beside(packed: &Bytes, bytes: usize) -> Option<Bytes> {
    let crc = u32::from_le_bytes(packed.get(..4)?.try_into().ok()?);
    let is_compressed = *packed.get(4)? == 1;
    let body = packed.slice(5..);
    if crc32c::crc32c(&body) != crc || bytes > RAW_BYTES_MAX {
        return None;
    }
    let request = if is_compressed {
        zstd::bulk::decompress(&body, bytes).ok()?.into()
    } else {
        body
    };
    (request.len() == bytes).then_some(request)
}

/// What scripts call a lane.
pub(super) fn lane_field(lane: &Lane) -> Bytes {
    let letter = if lane.replay { '1' } else { '0' };
    format!("{letter}{}", lane.application).into()
}

pub(super) fn lane_of(field: &str, partition: u16) -> Option<Lane> {
    let replay = match field.as_bytes().first()? {
        b'0' => false,
        b'1' => true,
        _ => return None,
    };
    Some(Lane {
        partition,
        application: Arc::from(&field[1..]),
        replay,
    })
}

#[cfg(test)]
mod tests;
