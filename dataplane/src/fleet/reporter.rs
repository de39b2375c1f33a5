//! Reports, one after the other, of one process.

use std::sync::Arc;
use std::time::Duration;

use sluice_crds::config::GatewayConfig;
use sluice_proto::fleet::{Past, Phase, Report, Version};
use tokio::sync::watch;

use super::report::{self, Collected, Collector, IngestSide};
use crate::drain::{self, Drain};
use crate::pressure::Pressure;
use crate::relay::Shared;

/// What reports are about.
#[derive(Clone)]
pub struct Sides {
    pub config: watch::Receiver<Arc<GatewayConfig>>,
    pub relay: Arc<Shared>,
    pub pressure: Arc<Pressure>,
    pub drain: Drain,
    pub ingest: Option<IngestSide>,
}

/// What the one who reports does not see by himself.
#[derive(Debug, Clone, Copy, Default)]
pub struct Told {
    /// The directive that is in force.
    pub applied: Version,
    /// A directive drains it.
    pub drains: bool,
    /// Delivery has ended, and what it sent is paid for.
    pub sends_nothing: bool,
}

pub struct Reporter {
    sides: Sides,
    /// What does not change in reports.
    identity: Report,
    applications: Vec<Arc<str>>,
    collector: Collector,
    sequence: u64,
    /// Of the next report.
    past: Option<Past>,
}

impl Reporter {
    pub fn new(sides: Sides, pod: &str, cpu_request_cores: Option<f64>) -> Self {
        let config = sides.config.borrow().clone();
        let identity = Report {
            gateway: format!("{}/{}", config.namespace, config.name).into(),
            pod: pod.into(),
            instance: uuid::Uuid::new_v4().to_string().into(),
            release: env!("CARGO_PKG_VERSION").into(),
            cpu_request_cores,
            ..Report::default()
        };
        let mut reporter = Self {
            sides,
            identity,
            applications: Vec::new(),
            collector: Collector::default(),
            sequence: 0,
            past: None,
        };
        reporter.follow_config();
        reporter
    }

    /// Whoever reads the next report knows nothing of those before, and is told how it was.
    pub(super) fn begin(&mut self, past: Option<Past>) {
        self.collector.begin();
        self.past = past;
    }

    fn follow_config(&mut self) {
        let config = Arc::clone(&self.sides.config.borrow_and_update());
        self.applications = report::applications(&config);
    }

    pub async fn next(&mut self, told: Told) -> Report {
        if self.sides.config.has_changed().unwrap_or(false) {
            self.follow_config();
        }
        self.sequence += 1;
        let collected = match &self.sides.ingest {
            Some(side) => self.collector.ingest(side, &self.applications).await,
            None => Collected::default(),
        };
        let relay = &self.sides.relay;
        let is_draining = !self.sides.drain.is_serving() || told.drains;
        Report {
            sequence: self.sequence,
            applied: told.applied,
            phase: if is_draining {
                Phase::Draining
            } else {
                Phase::Serving
            },
            connections_max: Some(relay.connections_max() as u64),
            relay: report::relay(relay),
            load: report::load(&self.sides.pressure),
            caps: collected.caps,
            upstreams: collected.upstreams,
            queue: collected.queue,
            applications: collected.applications,
            ends_in: self.ends_in(),
            sends_nothing: told.sends_nothing,
            past: self.past.take(),
            ..self.identity.clone()
        }
    }

    /// By then at the latest, whatever the manager says.
    fn ends_in(&self) -> Option<Duration> {
        match self.sides.drain.phase() {
            drain::Phase::Serving => None,
            drain::Phase::Draining { until, .. } => {
                Some(until.saturating_duration_since(tokio::time::Instant::now()))
            }
            drain::Phase::Closing => Some(Duration::ZERO),
        }
    }
}
