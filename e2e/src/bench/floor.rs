//! The kernel's limits, as programs in C: `bench/floor.c` for work, `bench/limit.c` for latency.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use serde::Deserialize;

/// Builds `bench/<name>.c` into `folder`.
pub(super) fn compile(folder: &Path, name: &str) -> Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("bench/{name}.c"));
    let program = folder.join(name);
    let status = Command::new("cc")
        .args(["-O2", "-pthread", "-o"])
        .arg(&program)
        .arg(source)
        .status()?;
    ensure!(status.success(), "cannot build {name}.c: {status}");
    Ok(program)
}

/// The limit's program, built.
pub struct Floor(PathBuf);

#[derive(Deserialize)]
struct Line {
    sends_per_cpu_second: f64,
}

impl Floor {
    /// Builds it into `folder`.
    pub fn build(folder: &Path) -> Result<Self> {
        compile(folder, "floor").map(Self)
    }

    /// Sends per CPU second to so many connections, of so many bytes each; some `sends` in all.
    pub fn sends_per_cpu_second(
        &self,
        connections: usize,
        bytes: usize,
        sends: usize,
    ) -> Result<f64> {
        let rounds = (sends / connections).max(3);
        let numbers = [connections, bytes.max(1), rounds].map(|number| number.to_string());
        let output = Command::new(&self.0).args(numbers).output()?;
        ensure!(output.status.success(), "floor.c failed: {}", output.status);
        Ok(serde_json::from_slice::<Line>(&output.stdout)?.sends_per_cpu_second)
    }
}
