//! The kernel's limit: builds `bench/floor.c` and runs it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, ensure};
use serde::Deserialize;

/// The limit's program, built.
pub struct Floor(PathBuf);

#[derive(Deserialize)]
struct Line {
    sends_per_cpu_second: f64,
}

impl Floor {
    /// Builds it into `folder`.
    pub fn build(folder: &Path) -> Result<Self> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/floor.c");
        let program = folder.join("floor");
        let status = Command::new("cc")
            .args(["-O2", "-o"])
            .arg(&program)
            .arg(source)
            .status()?;
        ensure!(
            status.success(),
            "cannot build the limit's program: {status}"
        );
        Ok(Self(program))
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
        ensure!(
            output.status.success(),
            "the limit's program failed: {}",
            output.status
        );
        Ok(serde_json::from_slice::<Line>(&output.stdout)?.sends_per_cpu_second)
    }
}
