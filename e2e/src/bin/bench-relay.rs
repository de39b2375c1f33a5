//! `just bench-relay`: Sluice beside its peers and the kernel's limit; `sluice_e2e::bench` says how.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use sluice_e2e::bench::floor::Floor;
use sluice_e2e::bench::run::Run;
use sluice_e2e::bench::server::Kind;
use sluice_e2e::bench::{connections, fanout, overload, table};

/// Measures the relay of every server present.
#[derive(Parser)]
#[command(name = "bench-relay")]
struct Args {
    /// What to measure; nothing named: everything.
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// Servers to measure instead of all that are present.
    #[arg(long = "server", value_enum)]
    servers: Vec<Kind>,
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
}

fn main() -> Result<()> {
    let args = Args::parse();
    std::fs::create_dir_all(&args.folder)?;
    // nginx wants absolute paths.
    let folder = args.folder.canonicalize()?;
    let present = Kind::ALL
        .into_iter()
        .filter(|kind| kind.program().is_some());
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
        quick: args.quick,
    };
    let wanted = |scenario| args.scenarios.is_empty() || args.scenarios.contains(&scenario);
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
        }
    }
    Ok(())
}
