//! Chooses where the relay's state lives: in this process, or in a Redis that all data planes of the gateway share.

use std::sync::Arc;
use std::thread;

use anyhow::Context;
use prometheus_client::registry::Registry;
use sluice_crds::config::{GatewayConfig, Redis};
use tokio::runtime::{self, Handle};
use tokio::task::JoinSet;

use crate::admin::Readiness;
use crate::relay::Router;
use crate::relay::survey::Surveys;
use crate::store::embedded::{Alone, Embedded};
use crate::store::redis::broker::RedisBroker;
use crate::store::redis::cluster::Cluster;
use crate::store::redis::metrics::Metrics;
use crate::store::redis::peers::RedisPeers;
use crate::store::redis::presence::RedisPresence;
use crate::store::redis::pubsub::{Gate, PubSub};
use crate::store::redis::settings::Settings;
use crate::store::{Broker, EventSink, Holder, Peers, Presence};

/// One of so many cores may be busy with Redis' connections.
const CORES_PER_REDIS_THREAD: usize = 4;
const REDIS_THREADS_MAX: usize = 4;

/// What the stores are told about the process.
pub(super) struct StoreParts<'a> {
    pub(super) config: &'a GatewayConfig,
    pub(super) cores: usize,
    pub(super) router: &'a Arc<Router>,
    pub(super) surveys: &'a Arc<Surveys>,
    pub(super) holder: &'a Holder,
    pub(super) readiness: &'a Readiness,
    pub(super) registry: &'a mut Registry,
    pub(super) tasks: &'a mut JoinSet<()>,
}

/// The relay's stores.
pub(super) struct Stores {
    pub(super) broker: Arc<dyn Broker>,
    pub(super) presence: Arc<dyn Presence>,
    pub(super) peers: Arc<dyn Peers>,
    /// For the queue, where there is one.
    /// For the queue, where there is one.
    pub(super) redis: Option<Arc<Cluster>>,
}

impl Stores {
    pub(super) fn start(parts: StoreParts<'_>) -> anyhow::Result<Self> {
        match &parts.config.redis {
            None => Ok(Self::embedded(parts)),
            Some(redis) => Self::redis(redis, parts),
        }
    }

    fn embedded(parts: StoreParts<'_>) -> Self {
        let store = Arc::new(Embedded::new(Arc::clone(parts.router) as _));
        let swept = Arc::clone(&store);
        parts.tasks.spawn(async move { swept.run_sweeper().await });
        Self {
            broker: Arc::clone(&store) as _,
            presence: store,
            peers: Arc::new(Alone),
            redis: None,
        }
    }

    fn redis(redis: &Redis, parts: StoreParts<'_>) -> anyhow::Result<Self> {
        let config = parts.config;
        let gateway = format!("{}/{}", config.namespace, config.name);
        let settings = Settings::new(redis, gateway)?;
        let threads = (parts.cores / CORES_PER_REDIS_THREAD).clamp(1, REDIS_THREADS_MAX);
        let runtime = start_runtime(threads).context("threads for Redis")?;
        let cluster = Cluster::start(settings, runtime, Metrics::register(parts.registry));
        let gate = Arc::new(WorkersGate(Arc::clone(parts.router)));
        let pubsub = PubSub::start(Arc::clone(&cluster), gate);
        let broker = RedisBroker::start(&cluster, &pubsub, Arc::clone(parts.router) as _);
        let presence = Arc::new(RedisPresence::new(Arc::clone(&cluster)));
        let (holder, surveys) = (parts.holder.clone(), Arc::clone(parts.surveys));
        let peers = RedisPeers::start(&cluster, &pubsub, &presence, holder, surveys);
        parts
            .tasks
            .spawn(say_trouble(Arc::clone(&cluster), parts.readiness.clone()));
        Ok(Self {
            broker,
            presence,
            peers,
            redis: Some(cluster),
        })
    }
}

/// What comes from Redis waits while the workers are far behind.
struct WorkersGate(Arc<Router>);

impl Gate for WorkersGate {
    fn is_open(&self) -> bool {
        self.0.has_room()
    }
}

/// Threads of their own, for as long as the process lives: connections to Redis must not wait for clients, nor clients
/// for them.
fn start_runtime(threads: usize) -> anyhow::Result<Handle> {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("redis")
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    // A runtime must not be dropped where asynchronous code runs; this thread only holds it.
    thread::Builder::new()
        .name("redis-runtime".to_owned())
        .spawn(move || runtime.block_on(std::future::pending::<()>()))?;
    Ok(handle)
}

/// Says on the admin port what is wrong with Redis.
async fn say_trouble(cluster: Arc<Cluster>, readiness: Readiness) {
    let mut trouble = cluster.trouble();
    loop {
        readiness.say("redis", trouble.borrow_and_update().clone());
        if trouble.changed().await.is_err() {
            return;
        }
    }
}
