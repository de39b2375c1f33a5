//! The full spike: 500 requests per second, 5,000 for a minute, 500 again, on an upstream that can take 600.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;
use serde_json::json;
use tokio::time::sleep;

use super::{Run, gateway};
use crate::bench::{process, table};
use crate::http_load::schedule::Phase;
use crate::http_load::shape::Shape;
use crate::http_load::{Load, OnFailure, Plan};
use crate::ingest::{Gateway, KEY, nothing_lost};
use crate::upstream::analysis::{done_per_second, refused_share};
use crate::upstream::handle::Upstream;
use crate::upstream::settings::Settings;

const USUAL: f64 = 500.0;
const SPIKE: f64 = 5_000.0;
/// 30 workers of 50 ms.
const CAPACITY: f64 = 600.0;
const BEFORE_SECONDS: f64 = 10.0;
const AFTER_SECONDS: f64 = 30.0;
/// A spike of a minute leaves some 260,000 requests, which take seven minutes and a half.
const DRAIN_MAX: Duration = Duration::from_secs(1200);

#[derive(Debug, Serialize)]
struct Row {
    killed: bool,
    sent: u64,
    accepted: u64,
    refused: u64,
    in_doubt: u64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    delivered: u64,
    twice: u64,
    /// Of capacity, from a second into the spike to the end of the queue.
    used: f64,
    refused_share: f64,
    drain_seconds: f64,
    cpu_cores: f64,
    private_kb_before: u64,
    private_kb_max: u64,
    restart_seconds: Option<f64>,
}

/// What was seen of the gateway while the load ran.
struct Watched {
    private_kb_max: u64,
    cpu_seconds: f64,
    restart_seconds: Option<f64>,
}

/// Runs it, with the gateway killed in the middle if wanted.
pub async fn run(run: &Run, kill: bool) -> Result<()> {
    let settings = Settings {
        workers: 30,
        service_ms: 50.0,
        line: 60,
        ..Settings::default()
    };
    let upstream = Upstream::start(settings).await?;
    let mut server = Gateway::start(&gateway(&upstream.url(), "Group")).await?;
    let private_kb_before = process::private_kb(server.sluice.pid())?;
    let load = Load::start(plan(run, &server, kill))?;
    let mut watched = watch(run, &mut server, kill).await?;
    let outcome = load.outcome().await?;
    watched.cpu_seconds += process::cpu_seconds(server.sluice.pid())?;
    let drain = Instant::now();
    while server.waiting().await? > 0.0 {
        ensure!(drain.elapsed() < DRAIN_MAX, "not drained in {DRAIN_MAX:?}");
        sleep(Duration::from_millis(500)).await;
        watched.see(&server)?;
    }
    let drain_seconds = drain.elapsed().as_secs_f64();
    nothing_lost(&upstream, &outcome).await?;
    let stats = upstream.stats().await?;
    let records = upstream.records().await?;
    let from = outcome.began_ns + ((BEFORE_SECONDS + 1.0) * 1e9) as u64;
    let last = records
        .iter()
        .map(|record| record.done_ns)
        .max()
        .unwrap_or(0);
    let row = Row {
        killed: kill,
        sent: outcome.sent,
        accepted: outcome.acked,
        refused: outcome.refused(),
        in_doubt: outcome.in_doubt.len() as u64,
        p50_ms: outcome.latency_ms(0.5),
        p99_ms: outcome.latency_ms(0.99),
        p999_ms: outcome.latency_ms(0.999),
        max_ms: outcome.latency_ms(1.0),
        delivered: stats.applied,
        twice: stats.duplicates_ignored + stats.repeated,
        used: done_per_second(&records, from, last.saturating_sub(1_000_000_000)) / CAPACITY,
        refused_share: refused_share(&records),
        drain_seconds,
        cpu_cores: watched.cpu_seconds / outcome.seconds(),
        private_kb_before,
        private_kb_max: watched.private_kb_max,
        restart_seconds: watched.restart_seconds,
    };
    let name = if kill { "spike-kill" } else { "spike" };
    run.write(name, &row)?;
    table::say(&serde_json::to_string_pretty(&json!({ name: row }))?)?;
    judge(&row)
}

fn spike_seconds(run: &Run) -> f64 {
    run.pick(60.0, 10.0)
}

fn plan(run: &Run, server: &Gateway, kill: bool) -> Plan {
    let phases = vec![
        Phase::rate(USUAL, BEFORE_SECONDS),
        Phase::rate(SPIKE, spike_seconds(run)),
        Phase::rate(USUAL, AFTER_SECONDS),
    ];
    let on_failure = if kill {
        OnFailure::Retry(Duration::from_millis(200))
    } else {
        OnFailure::GoOn
    };
    Plan {
        shape: Shape::post(KEY, 400),
        connections: 500,
        devices: 20_000,
        on_failure,
        ..Plan::new(server.address(), KEY, phases)
    }
}

/// Watches the gateway while the load runs; kills it in the middle of the spike and starts it again, if wanted.
async fn watch(run: &Run, server: &mut Gateway, kill: bool) -> Result<Watched> {
    let began = Instant::now();
    let middle = Duration::from_secs_f64(BEFORE_SECONDS + spike_seconds(run) / 2.0);
    let end = Duration::from_secs_f64(BEFORE_SECONDS + spike_seconds(run) + AFTER_SECONDS);
    let mut watched = Watched {
        private_kb_max: 0,
        cpu_seconds: 0.0,
        restart_seconds: None,
    };
    while began.elapsed() < end {
        sleep(Duration::from_secs(1)).await;
        watched.see(server)?;
        if kill && watched.restart_seconds.is_none() && began.elapsed() > middle {
            watched.cpu_seconds = process::cpu_seconds(server.sluice.pid())?;
            server.kill()?;
            let down = Instant::now();
            server.restart().await?;
            watched.restart_seconds = Some(down.elapsed().as_secs_f64());
        }
    }
    Ok(watched)
}

impl Watched {
    fn see(&mut self, server: &Gateway) -> Result<()> {
        let private_kb = process::private_kb(server.sluice.pid())?;
        self.private_kb_max = self.private_kb_max.max(private_kb);
        Ok(())
    }
}

/// What must be true of it.
fn judge(row: &Row) -> Result<()> {
    ensure!(row.refused == 0, "{} refused", row.refused);
    ensure!(row.killed || row.p99_ms < 25.0, "p99 {:.1} ms", row.p99_ms);
    ensure!(row.used >= 0.95, "{:.1} % used", row.used * 100.0);
    ensure!(
        row.refused_share < 0.01,
        "{:.2} % refused upstream",
        row.refused_share * 100.0
    );
    ensure!(row.killed || row.twice == 0, "{} twice", row.twice);
    table::say("as promised: all answered, in time, none lost, order kept, upstream used")
}
