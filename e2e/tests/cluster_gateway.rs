//! A gateway that the operator made of `examples/kubernetes/gateway.yaml`: the SDKs work through its Service, and neither a killed
//! pod, nor a rollout, nor an operator that is away loses anything.

use std::collections::BTreeSet;
use std::env;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_e2e::deployed::traffic::{
    Chatter, Publisher, chatter_on_other_pod, counted, countly, heard, paste, talk,
};
use sluice_e2e::deployed::{DATA_PLANES, Deployed, Install, Pod, operators};
use sluice_e2e::sdk::Sdks;
use tokio::time::{Instant, sleep, timeout};

const ROLLOUT: Duration = Duration::from_secs(240);
const SCENARIO: Duration = Duration::from_secs(600);

/// Requests that may come twice through two killed pods and a rollout of three.
const REPEATS_MAX: usize = 15;
/// Longer than the operator's lease and the resync of anything.
const SETTLED: Duration = Duration::from_secs(30);

/// Traffic goes on for so long without an operator; `SLUICE_AWAY_S` makes it longer than CI has time for.
fn away() -> Duration {
    let seconds = env::var("SLUICE_AWAY_S").ok().and_then(|s| s.parse().ok());
    seconds.map_or(SETTLED, Duration::from_secs)
}

async fn pod(deployed: &Deployed, name: &str) -> Result<Pod> {
    let pods = deployed.pods().await?;
    let pod = pods.into_iter().find(|pod| pod.name == name);
    pod.with_context(|| format!("{name} is gone"))
}

#[tokio::test(flavor = "multi_thread")]
async fn sdks_work_through_the_service_while_pods_are_killed_and_replaced() -> Result<()> {
    let sdks = Sdks::prepare()?;
    let deployed = Deployed::start("gateway", Install::AsInReadme).await?;
    let scenario = timeout(SCENARIO + away(), chat_and_count(&deployed, &sdks)).await;
    deployed
        .namespace
        .explain(scenario.context("it takes too long").flatten())
}

async fn chat_and_count(deployed: &Deployed, sdks: &Sdks) -> Result<()> {
    let scratch = paste(deployed)?;
    let mut eve = Chatter::start(&scratch, "eve", "other")?;
    let (mut alice, of_alice) = chatter_on_other_pod(deployed, &scratch, "alice", None).await?;
    let (mut bob, of_bob) =
        chatter_on_other_pod(deployed, &scratch, "bob", Some(&of_alice)).await?;
    alice.until(|line| line == "joined: bob")?;
    talk(&mut alice, &mut bob, "here")?;
    let mut countly = countly(deployed, sdks, "anna")?;
    let publisher = Publisher::start(deployed.address);
    alice.until(|line| line == "server: text 20")?;

    let since = Instant::now();
    deployed.kill(&pod(deployed, &of_alice).await?)?;
    let next = publisher.next();
    alice.until(|line| line == next)?;
    eprintln!(
        "alice is back {:?} after her pod was killed",
        since.elapsed()
    );
    talk(&mut alice, &mut bob, "still here")?;
    ensure!(
        bob.printed.iter().all(|line| line != "left: bob"),
        "bob was moved from {of_bob}"
    );
    deployed.rolled_out(ROLLOUT).await?;

    roll_out(deployed).await?;
    let next = publisher.next();
    for chatter in [&mut alice, &mut bob] {
        chatter.until(|line| line == next)?;
    }
    talk(&mut alice, &mut bob, "here again")?;

    without_operator(deployed).await?;
    let next = publisher.next();
    for chatter in [&mut alice, &mut bob] {
        chatter.until(|line| line == next)?;
    }
    let published = publisher.finish().await?;
    heard("alice", alice, published)?;
    heard("bob", bob, published)?;
    let rest = eve.script.rest(Duration::from_millis(500));
    let is_own = |line: &String| ["joined: eve", "left: eve"].contains(&line.as_str());
    ensure!(rest.iter().all(is_own), "eve saw {rest:?}");
    eprintln!("{published} texts, each once and in order");
    counted(deployed, &mut countly, "anna", REPEATS_MAX).await?;
    countly.succeed(ROLLOUT).map(drop)
}

/// Replaces all pods by a change of the Gateway.
async fn roll_out(deployed: &Deployed) -> Result<()> {
    let before = names(deployed).await?;
    let since = Instant::now();
    let annotations = r#"{"metadata":{"annotations":{"rolled":"once"}}}"#;
    let patch = format!(r#"{{"spec":{{"dataPlane":{{"podTemplate":{annotations}}}}}}}"#);
    let words = ["patch", "slgw/demo", "--type=merge", "--patch", &patch];
    deployed.namespace.kubectl(&words).await?;
    gone(deployed, &before).await?;
    deployed.rolled_out(ROLLOUT).await?;
    eprintln!("rolled out in {:?}", since.elapsed());
    let pods = deployed.pods().await?;
    let nodes: BTreeSet<&String> = pods.iter().map(|pod| &pod.node).collect();
    ensure!(pods.len() == 3 && nodes.len() == 3, "{pods:?}");
    Ok(())
}

async fn names(deployed: &Deployed) -> Result<BTreeSet<String>> {
    let pods = deployed.pods().await?;
    Ok(pods.into_iter().map(|pod| pod.name).collect())
}

/// Waits until none of these pods is left.
async fn gone(deployed: &Deployed, before: &BTreeSet<String>) -> Result<()> {
    let selector = format!("--selector={DATA_PLANES}");
    let is_gone = async || {
        let list = ["get", "pods", &selector, "--output=name"];
        let listed = deployed.namespace.kubectl(&list).await?;
        Ok(!before.iter().any(|pod| listed.contains(pod)))
    };
    let cluster = deployed.namespace.cluster();
    cluster
        .wait_for("the old pods are gone", ROLLOUT, is_gone)
        .await
}

/// No operator for a while: a data plane that is killed comes back, and nothing is undone when operators are back.
async fn without_operator(deployed: &Deployed) -> Result<()> {
    let cluster = deployed.namespace.cluster();
    operators::take_away(cluster).await?;
    let before = names(deployed).await?;
    let killed = deployed.pods().await?.swap_remove(0);
    deployed.kill(&killed)?;
    sleep(away()).await;
    ensure!(names(deployed).await? == before, "pods went or came");
    deployed.rolled_out(ROLLOUT).await?;
    operators::bring_back(cluster).await?;
    // It has looked at everything when it is ready, and writes within a lease.
    sleep(SETTLED).await;
    ensure!(names(deployed).await? == before, "pods were replaced");
    Ok(())
}
