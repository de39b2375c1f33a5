//! What an ingested request costs Redis: memory, CPU and commands, beside one `XADD` for each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::{try_join, try_join_all};
use serde::Serialize;
use serde_json::json;
use tokio::time::sleep;

use super::{Run, gateway, stream};
use crate::bench::redis::usage;
use crate::bench::table;
use crate::http_load::schedule::Phase;
use crate::http_load::shape::Shape;
use crate::http_load::{Load, OnFailure, Plan};
use crate::ingest::{Gateway, Ingest};
use crate::redis::{Options, RedisServer};
use crate::upstream::handle::Upstream;
use crate::upstream::settings::Settings;

const BODY_BYTES: usize = 1_000;
/// Applications of the case with many, spread over the partitions of the queue.
const MANY: usize = 12;
/// Leases and shares have settled.
const SETTLE: Duration = Duration::from_secs(12);
const PATIENCE: Duration = Duration::from_secs(60);

/// How requests come to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Way {
    /// One `XADD` each, over one connection; `delivered`: a group reads, acknowledges and deletes them.
    Plain { delivered: bool },
    Sluice {
        planes: usize,
        applications: usize,
        delivered: bool,
    },
}

impl Way {
    fn delivers(self) -> bool {
        match self {
            Self::Plain { delivered } | Self::Sluice { delivered, .. } => delivered,
        }
    }
}

#[derive(Debug, Serialize)]
struct Row {
    way: Way,
    per_second: f64,
    requests: u64,
    /// Of the data set, each.
    bytes: f64,
    cpu_us: f64,
    /// Each; within scripts too.
    commands: f64,
    /// Of the plain way's CPU and memory at the same rate.
    cpu_ratio: f64,
    bytes_ratio: f64,
    /// Of the plain way's CPU for the same: with or without delivery.
    cpu_alike: f64,
    p50_ms: f64,
    p99_ms: f64,
    calls: BTreeMap<String, u64>,
}

/// Runs all ways at several rates, each on a server of its own.
pub async fn run(run: &Run) -> Result<()> {
    let sluice = |planes, applications, delivered| Way::Sluice {
        planes,
        applications,
        delivered,
    };
    let ways = [
        Way::Plain { delivered: false },
        Way::Plain { delivered: true },
        sluice(1, 1, false),
        sluice(1, 1, true),
        sluice(3, MANY, false),
    ];
    let rates: &[f64] = run.pick(&[500.0, 1_000.0, 5_000.0, 15_000.0], &[1_000.0, 5_000.0]);
    let mut rows: Vec<Row> = Vec::new();
    for rate in rates {
        let plain = rows.len();
        for way in ways {
            let mut row = measure(run, way, *rate).await?;
            let peer = rows.get(plain).unwrap_or(&row);
            (row.cpu_ratio, row.bytes_ratio) = (row.cpu_us / peer.cpu_us, row.bytes / peer.bytes);
            let peer = rows.get(plain + usize::from(way.delivers()));
            row.cpu_alike = peer.map_or(1.0, |peer| row.cpu_us / peer.cpu_us);
            rows.push(row);
            run.write("redis", &rows)?;
        }
    }
    print(&rows)
}

/// What a server holds and has done, of its data set and its main thread.
async fn dataset_bytes(server: &RedisServer) -> Result<f64> {
    let info = server.call(&["INFO", "memory"]).await?.to_string();
    let value = info
        .lines()
        .find_map(|line| line.strip_prefix("used_memory_dataset:"));
    Ok(value.unwrap_or("0").trim().parse()?)
}

