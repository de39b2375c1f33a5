//! Counters, gauges and histograms of ingest, `sluice_ingest_*`, by names that stay.
//!
//! Labels are names of applications and upstreams and fixed reasons; never a device, a key or an address. What the
//! store holds is set from its statistics by whoever looks at it; all else is counted where it happens. What belongs
//! to an application or an upstream that is gone is removed with it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry, Unit};

use crate::store::queue::QueueStats;

#[cfg(test)]
mod tests;

/// The label of requests whose key belongs to no application; no application can have this name.
pub const UNKNOWN_APPLICATION: &str = "(unknown)";

/// Answering takes as long as the disk does; above ten seconds SDKs take the server for overloaded.
const ACCEPT_BUCKETS_S: [f64; 13] = [
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];
/// From a delivery at once to one that waited as long as retention may be.
const DELAY_BUCKETS_S: [f64; 14] = [
    0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0,
];
const LATENCY_BUCKETS_S: [f64; 13] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0,
];

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApplicationLabel {
    application: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApplicationReasonLabel {
    application: Arc<str>,
    reason: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CapLabel {
    cap: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct UpstreamLabel {
    upstream: Arc<str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    upstream: Arc<str>,
    outcome: &'static str,
}

#[derive(Debug, Clone)]
struct Latencies;

impl MetricConstructor<Histogram> for Latencies {
    fn new_metric(&self) -> Histogram {
        Histogram::new(LATENCY_BUCKETS_S)
    }
}

type Seconds = Gauge<f64, AtomicU64>;

/// Shared by workers and the delivery thread.
#[derive(Debug)]
pub struct Metrics {
    accepted: Family<ApplicationLabel, Counter>,
    rejected: Family<ReasonLabel, Counter>,
    delivered: Family<ApplicationLabel, Counter>,
    parked: Family<ApplicationReasonLabel, Counter>,
    retried: Family<ApplicationReasonLabel, Counter>,
    discarded: Counter,
    proxied: Family<StatusLabel, Counter>,
    queue_entries: Family<ApplicationLabel, Gauge>,
    queue_bytes: Gauge,
    queue_stored_bytes: Gauge,
    queue_budget_bytes: Gauge,
    oldest_age_seconds: Family<ApplicationLabel, Seconds>,
    delivery_delay_seconds: Histogram,
    accept_seconds: Histogram,
    lane_held: Family<ApplicationReasonLabel, Gauge>,
    cap_rate: Family<CapLabel, Seconds>,
    delivered_total: AtomicU64,
    parked_total: AtomicU64,
    parked_of: Mutex<BTreeMap<Arc<str>, u64>>,
    upstream_in_flight: Family<UpstreamLabel, Gauge>,
    upstream_limit_in_flight: Family<UpstreamLabel, Gauge>,
    upstream_limit_rate: Family<UpstreamLabel, Seconds>,
    upstream_breaker_open: Family<UpstreamLabel, Gauge>,
    upstream_attempts: Family<OutcomeLabel, Counter>,
    upstream_latency_seconds: Family<UpstreamLabel, Histogram, Latencies>,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Arc<Self> {
        let metrics = Self {
            accepted: Family::default(),
            rejected: Family::default(),
            delivered: Family::default(),
            parked: Family::default(),
            retried: Family::default(),
            discarded: Counter::default(),
            proxied: Family::default(),
            queue_entries: Family::default(),
            queue_bytes: Gauge::default(),
            queue_stored_bytes: Gauge::default(),
            queue_budget_bytes: Gauge::default(),
            oldest_age_seconds: Family::default(),
            delivery_delay_seconds: Histogram::new(DELAY_BUCKETS_S),
            accept_seconds: Histogram::new(ACCEPT_BUCKETS_S),
            lane_held: Family::default(),
            cap_rate: Family::default(),
            delivered_total: AtomicU64::new(0),
            parked_total: AtomicU64::new(0),
            parked_of: Mutex::default(),
            upstream_in_flight: Family::default(),
            upstream_limit_in_flight: Family::default(),
            upstream_limit_rate: Family::default(),
            upstream_breaker_open: Family::default(),
            upstream_attempts: Family::default(),
            upstream_latency_seconds: Family::new_with_constructor(Latencies),
        };
        let mut scope = Scope(registry.sub_registry_with_prefix("sluice_ingest"));
        metrics.register_requests(&mut scope);
        metrics.register_queue(&mut scope);
        metrics.register_upstreams(&mut scope);
        Arc::new(metrics)
    }

    fn register_requests(&self, scope: &mut Scope<'_>) {
        scope.add(
            "accepted",
            "Requests queued and acknowledged",
            &self.accepted,
        );
        scope.add(
            "rejected",
            "Requests refused or dropped, by reason",
            &self.rejected,
        );
        scope.add(
            "delivered",
            "Requests the upstream took for good",
            &self.delivered,
        );
        scope.add("parked", "Requests set aside for an operator", &self.parked);
        scope.add("retried", "Attempts that will be repeated", &self.retried);
        scope.add(
            "discarded",
            "Requests an operator discarded",
            &self.discarded,
        );
        scope.add(
            "proxied",
            "Calls answered by the upstream itself, by status",
            &self.proxied,
        );
        scope.add_in(
            "accept",
            "From the request's head to its answer",
            Unit::Seconds,
            &self.accept_seconds,
        );
        scope.add_in(
            "delivery_delay",
            "From acceptance to delivery",
            Unit::Seconds,
            &self.delivery_delay_seconds,
        );
    }

    fn register_queue(&self, scope: &mut Scope<'_>) {
        scope.add("queue_entries", "Requests waiting", &self.queue_entries);
        scope.add_in(
            "queue",
            "Requests waiting, before compression",
            Unit::Bytes,
            &self.queue_bytes,
        );
        scope.add_in(
            "queue_stored",
            "What the store uses of its budget",
            Unit::Bytes,
            &self.queue_stored_bytes,
        );
        scope.add_in(
            "queue_budget",
            "What the store may use",
            Unit::Bytes,
            &self.queue_budget_bytes,
        );
        scope.add_in(
            "oldest_age",
            "Age of the oldest waiting request",
            Unit::Seconds,
            &self.oldest_age_seconds,
        );
        scope.add(
            "lane_held",
            "Why an application's requests are not being sent: 1 for the reason that holds",
            &self.lane_held,
        );
        scope.add(
            "cap_requests_per_minute",
            "What may be sent under a cap here: all of it, or this data plane's part",
            &self.cap_rate,
        );
    }

    fn register_upstreams(&self, scope: &mut Scope<'_>) {
        scope.add(
            "upstream_in_flight",
            "Requests sent and not answered",
            &self.upstream_in_flight,
        );
        scope.add(
            "upstream_limit_in_flight",
            "Requests that may be in flight",
            &self.upstream_limit_in_flight,
        );
        scope.add(
            "upstream_limit_rate",
            "Requests that may be sent per second",
            &self.upstream_limit_rate,
        );
        scope.add(
            "upstream_breaker_open",
            "1 while the upstream is given a rest",
            &self.upstream_breaker_open,
        );
        scope.add(
            "upstream_attempts",
            "Answers and failures, by outcome",
            &self.upstream_attempts,
        );
        scope.add_in(
            "upstream_latency",
            "From sending to the answer",
            Unit::Seconds,
            &self.upstream_latency_seconds,
        );
    }

    /// The counter itself, for those who count often.
    pub fn accepted_counter(&self, application: &str) -> Counter {
        self.accepted
            .get_or_create_owned(&application_label(application))
    }

    pub fn accepted(&self, application: &str) {
        self.accepted
            .get_or_create(&application_label(application))
            .inc();
    }

    pub fn rejected(&self, reason: &'static str) {
        self.rejected.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub fn accept_took(&self, time: Duration) {
        self.accept_seconds.observe(time.as_secs_f64());
    }

    pub fn proxied(&self, status: u16) {
        self.proxied.get_or_create(&StatusLabel { status }).inc();
    }

    /// `delay`: since the request was accepted.
    pub fn delivered(&self, application: &str, delay: Duration) {
        self.delivered_total.fetch_add(1, Ordering::Relaxed);
        self.delivered
            .get_or_create(&application_label(application))
            .inc();
        self.delivery_delay_seconds.observe(delay.as_secs_f64());
    }

    pub fn parked(&self, application: &str, reason: &str) {
        self.parked_total.fetch_add(1, Ordering::Relaxed);
        *self.parked_of.lock().entry(application.into()).or_default() += 1;
        self.parked
            .get_or_create(&reason_label(application, reason))
            .inc();
    }

    pub fn retried(&self, application: &str, reason: &str) {
        self.retried
            .get_or_create(&reason_label(application, reason))
            .inc();
    }

    pub fn discarded(&self) {
        self.discarded.inc();
    }

    pub fn set_queue(&self, stats: &QueueStats) {
        self.queue_bytes.set(signed(stats.waiting_bytes));
        self.queue_stored_bytes.set(signed(stats.stored_bytes));
        self.queue_budget_bytes.set(signed(stats.budget_bytes));
    }

    /// Waiting requests of an application and the age of the oldest, zero when there is none.
    pub fn set_waiting(&self, application: &str, entries: u64, oldest_age: Duration) {
        let label = application_label(application);
        self.queue_entries
            .get_or_create(&label)
            .set(signed(entries));
        self.oldest_age_seconds
            .get_or_create(&label)
            .set(oldest_age.as_secs_f64());
    }

    pub fn set_lane_held(&self, application: &str, reason: &str, held: bool) {
        self.lane_held
            .get_or_create(&reason_label(application, reason))
            .set(i64::from(held));
    }

    /// `rate_limit`: requests per second; infinite while no rate is imposed.
    pub fn set_upstream(
        &self,
        upstream: &Arc<str>,
        in_flight: u64,
        in_flight_limit: u64,
        rate_limit: f64,
        breaker_open: bool,
    ) {
        let label = upstream_label(upstream);
        self.upstream_in_flight
            .get_or_create(&label)
            .set(signed(in_flight));
        self.upstream_limit_in_flight
            .get_or_create(&label)
            .set(signed(in_flight_limit));
        self.upstream_limit_rate
            .get_or_create(&label)
            .set(rate_limit);
        self.upstream_breaker_open
            .get_or_create(&label)
            .set(i64::from(breaker_open));
    }

    /// One answer or failure of an upstream.
    pub fn attempted(&self, upstream: &Arc<str>, outcome: &'static str, latency: Duration) {
        self.upstream_attempts
            .get_or_create(&OutcomeLabel {
                upstream: Arc::clone(upstream),
                outcome,
            })
            .inc();
        self.upstream_latency_seconds
            .get_or_create(&upstream_label(upstream))
            .observe(latency.as_secs_f64());
    }

    /// An application that is gone has no gauges; its counters stay as long as the process does.
    pub fn forget_application(&self, application: &str, reasons: &[&str]) {
        let label = application_label(application);
        self.queue_entries.remove(&label);
        self.oldest_age_seconds.remove(&label);
        for reason in reasons {
            self.lane_held.remove(&reason_label(application, reason));
        }
    }

    /// `cap`: `gateway`, or `application/<name>`.
    pub fn set_cap(&self, cap: &Arc<str>, per_minute: f64) {
        self.cap_rate.get_or_create(&cap_label(cap)).set(per_minute);
    }

    pub fn forget_cap(&self, cap: &Arc<str>) {
        self.cap_rate.remove(&cap_label(cap));
    }

    /// Requests of an application that were accepted, by this process.
    pub fn accepted_of(&self, application: &str) -> u64 {
        self.accepted
            .get(&application_label(application))
            .map_or(0, |counter| counter.get())
    }

    /// Requests of an application that were delivered and parked, by this process.
    pub fn settled_of(&self, application: &str) -> (u64, u64) {
        let delivered = self.delivered.get(&application_label(application));
        let parked = self.parked_of.lock().get(application).copied();
        (
            delivered.map_or(0, |counter| counter.get()),
            parked.unwrap_or(0),
        )
    }

    /// Delivered and parked, over all applications.
    pub fn settled_totals(&self) -> (u64, u64) {
        (
            self.delivered_total.load(Ordering::Relaxed),
            self.parked_total.load(Ordering::Relaxed),
        )
    }

    pub fn forget_upstream(&self, upstream: &Arc<str>) {
        let label = upstream_label(upstream);
        self.upstream_in_flight.remove(&label);
        self.upstream_limit_in_flight.remove(&label);
        self.upstream_limit_rate.remove(&label);
        self.upstream_breaker_open.remove(&label);
    }
}

struct Scope<'a>(&'a mut Registry);

impl Scope<'_> {
    fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: &M) {
        self.0.register(name, help, metric.clone());
    }

    fn add_in<M: Metric + Clone>(&mut self, name: &str, help: &str, unit: Unit, metric: &M) {
        self.0.register_with_unit(name, help, unit, metric.clone());
    }
}

/// A lane without an application is that of unknown keys.
fn application_name(application: &str) -> Arc<str> {
    if application.is_empty() {
        UNKNOWN_APPLICATION.into()
    } else {
        application.into()
    }
}

fn application_label(application: &str) -> ApplicationLabel {
    ApplicationLabel {
        application: application_name(application),
    }
}

fn reason_label(application: &str, reason: &str) -> ApplicationReasonLabel {
    ApplicationReasonLabel {
        application: application_name(application),
        reason: reason.into(),
    }
}

fn cap_label(cap: &Arc<str>) -> CapLabel {
    CapLabel {
        cap: Arc::clone(cap),
    }
}

fn upstream_label(upstream: &Arc<str>) -> UpstreamLabel {
    UpstreamLabel {
        upstream: Arc::clone(upstream),
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
