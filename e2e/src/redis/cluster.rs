//! A Redis Cluster: equal contiguous slot ranges, replicas, and the faults that tests put upon it.
//!
//! A *shard* is one of the ranges of the start, whoever owns it now; nodes are named by their index in `nodes()`,
//! which stays theirs. Who is primary is asked of the running nodes each time; the highest configuration epoch wins.

mod moving;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::future::{join_all, try_join_all};
use tokio::time::sleep;

use super::Options;
use super::server::RedisServer;

pub const REDIS_SLOTS: u16 = 16_384;

const START_TIMEOUT: Duration = Duration::from_secs(60);
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(20);

/// All nodes are killed when dropped.
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
    shards: usize,
    /// By node, its name within the cluster.
    ids: Vec<String>,
}

/// A line of CLUSTER NODES.
struct Seen {
    id: String,
    primary: bool,
    failed: bool,
    primary_id: String,
    epoch: u64,
    slots: Vec<(u16, u16)>,
}

impl RedisCluster {
    /// Starts the nodes, primaries first, and waits until all of it is in order.
    pub async fn start(shards: usize, replicas: usize, options: Options) -> Result<Self> {
        ensure!(shards > 0, "a cluster has a shard");
        let password = format!("{:016x}", fastrand::u64(..));
        let count = shards * (1 + replicas);
        let starts = (0..count).map(|_| RedisServer::launch(&options, Some(&password)));
        let nodes = try_join_all(starts).await?;
        let mut ids = Vec::with_capacity(count);
        for node in &nodes {
            ids.push(node.call(&["CLUSTER", "MYID"]).await?.to_string());
        }
        let cluster = Self { nodes, shards, ids };
        cluster.form().await?;
        cluster.wait_ready(START_TIMEOUT).await?;
        Ok(cluster)
    }

    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    #[must_use]
    pub fn shards(&self) -> usize {
        self.shards
    }

    /// All nodes, as seeds: `redis://127.0.0.1:4001,127.0.0.1:4002`.
    #[must_use]
    pub fn url(&self) -> String {
        let urls: Vec<String> = self.nodes.iter().map(RedisServer::url).collect();
        let scheme = urls[0].split("://").next().unwrap_or_default();
        let hosts: Vec<&str> = urls.iter().filter_map(|u| u.split("://").nth(1)).collect();
        format!("{scheme}://{}", hosts.join(","))
    }

    /// The first and the last slot of a shard.
    #[must_use]
    pub fn slots(&self, shard: usize) -> (u16, u16) {
        let bound = |n: usize| {
            let slot = n * usize::from(REDIS_SLOTS) / self.shards;
            u16::try_from(slot).unwrap_or(REDIS_SLOTS)
        };
        (bound(shard), bound(shard + 1) - 1)
    }

    /// The node that owns a slot now, though it may be dead.
    pub async fn primary_of(&self, slot: u16) -> Result<usize> {
        let owner = self.owner_of(slot).await?;
        self.index(&owner)
    }

    pub async fn primary(&self, shard: usize) -> Result<usize> {
        self.primary_of(self.slots(shard).0).await
    }

    /// The nodes that follow the shard's primary now, dead ones too.
    pub async fn replicas_of(&self, shard: usize) -> Result<Vec<usize>> {
        let owner = self.owner_of(self.slots(shard).0).await?;
        let mut replicas = Vec::new();
        for view in self.views().await {
            for seen in view {
                if !seen.primary && seen.primary_id == owner {
                    replicas.push(self.index(&seen.id)?);
                }
            }
        }
        replicas.sort_unstable();
        replicas.dedup();
        Ok(replicas)
    }

    /// Kills (SIGKILL) the shard's primary; returns which it was.
    pub async fn kill_primary(&self, shard: usize) -> Result<usize> {
        let primary = self.primary(shard).await?;
        self.nodes[primary].kill()?;
        Ok(primary)
    }

