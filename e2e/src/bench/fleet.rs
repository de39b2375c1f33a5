//! Three data planes on a Redis Cluster under many clients: what idle clients and publications cost Redis.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;
use tokio::runtime::{Builder, Runtime};

use super::process;
use super::redis::{Usage, usage};
use super::run::Run;
use super::table;
use super::workers::Workers;
use crate::fleet::Fleet;
use crate::load::dialect::Dialect;
use crate::load::report::Report;
use crate::manifest::{Manifest, Namespace};
use crate::token::SECRET;

pub const PLANES: usize = 3;
/// As many as an account has devices, spread over all data planes.
pub const CLIENTS_PER_CHANNEL: usize = 50;
/// How channel names begin.
const PREFIX: &str = "account-";
/// The namespace without history; the default one has it.
const PLAIN: &str = "plain";

const FEW_CLIENTS: usize = 1_000;
const MANY_CLIENTS: usize = 15_000;
/// After connecting: what joins cost Redis is not what idle clients cost.
const SETTLE: Duration = Duration::from_secs(10);
const IDLE_SECONDS: u64 = 30;

/// Channels of the publication cases, each with a subscriber and a publisher on each data plane.
const CHANNELS: usize = 100;
const PUBLISH_BYTES: usize = 128;

/// The threads that drive a fleet; its clients are processes of their own.
pub fn runtime() -> Result<Runtime> {
    ensure!(
        std::env::var_os("SLUICE_BIN").is_some(),
        "SLUICE_BIN must name the release build: run `just bench-relay`"
    );
    let threads = Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    Ok(threads)
}

/// Presence and history in the default namespace, neither in the other.
pub fn manifest() -> Manifest {
    let kept = Namespace {
        join_leave: "Disabled",
        delta: false,
        subscribe: "Authenticated",
        publish: "Authenticated",
        ..Namespace::full()
    };
    let plain = Namespace {
        publish: "Authenticated",
        ..Namespace::plain()
    };
    Manifest {
        default_namespace: kept,
        namespaces: vec![(PLAIN, plain)],
        ..Manifest::full()
    }
}

#[must_use]
pub fn channel(number: usize) -> String {
    format!("{PREFIX}{number}")
}

/// Clients that are spread over all data planes and follow numbered messages.
pub fn follow(fleet: &Fleet, clients: usize, channels: usize) -> Result<Workers> {
    let others: Vec<_> = fleet.planes[1..]
        .iter()
        .map(|plane| plane.address.to_string())
        .collect();
    let more = [
        ("others", others.join(",")),
        ("channels", channels.to_string()),
        ("prefix", PREFIX.to_owned()),
        ("hmac-secret", SECRET.to_owned()),
    ];
    Workers::start_at(
        fleet.planes[0].address,
        Dialect::Centrifugo,
        "follow",
        clients,
        &more,
    )
}

fn cpu_seconds(fleet: &Fleet) -> Result<f64> {
    fleet
        .planes
        .iter()
        .map(|plane| process::cpu_seconds(plane.pid()))
        .sum()
}

fn private_kb(fleet: &Fleet) -> Result<u64> {
    fleet
        .planes
        .iter()
        .map(|plane| process::private_kb(plane.pid()))
        .sum()
}

#[derive(Debug, Serialize)]
struct Idle {
    clients: u64,
    seconds: f64,
    commands_per_minute: f64,
    redis_cpu_ms_per_minute: f64,
    redis_bytes_per_minute: f64,
    planes_cpu_ms_per_minute: f64,
    planes_kb_per_client: f64,
    redis_kb_per_client: f64,
    redis: Usage,
}

