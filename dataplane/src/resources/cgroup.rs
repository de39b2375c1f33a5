//! Limits and use of this process' control group, versions 1 and 2.
//!
//! A limit may be set on any ancestor, so the smallest on the way up counts, and use is read where that limit is.
//! Inside a container the path in `/proc/self/cgroup` is often not visible; then the mount point is the group.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

const MOUNT: &str = "/sys/fs/cgroup";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

#[derive(Debug)]
pub(super) struct Cgroup {
    version: Version,
    /// The group whose memory limit is the smallest on the way up; `None` when none has one.
    memory: Option<(PathBuf, u64)>,
    cpu_quota_cores: Option<NonZeroUsize>,
}

impl Cgroup {
    pub(super) fn of_this_process() -> Option<Self> {
        Self::read(
            Path::new(MOUNT),
            &fs::read_to_string("/proc/self/cgroup").ok()?,
        )
    }

    fn read(mount: &Path, membership: &str) -> Option<Self> {
        let version = if mount.join("cgroup.controllers").exists() {
            Version::Two
        } else {
            Version::One
        };
        let groups = |controller: &str| {
            let path = group_path(membership, version, controller)?;
            let base = match version {
                Version::One => mount.join(controller),
                Version::Two => mount.to_owned(),
            };
            Some(way_up(&base, path))
        };
        let limit_file = match version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        let memory = groups("memory")
            .into_iter()
            .flatten()
            .filter_map(|group| Some((number(&group.join(limit_file))?, group)))
            .map(|(limit, group)| (group, limit))
            .min_by_key(|(_, limit)| *limit);
        let cpu_quota_cores = groups("cpu")
            .into_iter()
            .flatten()
            .filter_map(|group| quota_cores(version, &group))
            .min();
        Some(Self {
            version,
            memory,
            cpu_quota_cores,
        })
    }

    pub(super) fn memory_limit_bytes(&self) -> Option<u64> {
        self.memory.as_ref().map(|(_, limit)| *limit)
    }

    /// Without file cache that the kernel gives up before it kills anyone.
    pub(super) fn memory_used_bytes(&self) -> Option<u64> {
        let (group, _) = self.memory.as_ref()?;
        let (usage, inactive) = match self.version {
            Version::One => ("memory.usage_in_bytes", "total_inactive_file"),
            Version::Two => ("memory.current", "inactive_file"),
        };
        let used = number(&group.join(usage))?;
        let statistics = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cache = statistics
            .lines()
            .find_map(|line| line.strip_prefix(inactive)?.trim().parse::<u64>().ok());
        Some(used.saturating_sub(cache.unwrap_or(0)))
    }

    pub(super) fn cpu_quota_cores(&self) -> Option<NonZeroUsize> {
        self.cpu_quota_cores
    }
}

/// The path of the group in lines such as `4:memory:/a/b` (version 1) or `0::/a/b` (version 2).
fn group_path<'a>(membership: &'a str, version: Version, controller: &str) -> Option<&'a str> {
    membership.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let matches = match version {
            Version::One => controllers.split(',').any(|name| name == controller),
            Version::Two => controllers.is_empty(),
        };
        matches.then_some(path)
    })
}

/// The group and its ancestors up to the mount point, which is always there.
fn way_up(base: &Path, path: &str) -> Vec<PathBuf> {
    let relative = Path::new(path.trim_start_matches('/'));
    // A path out of the namespace (`/../x`) is not ours to follow.
    if relative
        .components()
        .any(|part| !matches!(part, std::path::Component::Normal(_)))
    {
        return vec![base.to_owned()];
    }
    relative
        .ancestors()
        .map(|ancestor| base.join(ancestor))
        .collect()
}

fn quota_cores(version: Version, group: &Path) -> Option<NonZeroUsize> {
    let (quota, period) = match version {
        Version::One => (
            number(&group.join("cpu.cfs_quota_us"))?,
            number(&group.join("cpu.cfs_period_us"))?,
        ),
        Version::Two => {
            let text = fs::read_to_string(group.join("cpu.max")).ok()?;
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.parse().ok()?, period.parse().ok()?)
        }
    };
    if period == 0 {
        return None;
    }
    usize::try_from(quota.div_ceil(period))
        .ok()
        .and_then(NonZeroUsize::new)
}

/// `max` and negative numbers mean no limit and are no numbers here.
fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    #[test]
    fn version_2_takes_the_smallest_limit_on_the_way_up() {
        let dir = tree(&[
            ("cgroup.controllers", "cpu memory\n"),
            ("pod/memory.max", "1000\n"),
            ("pod/memory.current", "700\n"),
            ("pod/memory.stat", "anon 5\ninactive_file 200\n"),
            ("pod/cpu.max", "150000 100000\n"),
            ("pod/box/memory.max", "max\n"),
            ("pod/box/memory.current", "1\n"),
            ("pod/box/cpu.max", "max 100000\n"),
        ]);
        let cgroup = Cgroup::read(dir.path(), "0::/pod/box\n").unwrap();
        assert_eq!(cgroup.memory_limit_bytes(), Some(1000));
        assert_eq!(cgroup.memory_used_bytes(), Some(500));
        assert_eq!(cgroup.cpu_quota_cores(), NonZeroUsize::new(2));
    }

    #[test]
    fn version_1_finds_its_controllers() {
        let dir = tree(&[
            ("memory/a/memory.limit_in_bytes", "4096"),
            ("memory/a/memory.usage_in_bytes", "4000"),
            (
                "memory/a/memory.stat",
                "inactive_file 1\ntotal_inactive_file 1000\n",
            ),
            ("cpu/cpu.cfs_quota_us", "-1"),
            ("cpu/cpu.cfs_period_us", "100000"),
        ]);
        let cgroup = Cgroup::read(dir.path(), "4:memory:/a\n2:cpuacct,cpu:/\n").unwrap();
        assert_eq!(
            (cgroup.memory_limit_bytes(), cgroup.memory_used_bytes()),
            (Some(4096), Some(3000))
        );
        assert_eq!(cgroup.cpu_quota_cores(), None);
    }

    #[test]
    fn a_path_that_is_not_visible_falls_back_to_the_mount() {
        let dir = tree(&[
            ("cgroup.controllers", ""),
            ("memory.max", "99"),
            ("cpu.max", "50000 100000"),
        ]);
        for membership in ["0::/kubepods/x\n", "0::/../other\n", "0::/\n"] {
            let cgroup = Cgroup::read(dir.path(), membership).unwrap();
            assert_eq!(cgroup.memory_limit_bytes(), Some(99), "{membership}");
            assert_eq!(
                cgroup.cpu_quota_cores(),
                NonZeroUsize::new(1),
                "{membership}"
            );
        }
    }

    #[test]
    fn nothing_readable_means_no_limits() {
        let dir = tree(&[]);
        let cgroup = Cgroup::read(dir.path(), "garbage\n0::/\n").unwrap();
        assert_eq!(
            (cgroup.memory_limit_bytes(), cgroup.cpu_quota_cores()),
            (None, None)
        );
    }
}
