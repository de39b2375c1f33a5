//! Contracts for the state that data planes share: [`Broker`], [`Presence`] and [`Peers`].
//!
//! Every sentence here is a promise that callers rely on, and has a case in `conformance`, the suite that every
//! implementation must pass. All methods are safe to retry unless they say otherwise. Nothing here knows clients,
//! permissions or encodings; a channel of one account is a stranger to the same name in another.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use thiserror::Error;

mod codec;
#[cfg(test)]
pub(crate) mod conformance;
pub mod embedded;
pub mod queue;
pub mod redis;

use crate::relay::channel::Channel;
use crate::relay::protocol::{ClientInfo, Payload, Position, Publication, Tags};

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum StoreError {
    /// Nothing was done, or it is not known whether it was; trying again may help.
    #[error("store unavailable: {0}")]
    Unavailable(String),
    /// The position's epoch is not the stream's.
    #[error("unrecoverable position")]
    UnrecoverablePosition,
}

/// What the broker hands to this process, in order per channel.
#[derive(Debug, Clone)]
pub enum Event {
    Publication {
        publication: Arc<Publication>,
        /// The stream position after this publication; `None` without history.
        position: Option<Position>,
        /// Subscribers that negotiated deltas may get one.
        delta: bool,
    },
    Join(Arc<ClientInfo>),
    Leave(Arc<ClientInfo>),
    /// Publications of the channel's stream may have been missed, and cannot be had any more: who follows the stream
    /// has to be told.
    Lost,
}

/// Receives events of the channels this process subscribed to.
///
/// Called under the broker's per-channel order, so it must be quick and must not call the broker. Calls for different
/// channels may come at the same time.
pub trait EventSink: Send + Sync {
    fn deliver(&self, channel: &Channel, event: Event);

    /// Whether events from elsewhere should be taken on now. They are not refused, so who hands them on waits before it takes
    /// more.
    fn has_room(&self) -> bool {
        true
    }
}

#[derive(Debug, Clone, Default)]
pub struct NewPublication {
    pub data: Payload,
    pub info: Option<Arc<ClientInfo>>,
    pub tags: Tags,
    pub time_ms: i64,
}

#[derive(Debug, Clone, Default)]
pub struct PublishOptions {
    /// `None`, or a size or ttl of zero: deliver only, keep nothing.
    pub history: Option<Retention>,
    /// A second publish to the channel with the same key within [`IDEMPOTENCY_WINDOW`] has no effect and gets the
    /// first answer, as `suppressed`. A publish that its version suppressed leaves its key unused.
    pub idempotency_key: Option<Arc<str>>,
    /// Suppress the publication unless the version is above the stream's last one. 0: no check, and the stream's
    /// version stays. Without history there is no stream, and so no check.
    pub version: u64,
    /// A version epoch other than the stream's accepts any version. Empty: the stream's.
    pub version_epoch: Arc<str>,
    pub delta: bool,
}

/// How much of a stream is kept: the newest `size` publications, all of them until `ttl` after the last publish.
/// An implementation may keep less when its memory is short, oldest first; offsets tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    pub size: u32,
    pub ttl: Duration,
}

/// How long a publish with an idempotency key is remembered.
pub const IDEMPOTENCY_WINDOW: Duration = Duration::from_secs(300);
/// How long offset and epoch of a stream outlive its last publication or read. Then it starts again with a new epoch.
pub const STREAM_META_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// What became of a publish.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The stream's position after it; `None` without history.
    pub position: Option<Position>,
    /// The idempotency key was known or the version too low: nothing was added.
    pub suppressed: bool,
}

#[derive(Debug, Clone, PartialEq, Default)]
pub struct ReadOptions {
    /// Forward: publications after this offset, oldest first. Reverse: publications before it, newest first. What
    /// is no longer kept is left out, which shows in the offsets. Its epoch, when not empty, must
    /// be the stream's, else [`StoreError::UnrecoverablePosition`].
    pub since: Option<Position>,
    /// 0: position only. `None`: all.
    pub limit: Option<usize>,
    pub reverse: bool,
}

/// A part of a stream and the stream's top at the same instant.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct StreamRead {
    pub publications: Vec<Arc<Publication>>,
    pub top: Position,
}

