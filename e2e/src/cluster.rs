//! A real Kubernetes on this machine: etcd, API server, controllers, kubelets, containerd; each node in namespaces of
//! its own. No Docker, no registry. `docs/local-cluster.md` says how to use it and look inside.
//!
//! A cluster belongs to the machine and not to the process that started it: its state is a folder in the user's cache,
//! and everything it made is found from there. Commands that change it wait for each other.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

mod addresses;
mod api_servers;
mod cgroup;
mod command;
mod components;
mod control;
mod folders;
mod forward;
mod go_build;
mod images;
mod kubectl;
mod lifecycle;
mod logs;
mod machine;
mod namespace;
mod network;
mod node;
mod oci;
mod pki;
mod process;
mod record;
mod space;
mod status;

pub use addresses::{API_SERVERS_MAX, NODES_MAX, node_name};
pub use components::Tool;
pub use forward::Forward;
pub use images::BUSYBOX;
pub use namespace::Namespace;
pub use oci::Image;
pub use record::{End, parse_node};
pub use status::Status;

use components::Programs;
use folders::Home;
use kubectl::Kubectl;
use record::Record;

/// The cluster of whoever names no other.
pub const DEFAULT_NAME: &str = "sluice";
/// The cluster that the tests of one run share.
pub const SHARED_NAME: &str = "tests";
pub const SHARED_NODES: u8 = 3;

/// A cluster that is up. Dropping it changes nothing.
#[derive(Debug, Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    name: String,
    home: Home,
    programs: Programs,
    kubectl: Kubectl,
}

impl Cluster {
    /// Builds the programs of clusters, unless they are built.
    pub fn build() -> Result<()> {
        Programs::build().map(drop)
    }

    /// Makes sure that the cluster of this name is up with at least these nodes, and that they are ready. Nodes that
    /// were killed are started, links that were cut are healed; what died of an earlier run is removed first.
    pub async fn start(name: &str, nodes: u8) -> Result<Self> {
        let name = name.to_owned();
        blocking(move || Self::start_now(&name, nodes, None)).await
    }

    /// The same with several API servers, of which any may be killed.
    pub async fn start_with_api_servers(name: &str, nodes: u8, api_servers: u8) -> Result<Self> {
        let name = name.to_owned();
        blocking(move || Self::start_now(&name, nodes, Some(api_servers))).await
    }

    /// The same outside of an async runtime. `None` takes one API server, or as many as there are.
    pub fn start_now(name: &str, nodes: u8, api_servers: Option<u8>) -> Result<Self> {
        ensure!(
            (1..=NODES_MAX).contains(&nodes),
            "a cluster has 1 to {NODES_MAX} nodes"
        );
        ensure!(
            api_servers.is_none_or(|servers| (1..=API_SERVERS_MAX).contains(&servers)),
            "a cluster has 1 to {API_SERVERS_MAX} API servers"
        );
        let home = Home::of(name)?;
        machine::check()?;
        let programs = Programs::build()?;
        let _lock = home.lock()?;
        lifecycle::up(&home, &programs, nodes, api_servers)
            .with_context(|| format!("cluster {name} does not start"))?;
        Ok(Self::of(name, home.clone(), programs))
    }

    /// The cluster of this name, which is up.
    pub fn attach(name: &str) -> Result<Self> {
        let home = Home::of(name)?;
        let record = Record::load(&home)?.with_context(|| {
            format!("cluster {name} is not up: `sluice-e2e cluster up --name {name}` starts it")
        })?;
        Ok(Self::of(name, home, Programs::at(&record.programs)))
    }

    /// The one of this run of the tests, started if need be; `just cluster-tests` takes it down. `SLUICE_CLUSTER` names
    /// another.
    pub async fn shared() -> Result<Self> {
        let name = std::env::var("SLUICE_CLUSTER").unwrap_or_else(|_| SHARED_NAME.to_owned());
        Self::start(&name, SHARED_NODES).await
    }

    /// Removes the cluster of this name, if there is one, with all that it stored.
    pub fn down(name: &str) -> Result<()> {
        let home = Home::of(name)?;
        let _lock = home.lock()?;
        lifecycle::down(&home)
    }

    /// The folder that holds everything of the cluster of this name, if it is up.
    pub fn home(name: &str) -> Result<PathBuf> {
        Ok(Home::of(name)?.path().to_owned())
    }

    fn of(name: &str, home: Home, programs: Programs) -> Self {
        let kubectl = Kubectl::new(&programs, &home);
        let name = name.to_owned();
        Self {
            inner: Arc::new(Inner {
                name,
                home,
                programs,
                kubectl,
            }),
        }
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// How its administrator reaches it.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.inner.home.kubeconfig()
    }

    /// A folder with the cluster's `kubectl` and nothing else.
    #[must_use]
    pub fn programs(&self) -> PathBuf {
        self.inner.home.bin()
    }

    /// What the (first) API server was asked, by whom: a JSON object per line.
    #[must_use]
    pub fn audit_log(&self) -> PathBuf {
        self.inner.home.control().join("audit.log")
    }

    /// The address at which a node's ports and NodePorts are reached from this machine.
    pub fn node_address(&self, node: u8) -> Result<std::net::Ipv4Addr> {
        Ok(self.inner.record()?.addresses().node(node))
    }

