//! Thousands of clients on a gateway that grows, moves them, shrinks, rolls out and loses a node: nobody is disconnected by
//! growth, moves keep to their budget, and whoever is moved misses nothing.
//!
//! `SLUICE_MOVES_CLIENTS` says how many; 12,000 by default, which takes about ten minutes.

use std::collections::BTreeMap;
use std::env;
use std::time::Duration;

use anyhow::{Result, ensure};
use sluice_e2e::bench::workers::Workers;
use sluice_e2e::deployed::numbered::{self, Writers, closed_at_most, curve};
use sluice_e2e::deployed::{Deployed, Install};
use tokio::time::{Instant, sleep};

/// Messages per second over all channels.
const RATE: f64 = 100.0;
/// Newcomers, in per cent of all.
const NEWCOMERS: usize = 10;
/// Balance is to be reached within.
const BALANCED_WITHIN: Duration = Duration::from_secs(180);
const BALANCED: f64 = 1.10;
/// The default budget: this part of all clients per second, 500 at most, 10 at least.
const BUDGET: f64 = 0.01;
/// Clients of a busy machine see what was done over seconds at once.
const SLACK: f64 = 1.5;
const CHANGED_WITHIN: Duration = Duration::from_secs(300);
const STEP: Duration = Duration::from_millis(500);
/// After the last message.
const SETTLE: Duration = Duration::from_secs(5);

/// The clients, and since when seconds of their reports count.
struct Crowd {
    workers: Workers,
    began: Instant,
}

impl Crowd {
    async fn start(deployed: &Deployed, clients: usize) -> Result<Self> {
        let mut workers = tokio::task::block_in_place(|| numbered::follow(deployed, clients, 0))?;
        workers.go()?;
        let began = Instant::now();
        let all = async || Ok(total(&deployed.clients().await?) == clients as u64);
        let cluster = deployed.namespace.cluster();
        cluster
            .wait_for("all clients are there", CHANGED_WITHIN, all)
            .await?;
        Ok(Self { workers, began })
    }

    fn second(&self) -> u64 {
        self.began.elapsed().as_secs()
    }
}

fn total(clients: &BTreeMap<String, u64>) -> u64 {
    clients.values().sum()
}

