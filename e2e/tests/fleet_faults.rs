//! Servers die under a fleet with traffic: nothing acknowledged is lost silently, nothing comes twice, and it goes on.
//!
//! One row of the fault matrix is one test. Three data planes, three primaries with a replica each.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_e2e::client::Client;
use sluice_e2e::fleet::Fleet;
use sluice_e2e::fleet::traffic::{PLAIN, Report, Traffic};
use sluice_e2e::http;
use sluice_e2e::manifest::{Manifest, Namespace};
use sluice_e2e::redis::{Links, Options, RedisCluster};
use sluice_e2e::sluice::Sluice;
use sluice_e2e::timing::{Promises, kept_in_one_run};
use sluice_e2e::token;
use tokio::sync::Mutex;
use tokio::time::sleep;

/// Traffic before the fault, and after it is over.
const CALM: Duration = Duration::from_secs(3);
/// What a fault lasts that ends by itself: longer than the cluster's node timeout (2 s) and its election.
const AWAY: Duration = Duration::from_secs(6);
/// For Redis's own work, on a machine that has no time.
const PATIENCE: Duration = Duration::from_secs(40);
/// Publications go on within this, also while a primary is gone: far below what a failover takes.
const GAP_MAX: Duration = Duration::from_secs(1);

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

fn keeps_on(what: &str, silence: Duration) -> (bool, String) {
    (
        silence < GAP_MAX,
        format!("{what}: {silence:?} without a publication, of {GAP_MAX:?}"),
    )
}

#[tokio::test]
async fn a_killed_primary() -> Result<()> {
    let _turn = TURN.lock().await;
    kept_in_one_run(through_a_killed_primary).await
}

async fn through_a_killed_primary() -> Result<Promises> {
    let fleet = Fleet::start(&manifest(), 3).await?;
    let traffic = Traffic::start(&fleet.addresses()).await?;
    sleep(CALM).await;
    let node = fleet.redis.kill_primary(0).await?;
    fleet.redis.wait_taken_over(0, node, PATIENCE).await?;
    sleep(CALM).await;
    let report = traffic.stop().await?;
    ensure_nothing_missing(&report)?;
    let (kept, figure) = keeps_on("without history", report.plain_silence);
    Ok(Promises::new().expect(kept, figure))
}

#[tokio::test]
async fn a_paused_primary() -> Result<()> {
    let _turn = TURN.lock().await;
    kept_in_one_run(through_a_paused_primary).await
}

async fn through_a_paused_primary() -> Result<Promises> {
    let fleet = Fleet::start(&manifest(), 3).await?;
    let traffic = Traffic::start(&fleet.addresses()).await?;
    sleep(CALM).await;
    let node = fleet.redis.pause_primary(1).await?;
    let (_, taken) = tokio::join!(sleep(AWAY), fleet.redis.wait_taken_over(1, node, PATIENCE));
    taken?;
    fleet.redis.resume(node)?;
    sleep(CALM).await;
    let report = traffic.stop().await?;
    ensure_nothing_missing(&report)?;
    let (kept, figure) = keeps_on("without history", report.plain_silence);
    Ok(Promises::new().expect(kept, figure))
}

#[tokio::test]
async fn a_planned_failover() -> Result<()> {
    let _turn = TURN.lock().await;
    kept_in_one_run(through_a_planned_failover).await
}

async fn through_a_planned_failover() -> Result<Promises> {
    let fleet = Fleet::start(&manifest(), 3).await?;
    let traffic = Traffic::start(&fleet.addresses()).await?;
    sleep(CALM).await;
    for shard in 0..3 {
        fleet.redis.failover(shard).await?;
    }
    sleep(CALM).await;
    let report = traffic.stop().await?;
    ensure_nothing_missing(&report)?;
    ensure!(report.told == 0, "a planned failover loses nothing");
    let (plain, plain_figure) = keeps_on("without history", report.plain_silence);
    let (kept, kept_figure) = keeps_on("with history", report.kept_silence);
    let promises = Promises::new().expect(plain, plain_figure);
    Ok(promises.expect(kept, kept_figure))
}

