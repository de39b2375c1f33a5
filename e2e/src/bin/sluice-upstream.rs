//! A sample upstream for ingest: prints what it gets, and can be slow, limited or broken; `sluice_e2e::upstream`.

use std::io::Write;
use std::net::SocketAddr;

use anyhow::Result;
use clap::Parser;
use sluice_e2e::load::clock::now_ns;
use sluice_e2e::upstream::server::{Shared, bind};
use sluice_e2e::upstream::settings::{Settings, Spread};
use sluice_e2e::upstream::{print, state::State};
use tokio::task::{LocalSet, spawn_local};

/// Answers as a Countly server does and prints every event and request it gets
#[derive(Parser)]
#[command(name = "sluice-upstream")]
struct Args {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// A second address, for control alone; /_control, /_stats, /_records and /_users are on both
    #[arg(long, value_name = "ADDR:PORT")]
    control: Option<SocketAddr>,
    /// Requests served at the same time; the others wait in line [default: as many as come]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    workers: u32,
    /// Mean time to serve one, in milliseconds
    #[arg(long, default_value_t = 0.0)]
    service_ms: f64,
    /// How service times are spread
    #[arg(long, value_enum, default_value = "fixed")]
    spread: Spread,
    /// Requests that may wait in line; more get 503
    #[arg(long, default_value_t = 200)]
    line: u32,
    /// Requests per second; more get 429
    #[arg(long)]
    rate: Option<f64>,
    /// Requests at a time; more get 503
    #[arg(long)]
    concurrency: Option<u32>,
    /// Sent with 429 and 503, in seconds
    #[arg(long)]
    retry_after: Option<u32>,
    /// Further settings, as in POST /_control
    #[arg(
        long,
        value_name = "JSON",
        default_value = "{}",
        hide_default_value = true,
        value_parser = parse_json
    )]
    settings: serde_json::Value,
    /// Print nothing but the address
    #[arg(long)]
    quiet: bool,
}

fn parse_json(text: &str) -> Result<serde_json::Value, serde_json::Error> {
    serde_json::from_str(text)
}

impl Args {
    fn settings(&self) -> Result<Settings> {
        let settings = Settings {
            workers: self.workers,
            service_ms: self.service_ms,
            spread: self.spread,
            line: self.line,
            rate_per_second: self.rate,
            concurrency: self.concurrency,
            retry_after_s: self.retry_after,
            ..Settings::default()
        };
        settings.patched(&self.settings, now_ns())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Args::parse();
    let show = if args.quiet {
        None
    } else {
        Some(print::print as fn(&_, &_))
    };
    let shared = Shared::new(State::new(args.settings()?, show));
    let listener = bind(args.listen)?;
    let address = listener.local_addr()?;
    LocalSet::new()
        .run_until(async move {
            if let Some(control) = args.control {
                let listener = bind(control)?;
                spawn_local(shared.clone().serve_control(listener));
            }
            // Scripts wait for this line.
            writeln!(std::io::stdout(), "listening on http://{address}")?;
            shared.serve(listener).await.map(|never| match never {})
        })
        .await
}
