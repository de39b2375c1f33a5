//! Processes that outlive the one that started them, told from later ones with the same number by when they started.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

/// A killed process is gone in milliseconds, unless the machine is swamped.
const GONE_TIMEOUT: Duration = Duration::from_secs(15);

/// A process by its number and the tick at which it started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    started: u64,
}

impl Process {
    /// The process that has this number now.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        Some(Self {
            pid,
            started: stat.started,
        })
    }

    /// Whether it still runs; one that ended and was not waited for does not.
    pub(super) fn is_alive(self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.started == self.started && !stat.ended)
    }

    /// Kills it at once, if it is still itself.
    pub(super) fn kill(self) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| self.is_alive()) {
            // It may have ended meanwhile.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    pub(super) fn wait_gone(self) -> Result<()> {
        let deadline = Instant::now() + GONE_TIMEOUT;
        while self.is_alive() {
            ensure!(
                Instant::now() < deadline,
                "process {} does not end",
                self.pid
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Its first child that runs.
    pub(super) fn child(self) -> Option<Self> {
        let children = std::fs::read_dir("/proc").ok()?.flatten().filter_map(|e| {
            let pid = e.file_name().to_str()?.parse().ok()?;
            let stat = Stat::read(pid)?;
            (stat.parent == self.pid && !stat.ended).then_some(Self {
                pid,
                started: stat.started,
            })
        });
        children.min_by_key(|child| child.started)
    }
}

/// What is used of `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    ended: bool,
    parent: u32,
    started: u64,
}

impl Stat {
    fn read(pid: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The command's name is in parentheses and may hold anything, further parentheses too.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        Some(Self {
            ended: matches!(*fields.first()?, "Z" | "X"),
            parent: fields.get(1)?.parse().ok()?,
            started: fields.get(19)?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_is_no_trouble() {
        let text = "7 (a) b) Z 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 4242 22";
        let expected = Stat {
            ended: true,
            parent: 3,
            started: 4242,
        };
        assert_eq!(Stat::parse(text), Some(expected));
    }

    #[test]
    fn a_process_is_itself_and_no_other() {
        let own = Process::of(std::process::id()).unwrap();
        assert!(own.is_alive());
        let later = Process {
            started: own.started + 1,
            ..own
        };
        assert!(!later.is_alive());
    }
}
