//! Servers die under a fleet with traffic: nothing acknowledged is lost silently, nothing comes twice, and it goes on.
//!
//! One row of the fault matrix is one test. Three data planes, three primaries with a replica each.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_e2e::fleet::Fleet;
use sluice_e2e::fleet::traffic::{PLAIN, Report, Traffic};
use sluice_e2e::http;
use sluice_e2e::manifest::{Manifest, Namespace};
use sluice_e2e::redis::{Links, Options, RedisCluster};
use sluice_e2e::sluice::Sluice;
use sluice_e2e::token;
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Traffic before the fault, and after it is over.
const CALM: Duration = Duration::from_secs(3);
/// The cluster's node timeout (2 s) and its election.
const FAILOVER: Duration = Duration::from_secs(6);
/// Publications go on within this, also while a primary is gone: far below what a failover takes. The promise is a second;
/// the rest is for machines that do other things as well.
const GAP_MAX: Duration = Duration::from_millis(2_000);

/// One fleet at a time: gaps are measured.
static TURN: Mutex<()> = Mutex::const_new(());

fn manifest() -> Manifest {
    let namespace = |namespace: Namespace| Namespace {
        publish: "Authenticated",
        join_leave: "Disabled",
        ..namespace
    };
    Manifest {
        default_namespace: Namespace {
            history: Some((2_000, 300)),
            ..namespace(Namespace::full())
        },
        namespaces: vec![(PLAIN, namespace(Namespace::plain()))],
        ..Manifest::full()
    }
}

fn addresses(fleet: &Fleet) -> Vec<SocketAddr> {
    fleet.planes.iter().map(|plane| plane.address).collect()
}

/// On channels with history: everything exactly once, and nobody was told of a loss.
fn ensure_nothing_missing(report: &Report) -> Result<()> {
    eprintln!("{report:#?}");
    ensure!(report.published > 100, "no traffic");
    ensure!(report.lost == 0, "lost silently");
    ensure!(
        report.repeated == 0 && report.plain_repeated == 0,
        "repeated"
    );
    Ok(())
}

#[tokio::test]
async fn a_killed_primary() -> Result<()> {
    let _turn = TURN.lock().await;
    let fleet = Fleet::start(&manifest(), 3).await?;
    let traffic = Traffic::start(&addresses(&fleet)).await?;
    sleep(CALM).await;
    let node = fleet.redis.kill_primary(0).await?;
    fleet.redis.wait_taken_over(0, node, FAILOVER).await?;
    sleep(CALM).await;
    let report = traffic.stop().await?;
    ensure_nothing_missing(&report)?;
    ensure!(report.plain_silence < GAP_MAX, "publications stopped");
    Ok(())
}

#[tokio::test]
async fn a_paused_primary() -> Result<()> {
    let _turn = TURN.lock().await;
    let fleet = Fleet::start(&manifest(), 3).await?;
    let traffic = Traffic::start(&addresses(&fleet)).await?;
    sleep(CALM).await;
    let node = fleet.redis.pause_primary(1).await?;
    sleep(FAILOVER).await;
    fleet.redis.resume(node)?;
    sleep(CALM).await;
    let report = traffic.stop().await?;
    ensure_nothing_missing(&report)?;
    ensure!(report.plain_silence < GAP_MAX, "publications stopped");
    Ok(())
}

#[tokio::test]
async fn a_planned_failover() -> Result<()> {
    let _turn = TURN.lock().await;
    let fleet = Fleet::start(&manifest(), 3).await?;
    let traffic = Traffic::start(&addresses(&fleet)).await?;
    sleep(CALM).await;
    for shard in 0..3 {
        fleet.redis.failover(shard).await?;
    }
    sleep(CALM).await;
    let report = traffic.stop().await?;
    ensure_nothing_missing(&report)?;
    ensure!(report.told == 0, "a planned failover loses nothing");
    ensure!(
        report.plain_silence < GAP_MAX && report.kept_silence < GAP_MAX,
        "publications stopped"
    );
    Ok(())
}

#[tokio::test]
async fn a_restart_of_all_servers() -> Result<()> {
    let _turn = TURN.lock().await;
    let persistent = Options {
        append_only: true,
        ..Options::default()
    };
    let fleet = Fleet::start_on(persistent, &manifest(), 3).await?;
    let traffic = Traffic::start(&addresses(&fleet)).await?;
    sleep(CALM).await;
    for node in fleet.redis.nodes() {
        node.kill()?;
    }
    sleep(Duration::from_secs(2)).await;
    for node in 0..fleet.redis.nodes().len() {
        fleet.redis.restart(node).await?;
    }
    fleet.redis.wait_ready(Duration::from_secs(20)).await?;
    sleep(FAILOVER).await;
    let report = traffic.stop().await?;
    ensure_nothing_missing(&report)?;
    ensure!(report.told == 0, "all was on disk");
    Ok(())
}

