//! Deliveries: what one CPU second of a server delivers, beside the kernel's limit and the other servers, and how
//! late. Pairs (client to client) are a case of it.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;
use tokio::runtime::Builder;

use super::process;
use super::redis::Servers;
use super::run::Run;
use super::server::{Kind, Needs, Server};
use super::table;
use super::workers::Workers;
use crate::load::report::Report;

/// How the publishers are paced.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pace {
    /// Messages in flight per publisher.
    Window(usize),
    /// Deliveries per second, all together.
    Deliveries(u32),
    /// Half of what the same server delivered in the case before.
    HalfLoad,
    /// Clients two by two, one message in flight per pair.
    Pairs,
}

/// One shape of load.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Case {
    channels: usize,
    subscribers: usize,
    size: usize,
    pace: Pace,
}

/// One case on one server.
#[derive(Debug, Serialize)]
pub struct Row {
    case: Case,
    server: Kind,
    deliveries: u64,
    /// Deliveries that the number of messages promised and that did not come. A few are on their way when time is up.
    missing: u64,
    lost_connections: u64,
    deliveries_per_second: f64,
    cpu_seconds: f64,
    /// Of all its Redis servers; no part of `cpu_seconds`.
    redis_cpu_seconds: f64,
    deliveries_per_cpu_second: f64,
    bytes_per_delivery: f64,
    /// From the clients' reads, so an upper estimate of messages per server write.
    messages_per_read: f64,
    p50_ms: f64,
    p99_ms: f64,
    private_kb: u64,
    /// Sends per CPU second of `floor.c` with as many connections and bytes.
    floor: f64,
    vs_floor: f64,
    /// Against the limit times messages per read.
    vs_floor_batched: f64,
    vs_nchan: Option<f64>,
    vs_centrifugo: Option<f64>,
    p99_vs_centrifugo: Option<f64>,
    /// Against `limit.c`, where messages come at a rate that it stands.
    p99_vs_limit: Option<f64>,
}

const fn case(channels: usize, subscribers: usize, size: usize, pace: Pace) -> Case {
    Case {
        channels,
        subscribers,
        size,
        pace,
    }
}

const FANOUT: [Case; 9] = [
    case(1, 1_000, 128, Pace::Window(1)),
    case(1, 1_000, 128, Pace::HalfLoad),
    case(1, 1_000, 128, Pace::Deliveries(20_000)),
    case(1, 1_000, 128, Pace::Window(16)),
    case(100, 100, 128, Pace::Window(1)),
    case(100, 100, 128, Pace::Deliveries(20_000)),
    case(1, 10_000, 128, Pace::Window(1)),
    case(1, 100, 16 * 1024, Pace::Window(1)),
    case(1, 1_000, 16 * 1024, Pace::Window(1)),
];
/// `subscribers` is the number of clients here.
const PAIRS: [Case; 1] = [case(1, 200, 128, Pace::Pairs)];

/// Runs the fan-out cases.
pub fn fanout(run: &Run) -> Result<()> {
    cases(run, "fanout", &FANOUT)
}

/// Runs client to client.
pub fn pairs(run: &Run) -> Result<()> {
    cases(run, "pairs", &PAIRS)
}

fn cases(run: &Run, scenario: &str, cases: &[Case]) -> Result<()> {
    let scenario = match run.redis {
        Some(mode) => format!("{scenario}-redis-{mode:?}").to_lowercase(),
        None => scenario.to_owned(),
    };
    let mut rows: Vec<Row> = Vec::new();
    for case in cases {
        let first = rows.len();
        let mut floor = None;
        for server in servers(run, case) {
            let before = rows
                .iter()
                .rfind(|row| row.server == server)
                .map(|row| row.deliveries_per_second);
            let row = measure(run, *case, server, before, &mut floor)?;
            table::say(&format!(
                "{} {server:?}: {:.0} deliveries per CPU second",
                name(case),
                row.deliveries_per_cpu_second
            ))?;
            rows.push(row);
        }
        compare(&mut rows[first..]);
        // After every case, so that an interrupted run leaves what it has.
        run.write(&scenario, &rows)?;
    }
    print(&scenario, &rows)
}

