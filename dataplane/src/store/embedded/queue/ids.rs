//! Makes entry ids.
//!
//! Ids of one process only grow, also when the clock steps back, and begin above the last id that the store holds.
//! Within a millisecond, and while the clock is behind, the last id is counted up by a random step.

use parking_lot::Mutex;

use crate::store::queue::EntryId;

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
