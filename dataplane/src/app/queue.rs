//! Chooses where requests wait: on this data plane's disk, or in the Redis that all data planes of the gateway share.

use std::sync::Arc;

use anyhow::Context;
use sluice_crds::config::{self, GatewayConfig};

use crate::admin::Readiness;
use crate::args::ServeArgs;
use crate::clock::unix_ms;
use crate::ingest::accept;
use crate::store::Holder;
use crate::store::embedded::queue::{EmbeddedQueue, QueueOptions};
use crate::store::queue::Queue;
use crate::store::redis::cluster::Cluster;
use crate::store::redis::queue::{QueueSettings, RedisQueue};

/// What a queue takes beside the contract: where it is decides how it begins, changes and ends.
#[derive(Clone)]
pub(super) enum ChosenQueue {
    Disk(Arc<EmbeddedQueue>),
    Redis(Arc<RedisQueue>),
}

impl ChosenQueue {
    pub(super) fn open(
        args: &ServeArgs,
        config: &GatewayConfig,
        settings: &config::Ingest,
        redis: Option<&Arc<Cluster>>,
        holder: &Holder,
    ) -> anyhow::Result<Self> {
        let (durability, budget_bytes) = (settings.durability, settings.retention.bytes);
        if let Some(cluster) = redis {
            let settings = QueueSettings {
                holder: holder.0.to_string(),
                durability,
                budget_bytes,
            };
            return Ok(Self::Redis(RedisQueue::start(
                Arc::clone(cluster),
                settings,
            )));
        }
        let dir = args.data_dir.as_ref().with_context(|| {
            format!(
                "gateway {} has ingest and no redis, and there is no directory for its queue: give --data-dir DIR",
                config.name
            )
        })?;
        let options = QueueOptions {
            durability,
            budget_bytes,
        };
        Ok(Self::Disk(
            EmbeddedQueue::open(dir, options).context("queue")?,
        ))
    }

    pub(super) fn queue(&self) -> Arc<dyn Queue> {
        match self {
            Self::Disk(queue) => Arc::clone(queue) as _,
            Self::Redis(queue) => Arc::clone(queue) as _,
        }
    }

    pub(super) fn ids(&self) -> accept::EntryIds {
        match self.clone() {
            Self::Disk(queue) => Arc::new(move || queue.ids().next(unix_ms())),
            Self::Redis(queue) => Arc::new(move || queue.ids().next(unix_ms())),
        }
    }

    /// Takes over what may change while it is open.
    pub(super) fn adjust(&self, settings: &config::Ingest) {
        match self {
            Self::Disk(queue) => {
                queue.set_durability(settings.durability);
                queue.set_budget(settings.retention.bytes);
            }
            Self::Redis(queue) => {
                queue.set_durability(settings.durability);
                queue.set_budget(settings.retention.bytes);
            }
        }
    }

    /// Says on the admin port what is wrong with it, for ever.
    pub(super) async fn say_trouble(self, readiness: Readiness) {
        let Self::Redis(queue) = self else { return };
        let mut trouble = queue.trouble();
        loop {
            readiness.say("queue", trouble.borrow_and_update().clone());
            if trouble.changed().await.is_err() {
                return;
            }
        }
    }

    /// Lets others deliver, where there may be others.
    pub(super) fn resign(&self) {
        match self {
            Self::Disk(_) => {}
            Self::Redis(queue) => queue.resign(),
        }
    }

    /// Writes what was taken, and gives back what others wait for. Blocks for a moment when it is on disk.
    pub(super) async fn close(self) {
        match self {
            Self::Disk(queue) => queue.shutdown(),
            Self::Redis(queue) => queue.close().await,
        }
    }
}
