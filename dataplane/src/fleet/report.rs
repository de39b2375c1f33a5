//! How this data plane is, for the manager: sums and gauges that others keep anyway, collected once a second.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_crds::config::GatewayConfig;
use sluice_proto::fleet::{Application, Cap, CapKey, Load, Queue, Relay, Upstream};

use super::shares::{InForce, Why};
use crate::clock::unix_ms;
use crate::ingest::deliver::{CapReport, DeliverHandle, Figures, Hold, UpstreamReport, Waiting};
use crate::ingest::limiter::BreakerState;
use crate::ingest::metrics::Metrics;
use crate::pressure::Pressure;
use crate::relay::Shared;
use crate::resources;

/// Ingest, as far as reports are about it.
#[derive(Clone)]
pub struct IngestSide {
    pub deliver: DeliverHandle,
    pub metrics: Arc<Metrics>,
}

/// Keeps what sums need from one report to the next.
#[derive(Default)]
pub(super) struct Collector {
    /// As of the last time delivery had time to answer.
    figures: Figures,
    /// Accepted requests by application, as last seen.
    accepted: BTreeMap<Arc<str>, u64>,
    accepted_total: u64,
    /// As it was said last on this stream.
    said: BTreeMap<Arc<str>, Application>,
}

/// Names of those that are configured.
pub(super) fn applications(config: &GatewayConfig) -> Vec<Arc<str>> {
    let ingest = config.ingest.iter();
    let applications = ingest.flat_map(|ingest| &ingest.applications);
    applications
        .map(|application| application.name.as_str().into())
        .collect()
}

pub(super) fn relay(shared: &Shared) -> Relay {
    let totals = shared.metrics().totals();
    Relay {
        connections: shared.connections() as u64,
        opened_total: totals.opened,
        refused_total: totals.refused,
        shed_total: shared.shed_total(),
        messages_in_total: totals.messages_in,
        messages_out_total: totals.messages_out,
    }
}

pub(super) fn load(pressure: &Pressure) -> Load {
    Load {
        cpu_seconds_total: resources::cpu_seconds(),
        memory_bytes: pressure.sample_memory(),
        memory_limit_bytes: pressure.memory_limit_bytes(),
        loop_delay: pressure.take_peak_delay(),
        overload_level: pressure.level() as u32,
    }
}

/// What a report says of ingest.
#[derive(Default)]
pub(super) struct Collected {
    pub(super) caps: Vec<Cap>,
    pub(super) upstreams: Vec<Upstream>,
    pub(super) queue: Queue,
    pub(super) applications: Vec<Application>,
}

impl Collector {
    /// Whoever reads the next report knows nothing of those before.
    pub(super) fn begin(&mut self) {
        self.said.clear();
    }

    /// `applications`: those of the configuration.
    pub(super) async fn ingest(
        &mut self,
        side: &IngestSide,
        applications: &[Arc<str>],
    ) -> Collected {
        if side.deliver.has_ended() {
            // Nothing is wanted here, and what waited is for others to count.
            self.figures = Figures::default();
        } else if let Some(figures) = side.deliver.figures().await {
            self.figures = figures;
        }
        self.count_accepted(&side.metrics, applications);
        let (now, now_ms) = (Instant::now(), unix_ms());
        let caps = self.figures.caps.iter();
        let caps = caps.filter_map(|cap| self.cap(cap, now, now_ms)).collect();
        let upstreams = self.figures.upstreams.iter();
        let upstreams = upstreams.filter(|upstream| !upstream.retired);
        let all = self.waiting(&CapKey::Gateway);
        let stats = self.figures.queue;
        let (delivered_total, failed_total) = side.metrics.settled_totals();
        let queue = Queue {
            waiting: stats.waiting,
            bytes: stats.waiting_bytes,
            parked: stats.parked,
            oldest: age(all.oldest_ms, now_ms),
            arrived_total: self.accepted_total,
            delivered_total,
            failed_total,
            dispatch_lag: self.figures.dispatch_lag,
        };
        Collected {
            caps,
            upstreams: upstreams.map(upstream).collect(),
            queue,
            applications: self.news(&side.metrics, applications, now_ms),
        }
    }

