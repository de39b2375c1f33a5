//! Caps on a real cluster, over one, two and four pods, through a killed pod, a killed leader and operators that are away, with clients
//! beside: never more than the cap in any minute, and nearly all of it while there is a backlog.
//!
//! `SLUICE_AWAY_S` makes the operators stay away longer.

use std::env;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_e2e::deployed::numbered::{self, Writers};
use sluice_e2e::deployed::{APP_KEY, Deployed, Install, operators};
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::{Load, Plan};
use sluice_e2e::ingest::nothing_lost;
use sluice_e2e::load::clock::now_ns;
use sluice_e2e::upstream::analysis::{max_in_window, of_app, used};
use tokio::time::{Instant, sleep, timeout};

const MINUTE: Duration = Duration::from_secs(60);
const SOON: Duration = Duration::from_secs(120);
const SCENARIO: Duration = Duration::from_secs(900);
/// Requests per minute: of one application, and of all together.
const OF_DEMO: usize = 600;
const OF_ALL: usize = 6_000;
const GAME_KEY: &str = "game-key";
const GAME: &str = r#"
apiVersion: sluice.dev/v1alpha1
kind: Application
metadata: {name: game}
spec:
  gatewayRef: {name: demo}
  keys: [{value: game-key}]
"#;
/// What comes, by what may go.
const EXCESS: f64 = 1.3;
const CLIENTS: usize = 100;
/// Messages per second over all channels.
const RATE: f64 = 20.0;
/// What is used is counted for so long.
const COUNTED: Duration = Duration::from_secs(15);

