//! Keeps the view of the servers current: asks some of them every second, and at once when somebody doubts it.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::Instant;

use super::Cluster;
use crate::store::redis::limits::{
    TOPOLOGY_ASKED, TOPOLOGY_INTERVAL, TOPOLOGY_INTERVAL_MIN, TOPOLOGY_SILENCE, TOPOLOGY_TIMEOUT,
};
use crate::store::redis::link::{Fault, Hint};
use crate::store::redis::reply::Reply;
use crate::store::redis::topology::{Address, Topology, View};

/// What one server said.
enum Answer {
    /// `CLUSTER NODES`.
    Nodes(String),
    /// It has no cluster mode.
    Single,
}

/// Ends when nobody holds the cluster any more.
pub(super) async fn run(cluster: Weak<Cluster>) {
    let mut view = View::default();
    let mut turn = 0_usize;
    let mut answered_at = None;
    loop {
        let started = Instant::now();
        let Some(cluster) = cluster.upgrade() else {
            return;
        };
        look(&cluster, &mut view, turn, &mut answered_at).await;
        turn = turn.wrapping_add(1);
        let doubt = cluster.doubt.notified();
        let _ = tokio::time::timeout_at(started + TOPOLOGY_INTERVAL, doubt).await;
        tokio::time::sleep_until(started + TOPOLOGY_INTERVAL_MIN).await;
    }
}

async fn look(cluster: &Cluster, view: &mut View, turn: usize, answered_at: &mut Option<Instant>) {
    let servers = to_ask(cluster, turn);
    let mut answers: FuturesUnordered<_> = servers
        .iter()
        .map(|server| async move { (server, ask(cluster, server).await) })
        .collect();
    let mut problem = String::new();
    let mut answered = false;
    while let Some((server, answer)) = answers.next().await {
        // Each answer counts when it comes: a dead server must not hold up what the others know.
        match answer {
            Ok(Answer::Nodes(nodes)) => {
                answered = true;
                view.learn(&nodes, server);
                publish(cluster, view.topology());
            }
            Ok(Answer::Single) => {
                answered = true;
                publish(cluster, Topology::single(server.clone()));
                break;
            }
            Err(error) => problem = error,
        }
    }
    if answered {
        *answered_at = Some(Instant::now());
    } else if answered_at.is_some_and(|at| at.elapsed() < TOPOLOGY_SILENCE) {
        // Those that were asked may be the only ones that do not answer.
        return;
    }
    let trouble: Arc<str> = if answered {
        match cluster.topology.borrow().uncovered() {
            0 => "".into(),
            slots => format!("{slots} slots of the Redis Cluster have no server").into(),
        }
    } else {
        format!("no Redis server answers: {problem}").into()
    };
    cluster.trouble.send_if_modified(|current| {
        let changed = *current != trouble;
        if changed && trouble.is_empty() {
            tracing::info!("redis is reachable");
        } else if changed {
            tracing::warn!(%trouble, "redis");
        }
        *current = trouble;
        changed
    });
}

/// Known servers in turn, and a seed: when all known ones are gone, its name leads to the new ones.
fn to_ask(cluster: &Cluster, turn: usize) -> Vec<Address> {
    let topology = cluster.topology.borrow().clone();
    let seeds = &cluster.settings.seeds;
    let known: Vec<&Address> = topology.known.iter().collect();
    let mut servers = BTreeSet::new();
    for index in 0..known.len().min(TOPOLOGY_ASKED) {
        servers.insert(known[(turn * TOPOLOGY_ASKED + index) % known.len()].clone());
    }
    let healthy = !known.is_empty() && cluster.trouble.borrow().is_empty();
    if !healthy && !seeds.is_empty() {
        servers.insert(seeds[turn % seeds.len()].clone());
    }
    servers.into_iter().collect()
}

async fn ask(cluster: &Cluster, server: &Address) -> Result<Answer, String> {
    let node = cluster.node(server);
    let nodes = vec![Bytes::from_static(b"NODES")];
    let question = node.question("CLUSTER", nodes, &cluster.metrics);
    match tokio::time::timeout(TOPOLOGY_TIMEOUT, question).await {
        Err(_) => Err(format!("{server}: no answer")),
        Ok(Ok(Reply::Bytes(text))) => {
            Ok(Answer::Nodes(String::from_utf8_lossy(&text).into_owned()))
        }
        Ok(Ok(_)) => Err(format!("{server}: unexpected answer")),
        Ok(Err(Fault::Refused(error))) if error.contains("cluster support disabled") => {
            Ok(Answer::Single)
        }
        Ok(Err(
            Fault::NotDone(Hint::Later(error)) | Fault::Refused(error) | Fault::Unknown(error),
        )) => Err(format!("{server}: {error}")),
        Ok(Err(Fault::NotDone(hint))) => Err(format!("{server}: {hint}")),
    }
}

fn publish(cluster: &Cluster, topology: Topology) {
    cluster.topology.send_if_modified(|current| {
        if **current == topology {
            return false;
        }
        let failovers = topology.shards.iter().filter(|shard| {
            let same = |before: &&super::super::topology::Shard| {
                before.replicas.contains(&shard.primary) && before.epoch < shard.epoch
            };
            current.shards.iter().any(|before| same(&before))
        });
        cluster.metrics.failed_over(failovers.count() as u64);
        let shards: Vec<String> = topology
            .shards
            .iter()
            .map(|shard| shard.primary.to_string())
            .collect();
        tracing::info!(primaries = %shards.join(" "), "redis servers");
        *current = Arc::new(topology);
        true
    });
    let known = cluster.topology.borrow().known.clone();
    let keep =
        |address: &Address| known.contains(address) || cluster.settings.seeds.contains(address);
    cluster.nodes.write().retain(|address, _| keep(address));
}
