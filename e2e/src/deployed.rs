//! A gateway as it is deployed: the chart, `examples/kubernetes/gateway.yaml`, a managed Redis Cluster, an upstream on this machine.
//!
//! How it is installed, and what its operator sees, is `Install`'s.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Namespace};
use crate::http;
use crate::prepare::{load_images, restricted};
use crate::redis::{Resp, ask};
use crate::upstream::handle::Upstream;
use crate::upstream::settings::Settings;

/// Of the manifests, all of them for trying only.
pub const API_KEY: &str = "only-for-trying-api";
pub const APP_KEY: &str = "demo-key";
pub const TOKENS: &str = "only-for-trying-tokens";
/// Whose clients the tests' are.
pub const ACCOUNT: &str = "acme";
pub const DATA_PLANES: &str = "sluice.dev/gateway=demo,app.kubernetes.io/component=dataplane";
pub const REDIS: &str = "sluice.dev/gateway=demo,app.kubernetes.io/component=redis";
/// The release, and with it the operator's Deployment.
pub const RELEASE: &str = "sluice";
/// Where the README has it.
pub const OPERATORS: &str = "sluice-system";

mod install;
pub mod numbered;
pub mod operators;
pub mod people;
pub mod traffic;

pub use install::Install;

const CLIENTS_METRIC: &str = "sluice_relay_connections ";
const ADMIN_PORT: u16 = 8081;
const REDIS_PORT: u16 = 6379;
/// More than a test sends.
const REQUESTS_KEPT: usize = 100_000;
/// In a namespace of its own; removed when dropped.
pub struct Deployed {
    /// Goes first.
    _installed: install::Installed,
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
    /// Installs the operator and applies the examples in a namespace of the shared cluster, and waits until the gateway is
    /// ready.
    pub async fn start(prefix: &str, how: Install) -> Result<Self> {
        let cluster = Cluster::shared().await?;
        load_images(&cluster, &["dataplane", "operator", "redis", "redis-2"]).await?;
        let settings = Settings {
            keep_requests: REQUESTS_KEPT,
            ..Settings::default()
        };
        let upstream = Upstream::start_at(cluster.machine_address()?, settings).await?;
        let namespace = restricted(&cluster, prefix).await?;
        let deployed = async {
            let installed = install::install(&namespace, how, upstream.address).await?;
            Ok((installed, service(&namespace).await?))
        };
        let (installed, address) = namespace.explain(deployed.await)?;
        Ok(Self {
            _installed: installed,
            namespace,
            upstream,
            address,
        })
    }

    /// The data planes that run and are not going away.
    pub async fn pods(&self) -> Result<Vec<Pod>> {
        self.pods_of(DATA_PLANES).await
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

    /// What each data plane says of the lanes whose deliveries it makes.
    pub async fn lanes(&self) -> Result<String> {
        let mut all = String::new();
        for pod in self.pods().await? {
            let lanes = http::get((pod.ip, ADMIN_PORT).into(), "/lanes").await?;
            all.push_str(&format!("{}: {}\n", pod.name, lanes.text()));
        }
        Ok(all)
    }

    /// Calls the server API through the Service.
    pub async fn api(&self, method: &str, request: &Value) -> Result<Value> {
        api(self.address, method, request).await
    }

    /// Asks a Redis pod, as its operator does.
    pub async fn redis(&self, pod: &Pod, words: &[&str]) -> Result<Resp> {
        let path = "--output=jsonpath={.data.operator}";
        let secret = ["get", "secret", "demo-redis", path];
        let password = STANDARD.decode(self.namespace.kubectl(&secret).await?.trim())?;
        let password = String::from_utf8(password)?;
        let address = (pod.ip, REDIS_PORT).into();
        ask(address, &["operator", &password], words)
            .await
            .with_context(|| format!("{}: {words:?}", pod.name))
    }

    /// Kills a pod's process, which learns nothing of it. The kubelet will start another one in the same pod.
    pub fn kill(&self, pod: &Pod) -> Result<()> {
        self.signal(pod, Signal::KILL)
    }

    /// Sends a signal to a pod's process.
    pub fn signal(&self, pod: &Pod, signal: Signal) -> Result<()> {
        let mut told = 0;
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
                kill_process(pid, signal)?;
                told += 1;
            }
        }
        ensure!(told > 0, "{} has no process", pod.name);
        Ok(())
    }

    /// Waits until all data planes are ready, those of the latest rollout.
    pub async fn rolled_out(&self, within: Duration) -> Result<()> {
        self.namespace.rolled_out("deployment/demo", within).await
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
        "account": ACCOUNT, "channel": channel, "data": { "text": text },
        "idempotency_key": format!("{channel} {text}"),
    })
}

/// The Service's port on a node.
async fn service(namespace: &Namespace) -> Result<SocketAddr> {
    let cluster = namespace.cluster();
    let words = ["--namespace", namespace.name(), "service", "demo"];
    let service = cluster.get(&words).await?;
    let port = service["spec"]["ports"][0]["nodePort"].as_u64();
    let port = u16::try_from(port.context("a NodePort")?)?;
    Ok((cluster.node_address(1)?, port).into())
}
