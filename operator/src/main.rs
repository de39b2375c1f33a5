//! The `sluice-operator` binary: reads the command line, prepares the process, and hands over to `app`.

use std::process::ExitCode;

use clap::Parser;
use sluice_operator::args::Args;
use sluice_operator::{app, telemetry};
use tracing::error;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    telemetry::init(args.log_format, &args.log_level);
    match app::run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!("{failure:#}");
            ExitCode::FAILURE
        }
    }
}