/// Channels: publish, subscribe, streams.
#[async_trait]
pub trait Broker: Send + Sync {
    /// Appends to the stream (with history) and hands the event to every subscribed process, atomically: an
    /// event's offset follows its predecessor's without a gap, and a reader that sees offset n can read 1..=n
    /// within the retention. The first publication of a stream carries the epoch. Without an idempotency key a retry
    /// may publish twice.
    async fn publish(
        &self,
        channel: &Channel,
        publication: NewPublication,
        options: PublishOptions,
    ) -> Result<Published, StoreError>;

    /// Join and leave events: delivered at most once, never stored.
    /// A channel without subscription costs no delivery.
    async fn publish_presence(
        &self,
        channel: &Channel,
        event: PresenceEvent,
    ) -> Result<(), StoreError>;

    /// After it returns, every later event of the channel reaches the sink of this process.
    async fn subscribe(&self, channel: &Channel) -> Result<(), StoreError>;

    /// After it returns, no event of the channel reaches the sink of this process. Other processes keep theirs.
    async fn unsubscribe(&self, channel: &Channel) -> Result<(), StoreError>;

    /// Reads from a stream. An absent stream is made (offset 0, new epoch), so that its position can be recovered.
    async fn read(
        &self,
        channel: &Channel,
        retention: Retention,
        options: ReadOptions,
    ) -> Result<StreamRead, StoreError>;

    /// Drops the publications, keeps offset and epoch: positions stay comparable.
    async fn remove_history(&self, channel: &Channel) -> Result<(), StoreError>;
}

#[derive(Debug, Clone)]
pub enum PresenceEvent {
    Join(Arc<ClientInfo>),
    Leave(Arc<ClientInfo>),
}

/// Messages between the processes of a gateway.
#[async_trait]
pub trait Peers: Send + Sync {
    /// Hands the message to every other process that lives, once or, in a failover, not at all: who needs an answer asks
    /// for one. Returns how many processes lived besides this one.
    async fn tell_others(&self, message: Bytes) -> Result<usize, StoreError>;

    /// Hands the message to one process, in the same way.
    async fn tell(&self, peer: &Holder, message: Bytes) -> Result<(), StoreError>;
}

/// Receives what other processes tell this one. Must be quick.
pub trait PeerSink: Send + Sync {
    fn told(&self, by: Holder, message: Bytes);
}

/// Names a process in presence. Entries of a holder whose lease ended are hidden at once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Holder(pub Arc<str>);

/// What renewing a lease came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    Kept,
    /// The holder was away for so long that its entries were reaped, or the store lost them: it has to join again what it
    /// holds.
    Lost,
}

/// An entry that was removed because its holder's lease ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Reaped {
    pub channel: Channel,
    pub info: Arc<ClientInfo>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PresenceCount {
    pub clients: u32,
    pub users: u32,
}

/// Who is in a channel, over all processes. Cost of keeping it alive grows with processes, not with clients.
#[async_trait]
pub trait Presence: Send + Sync {
    /// Starts or renews the holder's lease: its entries stay visible until `ttl` from now. Entries that were hidden
    /// and not reaped yet are visible again.
    async fn renew(&self, holder: &Holder, ttl: Duration) -> Result<Renewal, StoreError>;

    /// Adds or replaces the entry of `info.client`, whoever held it. Without a lease the entry is hidden.
    async fn join(
        &self,
        holder: &Holder,
        channel: &Channel,
        info: Arc<ClientInfo>,
    ) -> Result<(), StoreError>;

    /// Removes the entry of a client; an absent one is no error. Returns whether it was there. An entry that
    /// another holder has taken over stays. What could not be done is done when the store is back.
    async fn leave(
        &self,
        holder: &Holder,
        channel: &Channel,
        client: &str,
    ) -> Result<bool, StoreError>;

    /// Entries whose holder's lease is alive, in no order.
    async fn list(&self, channel: &Channel) -> Result<Vec<Arc<ClientInfo>>, StoreError>;

    /// How long [`Presence::list`] would be, and how many users are in it. Much cheaper than the list.
    async fn count(&self, channel: &Channel) -> Result<PresenceCount, StoreError>;

    /// Removes entries of ended leases, each returned to one caller at most (who publishes the leave events). To be
    /// called only by who could renew its own lease all the time that a lease lasts: while the store was away, nobody could.
    async fn reap(&self) -> Result<Vec<Reaped>, StoreError>;

    /// Sets how many connections the holder has for an account. `false`, and nothing is set: all living holders together
    /// would have more than `limit`.
    async fn take_seats(
        &self,
        holder: &Holder,
        account: &str,
        connections: usize,
        limit: Option<usize>,
    ) -> Result<bool, StoreError>;
}