/// What idle clients, subscribed and present, cost Redis: few of them and many.
pub fn idle(run: &Run) -> Result<()> {
    let runtime = runtime()?;
    let mut rows = Vec::new();
    for clients in [run.pick(FEW_CLIENTS, 100), run.pick(MANY_CLIENTS, 1_500)] {
        rows.push(idle_with(run, &runtime, clients)?);
        run.write("shared-idle", &rows)?;
    }
    let mut lines = vec![table::head(&[
        "clients",
        "commands/min",
        "Redis CPU ms/min",
        "Redis KB/min",
        "planes' CPU ms/min",
        "planes' KB each",
        "Redis KB each",
    ])];
    lines.extend(rows.iter().map(|row| {
        vec![
            row.clients.to_string(),
            format!("{:.0}", row.commands_per_minute),
            format!("{:.0}", row.redis_cpu_ms_per_minute),
            format!("{:.0}", row.redis_bytes_per_minute / 1024.0),
            format!("{:.0}", row.planes_cpu_ms_per_minute),
            format!("{:.2}", row.planes_kb_per_client),
            format!("{:.2}", row.redis_kb_per_client),
        ]
    }));
    table::print(
        "idle clients on three data planes and a cluster of 3 + 3",
        &lines,
    )?;
    let growth = rows[1].commands_per_minute / rows[0].commands_per_minute;
    table::say(&format!(
        "commands with many : with few = {growth:.3} (budget 1.10)"
    ))?;
    for row in &rows {
        table::say(&format!(
            "  {} clients, calls: {:?}",
            row.clients, row.redis.calls
        ))?;
    }
    ensure!(growth < 1.1, "idle clients cost Redis commands");
    Ok(())
}

fn idle_with(run: &Run, runtime: &Runtime, clients: usize) -> Result<Idle> {
    let fleet = runtime.block_on(Fleet::start(&manifest(), PLANES))?;
    let nodes = fleet.redis.nodes();
    let (empty, empty_kb) = (runtime.block_on(usage(nodes))?, private_kb(&fleet)?);
    let mut workers = follow(&fleet, clients, clients / CLIENTS_PER_CHANNEL)?;
    workers.go()?;
    sleep(SETTLE);
    let (began, cpu) = (Instant::now(), cpu_seconds(&fleet)?);
    let before = runtime.block_on(usage(nodes))?;
    sleep(Duration::from_secs(run.pick(IDLE_SECONDS, 10)));
    let redis = runtime.block_on(usage(nodes))?.since(&before);
    let seconds = began.elapsed().as_secs_f64();
    let cpu = cpu_seconds(&fleet)? - cpu;
    let full_kb = private_kb(&fleet)?;
    let report = workers.stop()?;
    let per_minute = 60.0 / seconds;
    let each =
        |kb: u64, empty: u64| kb.saturating_sub(empty) as f64 / report.connected.max(1) as f64;
    Ok(Idle {
        clients: report.connected,
        seconds,
        commands_per_minute: redis.commands as f64 * per_minute,
        redis_cpu_ms_per_minute: redis.cpu_seconds * 1e3 * per_minute,
        redis_bytes_per_minute: (redis.bytes_in + redis.bytes_out) as f64 * per_minute,
        planes_cpu_ms_per_minute: cpu * 1e3 * per_minute,
        planes_kb_per_client: each(full_kb, empty_kb),
        redis_kb_per_client: each(redis.used_kb, empty.used_kb),
        redis,
    })
}

#[derive(Debug, Serialize)]
struct Published {
    history: bool,
    rate: f64,
    published: u64,
    refused: u64,
    deliveries: u64,
    missing: u64,
    per_second: f64,
    commands_each: f64,
    redis_cpu_us_each: f64,
    redis_bytes_in_each: f64,
    redis_bytes_out_each: f64,
    planes_cpu_us_each: f64,
    p50_ms: f64,
    p99_ms: f64,
    redis: Usage,
}

