//! Three data planes with their queue in one Redis Cluster: any of them accepts, each delivers its part, and when one dies, or
//! a server, nothing acknowledged is lost.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use sluice_e2e::http;
use sluice_e2e::http_load::outcome::Outcome;
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::shape::device_name;
use sluice_e2e::http_load::{Load, Plan};
use sluice_e2e::ingest::{Gateway, Ingest, KEY, event, nothing_lost};
use sluice_e2e::redis::{Links, Options, RedisCluster};
use sluice_e2e::timing::{Promises, kept_in_one_run};
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::Settings;
use tokio::sync::Mutex;
use tokio::time::sleep;

/// One fleet at a time: times are measured.
static TURN: Mutex<()> = Mutex::const_new(());

const RATE: f64 = 200.0;
/// A dead data plane's lease, and its partitions taken over.
const TAKEOVER: Duration = Duration::from_secs(15);
/// For what happens in the end, on a machine that has no time.
const PATIENCE: Duration = Duration::from_secs(60);

async fn fast_upstream() -> Result<Upstream> {
    Upstream::start(Settings {
        workers: 20,
        service_ms: 20.0,
        line: 200,
        ..Settings::default()
    })
    .await
}

async fn start(
    options: Options,
    durability: &str,
) -> Result<(RedisCluster, Upstream, Vec<Gateway>)> {
    let redis = RedisCluster::start(3, 1, options).await?;
    let upstream = fast_upstream().await?;
    let ingest = Ingest::new(&upstream.url())
        .set("durability", json!(durability))
        .redis(redis.url());
    let planes = try_join_all((0..3).map(|_| Gateway::start(&ingest))).await?;
    Ok((redis, upstream, planes))
}

/// A data plane counts what it holds: what another one took in just now it has to notice first.
const NOTICED: Duration = Duration::from_secs(1);

async fn all_drained(planes: &[Gateway]) -> Result<()> {
    sleep(NOTICED).await;
    for plane in planes {
        plane.drained(PATIENCE).await?;
    }
    Ok(())
}

/// All that was acknowledged is carried out, and nothing waits. A data plane that has no time may notice late what it has.
async fn all_carried_out(planes: &[Gateway], upstream: &Upstream, outcome: &Outcome) -> Result<()> {
    all_drained(planes).await?;
    let all = upstream.until(PATIENCE, |stats| stats.applied >= outcome.acked);
    all.await?;
    nothing_lost(upstream, outcome).await.map(drop)
}

/// Requests delivered by each data plane.
async fn delivered(planes: &[Gateway]) -> Result<Vec<f64>> {
    let metrics = planes
        .iter()
        .map(|plane| plane.metric("sluice_ingest_delivered_total", ""));
    try_join_all(metrics).await
}

#[tokio::test]
async fn a_killed_data_planes_part_is_taken_over() -> Result<()> {
    let _turn = TURN.lock().await;
    kept_in_one_run(a_takeover).await
}

async fn a_takeover() -> Result<Promises> {
    let (_redis, upstream, mut planes) = start(Options::default(), "Group").await?;
    // One application is delivered by one data plane, whoever accepts.
    planes[0].event("first", 1).await?;
    upstream.until(PATIENCE, |stats| stats.applied > 0).await?;
    all_drained(&planes).await?;
    let parts = delivered(&planes).await?;
    let deliverer = parts
        .iter()
        .position(|part| *part > 0.0)
        .context("nobody delivers")?;
    let mut deliverer = planes.remove(deliverer);
    let mut plan = Plan::new(planes[0].address(), KEY, vec![Phase::rate(RATE, 20.0)]);
    plan.grace = PATIENCE;
    let load = Load::start(plan)?;
    sleep(Duration::from_secs(5)).await;
    deliverer.kill()?;
    let killed = Instant::now();
    let before = upstream.stats().await?.applied;
    while upstream.stats().await?.applied < before + RATE as u64 {
        ensure!(killed.elapsed() < PATIENCE, "not taken over");
        sleep(Duration::from_millis(100)).await;
    }
    let took = killed.elapsed();
    let outcome = load.outcome().await?;
    assert_eq!(outcome.given_up, 0, "{outcome:?}");
    all_carried_out(&planes, &upstream, &outcome).await?;
    let figure = format!("taken over {took:?} after the kill, of {TAKEOVER:?}");
    Ok(Promises::new().expect(took < TAKEOVER, figure))
}

