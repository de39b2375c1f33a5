//! The operators that the README installs: taken away, brought back, killed while they lead.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{OPERATORS, RELEASE};
use crate::cluster::Cluster;

const CHANGED_WITHIN: Duration = Duration::from_secs(240);

async fn kubectl(cluster: &Cluster, words: &[&str]) -> Result<String> {
    let words = [&["--namespace", OPERATORS], words].concat();
    cluster.kubectl(&words).await
}

/// Waits until the last one has ended.
pub async fn take_away(cluster: &Cluster) -> Result<()> {
    let release = format!("deployment/{RELEASE}");
    kubectl(cluster, &["scale", &release, "--replicas=0"]).await?;
    let selector = "--selector=app.kubernetes.io/name=sluice-operator";
    let are_gone = async || {
        let pods = kubectl(cluster, &["get", "pods", selector, "--output=name"]).await?;
        Ok(pods.is_empty())
    };
    cluster
        .wait_for("the operators are gone", CHANGED_WITHIN, are_gone)
        .await
}

/// Waits until two are ready again.
pub async fn bring_back(cluster: &Cluster) -> Result<()> {
    let release = format!("deployment/{RELEASE}");
    kubectl(cluster, &["scale", &release, "--replicas=2"]).await?;
    let timeout = format!("--timeout={}s", CHANGED_WITHIN.as_secs());
    kubectl(cluster, &["rollout", "status", &release, &timeout]).await?;
    Ok(())
}

/// Deletes the pod of the one that leads, with no time to say goodbye.
pub async fn kill_leader(cluster: &Cluster) -> Result<()> {
    let holder = "--output=jsonpath={.spec.holderIdentity}";
    let holder = kubectl(cluster, &["get", "lease/sluice", holder]).await?;
    let (leader, _) = holder.rsplit_once('_').context("a holder")?;
    let words = ["delete", "pod", leader, "--grace-period=0", "--force"];
    kubectl(cluster, &words).await?;
    Ok(())
}
