//! What connections cost while nothing happens, and what a connect costs.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;

use super::process;
use super::run::Run;
use super::server::{Kind, Needs};
use super::table;
use super::workers::Workers;

/// Connections of a full idle run: what fits under 20,000 descriptors of a server.
const IDLE_CLIENTS: usize = 18_000;
/// Two intervals of the pings every server but Nchan sends every 25 s.
const IDLE_SECONDS: u64 = 50;
/// After connecting, before measuring: allocators and collectors settle.
const SETTLE_SECONDS: u64 = 5;
/// Clients that connect over and over at the same time.
const CONNECT_CLIENTS: usize = 64;

#[derive(Debug, Serialize)]
struct Idle {
    server: Kind,
    connections: u64,
    refused: u64,
    lost: u64,
    kb_per_connection: f64,
    cores_per_100k: f64,
    pings: u64,
    seconds: f64,
    memory_vs_centrifugo: Option<f64>,
    cpu_vs_centrifugo: Option<f64>,
}

/// Process memory per idle connection, CPU per 100,000 of them.
pub fn idle(run: &Run) -> Result<()> {
    let mut rows = Vec::new();
    for &kind in &run.servers {
        rows.push(idle_on(run, kind)?);
    }
    let peer = rows.iter().find(|row| row.server == Kind::Centrifugo);
    let peer = peer.map(|row| (row.kb_per_connection, row.cores_per_100k));
    for row in &mut rows {
        row.memory_vs_centrifugo = peer.map(|(memory, _)| row.kb_per_connection / memory);
        row.cpu_vs_centrifugo = peer.map(|(_, cpu)| row.cores_per_100k / cpu);
    }
    run.write("idle", &rows)?;
    let mut lines = vec![table::head(&[
        "server",
        "connections",
        "KB each",
        "/ centrifugo",
        "cores per 100,000",
        "/ centrifugo",
        "pings",
        "lost",
    ])];
    lines.extend(rows.iter().map(|row| {
        vec![
            format!("{:?}", row.server),
            row.connections.to_string(),
            format!("{:.2}", row.kb_per_connection),
            table::ratio(row.memory_vs_centrifugo),
            format!("{:.3}", row.cores_per_100k),
            table::ratio(row.cpu_vs_centrifugo),
            row.pings.to_string(),
            row.lost.to_string(),
        ]
    }));
    table::print("idle connections", &lines)
}

fn idle_on(run: &Run, kind: Kind) -> Result<Idle> {
    let server = kind.start(&run.folder, Needs::default())?;
    let empty_kb = process::private_kb(server.pid)?;
    let clients = run.pick(IDLE_CLIENTS, 2_000);
    // Each subscribes to a channel of its own: the idle client of a real fleet has one.
    let mut workers = Workers::start(
        &server,
        "hold",
        clients,
        &[("channels", clients.to_string())],
    )?;
    workers.go()?;
    sleep(Duration::from_secs(run.pick(SETTLE_SECONDS, 1)));
    let (began, cpu) = (Instant::now(), process::cpu_seconds(server.pid)?);
    sleep(Duration::from_secs(run.pick(IDLE_SECONDS, 5)));
    let seconds = began.elapsed().as_secs_f64();
    let cores = (process::cpu_seconds(server.pid)? - cpu) / seconds;
    let used_kb = process::private_kb(server.pid)?.saturating_sub(empty_kb);
    let report = workers.stop()?;
    let connections = report.connected.max(1) as f64;
    Ok(Idle {
        server: kind,
        connections: report.connected,
        refused: report.refused.values().sum(),
        lost: report.closes.values().sum(),
        kb_per_connection: used_kb as f64 / connections,
        cores_per_100k: cores * 100_000.0 / connections,
        pings: report.pings,
        seconds,
        memory_vs_centrifugo: None,
        cpu_vs_centrifugo: None,
    })
}

#[derive(Debug, Serialize)]
struct Connect {
    server: Kind,
    connects: u64,
    refused: u64,
    connects_per_second: f64,
    connects_per_cpu_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    vs_centrifugo: Option<f64>,
}

/// Connects (TCP, upgrade, connect, subscribe, close) per CPU second of the server.
pub fn connect(run: &Run) -> Result<()> {
    let mut rows = Vec::new();
    for &kind in &run.servers {
        rows.push(connect_on(run, kind)?);
    }
    let peer = rows
        .iter()
        .find(|row| row.server == Kind::Centrifugo)
        .map(|row| row.connects_per_cpu_second);
    for row in &mut rows {
        row.vs_centrifugo = peer.map(|peer| row.connects_per_cpu_second / peer);
    }
    run.write("connect", &rows)?;
    let mut lines = vec![table::head(&[
        "server",
        "per CPU s",
        "/ centrifugo",
        "per s",
        "p50 ms",
        "p99 ms",
        "refused",
    ])];
    lines.extend(rows.iter().map(|row| {
        vec![
            format!("{:?}", row.server),
            format!("{:.0}", row.connects_per_cpu_second),
            table::ratio(row.vs_centrifugo),
            format!("{:.0}", row.connects_per_second),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p99_ms),
            row.refused.to_string(),
        ]
    }));
    table::print("connects", &lines)
}

fn connect_on(run: &Run, kind: Kind) -> Result<Connect> {
    let server = kind.start(&run.folder, Needs::default())?;
    let seconds: f64 = run.pick(8.0, 2.0);
    let more = [
        ("channels", CONNECT_CLIENTS.to_string()),
        ("seconds", seconds.to_string()),
    ];
    let mut workers = Workers::start(&server, "reconnect", CONNECT_CLIENTS, &more)?;
    let cpu = process::cpu_seconds(server.pid)?;
    workers.go()?;
    let report = workers.report()?;
    let cpu = process::cpu_seconds(server.pid)? - cpu;
    Ok(Connect {
        server: kind,
        connects: report.accepted,
        refused: report.refused.values().sum(),
        connects_per_second: report.accepted as f64 / seconds,
        connects_per_cpu_second: report.accepted as f64 / cpu,
        p50_ms: report.latency.quantile(0.5) as f64 / 1e6,
        p99_ms: report.latency.quantile(0.99) as f64 / 1e6,
        vs_centrifugo: None,
    })
}
