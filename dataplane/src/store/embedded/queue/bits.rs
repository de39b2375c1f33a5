//! A set of ordinals, one bit each.

use crate::store::codec::{Reader, put_varint};

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Bits(Vec<u64>);

impl Bits {
    pub(super) fn get(&self, ordinal: u32) -> bool {
        self.0
            .get(ordinal as usize / 64)
            .is_some_and(|word| word >> (ordinal % 64) & 1 == 1)
    }

    /// Whether it was not there before.
    pub(super) fn set(&mut self, ordinal: u32) -> bool {
        let index = ordinal as usize / 64;
        if index >= self.0.len() {
            self.0.resize(index + 1, 0);
        }
        let bit = 1 << (ordinal % 64);
        let new = self.0[index] & bit == 0;
        self.0[index] |= bit;
        new
    }

    /// Whether it was there.
    pub(super) fn clear(&mut self, ordinal: u32) -> bool {
        let there = self.get(ordinal);
        if there {
            self.0[ordinal as usize / 64] &= !(1 << (ordinal % 64));
        }
        there
    }

    /// Whether all of a range are there.
    pub(super) fn covers(&self, first: u32, last: u32) -> bool {
        (first..=last).all(|ordinal| self.get(ordinal))
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.0.len() as u64);
        for word in &self.0 {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    pub(super) fn decode(reader: &mut Reader) -> Option<Self> {
        let words = reader.varint32()?;
        (0..words)
            .map(|_| reader.u64())
            .collect::<Option<_>>()
            .map(Self)
    }
}
