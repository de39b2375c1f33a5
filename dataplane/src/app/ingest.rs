//! Puts ingest together: the queue, what fills it, and what empties it.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use prometheus_client::registry::Registry;
use sluice_crds::config::GatewayConfig;
use tokio::sync::watch;

use super::queue::ChosenQueue;
use crate::admin::{Readiness, Routes};
use crate::args::ServeArgs;
use crate::drain::Watcher;
use crate::fleet::IngestSide;
use crate::ingest::accept::{self, Accept};
use crate::ingest::deliver::{Deliver, DeliverHandle, DeliverParts, FleetLink};
use crate::ingest::metrics::Metrics;
use crate::ingest::proxy::Proxy;
use crate::ingest::requests::Requests;
use crate::pressure::Pressure;
use crate::resources;
use crate::store::Holder;
use crate::store::redis::cluster::Cluster;

/// Part of the descriptors that kept connections of ingest may take; the rest is for WebSockets, upstreams and files.
const CONNECTIONS_DESCRIPTORS_DIVISOR: usize = 2;
/// Left of the drain time for recording what was answered last.
const RECORDING: Duration = Duration::from_millis(500);

pub(super) struct Ingest {
    pub(super) accept: Arc<Accept>,
    queue: ChosenQueue,
    deliver: DeliverHandle,
    ids: accept::EntryIds,
    metrics: Arc<Metrics>,
    config: watch::Receiver<Arc<GatewayConfig>>,
}

impl Ingest {
    /// `None`: the gateway takes no requests.
    pub(super) fn start(
        args: &ServeArgs,
        config: &watch::Receiver<Arc<GatewayConfig>>,
        pressure: &Arc<Pressure>,
        (redis, holder): (Option<&Arc<Cluster>>, &Holder),
        fleet: FleetLink,
        registry: &mut Registry,
    ) -> anyhow::Result<Option<Self>> {
        let current = config.borrow().clone();
        let Some(settings) = &current.ingest else {
            return Ok(None);
        };
        let queue = ChosenQueue::open(args, &current, settings, redis, holder)?;
        let metrics = Metrics::register(registry);
        let (proxy, calls) = Proxy::new();
        let ids = queue.ids();
        let deliver = Deliver::start(DeliverParts {
            config: config.clone(),
            queue: queue.queue(),
            calls,
            metrics: Arc::clone(&metrics),
            fleet,
        })
        .context("delivery thread")?;
        let accept = Accept::new(accept::Parts {
            config: config.clone(),
            queue: queue.queue(),
            ids: Arc::clone(&ids),
            proxy: Some(proxy),
            metrics: Arc::clone(&metrics),
            pressure: Arc::clone(pressure),
            connections_max: resources::descriptor_limit() / CONNECTIONS_DESCRIPTORS_DIVISOR,
        });
        Ok(Some(Self {
            accept,
            queue,
            deliver,
            ids,
            metrics,
            config: config.clone(),
        }))
    }

    /// What the admin port shows and does.
    pub(super) fn requests(&self) -> Arc<dyn Routes> {
        Arc::new(Requests {
            queue: self.queue.queue(),
            deliver: Some(self.deliver.clone()),
            ids: Arc::clone(&self.ids),
            metrics: Arc::clone(&self.metrics),
            config: self.config.clone(),
        })
    }

    /// What the manager is told about.
    pub(super) fn side(&self) -> IngestSide {
        IngestSide {
            deliver: self.deliver.clone(),
            metrics: Arc::clone(&self.metrics),
        }
    }

    /// Keeps the queue as configured; the other parts look for themselves.
    pub(super) fn follow_config(
        &self,
        mut config: watch::Receiver<Arc<GatewayConfig>>,
    ) -> impl Future<Output = ()> + use<> {
        let queue = self.queue.clone();
        async move {
            while config.changed().await.is_ok() {
                if let Some(ingest) = &config.borrow_and_update().ingest {
                    queue.adjust(ingest);
                }
            }
        }
    }

    /// When the drain begins nothing new is sent to the upstreams, others take over where they can; answers under way are waited
    /// for and recorded.
    pub(super) fn drain(&self, mut watcher: Watcher) -> impl Future<Output = ()> + use<> {
        let (deliver, queue) = (self.deliver.clone(), self.queue.clone());
        async move {
            let (_, until) = watcher.draining().await;
            queue.resign();
            let left = deliver
                .stop(until.checked_sub(RECORDING).unwrap_or(until))
                .await;
            if left > 0 {
                tracing::warn!(
                    left,
                    "answers not waited for: their requests are delivered again at the next start"
                );
            }
            drop(watcher);
        }
    }

    /// Says on the admin port what is wrong with the queue.
    pub(super) fn say_trouble(&self, readiness: Readiness) -> impl Future<Output = ()> + use<> {
        self.queue.clone().say_trouble(readiness)
    }

    pub(super) async fn close(self) {
        self.queue.close().await;
    }
}