    /// Stops (SIGSTOP) the shard's primary; returns which it was.
    pub async fn pause_primary(&self, shard: usize) -> Result<usize> {
        let primary = self.primary(shard).await?;
        self.nodes[primary].pause()?;
        Ok(primary)
    }

    pub fn resume(&self, node: usize) -> Result<()> {
        self.nodes[node].resume()
    }

    pub async fn restart(&self, node: usize) -> Result<()> {
        self.nodes[node].restart().await
    }

    /// Waits until another node than `old` is the shard's primary and says so itself; returns which.
    pub async fn wait_taken_over(
        &self,
        shard: usize,
        old: usize,
        within: Duration,
    ) -> Result<usize> {
        let deadline = Instant::now() + within;
        loop {
            let primary = self.primary(shard).await?;
            if primary != old && self.says_primary(primary).await {
                return Ok(primary);
            }
            if Instant::now() >= deadline {
                let replicas = self.replicas_of(shard).await?;
                let logs = replicas.iter().map(|node| self.nodes[*node].log_tail());
                let logs: Vec<String> = logs.collect();
                bail!(
                    "no replica of shard {shard} took over within {within:?}:\n{}",
                    logs.join("\n")
                );
            }
            sleep(STEP).await;
        }
    }

    /// Hands the shard over to a replica as before a planned stop (CLUSTER FAILOVER); returns the new primary.
    pub async fn failover(&self, shard: usize) -> Result<usize> {
        let old = self.primary(shard).await?;
        let running = |node: &usize| self.nodes[*node].is_running();
        let replica = self.replicas_of(shard).await?.into_iter().find(running);
        let replica = replica.with_context(|| format!("shard {shard} has no running replica"))?;
        let deadline = Instant::now() + FAILOVER_TIMEOUT;
        loop {
            self.nodes[replica].call(&["CLUSTER", "FAILOVER"]).await?;
            // The server gives a planned failover up after five seconds.
            let taken = self.wait_taken_over(shard, old, Duration::from_secs(6));
            match taken.await {
                Ok(primary) => return Ok(primary),
                Err(error) if Instant::now() >= deadline => return Err(error),
                Err(_) => {}
            }
        }
    }

    /// Waits until every running node finds the cluster in order and every running replica follows its primary.
    pub async fn wait_ready(&self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        loop {
            let mut wrong = None;
            for node in self.running() {
                if let Err(error) = self.in_order(node).await {
                    wrong = Some(error.context(format!("node {}", node.port())));
                    break;
                }
            }
            let Some(error) = wrong else { return Ok(()) };
            if Instant::now() >= deadline {
                return Err(error.context(format!("cluster not in order after {within:?}")));
            }
            sleep(STEP).await;
        }
    }

    async fn says_primary(&self, node: usize) -> bool {
        let node = &self.nodes[node];
        if !node.is_running() {
            return false;
        }
        let role = node.call(&["ROLE"]).await;
        role.is_ok_and(|role| role.to_string().starts_with("master"))
    }

    async fn in_order(&self, node: &RedisServer) -> Result<()> {
        let info = node.call(&["CLUSTER", "INFO"]).await?.to_string();
        ensure!(info.contains("cluster_state:ok"), "{info}");
        let slots = format!("cluster_slots_ok:{REDIS_SLOTS}");
        ensure!(info.contains(&slots), "{info}");
        let known = view(node).await?;
        ensure!(
            known.len() == self.nodes.len(),
            "knows {} nodes",
            known.len()
        );
        for seen in &known {
            let up = self.nodes[self.index(&seen.id)?].is_running();
            ensure!(!(up && seen.failed), "takes {} for failed", seen.id);
        }
        let me = node.call(&["CLUSTER", "MYID"]).await?.to_string();
        let replication = node.call(&["INFO", "replication"]).await?.to_string();
        if replication.contains("role:slave") {
            ensure!(
                replication.contains("master_link_status:up"),
                "{replication}"
            );
            return Ok(());
        }
        let mut expected = 0;
        for seen in known.iter().filter(|seen| seen.primary_id == me) {
            expected += usize::from(self.nodes[self.index(&seen.id)?].is_running());
        }
        let online = replication.matches("state=online").count();
        ensure!(
            online >= expected,
            "{online} of {expected} replicas are online"
        );
        Ok(())
    }

