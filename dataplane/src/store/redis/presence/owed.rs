//! Leaves that the servers did not take while they were away: made good when they are back, so that nobody who has gone
//! stays in sight for as long as this process lives.

use std::collections::HashSet;
use std::sync::Arc;

use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;

use super::RedisPresence;
use crate::relay::channel::Channel;
use crate::store::Holder;

/// Clients that leave while the servers are away: all of a large process, some times over. About 50 MB.
const OWED_MAX: usize = 262_144;
/// Leaves that are on their way at a time: they go in batches by themselves.
const AT_ONCE: usize = 1_024;

#[derive(Default)]
pub(super) struct Owed(Mutex<HashSet<(Holder, Channel, Arc<str>)>>);

impl Owed {
    pub(super) fn add(&self, holder: &Holder, channel: &Channel, client: &str) {
        let mut leaves = self.0.lock();
        if leaves.len() < OWED_MAX {
            leaves.insert((holder.clone(), channel.clone(), client.into()));
        } else {
            tracing::error!("too many clients left while Redis was away: some stay in presence");
        }
    }

    /// The client is there again.
    pub(super) fn forgive(&self, holder: &Holder, channel: &Channel, client: &str) {
        let mut leaves = self.0.lock();
        if !leaves.is_empty() {
            leaves.remove(&(holder.clone(), channel.clone(), client.into()));
        }
    }

    fn take(&self) -> HashSet<(Holder, Channel, Arc<str>)> {
        std::mem::take(&mut *self.0.lock())
    }
}

/// Makes good what is owed; what fails again is owed again.
pub(super) async fn pay(presence: &RedisPresence) {
    let leaves = presence.owed.take();
    if leaves.is_empty() {
        return;
    }
    tracing::info!(
        clients = leaves.len(),
        "clients that left while Redis was away leave presence"
    );
    stream::iter(leaves)
        .for_each_concurrent(AT_ONCE, async |(holder, channel, client)| {
            // A failure owes it again.
            let _ = presence.remove(&holder, &channel, &client).await;
        })
        .await;
}