#[tokio::test]
async fn a_restart_of_all_servers() -> Result<()> {
    let _turn = TURN.lock().await;
    let persistent = Options {
        append_only: true,
        ..Options::default()
    };
    let fleet = Fleet::start_on(persistent, &manifest(), 3).await?;
    let traffic = Traffic::start(&fleet.addresses()).await?;
    sleep(CALM).await;
    for node in fleet.redis.nodes() {
        node.kill()?;
    }
    sleep(Duration::from_secs(2)).await;
    for node in 0..fleet.redis.nodes().len() {
        fleet.redis.restart(node).await?;
    }
    fleet.redis.wait_ready(PATIENCE).await?;
    sleep(AWAY).await;
    let report = traffic.stop().await?;
    ensure_nothing_missing(&report)?;
    ensure!(report.told == 0, "all was on disk");
    Ok(())
}

#[tokio::test]
async fn a_killed_data_plane() -> Result<()> {
    let _turn = TURN.lock().await;
    let mut fleet = Fleet::start(&manifest(), 4).await?;
    let mut addresses = fleet.addresses();
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
    kept_in_one_run(without_redis).await
}

/// Refuses in bounded time, says so, and is as before soon after.
async fn without_redis() -> Result<Promises> {
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
    let refused_after = away.elapsed();
    leaver.cut();
    let mut told_after = None;
    while away.elapsed() < AWAY || told_after.is_none() {
        let (status, text) = readiness(&fleet.planes[0]).await?;
        if told_after.is_some() {
            assert_eq!(status, 503);
        }
        if status == 503 {
            ensure!(text.contains("redis:"), "{text}");
            told_after.get_or_insert(away.elapsed());
        }
        ensure!(away.elapsed() < PATIENCE, "ready without Redis");
        sleep(Duration::from_millis(500)).await;
    }
    for node in 0..fleet.redis.nodes().len() {
        fleet.redis.restart(node).await?;
    }
    fleet.redis.wait_ready(PATIENCE).await?;
    let back = Instant::now();
    // The same connection goes on by itself.
    while client
        .command("publish", json!({ "channel": "x", "data": 2 }))
        .await?
        .get("error")
        .is_some()
    {
        ensure!(back.elapsed() < PATIENCE, "publishes still fail");
    }
    let published_after = back.elapsed();
    as_before(&fleet, &mut client, back).await?;
    let within = |what: &str, took: Duration, seconds: u64| {
        let most = Duration::from_secs(seconds);
        (took < most, format!("{what} after {took:?} of {most:?}"))
    };
    let told_after = told_after.context("told")?;
    let mut promises = Promises::new();
    for (kept, figure) in [
        within("refused", refused_after, 6),
        within("told", told_after, 5),
        within("published", published_after, 10),
        within("as before", back.elapsed(), 20),
    ] {
        promises = promises.expect(kept, figure);
    }
    Ok(promises)
}

/// Who left while Redis was away has left, who stayed is there, and the data plane is ready.
async fn as_before(fleet: &Fleet, client: &mut Client, back: Instant) -> Result<()> {
    loop {
        let present = client
            .command("presence", json!({ "channel": "x" }))
            .await?;
        let clients = present["presence"]["presence"]
            .as_object()
            .map_or(0, serde_json::Map::len);
        if clients == 1 && readiness(&fleet.planes[0]).await?.0 == 200 {
            return Ok(());
        }
        ensure!(back.elapsed() < PATIENCE * 2, "not as it was: {present}");
        sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn a_cut_link_between_a_data_plane_and_a_shard() -> Result<()> {
    let _turn = TURN.lock().await;
    kept_in_one_run(through_a_cut_link).await
}

async fn through_a_cut_link() -> Result<Promises> {
    let redis = RedisCluster::start(3, 1, Options::default()).await?;
    let links = Links::before(&redis).await?;
    let manifest = manifest().redis(redis.url());
    let fleet = Fleet::start_with(redis, &manifest, 3).await?;
    // Writers are elsewhere: who is cut off can publish nothing there, and that is told.
    let addresses = fleet.addresses();
    let traffic = Traffic::start_with(&addresses[1..], &addresses).await?;
    sleep(CALM).await;
    let mut shard = fleet.redis.replicas_of(0).await?;
    shard.push(fleet.redis.primary(0).await?);
    links.cut(fleet.planes[0].pid(), &shard)?;
    sleep(AWAY).await;
    let (status, _) = readiness(&fleet.planes[1]).await?;
    assert_eq!(status, 200, "the others do not notice");
    links.mend();
    sleep(CALM).await;
    let report = traffic.stop().await?;
    ensure_nothing_missing(&report)?;
    ensure!(report.told == 0, "history has what was missed");
    let refused = format!("{} refused of the others", report.refused);
    Ok(Promises::new().expect(report.refused == 0, refused))
}
