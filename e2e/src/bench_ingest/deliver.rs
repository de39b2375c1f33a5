//! Delivering: how fast a backlog goes to an upstream that takes anything.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;
use tokio::time::sleep;

use super::{Run, gateway, paused};
use crate::bench::{process, table};
use crate::http_load::schedule::Phase;
use crate::http_load::shape::Shape;
use crate::http_load::{Load, Plan};
use crate::ingest::{Gateway, KEY};
use crate::upstream::analysis::done_per_second;
use crate::upstream::handle::Upstream;
use crate::upstream::settings::Settings;

const PATIENCE: Duration = Duration::from_secs(300);

#[derive(Debug, Serialize)]
struct Row {
    durability: &'static str,
    service_ms: f64,
    requests: u64,
    seconds: f64,
    requests_per_second: f64,
    /// Between a tenth and nine tenths of the time: without start and end.
    steady_per_second: f64,
    requests_per_cpu_second: f64,
    upstream_cores: f64,
}

/// Runs at each durability, with an upstream that answers at once and with one that takes a while.
pub async fn run(run: &Run) -> Result<()> {
    let mut rows = Vec::new();
    for (durability, service_ms) in [("Memory", 0.0), ("Group", 0.0), ("Group", 20.0)] {
        rows.push(measure(run, durability, service_ms).await?);
        run.write("deliver", &rows)?;
    }
    let mut lines = vec![table::head(&[
        "durability",
        "service ms",
        "per CPU s",
        "per s",
        "steady per s",
        "upstream's cores",
    ])];
    lines.extend(rows.iter().map(|row| {
        vec![
            row.durability.to_owned(),
            format!("{:.0}", row.service_ms),
            format!("{:.0}", row.requests_per_cpu_second),
            format!("{:.0}", row.requests_per_second),
            format!("{:.0}", row.steady_per_second),
            format!("{:.2}", row.upstream_cores),
        ]
    }));
    table::print("deliver a backlog", &lines)
}

async fn measure(run: &Run, durability: &'static str, service_ms: f64) -> Result<Row> {
    let settings = Settings {
        service_ms,
        ..Settings::default()
    };
    let upstream = Upstream::start(settings).await?;
    let mut server = Gateway::start(&paused(&upstream.url(), durability)).await?;
    let per_second = run.pick(10_000.0, 5_000.0);
    let phase = Phase::rate(per_second, run.pick(20.0, 3.0));
    let mut plan = Plan::new(server.address(), KEY, vec![phase]);
    plan.shape = Shape::post(KEY, 400);
    plan.devices = 10_000;
    let outcome = Load::start(plan)?.outcome().await?;
    let pids = (server.sluice.pid(), upstream.pid().unwrap_or(0));
    let (cpu, upstream_cpu) = (process::cpu_seconds(pids.0)?, process::cpu_seconds(pids.1)?);
    server.rewrite(&gateway(&upstream.url(), durability))?;
    // The manifest is looked at once a second; the time counts from the first delivery.
    while upstream.stats().await?.applied == 0 {
        sleep(Duration::from_millis(5)).await;
    }
    let began = Instant::now();
    while upstream.stats().await?.applied < outcome.acked {
        ensure!(began.elapsed() < PATIENCE, "{:?}", upstream.stats().await?);
        sleep(Duration::from_millis(20)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    let cpu = process::cpu_seconds(pids.0)? - cpu;
    let upstream_cpu = process::cpu_seconds(pids.1)? - upstream_cpu;
    let records = upstream.records().await?;
    let times = records.iter().map(|record| record.done_ns);
    let (first, last) = (times.clone().min().unwrap_or(0), times.max().unwrap_or(0));
    let tenth = (last - first) / 10;
    Ok(Row {
        durability,
        service_ms,
        requests: outcome.acked,
        seconds,
        requests_per_second: outcome.acked as f64 / seconds,
        steady_per_second: done_per_second(&records, first + tenth, last - tenth),
        requests_per_cpu_second: outcome.acked as f64 / cpu,
        upstream_cores: upstream_cpu / seconds,
    })
}
