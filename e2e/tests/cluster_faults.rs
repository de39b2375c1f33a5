//! Nodes die and come back, links are cut and heal, and the cluster sees it as a real one does.
//!
//! The tests disturb the cluster they share with others: they run one at a time, and leave it whole.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_e2e::cluster::{BUSYBOX, Cluster, End, Namespace};
use tokio::sync::{Mutex, MutexGuard};

const SOON: Duration = Duration::from_secs(120);

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// A cluster that is whole, for this test alone.
async fn alone() -> Result<(Cluster, MutexGuard<'static, ()>)> {
    let guard = ONE_AT_A_TIME.lock().await;
    Ok((Cluster::shared().await?, guard))
}

/// A pod pinned to each of these nodes, named after it, which serves its name and stores what it is told.
async fn pods_on(namespace: &Namespace, nodes: &[u8]) -> Result<()> {
    for node in nodes {
        let pod = format!(
            r"
apiVersion: v1
kind: Pod
metadata: {{name: on{node}}}
spec:
  nodeSelector: {{kubernetes.io/hostname: node{node}}}
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: {BUSYBOX}
      imagePullPolicy: Never
      command: [/bin/sh, -c, 'mkdir /tmp/www; echo on{node} > /tmp/www/index.html; exec httpd -f -p 8080 -h /tmp/www']
"
        );
        namespace.apply(&pod).await?;
    }
    for node in nodes {
        let pod = format!("pod/on{node}");
        namespace
            .kubectl(&["wait", "--for=condition=Ready", &pod, "--timeout=90s"])
            .await?;
    }
    Ok(())
}

async fn address(namespace: &Namespace, pod: &str) -> Result<String> {
    let path = "--output=jsonpath={.status.podIP}";
    namespace.kubectl(&["get", "pod", pod, path]).await
}

#[tokio::test]
async fn a_dead_node_is_seen_and_comes_back_with_its_pods() -> Result<()> {
    let (cluster, _guard) = alone().await?;
    let namespace = cluster.namespace("death").await?;
    let result = async {
        pods_on(&namespace, &[3]).await?;
        cluster.kill_node(3).await?;
        let status = cluster.status()?;
        ensure!(status.nodes[2].init_pid.is_none(), "{status}");
        cluster.wait_node(3, "Unknown", SOON).await?;
        cluster.restart_node(3).await?;
        cluster.wait_node(3, "True", SOON).await?;
        let again = async || {
            let said = namespace.shell("on3", "fetch http://127.0.0.1:8080/");
            Ok(said.await? == "on3\n")
        };
        cluster.wait_for("the pod runs again", SOON, again).await
    };
    let result = result.await;
    let result = namespace.explain(result);
    // Whatever happened, the next test gets a whole cluster.
    cluster.restart_node(3).await?;
    result
}

#[tokio::test]
async fn a_cut_between_nodes_stops_their_pods_and_heals() -> Result<()> {
    let (cluster, _guard) = alone().await?;
    let namespace = cluster.namespace("cut").await?;
    let result = async {
        pods_on(&namespace, &[1, 2, 3]).await?;
        let second = address(&namespace, "on2").await?;
        let third = address(&namespace, "on3").await?;
        let fetch = |from: &'static str, from_address: String| {
            let namespace = &namespace;
            async move {
                let line = format!("fetch -t 2 http://{from_address}:8080/");
                namespace.shell(from, &line).await
            }
        };
        ensure!(fetch("on1", second.clone()).await? == "on2\n");
        cluster.cut_link(End::Node(1), End::Node(2)).await?;
        ensure!(
            fetch("on1", second.clone()).await.is_err(),
            "the cut link lets through"
        );
        ensure!(fetch("on1", third.clone()).await? == "on3\n");
        ensure!(fetch("on3", second.clone()).await? == "on2\n");
        cluster.heal().await?;
        ensure!(fetch("on1", second).await? == "on2\n");
        Ok(())
    };
    let result = result.await;
    cluster.heal().await?;
    namespace.explain(result)
}

#[tokio::test]
async fn a_node_cut_from_the_control_plane_works_on_and_is_missed() -> Result<()> {
    let (cluster, _guard) = alone().await?;
    let namespace = cluster.namespace("island").await?;
    let result = async {
        pods_on(&namespace, &[1, 2]).await?;
        let second = address(&namespace, "on2").await?;
        cluster.cut_link(End::Control, End::Node(2)).await?;
        cluster.wait_node(2, "Unknown", SOON).await?;
        let line = format!("fetch -t 2 http://{second}:8080/");
        let said = namespace.shell("on1", &line).await?;
        ensure!(said == "on2\n", "the island's pod says {said}");
        let asked = namespace
            .kubectl(&["logs", "on2", "--request-timeout=3s"])
            .await;
        asked
            .err()
            .context("the API server still reaches the node")?;
        cluster.heal().await?;
        cluster.wait_node(2, "True", SOON).await
    };
    let result = result.await;
    cluster.heal().await?;
    let result = namespace.explain(result);
    cluster.wait_node(2, "True", SOON).await?;
    result
}
