//! Presence in memory: channels in shards, each with its clients; holders with their leases.
//!
//! An entry is two pointers: the client's info and its holder. Whether it is visible is asked of the holder when the
//! entry is looked at, so that a lease costs nothing per client. A channel with one client, the common case for
//! personal channels, needs no table of its own.
//!
//! Locks are taken in the order holders, shard. Entries are added under the holders' lock, so that a holder is not
//! forgotten while one is on its way in.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashTable, hash_table};
use parking_lot::{Mutex, RwLock};

use super::super::{Holder, PresenceCount, Reaped};
use super::SHARDS;
use crate::relay::channel::Channel;
use crate::relay::protocol::ClientInfo;

pub(super) struct Members {
    shards: Box<[Mutex<Shard>]>,
    holders: RwLock<HashMap<Holder, Arc<Lease>>>,
    hasher: RandomState,
    /// Deadlines count from here.
    start: Instant,
}

type Shard = HashMap<Channel, Clients, RandomState>;

struct Lease {
    /// Microseconds since the start; 0 if there never was a lease.
    until_us: AtomicU64,
    entries: AtomicUsize,
}

struct Entry {
    info: Arc<ClientInfo>,
    lease: Arc<Lease>,
}

/// Clients of a channel; never none.
enum Clients {
    One(Entry),
    Many(Box<Many>),
}

struct Many {
    /// By client id.
    entries: HashTable<Entry>,
    /// How many entries each user has, visible or not.
    users: HashTable<(Arc<str>, u32)>,
}

