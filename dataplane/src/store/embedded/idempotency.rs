//! Remembers the answers of publishes that came with an idempotency key. Pure: the caller holds the lock.
//!
//! All answers live equally long, so the order of arrival is the order of expiry and a queue is all the bookkeeping.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use hashbrown::HashMap;

use super::super::IDEMPOTENCY_WINDOW;
use crate::relay::channel::Channel;
use crate::relay::protocol::Position;

/// Keys remembered per shard; the oldest are forgotten first. With 64 shards that is a million: 3,500 publishes with a
/// key per second for the whole window, at some 200 bytes each.
const KEYS_PER_SHARD_MAX: usize = 16_384;

/// A key counts within its channel only.
type Key = (Channel, Arc<str>);

#[derive(Default)]
pub(super) struct Answers {
    answers: HashMap<Key, Option<Position>>,
    expiries: VecDeque<(Instant, Key)>,
}

impl Answers {
    /// The answer the key's first publish got (`Some(None)`: it had no position).
    pub(super) fn get(
        &mut self,
        channel: &Channel,
        key: &Arc<str>,
        now: Instant,
    ) -> Option<Option<Position>> {
        self.expire(now);
        self.answers.get(&(channel.clone(), key.clone())).cloned()
    }

    /// The key must not be known.
    pub(super) fn insert(
        &mut self,
        channel: &Channel,
        key: Arc<str>,
        answer: Option<Position>,
        now: Instant,
    ) {
        while self.expiries.len() >= KEYS_PER_SHARD_MAX {
            self.drop_oldest();
        }
        let key = (channel.clone(), key);
        self.expiries
            .push_back((now + IDEMPOTENCY_WINDOW, key.clone()));
        self.answers.insert(key, answer);
    }

    pub(super) fn expire(&mut self, now: Instant) {
        while self
            .expiries
            .front()
            .is_some_and(|(expires_at, _)| now >= *expires_at)
        {
            self.drop_oldest();
        }
        if self.expiries.is_empty() && self.expiries.capacity() > 0 {
            *self = Self::default();
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((_, key)) = self.expiries.pop_front() {
            self.answers.remove(&key);
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.answers.len()
    }
}
