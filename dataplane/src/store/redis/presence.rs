//! Presence in Redis: what each process holds, and a lease per process and partition that keeps all of it visible.
//!
//! Keys of a partition, in one slot: `leases` (holder -> end), `dead` (holders whose entries are being reaped); per channel
//! `p:` (client -> holder, user, info) and `n:` (how many entries each holder's users have); per holder `h:` (its members,
//! for the reaper); per account `a:` (connections of each holder). A lease is renewed with one call per partition,
//! however many clients there are. Reads compare entries with leases in the same script, so an ended lease
//! hides its entries at once, by the server's clock.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::oneshot;

mod entry;
mod owed;
mod reap;
#[cfg(test)]
mod tests;

use self::owed::Owed;
use super::cluster::{Again, CallError, Cluster};
use super::lanes::{self, Lanes};
use super::limits::{
    CHANNEL_PARTITIONS, IN_FLIGHT_BYTES_MAX, PUBLISH_BATCH_BYTES, PUBLISH_BATCH_JOBS,
};
use super::reply::Reply;
use super::script::{Script, script};
use super::slots::Partitions;
use crate::relay::channel::Channel;
use crate::relay::protocol::ClientInfo;
use crate::store::{Holder, Presence, PresenceCount, Reaped, Renewal, StoreError};

static APPLY: Script = script!("presence_apply.lua");
static LIST: Script = script!("presence_list.lua");
static RENEW: Script = script!("presence_renew.lua");
static SEATS: Script = script!("presence_seats.lua");

pub struct RedisPresence {
    cluster: Arc<Cluster>,
    partitions: Partitions,
    changes: Lanes<Change>,
    /// Holders and partitions for which a lease was renewed by this process: one of these that is unknown was lost.
    renewed: Mutex<HashSet<(Holder, u16)>>,
    /// Holders that lived at the last renewal.
    living: AtomicUsize,
    /// Leaves that the servers did not take.
    owed: Owed,
}

/// A join or a leave on its way.
struct Change {
    /// Channel's entries, channel's counts, holder's members.
    keys: [Bytes; 3],
    /// As the script takes them.
    args: [Bytes; 6],
    done: oneshot::Sender<Result<bool, StoreError>>,
}

impl RedisPresence {
    pub fn new(cluster: Arc<Cluster>) -> Self {
        let partitions = Partitions::new(&cluster.settings().gateway, CHANNEL_PARTITIONS);
        let limits = lanes::Limits {
            batch_jobs: PUBLISH_BATCH_JOBS,
            batch_bytes: PUBLISH_BATCH_BYTES,
            waiting_bytes: IN_FLIGHT_BYTES_MAX,
        };
        let (carrier, slots) = (Arc::clone(&cluster), partitions.clone());
        let carry_out = Box::new(move |partition, changes| {
            let (cluster, slot) = (Arc::clone(&carrier), slots.slot(partition));
            Box::pin(async move { apply(&cluster, slot, changes).await }) as _
        });
        let runtime = cluster.runtime().clone();
        Self {
            changes: Lanes::new(CHANNEL_PARTITIONS, limits, runtime, carry_out),
            cluster,
            partitions,
            renewed: Mutex::default(),
            living: AtomicUsize::new(1),
            owed: Owed::default(),
        }
    }

    /// Processes of the gateway that lived at the last renewal, this one included.
    pub fn living(&self) -> usize {
        self.living.load(Ordering::Relaxed).max(1)
    }