fn servers(run: &Run, case: &Case) -> impl Iterator<Item = Kind> {
    let limited = matches!(case.pace, Pace::Deliveries(_)) && run.redis.is_none();
    run.servers
        .iter()
        .copied()
        .chain(limited.then_some(Kind::Limit))
}

fn measure(
    run: &Run,
    case: Case,
    kind: Kind,
    before: Option<f64>,
    floor: &mut Option<f64>,
) -> Result<Row> {
    let redis = start_redis(run)?;
    let needs = Needs {
        redis: redis.as_ref().map(Servers::url),
        ..Needs::default()
    };
    let server = kind.start(&run.folder, needs)?;
    let redis_before;
    let seconds = run.pick(6.0, 2.0);
    let cpu_before;
    let (report, published) = if matches!(case.pace, Pace::Pairs) {
        let mut clients = pair_clients(&server, case, seconds)?;
        (cpu_before, redis_before) = (
            process::cpu_seconds(server.pid)?,
            redis_cpu(redis.as_ref())?,
        );
        clients.go()?;
        let report = clients.report()?;
        // One message per pair is on its way when time is up; that is none missing.
        let published = report.deliveries;
        (report, published)
    } else {
        let mut subscribers = Workers::start(
            &server,
            "hold",
            case.channels * case.subscribers,
            &[("channels", case.channels.to_string())],
        )?;
        let mut publishers = publishers(&server, case, before, seconds)?;
        (cpu_before, redis_before) = (
            process::cpu_seconds(server.pid)?,
            redis_cpu(redis.as_ref())?,
        );
        subscribers.go()?;
        publishers.go()?;
        let published = publishers.report()?.published;
        // What was published last is still on its way.
        sleep(Duration::from_millis(500));
        (subscribers.stop()?, published)
    };
    let cpu_seconds = process::cpu_seconds(server.pid)? - cpu_before;
    let redis_cpu_seconds = redis_cpu(redis.as_ref())? - redis_before;
    let private_kb = process::private_kb(server.pid)?;
    drop(server);
    let receivers = if matches!(case.pace, Pace::Pairs) {
        1
    } else {
        case.subscribers
    };
    let expected = published * receivers as u64;
    let bytes = report.received_bytes as f64 / report.deliveries.max(1) as f64;
    if floor.is_none() {
        let connections = case.channels * case.subscribers;
        let sends = run.pick(150_000, 50_000);
        *floor = Some(run.floor.sends_per_cpu_second(
            connections.min(9_000),
            bytes as usize,
            sends,
        )?);
    }
    Ok(row(
        case,
        kind,
        &report,
        expected,
        seconds,
        [cpu_seconds, redis_cpu_seconds],
        private_kb,
        floor.unwrap_or(f64::NAN),
    ))
}

fn start_redis(run: &Run) -> Result<Option<Servers>> {
    let Some(mode) = run.redis else {
        return Ok(None);
    };
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(Servers::start(mode)).map(Some)
}

/// CPU seconds of all Redis servers so far.
fn redis_cpu(redis: Option<&Servers>) -> Result<f64> {
    let nodes = redis.map(Servers::nodes).unwrap_or_default();
    nodes
        .iter()
        .map(|node| process::cpu_seconds(node.pid()))
        .sum()
}

fn pair_clients(server: &Server, case: Case, seconds: f64) -> Result<Workers> {
    let more = [
        ("size", case.size.to_string()),
        ("prefix", "p".to_owned()),
        ("seconds", seconds.to_string()),
    ];
    Workers::start(server, "pairs", case.subscribers, &more)
}

