//! Channels in Redis: [`Broker`] for processes that share a gateway.
//!
//! A channel's stream, its meta and its pub/sub channel lie in one slot, so that a script appends and publishes in one
//! step. `publish` owns the order of what goes out, `subscriber` the order of what comes in; a process gets its own
//! publications the same way as all others. Keys and scripts are described in `lua/broker_publish.lua`, messages in
//! `frame`. Never acknowledges what Redis has not taken, and never passes over a gap in silence.

use std::sync::{Arc, Weak};

use async_trait::async_trait;

mod feed;
mod frame;
mod heal;
mod keys;
pub(super) mod publish;
mod streams;
mod subscriber;

use self::frame::Body;
use self::keys::Keys;
use self::publish::Publisher;
use self::streams::Streams;
use self::subscriber::Subscriber;
use super::cluster::Cluster;
use super::pubsub::{PubSub, Receiver};
use crate::relay::channel::Channel;
use crate::store::{
    Broker, EventSink, NewPublication, PresenceEvent, PublishOptions, Published, ReadOptions,
    Retention, StoreError, StreamRead,
};

pub struct RedisBroker {
    keys: Keys,
    pubsub: Arc<PubSub>,
    publisher: Publisher,
    streams: Arc<Streams>,
    subscriber: Arc<Subscriber>,
}

impl RedisBroker {
    /// Its tasks live on the cluster's runtime and end when it is dropped.
    pub fn start(
        cluster: &Arc<Cluster>,
        pubsub: &Arc<PubSub>,
        sink: Arc<dyn EventSink>,
    ) -> Arc<Self> {
        let keys = Keys::new(&cluster.settings().gateway);
        let streams = Arc::new(Streams::new(cluster, &keys));
        let subscriber = Subscriber::new(cluster, &streams, &keys, sink);
        let failovers = heal::follow_failovers(Arc::downgrade(&subscriber), keys.clone());
        cluster.runtime().spawn(failovers);
        Arc::new(Self {
            publisher: Publisher::new(cluster, pubsub, &streams, &keys),
            pubsub: Arc::clone(pubsub),
            keys,
            streams,
            subscriber,
        })
    }
}

impl Drop for RedisBroker {
    fn drop(&mut self) {
        self.subscriber.clear();
    }
}

#[async_trait]
impl Broker for RedisBroker {
    async fn publish(
        &self,
        channel: &Channel,
        publication: NewPublication,
        options: PublishOptions,
    ) -> Result<Published, StoreError> {
        let delta = options.delta;
        let body = Body::Publication { publication, delta };
        self.publisher.publish(channel, body, options).await
    }

    async fn publish_presence(
        &self,
        channel: &Channel,
        event: PresenceEvent,
    ) -> Result<(), StoreError> {
        let options = PublishOptions::default();
        let published = self
            .publisher
            .publish(channel, Body::Presence(event), options);
        published.await.map(|_| ())
    }

    async fn subscribe(&self, channel: &Channel) -> Result<(), StoreError> {
        let key = self.keys.channel(channel);
        let slot = self.keys.slot(self.keys.partition(channel));
        let receiver: Arc<dyn Receiver> = self.subscriber.clone();
        let receiver: Weak<dyn Receiver> = Arc::downgrade(&receiver);
        self.subscriber.add(&key, channel);
        let subscribed = self.pubsub.subscribe(slot, key.clone(), receiver).await;
        if subscribed.is_err() {
            self.subscriber.remove(&key);
        }
        Ok(subscribed?)
    }

    async fn unsubscribe(&self, channel: &Channel) -> Result<(), StoreError> {
        let key = self.keys.channel(channel);
        self.subscriber.remove(&key);
        self.pubsub.unsubscribe(&key);
        Ok(())
    }

    /// The retention of the last publish rules; the reader's is not needed here.
    async fn read(
        &self,
        channel: &Channel,
        _retention: Retention,
        options: ReadOptions,
    ) -> Result<StreamRead, StoreError> {
        let (read, top) = self.streams.read(channel, &options).await?;
        self.subscriber.note_top(&self.keys.channel(channel), &top);
        Ok(read)
    }

    async fn remove_history(&self, channel: &Channel) -> Result<(), StoreError> {
        Ok(self.streams.remove(channel).await?)
    }
}