impl Members {
    pub(super) fn new(start: Instant) -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            shards,
            holders: RwLock::default(),
            hasher: RandomState::default(),
            start,
        }
    }

    pub(super) fn renew(&self, holder: &Holder, ttl: Duration, now: Instant) {
        let until_us = self.since_start_us(now).saturating_add(micros(ttl));
        if let Some(lease) = self.holders.read().get(holder) {
            lease.until_us.store(until_us, Ordering::Release);
            return;
        }
        let mut holders = self.holders.write();
        let lease = holders.entry(holder.clone()).or_insert_with(Lease::ended);
        lease.until_us.store(until_us, Ordering::Release);
    }

    pub(super) fn join(&self, holder: &Holder, channel: &Channel, info: Arc<ClientInfo>) {
        let holders = self.holders.read();
        if let Some(lease) = holders.get(holder) {
            self.insert(
                channel,
                Entry {
                    info,
                    lease: lease.clone(),
                },
            );
            return;
        }
        drop(holders);
        let mut holders = self.holders.write();
        let lease = holders
            .entry(holder.clone())
            .or_insert_with(Lease::ended)
            .clone();
        self.insert(channel, Entry { info, lease });
    }

    pub(super) fn leave(&self, holder: &Holder, channel: &Channel, client: &str) -> bool {
        let holders = self.holders.read();
        let Some(lease) = holders.get(holder) else {
            return false;
        };
        let mut shard = self.shard(channel).lock();
        let Some(clients) = shard.get_mut(channel) else {
            return false;
        };
        match clients {
            Clients::One(entry) => {
                if &*entry.info.client != client || !Arc::ptr_eq(&entry.lease, lease) {
                    return false;
                }
                shard.remove(channel);
            }
            Clients::Many(many) => {
                if !many.remove(client, lease, &self.hasher) {
                    return false;
                }
                clients.slim(&self.hasher);
            }
        }
        lease.entries.fetch_sub(1, Ordering::AcqRel);
        true
    }

    pub(super) fn list(&self, channel: &Channel, now: Instant) -> Vec<Arc<ClientInfo>> {
        let now_us = self.since_start_us(now);
        match self.shard(channel).lock().get(channel) {
            None => Vec::new(),
            Some(Clients::One(entry)) => entry.visible(now_us).cloned().into_iter().collect(),
            Some(Clients::Many(many)) => many
                .entries
                .iter()
                .filter_map(|entry| entry.visible(now_us).cloned())
                .collect(),
        }
    }

    /// Costs nothing per client unless a lease has ended and was not reaped yet.
    pub(super) fn count(&self, channel: &Channel, now: Instant) -> PresenceCount {
        let now_us = self.since_start_us(now);
        let all_visible = !self
            .holders
            .read()
            .values()
            .any(|lease| lease.reapable(now_us));
        match self.shard(channel).lock().get(channel) {
            None => PresenceCount::default(),
            Some(Clients::One(entry)) => {
                let clients = u32::from(entry.visible(now_us).is_some());
                PresenceCount {
                    clients,
                    users: clients,
                }
            }
            Some(Clients::Many(many)) if all_visible => PresenceCount {
                clients: count(many.entries.len()),
                users: count(many.users.len()),
            },
            Some(Clients::Many(many)) => many.count_visible(now_us),
        }
    }

    pub(super) fn reap(&self, now: Instant) -> Vec<Reaped> {
        let now_us = self.since_start_us(now);
        let mut reaped = Vec::new();
        if self
            .holders
            .read()
            .values()
            .any(|lease| lease.reapable(now_us))
        {
            for shard in &self.shards {
                self.reap_shard(&mut shard.lock(), now_us, &mut reaped);
            }
        }
        let forgettable =
            |lease: &Arc<Lease>| !lease.alive(now_us) && lease.entries.load(Ordering::Acquire) == 0;
        if self.holders.read().values().any(forgettable) {
            self.holders.write().retain(|_, lease| !forgettable(lease));
        }
        reaped
    }

    fn reap_shard(&self, shard: &mut Shard, now_us: u64, reaped: &mut Vec<Reaped>) {
        shard.retain(|channel, clients| {
            let mut out = |entry: Entry| {
                entry.lease.entries.fetch_sub(1, Ordering::AcqRel);
                reaped.push(Reaped {
                    channel: channel.clone(),
                    info: entry.info,
                });
            };
            match clients {
                Clients::One(entry) if entry.lease.alive(now_us) => true,
                Clients::One(entry) => {
                    out(Entry {
                        info: entry.info.clone(),
                        lease: entry.lease.clone(),
                    });
                    false
                }
                Clients::Many(many) => {
                    let ended: Vec<Entry> = many
                        .entries
                        .extract_if(|entry| !entry.lease.alive(now_us))
                        .collect();
                    for entry in ended {
                        many.forget_user(&entry.info.user, &self.hasher);
                        out(entry);
                    }
                    if many.entries.is_empty() {
                        return false;
                    }
                    clients.slim(&self.hasher);
                    true
                }
            }
        });
    }

    fn insert(&self, channel: &Channel, entry: Entry) {
        entry.lease.entries.fetch_add(1, Ordering::AcqRel);
        let mut shard = self.shard(channel).lock();
        let replaced = match shard.get_mut(channel) {
            None => {
                shard.insert(channel.clone(), Clients::One(entry));
                None
            }
            Some(Clients::Many(many)) => many.insert(entry, &self.hasher),
            Some(Clients::One(only)) if only.info.client == entry.info.client => {
                Some(std::mem::replace(only, entry))
            }
            Some(clients) => {
                let mut many = Box::new(Many {
                    entries: HashTable::new(),
                    users: HashTable::new(),
                });
                many.insert(entry, &self.hasher);
                if let Clients::One(first) = std::mem::replace(clients, Clients::Many(many))
                    && let Clients::Many(many) = clients
                {
                    many.insert(first, &self.hasher);
                }
                None
            }
        };
        if let Some(replaced) = replaced {
            replaced.lease.entries.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn shard(&self, channel: &Channel) -> &Mutex<Shard> {
        let hash = self.hasher.hash_one(channel.scoped());
        // The remainder is below SHARDS, a small constant.
        &self.shards[(hash % SHARDS as u64) as usize]
    }

    fn since_start_us(&self, now: Instant) -> u64 {
        micros(now.saturating_duration_since(self.start))
    }
}

impl Lease {
    fn ended() -> Arc<Self> {
        Arc::new(Self {
            until_us: AtomicU64::new(0),
            entries: AtomicUsize::new(0),
        })
    }

    fn alive(&self, now_us: u64) -> bool {
        now_us < self.until_us.load(Ordering::Acquire)
    }

    fn reapable(&self, now_us: u64) -> bool {
        !self.alive(now_us) && self.entries.load(Ordering::Acquire) > 0
    }
}

impl Entry {
    fn visible(&self, now_us: u64) -> Option<&Arc<ClientInfo>> {
        self.lease.alive(now_us).then_some(&self.info)
    }
}

impl Clients {
    /// Gives memory back when clients have left.
    fn slim(&mut self, hasher: &RandomState) {
        let Clients::Many(many) = self else { return };
        if many.entries.len() == 1 {
            let last = many.entries.drain().next();
            if let Some(last) = last {
                *self = Clients::One(last);
            }
        } else if many.entries.len() < many.entries.capacity() / 4 {
            many.entries
                .shrink_to_fit(|entry| hasher.hash_one(&*entry.info.client));
            many.users
                .shrink_to_fit(|(user, _)| hasher.hash_one(&**user));
        }
    }
}

impl Many {
    /// Returns the entry of the same client that was replaced.
    fn insert(&mut self, entry: Entry, hasher: &RandomState) -> Option<Entry> {
        self.add_user(&entry.info.user, hasher);
        let client = entry.info.client.clone();
        let hash = hasher.hash_one(&*client);
        let slot = self.entries.entry(
            hash,
            |other| other.info.client == client,
            |other| hasher.hash_one(&*other.info.client),
        );
        match slot {
            hash_table::Entry::Occupied(mut slot) => {
                let replaced = std::mem::replace(slot.get_mut(), entry);
                self.forget_user(&replaced.info.user, hasher);
                Some(replaced)
            }
            hash_table::Entry::Vacant(slot) => {
                slot.insert(entry);
                None
            }
        }
    }

    fn remove(&mut self, client: &str, lease: &Arc<Lease>, hasher: &RandomState) -> bool {
        let hash = hasher.hash_one(client);
        let found = self.entries.find_entry(hash, |entry| {
            &*entry.info.client == client && Arc::ptr_eq(&entry.lease, lease)
        });
        let Ok(found) = found else { return false };
        let (entry, _) = found.remove();
        self.forget_user(&entry.info.user, hasher);
        true
    }

    fn add_user(&mut self, user: &Arc<str>, hasher: &RandomState) {
        let rehash = |(user, _): &(Arc<str>, u32)| hasher.hash_one(&**user);
        self.users
            .entry(hasher.hash_one(&**user), |(other, _)| other == user, rehash)
            .and_modify(|(_, clients)| *clients += 1)
            .or_insert_with(|| (user.clone(), 1));
    }

    fn forget_user(&mut self, user: &Arc<str>, hasher: &RandomState) {
        if let Ok(mut found) = self
            .users
            .find_entry(hasher.hash_one(&**user), |(other, _)| other == user)
        {
            let (_, clients) = found.get_mut();
            *clients -= 1;
            if *clients == 0 {
                found.remove();
            }
        }
    }

    fn count_visible(&self, now_us: u64) -> PresenceCount {
        let visible = || {
            self.entries
                .iter()
                .filter_map(|entry| entry.visible(now_us))
        };
        let users: hashbrown::HashSet<&str> = visible().map(|info| &*info.user).collect();
        PresenceCount {
            clients: count(visible().count()),
            users: count(users.len()),
        }
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Slots of the tables: a channel, a client of a large channel, a user of a large channel.
#[cfg(test)]
pub(super) const fn slot_bytes() -> (usize, usize, usize) {
    (
        size_of::<(Channel, Clients)>(),
        size_of::<Entry>(),
        size_of::<(Arc<str>, u32)>(),
    )
}
