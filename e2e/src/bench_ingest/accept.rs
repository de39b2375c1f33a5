//! Accepting: requests per CPU second flat out, and latency at a fixed rate, beside nginx that does nothing.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use serde::Serialize;

use super::nginx::Nginx;
use super::{Run, paused};
use crate::bench::{process, table};
use crate::http_load::outcome::Outcome;
use crate::http_load::schedule::Phase;
use crate::http_load::shape::Shape;
use crate::http_load::{Load, OnFailure, Plan};
use crate::ingest::{Gateway, KEY};

/// Nothing is delivered, and nobody must listen there.
const NO_UPSTREAM: &str = "http://127.0.0.1:1";
const CONNECTIONS: usize = 128;
const BODY_BYTES: usize = 400;
/// Of the case that measures latency.
const PER_SECOND: f64 = 5_000.0;

#[derive(Debug, Serialize)]
struct Row {
    server: String,
    requests: u64,
    requests_per_second: f64,
    cpu_seconds: f64,
    requests_per_cpu_second: f64,
    /// Of requests per CPU second.
    vs_nginx: Option<f64>,
    /// At 5,000 requests per second, from when each was due.
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// CPU seconds per second at that rate.
    cores: f64,
}

/// Who is measured: its address, and how to read its CPU seconds.
type Server<'a> = (&'a str, SocketAddr, &'a dyn Fn() -> Result<f64>);

/// Runs all durabilities and nginx.
pub async fn run(run: &Run) -> Result<()> {
    let mut rows: Vec<Row> = Vec::new();
    if Nginx::is_there() {
        let workers = std::thread::available_parallelism()?.get();
        let nginx = Nginx::start(&run.folder, workers)?;
        rows.push(
            measure(
                run,
                ("nginx return 200", nginx.address, &|| nginx.cpu_seconds()),
            )
            .await?,
        );
    } else {
        table::say("nginx is not installed: no ratios")?;
    }
    for durability in ["Memory", "Group"] {
        let gateway = Gateway::start(&paused(NO_UPSTREAM, durability)).await?;
        let pid = gateway.sluice.pid();
        let name = format!("sluice {durability}");
        let row = measure(
            run,
            (&name, gateway.address(), &|| process::cpu_seconds(pid)),
        )
        .await?;
        let waiting = gateway.waiting().await?;
        ensure!(
            waiting > row.requests as f64,
            "{waiting} are there of {}",
            row.requests
        );
        rows.push(row);
    }
    let peer = rows.first().filter(|row| row.server.starts_with("nginx"));
    if let Some(peer) = peer.map(|row| row.requests_per_cpu_second) {
        for row in &mut rows {
            row.vs_nginx = Some(row.requests_per_cpu_second / peer);
        }
    }
    run.write("accept", &rows)?;
    print(&rows)
}

async fn measure(run: &Run, (name, address, cpu): Server<'_>) -> Result<Row> {
    // Connections, caches and allocators settle.
    load(address, Phase::flat_out(1.0)).await?;
    let before = cpu()?;
    let flat_out = load(address, Phase::flat_out(run.pick(8.0, 2.0))).await?;
    let cpu_seconds = cpu()? - before;
    let before = cpu()?;
    let steady = load(address, Phase::rate(PER_SECOND, run.pick(8.0, 2.0))).await?;
    let cores = (cpu()? - before) / steady.seconds();
    let requests = flat_out.acked;
    table::say(&format!(
        "{name}: {:.0} per CPU second",
        requests as f64 / cpu_seconds
    ))?;
    Ok(Row {
        server: name.to_owned(),
        requests,
        requests_per_second: requests as f64 / flat_out.seconds(),
        cpu_seconds,
        requests_per_cpu_second: requests as f64 / cpu_seconds,
        vs_nginx: None,
        p50_ms: steady.latency_ms(0.5),
        p99_ms: steady.latency_ms(0.99),
        max_ms: steady.latency_ms(1.0),
        cores,
    })
}

async fn load(address: SocketAddr, phase: Phase) -> Result<Outcome> {
    let mut plan = Plan::new(address, KEY, vec![phase]);
    plan.shape = Shape::post(KEY, BODY_BYTES);
    plan.connections = CONNECTIONS;
    plan.devices = 10_000;
    plan.on_failure = OnFailure::GoOn;
    let outcome = Load::start(plan)?.outcome().await?;
    ensure!(
        outcome.refused() == 0 && outcome.in_doubt.is_empty(),
        "not all were accepted: {:?}",
        outcome.statuses
    );
    Ok(outcome)
}

fn print(rows: &[Row]) -> Result<()> {
    let mut lines = vec![table::head(&[
        "server",
        "per CPU s",
        "/ nginx",
        "per s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "cores at 5,000/s",
    ])];
    lines.extend(rows.iter().map(|row| {
        vec![
            row.server.clone(),
            format!("{:.0}", row.requests_per_cpu_second),
            table::ratio(row.vs_nginx),
            format!("{:.0}", row.requests_per_second),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p99_ms),
            format!("{:.2}", row.max_ms),
            format!("{:.2}", row.cores),
        ]
    }));
    table::print(
        &format!("accept, POST of {BODY_BYTES} bytes, {CONNECTIONS} connections"),
        &lines,
    )
}
