//! Configurations to begin from.

use std::sync::Arc;
use std::time::Duration;

use sluice_crds::config::{
    Accept, Application, Delivery, Dialect, Durability, Ingest, Ordering, RetentionBudget,
    UnknownKeys, Upstream,
};

pub(crate) fn upstream(name: &str) -> Upstream {
    Upstream {
        name: name.to_owned(),
        url: format!("http://{name}"),
        weight: 1,
        priority: 0,
        concurrency_min: 1,
        concurrency_max: 1000,
        health: None,
    }
}

pub(crate) fn application(name: &str) -> Application {
    Application {
        name: name.to_owned(),
        keys: Vec::new(),
        salt: None,
        requests_per_minute: None,
        weight: 1,
        delivery: None,
        upstreams: Vec::new(),
        retention: None,
        paused: false,
    }
}

pub(crate) fn ingest(applications: Vec<Application>, upstreams: Vec<Upstream>) -> Ingest {
    Ingest {
        accept: Accept {
            dialect: Dialect::Countly,
            path_prefix: String::new(),
            body_bytes: 1024,
            concurrent_requests: 1,
            required_fields: Vec::new(),
            tamper_check: false,
            unknown_keys: UnknownKeys::Reject,
        },
        durability: Durability::Memory,
        retention: RetentionBudget {
            time: Duration::from_secs(3_600),
            bytes: 1 << 30,
        },
        redact: Vec::new(),
        requests_per_minute: None,
        delivery: Delivery {
            attempts: 10,
            backoff_initial: Duration::from_secs(1),
            backoff_max: Duration::from_secs(60),
            timeout: Duration::from_secs(30),
            ordering: Ordering::PerKey,
        },
        upstreams: upstreams.into_iter().map(Arc::new).collect(),
        applications: applications.into_iter().map(Arc::new).collect(),
    }
}
