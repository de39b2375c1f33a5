//! Slots move to another primary while they are used.

use std::ops::RangeInclusive;

use anyhow::Result;

use super::RedisCluster;
use crate::redis::server::RedisServer;

/// Keys that go over in one command.
const KEYS: &str = "100";
const TIMEOUT_MS: &str = "5000";

impl RedisCluster {
    /// Slot by slot, keys first, as the documentation of CLUSTER SETSLOT has it. `to` is a primary. How many keys it were.
    pub async fn move_slots(&self, slots: RangeInclusive<u16>, to: usize) -> Result<usize> {
        let mut moved = 0;
        for slot in slots {
            let from = self.primary_of(slot).await?;
            let slot = slot.to_string();
            let (source, target) = (&self.nodes[from], &self.nodes[to]);
            let (owner, next) = (&self.ids[from], &self.ids[to]);
            let words = ["CLUSTER", "SETSLOT", &slot];
            target
                .call(&[&words[..], &["IMPORTING", owner]].concat())
                .await?;
            source
                .call(&[&words[..], &["MIGRATING", next]].concat())
                .await?;
            moved += move_keys(source, target, &slot).await?;
            // The new owner first: there is one at any time.
            for node in [target, source] {
                node.call(&[&words[..], &["NODE", next]].concat()).await?;
            }
        }
        Ok(moved)
    }
}

async fn move_keys(source: &RedisServer, target: &RedisServer, slot: &str) -> Result<usize> {
    let mut moved = 0;
    loop {
        let found = ["CLUSTER", "GETKEYSINSLOT", slot, KEYS];
        let keys = source.call(&found).await?;
        let keys: Vec<String> = keys.items().iter().map(ToString::to_string).collect();
        if keys.is_empty() {
            return Ok(moved);
        }
        moved += keys.len();
        let (host, port) = (target.address().ip().to_string(), target.port().to_string());
        let mut words = vec!["MIGRATE", &host, &port, "", "0", TIMEOUT_MS, "KEYS"];
        words.extend(keys.iter().map(String::as_str));
        source.call(&words).await?;
    }
}
