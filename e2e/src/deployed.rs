//! The data plane as it is deployed: three pods and a Service, a Redis Cluster of StatefulSets, an upstream on this machine.
//!
//! The manifests are in `e2e/cluster/fixture`, applied by the script there that people use too. The images are those that
//! `just images` made; they are not made here, as that is cargo's and the user's, and the cluster is root's.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::task::spawn_blocking;

use crate::cluster::{Cluster, Namespace};
use crate::http;
use crate::redis::{Resp, ask};
use crate::sdk::describe;
use crate::sluice::root;
use crate::upstream::handle::Upstream;
use crate::upstream::settings::Settings;

/// Of the manifests, all of them for trying only.
pub const API_KEY: &str = "only-for-trying-api";
pub const APP_KEY: &str = "demo-key";
const REDIS_PASSWORD: &str = "only-for-trying-redis";

const CLIENTS_METRIC: &str = "sluice_relay_connections ";
const ADMIN_PORT: u16 = 8081;
const REDIS_PORT: u16 = 6379;
/// The image that is built has the version as its tag, and so must the manifest.
const MANIFEST: &str = include_str!("../cluster/fixture/dataplane.yaml");
const IMAGE: &str = concat!(
    "image: localhost/sluice/dataplane:",
    env!("CARGO_PKG_VERSION"),
    "\n"
);
/// More than a test sends.
const REQUESTS_KEPT: usize = 100_000;

/// In a namespace of its own; removed when dropped.
pub struct Deployed {
    pub namespace: Namespace,
    pub upstream: Upstream,
    /// The Service, as clients outside of the cluster reach it.
    pub address: SocketAddr,
}

/// A pod that runs.
#[derive(Debug, Clone)]
pub struct Pod {
    pub name: String,
    pub node: String,
    pub ip: std::net::IpAddr,
    uid: String,
    /// The number of its container, which is in the name of its control group.
    container: String,
}

impl Pod {
    fn of(object: &Value) -> Option<Self> {
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        let container = object["status"]["containerStatuses"][0]["containerID"].as_str()?;
        Some(Self {
            name: text(&object["metadata"]["name"])?,
            node: text(&object["spec"]["nodeName"])?,
            ip: object["status"]["podIP"].as_str()?.parse().ok()?,
            uid: text(&object["metadata"]["uid"])?,
            container: container.rsplit('/').next()?.to_owned(),
        })
    }

    /// Whether another pod has come in its place.
    #[must_use]
    pub fn is_other_than(&self, before: &Self) -> bool {
        self.uid != before.uid
    }
}

impl Deployed {
    /// Deploys it on the shared cluster and waits until all of it is ready.
    pub async fn start(prefix: &str) -> Result<Self> {
        let archives =
            ["dataplane", "redis"].map(|name| target().join(format!("images/{name}.tar")));
        for archive in &archives {
            ensure!(
                archive.is_file(),
                "{} is missing: `just images` makes it",
                archive.display()
            );
        }
        ensure!(
            MANIFEST.contains(IMAGE),
            "dataplane.yaml is not about {IMAGE}"
        );
        let cluster = Cluster::shared().await?;
        for archive in &archives {
            cluster.load_image(archive).await?;
        }
        let settings = Settings {
            keep_requests: REQUESTS_KEPT,
            ..Settings::default()
        };
        let upstream = Upstream::start_at(cluster.machine_address()?, settings).await?;
        let namespace = cluster.namespace(prefix).await?;
        let applied = apply(&namespace, upstream.address).await;
        let applied = match applied {
            Ok(()) => service(&namespace).await,
            Err(error) => Err(error),
        };
        let address = namespace.explain(applied)?;
        Ok(Self {
            namespace,
            upstream,
            address,
        })
    }

