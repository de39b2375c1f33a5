//! The bad days: a storm of large messages, and the end of a server full of clients.

use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::process;
use super::run::Run;
use super::server::{Kind, Needs};
use super::table;
use super::workers::Workers;
use crate::load::report::ProbeSecond;

/// Clients of a storm: what fits under 20,000 descriptors of a server, with room for the probe.
const STORM_CLIENTS: usize = 18_000;
/// Bytes of a storm's messages.
const STORM_BYTES: usize = 64 * 1024;
/// What a server may use in a storm where it can be told, and what none that is measured may exceed.
const STORM_MEMORY_BYTES: u64 = 4 << 30;
/// After a storm: how long a server has to bring the server list back.
const CALM_SECONDS: u64 = 15;
/// Clients of a drain, and the time it is spread over.
const DRAIN_CLIENTS: usize = 10_000;
const DRAIN_SECONDS: u32 = 20;

#[derive(Debug, Serialize)]
struct Storm {
    server: Kind,
    connected: u64,
    refused: BTreeMap<String, u64>,
    published: u64,
    deliveries: u64,
    publish_errors: BTreeMap<u32, u64>,
    /// Storming connections lost, by close code.
    closes: BTreeMap<String, u64>,
    closes_by_second: BTreeMap<u64, u64>,
    /// What became of the probe's own connection: empty when it lived.
    probe_closes: BTreeMap<String, u64>,
    probe: Vec<ProbeSecond>,
    memory_mb_by_second: Vec<u64>,
    memory_limit_mb: u64,
    alive: bool,
}

/// 18,000 clients send 64 KiB messages without pause through 100 channels; a probe looks on, and afterwards.
pub fn storm(run: &Run) -> Result<()> {
    let mut rows = Vec::new();
    for &kind in run.servers.iter().filter(|kind| **kind != Kind::Nchan) {
        rows.push(storm_on(run, kind)?);
        run.write("storm", &rows)?;
    }
    rows.iter().try_for_each(print_storm)
}

fn storm_on(run: &Run, kind: Kind) -> Result<Storm> {
    let needs = Needs {
        presence: true,
        memory_limit_bytes: Some(STORM_MEMORY_BYTES),
        ..Needs::default()
    };
    let server = kind.start(&run.folder, needs)?;
    let clients = run.pick(STORM_CLIENTS, 1_000);
    let seconds: u64 = run.pick(60, 5);
    let channel = ("channels", "100".to_owned());
    // The probe asks for the list of a channel it does not carry the load of: prefix and storm differ.
    let mut probe = Workers::start(&server, "probe", 1, &[("prefix", "probe".to_owned())])?;
    let storm = [
        channel,
        ("size", STORM_BYTES.to_string()),
        ("concurrency", "64".to_owned()),
    ];
    let mut storming = Workers::start(&server, "storm", clients, &storm)?;
    probe.go()?;
    storming.go()?;
    let mut memory_mb_by_second = sample_memory(server.pid, seconds);
    let storm = storming.stop()?;
    memory_mb_by_second.extend(sample_memory(server.pid, run.pick(CALM_SECONDS, 5)));
    let probe = probe.stop()?;
    Ok(Storm {
        server: kind,
        connected: storm.connected,
        refused: storm.refused,
        published: storm.published,
        deliveries: storm.deliveries,
        publish_errors: storm.errors,
        closes: storm.closes,
        closes_by_second: storm.closes_by_second,
        probe_closes: probe.closes,
        probe: probe.probe,
        memory_mb_by_second,
        memory_limit_mb: STORM_MEMORY_BYTES >> 20,
        alive: process::cpu_seconds(server.pid).is_ok(),
    })
}

/// Megabytes, once a second; ends early when the process is gone.
fn sample_memory(pid: u32, seconds: u64) -> Vec<u64> {
    let mut samples = Vec::new();
    for _ in 0..seconds {
        sleep(Duration::from_secs(1));
        match process::private_kb(pid) {
            Ok(kb) => samples.push(kb / 1024),
            Err(_) => break,
        }
    }
    samples
}

