//! `sluice_fleet_*`: what there is of a manager, and what it asks for.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use sluice_proto::fleet::Steering;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Debug, Default)]
pub(super) struct Metrics {
    connected: Gauge,
    steering: Gauge,
    shed: Counter,
    directives: Family<OutcomeLabel, Counter>,
}

const APPLIED: OutcomeLabel = OutcomeLabel { outcome: "applied" };
const IGNORED: OutcomeLabel = OutcomeLabel { outcome: "ignored" };

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        for label in [APPLIED, IGNORED] {
            drop(metrics.directives.get_or_create(&label));
        }
        let registry = registry.sub_registry_with_prefix("sluice_fleet");
        registry.register(
            "connected",
            "1 while a manager says what to do",
            metrics.connected.clone(),
        );
        registry.register(
            "steering",
            "New clients: 0 taken, 1 sent to others, 2 sent to others while those that are here leave",
            metrics.steering.clone(),
        );
        registry.register(
            "shed",
            "Clients closed so that they come back elsewhere: the manager wants it, or this process ends",
            metrics.shed.clone(),
        );
        registry.register(
            "directives",
            "What managers said, by what became of it",
            metrics.directives.clone(),
        );
        metrics
    }

    pub(super) fn set_connected(&self, connected: bool) {
        self.connected.set(i64::from(connected));
    }

    pub(super) fn set_steering(&self, steering: Steering) {
        self.steering.set(match steering {
            Steering::Accept => 0,
            Steering::Fence => 1,
            Steering::Drain => 2,
        });
    }

    /// The total is kept where clients are closed.
    pub(super) fn set_shed(&self, total: u64) {
        let more = total.saturating_sub(self.shed.get());
        self.shed.inc_by(more);
    }

    pub(super) fn applied(&self) {
        self.directives.get_or_create(&APPLIED).inc();
    }

    pub(super) fn ignored(&self) {
        self.directives.get_or_create(&IGNORED).inc();
    }
}
