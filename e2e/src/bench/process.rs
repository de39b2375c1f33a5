//! What a process of this machine has used, as the kernel counts it.

use std::fs;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

/// CPU seconds of all threads of `pid`, in user space and in the kernel.
pub fn cpu_seconds(pid: u32) -> Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).context("the server is gone")?;
    // The name in parentheses may hold spaces; user and system time are the 12th and 13th field behind it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: f64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    Ok(ticks / rustix::param::clock_ticks_per_second() as f64)
}

/// Kilobytes that `pid` has written to and shares with nobody. Pages of its program are not among them: whose they are
/// depends on who else runs it.
pub fn private_kb(pid: u32) -> Result<u64> {
    let maps =
        fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).context("the server is gone")?;
    let dirty = maps
        .lines()
        .find_map(|line| line.strip_prefix("Private_Dirty:"));
    let kilobytes = dirty.and_then(|rest| rest.split_whitespace().next());
    Ok(kilobytes.context("no Private_Dirty")?.parse()?)
}

/// The children of `pid`.
pub fn children(pid: u32) -> Result<Vec<u32>> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    Ok(list
        .split_whitespace()
        .filter_map(|child| child.parse().ok())
        .collect())
}

/// Asks `pid` to end.
pub fn terminate(pid: u32) -> Result<()> {
    let pid = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .context("no process id")?;
    Ok(kill_process(pid, Signal::TERM)?)
}
