//! One fleet, both kinds of traffic at once, while a Redis server and a data plane die, and while all of Redis is away:
//! everything that was acknowledged arrives, exactly once and in order, and all goes on by itself.

use std::env;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sluice_e2e::bench::process::private_kb;
use sluice_e2e::client::Client;
use sluice_e2e::fleet::Fleet;
use sluice_e2e::fleet::traffic::{PLAIN, Report, Traffic};
use sluice_e2e::http;
use sluice_e2e::http_load::outcome::Outcome;
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::{Load, Plan};
use sluice_e2e::ingest::{Ingest, KEY, event, nothing_lost};
use sluice_e2e::manifest::{Manifest, Namespace};
use sluice_e2e::redis::{Options, RedisCluster};
use sluice_e2e::token;
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::Settings;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// One fleet at a time.
static TURN: Mutex<()> = Mutex::const_new(());

const RATE: f64 = 100.0;
const CALM: Duration = Duration::from_secs(3);
/// Generous: an election on a busy machine, a takeover of partitions, a backlog.
const PATIENCE: Duration = Duration::from_secs(60);
/// Clients that do nothing but stay.
const IDLE_CLIENTS: usize = 60;
/// What a data plane may grow by while Redis is away: buffers of commands that wait, each of them bounded.
const GROWTH_KB_MAX: u64 = 64 * 1024;

/// How long Redis is away; `SLUICE_AWAY_S` makes it longer than CI has time for.
fn away() -> Duration {
    let seconds = env::var("SLUICE_AWAY_S").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(15))
}

struct Both {
    fleet: Fleet,
    upstream: Upstream,
}

impl Both {
    async fn start(options: Options, durability: &str, planes: usize) -> Result<Self> {
        let redis = RedisCluster::start(3, 1, options).await?;
        Self::start_on(redis, durability, planes).await
    }

    async fn start_on(redis: RedisCluster, durability: &str, planes: usize) -> Result<Self> {
        let upstream = Upstream::start(Settings {
            workers: 20,
            service_ms: 10.0,
            line: 200,
            ..Settings::default()
        })
        .await?;
        let allow = |namespace: Namespace| Namespace {
            publish: "Authenticated",
            join_leave: "Disabled",
            ..namespace
        };
        let relay = Manifest {
            default_namespace: Namespace {
                history: Some((3_000, 300)),
                ..allow(Namespace::full())
            },
            namespaces: vec![(PLAIN, allow(Namespace::plain()))],
            ..Manifest::full().redis(redis.url())
        };
        let ingest = Ingest::new(&upstream.url()).set("durability", json!(durability));
        let fleet = Fleet::start_with(redis, &ingest.beside(relay), planes).await?;
        Ok(Self { fleet, upstream })
    }

    /// Requests to the first data plane, which go on being tried.
    fn load(&self, seconds: f64) -> Result<Load> {
        let phases = vec![Phase::rate(RATE, seconds)];
        let mut plan = Plan::new(self.fleet.planes[0].address, KEY, phases);
        plan.grace = PATIENCE;
        Load::start(plan)
    }

    async fn accounted(&self, report: &Report, outcome: &Outcome) -> Result<()> {
        eprintln!("{report:#?}\naccepted: {}", outcome.acked);
        ensure!(report.published > 100, "no traffic");
        ensure!(report.lost == 0, "lost silently");
        ensure!(
            report.repeated == 0 && report.plain_repeated == 0,
            "repeated"
        );
        ensure!(outcome.given_up == 0, "given up: {}", outcome.given_up);
        let all = outcome.acked;
        self.upstream
            .until(PATIENCE, |stats| stats.applied >= all)
            .await?;
        nothing_lost(&self.upstream, outcome).await?;
        Ok(())
    }
}

#[tokio::test]
async fn a_killed_primary_and_then_a_killed_data_plane() -> Result<()> {
    let _turn = TURN.lock().await;
    let mut both = Both::start(Options::default(), "Replicated", 4).await?;
    let mut readers = both.fleet.addresses();
    let writers: Vec<_> = readers.drain(..3).collect();
    readers.extend(&writers);
    let traffic = Traffic::start_with(&writers, &readers).await?;
    let load = both.load(30.0)?;
    sleep(CALM).await;
    let node = both.fleet.redis.kill_primary(0).await?;
    both.fleet.redis.wait_taken_over(0, node, PATIENCE).await?;
    sleep(CALM).await;
    // Without a replica `Replicated` would refuse for as long as there is none.
    both.fleet.redis.restart(node).await?;
    sleep(CALM).await;
    both.fleet.planes.pop().context("four")?.kill()?;
    let outcome = load.outcome().await?;
    let report = traffic.stop().await?;
    both.accounted(&report, &outcome).await
}

