//! The channels this process subscribed to: what comes is judged by their feeds and handed to the sink.
//!
//! Owns the feeds. A feed's lock is its channel's order: judging and delivering happen under it, so that of the two
//! connections that carry a channel each message gets through once and in turn. `heal` mends what a feed finds broken.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Semaphore;

use super::feed::{Cause, Feed, Verdict};
use super::frame::{self, Content};
use super::keys::Keys;
use super::streams::{self, Streams, Top};
use crate::relay::channel::Channel;
use crate::relay::protocol::Position;
use crate::store::redis::cluster::Cluster;
use crate::store::redis::limits::{CHANNEL_PARTITIONS, HEALS};
use crate::store::redis::pubsub::Receiver;
use crate::store::{Event, EventSink};

/// Enough that connections rarely meet on a lock.
const SHARDS: usize = 64;

/// Feeds by the name of their pub/sub channel.
type Shard = HashMap<Bytes, Feed, RandomState>;

pub(super) struct Subscriber {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    sink: Arc<dyn EventSink>,
    pub(super) cluster: Arc<Cluster>,
    pub(super) streams: Arc<Streams>,
    keys: Keys,
    /// By partition.
    heals: Vec<Semaphore>,
    numbers: AtomicU64,
    this: Weak<Self>,
}

impl Receiver for Subscriber {
    fn message(&self, channel: &Bytes, payload: Bytes) {
        let mut shard = self.shard(channel);
        let Some(feed) = shard.get_mut(channel) else {
            return;
        };
        if self.take(feed, &payload) {
            self.spawn_heal(channel, feed);
        }
    }

    fn interrupted(&self, channel: &Bytes) {
        self.begin_healing(channel, Cause::Gap);
    }
}

impl Subscriber {
    pub(super) fn new(
        cluster: &Arc<Cluster>,
        streams: &Arc<Streams>,
        keys: &Keys,
        sink: Arc<dyn EventSink>,
    ) -> Arc<Self> {
        let hasher = RandomState::default();
        Arc::new_cyclic(|this| Self {
            shards: (0..SHARDS)
                .map(|_| Mutex::new(HashMap::with_hasher(hasher.clone())))
                .collect(),
            hasher,
            sink,
            cluster: Arc::clone(cluster),
            streams: Arc::clone(streams),
            keys: keys.clone(),
            heals: (0..CHANNEL_PARTITIONS)
                .map(|_| Semaphore::new(HEALS))
                .collect(),
            numbers: AtomicU64::new(0),
            this: Weak::clone(this),
        })
    }

    pub(super) fn add(&self, key: &Bytes, channel: &Channel) {
        self.shard(key).entry(key.clone()).or_insert_with(|| {
            let number = self.numbers.fetch_add(1, Ordering::Relaxed);
            Feed::new(channel.clone(), number)
        });
    }

    pub(super) fn remove(&self, key: &Bytes) {
        let mut shard = self.shard(key);
        shard.remove(key);
        if shard.len() < shard.capacity() / 4 {
            shard.shrink_to_fit();
        }
    }

    /// Has all that works for feeds end.
    pub(super) fn clear(&self) {
        for shard in &self.shards {
            shard.lock().clear();
        }
    }

    /// Somebody read the stream of a channel, perhaps of one that is subscribed.
    pub(super) fn note_top(&self, key: &Bytes, top: &Top) {
        let mut shard = self.shard(key);
        if let Some(feed) = shard.get_mut(key)
            && feed.note_top(top.offset, &top.epoch, top.id)
            && feed.begin_healing(Cause::Gap)
        {
            self.spawn_heal(key, feed);
        }
    }

