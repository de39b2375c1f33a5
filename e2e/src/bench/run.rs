//! What all cases of one run share, and the rows they produce.

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use super::floor::Floor;
use super::redis::Mode;
use super::server::Kind;

/// One run of the benchmark.
pub struct Run {
    /// Where configurations, logs and results go.
    pub folder: PathBuf,
    /// The servers to compare.
    pub servers: Vec<Kind>,
    /// Where the servers keep their state; none: each in itself.
    pub redis: Option<Mode>,
    /// The kernel's limit.
    pub floor: Floor,
    /// Seconds-long cases with fewer clients: for trying the benchmark out, not for figures.
    pub quick: bool,
}

impl Run {
    /// `full`, or `quick` for a quick run.
    #[must_use]
    pub fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Writes the rows of a scenario as `relay-<scenario>.json`.
    pub fn write(&self, scenario: &str, rows: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(rows)?;
        Ok(std::fs::write(
            self.folder.join(format!("relay-{scenario}.json")),
            text,
        )?)
    }
}
