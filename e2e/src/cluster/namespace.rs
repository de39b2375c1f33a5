//! A namespace of the cluster for one test: removed when dropped, and its story kept when the test failed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Cluster, Forward, blocking};

/// Several tests may use the same name at a time.
#[derive(Debug)]
pub struct Namespace {
    cluster: Cluster,
    name: String,
}

impl Namespace {
    pub(super) async fn create(cluster: Cluster, prefix: &str) -> Result<Self> {
        let name = format!("{prefix}-{:06x}", fastrand::u32(..1 << 24));
        cluster.kubectl(&["create", "namespace", &name]).await?;
        let namespace = Self { cluster, name };
        // Pods are refused until its account is there.
        let account = ["get", "serviceaccount", "default"];
        let cluster = &namespace.cluster;
        cluster
            .wait_for("its service account", Duration::from_secs(30), async || {
                namespace.kubectl(&account).await.map(|_| true)
            })
            .await?;
        Ok(namespace)
    }

    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    #[must_use]
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// `kubectl` in this namespace.
    pub async fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let mut words = vec!["--namespace", &self.name];
        words.extend(arguments);
        self.cluster.kubectl(&words).await
    }

    /// Applies manifests, which name no namespace, to this one.
    pub async fn apply(&self, manifests: &str) -> Result<()> {
        let inner = Arc::clone(&self.cluster.inner);
        let (name, manifests) = (self.name.clone(), manifests.to_owned());
        blocking(move || inner.kubectl.apply_in(Some(&name), &manifests).map(drop)).await
    }

    /// Runs a line of shell in a pod's (first) container.
    pub async fn shell(&self, pod: &str, line: &str) -> Result<String> {
        self.kubectl(&["exec", pod, "--", "/bin/sh", "-c", line])
            .await
    }

    /// Waits for all pods of a Deployment or StatefulSet (`deployment/name`).
    pub async fn rolled_out(&self, what: &str, within: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", within.as_secs());
        self.kubectl(&["rollout", "status", what, &timeout])
            .await
            .map(drop)
    }

    /// The names of the running pods that a selector chooses, with the node each is on.
    pub async fn pods(&self, selector: &str) -> Result<Vec<(String, String)>> {
        let list = self
            .cluster
            .get(&["--namespace", &self.name, "pods", "--selector", selector])
            .await?;
        let items = list["items"].as_array().context("a list has items")?;
        let running = items.iter().filter(|pod| {
            pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
        });
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        Ok(running
            .map(|pod| {
                (
                    text(&pod["metadata"]["name"]),
                    text(&pod["spec"]["nodeName"]),
                )
            })
            .collect())
    }

    /// A way from this machine to a port of `pod/name` or `service/name`.
    pub async fn forward(&self, target: &str, port: u16) -> Result<Forward> {
        let (inner, name) = (Arc::clone(&self.cluster.inner), self.name.clone());
        let target = target.to_owned();
        blocking(move || Forward::start(&inner, &name, &target, port)).await
    }

    /// Collects logs when the result of a test is an error, and hands it on.
    pub fn explain<T>(&self, result: Result<T>) -> Result<T> {
        result.map_err(|error| match self.cluster.collect_logs(&self.name) {
            Ok(folder) => error.context(format!("logs are in {}", folder.display())),
            Err(also) => error.context(format!("no logs: {also:#}")),
        })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            match self.cluster.collect_logs(&self.name) {
                Ok(folder) => eprintln!("logs are in {}", folder.display()),
                Err(error) => eprintln!("no logs: {error:#}"),
            }
        }
        let words = ["delete", "namespace", &self.name, "--wait=false"];
        if let Err(error) = self.cluster.inner.kubectl.run(&words) {
            eprintln!("namespace {} may be left: {error:#}", self.name);
        }
    }
}
