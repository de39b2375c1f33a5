//! What the Redis store counts: what a person wants to know when Redis fails.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    reconnects: Counter,
    failovers: Counter,
    retries: Counter,
    subscription_losses: Counter,
    gaps_healed: Counter,
    gaps_told: Counter,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("sluice_redis");
        let mut add = |name: &str, help: &str, counter: &Counter| {
            registry.register(name, help, counter.clone());
        };
        add(
            "reconnects",
            "Connections to Redis made anew",
            &metrics.reconnects,
        );
        add(
            "failovers",
            "Failovers of a Redis shard seen",
            &metrics.failovers,
        );
        add("retries", "Calls to Redis tried again", &metrics.retries);
        add(
            "subscription_losses",
            "Subscription connections that were lost",
            &metrics.subscription_losses,
        );
        add(
            "gaps_healed",
            "Channels whose missed publications were read from the stream",
            &metrics.gaps_healed,
        );
        add(
            "gaps_told",
            "Channels whose subscribers were told that publications may be missing",
            &metrics.gaps_told,
        );
        metrics
    }

    pub fn reconnected(&self) {
        self.reconnects.inc();
    }

    pub fn failed_over(&self, shards: u64) {
        self.failovers.inc_by(shards);
    }

    pub fn retried(&self) {
        self.retries.inc();
    }

    pub fn subscription_lost(&self) {
        self.subscription_losses.inc();
    }

    pub fn gap_healed(&self) {
        self.gaps_healed.inc();
    }

    pub fn gap_told(&self) {
        self.gaps_told.inc();
    }
}
