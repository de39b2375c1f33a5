//! Keeps this process's lease in presence, and announces the clients of processes that died.

use std::sync::Arc;
use std::time::Instant;

use super::limits::{PRESENCE_LEASE, PRESENCE_RENEW};
use super::shared::Shared;
use super::worker::Order;
use crate::store::{PresenceEvent, Renewal};

/// For ever.
pub async fn keep(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(PRESENCE_RENEW);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut unbroken_since = None;
    loop {
        ticks.tick().await;
        match shared
            .presence()
            .renew(shared.holder(), PRESENCE_LEASE)
            .await
        {
            Ok(renewal) => {
                unbroken_since.get_or_insert_with(Instant::now);
                if renewal == Renewal::Lost || shared.take_presence_incomplete() {
                    tracing::warn!(
                        "presence has lost the clients of this process: they join again"
                    );
                    shared.router().order_all(&|| Order::JoinAgain);
                    shared.accounts().mark_all_changed();
                }
            }
            Err(error) => {
                tracing::warn!(%error, "presence lease not renewed");
                unbroken_since = None;
            }
        }
        // While the store was away nobody could renew: whoever lives does it before it is taken for dead.
        if unbroken_since.is_some_and(|since| since.elapsed() >= PRESENCE_LEASE) {
            reap(&shared).await;
        }
    }
}

async fn reap(shared: &Shared) {
    let reaped = match shared.presence().reap().await {
        Ok(reaped) => reaped,
        Err(error) => {
            tracing::warn!(%error, "presence not reaped");
            return;
        }
    };
    if !reaped.is_empty() {
        tracing::info!(clients = reaped.len(), "clients of a dead process are gone");
    }
    for entry in reaped {
        let left = PresenceEvent::Leave(entry.info);
        if let Err(error) = shared.broker().publish_presence(&entry.channel, left).await {
            tracing::warn!(%error, "leave of a dead process's client not announced");
        }
    }
}
