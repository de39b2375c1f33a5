//! What a segment's verdicts amount to, so that a start reads few of them.
//!
//! The file holds for one state of the log and of the verdict file, and says up to where it counted; verdicts
//! behind that are counted at the start. A file that does not fit, or is damaged, is as good as none.

use std::collections::HashMap;

use bytes::Bytes;

use super::bits::Bits;
use crate::store::codec::{Reader, checked, put_crc, put_varint};

const MAGIC: &[u8; 8] = b"SLQCHK\0\n";

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Checkpoint {
    pub(super) segment: u64,
    /// Of the log.
    pub(super) generation: u32,
    /// Of the verdict file, and how much of it is counted.
    pub(super) verdicts_generation: u32,
    pub(super) verdicts_bytes: u64,
    /// By the lane's number.
    pub(super) lanes: Vec<LaneCounts>,
    /// `None`: all, or none, by the counts.
    pub(super) settled: Option<Bits>,
    pub(super) parked: Option<Bits>,
    pub(super) attempts: HashMap<u32, u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct LaneCounts {
    pub(super) waiting: u32,
    pub(super) waiting_bytes: u64,
    pub(super) parked: u32,
}

impl Checkpoint {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        out.extend_from_slice(&self.segment.to_le_bytes());
        out.extend_from_slice(&self.generation.to_le_bytes());
        out.extend_from_slice(&self.verdicts_generation.to_le_bytes());
        put_varint(&mut out, self.verdicts_bytes);
        put_varint(&mut out, self.lanes.len() as u64);
        for lane in &self.lanes {
            put_varint(&mut out, u64::from(lane.waiting));
            put_varint(&mut out, lane.waiting_bytes);
            put_varint(&mut out, u64::from(lane.parked));
        }
        for bits in [&self.settled, &self.parked] {
            out.push(u8::from(bits.is_some()));
            if let Some(bits) = bits {
                bits.encode(&mut out);
            }
        }
        put_varint(&mut out, self.attempts.len() as u64);
        for (ordinal, attempts) in &self.attempts {
            put_varint(&mut out, u64::from(*ordinal));
            put_varint(&mut out, u64::from(*attempts));
        }
        put_crc(&mut out);
        out
    }

    pub(super) fn decode(data: &Bytes) -> Option<Self> {
        let mut reader = Reader::new(checked(data)?);
        if reader.take(MAGIC.len())?[..] != MAGIC[..] {
            return None;
        }
        let mut checkpoint = Self {
            segment: reader.u64()?,
            generation: reader.u32()?,
            verdicts_generation: reader.u32()?,
            verdicts_bytes: reader.varint()?,
            ..Self::default()
        };
        let lanes = reader.varint32()?;
        for _ in 0..lanes {
            checkpoint.lanes.push(LaneCounts {
                waiting: reader.varint32()?,
                waiting_bytes: reader.varint()?,
                parked: reader.varint32()?,
            });
        }
        for bits in [&mut checkpoint.settled, &mut checkpoint.parked] {
            if reader.u8()? == 1 {
                *bits = Some(Bits::decode(&mut reader)?);
            }
        }
        let attempts = reader.varint32()?;
        for _ in 0..attempts {
            checkpoint
                .attempts
                .insert(reader.varint32()?, reader.varint32()?);
        }
        Some(checkpoint)
    }
}