    async fn change(
        &self,
        kind: &'static str,
        holder: &Holder,
        channel: &Channel,
        info: &ClientInfo,
    ) -> Result<bool, StoreError> {
        let partition = self.partition(channel);
        let (done, outcome) = oneshot::channel();
        let change = Change {
            keys: [
                self.entries_key(partition, channel),
                self.counts_key(partition, channel),
                self.members_key(partition, &holder.0),
            ],
            args: [
                Bytes::from_static(kind.as_bytes()),
                Bytes::copy_from_slice(info.client.as_bytes()),
                Bytes::copy_from_slice(holder.0.as_bytes()),
                Bytes::copy_from_slice(info.user.as_bytes()),
                entry::encode(&holder.0, info),
                entry::member(channel, &info.client),
            ],
            done,
        };
        let bytes = change.keys.iter().chain(&change.args).map(Bytes::len).sum();
        if self.changes.submit(partition, change, bytes).is_err() {
            return Err(StoreError::Unavailable(
                "too much is waiting for Redis".to_owned(),
            ));
        }
        outcome
            .await
            .unwrap_or_else(|_| Err(StoreError::Unavailable("shutting down".to_owned())))
    }

    /// A leave; when the servers do not take it, it is owed.
    async fn remove(
        &self,
        holder: &Holder,
        channel: &Channel,
        client: &str,
    ) -> Result<bool, StoreError> {
        let info = ClientInfo {
            client: client.into(),
            ..ClientInfo::default()
        };
        let left = self.change("l", holder, channel, &info).await;
        if left.is_err() {
            self.owed.add(holder, channel, client);
        }
        left
    }

    /// Living holders, and what the hash holds.
    async fn look(
        &self,
        partition: u16,
        key: Bytes,
        what: &'static str,
    ) -> Result<(HashSet<Bytes>, Vec<Reply>), CallError> {
        let keys = [self.leases_key(partition), key];
        let what = [Bytes::from_static(what.as_bytes())];
        let slot = self.partitions.slot(partition);
        let reply = self
            .cluster
            .call(slot, &LIST, &keys, what, Again::Safe)
            .await?;
        let mut parts = reply.into_list().into_iter();
        let living = parts.next().map(Reply::into_list).unwrap_or_default();
        let living = living.iter().filter_map(Reply::bytes).cloned().collect();
        Ok((
            living,
            parts.next().map(Reply::into_list).unwrap_or_default(),
        ))
    }

    fn partition(&self, channel: &Channel) -> u16 {
        self.partitions.of(channel.scoped().as_bytes())
    }

    fn leases_key(&self, partition: u16) -> Bytes {
        self.partitions.key(partition, "leases")
    }

    fn entries_key(&self, partition: u16, channel: &Channel) -> Bytes {
        self.partitions
            .key(partition, &format!("p:{}", channel.scoped()))
    }

    fn counts_key(&self, partition: u16, channel: &Channel) -> Bytes {
        self.partitions
            .key(partition, &format!("n:{}", channel.scoped()))
    }

    fn members_key(&self, partition: u16, holder: &str) -> Bytes {
        self.partitions.key(partition, &format!("h:{holder}"))
    }
}

async fn apply(cluster: &Cluster, slot: u16, changes: Vec<Change>) {
    let keys: Vec<Bytes> = changes
        .iter()
        .flat_map(|change| change.keys.clone())
        .collect();
    let args: Vec<Bytes> = changes
        .iter()
        .flat_map(|change| change.args.clone())
        .collect();
    let outcome = cluster.call(slot, &APPLY, &keys, args, Again::Safe).await;
    for (index, change) in changes.into_iter().enumerate() {
        let changed = match &outcome {
            Ok(reply) => Ok(reply.list().get(index).and_then(Reply::integer) == Some(1)),
            Err(error) => Err(error.clone().into()),
        };
        // Who asked may have gone.
        let _ = change.done.send(changed);
    }
}

