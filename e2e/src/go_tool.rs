//! Programs of others that tests need, as Go modules that are pinned in a folder of their own: builds them once.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::sdk::describe;
use crate::sluice::{root, target};

/// The program of a package, built if need be from `e2e/<folder>`.
pub fn program(folder: &str, package: &str) -> Result<PathBuf> {
    let name = package.rsplit('/').next().unwrap_or(package);
    let built = target().join(folder);
    std::fs::create_dir_all(&built)?;
    // Several tests may come here at a time.
    let lock = File::create(built.join("lock"))?;
    lock.lock()?;
    let program = built.canonicalize()?.join(name);
    // Go's own cache makes this quick when there is nothing to do.
    let output = Command::new("go")
        .args(["build", "-mod=readonly", "-o"])
        .arg(&program)
        .arg(package)
        .current_dir(root().join("e2e").join(folder))
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "")
        .output()
        .context("the end-to-end tests need Go; ./test.sh installs it")?;
    ensure!(output.status.success(), "go build: {}", describe(&output));
    Ok(program)
}
