//! `just bench-relay`: Sluice beside its peers and the kernel's limit; `sluice_e2e::bench` says how.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use sluice_e2e::bench::floor::Floor;
use sluice_e2e::bench::run::Run;
use sluice_e2e::bench::server::Kind;
use sluice_e2e::bench::{connections, crash, fanout, fleet, overload, redis, table};

/// Measures the relay of every server present.
#[derive(Parser)]
#[command(name = "bench-relay")]
struct Args {
    /// What to measure; nothing named: everything that one process per server does.
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// Servers to measure instead of all that are present.
    #[arg(long = "server", value_enum)]
    servers: Vec<Kind>,
    /// The servers compared keep their state in Redis: one server, or a cluster. Those that cannot stay out.
    #[arg(long, value_enum)]
    redis: Option<redis::Mode>,
    /// Clients of a crash.
    #[arg(long, default_value_t = 15_000)]
    clients: usize,
    /// Publications per second in a crash, over all channels together.
    #[arg(long, default_value_t = 150.0)]
    rate: f64,
    /// Seconds-long cases with fewer clients, to try it out.
    #[arg(long)]
    quick: bool,
    /// Where configurations, logs and results go.
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    Idle,
    Fanout,
    Pairs,
    Connect,
    Storm,
    Drain,
    /// Three data planes on a Redis Cluster, one of which is killed.
    Crash,
    /// What idle clients of three data planes cost Redis.
    SharedIdle,
    /// What publications through three data planes cost Redis.
    Published,
}

impl Scenario {
    /// Several data planes, and Sluice only.
    fn of_fleet(self) -> bool {
        matches!(self, Self::Crash | Self::SharedIdle | Self::Published)
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    std::fs::create_dir_all(&args.folder)?;
    // nginx wants absolute paths.
    let folder = args.folder.canonicalize()?;
    let present = Kind::ALL
        .into_iter()
        .filter(|kind| kind.program().is_some())
        .filter(|kind| args.redis.is_none() || kind.keeps_state_in_redis());
    let servers: Vec<Kind> = present
        .filter(|kind| args.servers.is_empty() || args.servers.contains(kind))
        .collect();
    ensure!(
        !servers.is_empty(),
        "none of the servers asked for is present"
    );
    table::say(&format!("servers: {servers:?}"))?;
    let run = Run {
        floor: Floor::build(&folder)?,
        folder,
        servers,
        redis: args.redis,
        quick: args.quick,
    };
    let wanted = |scenario: Scenario| {
        args.scenarios.contains(&scenario) || args.scenarios.is_empty() && !scenario.of_fleet()
    };
    for scenario in Scenario::value_variants() {
        if !wanted(*scenario) {
            continue;
        }
        match scenario {
            Scenario::Idle => connections::idle(&run)?,
            Scenario::Fanout => fanout::fanout(&run)?,
            Scenario::Pairs => fanout::pairs(&run)?,
            Scenario::Connect => connections::connect(&run)?,
            Scenario::Storm => overload::storm(&run)?,
            Scenario::Drain => overload::drain(&run)?,
            Scenario::Crash => crash::crash(&run, args.clients, args.rate)?,
            Scenario::SharedIdle => fleet::idle(&run)?,
            Scenario::Published => fleet::published(&run)?,
        }
    }
    Ok(())
}
