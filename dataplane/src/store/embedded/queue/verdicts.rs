//! A segment's verdict file: what became of its entries, and how many attempts those that wait have used up.
//!
//! It only grows, by frames: the records of one write, with the texts they name in front, under one checksum. A record
//! has the entry's ordinal, the lane's number and the request's size, so that a start need not look into the log. The
//! file is read forward; a frame that is damaged is stepped over.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use bytes::Bytes;

use super::disk::{Window, read_at};
use super::limits::SEGMENT_ENTRIES_MAX;
use crate::store::codec::{Reader, checked, put_bytes, put_crc, put_varint};
pub(super) use crate::store::queue::record::What;
use crate::store::queue::{Outcome, Verdict};

const MAGIC: &[u8; 8] = b"SLQVER\0\n";
pub(super) const HEADER_BYTES: usize = 8 + 8 + 4 + 4;
const FRAME_MAGIC: [u8; 4] = *b"\xf5VF\n";
const FRAME_HEAD_BYTES: usize = 8;
/// A frame of so many records at most, so that reading one takes little memory.
pub(super) const FRAME_RECORDS_MAX: usize = 4_096;
const FRAME_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Record {
    pub(super) ordinal: u32,
    pub(super) lane_number: u32,
    pub(super) request_bytes: u32,
    pub(super) what: What,
}

/// The beginning of a verdict file.
pub(super) fn header(segment: u64, generation: u32) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&segment.to_le_bytes());
    out.extend_from_slice(&generation.to_le_bytes());
    put_crc(&mut out);
    out
}

/// The file's generation, if it is a verdict file of the segment.
pub(super) fn parse_header(data: &Bytes, segment: u64) -> Option<u32> {
    let mut reader = Reader::new(checked(data)?);
    let right = reader.take(MAGIC.len())?[..] == MAGIC[..] && reader.u64()? == segment;
    right.then(|| reader.u32())?
}

/// Appends frames with all records.
pub(super) fn put_frames(out: &mut Vec<u8>, records: &[Record]) {
    for records in records.chunks(FRAME_RECORDS_MAX) {
        put_frame(out, records);
    }
}

fn put_frame(out: &mut Vec<u8>, records: &[Record]) {
    let mut texts: Vec<&str> = Vec::new();
    let mut body = Vec::with_capacity(records.len() * 20);
    for record in records {
        put_varint(&mut body, u64::from(record.ordinal));
        put_varint(&mut body, u64::from(record.lane_number));
        put_varint(&mut body, u64::from(record.request_bytes));
        record.what.put(&mut body, |body, text| {
            put_varint(body, text_number(&mut texts, text));
        });
    }
    let mut frame = Vec::with_capacity(body.len() + 64);
    put_varint(&mut frame, texts.len() as u64);
    for text in texts {
        put_bytes(&mut frame, text.as_bytes());
    }
    put_varint(&mut frame, records.len() as u64);
    frame.extend_from_slice(&body);
    put_crc(&mut frame);
    out.extend_from_slice(&FRAME_MAGIC);
    out.extend_from_slice(&(frame.len() as u32).to_le_bytes());
    out.extend_from_slice(&frame);
}

fn text_number<'a>(texts: &mut Vec<&'a str>, text: &'a str) -> u64 {
    let known = texts.iter().position(|known| *known == text);
    known.unwrap_or_else(|| {
        texts.push(text);
        texts.len() - 1
    }) as u64
}

fn parse_frame(data: &Bytes, known: &mut Texts, found: &mut impl FnMut(Record)) -> Option<()> {
    let mut reader = Reader::new(checked(data)?);
    let count = reader.varint32()?;
    let mut texts = Vec::new();
    for _ in 0..count {
        let text = reader.bytes()?;
        texts.push(known.get(std::str::from_utf8(&text).ok()?));
    }
    let count = reader.varint32()?;
    for _ in 0..count {
        let ordinal = reader.varint32()?;
        let lane_number = reader.varint32()?;
        let request_bytes = reader.varint32()?;
        let what = What::take(&mut reader, |reader| {
            texts.get(reader.varint()? as usize).cloned()
        })?;
        found(Record {
            ordinal,
            lane_number,
            request_bytes,
            what,
        });
    }
    Some(())
}

/// Texts that are the same are one.
#[derive(Default)]
struct Texts(HashMap<String, Arc<str>>);

impl Texts {
    fn get(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        let new: Arc<str> = text.into();
        self.0.insert(text.to_owned(), new.clone());
        new
    }
}

