//! The relay's metrics, `sluice_relay_*`. Never labelled by account, user or channel.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use crate::store::StoreError;

/// Why a connection was refused before the upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Refused {
    Draining,
    /// The manager sends new clients to others.
    Fenced,
    Overload,
    Connections,
    Rate,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabel {
    reason: Refused,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: u16,
}

/// What the store could not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Operation {
    Publish,
    Subscribe,
    Unsubscribe,
    PresenceLeave,
    Announce,
    Api,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: Operation,
}

/// While the store is away every client meets it: the log tells one of them in this time, the metric counts all.
const FAILURES_TOLD_EVERY: Duration = Duration::from_secs(1);

/// Sums since the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    pub opened: u64,
    pub refused: u64,
    pub messages_in: u64,
    pub messages_out: u64,
}

#[derive(Debug, Default)]
pub struct Metrics {
    connections: Gauge,
    accepted: Counter,
    refused: Family<RefusedLabel, Counter>,
    refused_total: AtomicU64,
    disconnects: Family<CodeLabel, Counter>,
    commands: Counter,
    publications: Counter,
    publications_refused: Counter,
    deliveries: Counter,
    writes: Counter,
    received_bytes: Counter,
    sent_bytes: Counter,
    store_failures: Family<OperationLabel, Counter>,
    failure_told: Mutex<Option<Instant>>,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let registry = registry.sub_registry_with_prefix("sluice_relay");
        registry.register(
            "connections",
            "Connected clients",
            metrics.connections.clone(),
        );
        registry.register(
            "connections_accepted",
            "Connections upgraded",
            metrics.accepted.clone(),
        );
        registry.register(
            "connections_refused",
            "Connections refused before the upgrade",
            metrics.refused.clone(),
        );
        registry.register(
            "disconnects",
            "Connections ended, by close code",
            metrics.disconnects.clone(),
        );
        registry.register("commands", "Commands received", metrics.commands.clone());
        registry.register(
            "publications",
            "Publications accepted",
            metrics.publications.clone(),
        );
        registry.register(
            "publications_refused",
            "Publications refused because the channel's readers could not take more",
            metrics.publications_refused.clone(),
        );
        registry.register("writes", "Writes to client sockets", metrics.writes.clone());
        registry.register(
            "deliveries",
            "Messages queued to clients by channels",
            metrics.deliveries.clone(),
        );
        registry.register_with_unit(
            "received",
            "Bytes received",
            Unit::Bytes,
            metrics.received_bytes.clone(),
        );
        registry.register_with_unit(
            "sent",
            "Bytes sent",
            Unit::Bytes,
            metrics.sent_bytes.clone(),
        );
        registry.register(
            "store_failures",
            "What the store could not do, by operation",
            metrics.store_failures.clone(),
        );
        metrics
    }

    pub fn totals(&self) -> Totals {
        Totals {
            opened: self.accepted.get(),
            refused: self.refused_total.load(Ordering::Relaxed),
            messages_in: self.commands.get(),
            messages_out: self.deliveries.get(),
        }
    }

    pub fn connected(&self) {
        self.connections.inc();
        self.accepted.inc();
    }

    pub fn gone(&self) {
        self.connections.dec();
    }

    pub fn refused(&self, reason: Refused) {
        self.refused_total.fetch_add(1, Ordering::Relaxed);
        self.refused.get_or_create(&RefusedLabel { reason }).inc();
    }

    pub fn disconnected(&self, code: u16) {
        self.disconnects
            .get_or_create(&CodeLabel {
                code: known_code(code),
            })
            .inc();
    }

    pub fn commanded(&self, commands: u64) {
        self.commands.inc_by(commands);
    }

    pub fn published(&self) {
        self.publications.inc();
    }

    pub fn publication_refused(&self) {
        self.publications_refused.inc();
    }

    pub fn store_failed(&self, operation: Operation, error: &StoreError) {
        let label = OperationLabel { operation };
        self.store_failures.get_or_create(&label).inc();
        let mut told = self.failure_told.lock();
        let now = Instant::now();
        if told.is_none_or(|told| now.duration_since(told) >= FAILURES_TOLD_EVERY) {
            *told = Some(now);
            tracing::warn!(%error, ?operation, "the store failed");
        }
    }

    pub fn delivered(&self, messages: u64) {
        self.deliveries.inc_by(messages);
    }

    pub fn received(&self, bytes: u64) {
        self.received_bytes.inc_by(bytes);
    }

    pub fn wrote(&self, writes: u64, bytes: u64) {
        self.writes.inc_by(writes);
        self.sent_bytes.inc_by(bytes);
    }
}

/// Clients and API callers choose codes freely; as labels, codes that are not the relay's own are one.
fn known_code(code: u16) -> u16 {
    match code {
        1000..=1015 | 3000..=3014 | 3500..=3509 => code,
        _ => 0,
    }
}
