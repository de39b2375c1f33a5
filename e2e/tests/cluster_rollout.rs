//! A rollout and the drain of a node: pods that end send their clients away at the pace of the fleet, all of them together, and no
//! message and no request is lost.
//!
//! `SLUICE_ROLLOUT_CLIENTS` says how many; the budget is 20 clients per second for each 300.

use std::env;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_e2e::deployed::numbered::{self, Writers, closed_at_most, curve};
use sluice_e2e::deployed::{APP_KEY, DATA_PLANES, Deployed, Install};
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::{Load, Plan};
use sluice_e2e::ingest::nothing_lost;
use tokio::time::{Instant, sleep, timeout};

const CLIENTS: usize = 300;
const CLIENTS_PER_BUDGET: usize = CLIENTS;
const BUDGET: usize = 20;
/// Clients of a busy machine see what was done over seconds at once.
const SLACK: f64 = 1.5;
/// Messages and requests per second.
const RATE: f64 = 30.0;
const REQUESTS: f64 = 30.0;
/// README's Gateway has as many.
const PODS: usize = 3;
const SOON: Duration = Duration::from_secs(90);
const CHANGED_WITHIN: Duration = Duration::from_secs(240);
const SCENARIO: Duration = Duration::from_secs(600);
/// After the last message.
const SETTLE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn who_ends_sends_clients_away_at_the_pace_of_the_fleet() -> Result<()> {
    let clients = env::var("SLUICE_ROLLOUT_CLIENTS").ok();
    let clients = clients.map_or(Ok(CLIENTS), |clients| clients.parse())?;
    let deployed = Deployed::start("rollout", Install::AsInReadme).await?;
    let scenario = timeout(SCENARIO, scenario(&deployed, clients)).await;
    let scenario = scenario.context("it takes too long").flatten();
    deployed.namespace.explain(scenario)
}

async fn scenario(deployed: &Deployed, clients: usize) -> Result<()> {
    let budget = (BUDGET * clients).div_ceil(CLIENTS_PER_BUDGET);
    let spec = format!(r#"{{"dataPlane": {{"rebalance": {{"movesPerSecond": {budget}}}}}}}"#);
    patch(deployed, &spec).await?;
    let mut workers = tokio::task::block_in_place(|| numbered::follow(deployed, clients, 0))?;
    workers.go()?;
    let began = Instant::now();
    let writers = Writers::start(deployed, clients, 0, RATE);
    let plan = Plan {
        connections: 4,
        devices: 40,
        ..Plan::new(
            deployed.address,
            APP_KEY,
            vec![Phase::rate(REQUESTS, SCENARIO.as_secs_f64())],
        )
    };
    let load = Load::start(plan)?;
    all_here(deployed, clients).await?;

    let rollout_from = began.elapsed().as_secs();
    let rolled = rollout(deployed).await?;
    all_here(deployed, clients).await?;
    let rollout_until = began.elapsed().as_secs();
    let drained = drain_node(deployed).await?;
    all_here(deployed, clients).await?;
    let drain_until = began.elapsed().as_secs();

    let last = writers.stop().await?;
    load.stop();
    let requests = load.outcome().await?;
    sleep(SETTLE).await;
    let report = tokio::task::block_in_place(|| workers.stop())?;
    eprintln!("rollout {rolled:?}, drain of a node {drained:?}; budget {budget}/s");
    for (what, seconds) in [
        ("rollout", rollout_from..rollout_until),
        ("node", rollout_until..drain_until),
    ] {
        let (most, closed) = (
            closed_at_most(&report, seconds.clone()),
            curve(&report, seconds),
        );
        eprintln!("{what}, closed per second: {closed:?}; at most {most:.0} over 5 s");
        ensure!(most > 0.0, "{what}: nobody was sent away");
        ensure!(
            most <= budget as f64 * SLACK,
            "{what}: {most:.0} clients were closed per second"
        );
    }
    let (acked, refused) = (requests.acked, requests.refused());
    delivered(deployed, acked).await?;
    let more = nothing_lost(&deployed.upstream, &requests).await?;
    eprintln!(
        "{acked} requests taken, {refused} refused at first, {more} more delivered than acknowledged"
    );
    numbered::accounted(&report, &last, clients)
}

async fn patch(deployed: &Deployed, spec: &str) -> Result<()> {
    let patch = format!(r#"{{"spec": {spec}}}"#);
    let words = ["patch", "slgw/demo", "--type=merge", "--patch", &patch];
    deployed.namespace.kubectl(&words).await?;
    Ok(())
}

async fn all_here(deployed: &Deployed, clients: usize) -> Result<()> {
    let cluster = deployed.namespace.cluster();
    let here = async || Ok(deployed.clients().await?.values().sum::<u64>() == clients as u64);
    cluster.wait_for("all clients are here", SOON, here).await
}

/// Waits until all pods are others, and those before have ended.
async fn rollout(deployed: &Deployed) -> Result<Duration> {
    let before = deployed.pods().await?;
    let since = Instant::now();
    let spec = r#"{"dataPlane": {"podTemplate": {"metadata": {"annotations": {"example.com/rolled": "once"}}}}}"#;
    patch(deployed, spec).await?;
    let replaced = async || {
        let now = deployed.pods().await?;
        let is_new = now
            .iter()
            .all(|pod| before.iter().all(|old| pod.is_other_than(old)));
        Ok(is_new && now.len() == PODS && existing(deployed).await? == PODS)
    };
    let cluster = deployed.namespace.cluster();
    cluster
        .wait_for("all pods are replaced", CHANGED_WITHIN, replaced)
        .await?;
    Ok(since.elapsed())
}

/// Pods, those that end too.
async fn existing(deployed: &Deployed) -> Result<usize> {
    let words = ["get", "pods", "--selector", DATA_PLANES, "--output=name"];
    Ok(deployed.namespace.kubectl(&words).await?.lines().count())
}

/// As somebody does who has something to do at that machine.
async fn drain_node(deployed: &Deployed) -> Result<Duration> {
    let cluster = deployed.namespace.cluster();
    let pods = deployed.pods().await?;
    let node = &pods.first().context("a pod")?.node;
    let since = Instant::now();
    let selector = format!("--pod-selector={DATA_PLANES}");
    let timeout = format!("--timeout={}s", CHANGED_WITHIN.as_secs());
    let words = [
        "drain",
        node,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        &selector,
        &timeout,
    ];
    let drained = cluster.kubectl(&words).await;
    let took = since.elapsed();
    let replaced = async || Ok(deployed.pods().await?.len() == PODS);
    let replaced = cluster
        .wait_for("there is another pod instead", SOON, replaced)
        .await;
    // Whatever became of it: other tests use the node.
    cluster.kubectl(&["uncordon", node]).await?;
    drained?;
    replaced?;
    Ok(took)
}

async fn delivered(deployed: &Deployed, acked: u64) -> Result<()> {
    let all =
        |stats: &sluice_e2e::upstream::record::Stats| stats.applied >= acked && stats.missing == 0;
    deployed.upstream.until(SOON, all).await?;
    Ok(())
}
