//! Messages between the processes of a gateway, over the same connections as publications.
//!
//! Every process listens on a channel of its own and on one for all. A message may come from both servers of the shard;
//! its id tells the second copy.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;

use super::cluster::Cluster;
use super::limits::CHANNEL_PARTITIONS;
use super::presence::RedisPresence;
use super::pubsub::{PubSub, Receiver};
use super::slots::Partitions;
use crate::store::{Holder, PeerSink, Peers, StoreError};

/// Messages that are remembered to tell copies: those of some seconds.
const REMEMBERED: usize = 16_384;
/// Pause before a subscription is tried again that no server confirmed.
const SUBSCRIBE_PAUSE: Duration = Duration::from_secs(1);

pub struct RedisPeers {
    pubsub: Arc<PubSub>,
    partitions: Partitions,
    presence: Arc<RedisPresence>,
    holder: Holder,
    inbox: Arc<Inbox>,
}

impl RedisPeers {
    /// Listens from soon on, for as long as it is held.
    pub fn start(
        cluster: &Arc<Cluster>,
        pubsub: &Arc<PubSub>,
        presence: &Arc<RedisPresence>,
        holder: Holder,
        sink: Arc<dyn PeerSink>,
    ) -> Arc<Self> {
        let inbox = Arc::new(Inbox {
            holder: holder.clone(),
            sink,
            seen: Mutex::default(),
        });
        let peers = Arc::new(Self {
            pubsub: Arc::clone(pubsub),
            partitions: Partitions::new(&cluster.settings().gateway, CHANNEL_PARTITIONS),
            presence: Arc::clone(presence),
            holder: holder.clone(),
            inbox,
        });
        for name in [name_of_all(), name_of(&holder)] {
            cluster
                .runtime()
                .spawn(listen(Arc::downgrade(&peers), name));
        }
        peers
    }

    async fn send(&self, name: &str, message: &[u8]) -> Result<(), StoreError> {
        let (slot, channel) = self.channel(name);
        let payload = encode(fastrand::u64(..), &self.holder, message);
        Ok(self.pubsub.publish(slot, channel, payload).await?)
    }

    fn channel(&self, name: &str) -> (u16, Bytes) {
        let partition = self.partitions.of(name.as_bytes());
        (
            self.partitions.slot(partition),
            self.partitions.key(partition, name),
        )
    }
}

impl Drop for RedisPeers {
    fn drop(&mut self) {
        for name in [name_of_all(), name_of(&self.holder)] {
            self.pubsub.unsubscribe(&self.channel(&name).1);
        }
    }
}

#[async_trait]
impl Peers for RedisPeers {
    async fn tell_others(&self, message: Bytes) -> Result<usize, StoreError> {
        let others = self.presence.living() - 1;
        self.send(&name_of_all(), &message).await?;
        Ok(others)
    }

    async fn tell(&self, peer: &Holder, message: Bytes) -> Result<(), StoreError> {
        self.send(&name_of(peer), &message).await
    }
}

fn name_of_all() -> String {
    "x:".to_owned()
}

fn name_of(holder: &Holder) -> String {
    format!("x:{}", holder.0)
}

/// Until a server has confirmed; from then on the subscription is kept.
async fn listen(peers: Weak<RedisPeers>, name: String) {
    loop {
        let Some(peers) = peers.upgrade() else { return };
        let (slot, channel) = peers.channel(&name);
        let inbox: Arc<dyn Receiver> = peers.inbox.clone();
        if peers
            .pubsub
            .subscribe(slot, channel, Arc::downgrade(&inbox))
            .await
            .is_ok()
        {
            return;
        }
        drop(peers);
        tokio::time::sleep(SUBSCRIBE_PAUSE).await;
    }
}

struct Inbox {
    holder: Holder,
    sink: Arc<dyn PeerSink>,
    seen: Mutex<Seen>,
}

/// Ids of the last messages.
#[derive(Default)]
struct Seen {
    ids: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Seen {
    fn is_new(&mut self, id: u64) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > REMEMBERED
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

impl Receiver for Inbox {
    fn message(&self, _channel: &Bytes, payload: Bytes) {
        let Some((id, by, message)) = decode(payload) else {
            tracing::debug!("not understood what another data plane said");
            return;
        };
        if by != self.holder && self.seen.lock().is_new(id) {
            self.sink.told(by, message);
        }
    }

    /// Who needs an answer asks again.
    fn interrupted(&self, _channel: &Bytes) {}
}

/// Id, length of the holder's name, holder, message.
fn encode(id: u64, holder: &Holder, message: &[u8]) -> Bytes {
    let mut payload = BytesMut::with_capacity(10 + holder.0.len() + message.len());
    payload.put_u64(id);
    payload.put_u16(u16::try_from(holder.0.len()).unwrap_or(u16::MAX));
    payload.put_slice(holder.0.as_bytes());
    payload.put_slice(message);
    payload.freeze()
}

fn decode(mut payload: Bytes) -> Option<(u64, Holder, Bytes)> {
    let id = payload.try_get_u64().ok()?;
    let length = usize::from(payload.try_get_u16().ok()?);
    let holder = (length <= payload.len()).then(|| payload.split_to(length))?;
    let holder = std::str::from_utf8(&holder).ok()?;
    Some((id, Holder(holder.into()), payload))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_and_garbage_is_none() {
        let (holder, message) = (Holder("a".into()), Bytes::from_static(b"{}"));
        assert_eq!(
            decode(encode(7, &holder, &message)),
            Some((7, holder, message))
        );
        for garbage in [
            &b""[..],
            b"12345678",
            b"12345678\0\x09x",
            b"12345678\0\x01\xff",
        ] {
            assert_eq!(decode(Bytes::from_static(garbage)), None);
        }
    }

    #[test]
    fn copies_are_told_from_messages() {
        let mut seen = Seen::default();
        assert!(seen.is_new(1) && !seen.is_new(1) && seen.is_new(2));
        for id in 10..10 + REMEMBERED as u64 {
            assert!(seen.is_new(id));
        }
        assert_eq!(seen.ids.len(), REMEMBERED);
    }
}
