//! The ingest benchmark: what a CPU second of the gateway accepts and delivers, what a backlog costs, and a full spike.
//!
//! Ratios to nginx's `return 200` of the same round are what counts, because figures of a shared machine change from
//! minute to minute. Everything listens on 127.0.0.1 and is stopped by process id. Load and upstream share the machine
//! with the gateway, so rates per second are lower bounds; CPU is counted for the server's process alone.

pub mod accept;
pub mod backlog;
pub mod deliver;
pub mod nginx;
pub mod redis;
pub mod spike;
mod stream;

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;
use serde_json::{Value, json};

use crate::ingest::{APP, Ingest, KEY};

/// What all scenarios of one run share.
pub struct Run {
    /// Where results go.
    pub folder: PathBuf,
    /// Seconds-long cases: for trying the benchmark out, not for figures.
    pub quick: bool,
}

impl Run {
    /// `full`, or `quick` for a quick run.
    #[must_use]
    pub fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Writes the rows of a scenario as `ingest-<scenario>.json`.
    pub fn write(&self, scenario: &str, rows: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(rows)?;
        let name = format!("ingest-{scenario}.json");
        Ok(std::fs::write(self.folder.join(name), text)?)
    }
}

/// A gateway at this durability whose queue holds what a run puts in.
fn gateway(upstream: &str, durability: &str) -> Ingest {
    Ingest::new(upstream)
        .set("durability", json!(durability))
        .set("retention", json!({ "time": "1h", "bytes": 32_u64 << 30 }))
}

/// The same, accepting and not delivering.
fn paused(upstream: &str, durability: &str) -> Ingest {
    let application: Value = json!({ "processing": "Paused" });
    gateway(upstream, durability).application(APP, KEY, application)
}
