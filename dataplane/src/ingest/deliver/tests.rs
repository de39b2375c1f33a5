use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use prometheus_client::registry::Registry;
use sluice_crds::config::{GatewayConfig, Ingest, Upstream};
use tokio::sync::watch;
use tokio::time::Instant;

use self::fixtures::{application, ingest};
use self::memory::MemoryQueue;
use self::server::TestServer;
use super::{Deliver, DeliverHandle, DeliverParts, FleetLink};
use crate::ingest::entry::StoredRequest;
use crate::ingest::metrics::Metrics;
use crate::ingest::proxy::Proxy;
use crate::store::queue::{EntryId, Lane, NewEntry, Queue};

mod calls;
mod delivery;
mod embedded;
pub(crate) mod fixtures;
pub(crate) mod memory;
mod process;
pub(crate) mod server;

/// Long enough for a busy machine, short enough for a test that fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// A delivery thread between a queue in memory and servers on sockets.
struct Rig {
    queue: Arc<MemoryQueue>,
    handle: DeliverHandle,
    config: watch::Sender<Arc<GatewayConfig>>,
    proxy: Proxy,
    registry: Registry,
    last_id: AtomicU64,
}

fn at(server: &TestServer) -> Upstream {
    let mut upstream = fixtures::upstream("u");
    upstream.url.clone_from(&server.url);
    upstream.concurrency_min = 4;
    upstream
}

/// Retries that a test can wait for.
fn quick(mut config: Ingest) -> Ingest {
    config.delivery.backoff_initial = Duration::from_millis(20);
    config.delivery.backoff_max = Duration::from_millis(50);
    config
}

fn gateway(ingest: Ingest) -> Arc<GatewayConfig> {
    Arc::new(GatewayConfig {
        ingest: Some(Arc::new(ingest)),
        ..crate::config::tests::sample()
    })
}

impl Rig {
    fn start(ingest: Ingest) -> Self {
        Self::start_with(ingest, MemoryQueue::new())
    }

    fn start_with(ingest: Ingest, queue: Arc<MemoryQueue>) -> Self {
        let (config, receiver) = watch::channel(gateway(ingest));
        let (proxy, calls) = Proxy::new();
        let mut registry = Registry::default();
        let parts = DeliverParts {
            fleet: FleetLink::alone(),
            config: receiver,
            queue: Arc::clone(&queue) as _,
            calls,
            metrics: Metrics::register(&mut registry),
        };
        Self {
            queue,
            handle: Deliver::start(parts).unwrap(),
            config,
            proxy,
            registry,
            last_id: AtomicU64::new(0),
        }
    }

    /// To one upstream, for one application.
    fn simple(server: &TestServer) -> Self {
        Self::start(quick(ingest(vec![application("a")], vec![at(server)])))
    }

    async fn append(&self, application: &str, key: &str, request: &StoredRequest) -> EntryId {
        let number = self.last_id.fetch_add(1, Atomic::Relaxed);
        let millis = crate::clock::unix_ms();
        let id = EntryId((u128::from(millis) << 80) | u128::from(number));
        let entry = NewEntry {
            id,
            lane: Lane {
                partition: 0,
                application: application.into(),
                replay: false,
            },
            key: Bytes::copy_from_slice(key.as_bytes()),
            barrier: Bytes::new(),
            cost: 1,
            replay_of: None,
            request: request.encode(),
        };
        self.queue.append(entry).await.unwrap();
        id
    }

    /// Waits until the only lane is held for this reason.
    async fn until_held(&self, why: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let report = self.handle.report().await.unwrap();
            let held = report.lanes.first().and_then(|lane| lane.held.as_ref());
            if held.is_some_and(|held| held.why.as_str() == why) {
                return;
            }
            assert!(Instant::now() < deadline, "not held for {why}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn scrape(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    /// The value of a metric, by its full name with labels.
    fn metric(&self, name: &str) -> Option<f64> {
        let text = self.scrape();
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|value| value.parse().ok())
    }
}

fn get(target: &str) -> StoredRequest {
    StoredRequest {
        method: Method::GET,
        target: Bytes::copy_from_slice(target.as_bytes()),
        headers: Vec::new(),
        client: [192, 0, 2, 7].into(),
        secure: false,
        body: Bytes::new(),
    }
}

fn post(target: &str, headers: &[(&'static str, &'static str)], body: &[u8]) -> StoredRequest {
    StoredRequest {
        method: Method::POST,
        headers: headers
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect(),
        body: Bytes::copy_from_slice(body),
        ..get(target)
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
