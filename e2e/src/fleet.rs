//! Several data planes of one gateway on one Redis Cluster.

pub mod managed;
pub mod traffic;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use tokio::time::sleep;

use crate::api::Api;
use crate::client::Client;
use crate::manifest::Manifest;
use crate::redis::{Options, RedisCluster};
use crate::sluice::Sluice;

/// Time for the data planes to hear of each other.
const ACQUAINTANCE: Duration = Duration::from_secs(20);

/// Data planes, and the servers that hold what they share.
pub struct Fleet {
    pub planes: Vec<Sluice>,
    pub redis: RedisCluster,
}

impl Fleet {
    /// Three primaries with a replica each, and data planes that all know of each other.
    pub async fn start(manifest: &Manifest, planes: usize) -> Result<Self> {
        Self::start_on(Options::default(), manifest, planes).await
    }

    pub async fn start_on(options: Options, manifest: &Manifest, planes: usize) -> Result<Self> {
        let redis = RedisCluster::start(3, 1, options).await?;
        let manifest = manifest.clone().redis(redis.url());
        Self::start_with(redis, &manifest, planes).await
    }

    /// On servers that run; the manifest says how they are reached.
    pub async fn start_with(
        redis: RedisCluster,
        manifest: &Manifest,
        planes: usize,
    ) -> Result<Self> {
        let planes = try_join_all((0..planes).map(|_| Sluice::start(manifest))).await?;
        let fleet = Self { planes, redis };
        if manifest.server_api {
            fleet.wait_for_nodes(fleet.planes.len()).await?;
        }
        Ok(fleet)
    }

    /// Where clients connect, by data plane.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.planes.iter().map(|plane| plane.address).collect()
    }

    #[must_use]
    pub fn api(&self, plane: usize) -> Api {
        Api(self.planes[plane].address)
    }

    /// Connects a raw client to one of the data planes.
    pub async fn client(&self, plane: usize, token: &str) -> Result<Client> {
        self.planes[plane].client(token).await
    }

    /// Until each living data plane tells of so many.
    pub async fn wait_for_nodes(&self, count: usize) -> Result<()> {
        let deadline = Instant::now() + ACQUAINTANCE;
        for plane in &self.planes {
            loop {
                let info = Api(plane.address).call("info", json!({})).await?;
                let nodes = info["nodes"].as_array().cloned().unwrap_or_default();
                let ids: BTreeSet<_> = nodes.iter().map(|node| node["uid"].to_string()).collect();
                if ids.len() == count {
                    break;
                }
                ensure!(Instant::now() < deadline, "not {count} data planes: {info}");
                sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(())
    }
}
