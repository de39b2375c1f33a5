//! The `sluice` binary: reads the command line, prepares the process, and hands over to `app`.
//!
//! This thread runs control work only (configuration, admin port, pressure, signals); the relay's workers are threads
//! of their own. Exit codes: 0 done, 1 failed or ended before the drain was finished, 2 wrong command line.

use std::io;
use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use sluice_dataplane::app::{self, Running};
use sluice_dataplane::args::{Args, CheckArgs, Command, ServeArgs};
use sluice_dataplane::{check, requests_cli, resources, telemetry, top};
use tracing::{error, info, warn};

/// Relay memory is many small blocks of few sizes, freed by other threads than made them.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match Args::parse().command {
        Command::Check(args) => run_check(args),
        Command::Standalone(args) => {
            let serve_args = args.serve.clone();
            report(serve(&serve_args, app::standalone(args)))
        }
        Command::Run(args) => {
            let serve_args = args.serve.clone();
            report(serve(&serve_args, app::run(args)))
        }
        Command::Requests(args) => requests_cli::run(&args),
        Command::Top(args) => top::run(&args),
    }
}

fn run_check(args: CheckArgs) -> ExitCode {
    match check::check(args, &mut io::stdout().lock()) {
        Ok(true) => ExitCode::SUCCESS,
        // A closed pipe (`| head`) is no reason to claim that all is well.
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

fn report(served: anyhow::Result<ExitCode>) -> ExitCode {
    match served {
        Ok(code) => code,
        Err(failure) => {
            error!("{failure:#}");
            ExitCode::FAILURE
        }
    }
}

fn serve(
    args: &ServeArgs,
    start: impl Future<Output = anyhow::Result<Running>>,
) -> anyhow::Result<ExitCode> {
    telemetry::init(args.log_format, &args.log_level)?;
    match resources::raise_descriptor_limit() {
        Ok(limit) => info!(limit, "descriptor limit"),
        Err(failure) => warn!(%failure, "descriptor limit cannot be raised"),
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("control runtime")?;
    runtime.block_on(async { start.await?.wait().await })
}