#[tokio::test]
async fn a_killed_data_plane() -> Result<()> {
    let _turn = TURN.lock().await;
    let mut fleet = Fleet::start(&manifest(), 4).await?;
    let mut addresses = addresses(&fleet);
    // Writers are elsewhere: what counts is readers that come back, with what they missed.
    let doomed_address = addresses.pop().context("four")?;
    let mut places = addresses.clone();
    places.push(doomed_address);
    let traffic = Traffic::start_with(&addresses, &places).await?;
    sleep(CALM).await;
    let mut doomed = fleet.planes.pop().context("four")?;
    doomed.kill()?;
    sleep(CALM).await;
    let report = traffic.stop().await?;
    ensure_nothing_missing(&report)?;
    ensure!(report.told == 0, "history has what was missed");
    Ok(())
}

async fn readiness(plane: &Sluice) -> Result<(u16, String)> {
    let answer = http::get(plane.admin, "/readyz").await?;
    Ok((answer.status, answer.text()))
}

#[tokio::test]
async fn all_of_redis_is_away() -> Result<()> {
    let _turn = TURN.lock().await;
    const AWAY: Duration = Duration::from_secs(15);
    let persistent = Options {
        append_only: true,
        ..Options::default()
    };
    let fleet = Fleet::start_on(persistent, &manifest(), 2).await?;
    let mut client = fleet.client(0, &token::user("stays")).await?;
    client.call("subscribe", json!({ "channel": "x" })).await?;
    let mut leaver = fleet.client(1, &token::user("leaves")).await?;
    leaver.call("subscribe", json!({ "channel": "x" })).await?;
    for node in fleet.redis.nodes() {
        node.kill()?;
    }
    let away = Instant::now();
    let refused = client
        .error("publish", json!({ "channel": "x", "data": 1 }))
        .await?;
    assert_eq!(refused, 100, "temporary");
    ensure!(
        away.elapsed() < Duration::from_secs(6),
        "a bounded time: {:?}",
        away.elapsed()
    );
    leaver.cut();
    while away.elapsed() < AWAY {
        let (status, text) = readiness(&fleet.planes[0]).await?;
        if away.elapsed() > Duration::from_secs(5) {
            assert_eq!(status, 503);
            ensure!(text.contains("redis:"), "{text}");
        }
        sleep(Duration::from_secs(1)).await;
    }
    for node in 0..fleet.redis.nodes().len() {
        fleet.redis.restart(node).await?;
    }
    fleet.redis.wait_ready(Duration::from_secs(20)).await?;
    let back = Instant::now();
    // The same connection goes on by itself.
    while client
        .command("publish", json!({ "channel": "x", "data": 2 }))
        .await?
        .get("error")
        .is_some()
    {
        ensure!(
            back.elapsed() < Duration::from_secs(10),
            "publishes still fail"
        );
    }
    loop {
        let present = client
            .command("presence", json!({ "channel": "x" }))
            .await?;
        let clients = present["presence"]["presence"]
            .as_object()
            .map_or(0, serde_json::Map::len);
        if clients == 1 && readiness(&fleet.planes[0]).await?.0 == 200 {
            break;
        }
        ensure!(
            back.elapsed() < Duration::from_secs(20),
            "not as it was: {present}"
        );
        sleep(Duration::from_millis(200)).await;
    }
    println!("as before {:?} after Redis was back", back.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_cut_link_between_a_data_plane_and_a_shard() -> Result<()> {
    let _turn = TURN.lock().await;
    let redis = RedisCluster::start(3, 1, Options::default()).await?;
    let links = Links::before(&redis).await?;
    let manifest = manifest().redis(redis.url());
    let fleet = Fleet::start_with(redis, &manifest, 3).await?;
    // Writers are elsewhere: who is cut off can publish nothing there, and that is told.
    let addresses = addresses(&fleet);
    let traffic = Traffic::start_with(&addresses[1..], &addresses).await?;
    sleep(CALM).await;
    let mut shard = fleet.redis.replicas_of(0).await?;
    shard.push(fleet.redis.primary(0).await?);
    links.cut(fleet.planes[0].pid(), &shard)?;
    sleep(FAILOVER).await;
    let (status, _) = readiness(&fleet.planes[1]).await?;
    assert_eq!(status, 200, "the others do not notice");
    links.mend();
    sleep(CALM).await;
    let report = traffic.stop().await?;
    ensure_nothing_missing(&report)?;
    ensure!(report.refused == 0, "the others publish on");
    ensure!(report.told == 0, "history has what was missed");
    Ok(())
}
