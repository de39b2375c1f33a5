//! The manager on a real cluster: data planes attend it, endpoints follow what it wants, and `kubectl sluice` shows and orders it.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use serde_json::Value;
use sluice_e2e::deployed::numbered::{self, Writers};
use sluice_e2e::deployed::{Deployed, Install, Pod, operators};
use sluice_e2e::upstream::handle::binary;
use tokio::time::{Instant, sleep, timeout};

const SOON: Duration = Duration::from_secs(90);
const SCENARIO: Duration = Duration::from_secs(300);
/// A pod that is silent is steered away within 3 s, and this is looked at by asking.
const STEERED_WITHIN: Duration = Duration::from_secs(5);
const STEP: Duration = Duration::from_millis(200);
const CLIENTS: usize = 300;
/// Messages per second over all channels.
const RATE: f64 = 30.0;

#[tokio::test(flavor = "multi_thread")]
async fn data_planes_are_steered_and_drained() -> Result<()> {
    let deployed = Deployed::start("fleet", Install::AsInReadme).await?;
    let scenario = timeout(SCENARIO, scenario(&deployed)).await;
    let scenario = scenario.context("it takes too long").flatten();
    deployed.namespace.explain(scenario)
}

async fn scenario(deployed: &Deployed) -> Result<()> {
    let cluster = deployed.namespace.cluster();
    let all_attend = async || {
        let plan = sluice(deployed, &["plan", "demo"])?;
        Ok(plan.matches(" Accepting ").count() == 3)
    };
    cluster
        .wait_for("all data planes attend", SOON, all_attend)
        .await?;
    let mut workers = tokio::task::block_in_place(|| numbered::follow(deployed, CLIENTS, 0))?;
    workers.go()?;
    let writers = Writers::start(deployed, CLIENTS, 0, RATE);
    let counted = async || {
        let path = "--output=jsonpath={.status.connections}";
        let said = deployed
            .namespace
            .kubectl(&["get", "slgw/demo", path])
            .await?;
        Ok(said.trim() == CLIENTS.to_string())
    };
    cluster
        .wait_for("the status counts the clients", SOON, counted)
        .await?;

    silent(deployed).await?;
    drained(deployed).await?;
    another_leader(deployed).await?;

    let last = writers.stop().await?;
    sleep(Duration::from_secs(3)).await;
    let report = tokio::task::block_in_place(|| workers.stop())?;
    numbered::accounted(&report, &last, CLIENTS)
}

/// `kubectl sluice`, as a user of the cluster.
fn sluice(deployed: &Deployed, words: &[&str]) -> Result<String> {
    let cluster = deployed.namespace.cluster();
    let output = Command::new(binary("kubectl-sluice")?)
        .env("KUBECONFIG", cluster.kubeconfig())
        .args(["--namespace", deployed.namespace.name()])
        .args(words)
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let failed = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{words:?}: {said}{failed}");
    Ok(said)
}

/// Conditions of a pod's endpoint.
async fn endpoint(deployed: &Deployed, pod: &Pod) -> Result<(bool, bool, bool)> {
    let cluster = deployed.namespace.cluster();
    let words = [
        "--namespace",
        deployed.namespace.name(),
        "endpointslices",
        "--selector=kubernetes.io/service-name=demo",
    ];
    let slices = cluster.get(&words).await?;
    let slices = slices["items"].as_array().context("slices")?.iter();
    let mut endpoints =
        slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let found = endpoints.find(|endpoint| endpoint["targetRef"]["name"] == *pod.name);
    let conditions = &found.context("the pod has an endpoint")?["conditions"];
    let is = |name: &str| conditions[name] == Value::Bool(true);
    Ok((is("ready"), is("serving"), is("terminating")))
}

const TAKES_NEW: (bool, bool, bool) = (true, true, false);
const FENCED: (bool, bool, bool) = (false, true, true);

async fn becomes(
    deployed: &Deployed,
    pod: &Pod,
    wanted: (bool, bool, bool),
    within: Duration,
) -> Result<Duration> {
    let since = Instant::now();
    loop {
        let now = endpoint(deployed, pod).await?;
        if now == wanted {
            return Ok(since.elapsed());
        }
        ensure!(
            since.elapsed() < within,
            "{} is {now:?} after {within:?}",
            pod.name
        );
        sleep(STEP).await;
    }
}

/// A data plane that stands still is given no new clients, before any probe has failed.
async fn silent(deployed: &Deployed) -> Result<()> {
    let pod = deployed.pods().await?.swap_remove(0);
    deployed.signal(&pod, Signal::STOP)?;
    let steered = becomes(deployed, &pod, FENCED, STEERED_WITHIN).await;
    deployed.signal(&pod, Signal::CONT)?;
    eprintln!("a silent pod is steered away after {:?}", steered?);
    becomes(deployed, &pod, TAKES_NEW, SOON).await?;
    Ok(())
}

/// A pod is emptied by hand: its clients come back to the others, and it gets them back afterwards only if they choose to.
async fn drained(deployed: &Deployed) -> Result<()> {
    let clients = deployed.clients().await?;
    let (name, count) = clients
        .iter()
        .max_by_key(|(_, count)| **count)
        .context("a pod")?;
    ensure!(*count > 0, "{clients:?}");
    let since = Instant::now();
    let said = tokio::task::block_in_place(|| sluice(deployed, &["drain", name]))?;
    ensure!(said.contains("is drained"), "{said}");
    eprintln!("{count} clients were drained in {:?}", since.elapsed());
    let now = deployed.clients().await?;
    ensure!(now[name] == 0, "{now:?}");
    let cluster = deployed.namespace.cluster();
    let back = async || Ok(deployed.clients().await?.values().sum::<u64>() == CLIENTS as u64);
    cluster.wait_for("all clients are back", SOON, back).await?;
    sluice(deployed, &["drain", name, "--undo"])?;
    let pods = deployed.pods().await?;
    let pod = pods
        .iter()
        .find(|pod| pod.name == *name)
        .context("the pod")?;
    becomes(deployed, pod, TAKES_NEW, SOON).await?;
    Ok(())
}

/// Another operator leads: data planes attend it, and nobody is disconnected.
async fn another_leader(deployed: &Deployed) -> Result<()> {
    let cluster = deployed.namespace.cluster();
    operators::kill_leader(cluster).await?;
    let since = Instant::now();
    let attend = async || {
        let plan = sluice(deployed, &["plan", "demo"])?;
        Ok(plan.matches(" Accepting ").count() == 3 && !plan.contains("is new and learns"))
    };
    cluster
        .wait_for("all data planes attend another", SOON, attend)
        .await?;
    eprintln!("another manager decides after {:?}", since.elapsed());
    Ok(())
}