    /// The applications of which something has changed.
    fn news(
        &mut self,
        metrics: &Metrics,
        applications: &[Arc<str>],
        now_ms: u64,
    ) -> Vec<Application> {
        let mut news = Vec::new();
        for name in applications {
            let waiting = self.figures.waiting.get(name).copied().unwrap_or_default();
            let (delivered_total, failed_total) = metrics.settled_of(name);
            let now = Application {
                name: Arc::clone(name),
                arrived_total: self.accepted.get(name).copied().unwrap_or(0),
                delivered_total,
                failed_total,
                waiting: waiting.entries,
                parked: self.figures.parked.get(name).copied().unwrap_or(0),
                oldest: age(waiting.oldest_ms, now_ms),
                held: waiting.held.map_or("", Hold::as_str).into(),
            };
            let before = self.said.get(name);
            let is_news = match before {
                Some(before) => *before != now,
                None => now.arrived_total + now.waiting + now.parked > 0,
            };
            if is_news {
                self.said.insert(Arc::clone(name), now.clone());
                news.push(now);
            }
        }
        if self.said.len() > applications.len() {
            self.said.retain(|name, _| applications.contains(name));
        }
        news
    }

    /// The sum never falls, although applications come and go.
    fn count_accepted(&mut self, metrics: &Metrics, applications: &[Arc<str>]) {
        let unknown = Arc::<str>::default();
        for name in applications.iter().chain([&unknown]) {
            let accepted = metrics.accepted_of(name);
            let before = self.accepted.insert(Arc::clone(name), accepted);
            self.accepted_total += accepted.saturating_sub(before.unwrap_or(0));
        }
        if self.accepted.len() > applications.len() + 1 {
            self.accepted
                .retain(|name, _| name.is_empty() || applications.contains(name));
        }
    }

    fn waiting(&self, key: &CapKey) -> Waiting {
        match key {
            CapKey::Application(name) => {
                self.figures.waiting.get(name).copied().unwrap_or_default()
            }
            CapKey::Gateway => {
                let mut all = Waiting::default();
                for waiting in self.figures.waiting.values() {
                    all.add(*waiting);
                }
                all
            }
        }
    }

    /// `None`: nothing was wanted or said of it yet.
    fn cap(&self, report: &CapReport, now: Instant, now_ms: u64) -> Option<Cap> {
        let state = report.state;
        let waiting = self.waiting(&report.key);
        let arrived_total = match &report.key {
            CapKey::Gateway => self.accepted_total,
            CapKey::Application(name) => self.accepted.get(name).copied().unwrap_or(0),
        };
        let is_of_interest =
            state.told || waiting.entries > 0 || arrived_total > 0 || state.sent_total > 0;
        let lease = state
            .in_force
            .until
            .filter(|_| state.in_force.why == Why::Lease);
        let lease_left = lease.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        let has_ended = lease.is_some() && lease_left.is_zero();
        is_of_interest.then(|| Cap {
            key: report.key.clone(),
            arrived_total,
            sent_total: state.sent_total,
            waiting: waiting.entries,
            oldest: age(waiting.oldest_ms, now_ms),
            allowed_per_minute: if has_ended {
                let InForce {
                    per_minute,
                    safe_per_minute,
                    ..
                } = state.in_force;
                per_minute.min(safe_per_minute)
            } else {
                state.in_force.per_minute
            },
            lease_left,
            safe_per_minute: Some(state.in_force.safe_per_minute),
        })
    }
}

fn upstream(report: &UpstreamReport) -> Upstream {
    let limits = &report.limits;
    Upstream {
        name: Arc::clone(&report.name),
        succeeded_total: report.succeeded_total,
        failed_total: report.failed_total,
        in_flight: limits.in_flight.into(),
        in_flight_limit: limits.limit,
        pace_per_second: limits.rate,
        closed: limits.breaker != BreakerState::Closed || limits.retry_after_until.is_some(),
        wanted: report.wanted,
    }
}

fn age(oldest_ms: Option<u64>, now_ms: u64) -> Duration {
    oldest_ms.map_or(Duration::ZERO, |oldest_ms| {
        Duration::from_millis(now_ms.saturating_sub(oldest_ms))
    })
}
