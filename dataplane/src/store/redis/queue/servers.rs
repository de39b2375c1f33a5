//! Looks at the servers as places for a queue: how full they are, whether they would throw entries away, whether they
//! have a replica.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;

use super::limits::MEMORY_HIGH;
use super::shared::Shared;
use crate::store::redis::reply::Reply;
use crate::store::redis::topology::Address;

/// What one server says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Said {
    used_bytes: u64,
    /// 0: no limit but the machine's.
    max_bytes: u64,
    evicts: bool,
    replicas: u64,
}

pub(super) async fn look(shared: &Shared) {
    let topology = shared.cluster.topology().borrow().clone();
    let servers: Vec<Address> = topology
        .shards
        .iter()
        .map(|shard| shard.primary.clone())
        .collect();
    let said = join_all(servers.iter().map(|server| ask(shared, server))).await;
    let mut trouble = String::new();
    let (mut full, mut unreplicated) = (HashSet::new(), HashSet::new());
    for (server, said) in servers.iter().zip(said) {
        // Who does not answer is no worse than before: its calls say how it is.
        let Some(said) = said else {
            if shared.full.read().contains(server) {
                full.insert(server.clone());
            }
            continue;
        };
        if said.evicts {
            trouble = format!(
                "Redis server {server} may evict queued requests: set maxmemory-policy noeviction"
            );
        }
        if said.is_full() {
            full.insert(server.clone());
        }
        if said.replicas == 0 {
            unreplicated.insert(server.clone());
        }
    }
    for server in full.difference(&shared.full.read()) {
        tracing::warn!(%server, "redis is nearly full: requests are refused until there is room");
    }
    *shared.full.write() = full;
    *shared.unreplicated.write() = unreplicated;
    let trouble: Arc<str> = trouble.into();
    shared.trouble.send_if_modified(|current| {
        let changed = *current != trouble;
        if changed && !trouble.is_empty() {
            tracing::warn!(%trouble, "queue");
        }
        *current = trouble;
        changed
    });
}

async fn ask(shared: &Shared, server: &Address) -> Option<Said> {
    let section = |name: &'static str| {
        let args = vec![Bytes::from_static(name.as_bytes())];
        shared.cluster.command_at(server, "INFO", args)
    };
    let (memory, replication) =
        futures_util::future::try_join(section("memory"), section("replication"))
            .await
            .ok()?;
    Some(parse(text(&memory)?, text(&replication)?))
}

fn text(reply: &Reply) -> Option<&str> {
    reply.text()
}

fn parse(memory: &str, replication: &str) -> Said {
    let field = |text: &'_ str, name: &str| -> Option<String> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.strip_prefix(':')?.trim().to_owned())
    };
    let number = |text: &str, name: &str| {
        let value = field(text, name).and_then(|value| value.parse().ok());
        value.unwrap_or(0)
    };
    let max_bytes = number(memory, "maxmemory");
    let policy = field(memory, "maxmemory_policy").unwrap_or_default();
    // Keys without a time to live are safe from the volatile policies; those of the queue have none.
    let evicts = max_bytes > 0 && policy.starts_with("allkeys");
    Said {
        used_bytes: number(memory, "used_memory"),
        max_bytes,
        evicts,
        replicas: number(replication, "connected_slaves"),
    }
}

impl Said {
    fn is_full(&self) -> bool {
        self.max_bytes > 0 && self.used_bytes as f64 > self.max_bytes as f64 * MEMORY_HIGH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_full_before_they_refuse() {
        let memory = "# Memory\r\nused_memory:950\r\nused_memory_human:950B\r\nmaxmemory:1000\r\n\
                      maxmemory_policy:noeviction\r\n";
        let replication = "role:master\r\nconnected_slaves:1\r\n";
        let said = parse(memory, replication);
        assert!(said.is_full() && !said.evicts);
        assert_eq!((said.used_bytes, said.replicas), (950, 1));
        let said = parse(
            "used_memory:5\r\nmaxmemory:0\r\nmaxmemory_policy:allkeys-lru",
            "",
        );
        assert!(
            !said.is_full() && !said.evicts,
            "nothing is evicted without a limit"
        );
        assert!(parse(&memory.replace("noeviction", "allkeys-lru"), "").evicts);
    }
}
