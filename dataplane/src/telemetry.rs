//! Logs: tracing to stderr as text or JSON, with a filter that can be changed while the process runs.
//!
//! Owns the process-wide subscriber and the panic hook. Never reads the environment: the filter comes from `args`.

use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use thiserror::Error;
use tracing::metadata::LevelFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::args::LogFormat;

#[derive(Debug, Error)]
pub enum TelemetryError {
    #[error(
        "{0:?} is not a log filter: expected a level (off, error, warn, info, debug, trace) or target=level, separated by commas"
    )]
    BadFilter(String),
    #[error("a log subscriber is already installed")]
    AlreadyInstalled,
    #[error("the log subscriber is gone")]
    Gone,
}

type Reload = reload::Handle<EnvFilter, Registry>;

/// The subscriber is one per process, and so is its control.
static INSTALLED: OnceLock<LogControl> = OnceLock::new();

/// Changes the log filter at run time.
#[derive(Clone)]
pub struct LogControl {
    /// `None` where no subscriber was installed.
    handle: Option<Reload>,
    current: Arc<Mutex<String>>,
}

impl LogControl {
    /// A control that remembers its filter and changes nothing.
    pub fn detached(filter: &str) -> Self {
        Self {
            handle: None,
            current: Arc::new(Mutex::new(filter.to_owned())),
        }
    }

    pub fn set(&self, filter: &str) -> Result<(), TelemetryError> {
        let parsed = parse_filter(filter)?;
        let mut current = self.current.lock();
        if let Some(handle) = &self.handle {
            handle.reload(parsed).map_err(|_| TelemetryError::Gone)?;
        }
        filter.clone_into(&mut current);
        Ok(())
    }

    pub fn current(&self) -> String {
        self.current.lock().clone()
    }
}

/// Installs the process-wide subscriber and sends panics to it.
pub fn init(format: LogFormat, filter: &str) -> Result<(), TelemetryError> {
    let (layer, handle) = reload::Layer::new(parse_filter(filter)?);
    let output = fmt::layer().with_writer(std::io::stderr);
    let output = match format {
        LogFormat::Text => output.with_ansi(std::io::stderr().is_terminal()).boxed(),
        LogFormat::Json => output.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(layer)
        .with(output)
        .try_init()
        .map_err(|_| TelemetryError::AlreadyInstalled)?;
    log_panics();
    // A second one cannot get here: `try_init` has refused it.
    let _ = INSTALLED.set(LogControl {
        handle: Some(handle),
        current: Arc::new(Mutex::new(filter.to_owned())),
    });
    Ok(())
}

/// The control of the installed subscriber, or a detached one where `init` was not called (tests).
pub fn control() -> LogControl {
    INSTALLED
        .get()
        .cloned()
        .unwrap_or_else(|| LogControl::detached("off"))
}

/// Parses a filter more strictly than tracing does: there, a misspelt level is a target, and the logs go silent.
pub fn parse_filter(text: &str) -> Result<EnvFilter, TelemetryError> {
    let bad = |part: &str| TelemetryError::BadFilter(part.to_owned());
    if text.trim().is_empty() {
        return Err(bad(text));
    }
    for directive in text.split(',').map(str::trim) {
        let level = directive
            .rsplit_once('=')
            .map_or(directive, |(_, level)| level);
        // Nothing and numbers are levels to tracing, but to nobody else.
        if level.is_empty()
            || level.parse::<LevelFilter>().is_err()
            || level.starts_with(|c: char| c.is_ascii_digit())
        {
            return Err(bad(directive));
        }
    }
    EnvFilter::builder().parse(text).map_err(|_| bad(text))
}

/// A panic is a bug; it must be visible in the same place and format as everything else.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let location = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let thread = std::thread::current();
        let text = panic.payload_as_str().unwrap_or("no text");
        tracing::error!(
            thread = thread.name().unwrap_or("unnamed"),
            location,
            "panic: {text}"
        );
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for good in [
            "info",
            "WARN",
            "off",
            "info,hyper=warn",
            "sluice_dataplane::relay=debug, error",
            "a[s{f=1}]=trace",
        ] {
            parse_filter(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        }
        for bad in [
            "", " ", "inof", "hyper", "info,", "a=loud", "3", "a=3", "=,=", "[=info",
        ] {
            assert!(parse_filter(bad).is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn a_bad_filter_leaves_the_old_one() {
        let control = LogControl::detached("info");
        control.set("debug").unwrap();
        let error = control.set("debug,verbose").unwrap_err();
        assert!(error.to_string().contains("\"verbose\""), "{error}");
        assert_eq!(control.current(), "debug");
    }

    #[test]
    fn a_new_filter_reaches_the_subscriber() {
        let (layer, handle) = reload::Layer::new(parse_filter("error").unwrap());
        let control = LogControl {
            handle: Some(handle),
            current: Arc::default(),
        };
        let _guard = tracing_subscriber::registry().with(layer).set_default();
        assert!(!tracing::enabled!(tracing::Level::DEBUG));
        control.set("debug").unwrap();
        assert!(tracing::enabled!(tracing::Level::DEBUG));
    }
}