    /// The subscribed channels whose stream is followed, if `is_wanted`.
    pub(super) fn followed(&self, is_wanted: impl Fn(&Channel) -> bool) -> Vec<(Bytes, Channel)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let wanted = shard
                .iter()
                .filter(|(_, feed)| feed.offset().is_some() && is_wanted(&feed.channel));
            found.extend(wanted.map(|(key, feed)| (key.clone(), feed.channel.clone())));
        }
        found
    }

    /// Heals the channel if it is not where its stream is.
    pub(super) fn compare_top(&self, key: &Bytes, top: &Top) {
        let is_at = {
            let shard = self.shard(key);
            let feed = shard.get(key);
            feed.is_none_or(|feed| feed.is_at(&top.epoch, top.offset, top.id))
        };
        if !is_at {
            self.begin_healing(key, Cause::Doubt);
        }
    }

    pub(super) fn begin_healing(&self, key: &Bytes, cause: Cause) {
        let mut shard = self.shard(key);
        if let Some(feed) = shard.get_mut(key)
            && feed.begin_healing(cause)
        {
            self.spawn_heal(key, feed);
        }
    }

    /// The feed of a subscription that is still the same, for as long as the guard is held.
    pub(super) fn with_feed<T>(
        &self,
        key: &Bytes,
        number: u64,
        work: impl FnOnce(&mut Feed) -> T,
    ) -> Option<T> {
        let mut shard = self.shard(key);
        let feed = shard.get_mut(key).filter(|feed| feed.number == number)?;
        Some(work(feed))
    }

    /// Returns whether a healing has to be started.
    pub(super) fn take(&self, feed: &mut Feed, message: &[u8]) -> bool {
        let Some((at, body)) = frame::split(message) else {
            return false;
        };
        let Some(id) = frame::id(body) else {
            tracing::warn!(channel = ?feed.channel, "a message in redis is not understood");
            return false;
        };
        let Some(at) = at else {
            if feed.is_new(id) {
                self.deliver_plain(feed, body);
            }
            return false;
        };
        match feed.judge(at, id, Instant::now()) {
            Verdict::Deliver => {
                // A buffer of its own: the message lies in one that it shares with others.
                self.deliver(feed, at.offset, Bytes::copy_from_slice(body));
                false
            }
            Verdict::Drop => false,
            Verdict::Hold => {
                feed.hold(message);
                false
            }
            Verdict::Heal(cause) => feed.begin_healing(cause),
        }
    }

    pub(super) fn deliver(&self, feed: &Feed, offset: u64, body: Bytes) {
        let epoch = feed.epoch();
        if let Some((publication, delta)) = streams::publication(&epoch, offset, body) {
            let event = Event::Publication {
                publication: Arc::new(publication),
                position: Some(Position { offset, epoch }),
                delta,
            };
            self.sink.deliver(&feed.channel, event);
        }
    }

    pub(super) fn tell_lost(&self, feed: &Feed) {
        self.cluster.metrics().gap_told();
        tracing::warn!(channel = ?feed.channel, "publications lost in redis");
        self.sink.deliver(&feed.channel, Event::Lost);
    }

    fn deliver_plain(&self, feed: &Feed, body: &[u8]) {
        let event = match frame::decode(Bytes::copy_from_slice(body)) {
            Some(Content::Publication { publication, delta }) => Event::Publication {
                publication: Arc::new(publication),
                position: None,
                delta,
            },
            Some(Content::Join(info)) => Event::Join(Arc::new(info)),
            Some(Content::Leave(info)) => Event::Leave(Arc::new(info)),
            None => {
                tracing::warn!(channel = ?feed.channel, "a message in redis is not understood");
                return;
            }
        };
        self.sink.deliver(&feed.channel, event);
    }

    fn spawn_heal(&self, key: &Bytes, feed: &Feed) {
        if let Some(this) = self.this.upgrade() {
            let (key, number) = (Bytes::copy_from_slice(key), feed.number);
            let partition = self.keys.partition(&feed.channel);
            self.cluster.runtime().spawn(async move {
                if let Ok(_turn) = this.heals[usize::from(partition)].acquire().await {
                    this.heal(key, number).await;
                }
            });
        }
    }

    fn shard(&self, key: &Bytes) -> MutexGuard<'_, Shard> {
        // The remainder is below SHARDS, a small constant.
        let index = (self.hasher.hash_one(key) % SHARDS as u64) as usize;
        self.shards[index].lock()
    }
}
