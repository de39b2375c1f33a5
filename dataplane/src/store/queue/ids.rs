//! Makes entry ids.
//!
//! Ids of one process only grow, also when the clock steps back, and begin above the last id that the store holds.
//! Within a millisecond, and while the clock is behind, the last id is counted up by a random step.

use parking_lot::Mutex;

use super::EntryId;

const RANDOM_BITS: u32 = 80;

pub struct EntryIds(Mutex<u128>);

impl EntryIds {
    /// `last`: what the first id must be above.
    pub fn new(last: EntryId) -> Self {
        Self(Mutex::new(last.0))
    }

    pub fn next(&self, now_ms: u64) -> EntryId {
        let mut last = self.0.lock();
        // One bit is left free, so that a whole millisecond can count up from any start.
        let random = fastrand::u128(..) >> (128 - RANDOM_BITS + 1);
        let fresh = u128::from(now_ms) << RANDOM_BITS | random;
        let next = if fresh >> RANDOM_BITS > *last >> RANDOM_BITS {
            fresh
        } else {
            last.saturating_add(1 + u128::from(fastrand::u32(..)))
        };
        *last = next;
        EntryId(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_grow_whatever_the_clock_does() {
        let ids = EntryIds::new(EntryId(5_000_u128 << 80 | 9));
        let mut last = EntryId(5_000_u128 << 80 | 9);
        for now_ms in [4_000, 5_000, 5_000, 6_000, 6_000, 2_000, 6_001, 6_000] {
            let id = ids.next(now_ms);
            assert!(id > last);
            assert_eq!(id.accepted_ms(), now_ms.max(last.accepted_ms()));
            last = id;
        }
    }
}
