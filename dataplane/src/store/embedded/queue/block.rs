//! Blocks: entries of one lane that were written together.
//!
//! A block is a head (fixed fields, the lane's name, a table with a row per entry) and a body (the requests,
//! compressed when that pays). Each has its own checksum, so recovery and search read heads only. A row carries the
//! entry's ordinal: its number within the segment, which stays when compaction leaves out its neighbours.

use std::sync::Arc;

use bytes::Bytes;

use super::limits::{BLOCK_BYTES_MAX, NAME_BYTES_MAX};
use crate::store::codec::{Reader, compression_pays, put_bytes, put_varint};
use crate::store::queue::{EntryId, Lane, NewEntry, OrderingKey};

const MAGIC: u32 = u32::from_le_bytes(*b"SLQB");
pub(super) const FIXED_BYTES: usize = 72;
const HEAD_CRC_AT: usize = FIXED_BYTES - 4;

/// Below this a block is compressed for speed: there is little to find in it.
const SMALL_BYTES: usize = 4 * 1024;
/// Nothing is found in less.
const TINY_BYTES: usize = 128;

/// An entry without its request.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Row {
    pub(super) ordinal: u32,
    pub(super) id: EntryId,
    pub(super) key: OrderingKey,
    pub(super) barrier: OrderingKey,
    pub(super) cost: u32,
    pub(super) replay_of: Option<EntryId>,
    pub(super) request_bytes: u32,
}

impl Row {
    /// `keys`: where its keys begin; they are taken off.
    pub(super) fn new(ordinal: u32, entry: &NewEntry, keys: &mut Bytes) -> Self {
        Self {
            ordinal,
            id: entry.id,
            key: keys.split_to(entry.key.len()),
            barrier: keys.split_to(entry.barrier.len()),
            cost: entry.cost,
            replay_of: entry.replay_of,
            request_bytes: entry.request.len() as u32,
        }
    }
}

/// The fixed fields of a head and the lane.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Head {
    pub(super) lane: Lane,
    /// The lane's number within the segment.
    pub(super) lane_number: u32,
    pub(super) count: u32,
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) min_ms: u64,
    pub(super) max_ms: u64,
    /// Of the segment: tells its blocks from those that a request contains.
    pub(super) segment: u64,
    compressed: bool,
    name_bytes: u32,
    table_bytes: u32,
    /// Of the requests before compression.
    pub(super) request_bytes: u32,
    pub(super) body_bytes: u32,
    body_crc: u32,
    head_crc: u32,
}

impl Head {
    pub(super) fn head_bytes(&self) -> usize {
        FIXED_BYTES + self.name_bytes as usize + self.table_bytes as usize
    }

    /// Reads the fixed fields, whose checksum is over what follows too; so they are only plausible yet. The lane's name
    /// is not there either.
    pub(super) fn parse_fixed(data: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(Bytes::copy_from_slice(data.get(..FIXED_BYTES)?));
        if reader.u32()? != MAGIC {
            return None;
        }
        let compressed = reader.u8()? == 1;
        let replay = reader.u8()? == 1;
        let partition = reader.u16()?;
        let head = Self {
            lane_number: reader.u32()?,
            count: reader.u32()?,
            first: reader.u32()?,
            last: reader.u32()?,
            name_bytes: reader.u32()?,
            table_bytes: reader.u32()?,
            request_bytes: reader.u32()?,
            body_bytes: reader.u32()?,
            min_ms: reader.u64()?,
            max_ms: reader.u64()?,
            segment: reader.u64()?,
            body_crc: reader.u32()?,
            head_crc: reader.u32()?,
            compressed,
            lane: Lane {
                partition,
                application: Arc::default(),
                replay,
            },
        };
        let plausible = head.name_bytes as usize <= NAME_BYTES_MAX
            && head.table_bytes as usize <= BLOCK_BYTES_MAX
            && head.request_bytes as usize <= BLOCK_BYTES_MAX
            && head.body_bytes as usize <= BLOCK_BYTES_MAX
            && head.count > 0
            && head.first <= head.last;
        plausible.then_some(head)
    }

