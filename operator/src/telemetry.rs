//! Logs: to standard error, as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::args::LogFormat;

/// Installs the subscriber of the process; the filter was parsed before.
pub fn init(format: LogFormat, filter: &str) {
    let output = fmt::layer().with_writer(std::io::stderr);
    let output = match format {
        LogFormat::Text => output.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => output.json().flatten_event(true).boxed(),
    };
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // Fails only when there is one already, which then serves.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(output)
        .try_init();
}