async fn measure(run: &Run, way: Way, rate: f64) -> Result<Row> {
    let server = RedisServer::start(Options::default()).await?;
    let upstream = Upstream::start(Settings::default()).await?;
    let planes = match way {
        Way::Plain { .. } => Vec::new(),
        Way::Sluice {
            planes,
            applications,
            delivered,
        } => {
            let ingest = manifest(&upstream, &server, applications, delivered);
            let planes = try_join_all((0..planes).map(|_| Gateway::start(&ingest))).await?;
            sleep(SETTLE).await;
            planes
        }
    };
    let seconds = run.pick(10.0, 4.0);
    let nodes = std::slice::from_ref(&server);
    let (before, bytes) = (usage(nodes).await?, dataset_bytes(&server).await?);
    let (requests, p50_ms, p99_ms) = match way {
        Way::Plain { delivered } => {
            let total = (rate * seconds) as u64;
            let shape = Shape::post("key-0", BODY_BYTES);
            let added = stream::add(&server, shape, rate, total);
            if delivered {
                try_join(added, stream::consume(&server, total)).await?;
            } else {
                added.await?;
            }
            (total, 0.0, 0.0)
        }
        Way::Sluice {
            applications,
            delivered,
            ..
        } => {
            let sent = send(&planes, applications, rate, seconds).await?;
            let began = Instant::now();
            while delivered && upstream.stats().await?.applied < sent.0 {
                ensure!(began.elapsed() < PATIENCE, "not all was delivered");
                sleep(Duration::from_millis(50)).await;
            }
            sent
        }
    };
    let grown = dataset_bytes(&server).await? - bytes;
    let used = usage(nodes).await?.since(&before);
    let each = |total: f64| total / requests as f64;
    let calls: u64 = used.calls.values().sum();
    let row = Row {
        way,
        per_second: rate,
        requests,
        bytes: each(grown),
        cpu_us: each(used.cpu_seconds * 1e6),
        commands: each(calls as f64),
        cpu_ratio: 1.0,
        bytes_ratio: 1.0,
        cpu_alike: 1.0,
        p50_ms,
        p99_ms,
        calls: used.calls,
    };
    table::say(&format!("{rate}/s {way:?}: {:.1} us", row.cpu_us))?;
    Ok(row)
}

fn manifest(upstream: &Upstream, redis: &RedisServer, apps: usize, delivered: bool) -> Ingest {
    let processing = if delivered { "Active" } else { "Paused" };
    (0..apps).fold(
        gateway(&upstream.url(), "Group")
            .redis(redis.url())
            .without_applications(),
        |ingest, app| {
            let (name, key) = application(app);
            ingest.application(&name, &key, json!({ "processing": processing }))
        },
    )
}

fn application(number: usize) -> (String, String) {
    (format!("app-{number}"), format!("key-{number}"))
}

/// Requests of all applications through all data planes: how many, and how late their answers were.
async fn send(planes: &[Gateway], apps: usize, rate: f64, seconds: f64) -> Result<(u64, f64, f64)> {
    let loads = planes.len().max(apps);
    let mut under_way = Vec::new();
    for number in 0..loads {
        let plane = &planes[number % planes.len()];
        let phase = Phase::rate(rate / loads as f64, seconds);
        let (_, key) = application(number % apps);
        let mut plan = Plan::new(plane.address(), &key, vec![phase]);
        plan.shape = Shape::post(&key, BODY_BYTES);
        plan.connections = 128 / loads;
        plan.devices = 12_000 / loads;
        plan.first_device = number * 12_000;
        plan.on_failure = OnFailure::GoOn;
        under_way.push(Load::start(plan)?);
    }
    let (mut acked, mut p50, mut p99) = (0, 0.0_f64, 0.0_f64);
    for load in under_way {
        let outcome = load.outcome().await?;
        ensure!(outcome.refused() == 0, "refused: {:?}", outcome.statuses);
        acked += outcome.acked;
        p50 = p50.max(outcome.latency_ms(0.5));
        p99 = p99.max(outcome.latency_ms(0.99));
    }
    Ok((acked, p50, p99))
}

fn print(rows: &[Row]) -> Result<()> {
    let mut lines = vec![table::head(&[
        "way", "per s", "bytes", "/ XADD", "CPU us", "/ XADD", "/ alike", "commands", "p50 ms",
        "p99 ms",
    ])];
    lines.extend(rows.iter().map(|row| {
        let way = match row.way {
            Way::Plain { delivered: false } => "one XADD each".to_owned(),
            Way::Plain { delivered: true } => "and read by a group, settled, deleted".to_owned(),
            Way::Sluice {
                planes,
                applications,
                delivered,
            } => {
                let what = if delivered { "delivered" } else { "accepted" };
                format!("sluice, {what}, planes {planes}, applications {applications}")
            }
        };
        vec![
            way,
            format!("{:.0}", row.per_second),
            format!("{:.0}", row.bytes),
            table::ratio(Some(row.bytes_ratio)),
            format!("{:.2}", row.cpu_us),
            table::ratio(Some(row.cpu_ratio)),
            table::ratio(Some(row.cpu_alike)),
            format!("{:.2}", row.commands),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p99_ms),
        ]
    }));
    table::print(
        &format!("Redis for a POST of {BODY_BYTES} bytes; budget a third of XADD"),
        &lines,
    )
}