/// What a publication costs Redis, with publishers and subscribers on all data planes.
pub fn published(run: &Run) -> Result<()> {
    let runtime = runtime()?;
    let mut rows: Vec<Published> = Vec::new();
    for history in [false, true] {
        for rate in [run.pick(2_000.0, 500.0), run.pick(10_000.0, 2_000.0)] {
            rows.push(published_at(run, &runtime, history, rate)?);
            run.write("published", &rows)?;
        }
    }
    let mut lines = vec![table::head(&[
        "history",
        "wanted/s",
        "per s",
        "commands",
        "Redis CPU us",
        "bytes in",
        "bytes out",
        "planes' CPU us",
        "p50 ms",
        "p99 ms",
        "refused",
        "missing",
    ])];
    lines.extend(rows.iter().map(|row| {
        vec![
            row.history.to_string(),
            format!("{:.0}", row.rate),
            format!("{:.0}", row.per_second),
            format!("{:.3}", row.commands_each),
            format!("{:.1}", row.redis_cpu_us_each),
            format!("{:.0}", row.redis_bytes_in_each),
            format!("{:.0}", row.redis_bytes_out_each),
            format!("{:.1}", row.planes_cpu_us_each),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p99_ms),
            row.refused.to_string(),
            row.missing.to_string(),
        ]
    }));
    table::print(
        "each publication, three data planes and a cluster of 3 + 3",
        &lines,
    )
}

fn published_at(run: &Run, runtime: &Runtime, history: bool, rate: f64) -> Result<Published> {
    let fleet = runtime.block_on(Fleet::start(&manifest(), PLANES))?;
    let prefix = if history {
        "f".to_owned()
    } else {
        format!("{PLAIN}:f")
    };
    let seconds: f64 = run.pick(10.0, 3.0);
    let shared = [
        ("channels", CHANNELS.to_string()),
        ("prefix", prefix),
        ("hmac-secret", SECRET.to_owned()),
    ];
    let mut publish = shared.to_vec();
    publish.extend([
        ("size", PUBLISH_BYTES.to_string()),
        ("seconds", seconds.to_string()),
        ("rate", (rate / PLANES as f64).to_string()),
    ]);
    let start = |mode, more: &[(&'static str, String)]| -> Result<Vec<Workers>> {
        let planes = fleet.planes.iter();
        planes
            .map(|plane| {
                Workers::start_at(plane.address, Dialect::Centrifugo, mode, CHANNELS, more)
            })
            .collect()
    };
    let mut subscribers = start("hold", &shared)?;
    let mut publishers = start("publish", &publish)?;
    sleep(Duration::from_secs(2));
    let before = runtime.block_on(usage(fleet.redis.nodes()))?;
    let cpu = cpu_seconds(&fleet)?;
    subscribers
        .iter_mut()
        .chain(&mut publishers)
        .try_for_each(Workers::go)?;
    let mut sent = Report::default();
    for publisher in publishers {
        sent.merge(publisher.report()?);
    }
    sleep(Duration::from_millis(500));
    let redis = runtime.block_on(usage(fleet.redis.nodes()))?.since(&before);
    let cpu = cpu_seconds(&fleet)? - cpu;
    let mut received = Report::default();
    for subscriber in subscribers {
        received.merge(subscriber.stop()?);
    }
    let published = sent.accepted;
    let each = |total: f64| total / published.max(1) as f64;
    Ok(Published {
        history,
        rate,
        published,
        refused: sent.errors.values().sum(),
        deliveries: received.deliveries,
        missing: (published * PLANES as u64).saturating_sub(received.deliveries),
        per_second: published as f64 / seconds,
        commands_each: each(redis.commands as f64),
        redis_cpu_us_each: each(redis.cpu_seconds * 1e6),
        redis_bytes_in_each: each(redis.bytes_in as f64),
        redis_bytes_out_each: each(redis.bytes_out as f64),
        planes_cpu_us_each: each(cpu * 1e6),
        p50_ms: received.latency.quantile(0.5) as f64 / 1e6,
        p99_ms: received.latency.quantile(0.99) as f64 / 1e6,
        redis,
    })
}