struct Through {
    _redis: RedisCluster,
    planes: Vec<Gateway>,
    upstream: Upstream,
    outcome: Outcome,
}

/// Traffic through three data planes while something happens to Redis, which takes clients' retries into account.
async fn through(
    options: Options,
    durability: &str,
    happens: impl AsyncFnOnce(&RedisCluster) -> Result<()>,
) -> Result<Through> {
    let (redis, upstream, planes) = start(options, durability).await?;
    let mut plan = Plan::new(planes[1].address(), KEY, vec![Phase::rate(RATE, 15.0)]);
    plan.grace = PATIENCE;
    let load = Load::start(plan)?;
    sleep(Duration::from_secs(4)).await;
    happens(&redis).await?;
    let outcome = load.outcome().await?;
    assert_eq!(outcome.given_up, 0, "{outcome:?}");
    Ok(Through {
        _redis: redis,
        planes,
        upstream,
        outcome,
    })
}

async fn nothing_is_lost_through(
    options: Options,
    durability: &str,
    happens: impl AsyncFnOnce(&RedisCluster) -> Result<()>,
) -> Result<()> {
    let through = through(options, durability, happens).await?;
    all_carried_out(&through.planes, &through.upstream, &through.outcome).await
}

#[tokio::test]
async fn a_killed_primary_loses_nothing_that_was_replicated() -> Result<()> {
    let _turn = TURN.lock().await;
    let kill = async |redis: &RedisCluster| redis.kill_primary(1).await.map(drop);
    nothing_is_lost_through(Options::default(), "Replicated", kill).await
}

#[tokio::test]
async fn a_paused_primary_loses_nothing_that_was_replicated() -> Result<()> {
    let _turn = TURN.lock().await;
    let pause = async |redis: &RedisCluster| {
        for shard in 0..3 {
            let node = redis.pause_primary(shard).await?;
            redis.wait_taken_over(shard, node, PATIENCE).await?;
            redis.resume(node)?;
            // One fault at a time: it has to follow before the next one stands still.
            redis.wait_ready(PATIENCE).await?;
        }
        Ok(())
    };
    nothing_is_lost_through(Options::default(), "Replicated", pause).await
}

#[tokio::test]
async fn planned_failovers_lose_nothing() -> Result<()> {
    let _turn = TURN.lock().await;
    let fail_over = async |redis: &RedisCluster| {
        for shard in 0..3 {
            redis.failover(shard).await?;
        }
        Ok(())
    };
    nothing_is_lost_through(Options::default(), "Group", fail_over).await
}

#[tokio::test]
async fn a_restart_of_all_servers_loses_nothing_that_is_on_disk() -> Result<()> {
    let _turn = TURN.lock().await;
    let persistent = Options {
        append_only: true,
        ..Options::default()
    };
    let restart = async |redis: &RedisCluster| {
        for node in redis.nodes() {
            node.kill()?;
        }
        for node in 0..redis.nodes().len() {
            redis.restart(node).await?;
        }
        redis.wait_ready(PATIENCE).await
    };
    nothing_is_lost_through(persistent, "Group", restart).await
}

#[tokio::test]
async fn a_killed_primary_loses_no_more_than_its_replica_was_behind() -> Result<()> {
    let _turn = TURN.lock().await;
    kept_in_one_run(lost_with_primaries).await
}

