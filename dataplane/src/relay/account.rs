//! What connections of one account share in this process: their number and their message rate.
//!
//! Where the number is limited, other processes have to know it too: [`Accounts`] remembers which numbers changed, and
//! `seats` tells them.

use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard, Notify};

use super::rate::Bucket;

/// Enough that workers rarely meet on a lock.
const SHARDS: usize = 32;

#[derive(Debug)]
pub struct AccountState {
    name: Arc<str>,
    messages: Mutex<Bucket>,
}

impl AccountState {
    /// Whether the account may send one more message now.
    pub fn take_message(&self, per_second: u32, now_ms: u64) -> bool {
        self.messages.lock().take(per_second, now_ms)
    }
}

#[derive(Debug)]
struct Entry {
    state: Arc<AccountState>,
    connections: usize,
}

/// All accounts with connections here.
#[derive(Debug)]
pub struct Accounts {
    shards: Vec<Mutex<HashMap<Arc<str>, Entry>>>,
    hasher: RandomState,
    /// Held while a shard's numbers are told to the other processes, so that they are told in order.
    turns: Vec<AsyncMutex<()>>,
    /// Accounts whose number has to be told.
    changed: Mutex<HashSet<Arc<str>>>,
    change: Notify,
}

/// One connection counted to its account; dropping it counts down.
#[derive(Debug)]
pub struct Seat {
    accounts: Arc<Accounts>,
    state: Arc<AccountState>,
    is_limited: bool,
}

impl Seat {
    pub fn state(&self) -> &AccountState {
        &self.state
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut shard = self.accounts.shard(&self.state.name).lock();
        if let Some(entry) = shard.get_mut(&self.state.name) {
            entry.connections -= 1;
            if entry.connections == 0 {
                shard.remove(&self.state.name);
            }
        }
        drop(shard);
        if self.is_limited {
            self.accounts.mark_changed(&self.state.name);
        }
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            turns: (0..SHARDS).map(|_| AsyncMutex::default()).collect(),
            changed: Mutex::default(),
            change: Notify::new(),
        }
    }
}

impl Accounts {
    /// Counts a connection in, unless the account has `limit` already.
    pub fn enter(self: &Arc<Self>, account: &Arc<str>, limit: Option<usize>) -> Option<Seat> {
        let mut shard = self.shard(account).lock();
        let entry = shard.entry(Arc::clone(account)).or_insert_with(|| Entry {
            state: Arc::new(AccountState {
                name: Arc::clone(account),
                messages: Mutex::default(),
            }),
            connections: 0,
        });
        // A fresh entry has room for one: limits are at least 1.
        if limit.is_some_and(|limit| entry.connections >= limit) {
            return None;
        }
        entry.connections += 1;
        let state = Arc::clone(&entry.state);
        Some(Seat {
            accounts: Arc::clone(self),
            state,
            is_limited: limit.is_some(),
        })
    }

    /// Connections of the account here.
    pub fn connections(&self, account: &str) -> usize {
        let shard = self.shard(account).lock();
        shard.get(account).map_or(0, |entry| entry.connections)
    }

    /// One at a time may tell the account's number.
    pub async fn turn(&self, account: &str) -> MutexGuard<'_, ()> {
        let hash = self.hasher.hash_one(account);
        self.turns[hash as usize % SHARDS].lock().await
    }

    pub fn mark_changed(&self, account: &Arc<str>) {
        self.changed.lock().insert(Arc::clone(account));
        self.change.notify_one();
    }

    pub fn mark_all_changed(&self) {
        for shard in &self.shards {
            let accounts: Vec<_> = shard.lock().keys().cloned().collect();
            self.changed.lock().extend(accounts);
        }
        self.change.notify_one();
    }

    /// Waits until there are accounts whose number changed, then takes them.
    pub async fn take_changed(&self) -> HashSet<Arc<str>> {
        loop {
            let changed = std::mem::take(&mut *self.changed.lock());
            if !changed.is_empty() {
                return changed;
            }
            self.change.notified().await;
        }
    }

    fn shard(&self, account: &str) -> &Mutex<HashMap<Arc<str>, Entry>> {
        let hash = self.hasher.hash_one(account);
        &self.shards[hash as usize % SHARDS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_full_until_a_seat_is_given_back() {
        let accounts = Arc::new(Accounts::default());
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        let first = accounts.enter(&a, Some(2)).unwrap();
        let _second = accounts.enter(&a, Some(2)).unwrap();
        assert!(accounts.enter(&a, Some(2)).is_none());
        assert!(accounts.enter(&b, Some(2)).is_some());
        drop(first);
        assert!(accounts.enter(&a, Some(2)).is_some());
    }
}
