//! The streams and subscriptions of one process, in shards.
//!
//! A channel belongs to one shard, and the shard's lock is the channel's order: append and delivery happen under it, so
//! subscribers see offsets without a gap and a reader never sees a publication that was not handed out. Nothing
//! is awaited and no other lock of this module is taken while it is held.
//!
//! Memory is bounded in three ways: the number of streams per shard, the bytes of all publications, and the number of
//! idempotency keys. What must go first is what was used least recently; a stream that is gone comes back with a
//! new epoch, so a client whose position is void finds out.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::super::{
    Event, EventSink, NewPublication, PresenceEvent, PublishOptions, Published, ReadOptions,
    StoreError, StreamRead,
};
use super::idempotency::Answers;
use super::stream::Stream;
use super::{Limits, SHARDS};
use crate::relay::channel::Channel;
use crate::relay::protocol::Publication;

/// Of the streams of a full shard, one in this many goes at once, so that the search for the oldest is paid rarely.
const EVICTED_ONE_IN: usize = 16;

pub(super) struct Streams {
    shards: Box<[Mutex<Shard>]>,
    hasher: foldhash::fast::RandomState,
    sink: Arc<dyn EventSink>,
    limits: Limits,
    /// What all kept publications cost.
    bytes: AtomicUsize,
}

#[derive(Default)]
struct Shard {
    channels: HashMap<Channel, ChannelState, foldhash::fast::RandomState>,
    streams: usize,
    answers: Answers,
}

/// Present while subscribed or with a stream.
#[derive(Default)]
struct ChannelState {
    subscribed: bool,
    stream: Option<Box<Stream>>,
}