/// The most that a pod has, by the mean.
fn imbalance(clients: &BTreeMap<String, u64>) -> f64 {
    let most = clients.values().max().copied().unwrap_or_default();
    most as f64 * clients.len() as f64 / total(clients).max(1) as f64
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_moved_within_the_budget_and_miss_nothing() -> Result<()> {
    let clients = env::var("SLUICE_MOVES_CLIENTS").ok();
    let clients = clients.map_or(Ok(12_000), |clients| clients.parse())?;
    let deployed = Deployed::start("moves", Install::AsInReadme).await?;
    let result = grow_and_shrink(&deployed, clients).await;
    deployed.namespace.explain(result)
}

async fn grow_and_shrink(deployed: &Deployed, clients: usize) -> Result<()> {
    scale(deployed, 2, "Steer").await?;
    let crowd = Crowd::start(deployed, clients).await?;
    let writers = Writers::start(deployed, clients, 0, RATE);

    scale(deployed, 4, "Steer").await?;
    let newcomers = newcomers(deployed, clients * NEWCOMERS / 100).await?;
    let moves_from = crowd.second();
    let balanced = rebalance(deployed).await?;
    let moves_until = crowd.second();

    let shrink_from = crowd.second();
    scale(deployed, 2, "Move").await?;
    back(deployed, clients).await?;
    let shrink_until = crowd.second();

    let Crowd { workers, .. } = crowd;
    let last = writers.stop().await?;
    sleep(SETTLE).await;
    let report = tokio::task::block_in_place(|| workers.stop())?;
    let budget = (clients as f64 * BUDGET).clamp(10.0, 500.0);
    eprintln!("{newcomers}; balanced after {balanced:?}; budget {budget}/s");
    let (moved, shrunk) = (moves_from..moves_until, shrink_from..shrink_until);
    eprintln!(
        "moved, closed per second: {:?}",
        curve(&report, moved.clone())
    );
    eprintln!(
        "shrunk, closed per second: {:?}",
        curve(&report, shrunk.clone())
    );
    let early: u64 = report
        .closes_by_second
        .range(..moves_from)
        .map(|(_, n)| n)
        .sum();
    ensure!(
        early == 0,
        "{early} clients were disconnected by growth: {:?}",
        report.closes
    );
    let most = closed_at_most(&report, moved);
    ensure!(most > 0.0, "nobody was moved");
    let shrunk = closed_at_most(&report, shrunk);
    eprintln!("at most {most:.0} clients were moved per second, {shrunk:.0} while it shrank");
    ensure!(
        most.max(shrunk) <= budget * SLACK,
        "{most:.0} clients were moved per second, {shrunk:.0} while it shrank"
    );
    numbered::accounted(&report, &last, clients)
}

/// Waits until so many pods are ready, and no others are left.
async fn scale(deployed: &Deployed, replicas: usize, rebalance: &str) -> Result<()> {
    let patch = format!(
        r#"{{"spec":{{"dataPlane":{{"scaling":{{"replicas":{replicas}}},"rebalance":{{"mode":"{rebalance}"}}}}}}}}"#
    );
    let words = ["patch", "slgw/demo", "--type=merge", "--patch", &patch];
    deployed.namespace.kubectl(&words).await?;
    let cluster = deployed.namespace.cluster();
    let scaled = async || {
        let path = "--output=jsonpath={.status.replicas} {.status.readyReplicas}";
        let said = deployed
            .namespace
            .kubectl(&["get", "deployment/demo", path])
            .await?;
        Ok(said == format!("{replicas} {replicas}") && deployed.pods().await?.len() == replicas)
    };
    cluster
        .wait_for("the pods are there", CHANGED_WITHIN, scaled)
        .await
}

/// Lets some more in, and says where they landed: on pods below their share.
async fn newcomers(deployed: &Deployed, count: usize) -> Result<String> {
    // Pods above their share are fenced within a few seconds of the others' being ready.
    sleep(Duration::from_secs(15)).await;
    let before = deployed.clients().await?;
    let mean = total(&before) / before.len() as u64;
    let workers = tokio::task::block_in_place(|| numbered::follow(deployed, count, 1_000_000))?;
    let after = deployed.clients().await?;
    let (mut below, mut above) = (0, 0);
    for (pod, clients) in &after {
        let had = before.get(pod).copied().unwrap_or_default();
        let gained = clients.saturating_sub(had);
        if had < mean {
            below += gained;
        } else {
            above += gained;
        }
    }
    drop(workers);
    ensure!(
        above * 20 <= below,
        "{above} of {count} newcomers came to full pods: {before:?}, {after:?}"
    );
    let gone = async || Ok(total(&deployed.clients().await?) == total(&before));
    let cluster = deployed.namespace.cluster();
    cluster
        .wait_for("the newcomers are gone", CHANGED_WITHIN, gone)
        .await?;
    Ok(format!(
        "{below} newcomers to pods below the mean, {above} to others"
    ))
}

/// Asks for moves, and returns how long balance took.
async fn rebalance(deployed: &Deployed) -> Result<Duration> {
    let began = Instant::now();
    scale(deployed, 4, "Move").await?;
    loop {
        let clients = deployed.clients().await?;
        if imbalance(&clients) <= BALANCED {
            return Ok(began.elapsed());
        }
        ensure!(
            began.elapsed() < BALANCED_WITHIN,
            "still unbalanced: {clients:?}"
        );
        sleep(STEP).await;
    }
}

async fn back(deployed: &Deployed, clients: usize) -> Result<()> {
    let all = async || Ok(total(&deployed.clients().await?) == clients as u64);
    let cluster = deployed.namespace.cluster();
    cluster
        .wait_for("all clients are back", CHANGED_WITHIN, all)
        .await
}
