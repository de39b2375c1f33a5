//! Control groups of a cluster: who belongs to it, and how it is swept away whole.
//!
//! On version 1 (also beside version 2) every hierarchy has a tree of its own; what the cluster starts is told by the
//! freezer's, which is used for nothing else. Containers are in all of them, put there by the runtime.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::process::Process;

/// Processes end in milliseconds once killed, also the hundreds of a cluster.
const SWEEP_TIMEOUT: Duration = Duration::from_secs(30);
const ROOT: &str = "/sys/fs/cgroup";

/// The hierarchies mounted.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")?;
    let found: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| {
            let (left, right) = line.split_once(" - ")?;
            let kind = right.split_whitespace().next()?;
            let path = left.split_whitespace().nth(4)?;
            (matches!(kind, "cgroup" | "cgroup2") && path.starts_with(ROOT)).then(|| path.into())
        })
        .collect();
    ensure!(!found.is_empty(), "no control groups mounted at {ROOT}");
    Ok(found)
}

/// The hierarchy that tells what belongs to a cluster.
fn membership() -> Result<PathBuf> {
    let all = hierarchies()?;
    let named = |name: &str| all.iter().find(|path| path.ends_with(name)).cloned();
    let whole = || all.iter().find(|path| *path == Path::new(ROOT)).cloned();
    named("freezer")
        .or_else(whole)
        .context("neither the freezer nor a unified hierarchy is mounted")
}

/// Makes a group and returns the file that takes its members.
pub(super) fn create(group: &str) -> Result<PathBuf> {
    let folder = membership()?.join(group);
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    Ok(folder.join("cgroup.procs"))
}

/// Makes a group in every hierarchy, for a runtime that uses them all.
pub(super) fn create_in_all(group: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let folder = hierarchy.join(group);
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    Ok(())
}

/// Kills everything in a group and below, and removes it in every hierarchy. A group that is not there is no error.
pub(super) fn sweep(group: &str) -> Result<()> {
    let folders: Vec<PathBuf> = hierarchies()?.iter().map(|h| h.join(group)).collect();
    let deadline = Instant::now() + SWEEP_TIMEOUT;
    loop {
        let members = members(&folders);
        for process in &members {
            process.kill();
        }
        if members.is_empty() && folders.iter().all(|folder| remove(folder)) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let pids: Vec<u32> = members.iter().map(|process| process.pid).collect();
            bail!("control group {group} does not go away; processes in it: {pids:?}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Running processes in a group or below it.
pub(super) fn processes(group: &str) -> Result<Vec<u32>> {
    let folders: Vec<PathBuf> = hierarchies()?.iter().map(|h| h.join(group)).collect();
    Ok(members(&folders).iter().map(|p| p.pid).collect())
}

fn members(folders: &[PathBuf]) -> Vec<Process> {
    let mut pids = BTreeSet::new();
    for folder in folders {
        collect(folder, &mut pids);
    }
    let running = pids.into_iter().filter_map(Process::of);
    running.filter(|process| process.is_alive()).collect()
}

fn collect(folder: &Path, pids: &mut BTreeSet<u32>) {
    let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    for child in children(folder) {
        collect(&child, pids);
    }
}

/// Removes from the leaves up; false while something is still in there.
fn remove(folder: &Path) -> bool {
    let emptied = children(folder).iter().all(|child| remove(child));
    emptied && (std::fs::remove_dir(folder).is_ok() || !folder.exists())
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}
