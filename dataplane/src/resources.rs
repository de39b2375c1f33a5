//! What the machine and its container give this process: cores, memory, descriptors, a writable directory.
//!
//! Reads `/proc` and cgroup files (both versions) and owns the metrics of the process. Decides nothing: `pressure`
//! judges the figures. Where a file is missing (not Linux, no cgroup) the figure is absent, never an error.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, getrlimit, setrlimit};
use thiserror::Error;

use cgroup::Cgroup;

mod cgroup;

/// Assumed where nothing tells how much memory there is.
const MEMORY_BYTES_UNKNOWN: u64 = 2 << 30;

/// How much memory this process may use, and how to measure what it uses.
#[derive(Debug)]
pub struct MemoryBudget {
    pub limit_bytes: u64,
    /// Where the limit comes from, for logs.
    pub source: LimitSource,
    cgroup: Option<Cgroup>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitSource {
    Flag,
    Container,
    Machine,
}

impl MemoryBudget {
    /// `flag_bytes` wins, then the container's limit, then the machine's memory.
    pub fn detect(flag_bytes: Option<u64>) -> Self {
        let machine = machine_memory_bytes().unwrap_or(MEMORY_BYTES_UNKNOWN);
        let cgroup = Cgroup::of_this_process().filter(|cgroup| {
            cgroup
                .memory_limit_bytes()
                .is_some_and(|limit| limit < machine)
        });
        let contained = cgroup.as_ref().and_then(Cgroup::memory_limit_bytes);
        match (flag_bytes, contained) {
            (Some(limit_bytes), _) => Self {
                limit_bytes,
                source: LimitSource::Flag,
                cgroup: None,
            },
            (None, Some(limit_bytes)) => Self {
                limit_bytes,
                source: LimitSource::Container,
                cgroup,
            },
            (None, None) => Self {
                limit_bytes: machine,
                source: LimitSource::Machine,
                cgroup: None,
            },
        }
    }

    /// Under a container's limit the container's use, kernel buffers included, because that is what gets a process
    /// killed; else this process' resident memory.
    pub fn used_bytes(&self) -> u64 {
        let contained = self.cgroup.as_ref().and_then(Cgroup::memory_used_bytes);
        contained.or_else(resident_bytes).unwrap_or(0)
    }
}

/// Cores this process may use: the machine's, its affinity's, or its container's quota, rounded up.
pub fn cores() -> NonZeroUsize {
    let available = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    match Cgroup::of_this_process().and_then(|cgroup| cgroup.cpu_quota_cores()) {
        Some(quota) => available.min(quota),
        None => available,
    }
}

/// Lets the process open as many descriptors as the system allows it; returns that number.
pub fn raise_descriptor_limit() -> io::Result<Option<u64>> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit)?;
    }
    Ok(limit.maximum)
}

/// How many descriptors the process may have open now.
pub fn descriptor_limit() -> usize {
    let current = getrlimit(Resource::Nofile).current;
    current.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

#[derive(Debug, Error)]
#[error("data directory {path}: {action}: {source}")]
pub struct DataDirError {
    path: PathBuf,
    action: &'static str,
    source: io::Error,
}

/// Makes the directory when it is absent and checks that files can be written there.
///
/// The queue of requests will live there; until it does, nothing is kept.
pub fn prepare_data_dir(path: &Path) -> Result<(), DataDirError> {
    let failed = |action| {
        move |source| DataDirError {
            path: path.to_owned(),
            action,
            source,
        }
    };
    fs::create_dir_all(path).map_err(failed("cannot be made"))?;
    let probe = path.join(format!(".writable-{}", std::process::id()));
    match fs::write(&probe, b"probe") {
        Ok(()) => {}
        // What is stored can be delivered and removed all the same, which makes room.
        Err(full) if is_full(&full) => {
            tracing::warn!(path = %path.display(), "no room in the data directory: nothing new can be stored");
        }
        Err(error) => return Err(failed("cannot be written to")(error)),
    }
    fs::remove_file(&probe).map_err(failed("cannot be cleaned up"))
}

fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}

