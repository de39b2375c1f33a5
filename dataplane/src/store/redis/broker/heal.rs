//! Mends feeds: reads what they missed, or says that it is lost; and finds those that a failover left behind.
//!
//! Works on the feeds of `subscriber` and owns nothing. A healing ends when the feed is at the top of its stream, however
//! long Redis takes to come back, or with the subscription.

use std::collections::HashMap;
use std::sync::Weak;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::feed::{Cause, Feed, Healed};
use super::frame;
use super::keys::Keys;
use super::subscriber::Subscriber;
use crate::relay::channel::Channel;
use crate::store::redis::cluster::CallError;
use crate::store::redis::limits::{CHANNEL_PARTITIONS, HEAL_PAUSE_MAX, HEAL_PAUSE_MIN, TOPS_BATCH};
use crate::store::redis::topology::Address;

impl Subscriber {
    pub(super) async fn heal(&self, key: Bytes, number: u64) {
        let mut pause = Duration::ZERO;
        loop {
            match self.heal_once(&key, number).await {
                Ok(true) => return,
                Ok(false) => pause = Duration::ZERO,
                Err(error) => {
                    tracing::debug!(%error, "healing waits for redis");
                    pause = (pause * 2).clamp(HEAL_PAUSE_MIN, HEAL_PAUSE_MAX);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Returns whether there is nothing left to do.
    async fn heal_once(&self, key: &Bytes, number: u64) -> Result<bool, CallError> {
        let from = |feed: &mut Feed| Some((feed.channel.clone(), feed.offset()?));
        let Some((channel, offset)) = self.with_feed(key, number, from).flatten() else {
            return Ok(true);
        };
        let part = self.streams.part(&channel, offset).await?;
        let is_full = part.is_full;
        let compared = self.with_feed(key, number, |feed| match feed.compare(part, frame::id) {
            Healed::Diverged(epoch) => Err(epoch),
            Healed::Missed { entries, lost } => {
                if lost {
                    self.tell_lost(feed);
                } else if !entries.is_empty() {
                    self.cluster.metrics().gap_healed();
                }
                for (offset, body) in entries {
                    self.deliver(feed, offset, Bytes::copy_from_slice(&body));
                }
                Ok(!is_full && self.end(feed))
            }
        });
        let void = match compared {
            None => return Ok(true),
            Some(Ok(is_done)) => return Ok(is_done),
            Some(Err(epoch)) => epoch,
        };
        let top = self.streams.renew(&channel, &void).await?;
        let is_done = self.with_feed(key, number, |feed| {
            feed.restart(top.epoch, top.offset, top.id);
            self.tell_lost(feed);
            self.end(feed)
        });
        Ok(is_done.unwrap_or(true))
    }

    /// Lets what waited through. Returns whether the feed is whole.
    fn end(&self, feed: &mut Feed) -> bool {
        for message in feed.end_healing().into_iter().flatten() {
            self.take(feed, &message);
        }
        !feed.is_healing()
    }

    /// Compares feeds of a partition with their streams.
    async fn look_after(&self, partition: u16, feeds: Vec<(Bytes, Channel)>) {
        for some in feeds.chunks(TOPS_BATCH) {
            let channels: Vec<Channel> = some.iter().map(|(_, channel)| channel.clone()).collect();
            match self.streams.tops(partition, &channels).await {
                Ok(tops) => {
                    for ((key, _), top) in some.iter().zip(&tops) {
                        self.compare_top(key, top);
                    }
                }
                // Each on its own then, which goes on until Redis answers.
                Err(_) => {
                    for (key, _) in some {
                        self.begin_healing(key, Cause::Doubt);
                    }
                }
            }
        }
    }
}

/// Has the channels of a shard looked after when another server becomes its primary: it may know less than was delivered,
/// or more. Ends with the cluster or the subscriber.
pub(super) async fn follow_failovers(subscriber: Weak<Subscriber>, keys: Keys) {
    let Some(mut topology) = subscriber.upgrade().map(|held| held.cluster.topology()) else {
        return;
    };
    let mut primaries: HashMap<u16, (Address, u64)> = HashMap::new();
    loop {
        let now = topology.borrow_and_update().clone();
        let mut moved = Vec::new();
        for partition in 0..CHANNEL_PARTITIONS {
            let Some(shard) = now.shard(keys.slot(partition)) else {
                continue;
            };
            let primary = (shard.primary.clone(), shard.epoch);
            let before = primaries.insert(partition, primary.clone());
            if before.is_some_and(|before| before != primary) {
                moved.push(partition);
            }
        }
        let Some(subscriber) = subscriber.upgrade() else {
            return;
        };
        let mut feeds: HashMap<u16, Vec<(Bytes, Channel)>> = HashMap::new();
        if !moved.is_empty() {
            let is_there = |channel: &Channel| moved.contains(&keys.partition(channel));
            for (key, channel) in subscriber.followed(is_there) {
                let partition = keys.partition(&channel);
                feeds.entry(partition).or_default().push((key, channel));
            }
        }
        let looks = feeds
            .into_iter()
            .map(|(partition, feeds)| subscriber.look_after(partition, feeds));
        join_all(looks).await;
        drop(subscriber);
        if topology.changed().await.is_err() {
            return;
        }
    }
}
