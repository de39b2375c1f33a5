use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicUsize;

use sluice_e2e::redis::{Options, RedisCluster, RedisServer};

use super::*;
use crate::store::conformance::queue::{self as conformance, address};
use crate::store::queue::Outcome;
use crate::store::redis::cluster::Again;
use crate::store::redis::reply::Reply;
use crate::store::redis::tests::{TURN, connect, seeds, settings};
use crate::store::redis::topology::Address;

mod cost;
mod faults;
mod sharing;

/// A data plane's queue.
fn pod(seeds: &[Address], gateway: &str, holder: &str, durability: Durability) -> Arc<RedisQueue> {
    let cluster = connect(settings(seeds, gateway));
    let settings = QueueSettings {
        holder: holder.to_owned(),
        durability,
        budget_bytes: 1 << 30,
    };
    RedisQueue::start(cluster, settings)
}

/// Many times what anything waited for takes.
const PATIENCE: Duration = Duration::from_secs(40);

async fn until(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < within, "not within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn holds_all(queue: &RedisQueue) {
    let all = || queue.held().0 == queue.held().1;
    until("all partitions held", PATIENCE, all).await;
}

/// Queues of gateways of their own on the same servers.
struct Shop {
    seeds: Vec<Address>,
    made: AtomicUsize,
    /// A queue's gateway, by its address.
    gateways: Mutex<HashMap<usize, String>>,
}

impl Shop {
    fn new(seeds: Vec<Address>) -> Self {
        Self {
            seeds,
            made: AtomicUsize::new(0),
            gateways: Mutex::default(),
        }
    }

    fn fresh(&self) -> String {
        format!("g{}", self.made.fetch_add(1, Ordering::Relaxed))
    }

    async fn open(&self, gateway: String) -> Arc<RedisQueue> {
        let queue = pod(&self.seeds, &gateway, "pod", Durability::Group);
        holds_all(&queue).await;
        // What is stored is known once it is read.
        let known = || {
            queue.shared.parts.iter().all(|part| {
                let held = part.held.lock();
                held.as_ref()
                    .is_some_and(|held| held.index.tail() >= held.next)
            })
        };
        until("everything read", PATIENCE, known).await;
        self.gateways.lock().insert(address(&queue), gateway);
        queue
    }

    /// What a process that is killed leaves, for another gateway: everything but what goes with time.
    async fn copy(&self, from: &str, to: &str) {
        let cluster = connect(settings(&*self.seeds, from));
        let (old, new) = (
            Partitions::new(from, QUEUE_PARTITIONS),
            Partitions::new(to, QUEUE_PARTITIONS),
        );
        for partition in 0..QUEUE_PARTITIONS {
            let slot = old.slot(partition);
            let call = |command, args| cluster.command(slot, command, args, Again::Safe);
            let pattern = old.key(partition, "q:*");
            let keys = call("KEYS", vec![pattern]).await.unwrap();
            for key in keys.list().iter().filter_map(Reply::bytes) {
                let name = std::str::from_utf8(old.name(partition, key).unwrap()).unwrap();
                if !matches!(name, "q:l" | "q:pods") {
                    let copied = call("COPY", vec![key.clone(), new.key(partition, name)]).await;
                    assert_eq!(copied.unwrap(), Reply::Integer(1));
                }
            }
        }
    }
}

#[async_trait]
impl conformance::Harness for Shop {
    async fn queue(&self) -> Arc<dyn Queue> {
        self.open(self.fresh()).await
    }

    async fn killed(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue> {
        let from = self.gateways.lock()[&address(&queue)].clone();
        let to = self.fresh();
        self.copy(&from, &to).await;
        self.open(to).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_passes_on_one_server() {
    let server = RedisServer::start(Options::default()).await.unwrap();
    conformance::run(&Shop::new(seeds([&server]))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_suite_passes_on_a_cluster() {
    let cluster = RedisCluster::start(3, 1, Options::default()).await.unwrap();
    conformance::run(&Shop::new(seeds(cluster.nodes()))).await;
}

const ALL: ClaimLimits = ClaimLimits {
    entries: 256,
    bytes: 4 << 20,
};

fn delivered() -> Verdict {
    Verdict {
        outcome: Outcome::Delivered,
        reason: Arc::default(),
        http_status: 200,
        attempts: 1,
        upstream: "main".into(),
        at_ms: crate::clock::unix_ms(),
    }
}

fn entry(queue: &RedisQueue, application: &str, request: impl Into<Bytes>) -> NewEntry {
    NewEntry {
        id: queue.ids().next(crate::clock::unix_ms()),
        lane: Lane {
            partition: queue.partition_of(application, b""),
            application: application.into(),
            replay: false,
        },
        key: "key".into(),
        barrier: Bytes::new(),
        cost: 1,
        replay_of: None,
        request: request.into(),
    }
}