#[async_trait]
impl Presence for RedisPresence {
    async fn renew(&self, holder: &Holder, ttl: Duration) -> Result<Renewal, StoreError> {
        let renewals = (0..self.partitions.count()).map(|partition| async move {
            let keys = [self.leases_key(partition)];
            let args = [
                Bytes::copy_from_slice(holder.0.as_bytes()),
                ttl.as_millis().to_string().into(),
            ];
            let slot = self.partitions.slot(partition);
            let outcome = self
                .cluster
                .call(slot, &RENEW, &keys, args, Again::Safe)
                .await;
            (partition, outcome)
        });
        let mut renewal = Renewal::Kept;
        let mut failure = None;
        let mut living = 0;
        for (partition, outcome) in join_all(renewals).await {
            match outcome {
                Ok(reply) => {
                    let known = reply.list().first().and_then(Reply::integer) == Some(1);
                    let count = reply.list().get(1).and_then(Reply::integer).unwrap_or(0);
                    living = living.max(usize::try_from(count).unwrap_or(0));
                    let before = !self.renewed.lock().insert((holder.clone(), partition));
                    if before && !known {
                        renewal = Renewal::Lost;
                    }
                }
                Err(error) => failure = Some(error),
            }
        }
        self.living.store(living, Ordering::Relaxed);
        if failure.is_none() {
            owed::pay(self).await;
        }
        match failure {
            // What was lost elsewhere must be told all the same; the failed partition is renewed next time.
            Some(error) if renewal == Renewal::Kept => Err(error.into()),
            _ => Ok(renewal),
        }
    }

    async fn join(
        &self,
        holder: &Holder,
        channel: &Channel,
        info: Arc<ClientInfo>,
    ) -> Result<(), StoreError> {
        self.owed.forgive(holder, channel, &info.client);
        self.change("j", holder, channel, &info).await.map(|_| ())
    }

    async fn leave(
        &self,
        holder: &Holder,
        channel: &Channel,
        client: &str,
    ) -> Result<bool, StoreError> {
        self.remove(holder, channel, client).await
    }

    async fn list(&self, channel: &Channel) -> Result<Vec<Arc<ClientInfo>>, StoreError> {
        let partition = self.partition(channel);
        let key = self.entries_key(partition, channel);
        let (living, entries) = self.look(partition, key, "values").await?;
        let entries = entries
            .iter()
            .filter_map(|entry| entry::decode(entry.bytes()?.clone()));
        let visible = entries.filter(|entry| living.contains(&entry.holder));
        Ok(visible.map(|entry| Arc::new(entry.info)).collect())
    }

    async fn count(&self, channel: &Channel) -> Result<PresenceCount, StoreError> {
        let partition = self.partition(channel);
        let key = self.counts_key(partition, channel);
        let (living, counts) = self.look(partition, key, "all").await?;
        let mut users = HashSet::new();
        let mut clients = 0_i64;
        for pair in counts.chunks_exact(2) {
            let owner = pair[0].bytes().cloned().and_then(entry::parse_pair);
            let (Some((holder, user)), Some(count)) = (owner, pair[1].integer()) else {
                continue;
            };
            if living.contains(&holder) {
                clients += count;
                users.insert(user);
            }
        }
        Ok(PresenceCount {
            clients: u32::try_from(clients).unwrap_or(0),
            users: u32::try_from(users.len()).unwrap_or(u32::MAX),
        })
    }

    async fn reap(&self) -> Result<Vec<Reaped>, StoreError> {
        let partitions = (0..self.partitions.count()).map(|partition| reap::reap(self, partition));
        let mut all = Vec::new();
        let mut failure = None;
        for outcome in join_all(partitions).await {
            match outcome {
                Ok(reaped) => all.extend(reaped),
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            // Who was reaped is told once: here, or never.
            Some(error) if all.is_empty() => Err(error.into()),
            _ => Ok(all),
        }
    }

    async fn take_seats(
        &self,
        holder: &Holder,
        account: &str,
        connections: usize,
        limit: Option<usize>,
    ) -> Result<bool, StoreError> {
        let partition = self.partitions.of(account.as_bytes());
        let keys = [
            self.leases_key(partition),
            self.partitions.key(partition, &format!("a:{account}")),
        ];
        let args = [
            Bytes::copy_from_slice(holder.0.as_bytes()),
            connections.to_string().into(),
            limit
                .map_or_else(String::new, |limit| limit.to_string())
                .into(),
        ];
        let slot = self.partitions.slot(partition);
        let reply = self
            .cluster
            .call(slot, &SEATS, &keys, args, Again::Safe)
            .await?;
        Ok(reply.integer() == Some(1))
    }
}
