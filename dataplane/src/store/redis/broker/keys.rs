//! Where a channel's data lies in Redis: partition, slot and keys. Pure.

use bytes::Bytes;
use sha1::{Digest, Sha1};

use crate::relay::channel::Channel;
use crate::store::redis::limits::CHANNEL_PARTITIONS;
use crate::store::redis::slots::Partitions;

#[derive(Clone)]
pub(super) struct Keys(Partitions);

impl Keys {
    pub(super) fn new(gateway: &str) -> Self {
        Self(Partitions::new(gateway, CHANNEL_PARTITIONS))
    }

    pub(super) fn partition(&self, channel: &Channel) -> u16 {
        self.0.of(channel.scoped().as_bytes())
    }

    pub(super) fn slot(&self, partition: u16) -> u16 {
        self.0.slot(partition)
    }

    /// The pub/sub channel.
    pub(super) fn channel(&self, channel: &Channel) -> Bytes {
        self.key("c", channel)
    }

    pub(super) fn stream(&self, channel: &Channel) -> Bytes {
        self.key("s", channel)
    }

    pub(super) fn meta(&self, channel: &Channel) -> Bytes {
        self.key("m", channel)
    }

    /// Callers choose keys, of any length: their hash stands for them.
    pub(super) fn answer(&self, channel: &Channel, idempotency_key: &str) -> Bytes {
        let hash = Sha1::digest(idempotency_key.as_bytes());
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        self.key(&format!("i:{hash}"), channel)
    }

    /// What a publisher's last batch in the partition came to.
    pub(super) fn batch(&self, partition: u16, publisher: u64) -> Bytes {
        self.0.key(partition, &format!("l:{publisher:016x}"))
    }

    fn key(&self, kind: &str, channel: &Channel) -> Bytes {
        let name = format!("{kind}:{}", channel.scoped());
        self.0.key(self.partition(channel), &name)
    }
}
