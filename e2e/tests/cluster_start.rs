//! Starting a cluster: again, with further nodes, after runs that were killed, and with two API servers.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_e2e::cluster::{Cluster, Image, Namespace};
use sluice_e2e::sluice::Scratch;

/// When the harness is killed: while it makes the control plane, while that starts, and while nodes do.
const KILLED_AFTER_MS: [u64; 5] = [60, 200, 700, 3000, 9000];

/// A cluster of its own name, removed whatever becomes of the test.
struct Own(&'static str);

impl Own {
    fn take(name: &'static str) -> Result<Self> {
        // What an earlier run may have left is not what is asked here.
        Cluster::down(name)?;
        Ok(Self(name))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(cluster) = Cluster::attach(self.0)
        {
            let logs = cluster.collect_logs("panicked");
            eprintln!("logs: {logs:?}");
        }
        if let Err(error) = Cluster::down(self.0) {
            eprintln!("{error:#}");
        }
    }
}

/// Collects logs when the result is an error.
fn explain(cluster: &Cluster, what: &str, result: Result<()>) -> Result<()> {
    result.map_err(|error| match cluster.collect_logs(what) {
        Ok(folder) => error.context(format!("logs are in {}", folder.display())),
        Err(also) => error.context(format!("no logs: {also:#}")),
    })
}

fn harness(name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sluice-e2e"));
    command.args(["cluster", "--name", name]);
    command
}

#[tokio::test]
async fn a_start_that_was_killed_at_any_time_is_gone_on_with() -> Result<()> {
    const NAME: &str = "killed";
    let _own = Own::take(NAME)?;
    for after in KILLED_AFTER_MS {
        let mut up = harness(NAME)
            .args(["up", "--nodes", "1"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        tokio::time::sleep(Duration::from_millis(after)).await;
        up.kill()?;
        up.wait()?;
    }
    let cluster = Cluster::start(NAME, 1).await?;
    let ready = cluster.wait_node(1, "True", Duration::from_secs(60)).await;
    explain(&cluster, "killed", ready)
}

/// A pod that runs an image which nobody can pull.
const POD: &str = "
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  nodeSelector: {kubernetes.io/hostname: NODE}
  terminationGracePeriodSeconds: 1
  containers:
    - name: main
      image: localhost/sluice-e2e/own:1
      imagePullPolicy: Never
";

fn image() -> Result<Vec<u8>> {
    let mut image = Image::new(
        "localhost/sluice-e2e/own:1",
        &["/busybox", "sleep", "100000"],
    );
    image.program("busybox", "/usr/bin/busybox".as_ref())?;
    image.finish()
}

async fn pod_runs(namespace: &Namespace, name: &str, node: &str) -> Result<()> {
    namespace
        .apply(&POD.replace("NAME", name).replace("NODE", node))
        .await?;
    let pod = format!("pod/{name}");
    namespace
        .kubectl(&["wait", "--for=condition=Ready", &pod, "--timeout=120s"])
        .await
        .map(drop)
}

#[tokio::test]
async fn nodes_and_images_come_later_and_any_api_server_may_die() -> Result<()> {
    const NAME: &str = "grown";
    let _own = Own::take(NAME)?;
    let cluster = Cluster::start_with_api_servers(NAME, 1, 2).await?;
    let result = grown(&cluster, NAME).await;
    explain(&cluster, "grown", result)
}

async fn grown(cluster: &Cluster, name: &str) -> Result<()> {
    let scratch = Scratch::new()?;
    let archive = scratch.path().join("own.tar");
    std::fs::write(&archive, image()?)?;
    cluster.load_image(&archive).await?;
    let first = cluster.status()?.nodes[0].init_pid;
    first.context("node1 runs")?;
    let namespace = cluster.namespace("grown").await?;
    pod_runs(&namespace, "before", "node1").await?;

    let again = Cluster::start(name, 2).await?;
    let status = again.status()?;
    ensure!(
        status.nodes.len() == 2 && status.nodes[0].init_pid == first,
        "{status}"
    );
    pod_runs(&namespace, "later", "node2").await?;

    for server in [1, 2] {
        cluster.kill_api_server(server).await?;
        let status = cluster.status()?;
        let up: Vec<u8> = (1..=2)
            .filter(|n| status.api_servers[usize::from(*n) - 1])
            .collect();
        ensure!(up == [3 - server], "{status}");
        // As often as it takes to be sure that none went to the dead one.
        for _ in 0..10 {
            cluster.kubectl(&["get", "nodes"]).await?;
        }
        pod_runs(&namespace, &format!("without-{server}"), "node1").await?;
        cluster.restart_api_server(server).await?;
    }
    let status = cluster.status()?;
    ensure!(status.api_servers == [true, true], "{status}");
    Ok(())
}