fn publishers(server: &Server, case: Case, before: Option<f64>, seconds: f64) -> Result<Workers> {
    let mut more = vec![
        ("channels", case.channels.to_string()),
        ("size", case.size.to_string()),
        ("seconds", seconds.to_string()),
    ];
    let deliveries = match case.pace {
        Pace::Window(window) => {
            more.push(("window", window.to_string()));
            None
        }
        Pace::Deliveries(deliveries) => Some(f64::from(deliveries)),
        Pace::HalfLoad => before.map(|deliveries| deliveries / 2.0),
        Pace::Pairs => None,
    };
    if let Some(deliveries) = deliveries {
        more.push(("rate", (deliveries / case.subscribers as f64).to_string()));
    }
    // One publisher per channel: a connection of Nchan publishes to one channel only.
    Workers::start(server, "publish", case.channels, &more)
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of one row, named as its fields"
)]
fn row(
    case: Case,
    server: Kind,
    report: &Report,
    expected: u64,
    seconds: f64,
    [cpu_seconds, redis_cpu_seconds]: [f64; 2],
    private_kb: u64,
    floor: f64,
) -> Row {
    let deliveries = report.deliveries as f64;
    let per_cpu = deliveries / cpu_seconds;
    let messages_per_read = deliveries / report.reads.max(1) as f64;
    Row {
        case,
        server,
        deliveries: report.deliveries,
        missing: expected.saturating_sub(report.deliveries),
        lost_connections: report.closes.values().sum(),
        deliveries_per_second: deliveries / seconds,
        cpu_seconds,
        redis_cpu_seconds,
        deliveries_per_cpu_second: per_cpu,
        bytes_per_delivery: report.received_bytes as f64 / deliveries.max(1.0),
        messages_per_read,
        p50_ms: report.latency.quantile(0.5) as f64 / 1e6,
        p99_ms: report.latency.quantile(0.99) as f64 / 1e6,
        private_kb,
        floor,
        vs_floor: per_cpu / floor,
        vs_floor_batched: per_cpu / (floor * messages_per_read.max(1.0)),
        vs_nchan: None,
        vs_centrifugo: None,
        p99_vs_centrifugo: None,
        p99_vs_limit: None,
    }
}

/// Fills in the ratios between the servers of one case.
fn compare(rows: &mut [Row]) {
    let of = |kind: Kind, rows: &[Row]| {
        rows.iter()
            .find(|row| row.server == kind)
            .map(|row| (row.deliveries_per_cpu_second, row.p99_ms))
    };
    let [nchan, centrifugo, limit] =
        [Kind::Nchan, Kind::Centrifugo, Kind::Limit].map(|kind| of(kind, rows));
    for row in rows {
        row.vs_nchan = nchan.map(|(peer, _)| row.deliveries_per_cpu_second / peer);
        row.vs_centrifugo = centrifugo.map(|(peer, _)| row.deliveries_per_cpu_second / peer);
        row.p99_vs_centrifugo = centrifugo.map(|(_, peer)| row.p99_ms / peer);
        row.p99_vs_limit = limit.map(|(_, limit)| row.p99_ms / limit);
    }
}

fn name(case: &Case) -> String {
    let Case {
        channels,
        subscribers,
        size,
        pace,
    } = case;
    let pace = match pace {
        Pace::Window(window) => format!("{window} in flight"),
        Pace::Deliveries(deliveries) => format!("{deliveries}/s"),
        Pace::HalfLoad => "half load".to_owned(),
        Pace::Pairs => return format!("{subscribers} clients in pairs, {size} B"),
    };
    format!("{channels} x {subscribers}, {size} B, {pace}")
}

fn print(scenario: &str, rows: &[Row]) -> Result<()> {
    let mut lines = vec![table::head(&[
        "case",
        "server",
        "per CPU s",
        "/ floor",
        "/ floor batched",
        "/ nchan",
        "/ centrifugo",
        "msgs/read",
        "p50 ms",
        "p99 ms",
        "p99 / centrifugo",
        "p99 / limit",
        "per s",
        "missing",
        "lost conns",
        "MB",
        "CPU s",
        "Redis CPU s",
    ])];
    for row in rows {
        lines.push(vec![
            name(&row.case),
            format!("{:?}", row.server),
            format!("{:.0}", row.deliveries_per_cpu_second),
            ratio(row.vs_floor),
            ratio(row.vs_floor_batched),
            table::ratio(row.vs_nchan),
            table::ratio(row.vs_centrifugo),
            format!("{:.1}", row.messages_per_read),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p99_ms),
            table::ratio(row.p99_vs_centrifugo),
            table::ratio(row.p99_vs_limit),
            format!("{:.0}", row.deliveries_per_second),
            row.missing.to_string(),
            row.lost_connections.to_string(),
            (row.private_kb / 1024).to_string(),
            format!("{:.2}", row.cpu_seconds),
            format!("{:.2}", row.redis_cpu_seconds),
        ]);
    }
    table::print(&format!("{scenario} (deliveries)"), &lines)
}

fn ratio(value: f64) -> String {
    table::ratio(Some(value))
}
