//! Which workers have members in which channel; the broker's events go to those.
//!
//! Owns the interest of this process in channels. Joining the first member and leaving with the last are serialised
//! per channel with the broker's subscribe and unsubscribe, so that a late unsubscribe can never undo a new
//! subscribe.

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

use super::channel::Channel;
use super::congestion::Congestion;
use super::limits::PUBLISH_WAIT;
use super::mailbox::{Item, Mailbox};
use super::worker::Order;
use crate::store::{Broker, Event, EventSink, StoreError};

/// Enough that workers rarely meet on a lock.
const SHARDS: usize = 64;
/// Interest is a bit mask.
pub const WORKERS_MAX: usize = 64;

#[derive(Debug, Clone, Copy, Default)]
struct Interest {
    /// Bit n: worker n has members.
    workers: u64,
    /// Members over all workers.
    members: u32,
}

pub struct Router {
    mailboxes: Vec<Arc<Mailbox>>,
    shards: Vec<Mutex<HashMap<Channel, Interest, RandomState>>>,
    /// Held over a change of interest together with the broker call it needs.
    changes: Vec<AsyncMutex<()>>,
    hasher: RandomState,
    congestion: Congestion,
}

/// The readers of the channel did not catch up while the publisher waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Congested;

impl EventSink for Router {
    fn deliver(&self, channel: &Channel, event: Event) {
        let mut workers = self.workers_of(channel);
        while workers != 0 {
            let worker = workers.trailing_zeros() as usize;
            workers &= workers - 1;
            self.mailboxes[worker].push(Item::Event(channel.clone(), event.clone()));
        }
    }

    fn has_room(&self) -> bool {
        self.mailboxes
            .iter()
            .all(|mailbox| mailbox.has_room_for_others())
    }
}

impl Router {
    pub fn new(workers: usize) -> Self {
        let hasher = RandomState::default();
        Self {
            mailboxes: (0..workers.min(WORKERS_MAX))
                .map(|_| Arc::default())
                .collect(),
            shards: (0..SHARDS)
                .map(|_| Mutex::new(HashMap::with_hasher(hasher.clone())))
                .collect(),
            changes: (0..SHARDS).map(|_| AsyncMutex::default()).collect(),
            hasher,
            congestion: Congestion::default(),
        }
    }

    pub fn mailboxes(&self) -> &[Arc<Mailbox>] {
        &self.mailboxes
    }

    pub fn congestion(&self) -> &Congestion {
        &self.congestion
    }

    /// Every worker gets the order.
    pub fn order_all(&self, order: &dyn Fn() -> Order) {
        for mailbox in &self.mailboxes {
            mailbox.push(Item::Order(order()));
        }
    }

    /// Counts a member of `worker` in; on success, events of the channel reach the worker. Either way the member is
    /// counted and has to `leave`.
    pub async fn join(
        &self,
        worker: usize,
        channel: &Channel,
        broker: &dyn Broker,
    ) -> Result<(), StoreError> {
        let shard = self.shard_index(channel);
        let _change = self.changes[shard].lock().await;
        let first = {
            let mut channels = self.shards[shard].lock();
            let interest = channels.entry(channel.clone()).or_default();
            interest.members += 1;
            let first = interest.workers == 0;
            interest.workers |= 1 << worker;
            first
        };
        if first {
            broker.subscribe(channel).await
        } else {
            Ok(())
        }
    }

    /// Counts a member of `worker` out. `has_members` tells whether the worker has others in the channel by the time
    /// it is this change's turn.
    pub async fn leave(
        &self,
        worker: usize,
        channel: &Channel,
        has_members: &dyn Fn() -> bool,
        broker: &dyn Broker,
    ) -> Result<(), StoreError> {
        let shard = self.shard_index(channel);
        let _change = self.changes[shard].lock().await;
        if self.count_out(shard, worker, channel, !has_members()) {
            broker.unsubscribe(channel).await?;
        }
        Ok(())
    }

    /// Waits until every worker with members can take another event, and the channel's readers have caught up; not
    /// for ever.
    pub async fn admit(&self, channel: &Channel) -> Result<(), Congested> {
        tokio::time::timeout(PUBLISH_WAIT, self.wait_for_readers(channel))
            .await
            .map_err(|_| Congested)
    }

    async fn wait_for_readers(&self, channel: &Channel) {
        loop {
            self.congestion.wait(channel).await;
            let Some(full) = self.full_mailbox(channel) else {
                return;
            };
            full.wait_for_room().await;
            if self.congestion.is_closed(channel) {
                full.pass_on();
            }
        }
    }

    fn full_mailbox(&self, channel: &Channel) -> Option<&Mailbox> {
        let mut workers = self.workers_of(channel);
        while workers != 0 {
            let worker = workers.trailing_zeros() as usize;
            workers &= workers - 1;
            if !self.mailboxes[worker].has_room() {
                return Some(&self.mailboxes[worker]);
            }
        }
        None
    }

    /// Channels of one account with members here, each with its number of members; `matches` sees the plain name.
    pub fn channels(&self, account: &str, matches: impl Fn(&str) -> bool) -> Vec<(Channel, u32)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let shard = shard.lock();
            let wanted = shard
                .iter()
                .filter(|(channel, _)| channel.account() == account && matches(channel.name()));
            found.extend(wanted.map(|(channel, interest)| (channel.clone(), interest.members)));
        }
        found
    }

    /// Number of channels and of memberships.
    pub fn totals(&self) -> (usize, u64) {
        let mut totals = (0, 0);
        for shard in &self.shards {
            let shard = shard.lock();
            totals.0 += shard.len();
            totals.1 += shard
                .values()
                .map(|interest| u64::from(interest.members))
                .sum::<u64>();
        }
        totals
    }

    /// Whether the process has no member left in the channel.
    fn count_out(&self, shard: usize, worker: usize, channel: &Channel, last: bool) -> bool {
        let mut channels = self.shards[shard].lock();
        let Some(interest) = channels.get_mut(channel) else {
            return false;
        };
        interest.members = interest.members.saturating_sub(1);
        if last {
            interest.workers &= !(1 << worker);
        }
        let gone = interest.workers == 0;
        if gone {
            channels.remove(channel);
        }
        gone
    }

    fn workers_of(&self, channel: &Channel) -> u64 {
        let shard = self.shards[self.shard_index(channel)].lock();
        shard.get(channel).map_or(0, |interest| interest.workers)
    }

    fn shard_index(&self, channel: &Channel) -> usize {
        self.hasher.hash_one(channel) as usize % SHARDS
    }
}
