//! `sluice top`: what a running gateway takes in, delivers and serves, asked over its admin port again and again.
//!
//! Rates are differences of two looks. On a terminal each look replaces the one before; else they follow each other. Exit codes:
//! 0 done, 1 failed, 2 wrong command line.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::Value;

use self::figures::Figures;
use crate::admin_client::Client;
use crate::args::TopArgs;

mod figures;
mod page;

/// Moves to the first line, and clears what is below.
const AGAIN: &str = "\x1b[H\x1b[J";
/// A gateway that does not answer for a moment is waited for.
const MISSES_MAX: u32 = 5;

/// How it was at one time.
struct Look {
    at: Instant,
    figures: Figures,
    /// As `GET /lanes` has it; `None`: there is no ingest.
    lanes: Option<Value>,
}

pub fn run(args: &TopArgs) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(follow(args, &mut io::stdout().lock())),
        Err(failure) => Err(failure.to_string()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            // When nobody reads problems, the exit code has to do.
            let _ = writeln!(io::stderr(), "error: {problem}");
            ExitCode::FAILURE
        }
    }
}

async fn follow(args: &TopArgs, output: &mut (impl Write + IsTerminal)) -> Result<(), String> {
    let client = Client::new(args.admin);
    let mut before = look(&client).await?;
    let mut misses = 0;
    loop {
        tokio::time::sleep(Duration::from_secs(args.interval)).await;
        let shown = match look(&client).await {
            Ok(now) => {
                misses = 0;
                let shown = page::page(&before, &now);
                before = now;
                shown
            }
            Err(problem) if args.once || misses >= MISSES_MAX => return Err(problem),
            Err(problem) => {
                misses += 1;
                let seconds = before.at.elapsed().as_secs();
                format!("{problem}; the last figures are {seconds} s old\n")
            }
        };
        let is_replaced = output.is_terminal() && !args.once;
        let again = if is_replaced { AGAIN } else { "" };
        let written = output
            .write_all(format!("{again}{shown}").as_bytes())
            .and_then(|()| output.flush());
        match written {
            // Whoever read has enough of it, as `head` does.
            Err(failure) if failure.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            Err(failure) => return Err(failure.to_string()),
            Ok(()) if args.once => return Ok(()),
            Ok(()) => {}
        }
    }
}

async fn look(client: &Client) -> Result<Look, String> {
    let page = client.text("/metrics").await?;
    let page = page.ok_or("this is not the admin port of a gateway: it has no /metrics")?;
    let lanes = client.text("/lanes").await?;
    let lanes = lanes.map(|lanes| serde_json::from_str(&lanes));
    Ok(Look {
        at: Instant::now(),
        figures: Figures::read(&page),
        lanes: lanes.transpose().map_err(|_| "/lanes is not JSON")?,
    })
}

#[cfg(test)]
mod tests;