/// A part of the first shard goes to the second and comes back, as when somebody adds a shard and removes it.
#[tokio::test]
async fn slots_move_to_another_shard_and_back() -> Result<()> {
    let _turn = TURN.lock().await;
    let both = Both::start(Options::default(), "Replicated", 3).await?;
    let fleet = &both.fleet;
    let traffic = Traffic::start(&fleet.addresses()).await?;
    let load = both.load(30.0)?;
    sleep(CALM).await;
    let (first, last) = fleet.redis.slots(0);
    let half = first..=first + (last - first) / 2;
    let mut moved = Vec::new();
    let there = fleet.redis.primary(1).await?;
    let back = fleet.redis.primary(0).await?;
    for to in [there, back] {
        let began = Instant::now();
        let keys = fleet.redis.move_slots(half.clone(), to).await?;
        moved.push((keys, began.elapsed()));
        sleep(CALM).await;
    }
    let outcome = load.outcome().await?;
    let report = traffic.stop().await?;
    both.accounted(&report, &outcome).await?;
    println!("keys moved there and back: {moved:?}");
    ensure!(moved.iter().all(|(keys, _)| *keys > 0), "nothing was in it");
    ensure!(report.told == 0, "a planned move loses nothing");
    Ok(())
}

/// The second is gone while it has just taken over: what `Replicated` has said is on a third server.
#[tokio::test]
async fn with_two_replicas_a_primary_and_its_successor_are_killed() -> Result<()> {
    let _turn = TURN.lock().await;
    let redis = RedisCluster::start(3, 2, Options::default()).await?;
    let both = Both::start_on(redis, "Replicated", 3).await?;
    let fleet = &both.fleet;
    let traffic = Traffic::start(&fleet.addresses()).await?;
    let load = both.load(30.0)?;
    sleep(CALM).await;
    for _ in 0..2 {
        let node = fleet.redis.kill_primary(0).await?;
        fleet.redis.wait_taken_over(0, node, PATIENCE).await?;
        sleep(CALM).await;
        // Somebody has to be there whom the next primary can wait for.
        fleet.redis.restart(node).await?;
        fleet.redis.wait_ready(PATIENCE).await?;
    }
    let outcome = load.outcome().await?;
    let report = traffic.stop().await?;
    both.accounted(&report, &outcome).await
}

/// A client that stays, and counts what it gets.
fn listener(mut client: Client, stop: Arc<AtomicBool>) -> JoinHandle<Result<usize>> {
    tokio::spawn(async move {
        let mut got = 0;
        while !stop.load(Ordering::Relaxed) {
            got += client.pushes(Duration::from_millis(500)).await?.len();
        }
        Ok(got)
    })
}

#[tokio::test]
async fn all_of_redis_is_away() -> Result<()> {
    let _turn = TURN.lock().await;
    let persistent = Options {
        append_only: true,
        ..Options::default()
    };
    let both = Both::start(persistent, "Group", 3).await?;
    let fleet = &both.fleet;
    let stop = Arc::new(AtomicBool::new(false));
    let mut listeners = Vec::new();
    for number in 0..IDLE_CLIENTS {
        let mut client = fleet.client(number % 3, &token::user("stays")).await?;
        client
            .call("subscribe", json!({ "channel": "all" }))
            .await?;
        listeners.push(listener(client, Arc::clone(&stop)));
    }
    let traffic = Traffic::start(&fleet.addresses()).await?;
    let load = both.load(away().as_secs_f64() + 10.0)?;
    sleep(CALM).await;
    for node in fleet.redis.nodes() {
        node.kill()?;
    }
    let grown = without_redis(fleet).await?;
    for node in 0..fleet.redis.nodes().len() {
        fleet.redis.restart(node).await?;
    }
    fleet.redis.wait_ready(PATIENCE).await?;
    let back = Instant::now();
    let outcome = load.outcome().await?;
    let report = traffic.stop().await?;
    both.accounted(&report, &outcome).await?;
    ensure!(report.told == 0, "all was on disk");
    let all = json!({ "channel": "all", "data": { "n": 1 } });
    fleet.api(0).call("publish", all).await?;
    sleep(Duration::from_secs(2)).await;
    stop.store(true, Ordering::Relaxed);
    for listener in listeners {
        assert_eq!(listener.await??, 1, "the connection from before");
    }
    println!(
        "away {:?}, grown by at most {grown} KB, all accounted for {:?} after it was back",
        away(),
        back.elapsed()
    );
    ensure!(grown < GROWTH_KB_MAX, "grown by {grown} KB");
    Ok(())
}

/// While nobody answers: requests are refused with the time to come again. By how much the largest data plane has grown.
async fn without_redis(fleet: &Fleet) -> Result<u64> {
    let sizes = || -> Result<Vec<u64>> {
        let pids = fleet.planes.iter().map(|plane| plane.pid());
        pids.map(private_kb).collect()
    };
    let before = sizes()?;
    let (since, mut grown) = (Instant::now(), 0);
    while since.elapsed() < away() {
        let asked = Instant::now();
        let answer = http::get(fleet.planes[1].address, &event(KEY, "lone", 1)).await?;
        assert_eq!(answer.status, 503, "{}", answer.text());
        ensure!(answer.header("retry-after").is_some(), "no Retry-After");
        ensure!(asked.elapsed() < Duration::from_secs(10), "no bounded time");
        let now = sizes()?;
        let each = now.iter().zip(&before);
        let most = each.map(|(now, before)| now.saturating_sub(*before)).max();
        grown = grown.max(most.unwrap_or(0));
        sleep(Duration::from_millis(500)).await;
    }
    Ok(grown)
}