    /// The machine's own address in the cluster, at which pods reach servers on it.
    pub fn machine_address(&self) -> Result<std::net::Ipv4Addr> {
        Ok(self.inner.record()?.addresses().machine())
    }

    pub fn status(&self) -> Result<Status> {
        status::status(&self.inner)
    }

    /// Kills a node with everything on it, as a power failure does.
    pub async fn kill_node(&self, node: u8) -> Result<()> {
        self.change(move |inner, record| lifecycle::kill_node(&inner.home, &record, node))
            .await
    }

    /// Starts a node again, after killing it if it runs; what it stored is there. Returns when it is ready.
    pub async fn restart_node(&self, node: u8) -> Result<()> {
        self.change(move |inner, record| {
            lifecycle::restart_node(&inner.home, &record, &inner.programs, node)
        })
        .await
    }

    /// Kills an API server, which stays down until it is restarted or the cluster is started again. The first is 1.
    pub async fn kill_api_server(&self, server: u8) -> Result<()> {
        self.change(move |inner, record| api_servers::kill(&inner.home, &record, server))
            .await
    }

    /// Starts an API server again, after killing it if it runs. Returns when it is ready.
    pub async fn restart_api_server(&self, server: u8) -> Result<()> {
        self.change(move |inner, record| {
            api_servers::restart(&inner.home, &record, &inner.kubectl, server)
        })
        .await
    }

    /// Nothing gets from one end to the other any more, on open connections neither.
    pub async fn cut_link(&self, a: End, b: End) -> Result<()> {
        self.change(move |inner, record| {
            let mut cuts = record.cuts.clone();
            cuts.push((a, b));
            lifecycle::set_cuts(&inner.home, record, cuts)
        })
        .await
    }

    /// All links are whole again.
    pub async fn heal(&self) -> Result<()> {
        self.change(|inner, record| lifecycle::set_cuts(&inner.home, record, Vec::new()))
            .await
    }

    /// Puts the images of an archive (OCI or Docker) into every node, also into those that come later.
    pub async fn load_image(&self, archive: &Path) -> Result<()> {
        let archive = archive.to_owned();
        self.change(move |inner, record| {
            lifecycle::load_image(&inner.home, &record, &inner.programs, &archive)
        })
        .await
    }

    /// Runs `kubectl` and returns what it printed; fails as it fails.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let arguments: Vec<String> = arguments.iter().map(ToString::to_string).collect();
        let inner = Arc::clone(&self.inner);
        blocking(move || inner.kubectl.run(&arguments)).await
    }

    /// What `kubectl get` says of these, as JSON.
    pub async fn get(&self, arguments: &[&str]) -> Result<Value> {
        let mut words = vec!["get", "--output=json"];
        words.extend(arguments);
        Ok(serde_json::from_str(&self.kubectl(&words).await?)?)
    }

    /// Applies manifests in YAML or JSON.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        let (inner, manifests) = (Arc::clone(&self.inner), manifests.to_owned());
        blocking(move || inner.kubectl.apply(&manifests).map(drop)).await
    }

    /// Waits until a question about the cluster is answered with yes; an error counts as no.
    pub async fn wait_for<F>(&self, what: &str, within: Duration, mut question: F) -> Result<()>
    where
        F: AsyncFnMut() -> Result<bool>,
    {
        let deadline = Instant::now() + within;
        loop {
            let last = match question().await {
                Ok(true) => return Ok(()),
                Ok(false) => "no".to_owned(),
                Err(error) => format!("{error:#}"),
            };
            ensure!(
                Instant::now() < deadline,
                "not within {within:?}: {what} (last answer: {last})"
            );
            sleep(Duration::from_millis(250)).await;
        }
    }

    /// Waits until a condition of a node is `True`, `False` or `Unknown`.
    pub async fn wait_node(&self, node: u8, ready: &str, within: Duration) -> Result<()> {
        let name = node_name(node);
        self.wait_for(&format!("{name} Ready={ready}"), within, async || {
            let path = r#"--output=jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
            Ok(self.kubectl(&["get", "node", &name, path]).await?.trim() == ready)
        })
        .await
    }

    /// A namespace for one test.
    pub async fn namespace(&self, prefix: &str) -> Result<Namespace> {
        Namespace::create(self.clone(), prefix).await
    }

    /// Writes what tells why something failed into a folder under `target/cluster-logs`, and returns it.
    pub fn collect_logs(&self, what: &str) -> Result<PathBuf> {
        logs::collect(&self.inner, what)
    }

    async fn change<F>(&self, change: F) -> Result<()>
    where
        F: FnOnce(&Inner, Record) -> Result<()> + Send + 'static,
    {
        let inner = Arc::clone(&self.inner);
        blocking(move || {
            let _lock = inner.home.lock()?;
            let record = inner.record()?;
            change(&inner, record)
        })
        .await
    }
}

impl Inner {
    fn record(&self) -> Result<Record> {
        Record::load(&self.home)?.with_context(|| format!("cluster {} is not up", self.name))
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    spawn_blocking(work).await.context("the work panicked")?
}