fn print_storm(row: &Storm) -> Result<()> {
    let peak = row.memory_mb_by_second.iter().max().copied().unwrap_or(0);
    let mut lines = vec![
        vec![
            "clients".to_owned(),
            format!("{} (refused {:?})", row.connected, row.refused),
        ],
        vec![
            "published, delivered".to_owned(),
            format!("{}, {}", row.published, row.deliveries),
        ],
        vec![
            "publish errors by code".to_owned(),
            format!("{:?}", row.publish_errors),
        ],
        vec![
            "connections lost by code".to_owned(),
            format!("{:?}", row.closes),
        ],
        vec![
            "probe lost by code".to_owned(),
            format!("{:?}", row.probe_closes),
        ],
        vec![
            "memory peak, limit (MB)".to_owned(),
            format!("{peak}, {}", row.memory_limit_mb),
        ],
        vec!["alive afterwards".to_owned(), row.alive.to_string()],
    ];
    for second in &row.probe {
        lines.push(vec![
            format!("second {}", second.second),
            format!(
                "lists {}, list errors {:?}, list timeouts {}, connects {:?}",
                second.lists, second.list_errors, second.list_timeouts, second.connects
            ),
        ]);
    }
    table::print(&format!("storm, {:?}", row.server), &lines)
}

#[derive(Debug, Serialize)]
struct Drain {
    server: Kind,
    clients: u64,
    drain_seconds: u32,
    closes: BTreeMap<String, u64>,
    closes_by_second: BTreeMap<u64, u64>,
    first_half_ms: f64,
    last_ms: f64,
    ended_after_ms: u128,
    exit_code: Option<i32>,
}

/// SIGTERM with 10,000 clients: which codes, when.
pub fn drain(run: &Run) -> Result<()> {
    let mut rows = Vec::new();
    for &kind in run.servers.iter().filter(|kind| **kind != Kind::Nchan) {
        rows.push(drain_on(run, kind)?);
        run.write("drain", &rows)?;
    }
    let mut lines = vec![table::head(&[
        "server",
        "clients",
        "codes",
        "half after ms",
        "all after ms",
        "exit",
        "by second",
    ])];
    lines.extend(rows.iter().map(|row| {
        vec![
            format!("{:?}", row.server),
            row.clients.to_string(),
            format!("{:?}", row.closes),
            format!("{:.0}", row.first_half_ms),
            format!("{:.0}", row.last_ms),
            format!("{:?} after {} ms", row.exit_code, row.ended_after_ms),
            format!("{:?}", row.closes_by_second.values().collect::<Vec<_>>()),
        ]
    }));
    table::print(&format!("drain over {DRAIN_SECONDS} s"), &lines)
}

fn drain_on(run: &Run, kind: Kind) -> Result<Drain> {
    let drain_seconds = run.pick(DRAIN_SECONDS, 4);
    let mut server = kind.start(
        &run.folder,
        Needs {
            drain_seconds,
            ..Needs::default()
        },
    )?;
    let clients = run.pick(DRAIN_CLIENTS, 1_000);
    let mut workers = Workers::start(
        &server,
        "hold",
        clients,
        &[("channels", clients.to_string())],
    )?;
    workers.go()?;
    let began = Instant::now();
    server.terminate()?;
    let exit_code = server.wait(Duration::from_secs(u64::from(drain_seconds) * 2 + 20))?;
    let ended_after_ms = began.elapsed().as_millis();
    sleep(Duration::from_millis(500));
    let report = workers.stop()?;
    Ok(Drain {
        server: kind,
        clients: report.connected,
        drain_seconds,
        closes: report.closes,
        closes_by_second: report.closes_by_second,
        first_half_ms: report.close_times.quantile(0.5) as f64 / 1e6,
        last_ms: report.close_times.max() as f64 / 1e6,
        ended_after_ms,
        exit_code,
    })
}