/// Reads frames from an offset on, and answers where the last good one ends.
pub(super) fn read(
    file: &std::fs::File,
    from: u64,
    mut found: impl FnMut(Record),
) -> io::Result<u64> {
    let mut window = Window::new(file)?;
    let mut texts = Texts::default();
    let mut at = from;
    let mut end = from;
    while let Some(head) = window.get(at, FRAME_HEAD_BYTES)? {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let good = head[..4] == FRAME_MAGIC && length <= FRAME_BYTES_MAX;
        let body_at = at + FRAME_HEAD_BYTES as u64;
        let body = if good {
            window.get(body_at, length)?.map(Bytes::copy_from_slice)
        } else {
            None
        };
        if body.is_some_and(|body| parse_frame(&body, &mut texts, &mut found).is_some()) {
            at = body_at + length as u64;
            end = at;
        } else {
            match next_frame(&mut window, at + 1)? {
                Some(next) => at = next,
                None => break,
            }
        }
    }
    Ok(end)
}

/// Where something that looks like a frame begins.
fn next_frame(window: &mut Window<'_>, from: u64) -> io::Result<Option<u64>> {
    const STEP_BYTES: usize = 64 * 1024;
    let mut at = from;
    while at + (FRAME_HEAD_BYTES as u64) < window.length {
        let length = STEP_BYTES.min((window.length - at) as usize);
        let Some(data) = window.get(at, length)? else {
            break;
        };
        if let Some(hit) = memchr::memmem::find(data, &FRAME_MAGIC) {
            return Ok(Some(at + hit as u64));
        }
        at += (length - FRAME_MAGIC.len() + 1) as u64;
    }
    Ok(None)
}

/// The last record of each entry, compactly: a search keeps those of a whole segment.
#[derive(Debug, Default)]
pub(super) struct Verdicts {
    /// By ordinal.
    slots: Vec<Slot>,
    texts: Vec<Arc<str>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    at_ms: u64,
    attempts: u32,
    request_bytes: u32,
    lane_number: u32,
    http_status: u16,
    reason: u16,
    upstream: u16,
    kind: SlotKind,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum SlotKind {
    #[default]
    Nothing,
    Attempts,
    Settled(Outcome),
}

impl Verdicts {
    pub(super) fn add(&mut self, record: &Record) {
        // Ordinals beyond are of no entry, but damage that a checksum let through must not take memory.
        if record.ordinal >= SEGMENT_ENTRIES_MAX {
            return;
        }
        let mut slot = Slot {
            request_bytes: record.request_bytes,
            lane_number: record.lane_number,
            ..Slot::default()
        };
        match &record.what {
            What::Attempts(attempts) => {
                slot.attempts = *attempts;
                slot.kind = SlotKind::Attempts;
            }
            What::Settled(verdict) => {
                slot.at_ms = verdict.at_ms;
                slot.attempts = verdict.attempts;
                slot.http_status = verdict.http_status;
                slot.reason = self.text(&verdict.reason);
                slot.upstream = self.text(&verdict.upstream);
                slot.kind = SlotKind::Settled(verdict.outcome);
            }
        }
        let index = record.ordinal as usize;
        if index >= self.slots.len() {
            self.slots.resize(index + 1, Slot::default());
        }
        let old = &mut self.slots[index];
        // Only a parked entry gets a second verdict, and only those are written twice.
        if slot.kind != SlotKind::Attempts || !matches!(old.kind, SlotKind::Settled(_)) {
            *old = slot;
        }
    }

    fn text(&mut self, text: &Arc<str>) -> u16 {
        let known = self.texts.iter().position(|known| known == text);
        let number = known.unwrap_or_else(|| {
            self.texts.push(text.clone());
            self.texts.len() - 1
        });
        number.try_into().unwrap_or(0)
    }

    pub(super) fn get(&self, ordinal: u32) -> Option<Verdict> {
        let slot = self.slots.get(ordinal as usize)?;
        let SlotKind::Settled(outcome) = slot.kind else {
            return None;
        };
        let text = |number: u16| self.texts.get(usize::from(number)).cloned();
        Some(Verdict {
            outcome,
            reason: text(slot.reason).unwrap_or_default(),
            http_status: slot.http_status,
            attempts: slot.attempts,
            upstream: text(slot.upstream).unwrap_or_default(),
            at_ms: slot.at_ms,
        })
    }

    /// What is known, for a new file.
    pub(super) fn records(&self) -> impl Iterator<Item = Record> {
        let slots = self.slots.iter().enumerate();
        slots.filter_map(|(ordinal, slot)| {
            let ordinal = ordinal as u32;
            let what = match slot.kind {
                SlotKind::Nothing => return None,
                SlotKind::Attempts => What::Attempts(slot.attempts),
                SlotKind::Settled(_) => What::Settled(self.get(ordinal)?),
            };
            Some(Record {
                ordinal,
                lane_number: slot.lane_number,
                request_bytes: slot.request_bytes,
                what,
            })
        })
    }
}

/// A file's generation; `None`: it is not a verdict file of the segment.
pub(super) fn read_header(file: &std::fs::File, segment: u64) -> io::Result<Option<u32>> {
    match read_at(file, 0, HEADER_BYTES) {
        Ok(data) => Ok(parse_header(&data, segment)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}
