//! A segment's log: a header, then blocks, back to back.
//!
//! [`scan`] reads a log without its index: heads always, bodies where asked. What is damaged between good blocks
//! is stepped over and reported; what is no block up to the end is the torn tail.

use std::fs::File;
use std::io;

use bytes::Bytes;

use super::block::{FIXED_BYTES, Head, Row};
use super::disk::Window;
use crate::store::codec::{Reader, checked, put_crc};

const MAGIC: &[u8; 8] = b"SLQLOG\0\n";
pub(super) const VERSION: u32 = 1;
pub(super) const HEADER_BYTES: usize = 8 + 4 + 8 + 8 + 4 + 8 + 4;
/// Steps in the search for the next good block.
const RESYNC_BYTES: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) version: u32,
    pub(super) seq: u64,
    /// Random; all files of the segment and all its blocks carry it.
    pub(super) segment: u64,
    /// How often it was rewritten.
    pub(super) generation: u32,
    pub(super) created_ms: u64,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.version.to_le_bytes());
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.created_ms.to_le_bytes());
        put_crc(&mut out);
        out
    }

    pub(super) fn decode(data: &Bytes) -> Option<Self> {
        let mut reader = Reader::new(checked(data)?);
        if reader.take(MAGIC.len())?[..] != MAGIC[..] {
            return None;
        }
        Some(Self {
            version: reader.u32()?,
            seq: reader.u64()?,
            segment: reader.u64()?,
            generation: reader.u32()?,
            created_ms: reader.u64()?,
        })
    }
}

/// What a scan found besides blocks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scanned {
    /// Where the last good block ends.
    pub(super) end: u64,
    /// Stretches between good blocks that are none, and blocks with a bad body.
    pub(super) damaged: u64,
}

/// Calls `found` with each good block's place, head and rows, in order.
pub(super) fn scan(
    file: &File,
    segment: u64,
    check_bodies: bool,
    mut found: impl FnMut(u64, &Head, &[Row]),
) -> io::Result<Scanned> {
    let mut window = Window::new(file)?;
    let mut scanned = Scanned {
        end: HEADER_BYTES as u64,
        damaged: 0,
    };
    let mut at = HEADER_BYTES as u64;
    while at < window.length {
        match block_at(&mut window, at, segment, check_bodies)? {
            Some((head, rows, whole)) => {
                let end = at + (head.head_bytes() + head.body_bytes as usize) as u64;
                // A hole before it turned out to be no tail; a bad body that is last may be one.
                if whole {
                    if at > scanned.end {
                        scanned.damaged += 1;
                    }
                    found(at, &head, &rows);
                    scanned.end = end;
                }
                at = end;
            }
            None => match resync(&mut window, at + 1, segment)? {
                Some(next) => at = next,
                None => break,
            },
        }
    }
    Ok(scanned)
}

/// The block that begins there, if one does, and whether its body is whole (where that is asked).
fn block_at(
    window: &mut Window<'_>,
    at: u64,
    segment: u64,
    check_body: bool,
) -> io::Result<Option<(Head, Vec<Row>, bool)>> {
    let Some(head) = window.get(at, FIXED_BYTES)?.and_then(Head::parse_fixed) else {
        return Ok(None);
    };
    if head.segment != segment {
        return Ok(None);
    }
    let Some(data) = window
        .get(at, head.head_bytes())?
        .map(Bytes::copy_from_slice)
    else {
        return Ok(None);
    };
    let Some((head, rows)) = Head::parse(&data) else {
        return Ok(None);
    };
    let body_at = at + head.head_bytes() as u64;
    let body_bytes = head.body_bytes as usize;
    let whole = if check_body {
        window
            .get(body_at, body_bytes)?
            .is_some_and(|body| head.body_is_whole(body))
    } else {
        body_at + body_bytes as u64 <= window.length
    };
    Ok(Some((head, rows, whole)))
}

/// Where the next block with a good head begins.
fn resync(window: &mut Window<'_>, from: u64, segment: u64) -> io::Result<Option<u64>> {
    let mark = segment.to_le_bytes();
    let mut at = from;
    while at + FIXED_BYTES as u64 <= window.length {
        let length = RESYNC_BYTES.min((window.length - at) as usize);
        let Some(data) = window.get(at, length)? else {
            break;
        };
        // The segment's number is what blocks of it have in common and nothing else has.
        let hit = memchr::memmem::find(data, &mark).map(|hit| at + hit as u64);
        let Some(hit) = hit else {
            if length < RESYNC_BYTES {
                break;
            }
            at += (length - mark.len()) as u64;
            continue;
        };
        if let Some(start) = hit.checked_sub(SEGMENT_AT).filter(|start| *start >= from)
            && block_at(window, start, segment, false)?.is_some()
        {
            return Ok(Some(start));
        }
        at = hit + 1;
    }
    Ok(None)
}

/// Where the segment's number stands in a block.
const SEGMENT_AT: u64 = FIXED_BYTES as u64 - 16;
