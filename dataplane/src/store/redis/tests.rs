//! The broker on real servers: the conformance suite, and publishing through faults of a cluster.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sluice_e2e::redis::{Options, RedisCluster, RedisServer};
use tokio::runtime::Handle;

use super::broker::RedisBroker;
use super::cluster::Cluster;
use super::metrics::Metrics;
use super::presence::RedisPresence;
use super::pubsub::{Open, PubSub};
use super::settings::Settings;
use super::topology::Address;
use crate::store::EventSink;
use crate::store::conformance::{Harness, Node, RecordingSink, run_broker};

mod costs;
mod faults;
mod gaps;
mod replay;
mod secured;

pub(super) fn seeds<'a>(servers: impl IntoIterator<Item = &'a RedisServer>) -> Vec<Address> {
    let seed = |server: &RedisServer| Address::new("127.0.0.1", server.port());
    servers.into_iter().map(seed).collect()
}

pub(super) fn settings(seeds: impl Into<Vec<Address>>, gateway: &str) -> Settings {
    Settings {
        seeds: seeds.into(),
        username: None,
        password: None,
        tls: None,
        gateway: gateway.to_owned(),
    }
}

pub(super) fn connect(settings: Settings) -> Arc<Cluster> {
    Cluster::start(settings, Handle::current(), Metrics::default())
}

/// Tests that put a load on servers, or let them die under one, take turns: beside each other they are measured, and fail
/// over, as on no machine that is meant for them.
pub(super) static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A name that no other case has.
pub(super) fn fresh_gateway() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("test/{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What a process has of the store.
pub(super) struct Process {
    pub(super) cluster: Arc<Cluster>,
    pub(super) broker: Arc<RedisBroker>,
    pub(super) metrics: Metrics,
}

impl Process {
    /// Returns once Redis has been found.
    pub(super) async fn start(settings: Settings, sink: Arc<dyn EventSink>) -> Self {
        let metrics = Metrics::default();
        let cluster = Cluster::start(settings, Handle::current(), metrics.clone());
        let mut topology = cluster.topology();
        let found = topology.wait_for(|topology| topology.uncovered() == 0);
        tokio::time::timeout(Duration::from_secs(40), found)
            .await
            .expect("redis was not found")
            .unwrap();
        let pubsub = PubSub::start(Arc::clone(&cluster), Arc::new(Open));
        Self {
            broker: RedisBroker::start(&cluster, &pubsub, sink),
            cluster,
            metrics,
        }
    }
}

/// Two processes on the servers; each fleet is a gateway of its own.
pub(super) struct OnRedis<'a>(pub(super) &'a [RedisServer]);

#[async_trait]
impl Harness for OnRedis<'_> {
    async fn nodes(&self) -> Vec<Node> {
        let gateway = fresh_gateway();
        let mut nodes = Vec::new();
        for _ in 0..2 {
            let sink = Arc::new(RecordingSink::default());
            let settings = settings(seeds(self.0), &gateway);
            let process = Process::start(settings, sink.clone()).await;
            nodes.push(Node {
                broker: process.broker,
                presence: Arc::new(RedisPresence::new(process.cluster)),
                sink,
            });
        }
        nodes
    }

    fn tick(&self) -> Duration {
        Duration::from_millis(400)
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    fn can_skip(&self) -> bool {
        false
    }

    async fn settle(&self) {
        // A replica on a busy machine is this far behind.
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_conforms_on_one_redis() {
    let server = RedisServer::start(Options::default()).await.unwrap();
    run_broker(&OnRedis(std::slice::from_ref(&server))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_conforms_on_a_cluster() {
    let cluster = RedisCluster::start(3, 1, Options::default()).await.unwrap();
    run_broker(&OnRedis(cluster.nodes())).await;
}
