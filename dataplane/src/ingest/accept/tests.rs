//! Accepting without sockets: overload, memory, and what is counted.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http::Request;
use http::header::RETRY_AFTER;
use http_body_util::{BodyExt, Full};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use sluice_crds::config::{Ingest, UnknownKeys};

use super::*;
use crate::limits::PRESSURE_INTERVAL;
use crate::pressure::Level;
use crate::relay::http::tests::{TestQueue, gateway};
use crate::resources::MemoryBudget;

struct Fixture {
    accept: Arc<Accept>,
    queue: Arc<TestQueue>,
    pressure: Arc<Pressure>,
    registry: Registry,
    _config: watch::Sender<Arc<GatewayConfig>>,
}

fn fixture(memory_bytes: u64, change: impl FnOnce(&mut Ingest)) -> Fixture {
    let mut registry = Registry::default();
    let ingest = countly::tests::config(change);
    let (sender, config) = watch::channel(Arc::new(gateway(Some(ingest), true)));
    let memory = MemoryBudget::detect(Some(memory_bytes));
    let pressure = Pressure::new(1, memory, &mut registry);
    let queue = Arc::new(TestQueue::default());
    let ids = AtomicU64::new(0);
    let accept = Accept::new(Parts {
        config,
        queue: Arc::clone(&queue) as _,
        ids: Arc::new(move || EntryId(u128::from(ids.fetch_add(1, Ordering::Relaxed)))),
        proxy: None,
        metrics: Metrics::register(&mut registry),
        pressure: Arc::clone(&pressure),
        connections_max: 1,
    });
    Fixture {
        accept,
        queue,
        pressure,
        registry,
        _config: sender,
    }
}

impl Fixture {
    async fn post(&self, target: &str, body: impl Into<Bytes>) -> (StatusCode, String, bool) {
        let peer = Peer {
            address: "::ffff:192.0.2.1".parse().expect("an address"),
            secure: true,
        };
        let request = Request::post(target).body(Full::new(body.into()));
        let (head, body) = request.expect("valid").into_parts();
        let answer = self.accept.handle(peer, &head, body).await;
        let status = answer.status();
        let may_come_back = answer.headers().contains_key(RETRY_AFTER);
        let body = answer
            .into_body()
            .collect()
            .await
            .expect("whole")
            .to_bytes();
        (
            status,
            String::from_utf8_lossy(&body).into_owned(),
            may_come_back,
        )
    }

    fn assert_counted(&self, line: &str) {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("metrics are encodable");
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
}

const FORM: &str = "app_key=abc&device_id=d";
const ROOMY: u64 = 256 * 1024 * 1024;

#[tokio::test]
async fn overload_refuses_new_requests() {
    let fixture = fixture(ROOMY, |_| {});
    assert_eq!(fixture.post("/i", FORM).await.0, StatusCode::OK);
    let sampler = tokio::spawn(Arc::clone(&fixture.pressure).run());
    while fixture.pressure.level() != Level::ShedConnections {
        fixture
            .pressure
            .record_loop_delay(0, Duration::from_secs(5));
        tokio::time::sleep(PRESSURE_INTERVAL / 4).await;
    }
    let refused = fixture.post("/i", FORM).await;
    assert_eq!(
        (refused.0, refused.2),
        (StatusCode::SERVICE_UNAVAILABLE, true)
    );
    assert_eq!(fixture.queue.take().len(), 1);
    fixture.assert_counted(r#"sluice_ingest_rejected_total{reason="Overload"} 1"#);
    sampler.abort();
}

#[tokio::test]
async fn bodies_share_the_memory() {
    // A quarter of the least that a process may have.
    let fixture = fixture(64 * 1024 * 1024, |ingest| {
        ingest.accept.body_bytes = 64 * 1024 * 1024;
    });
    let body = format!("{FORM}&x={}", "y".repeat(15 * 1024 * 1024));
    assert_eq!(fixture.post("/i", body.clone()).await.0, StatusCode::OK);
    *fixture.queue.delay.lock() = Duration::from_millis(100);
    let (first, second) = tokio::join!(
        fixture.post("/i", body.clone()),
        fixture.post("/i", body.clone())
    );
    assert_eq!(first.0, StatusCode::OK);
    assert_eq!(
        (second.0, second.2),
        (StatusCode::SERVICE_UNAVAILABLE, true)
    );
    assert_eq!(fixture.post("/i", body).await.0, StatusCode::OK);
    fixture.assert_counted(r#"sluice_ingest_rejected_total{reason="BodyMemory"} 1"#);
}

#[tokio::test]
async fn who_is_dropped_is_counted() {
    let discard = UnknownKeys::AcceptAndDiscard;
    let fixture = fixture(ROOMY, |ingest| ingest.accept.unknown_keys = discard);
    let unknown = fixture.post("/i", "app_key=x&device_id=d").await;
    let success = r#"{"result":"Success"}"#.to_owned();
    assert_eq!(unknown, (StatusCode::OK, success.clone(), false));
    let empty = fixture.post("/i/bulk", "requests=[]").await;
    assert_eq!(empty, (StatusCode::OK, success, false));
    let unsigned = fixture.post("/i", "app_key=salty&device_id=d").await;
    assert_eq!(unsigned.1, r#"{"result":"Request does not have checksum"}"#);
    assert!(fixture.queue.take().is_empty());
    for reason in ["UnknownKeyDiscarded", "EmptyBulk", "Checksum"] {
        fixture.assert_counted(&format!(
            r#"sluice_ingest_rejected_total{{reason="{reason}"}} 1"#
        ));
    }
}

#[tokio::test]
async fn clients_have_their_own_addresses() {
    let fixture = fixture(ROOMY, |_| {});
    fixture.post("/i", FORM).await;
    let [(_, request)] = &fixture.queue.take()[..] else {
        panic!("one entry");
    };
    assert_eq!(request.client.to_string(), "192.0.2.1");
    assert!(request.secure);
}

#[tokio::test]
async fn without_an_upstream_calls_are_refused_for_now() {
    let fixture = fixture(ROOMY, |_| {});
    let refused = fixture.post("/o/sdk", "").await;
    assert_eq!(
        (refused.0, refused.2),
        (StatusCode::SERVICE_UNAVAILABLE, true)
    );
    fixture.assert_counted(r#"sluice_ingest_proxied_total{status="503"} 1"#);
}

#[test]
fn kept_connections_are_counted() {
    let fixture = fixture(ROOMY, |_| {});
    let kept = fixture.accept.keep_connection();
    assert!(kept.is_some());
    assert!(fixture.accept.keep_connection().is_none());
    drop(kept);
    assert!(fixture.accept.keep_connection().is_some());
}
