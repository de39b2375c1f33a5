//! Metrics of the operator.

use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::queue::Outcome;

/// How a look at a Gateway ended.
const DONE: &str = "done";
const FAILED: &str = "failed";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

#[derive(Debug, Clone)]
pub struct Metrics {
    passes: Family<ResultLabel, Counter<u64, AtomicU64>>,
    pass_seconds: Histogram,
    waiting: Gauge<i64, AtomicI64>,
    leading: Gauge<i64, AtomicI64>,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            passes: Family::default(),
            pass_seconds: Histogram::new([0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]),
            waiting: Gauge::default(),
            leading: Gauge::default(),
        };
        for result in [DONE, FAILED] {
            // Visible as 0 from the start, so that the first failure shows as an increase.
            drop(metrics.passes.get_or_create(&ResultLabel { result }));
        }
        let operator = registry.sub_registry_with_prefix("sluice_operator");
        operator.register("passes", "Looks at a Gateway", metrics.passes.clone());
        operator.register(
            "pass_seconds",
            "How long looks at a Gateway take",
            metrics.pass_seconds.clone(),
        );
        operator.register(
            "queue_gateways",
            "Gateways that are to be looked at and have not been yet",
            metrics.waiting.clone(),
        );
        operator.register(
            "leading",
            "1: this operator writes",
            metrics.leading.clone(),
        );
        metrics
    }

    pub fn passed(&self, outcome: Outcome, took: Duration) {
        let result = match outcome {
            Outcome::Settled | Outcome::Again(_) => DONE,
            Outcome::Failed => FAILED,
        };
        self.passes.get_or_create(&ResultLabel { result }).inc();
        self.pass_seconds.observe(took.as_secs_f64());
    }

    pub fn waiting(&self, gateways: usize) {
        self.waiting
            .set(i64::try_from(gateways).unwrap_or(i64::MAX));
    }

    pub fn leading(&self, leads: bool) {
        self.leading.set(i64::from(leads));
    }
}