/// Metrics of the process and of the build, under the names that dashboards know.
pub fn register(registry: &mut Registry) {
    registry.register(
        "sluice_build",
        "Version of this process",
        Info::new([("version", env!("CARGO_PKG_VERSION"))]),
    );
    let started = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64();
    registry.register_collector(Box::new(ProcessMetrics { started }));
}

#[derive(Debug)]
struct ProcessMetrics {
    started: f64,
}

impl Collector for ProcessMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let cpu = ConstCounter::new(cpu_seconds());
        let descriptor = encoder.encode_descriptor(
            "process_cpu_seconds",
            "CPU time used, user and system",
            None,
            cpu.metric_type(),
        )?;
        cpu.encode(descriptor)?;
        let gauges = [
            (
                "process_resident_memory_bytes",
                "Resident memory",
                resident_bytes().map(|bytes| bytes as f64),
            ),
            (
                "process_open_fds",
                "Open descriptors",
                open_descriptors().map(|count| count as f64),
            ),
            (
                "process_max_fds",
                "Descriptors this process may open",
                getrlimit(Resource::Nofile).current.map(|max| max as f64),
            ),
            (
                "process_start_time_seconds",
                "Start, in seconds since 1970",
                Some(self.started),
            ),
        ];
        for (name, help, value) in gauges {
            let Some(value) = value else { continue };
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        Ok(())
    }
}

/// CPU time used by this process, user and system.
pub fn cpu_seconds() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

fn resident_bytes() -> Option<u64> {
    let pages = resident_pages(&fs::read_to_string("/proc/self/statm").ok()?)?;
    Some(pages * rustix::param::page_size() as u64)
}

/// The second field of `statm`.
fn resident_pages(statm: &str) -> Option<u64> {
    statm.split_ascii_whitespace().nth(1)?.parse().ok()
}

fn machine_memory_bytes() -> Option<u64> {
    memory_total_bytes(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn memory_total_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    Some(kib * 1024)
}

/// Counted by listing, so one too many: the listing's own.
fn open_descriptors() -> Option<usize> {
    Some(
        fs::read_dir("/proc/self/fd")
            .ok()?
            .count()
            .saturating_sub(1),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_parsed() {
        assert_eq!(resident_pages("1000 250 30 1 0 90 0\n"), Some(250));
        assert_eq!(resident_pages(""), None);
        assert_eq!(
            memory_total_bytes("MemTotal:        8040384 kB\nMemFree: 1 kB\n"),
            Some(8_040_384 * 1024)
        );
        assert_eq!(memory_total_bytes("MemTotal: lots\n"), None);
    }

    #[test]
    fn this_process_is_measured() {
        let budget = MemoryBudget::detect(Some(1 << 30));
        assert_eq!(
            (budget.limit_bytes, budget.source),
            (1 << 30, LimitSource::Flag)
        );
        assert!(budget.used_bytes() > 1 << 20, "{budget:?}");
        assert!(MemoryBudget::detect(None).limit_bytes > 64 << 20);
        assert!(cpu_seconds() > 0.0);
        assert!(open_descriptors() >= Some(3));
        let limit = raise_descriptor_limit().unwrap();
        assert_eq!(getrlimit(Resource::Nofile).current, limit);
    }

    #[test]
    fn process_metrics_are_exported() {
        let mut registry = Registry::default();
        register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for name in [
            "process_cpu_seconds_total ",
            "process_resident_memory_bytes ",
            "process_open_fds ",
            "process_max_fds ",
            "process_start_time_seconds ",
            "sluice_build_info{version=",
        ] {
            assert!(
                text.lines().any(|line| line.starts_with(name)),
                "{name} is not in:\n{text}"
            );
        }
    }

    #[test]
    fn the_data_directory_is_made_and_probed() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        prepare_data_dir(&deep).unwrap();
        assert_eq!(
            fs::read_dir(&deep).unwrap().count(),
            0,
            "the probe was left behind"
        );
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = prepare_data_dir(&file.join("c")).unwrap_err().to_string();
        assert!(
            error.contains("cannot be made") && error.contains("file/c"),
            "{error}"
        );
    }
}
