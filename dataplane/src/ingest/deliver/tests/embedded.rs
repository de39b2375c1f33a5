//! Delivery from the queue on disk, over restarts.

use std::collections::HashMap;
use std::time::Duration;

use sluice_crds::config::Durability;
use sluice_e2e::timing::{Promises, kept_in_one_run};

use super::fixtures::{application, ingest};
use super::server::{Act, TestServer, answer, success};
use super::*;
use crate::store::embedded::queue::{EmbeddedQueue, QueueOptions};
use crate::store::queue::{Filter, Outcome, State};

const OPTIONS: QueueOptions = QueueOptions {
    durability: Durability::Memory,
    budget_bytes: 1 << 30,
};

/// What a delivery thread lives on.
struct Running {
    handle: DeliverHandle,
    _config: watch::Sender<Arc<GatewayConfig>>,
    _proxy: Proxy,
}

fn start(queue: &Arc<EmbeddedQueue>, ingest: Ingest) -> Running {
    let (config, receiver) = watch::channel(gateway(ingest));
    let (proxy, calls) = Proxy::new();
    let parts = DeliverParts {
        fleet: FleetLink::alone(),
        config: receiver,
        queue: Arc::clone(queue) as _,
        calls,
        metrics: Metrics::register(&mut Registry::default()),
    };
    Running {
        handle: Deliver::start(parts).unwrap(),
        _config: config,
        _proxy: proxy,
    }
}

async fn fill(queue: &EmbeddedQueue, applications: usize, entries: usize, keys: usize) {
    for index in 0..entries {
        let key = index % keys;
        let request = post(&format!("/i?device_id={key}&n={index}"), &[], &[b'a'; 500]);
        let entry = NewEntry {
            id: queue.ids().next(crate::clock::unix_ms()),
            lane: Lane {
                partition: 0,
                application: format!("a{}", key % applications).into(),
                replay: false,
            },
            key: Bytes::from(key.to_string()),
            barrier: Bytes::new(),
            cost: 1,
            replay_of: None,
            request: request.encode(),
        };
        queue.append(entry).await.unwrap();
    }
}

async fn delivered(queue: &EmbeddedQueue) -> usize {
    let filter = Filter {
        state: Some(State::Settled(Outcome::Delivered)),
        ..Filter::default()
    };
    queue.find(&filter, None, 10_000).await.unwrap().found.len()
}

/// Each key's requests by their first arrival.
fn assert_ordered(targets: &[String]) {
    let mut last: HashMap<&str, usize> = HashMap::new();
    for target in targets {
        let (key, number) = target.split_once("&n=").unwrap();
        let number = number.parse().unwrap();
        let before = last.insert(key, number).unwrap_or(0);
        assert!(number >= before, "{key}: {number} after {before}");
    }
}

#[tokio::test]
async fn stopping_and_starting_repeats_nothing_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let refuses = |number: usize| number % 50 == 7;
    let server = TestServer::start(move |seen| {
        if refuses(seen.number) {
            Act::Answer(answer(503, "busy"))
        } else {
            success()
        }
    })
    .await;
    let config = || {
        quick(ingest(
            vec![application("a0"), application("a1")],
            vec![at(&server)],
        ))
    };
    for round in 0..4 {
        let queue = EmbeddedQueue::open(dir.path(), OPTIONS).unwrap();
        if round == 0 {
            fill(&queue, 2, 1_000, 100).await;
        }
        let running = start(&queue, config());
        if round < 3 {
            tokio::time::sleep(Duration::from_millis(150)).await;
        } else {
            until("all are delivered", || queue.stats().waiting == 0).await;
        }
        assert_eq!(running.handle.stop(Instant::now() + PATIENCE).await, 0);
        let refused = (0..server.count())
            .filter(|number| refuses(*number))
            .count();
        assert_eq!(
            delivered(&queue).await,
            server.count() - refused,
            "none twice"
        );
        queue.shutdown();
    }
    assert_ordered(&server.targets());
}

#[tokio::test]
async fn many_applications_are_served() {
    let dir = tempfile::tempdir().unwrap();
    let queue = EmbeddedQueue::open(dir.path(), OPTIONS).unwrap();
    fill(&queue, 500, 1_500, 500).await;
    let server = TestServer::start(|_| success()).await;
    let applications = (0..500)
        .map(|index| application(&format!("a{index}")))
        .collect();
    let running = start(&queue, ingest(applications, vec![at(&server)]));
    until("all are delivered", || queue.stats().waiting == 0).await;
    running.handle.stop(Instant::now() + PATIENCE).await;
    assert_eq!(server.count(), 1_500);
    assert_ordered(&server.targets());
}

#[tokio::test]
async fn what_arrives_is_delivered_at_once() {
    kept_in_one_run(async || Ok(delays().await)).await.unwrap();
}

/// From append to arrival.
async fn delays() -> Promises {
    let dir = tempfile::tempdir().unwrap();
    let queue = EmbeddedQueue::open(dir.path(), OPTIONS).unwrap();
    let server = TestServer::start(|_| success()).await;
    let running = start(&queue, ingest(vec![application("a0")], vec![at(&server)]));
    let mut delays = Vec::new();
    for _ in 0..50 {
        let (began, before) = (Instant::now(), server.count());
        fill(&queue, 1, 1, 1).await;
        until("it arrives", || server.count() > before).await;
        delays.push(began.elapsed());
    }
    delays.sort();
    running.handle.stop(Instant::now() + PATIENCE).await;
    Promises::new().expect(
        delays[25] < Duration::from_millis(200),
        format!(
            "append to arrival: median {:?}, longest {:?}",
            delays[25], delays[49]
        ),
    )
}
