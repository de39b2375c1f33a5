//! How loaded this process is, and what it refuses because of it.
//!
//! Workers record their loop delay and queued bytes here; one sampler task adds memory, asks the pure [`Assessor`], and
//! publishes a [`Level`] that every worker reads with one atomic load. Shedding is in order: first server-list queries,
//! then new connections. Established connections are never a means of relief, so nothing here can close one.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use crate::limits::{EGRESS_MEMORY_PERCENT, PRESSURE_INTERVAL};
use crate::resources::MemoryBudget;

pub use assessor::{Assessor, Cause, Sample};

mod assessor;

/// What is refused at present. Each level includes the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Level {
    Normal = 0,
    /// Server-list queries get a temporary error.
    ShedQueries = 1,
    /// New connections get 503 with Retry-After as well.
    ShedConnections = 2,
}

impl Level {
    pub const ALL: [Self; 3] = [Self::Normal, Self::ShedQueries, Self::ShedConnections];

    pub fn sheds_queries(self) -> bool {
        self >= Self::ShedQueries
    }

    pub fn sheds_connections(self) -> bool {
        self >= Self::ShedConnections
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::ShedQueries => "shed_queries",
            Self::ShedConnections => "shed_connections",
        }
    }
}

/// When a refused client should come back. SDKs that do not back off return within a second, so the spread over time
/// has to come from here; the more pressure, the longer.
pub fn retry_after_seconds(level: Level, random: &mut fastrand::Rng) -> u32 {
    match level {
        Level::Normal => random.u32(1..=5),
        Level::ShedQueries => random.u32(2..=10),
        Level::ShedConnections => random.u32(6..=30),
    }
}

/// Weight of the newest loop delay in the smoothed one. A delay counts once it comes twice in a row: a lone one, however long
/// (a machine that stands still for a second), is over when it is noticed, and shedding would not have helped.
const SMOOTHING_PERCENT: u64 = 30;

/// For the same reason a worker that reports nothing is only counted as delayed after this.
const SILENCE_US: u64 = 1_000_000;

/// Keeps the smoothing from overflowing; far above every threshold.
const LOOP_DELAY_US_MAX: u64 = 3_600_000_000;

/// What one worker recorded. On cache lines of its own, as each is written by another core.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Worker {
    /// Smoothed.
    loop_delay_us: AtomicU64,
    /// The last one as it was.
    last_delay_us: AtomicU64,
    /// Microseconds from `Pressure::started` to the last report; 0 before the first and after the end.
    reported_us: AtomicU64,
    egress_bytes: AtomicU64,
    clients_behind: AtomicU64,
    clients: AtomicU64,
    /// The largest since somebody last asked.
    peak_delay_us: AtomicU64,
}

/// Shared by workers, who record and read the level, and the sampler.
#[derive(Debug)]
pub struct Pressure {
    level: AtomicU8,
    workers: Box<[Worker]>,
    started: Instant,
    memory: MemoryBudget,
    metrics: Metrics,
}

impl Pressure {
    pub fn new(workers: usize, memory: MemoryBudget, registry: &mut Registry) -> Arc<Self> {
        let metrics = Metrics::register(registry);
        metrics.memory_limit_bytes.set(signed(memory.limit_bytes));
        Arc::new(Self {
            level: AtomicU8::new(Level::Normal as u8),
            workers: (0..workers).map(|_| Worker::default()).collect(),
            started: Instant::now(),
            memory,
            metrics,
        })
    }

    pub fn level(&self) -> Level {
        let level = self.level.load(Ordering::Relaxed);
        Level::ALL
            .get(usize::from(level))
            .copied()
            .unwrap_or(Level::ShedConnections)
    }