impl Streams {
    pub(super) fn new(sink: Arc<dyn EventSink>, limits: Limits) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            shards,
            hasher: Default::default(),
            sink,
            limits,
            bytes: AtomicUsize::new(0),
        }
    }

    pub(super) fn publish(
        &self,
        channel: &Channel,
        publication: NewPublication,
        options: PublishOptions,
        now: impl Fn() -> Instant,
    ) -> Published {
        let history = options
            .history
            .filter(|retention| retention.size > 0 && !retention.ttl.is_zero());
        let shard = &mut *self.shard(channel).lock();
        let Some(retention) = history else {
            return self.publish_transient(shard, channel, publication, options, now);
        };
        let now = now();
        if let Some(known) = shard.known_answer(channel, &options, now) {
            return known;
        }
        let state = self.state_with_stream(shard, channel, now);
        let subscribed = state.subscribed;
        let stream = state
            .stream
            .get_or_insert_with(|| Box::new(Stream::new(now)));
        if stream.outdated(options.version, &options.version_epoch) {
            return Published {
                position: Some(stream.position()),
                suppressed: true,
            };
        }
        stream.set_version(options.version, options.version_epoch);
        let before = stream.bytes();
        let publication = stream.append(into_publication(publication), retention, now);
        self.account(before, stream);
        let position = stream.position();
        if let Some(key) = options.idempotency_key {
            shard
                .answers
                .insert(channel, key, Some(position.clone()), now);
        }
        if subscribed {
            let event = Event::Publication {
                publication,
                position: Some(position.clone()),
                delta: options.delta,
            };
            self.sink.deliver(channel, event);
        }
        Published {
            position: Some(position),
            suppressed: false,
        }
    }

    /// Delivers only. Versions belong to streams and are not looked at.
    fn publish_transient(
        &self,
        shard: &mut Shard,
        channel: &Channel,
        publication: NewPublication,
        options: PublishOptions,
        now: impl Fn() -> Instant,
    ) -> Published {
        if options.idempotency_key.is_some() {
            let now = now();
            if let Some(known) = shard.known_answer(channel, &options, now) {
                return known;
            }
            if let Some(key) = options.idempotency_key {
                shard.answers.insert(channel, key, None, now);
            }
        }
        if shard.subscribed(channel) {
            let publication = Arc::new(into_publication(publication));
            self.sink.deliver(
                channel,
                Event::Publication {
                    publication,
                    position: None,
                    delta: options.delta,
                },
            );
        }
        Published {
            position: None,
            suppressed: false,
        }
    }

    pub(super) fn publish_presence(&self, channel: &Channel, event: PresenceEvent) {
        let shard = self.shard(channel).lock();
        if shard.subscribed(channel) {
            let event = match event {
                PresenceEvent::Join(info) => Event::Join(info),
                PresenceEvent::Leave(info) => Event::Leave(info),
            };
            self.sink.deliver(channel, event);
        }
    }

    pub(super) fn subscribe(&self, channel: &Channel) {
        self.shard(channel)
            .lock()
            .channels
            .entry(channel.clone())
            .or_default()
            .subscribed = true;
    }

    pub(super) fn unsubscribe(&self, channel: &Channel) {
        let mut shard = self.shard(channel).lock();
        if let Some(state) = shard.channels.get_mut(channel) {
            state.subscribed = false;
            if state.stream.is_none() {
                shard.channels.remove(channel);
            }
        }
    }

    pub(super) fn read(
        &self,
        channel: &Channel,
        options: &ReadOptions,
        now: Instant,
    ) -> Result<StreamRead, StoreError> {
        let shard = &mut *self.shard(channel).lock();
        let state = self.state_with_stream(shard, channel, now);
        let stream = state
            .stream
            .get_or_insert_with(|| Box::new(Stream::new(now)));
        let before = stream.bytes();
        let read = stream.read(options, now);
        self.account(before, stream);
        read
    }

    pub(super) fn remove_history(&self, channel: &Channel) {
        let mut shard = self.shard(channel).lock();
        if let Some(stream) = shard
            .channels
            .get_mut(channel)
            .and_then(|state| state.stream.as_mut())
        {
            let before = stream.bytes();
            stream.clear();
            self.account(before, stream);
        }
    }

    /// Frees what has expired in one shard.
    pub(super) fn sweep_shard(&self, index: usize, now: Instant) {
        let shard = &mut *self.shards[index % SHARDS].lock();
        shard.answers.expire(now);
        self.drop_streams(shard, now, |stream| stream.forgotten(now));
    }

    pub(super) fn history_bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    fn shard(&self, channel: &Channel) -> &Mutex<Shard> {
        let hash = self.hasher.hash_one(channel.scoped());
        // The remainder is below SHARDS, a small constant.
        &self.shards[(hash % SHARDS as u64) as usize]
    }

    /// The channel's state, in which a stream that exists is a live one and for one more there is room.
    fn state_with_stream<'a>(
        &self,
        shard: &'a mut Shard,
        channel: &Channel,
        now: Instant,
    ) -> &'a mut ChannelState {
        let live = shard
            .channels
            .get(channel)
            .and_then(|state| state.stream.as_ref())
            .is_some_and(|stream| !stream.forgotten(now));
        if !live {
            self.make_room(shard, now);
            if let Some(old) = shard
                .channels
                .get_mut(channel)
                .and_then(|state| state.stream.take())
            {
                self.bytes.fetch_sub(old.bytes(), Ordering::Relaxed);
            } else {
                shard.streams += 1;
            }
        }
        shard.channels.entry(channel.clone()).or_default()
    }

    /// Makes the least recently used streams of a full shard go.
    fn make_room(&self, shard: &mut Shard, now: Instant) {
        if shard.streams < self.limits.streams_per_shard {
            return;
        }
        let streams = shard
            .channels
            .values()
            .filter_map(|state| state.stream.as_ref());
        let mut ages: Vec<Instant> = streams.map(|stream| stream.forget_at()).collect();
        if ages.is_empty() {
            return;
        }
        let cut = ages.len() / EVICTED_ONE_IN;
        let (_, &mut cut, _) = ages.select_nth_unstable(cut);
        // Streams of the same age go together; the alternative is a shard that stays full.
        self.drop_streams(shard, now, |stream| stream.forget_at() <= cut);
    }

    fn drop_streams(&self, shard: &mut Shard, now: Instant, gone: impl Fn(&Stream) -> bool) {
        let streams = &mut shard.streams;
        shard.channels.retain(|_, state| {
            if let Some(stream) = &mut state.stream {
                let before = stream.bytes();
                stream.expire(now);
                let gone = gone(stream);
                if gone {
                    stream.clear();
                }
                self.settle(before, stream.bytes());
                if gone {
                    state.stream = None;
                    *streams = streams.saturating_sub(1);
                }
            }
            state.subscribed || state.stream.is_some()
        });
        if shard.channels.len() < shard.channels.capacity() / 4 {
            shard.channels.shrink_to_fit();
        }
    }

    /// Books a stream's change of cost. Over the limit, the stream that grew gives up as much as is too much: the
    /// total cannot grow further, and what it loses is only what could be recovered.
    fn account(&self, before: usize, stream: &mut Stream) {
        let grown = stream.bytes();
        self.settle(before, grown);
        let excess = self
            .history_bytes()
            .saturating_sub(self.limits.history_bytes);
        if excess > 0 && grown > before {
            stream.shrink_to(grown.saturating_sub(excess));
            self.settle(grown, stream.bytes());
        }
    }

    fn settle(&self, before: usize, after: usize) {
        if after >= before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> (usize, usize, usize) {
        let mut sizes = (0, 0, 0);
        for shard in &self.shards {
            let shard = shard.lock();
            sizes.0 += shard.channels.len();
            sizes.1 += shard.streams;
            sizes.2 += shard.answers.len();
        }
        sizes
    }
}

impl Shard {
    fn subscribed(&self, channel: &Channel) -> bool {
        self.channels
            .get(channel)
            .is_some_and(|state| state.subscribed)
    }

    fn known_answer(
        &mut self,
        channel: &Channel,
        options: &PublishOptions,
        now: Instant,
    ) -> Option<Published> {
        let key = options.idempotency_key.as_ref()?;
        let position = self.answers.get(channel, key, now)?;
        Some(Published {
            position,
            suppressed: true,
        })
    }
}

fn into_publication(new: NewPublication) -> Publication {
    Publication {
        data: new.data,
        info: new.info,
        tags: new.tags,
        time_ms: new.time_ms,
        ..Publication::default()
    }
}
