//! `just bench-manager`: what a manager uses for fleets of several sizes; `sluice_e2e::bench_manager` says how.

use std::io::Write;

use anyhow::Result;
use clap::Parser;
use sluice_e2e::bench_manager::measure;

/// Measures the manager
#[derive(Parser)]
#[command(name = "bench-manager")]
struct Args {
    /// Pods
    #[arg(default_values_t = [10, 100, 1_000])]
    pods: Vec<usize>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    for pods in Args::parse().pods {
        let figures = measure(pods).await?;
        writeln!(std::io::stdout(), "{figures}")?;
    }
    Ok(())
}
