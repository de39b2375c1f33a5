//! One worker process of the load generator; `sluice_e2e::load` says how it works.

use clap::Parser;
use sluice_e2e::load::{args::Args, worker};

fn main() -> anyhow::Result<()> {
    worker::run(Args::parse())
}