    /// Each worker calls this every [`PRESSURE_INTERVAL`], with how late its timer fired. One that stops calling
    /// for long counts as delayed by the time since.
    pub fn record_loop_delay(&self, worker: usize, delay: Duration) {
        let Some(worker) = self.workers.get(worker) else {
            return;
        };
        let before = worker.loop_delay_us.load(Ordering::Relaxed);
        let newest = micros(delay).min(LOOP_DELAY_US_MAX);
        worker.peak_delay_us.fetch_max(newest, Ordering::Relaxed);
        let lasting = newest.min(worker.last_delay_us.swap(newest, Ordering::Relaxed));
        let after = (before * (100 - SMOOTHING_PERCENT) + lasting * SMOOTHING_PERCENT) / 100;
        worker.loop_delay_us.store(after, Ordering::Relaxed);
        worker.reported_us.store(self.now_us(), Ordering::Relaxed);
    }

    /// The largest loop delay of any worker since the last call, as it was; for one caller.
    pub fn take_peak_delay(&self) -> Duration {
        let peaks = self.workers.iter();
        let peak_us = peaks.map(|worker| worker.peak_delay_us.swap(0, Ordering::Relaxed));
        Duration::from_micros(peak_us.max().unwrap_or(0))
    }

    /// Bytes that wait in all outbound queues of the worker.
    pub fn record_egress(&self, worker: usize, bytes: u64) {
        if let Some(worker) = self.workers.get(worker) {
            worker.egress_bytes.store(bytes, Ordering::Relaxed);
        }
    }

    /// How many of the worker's clients cannot be served as fast as messages come to them.
    pub fn record_readers(&self, worker: usize, behind: usize, clients: usize) {
        if let Some(worker) = self.workers.get(worker) {
            worker
                .clients_behind
                .store(behind as u64, Ordering::Relaxed);
            worker.clients.store(clients as u64, Ordering::Relaxed);
        }
    }

    pub fn memory_limit_bytes(&self) -> u64 {
        self.memory.limit_bytes
    }

    /// What the assessor decides on.
    ///
    /// `lateness` is how late the sampler itself is: while the whole process stood still no worker could report.
    pub fn sample(&self, lateness: Duration) -> Sample {
        let now_us = self.now_us();
        let excused_us = micros(PRESSURE_INTERVAL).saturating_add(micros(lateness));
        let delay_us = self
            .workers
            .iter()
            .map(|worker| worker.delay_us(now_us, excused_us))
            .max()
            .unwrap_or(0);
        Sample {
            loop_delay: Duration::from_micros(delay_us),
            memory_bytes: self.sample_memory(),
            memory_limit_bytes: self.memory.limit_bytes,
            egress_queue_bytes: self.sum(|worker| &worker.egress_bytes),
            egress_limit_bytes: self.memory.limit_bytes / 100 * EGRESS_MEMORY_PERCENT,
            clients_behind: self.sum(|worker| &worker.clients_behind),
            clients: self.sum(|worker| &worker.clients),
        }
    }

    fn sum(&self, recorded: impl Fn(&Worker) -> &AtomicU64) -> u64 {
        let values = self.workers.iter().map(recorded);
        values.map(|value| value.load(Ordering::Relaxed)).sum()
    }

    pub fn sample_memory(&self) -> u64 {
        self.memory.used_bytes()
    }

    /// The sampler; runs until it is dropped.
    pub async fn run(self: Arc<Self>) {
        let mut assessor = Assessor::default();
        let mut ticks = tokio::time::interval(PRESSURE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let lateness = ticks.tick().await.elapsed();
            let sample = self.sample(lateness);
            self.apply(&mut assessor, Instant::now(), sample);
        }
    }