    /// The data planes that run and are not going away.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        self.pods_of("app=sluice").await
    }

    pub async fn pods_of(&self, selector: &str) -> Result<Vec<Pod>> {
        let words = [
            "--namespace",
            self.namespace.name(),
            "pods",
            "--selector",
            selector,
        ];
        let list = self.namespace.cluster().get(&words).await?;
        let items = list["items"].as_array().context("a list has items")?;
        let staying = items.iter().filter(|pod| {
            pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
        });
        Ok(staying.filter_map(Pod::of).collect())
    }

    /// How many clients each data plane has, by the name of its pod.
    pub async fn clients(&self) -> Result<BTreeMap<String, u64>> {
        let mut clients = BTreeMap::new();
        for pod in self.pods().await? {
            let metrics = http::get((pod.ip, ADMIN_PORT).into(), "/metrics").await?;
            let text = metrics.text();
            let count = text
                .lines()
                .find_map(|line| line.strip_prefix(CLIENTS_METRIC));
            let count = count.and_then(|count| count.trim().parse().ok());
            clients.insert(pod.name, count.context("no count of connections")?);
        }
        Ok(clients)
    }

    /// Calls the server API through the Service.
    pub async fn api(&self, method: &str, request: &Value) -> Result<Value> {
        api(self.address, method, request).await
    }

    /// Asks a Redis pod.
    pub async fn redis(&self, pod: &Pod, words: &[&str]) -> Result<Resp> {
        let address = (pod.ip, REDIS_PORT).into();
        ask(address, REDIS_PASSWORD, words)
            .await
            .with_context(|| format!("{}: {words:?}", pod.name))
    }

    /// Kills a pod's process, which learns nothing of it. The kubelet will start another one in the same pod.
    pub fn kill(&self, pod: &Pod) -> Result<()> {
        let mut killed = 0;
        for entry in std::fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let groups = std::fs::read_to_string(entry.path().join("cgroup")).unwrap_or_default();
            if groups.contains(&pod.container)
                && let Some(pid) = Pid::from_raw(pid)
            {
                kill_process(pid, Signal::KILL)?;
                killed += 1;
            }
        }
        ensure!(killed > 0, "{} has no process", pod.name);
        Ok(())
    }

    /// Waits until all data planes are ready, those of the latest rollout.
    pub async fn rolled_out(&self, within: Duration) -> Result<()> {
        self.namespace.rolled_out("deployment/sluice", within).await
    }
}

/// Calls the server API; an error reply is an error.
pub async fn api(address: SocketAddr, method: &str, request: &Value) -> Result<Value> {
    let headers = [("Content-Type", "application/json"), ("X-API-Key", API_KEY)];
    let path = format!("/api/{method}");
    let body = request.to_string();
    let answer = http::request(address, "POST", &path, &headers, body.as_bytes()).await?;
    ensure!(
        answer.status == 200,
        "{method}: {} {}",
        answer.status,
        answer.text()
    );
    let mut reply = answer.json()?;
    ensure!(reply["error"].is_null(), "{method}: {reply}");
    Ok(reply["result"].take())
}

/// A request to publish a text that does the same however often it is made.
#[must_use]
pub fn publication(channel: &str, text: &str) -> Value {
    json!({
        "account": "acme", "channel": channel, "data": { "text": text },
        "idempotency_key": format!("{channel} {text}"),
    })
}

/// Where cargo and the recipes put what they make.
fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

async fn apply(namespace: &Namespace, upstream: SocketAddr) -> Result<()> {
    let cluster = namespace.cluster();
    let mut path = OsString::from(cluster.programs());
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut command = Command::new(root().join("e2e/cluster/fixture/apply.sh"));
    command
        .args([
            namespace.name(),
            &upstream.ip().to_string(),
            &upstream.port().to_string(),
        ])
        .env("KUBECONFIG", cluster.kubeconfig())
        .env("CARGO_TARGET_DIR", target())
        .env("PATH", path);
    let output = spawn_blocking(move || command.output()).await??;
    ensure!(output.status.success(), "apply.sh: {}", describe(&output));
    Ok(())
}

/// The Service's port on a node.
async fn service(namespace: &Namespace) -> Result<SocketAddr> {
    let cluster = namespace.cluster();
    let words = ["--namespace", namespace.name(), "service", "sluice"];
    let service = cluster.get(&words).await?;
    let port = service["spec"]["ports"][0]["nodePort"].as_u64();
    let port = u16::try_from(port.context("a NodePort")?)?;
    Ok((cluster.node_address(1)?, port).into())
}
