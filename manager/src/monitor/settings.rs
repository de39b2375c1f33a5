//! Settings that people change while a gateway runs, as they are in force.

use serde::Serialize;
use sluice_crds::config::{Delivery, Durability, GatewayConfig};

/// Where they are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Source {
    /// Files, which the process reads anew when they change.
    Manifests,
    /// Objects.
    Kubernetes,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Settings {
    pub source: Source,
    /// `None`: the gateway takes no requests for delivery.
    pub gateway: Option<OfGateway>,
    pub applications: Vec<OfApplication>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OfGateway {
    /// Of all deliveries; `None`: no cap.
    pub requests_per_minute: Option<u32>,
    pub durability: Durability,
    pub retention_seconds: u64,
    pub retention_bytes: u64,
    pub delivery: OfDelivery,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OfDelivery {
    pub attempts: u32,
    pub backoff_initial_seconds: f64,
    pub backoff_max_seconds: f64,
    pub timeout_seconds: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct OfApplication {
    pub name: String,
    pub requests_per_minute: Option<u32>,
    pub weight: u32,
    pub paused: bool,
    /// `None`: the gateway's.
    pub retention_seconds: Option<u64>,
    pub delivery: Option<OfDelivery>,
}

pub fn of(config: &GatewayConfig, source: Source) -> Settings {
    let ingest = config.ingest.as_ref();
    let applications = ingest.into_iter().flat_map(|ingest| &ingest.applications);
    Settings {
        source,
        gateway: ingest.map(|ingest| OfGateway {
            requests_per_minute: ingest.requests_per_minute,
            durability: ingest.durability,
            retention_seconds: ingest.retention.time.as_secs(),
            retention_bytes: ingest.retention.bytes,
            delivery: of_delivery(&ingest.delivery),
        }),
        applications: applications
            .map(|application| OfApplication {
                name: application.name.clone(),
                requests_per_minute: application.requests_per_minute,
                weight: application.weight,
                paused: application.paused,
                retention_seconds: application.retention.map(|time| time.as_secs()),
                delivery: application.delivery.as_ref().map(of_delivery),
            })
            .collect(),
    }
}

fn of_delivery(delivery: &Delivery) -> OfDelivery {
    OfDelivery {
        attempts: delivery.attempts,
        backoff_initial_seconds: delivery.backoff_initial.as_secs_f64(),
        backoff_max_seconds: delivery.backoff_max.as_secs_f64(),
        timeout_seconds: delivery.timeout.as_secs_f64(),
    }
}
