//! A backlog of millions: what it costs in memory and on disk, and how long a restart with it takes.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::{Run, paused};
use crate::bench::{process, table};
use crate::http_load::schedule::Phase;
use crate::http_load::{Load, Plan};
use crate::ingest::{Gateway, KEY};

const ENTRIES: u64 = 10_000_000;
/// Each step shows that memory grows by entries and not otherwise.
const STEPS: u64 = 10;

#[derive(Debug, Serialize)]
struct Step {
    entries: u64,
    private_kb: u64,
    stored_bytes: f64,
}

#[derive(Debug, Serialize)]
struct Row {
    entries: u64,
    empty_kb: u64,
    full_kb: u64,
    bytes_per_entry: f64,
    stored_bytes_per_entry: f64,
    accepted_per_second: f64,
    restart_seconds: f64,
    restarted_kb: u64,
    steps: Vec<Step>,
}

/// Fills a queue, kills the gateway and starts it again.
pub async fn run(run: &Run) -> Result<()> {
    let entries = run.pick(ENTRIES, 200_000);
    let mut server = Gateway::start(&paused("http://127.0.0.1:1", "Group")).await?;
    let empty_kb = process::private_kb(server.sluice.pid())?;
    let began = Instant::now();
    let mut steps = Vec::new();
    let mut accepted = 0;
    for step in 1..=STEPS {
        accepted += fill(&server, entries * step / STEPS - accepted, accepted).await?;
        steps.push(Step {
            entries: accepted,
            private_kb: process::private_kb(server.sluice.pid())?,
            stored_bytes: server
                .metric("sluice_ingest_queue_stored_bytes", "")
                .await?,
        });
        table::say(&format!("{:?}", steps.last()))?;
    }
    let accepted_per_second = accepted as f64 / began.elapsed().as_secs_f64();
    let full_kb = process::private_kb(server.sluice.pid())?;
    let stored = steps.last().map_or(0.0, |step| step.stored_bytes);
    server.kill()?;
    let began = Instant::now();
    server.restart().await?;
    let restart_seconds = began.elapsed().as_secs_f64();
    let waiting = server.waiting().await?;
    ensure!(
        waiting == accepted as f64,
        "{accepted} accepted, {waiting} after the restart"
    );
    let row = Row {
        entries: accepted,
        empty_kb,
        full_kb,
        bytes_per_entry: (full_kb.saturating_sub(empty_kb) * 1024) as f64 / accepted as f64,
        stored_bytes_per_entry: stored / accepted as f64,
        accepted_per_second,
        restart_seconds,
        restarted_kb: process::private_kb(server.sluice.pid())?,
        steps,
    };
    run.write("backlog", &row)?;
    let lines = [
        table::head(&[
            "entries",
            "memory MB",
            "bytes each",
            "on disk each",
            "accepted per s",
            "restart s",
            "memory MB then",
        ]),
        vec![
            row.entries.to_string(),
            (row.full_kb / 1024).to_string(),
            format!("{:.1}", row.bytes_per_entry),
            format!("{:.1}", row.stored_bytes_per_entry),
            format!("{:.0}", row.accepted_per_second),
            format!("{:.2}", row.restart_seconds),
            (row.restarted_kb / 1024).to_string(),
        ],
    ];
    table::print("a backlog", &lines)
}

/// Sends at least so many requests, flat out.
async fn fill(server: &Gateway, wanted: u64, before: u64) -> Result<u64> {
    let mut plan = Plan::new(server.address(), KEY, vec![Phase::flat_out(600.0)]);
    plan.connections = 256;
    plan.devices = 100_000;
    // Other devices each time: numbers begin anew.
    plan.first_device = (before / 100) as usize;
    let load = Load::start(plan)?;
    while load.acked() < wanted {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    load.stop();
    let outcome = load.outcome().await?;
    ensure!(outcome.refused() == 0, "{:?}", outcome.statuses);
    Ok(outcome.acked)
}
