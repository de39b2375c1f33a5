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
            let assign = |state: &'static str, of: usize| {
                ["CLUSTER", "SETSLOT", &slot, state, &self.ids[of]].map(str::to_owned)
            };
            call(target, &assign("IMPORTING", from)).await?;
            call(source, &assign("MIGRATING", to)).await?;
            moved += move_keys(source, target, &slot).await?;
            // The new owner first: there is one at any time.
            call(target, &assign("NODE", to)).await?;
            call(source, &assign("NODE", to)).await?;
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
        let mut words = ["MIGRATE", &host, &port, "", "0", TIMEOUT_MS, "KEYS"]
            .map(str::to_owned)
            .to_vec();
        words.extend(keys);
        call(source, &words).await?;
    }
}

async fn call(node: &RedisServer, words: &[String]) -> Result<()> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    node.call(&words).await?;
    Ok(())
}