    /// A whole head: checks it and reads its rows.
    pub(super) fn parse(data: &Bytes) -> Option<(Self, Vec<Row>)> {
        let mut head = Self::parse_fixed(data)?;
        if data.len() < head.head_bytes() || head_crc(&data[..head.head_bytes()]) != head.head_crc {
            return None;
        }
        let mut reader = Reader::new(data.slice(FIXED_BYTES..head.head_bytes()));
        let name = reader.take(head.name_bytes as usize)?;
        head.lane.application = std::str::from_utf8(&name).ok()?.into();
        let mut ordinal = head.first;
        let mut rows = Vec::with_capacity(head.count.min(1 << 16) as usize);
        for _ in 0..head.count {
            ordinal = ordinal.checked_add(reader.varint32()?)?;
            let id = EntryId(reader.u128()?);
            let cost = reader.varint32()?;
            let request_bytes = reader.varint32()?;
            let key = reader.bytes()?;
            let barrier = reader.bytes()?;
            let replay_of = match reader.u8()? {
                0 => None,
                _ => Some(EntryId(reader.u128()?)),
            };
            rows.push(Row {
                ordinal,
                id,
                key,
                barrier,
                cost,
                replay_of,
                request_bytes,
            });
        }
        Some((head, rows))
    }

    /// Whether the body is as it was written.
    pub(super) fn body_is_whole(&self, body: &[u8]) -> bool {
        body.len() == self.body_bytes as usize && crc32c::crc32c(body) == self.body_crc
    }
}

/// Over everything but the checksum's own bytes.
fn head_crc(head: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&head[..HEAD_CRC_AT]);
    crc32c::crc32c_append(crc, &head[FIXED_BYTES..])
}

/// Entries of a block in memory. Keys are parts of one buffer, requests of another, which whoever keeps one should not
/// keep whole.
#[derive(Debug)]
pub(super) struct Block {
    pub(super) rows: Vec<Row>,
    requests: Bytes,
    /// Where each request ends.
    ends: Vec<u32>,
    /// What it costs to keep.
    bytes: usize,
}

impl Block {
    /// `rows`: what they share is theirs alone. `None`: the requests are not as long as the rows say.
    pub(super) fn new(rows: Vec<Row>, requests: Bytes) -> Option<Self> {
        let mut ends = Vec::with_capacity(rows.len());
        let mut end = 0_u32;
        let mut keys_bytes = 0;
        for row in &rows {
            end = end.checked_add(row.request_bytes)?;
            ends.push(end);
            keys_bytes += row.key.len() + row.barrier.len();
        }
        let entry_bytes = size_of::<Row>() + size_of::<u32>();
        let bytes = requests.len() + keys_bytes + rows.len() * entry_bytes + 128;
        (end as usize <= requests.len()).then_some(Self {
            rows,
            requests,
            ends,
            bytes,
        })
    }

    /// From head and body as they were read.
    pub(super) fn parse(data: &Bytes, unpacker: &mut Unpacker) -> Option<Self> {
        let (head, rows) = Head::parse(data)?;
        let body = data.slice(head.head_bytes()..);
        if !head.body_is_whole(&body) {
            return None;
        }
        let requests = if head.compressed {
            unpacker.unpack(&body, head.request_bytes as usize)?
        } else {
            body
        };
        Self::new(rows, requests)
    }

    /// Position of the first row at or after an ordinal.
    pub(super) fn seek(&self, ordinal: u32) -> usize {
        self.rows.partition_point(|row| row.ordinal < ordinal)
    }

    pub(super) fn position(&self, ordinal: u32) -> Option<usize> {
        let position = self.seek(ordinal);
        (self.rows.get(position)?.ordinal == ordinal).then_some(position)
    }

    pub(super) fn request(&self, position: usize) -> Bytes {
        let end = self.ends[position] as usize;
        let start = end - self.rows[position].request_bytes as usize;
        if self.rows.len() == 1 {
            return self.requests.slice(start..end);
        }
        Bytes::copy_from_slice(&self.requests[start..end])
    }

