//! `just bench-ingest`: what ingest costs and holds, beside nginx; `sluice_e2e::bench_ingest` says how.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::{Parser, ValueEnum};
use sluice_e2e::bench_ingest::{Run, accept, backlog, deliver, redis, spike};

/// Measures ingest
#[derive(Parser)]
#[command(name = "bench-ingest")]
struct Args {
    /// What to measure; nothing named: everything
    #[arg(value_enum)]
    scenarios: Vec<Scenario>,
    /// The spike with the gateway killed in the middle
    #[arg(long)]
    kill: bool,
    /// Seconds-long cases, to try it out
    #[arg(long)]
    quick: bool,
    /// Where results go
    #[arg(long, default_value = "target/bench")]
    folder: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    Accept,
    Deliver,
    Backlog,
    Redis,
    Spike,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    ensure!(
        std::env::var_os("SLUICE_BIN").is_some(),
        "SLUICE_BIN must name the release build: run `just bench-ingest`"
    );
    std::fs::create_dir_all(&args.folder)?;
    let run = Run {
        // nginx wants absolute paths.
        folder: args.folder.canonicalize()?,
        quick: args.quick,
    };
    let wanted = |scenario| args.scenarios.is_empty() || args.scenarios.contains(&scenario);
    for scenario in Scenario::value_variants() {
        if !wanted(*scenario) {
            continue;
        }
        match scenario {
            Scenario::Accept => accept::run(&run).await?,
            Scenario::Deliver => deliver::run(&run).await?,
            Scenario::Backlog => backlog::run(&run).await?,
            Scenario::Redis => redis::run(&run).await?,
            Scenario::Spike => spike::run(&run, args.kill).await?,
        }
    }
    Ok(())
}
