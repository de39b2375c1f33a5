//! The manager decides how many pods there are: more when clients come, without disconnecting anyone; fewer when they have gone,
//! one drained pod at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluice_e2e::bench::workers::Workers;
use sluice_e2e::deployed::numbered::{self, Writers};
use sluice_e2e::deployed::{Deployed, Install};
use tokio::time::{Instant, sleep, timeout};

/// A pod is meant to carry 200, and 70 % of that is planned for: the stayers need two pods, all together five.
const STAYERS: usize = 200;
const VISITORS: usize = 450;
/// README's Gateway has as many.
const MIN: usize = 3;
const MAX: usize = 5;
/// Messages per second over all channels of the stayers.
const RATE: f64 = 30.0;
/// A debug build needs more CPU than pods of tests ask for.
const SCALING: &str = r#"{"mode": "Managed", "min": 3, "max": 5, "connectionsPerReplica": 200, "targetCpuPercent": 1000, "scaleDownWindow": "30s"}"#;
const SOON: Duration = Duration::from_secs(90);
/// From clients to pods that take clients.
const GROWS_WITHIN: Duration = Duration::from_secs(60);
/// The window, a calm minute after growth, each pod that goes: what carries clients learns of it, and they are moved.
const SHRINKS_WITHIN: Duration = Duration::from_secs(240);
const SCENARIO: Duration = Duration::from_secs(540);
/// After the last message.
const SETTLE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn pods_come_with_clients_and_go_after_them() -> Result<()> {
    let deployed = Deployed::start("autoscale", Install::AsInReadme).await?;
    let scenario = timeout(SCENARIO, scenario(&deployed)).await;
    let scenario = scenario.context("it takes too long").flatten();
    deployed.namespace.explain(scenario)
}

async fn scenario(deployed: &Deployed) -> Result<()> {
    let mut stayers = enter(deployed, STAYERS, 0)?;
    stayers.go()?;
    let writers = Writers::start(deployed, STAYERS, 0, RATE);
    let managed = format!(r#"{{"dataPlane": {{"scaling": {SCALING}}}}}"#);
    patch(deployed, &managed).await?;
    let mut visitors = enter(deployed, VISITORS, 1_000_000)?;
    visitors.go()?;
    let grown = replicas(deployed, MAX, GROWS_WITHIN).await?;
    let limited = condition(deployed, "ScalingLimited").await?;
    ensure!(
        limited.starts_with("Maximum: ") && limited.contains("pods would be needed"),
        "{limited:?}"
    );
    let report = tokio::task::block_in_place(|| visitors.stop())?;
    ensure!(
        report.closes.is_empty(),
        "growth disconnected visitors: {:?}",
        report.closes
    );

    let shrunk = replicas(deployed, MIN, SHRINKS_WITHIN).await?;
    ensure!(condition(deployed, "ScalingLimited").await?.is_empty());
    // Whoever says so: the one that goes has clients, and they are moved before.
    let clients = deployed.clients().await?;
    patch(
        deployed,
        r#"{"dataPlane": {"scaling": {"mode": "Fixed", "replicas": 2}}}"#,
    )
    .await?;
    let removed = replicas(deployed, MIN - 1, SHRINKS_WITHIN).await?;
    eprintln!(
        "{MAX} pods after {grown:?}, {MIN} again after {shrunk:?}; one of {clients:?} removed after {removed:?}"
    );
    all_back(deployed).await?;
    let last = writers.stop().await?;
    sleep(SETTLE).await;
    let report = tokio::task::block_in_place(|| stayers.stop())?;
    numbered::accounted(&report, &last, STAYERS)?;
    ensure!(
        report.closes.values().sum::<u64>() as usize <= STAYERS / 2,
        "more were closed than were on the pod that went: {:?}",
        report.closes
    );
    paused(deployed).await
}

fn enter(deployed: &Deployed, clients: usize, first: usize) -> Result<Workers> {
    tokio::task::block_in_place(|| numbered::follow(deployed, clients, first))
}

async fn patch(deployed: &Deployed, spec: &str) -> Result<()> {
    let patch = format!(r#"{{"spec": {spec}}}"#);
    let words = ["patch", "slgw/demo", "--type=merge", "--patch", &patch];
    deployed.namespace.kubectl(&words).await?;
    Ok(())
}

async fn deployment(deployed: &Deployed) -> Result<Value> {
    let words = ["get", "deployment/demo", "--output=json"];
    Ok(serde_json::from_str(
        &deployed.namespace.kubectl(&words).await?,
    )?)
}

/// How long until so many pods are ready, and no others are left. No pod is removed while it has clients.
async fn replicas(deployed: &Deployed, count: usize, within: Duration) -> Result<Duration> {
    let since = Instant::now();
    let mut asked = None;
    let mut clients: BTreeMap<String, u64> = BTreeMap::new();
    loop {
        let now = deployment(deployed).await?;
        let wanted = now["spec"]["replicas"].as_u64().context("replicas")?;
        if asked.is_some_and(|asked| wanted < asked) {
            let staying = deployed.pods().await?;
            let mut gone = clients.clone();
            gone.retain(|name, _| !staying.iter().any(|pod| pod.name == *name));
            ensure!(
                gone.values().sum::<u64>() == 0,
                "pods went with clients on them: {gone:?}"
            );
        }
        asked = Some(wanted);
        let ready = now["status"]["readyReplicas"].as_u64().unwrap_or(0);
        let pods = deployed.pods().await?.len();
        if (wanted, ready, pods) == (count as u64, count as u64, count) {
            return Ok(since.elapsed());
        }
        ensure!(
            since.elapsed() < within,
            "{wanted} pods asked for, {ready} ready, {pods} there, after {within:?}"
        );
        // A pod may end while it is asked.
        if let Ok(now) = deployed.clients().await {
            clients = now;
        }
        sleep(Duration::from_millis(500)).await;
    }
}

async fn all_back(deployed: &Deployed) -> Result<()> {
    let cluster = deployed.namespace.cluster();
    let back = async || Ok(deployed.clients().await?.values().sum::<u64>() == STAYERS as u64);
    cluster.wait_for("the stayers are back", SOON, back).await
}

/// Reason and message; empty: it does not stand there.
async fn condition(deployed: &Deployed, kind: &str) -> Result<String> {
    let path = format!(
        r#"--output=jsonpath={{range .status.conditions[?(@.type=="{kind}")]}}{{.reason}}: {{.message}}{{end}}"#
    );
    deployed
        .namespace
        .kubectl(&["get", "slgw/demo", &path])
        .await
}

/// What is paused is only said.
async fn paused(deployed: &Deployed) -> Result<()> {
    let spec =
        r#"{"dataPlane": {"scaling": {"mode": "Managed"}}, "operation": {"scaling": "Paused"}}"#;
    patch(deployed, spec).await?;
    let cluster = deployed.namespace.cluster();
    let said = async || {
        Ok(condition(deployed, "ScalingLimited")
            .await?
            .starts_with("Paused: 3 pods "))
    };
    cluster.wait_for("the status says so", SOON, said).await?;
    replicas(deployed, MIN - 1, SETTLE).await?;
    patch(deployed, r#"{"operation": {"scaling": "Active"}}"#).await?;
    replicas(deployed, MIN, GROWS_WITHIN).await?;
    Ok(())
}
