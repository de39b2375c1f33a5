//! Names of a partition's keys, tokens, and the scripts.

use bytes::Bytes;

use super::block::Mark;
use super::limits::QUEUE_PARTITIONS;
use crate::store::queue::{EntryId, Token};
use crate::store::redis::script::{Script, script};
use crate::store::redis::slots::Partitions;

pub(super) static APPEND: Script = script!("queue_append.lua");
pub(super) static SETTLE: Script = script!("queue_settle.lua");
pub(super) static READ: Script = script!("queue_read.lua");
pub(super) static LEASE: Script = script!("queue_lease.lua");
pub(super) static PODS: Script = script!("queue_pods.lua");
pub(super) static DELETE: Script = script!("queue_delete.lua");

/// Of one partition.
pub(super) struct Keys {
    pub(super) slot: u16,
    pub(super) numbers: Bytes,
    pub(super) blocks: Bytes,
    pub(super) states: Bytes,
    pub(super) lease: Bytes,
}

impl Keys {
    pub(super) fn new(partitions: &Partitions, partition: u16) -> Self {
        let key = |name: &str| partitions.key(partition, name);
        Self {
            slot: partitions.slot(partition),
            numbers: key("q:n"),
            blocks: key("q:b"),
            states: key("q:s"),
            lease: key("q:l"),
        }
    }
}

/// Of all partitions, in a slot of its own.
pub(super) fn pods(partitions: &Partitions) -> (u16, Bytes) {
    (partitions.slot(0), partitions.key(0, "q:pods"))
}

/// A request beside its block.
pub(super) fn beside(partitions: &Partitions, partition: u16, id: EntryId) -> Bytes {
    partitions.key(partition, &format!("q:x:{id}"))
}

const INDEX_BITS: u32 = 12;
const NUMBER_BITS: u32 = 36;
const GENERATION_BITS: u32 = 4;
const MARK_BITS: u32 = 8;
const _: () = assert!(
    QUEUE_PARTITIONS <= 16,
    "a token has four bits for the partition"
);

/// What a token names: an entry of a block, as claimed in one of this process's times as holder of the partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) partition: u16,
    /// Of the block's.
    pub(super) mark: u8,
    pub(super) generation: u8,
    pub(super) number: u64,
    pub(super) index: u16,
}

impl Place {
    pub(super) fn new(partition: u16, mark: Mark, generation: u8, number: u64, index: u16) -> Self {
        Self {
            partition,
            mark: mark[0],
            generation: generation & ((1 << GENERATION_BITS) - 1),
            number: number & ((1 << NUMBER_BITS) - 1),
            index,
        }
    }

    pub(super) fn token(self) -> Token {
        let mut token = u64::from(self.partition);
        token = token << MARK_BITS | u64::from(self.mark);
        token = token << GENERATION_BITS | u64::from(self.generation);
        token = token << NUMBER_BITS | self.number;
        Token(token << INDEX_BITS | u64::from(self.index))
    }

    /// `None`: no token of this queue.
    pub(super) fn of(token: Token) -> Option<Self> {
        let mut left = token.0;
        let mut take = |bits: u32| {
            let taken = left & ((1 << bits) - 1);
            left >>= bits;
            taken
        };
        let index = take(INDEX_BITS) as u16;
        let number = take(NUMBER_BITS);
        let generation = take(GENERATION_BITS) as u8;
        let mark = take(MARK_BITS) as u8;
        let partition = left as u16;
        (partition < QUEUE_PARTITIONS).then_some(Self {
            partition,
            mark,
            generation,
            number,
            index,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_name_their_place() {
        let place = Place::new(11, *b"\xffabc", 15, (1 << 36) - 1, 255);
        assert_eq!(Place::of(place.token()), Some(place));
        let place = Place::new(0, [0; 4], 16, 29_000_000_000, 0);
        assert_eq!(Place::of(place.token()), Some(place));
        assert_eq!(place.generation, 0);
        assert_eq!(Place::of(Token(u64::MAX)), None);
    }
}