fn away() -> Duration {
    let seconds = env::var("SLUICE_AWAY_S").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

#[tokio::test(flavor = "multi_thread")]
async fn caps_hold_whoever_comes_and_goes() -> Result<()> {
    let deployed = Deployed::start("throttle", Install::AsInReadme).await?;
    let scenario = timeout(SCENARIO + away(), scenario(&deployed)).await;
    let scenario = scenario.context("it takes too long").flatten();
    deployed.namespace.explain(scenario)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Change {
    Pods(usize),
    PodKilled,
    LeaderKilled,
    OperatorsAway,
    OperatorsBack,
}

/// What happens, how long shares take to settle, and the part of the caps that is to be used then.
const STORY: &[(Change, u64, f64)] = &[
    // Those that end in good order give their parts back.
    (Change::Pods(1), 10, 0.95),
    (Change::Pods(2), 20, 0.95),
    (Change::Pods(4), 20, 0.95),
    (Change::PodKilled, 40, 0.70),
    (Change::LeaderKilled, 60, 0.95),
    // By safe rates, which go by use, and of which a part is kept for pods that would come.
    (Change::OperatorsAway, 0, 0.65),
    (Change::OperatorsBack, 60, 0.95),
];

async fn scenario(deployed: &Deployed) -> Result<()> {
    deployed.namespace.apply(GAME).await?;
    patch(deployed, "slgw/demo", &cap("ingest", OF_ALL)).await?;
    patch(deployed, "application/demo", &throttle(OF_DEMO)).await?;
    let mut workers = tokio::task::block_in_place(|| numbered::follow(deployed, CLIENTS, 0))?;
    workers.go()?;
    let writers = Writers::start(deployed, CLIENTS, 0, RATE);
    // Caps are settings: pods have them within seconds.
    sleep(Duration::from_secs(10)).await;
    let began_ns = now_ns();
    let loads = [
        load(deployed, APP_KEY, 0, OF_DEMO)?,
        load(deployed, GAME_KEY, 10_000, OF_ALL - OF_DEMO)?,
    ];
    let mut spans = Vec::new();
    for (change, settles_s, part) in STORY {
        carry_out(deployed, *change).await?;
        sleep(Duration::from_secs(*settles_s)).await;
        let from_ns = now_ns();
        let counted = if *change == Change::OperatorsAway {
            away()
        } else {
            COUNTED
        };
        sleep(counted).await;
        spans.push((*change, *part, (from_ns, now_ns())));
    }
    let records = deployed.upstream.records().await?;
    let records: Vec<_> = records
        .into_iter()
        .filter(|record| record.arrived_ns >= began_ns)
        .collect();
    let demo = of_app(&records, APP_KEY);
    let most = (
        max_in_window(&demo, MINUTE),
        max_in_window(&records, MINUTE),
    );
    eprintln!("in any minute: {most:?} of {:?}", (OF_DEMO, OF_ALL));
    let mut missed = Vec::new();
    for (change, part, span) in spans {
        let parts = (used(&demo, OF_DEMO, span), used(&records, OF_ALL, span));
        eprintln!("{change:?}: used {:.3} and {:.3}", parts.0, parts.1);
        if parts.0 < part || parts.1 < part {
            missed.push(change);
        }
    }
    ensure!(most.0 <= OF_DEMO && most.1 <= OF_ALL, "{most:?}");
    everything_arrives(deployed, loads).await?;
    let last = writers.stop().await?;
    sleep(Duration::from_secs(5)).await;
    let report = tokio::task::block_in_place(|| workers.stop())?;
    numbered::accounted(&report, &last, CLIENTS)?;
    ensure!(missed.is_empty(), "too little is used: {missed:?}");
    Ok(())
}

fn throttle(per_minute: usize) -> String {
    format!(r#"{{"spec": {{"throttle": {{"requestsPerMinute": {per_minute}}}}}}}"#)
}

fn cap(part: &str, per_minute: usize) -> String {
    format!(r#"{{"spec": {{"{part}": {{"throttle": {{"requestsPerMinute": {per_minute}}}}}}}}}"#)
}

async fn patch(deployed: &Deployed, what: &str, patch: &str) -> Result<()> {
    let words = ["patch", what, "--type=merge", "--patch", patch];
    deployed.namespace.kubectl(&words).await?;
    Ok(())
}

/// More than the cap lets through.
fn load(deployed: &Deployed, key: &str, first_device: usize, per_minute: usize) -> Result<Load> {
    let per_second = per_minute as f64 / 60.0 * EXCESS;
    let phase = Phase::rate(per_second, (SCENARIO + away()).as_secs_f64());
    Load::start(Plan {
        connections: 8,
        devices: 400,
        first_device,
        ..Plan::new(deployed.address, key, vec![phase])
    })
}

async fn carry_out(deployed: &Deployed, change: Change) -> Result<()> {
    let cluster = deployed.namespace.cluster();
    let since = Instant::now();
    match change {
        Change::Pods(replicas) => {
            let scaling = format!(
                r#"{{"spec": {{"dataPlane": {{"scaling": {{"replicas": {replicas}}}}}}}}}"#
            );
            patch(deployed, "slgw/demo", &scaling).await?;
            let there = async || Ok(deployed.pods().await?.len() == replicas);
            cluster
                .wait_for("so many pods are there", SOON, there)
                .await?;
            deployed.rolled_out(SOON).await?;
        }
        Change::PodKilled => deployed.kill(&deployed.pods().await?.swap_remove(0))?,
        Change::LeaderKilled => operators::kill_leader(cluster).await?,
        Change::OperatorsAway => operators::take_away(cluster).await?,
        Change::OperatorsBack => operators::bring_back(cluster).await?,
    }
    eprintln!("{change:?} after {:?}", since.elapsed());
    Ok(())
}

/// Without caps all that waits goes at once.
async fn everything_arrives(deployed: &Deployed, loads: [Load; 2]) -> Result<()> {
    patch(
        deployed,
        "slgw/demo",
        r#"{"spec": {"ingest": {"throttle": null}}}"#,
    )
    .await?;
    patch(
        deployed,
        "application/demo",
        r#"{"spec": {"throttle": null}}"#,
    )
    .await?;
    for load in &loads {
        load.stop();
    }
    let mut acked = 0;
    let mut outcomes = Vec::new();
    for load in loads {
        let outcome = load.outcome().await?;
        acked += outcome.acked;
        outcomes.push(outcome);
    }
    let all =
        |stats: &sluice_e2e::upstream::record::Stats| stats.applied >= acked && stats.missing == 0;
    deployed.upstream.until(SOON, all).await?;
    for outcome in &outcomes {
        nothing_lost(&deployed.upstream, outcome).await?;
    }
    eprintln!("{acked} requests, each delivered");
    Ok(())
}