    fn apply(&self, assessor: &mut Assessor, now: Instant, sample: Sample) {
        let before = self.level();
        let after = assessor.update(now, sample);
        self.metrics.observe(after, &sample);
        if before == after {
            return;
        }
        self.level.store(after as u8, Ordering::Relaxed);
        self.metrics
            .transitions
            .get_or_create(&LevelLabel {
                level: after.name(),
            })
            .inc();
        let loop_delay_ms = u64::try_from(sample.loop_delay.as_millis()).unwrap_or(u64::MAX);
        let Sample {
            memory_bytes,
            memory_limit_bytes,
            egress_queue_bytes,
            egress_limit_bytes,
            clients_behind,
            clients,
            ..
        } = sample;
        let (from, to) = (before.name(), after.name());
        if after > before {
            let cause = assessor.cause().map_or("none", Cause::name);
            warn!(
                from,
                to,
                cause,
                loop_delay_ms,
                memory_bytes,
                memory_limit_bytes,
                egress_queue_bytes,
                egress_limit_bytes,
                clients_behind,
                clients,
                "overload rises"
            );
        } else {
            info!(
                from,
                to,
                loop_delay_ms,
                memory_bytes,
                memory_limit_bytes,
                egress_queue_bytes,
                egress_limit_bytes,
                clients_behind,
                clients,
                "overload falls"
            );
        }
    }

    fn now_us(&self) -> u64 {
        // 0 stands for "never".
        micros(self.started.elapsed()).max(1)
    }
}

impl Worker {
    fn delay_us(&self, now_us: u64, excused_us: u64) -> u64 {
        let reported_us = self.reported_us.load(Ordering::Relaxed);
        if reported_us == 0 {
            return 0;
        }
        let silent_us = now_us
            .saturating_sub(reported_us)
            .saturating_sub(excused_us)
            .saturating_sub(SILENCE_US);
        self.loop_delay_us.load(Ordering::Relaxed).max(silent_us)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LevelLabel {
    level: &'static str,
}

#[derive(Debug)]
struct Metrics {
    level: Gauge,
    transitions: Family<LevelLabel, Counter>,
    loop_delay_seconds: Gauge<f64, AtomicU64>,
    memory_bytes: Gauge,
    memory_limit_bytes: Gauge,
    egress_queue_bytes: Gauge,
    clients_behind: Gauge,
}

impl Metrics {
    fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            level: Gauge::default(),
            transitions: Family::default(),
            loop_delay_seconds: Gauge::default(),
            memory_bytes: Gauge::default(),
            memory_limit_bytes: Gauge::default(),
            egress_queue_bytes: Gauge::default(),
            clients_behind: Gauge::default(),
        };
        for level in Level::ALL {
            // Visible as 0 from the start, so that the first transition shows as an increase.
            drop(metrics.transitions.get_or_create(&LevelLabel {
                level: level.name(),
            }));
        }
        let Self {
            level,
            transitions,
            loop_delay_seconds,
            memory_bytes,
            memory_limit_bytes,
            egress_queue_bytes,
            clients_behind,
        } = &metrics;
        registry.register(
            "sluice_overload_level",
            "What is refused: 0 nothing, 1 server-list queries, 2 new connections too",
            level.clone(),
        );
        registry.register(
            "sluice_overload_transitions",
            "Changes of the overload level, by the new one",
            transitions.clone(),
        );
        registry.register(
            "sluice_loop_delay_seconds",
            "Largest smoothed loop delay of a worker",
            loop_delay_seconds.clone(),
        );
        registry.register(
            "sluice_memory_bytes",
            "Memory used, as compared with the limit",
            memory_bytes.clone(),
        );
        registry.register(
            "sluice_memory_limit_bytes",
            "Memory this process may use",
            memory_limit_bytes.clone(),
        );
        registry.register(
            "sluice_egress_queue_bytes",
            "Bytes waiting to be sent to clients",
            egress_queue_bytes.clone(),
        );
        registry.register(
            "sluice_clients_behind",
            "Clients that cannot be served as fast as messages come to them",
            clients_behind.clone(),
        );
        metrics
    }

    fn observe(&self, level: Level, sample: &Sample) {
        self.level.set(level as i64);
        self.loop_delay_seconds.set(sample.loop_delay.as_secs_f64());
        self.memory_bytes.set(signed(sample.memory_bytes));
        self.egress_queue_bytes
            .set(signed(sample.egress_queue_bytes));
        self.clients_behind.set(signed(sample.clients_behind));
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
