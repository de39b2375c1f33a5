//! Which upstream served a key last: it is preferred, because it may have the key's state at hand.
//!
//! A hint that may be forgotten: order does not depend on it, as of a key one request at a time is under way.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::UpstreamId;

/// Keys remembered per generation; two generations of small entries take a few megabytes.
const GENERATION_KEYS: usize = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AffinityKey(u64);

/// Two generations: what is used moves to the young one, the old one is dropped whole.
#[derive(Debug, Default)]
pub(super) struct Affinity {
    hasher: RandomState,
    young: HashMap<u64, UpstreamId, RandomState>,
    old: HashMap<u64, UpstreamId, RandomState>,
}

impl Affinity {
    pub(super) fn key(&self, scope: impl Hash) -> AffinityKey {
        AffinityKey(self.hasher.hash_one(scope))
    }

    pub(super) fn get(&self, key: AffinityKey) -> Option<UpstreamId> {
        let young = self.young.get(&key.0);
        young.or_else(|| self.old.get(&key.0)).copied()
    }

    pub(super) fn put(&mut self, key: AffinityKey, upstream: UpstreamId) {
        if self.young.len() >= GENERATION_KEYS {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key.0, upstream);
    }

    /// Numbers of upstreams are about to be used again.
    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }
}
