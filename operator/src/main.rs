//! The `sluice-operator` binary: reads the command line, prepares the process, and hands over to `app`.

use std::process::ExitCode;

use clap::Parser;
use sluice_operator::args::{Args, Command};
use sluice_operator::{app, telemetry, trial};
use tracing::error;

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    telemetry::init(args.log_format, &args.log_level);
    let ended = match &args.command {
        Some(Command::Test { operator }) => match app::client("test").await {
            Ok(client) => trial::run(client, operator).await,
            Err(failure) => Err(failure),
        },
        None => app::run(args).await,
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            error!("{failure:#}");
            ExitCode::FAILURE
        }
    }
}
