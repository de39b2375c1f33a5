//! The stores of a process that shares its state with nobody: everything in memory, gone with the process.
//!
//! [`Embedded`] is both contracts in one. `broker` holds streams and subscriptions, `presence` holds who is where;
//! they share nothing but the clock. It starts no task by itself: its owner runs [`Embedded::run_sweeper`].
//! Expiry does not wait for the sweeper (what has expired is never handed out); only memory does. The queue, which is
//! on disk, is [`queue`] and has nothing to do with either.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;

mod broker;
pub mod clock;
mod idempotency;
mod presence;
pub mod queue;
mod stream;
#[cfg(test)]
mod tests;

use self::broker::Streams;
use self::clock::{Clock, SystemClock};
use self::presence::Members;
use super::{
    Broker, EventSink, Holder, NewPublication, Peers, Presence, PresenceCount, PresenceEvent,
    PublishOptions, Published, ReadOptions, Reaped, Renewal, Retention, StoreError, StreamRead,
};
use crate::relay::channel::Channel;
use crate::relay::protocol::ClientInfo;

/// Locks that publishers of different channels spread over.
const SHARDS: usize = 64;

/// Pause between two shards of the sweeper: it comes round every 16 seconds, and never holds a lock for long.
const SWEEP_PAUSE: Duration = Duration::from_millis(250);

/// Bounds of the memory that streams take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Streams per shard (of 64), with publications or without. Above it the least recently used go.
    pub streams_per_shard: usize,
    /// Cost of all kept publications. At it, a stream keeps a new publication only in exchange for its older ones.
    pub history_bytes: usize,
}

impl Default for Limits {
    /// A million streams at some 250 bytes, and half a gigabyte of publications.
    fn default() -> Self {
        Self {
            streams_per_shard: 16_384,
            history_bytes: 512 << 20,
        }
    }
}

/// [`Broker`] and [`Presence`] in memory.
pub struct Embedded {
    streams: Streams,
    members: Members,
    clock: Arc<dyn Clock>,
}

impl Embedded {
    pub fn new(sink: Arc<dyn EventSink>) -> Self {
        Self::with(sink, Arc::new(SystemClock), Limits::default())
    }

    pub fn with(sink: Arc<dyn EventSink>, clock: Arc<dyn Clock>, limits: Limits) -> Self {
        let members = Members::new(clock.now());
        Self {
            streams: Streams::new(sink, limits),
            members,
            clock,
        }
    }

    /// What the kept publications cost, for the memory metric.
    pub fn history_bytes(&self) -> usize {
        self.streams.history_bytes()
    }

    /// Frees all that has expired, shard by shard.
    pub fn sweep(&self, now: Instant) {
        for shard in 0..SHARDS {
            self.streams.sweep_shard(shard, now);
        }
    }

    /// Frees what has expired, for ever. Cancel by dropping.
    pub async fn run_sweeper(self: Arc<Self>) {
        for shard in (0..SHARDS).cycle() {
            tokio::time::sleep(SWEEP_PAUSE).await;
            self.streams.sweep_shard(shard, self.clock.now());
        }
    }
}

/// [`Peers`] of a process that has none.
pub struct Alone;

#[async_trait]
impl Peers for Alone {
    async fn tell_others(&self, _message: Bytes) -> Result<usize, StoreError> {
        Ok(0)
    }

    async fn tell(&self, _peer: &Holder, _message: Bytes) -> Result<(), StoreError> {
        Ok(())
    }
}

#[async_trait]
impl Broker for Embedded {
    async fn publish(
        &self,
        channel: &Channel,
        publication: NewPublication,
        options: PublishOptions,
    ) -> Result<Published, StoreError> {
        Ok(self
            .streams
            .publish(channel, publication, options, || self.clock.now()))
    }

    async fn publish_presence(
        &self,
        channel: &Channel,
        event: PresenceEvent,
    ) -> Result<(), StoreError> {
        self.streams.publish_presence(channel, event);
        Ok(())
    }

    async fn subscribe(&self, channel: &Channel) -> Result<(), StoreError> {
        self.streams.subscribe(channel);
        Ok(())
    }

    async fn unsubscribe(&self, channel: &Channel) -> Result<(), StoreError> {
        self.streams.unsubscribe(channel);
        Ok(())
    }

    /// The retention of the last publish rules; the reader's is not needed here.
    async fn read(
        &self,
        channel: &Channel,
        _retention: Retention,
        options: ReadOptions,
    ) -> Result<StreamRead, StoreError> {
        self.streams.read(channel, &options, self.clock.now())
    }

    async fn remove_history(&self, channel: &Channel) -> Result<(), StoreError> {
        self.streams.remove_history(channel);
        Ok(())
    }
}

#[async_trait]
impl Presence for Embedded {
    async fn renew(&self, holder: &Holder, ttl: Duration) -> Result<Renewal, StoreError> {
        self.members.renew(holder, ttl, self.clock.now());
        Ok(Renewal::Kept)
    }

    async fn join(
        &self,
        holder: &Holder,
        channel: &Channel,
        info: Arc<ClientInfo>,
    ) -> Result<(), StoreError> {
        self.members.join(holder, channel, info);
        Ok(())
    }

    async fn leave(
        &self,
        holder: &Holder,
        channel: &Channel,
        client: &str,
    ) -> Result<bool, StoreError> {
        Ok(self.members.leave(holder, channel, client))
    }

    async fn list(&self, channel: &Channel) -> Result<Vec<Arc<ClientInfo>>, StoreError> {
        Ok(self.members.list(channel, self.clock.now()))
    }

    async fn count(&self, channel: &Channel) -> Result<PresenceCount, StoreError> {
        Ok(self.members.count(channel, self.clock.now()))
    }

    async fn reap(&self) -> Result<Vec<Reaped>, StoreError> {
        Ok(self.members.reap(self.clock.now()))
    }

    /// The process is alone: what it has is what there is.
    async fn take_seats(
        &self,
        _holder: &Holder,
        _account: &str,
        connections: usize,
        limit: Option<usize>,
    ) -> Result<bool, StoreError> {
        Ok(limit.is_none_or(|limit| connections <= limit))
    }
}