    pub(super) fn key(&self, key: &OrderingKey) -> OrderingKey {
        Bytes::copy_from_slice(key)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Compresses, with what can be used again.
pub(super) struct Packer {
    fast: zstd::bulk::Compressor<'static>,
    small: zstd::bulk::Compressor<'static>,
    packed: Vec<u8>,
}

impl Packer {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            fast: zstd::bulk::Compressor::new(1)?,
            small: zstd::bulk::Compressor::new(-1)?,
            packed: Vec::new(),
        })
    }

    /// Writes a block of entries, at least one, to the end of `out`; `requests` is theirs, one after the other. The
    /// checksums are set.
    pub(super) fn pack(
        &mut self,
        out: &mut Vec<u8>,
        segment: u64,
        lane_number: u32,
        lane: &Lane,
        rows: &[Row],
        requests: &[u8],
    ) -> Head {
        let compressed = self.compress(requests);
        let body = if compressed {
            &self.packed[..]
        } else {
            requests
        };
        let table = table(rows);
        let times = || rows.iter().map(|row| row.id.accepted_ms());
        let name = lane.application.as_bytes();
        let mut head = Head {
            lane: lane.clone(),
            lane_number,
            count: rows.len() as u32,
            first: rows.first().map_or(0, |row| row.ordinal),
            last: rows.last().map_or(0, |row| row.ordinal),
            min_ms: times().min().unwrap_or(0),
            max_ms: times().max().unwrap_or(0),
            segment,
            compressed,
            name_bytes: name.len() as u32,
            table_bytes: table.len() as u32,
            request_bytes: requests.len() as u32,
            body_bytes: body.len() as u32,
            body_crc: crc32c::crc32c(body),
            head_crc: 0,
        };
        let start = out.len();
        put_fixed(out, &head);
        out.extend_from_slice(name);
        out.extend_from_slice(&table);
        head.head_crc = head_crc(&out[start..]);
        out[start + HEAD_CRC_AT..start + FIXED_BYTES].copy_from_slice(&head.head_crc.to_le_bytes());
        out.extend_from_slice(body);
        head
    }

    /// Whether `packed` is worth it.
    fn compress(&mut self, requests: &[u8]) -> bool {
        let length = requests.len();
        if length < TINY_BYTES {
            return false;
        }
        let packer = if length < SMALL_BYTES {
            &mut self.small
        } else {
            &mut self.fast
        };
        self.packed.clear();
        self.packed.shrink_to(BUFFER_KEPT_BYTES);
        self.packed.reserve(zstd::zstd_safe::compress_bound(length));
        let done = packer.compress_to_buffer(requests, &mut self.packed);
        done.is_ok_and(|packed| compression_pays(length, packed))
    }
}

/// Buffers that one large request made larger than this are given back.
pub(super) const BUFFER_KEPT_BYTES: usize = 1 << 20;

fn put_fixed(out: &mut Vec<u8>, head: &Head) {
    out.extend_from_slice(&MAGIC.to_le_bytes());
    out.push(u8::from(head.compressed));
    out.push(u8::from(head.lane.replay));
    out.extend_from_slice(&head.lane.partition.to_le_bytes());
    let numbers = [
        head.lane_number,
        head.count,
        head.first,
        head.last,
        head.name_bytes,
        head.table_bytes,
        head.request_bytes,
        head.body_bytes,
    ];
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
    for number in [head.min_ms, head.max_ms, head.segment] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&head.body_crc.to_le_bytes());
    out.extend_from_slice(&head.head_crc.to_le_bytes());
}

fn table(rows: &[Row]) -> Vec<u8> {
    let mut table = Vec::with_capacity(rows.len() * 64);
    let mut before = rows.first().map_or(0, |row| row.ordinal);
    for row in rows {
        put_varint(&mut table, u64::from(row.ordinal - before));
        before = row.ordinal;
        table.extend_from_slice(&row.id.0.to_le_bytes());
        put_varint(&mut table, u64::from(row.cost));
        put_varint(&mut table, u64::from(row.request_bytes));
        put_bytes(&mut table, &row.key);
        put_bytes(&mut table, &row.barrier);
        match row.replay_of {
            None => table.push(0),
            Some(id) => {
                table.push(1);
                table.extend_from_slice(&id.0.to_le_bytes());
            }
        }
    }
    table
}

/// Decompresses, with what can be used again.
pub(super) struct Unpacker(zstd::bulk::Decompressor<'static>);

impl Unpacker {
    pub(super) fn new() -> std::io::Result<Self> {
        zstd::bulk::Decompressor::new().map(Self)
    }

    fn unpack(&mut self, body: &[u8], length: usize) -> Option<Bytes> {
        let unpacked = self.0.decompress(body, length).ok()?;
        (unpacked.len() == length).then(|| unpacked.into())
    }
}