async fn lost_with_primaries() -> Result<Promises> {
    /// What the README states: milliseconds; here with room for a busy machine.
    const BEHIND: Duration = Duration::from_millis(500);
    let kill = async |redis: &RedisCluster| {
        for shard in 0..3 {
            let node = redis.kill_primary(shard).await?;
            redis.wait_taken_over(shard, node, PATIENCE).await?;
            redis.restart(node).await?;
        }
        Ok(())
    };
    let through = through(Options::default(), "Group", kill).await?;
    all_drained(&through.planes).await?;
    let users = through.upstream.users().await?;
    let outcome = &through.outcome;
    let lost: u64 = outcome
        .devices()
        .map(|(device, acked)| {
            let done = users
                .get(&device_name(device))
                .map_or(0, |user| user.applied);
            acked.saturating_sub(done)
        })
        .sum();
    let figure = format!("{lost} of {} acknowledged were lost", outcome.acked);
    Ok(Promises::new().expect((lost as f64) <= RATE * BEHIND.as_secs_f64(), figure))
}

#[tokio::test]
async fn a_cut_link_between_a_data_plane_and_a_shard_loses_nothing() -> Result<()> {
    let _turn = TURN.lock().await;
    let redis = RedisCluster::start(3, 1, Options::default()).await?;
    let links = Links::before(&redis).await?;
    let upstream = fast_upstream().await?;
    let ingest = Ingest::new(&upstream.url()).redis(redis.url());
    let planes = try_join_all((0..3).map(|_| Gateway::start(&ingest))).await?;
    let mut plan = Plan::new(planes[0].address(), KEY, vec![Phase::rate(RATE, 15.0)]);
    plan.grace = PATIENCE;
    let load = Load::start(plan)?;
    sleep(Duration::from_secs(4)).await;
    // One after the other: whichever shard has the application, and whoever delivers it.
    for (plane, shard) in [(0, 0), (1, 1), (2, 2)] {
        let mut nodes = redis.replicas_of(shard).await?;
        nodes.push(redis.primary(shard).await?);
        links.cut(planes[plane].sluice.pid(), &nodes)?;
        sleep(Duration::from_secs(3)).await;
        links.mend();
    }
    let outcome = load.outcome().await?;
    assert_eq!(outcome.given_up, 0, "{outcome:?}");
    all_carried_out(&planes, &upstream, &outcome).await
}

#[tokio::test]
async fn without_redis_requests_are_refused_and_all_goes_on_by_itself() -> Result<()> {
    const AWAY: Duration = Duration::from_secs(10);
    let _turn = TURN.lock().await;
    let persistent = Options {
        append_only: true,
        ..Options::default()
    };
    let (redis, upstream, planes) = start(persistent, "Group").await?;
    for seq in 1..=20 {
        assert_eq!(planes[0].event("d", seq).await?.status, 200);
    }
    for node in redis.nodes() {
        node.kill()?;
    }
    let away = Instant::now();
    while away.elapsed() < AWAY {
        let answer = http::get(planes[1].address(), &event(KEY, "d", 21)).await?;
        assert_eq!(answer.status, 503, "{}", answer.text());
        ensure!(answer.header("retry-after").is_some(), "no Retry-After");
        sleep(Duration::from_millis(200)).await;
    }
    for node in 0..redis.nodes().len() {
        redis.restart(node).await?;
    }
    redis.wait_ready(PATIENCE).await?;
    let back = Instant::now();
    for seq in 21..=30 {
        while planes[2].event("d", seq).await?.status != 200 {
            ensure!(back.elapsed() < PATIENCE, "still refused");
            sleep(Duration::from_millis(100)).await;
        }
    }
    all_drained(&planes).await?;
    let stats = upstream
        .until(PATIENCE, |stats| stats.applied >= 30)
        .await?;
    ensure!(stats.missing == 0 && stats.out_of_order == 0, "{stats:?}");
    eprintln!("as before {:?} after Redis was back", back.elapsed());
    Ok(())
}