    async fn form(&self) -> Result<()> {
        for shard in 0..self.shards {
            let node = &self.nodes[shard];
            let (first, last) = self.slots(shard);
            let (first, last) = (first.to_string(), last.to_string());
            node.call(&["CLUSTER", "ADDSLOTSRANGE", &first, &last])
                .await?;
        }
        for (epoch, node) in (1..).zip(&self.nodes) {
            // Each its own, or they would have to settle it between them.
            let epoch = u16::to_string(&epoch);
            node.call(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await?;
        }
        let meet = |from: &'static str, node: &'_ RedisServer| {
            let (ip, port) = (node.address().ip().to_string(), node.port().to_string());
            [from.to_owned(), "MEET".to_owned(), ip, port]
        };
        for node in &self.nodes[1..] {
            let words = meet("CLUSTER", node);
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            self.nodes[0].call(&words).await?;
        }
        let deadline = Instant::now() + START_TIMEOUT;
        for (index, node) in self.nodes.iter().enumerate().skip(self.shards) {
            let primary = &self.ids[index % self.shards];
            // Refused until gossip has made the primary known to this node.
            while let Err(error) = node.call(&["CLUSTER", "REPLICATE", primary]).await {
                if Instant::now() >= deadline {
                    bail!("{} does not become a replica: {error}", node.port());
                }
                sleep(STEP).await;
            }
        }
        Ok(())
    }

    async fn owner_of(&self, slot: u16) -> Result<String> {
        let owns = |seen: &Seen| seen.slots.iter().any(|&(a, b)| a <= slot && slot <= b);
        let deadline = Instant::now() + FAILOVER_TIMEOUT;
        loop {
            let views = self.views().await;
            let answered = views.len();
            let owners = views.into_iter().flatten().filter(owns);
            if let Some(newest) = owners.max_by_key(|seen| seen.epoch) {
                return Ok(newest.id);
            }
            // A busy machine's servers may all be late with their answers.
            ensure!(
                Instant::now() < deadline,
                "nobody owns slot {slot}, {answered} nodes answered"
            );
            sleep(STEP).await;
        }
    }

    /// What each node that answers knows of all.
    async fn views(&self) -> Vec<Vec<Seen>> {
        let views = join_all(self.running().map(view)).await;
        views.into_iter().filter_map(Result::ok).collect()
    }

    fn running(&self) -> impl Iterator<Item = &RedisServer> {
        self.nodes.iter().filter(|node| node.is_running())
    }

    fn index(&self, id: &str) -> Result<usize> {
        let index = self.ids.iter().position(|known| known == id);
        index.with_context(|| format!("node {id} is not of this cluster"))
    }
}

async fn view(node: &RedisServer) -> Result<Vec<Seen>> {
    let text = node.call(&["CLUSTER", "NODES"]).await?.to_string();
    text.lines().map(Seen::parse).collect()
}

impl Seen {
    /// `<id> <address> <flags> <primary or -> <ping> <pong> <epoch> <link> <slots>...`
    fn parse(line: &str) -> Result<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        ensure!(words.len() >= 8, "CLUSTER NODES: {line}");
        let flags: Vec<&str> = words[2].split(',').collect();
        let range = |text: &&str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            // A slot on its way between nodes stands in brackets; its owner lists it besides.
            first.parse().ok().zip(last.parse().ok())
        };
        Ok(Self {
            id: words[0].to_owned(),
            primary: flags.contains(&"master"),
            failed: flags.iter().any(|flag| flag.starts_with("fail")),
            primary_id: words[3].to_owned(),
            epoch: words[6].parse()?,
            slots: words[8..].iter().filter_map(range).collect(),
        })
    }
}
