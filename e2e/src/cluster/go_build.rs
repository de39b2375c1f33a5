//! Runs the Go compiler for a module's programs, all at once, and says from time to time how far it is.
//!
//! All programs are built without C, one like the other: a package that may use C is another package than the same one
//! that may not, and everything above it would be compiled twice.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::command::text;

/// How often a build says that it is still going on.
const PROGRESS: Duration = Duration::from_secs(20);
/// What is shown of the complaints of a build that failed.
const COMPLAINTS_SHOWN: usize = 40;

/// What the programs of a module depend on beside its files.
#[derive(Debug)]
pub(super) struct BuildArgs {
    pub(super) link_flags: String,
    pub(super) tags: &'static str,
    pub(super) packages: &'static [&'static str],
}

/// Builds the programs into a folder.
pub(super) fn run(what: &str, source: &Path, arguments: &BuildArgs, bin: &Path) -> Result<()> {
    eprintln!("building the cluster's {what}: once per version; on two cores this takes minutes");
    let total = packages(source, arguments)?;
    let mut command = go("build", source, arguments);
    command
        .args(["-v", "-trimpath", "-buildvcs=false"])
        // Nobody debugs them, and writing it down is a tenth of the work.
        .args(["-gcflags=all=-dwarf=false"])
        .args(["-ldflags", &arguments.link_flags, "-o"])
        .arg(bin)
        .args(arguments.packages);
    watched(command, what, total)
}

fn go(verb: &str, source: &Path, arguments: &BuildArgs) -> Command {
    let mut command = Command::new("go");
    command
        .args([verb, "-mod=readonly", "-tags", arguments.tags])
        .current_dir(source)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "")
        .env_remove("GOWORK");
    command
}

/// How many packages the programs are made of. Downloads their modules.
fn packages(source: &Path, arguments: &BuildArgs) -> Result<usize> {
    let mut command = go("list", source, arguments);
    command.arg("-deps").args(arguments.packages);
    let list = text(&mut command)
        .context("the cluster's programs are built with Go, which ./test.sh installs")?;
    Ok(list.lines().count())
}

fn watched(mut command: Command, what: &str, total: usize) -> Result<()> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("go build")?;
    let stderr = child.stderr.take().context("stderr is piped")?;
    let started = Instant::now();
    let mut said = started;
    let mut compiled = 0;
    let mut complaints = Vec::new();
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        // A package's path as it is compiled; all else is worth showing should the build fail.
        if line.contains(' ') || line.is_empty() {
            complaints.push(line);
        } else {
            compiled += 1;
        }
        if said.elapsed() > PROGRESS {
            said = Instant::now();
            let elapsed = started.elapsed();
            eprintln!("  {what}: {compiled} of at most {total} packages compiled in {elapsed:.0?}");
        }
    }
    let status = child.wait()?;
    let shown = &complaints[complaints.len().saturating_sub(COMPLAINTS_SHOWN)..];
    ensure!(
        status.success(),
        "building {what} failed with {status}:\n{}",
        shown.join("\n")
    );
    Ok(())
}
