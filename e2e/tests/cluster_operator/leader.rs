//! Of several operators one writes: what the API server was asked, and by whom, is in its audit log.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sluice_e2e::cluster::Namespace;
use sluice_e2e::operator::Operator;
use sluice_e2e::operator::audit::{one_after_the_other, writes};
use sluice_e2e::operator::stage::{REDIS, gateway, get, operator, ready, stage};
use tokio::time::sleep;

/// The lease runs out, and the other operator looks at everything.
const TAKEOVER: Duration = Duration::from_secs(20);
/// A lease that was given back is taken at the next look.
const HANDOVER: Duration = Duration::from_secs(8);
/// Several rounds of the election, and of everything that a woken operator had still to do.
const WATCHED: Duration = Duration::from_secs(8);
const LEADS: &str = "leading: this operator writes";
const FOLLOWS: &str = "following: another operator writes";

#[tokio::test]
async fn of_several_operators_one_writes_at_a_time() -> Result<()> {
    let namespace = stage("election").await?;
    let result = kill_and_stop(&namespace).await;
    namespace.explain(result)
}

async fn kill_and_stop(namespace: &Namespace) -> Result<()> {
    let first = operator(namespace, "first").await?;
    let second = operator(namespace, "second").await?;
    namespace.apply(&format!("{REDIS}{}", gateway(1))).await?;
    ready(namespace).await?;
    ensure!(first.log().contains(LEADS) && !second.log().contains(LEADS));
    // Killed: its lease runs out.
    drop(first);
    let took = service_comes_back(namespace, TAKEOVER).await?;
    eprintln!("another operator wrote {took:?} after the leader was killed");
    // Ended in order: the next one writes at once.
    let third = operator(namespace, "third").await?;
    second.stop().await?;
    let took = service_comes_back(namespace, HANDOVER).await?;
    eprintln!("another operator wrote {took:?} after the leader had ended");
    third.stop().await?;
    let cluster = namespace.cluster();
    let of = |name| writes(cluster, namespace.name(), name);
    one_after_the_other(&[
        ("first", of("first")?),
        ("second", of("second")?),
        ("third", of("third")?),
    ])
}

/// A machine that stands still for a while does not know it. What its leader would have written is another's to write now.
#[tokio::test]
async fn a_leader_that_stood_still_writes_nothing_when_it_goes_on() -> Result<()> {
    let namespace = stage("suspended").await?;
    let first = operator(&namespace, "first").await?;
    let second = operator(&namespace, "second").await?;
    let result = stand_still(&namespace, &first, &second).await;
    let result = result.with_context(|| format!("{}\n\n{}", first.log(), second.log()));
    namespace.explain(result)
}

async fn stand_still(namespace: &Namespace, first: &Operator, second: &Operator) -> Result<()> {
    namespace.apply(&format!("{REDIS}{}", gateway(1))).await?;
    ready(namespace).await?;
    ensure!(first.log().contains(LEADS) && !second.log().contains(LEADS));
    // In the middle of work.
    delete_without_waiting(namespace, "service/demo").await?;
    delete_without_waiting(namespace, "configmap/demo-config").await?;
    first.pause()?;
    let took = service_comes_back(namespace, TAKEOVER).await?;
    eprintln!("another operator wrote {took:?} after the leader stood still");
    let before = writes(namespace.cluster(), namespace.name(), "first")?.len();
    first.resume()?;
    // It learns of all that happened meanwhile, and of more.
    let until = Instant::now() + WATCHED;
    while Instant::now() < until {
        service_comes_back(namespace, TAKEOVER).await?;
        delete_without_waiting(namespace, "networkpolicy/demo").await?;
        sleep(Duration::from_millis(500)).await;
    }
    let log = first.log();
    ensure!(
        log.rfind(FOLLOWS) > log.rfind(LEADS),
        "it does not know that another leads"
    );
    let cluster = namespace.cluster();
    let of_first = writes(cluster, namespace.name(), "first")?;
    ensure!(
        of_first.len() == before,
        "{:?}",
        of_first.split_at(before).1
    );
    one_after_the_other(&[
        ("first", of_first),
        ("second", writes(cluster, namespace.name(), "second")?),
    ])
}

async fn delete_without_waiting(namespace: &Namespace, object: &str) -> Result<()> {
    let words = ["delete", object, "--wait=false", "--ignore-not-found"];
    namespace.kubectl(&words).await.map(drop)
}

/// Deletes the Service and returns how long nobody made it again.
async fn service_comes_back(namespace: &Namespace, within: Duration) -> Result<Duration> {
    let uid = |service: &Value| service["metadata"]["uid"].clone();
    let before = get(
        namespace,
        &["service", "--field-selector=metadata.name=demo"],
    )
    .await?;
    let before = before["items"].get(0).map(uid);
    delete_without_waiting(namespace, "service/demo").await?;
    let began = Instant::now();
    let is_back = async || Ok(Some(uid(&get(namespace, &["service", "demo"]).await?)) != before);
    let what = "the Service is made again";
    namespace.cluster().wait_for(what, within, is_back).await?;
    Ok(began.elapsed())
}
