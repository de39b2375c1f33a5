//! Where keys live: Redis Cluster's hash slots, and the partitions whose keys share one.
//!
//! A *partition* is a hash tag. Its tag is chosen so that partition `p` of `n` lies in the middle of the `p`-th of `n`
//! equal parts of the slot space: any number of shards with about equal ranges then owns about as many partitions each,
//! and when slots move, the partition's keys move with their slot. The tag of a partition never changes, so a stream
//! stays where it is, whatever the shards do. Pure.

use std::hash::Hasher;
use std::sync::Arc;

use bytes::Bytes;

/// Hash slots of a Redis Cluster.
pub const SLOTS: u16 = 16_384;

/// CRC-16/XMODEM of every byte value.
static CRC16: [u16; 256] = crc16_table();

const fn crc16_table() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x1021
            };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
}

/// The slot of a key that has no hash tag, or of a hash tag itself.
pub fn slot_of(tag: &[u8]) -> u16 {
    let crc = tag.iter().fold(0_u16, |crc, byte| {
        (crc << 8) ^ CRC16[usize::from((crc >> 8) as u8 ^ byte)]
    });
    crc % SLOTS
}

/// The slot of a key: of its hash tag, if it has one.
pub fn slot_of_key(key: &[u8]) -> u16 {
    let tag = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let end = rest.iter().position(|byte| *byte == b'}')?;
        (end > 0).then(|| &rest[..end])
    });
    slot_of(tag.unwrap_or(key))
}

/// The partitions of one kind of data of one gateway.
#[derive(Debug, Clone)]
pub struct Partitions {
    /// What every key begins with, up to and including the tag: `sluice:{<tag>}:<gateway>:`.
    prefixes: Arc<[Arc<str>]>,
    slots: Arc<[u16]>,
}

impl Partitions {
    /// `gateway` names the gateway among those that use the same Redis; `count` is at least 1 and must never change for
    /// data that is to be found again.
    pub fn new(gateway: &str, count: u16) -> Self {
        let count = count.max(1);
        let mut prefixes = Vec::with_capacity(usize::from(count));
        let mut slots = Vec::with_capacity(usize::from(count));
        for index in 0..count {
            let slot = middle(index, count);
            prefixes.push(format!("sluice:{{{}}}:{gateway}:", tag_for(slot)).into());
            slots.push(slot);
        }
        Self {
            prefixes: prefixes.into(),
            slots: slots.into(),
        }
    }

    pub fn count(&self) -> u16 {
        self.slots.len() as u16
    }

    /// The partition of a name; the same in every process and version.
    pub fn of(&self, name: &[u8]) -> u16 {
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        hasher.write(name);
        (hasher.finish() % u64::from(self.count())) as u16
    }

    pub fn slot(&self, partition: u16) -> u16 {
        self.slots[usize::from(partition)]
    }

    /// A key of the partition.
    pub fn key(&self, partition: u16, name: &str) -> Bytes {
        let prefix = &self.prefixes[usize::from(partition)];
        let mut key = Vec::with_capacity(prefix.len() + name.len());
        key.extend_from_slice(prefix.as_bytes());
        key.extend_from_slice(name.as_bytes());
        key.into()
    }

    /// The name in a key that [`Partitions::key`] made.
    pub fn name<'k>(&self, partition: u16, key: &'k [u8]) -> Option<&'k [u8]> {
        key.strip_prefix(self.prefixes.get(usize::from(partition))?.as_bytes())
    }
}

/// The middle of the `index`-th of `count` equal parts of the slot space.
fn middle(index: u16, count: u16) -> u16 {
    let (index, count) = (u32::from(index), u32::from(count));
    let slot = (2 * index + 1) * u32::from(SLOTS) / (2 * count);
    slot as u16
}

/// The first number whose text lies in the slot; about 16,000 are tried.
fn tag_for(slot: u16) -> String {
    let mut number = 0_u32;
    loop {
        let tag = number.to_string();
        if slot_of(tag.as_bytes()) == slot {
            return tag;
        }
        number += 1;
    }
}

/// FNV-1a: written down here because its outcome is part of the format.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        // The low bits of FNV alone depend on little of the name.
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_redis_clusters() {
        // From the cluster specification, and from `CLUSTER KEYSLOT`.
        assert_eq!(slot_of(b"123456789"), 0x31c3 % SLOTS);
        assert_eq!(slot_of(b"foo"), 12_182);
        assert_eq!(slot_of(b""), 0);
        assert_eq!(slot_of_key(b"{foo}.x{y}"), slot_of(b"foo"));
        assert_eq!(slot_of_key(b"{}foo"), slot_of(b"{}foo"));
        assert_eq!(slot_of_key(b"}{foo"), slot_of(b"}{foo"));
    }

    #[test]
    fn any_number_of_equal_shards_owns_about_equal_parts() {
        for count in [24, 48, 64] {
            let partitions = Partitions::new("ns/demo", count);
            for shards in 1..=u32::from(count) {
                let mut owned = vec![0_u32; shards as usize];
                for partition in 0..count {
                    let slot = u32::from(partitions.slot(partition));
                    owned[(slot * shards / u32::from(SLOTS)) as usize] += 1;
                }
                let (least, most) = (owned.iter().min().unwrap(), owned.iter().max().unwrap());
                assert!(most - least <= 1, "{count} over {shards}: {owned:?}");
            }
        }
    }

    #[test]
    fn keys_lie_in_the_slot_of_their_partition() {
        let partitions = Partitions::new("ns/demo", 24);
        for partition in 0..partitions.count() {
            let key = partitions.key(partition, "s:a{b}\u{1f}c");
            let text = std::str::from_utf8(&key).unwrap();
            let tag = text.split(['{', '}']).nth(1).unwrap();
            assert_eq!(slot_of(tag.as_bytes()), partitions.slot(partition));
            assert_eq!(slot_of_key(&key), partitions.slot(partition));
            assert_eq!(
                partitions.name(partition, &key),
                Some("s:a{b}\u{1f}c".as_bytes())
            );
        }
    }

    #[test]
    fn names_spread_and_stay_where_they_are() {
        let partitions = Partitions::new("g", 24);
        let mut owned = [0_u32; 24];
        for number in 0..24_000 {
            owned[usize::from(partitions.of(format!("account-{number}").as_bytes()))] += 1;
        }
        assert!(
            owned.iter().all(|owned| (800..1_200).contains(owned)),
            "{owned:?}"
        );
        assert_eq!(partitions.of(b"a\x1fx"), partitions.of(b"a\x1fx"));
    }
}
