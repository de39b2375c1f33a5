//! A managed Redis Cluster loses pods, a shard, everything at once, a node, and gets another image, while traffic of both
//! kinds runs: it is whole again by itself each time, and every text and event arrives, once and in order.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sluice_e2e::cluster::parse_node;
use sluice_e2e::deployed::traffic::{Chatter, Publisher, counted, countly, heard, paste};
use sluice_e2e::deployed::{Deployed, Install, Pod, REDIS, publication};
use sluice_e2e::sdk::Sdks;
use tokio::time::{Instant, sleep, timeout};

/// Generous: the machine may be busy with everything else.
const SOON: Duration = Duration::from_secs(90);
const HEALED: Duration = Duration::from_secs(240);
const SCENARIO: Duration = Duration::from_secs(1_200);
const STEP: Duration = Duration::from_millis(250);
/// Channels of as many partitions as there are, so that every shard has some.
const CHANNELS: usize = 60;
/// Requests that may come twice: an application is handed over, or Redis does not learn of an answer, a few times.
const REPEATS_MAX: usize = 30;
/// The same server under another name.
const OTHER_IMAGE: &str = "localhost/sluice-e2e/redis:2";

const ALL: [&str; 6] = [
    "demo-redis-s0-0",
    "demo-redis-s0-1",
    "demo-redis-s1-0",
    "demo-redis-s1-1",
    "demo-redis-s2-0",
    "demo-redis-s2-1",
];

#[derive(Debug)]
enum Fault {
    /// These pods are deleted, all at once.
    Deleted(&'static [&'static str]),
    /// The node of a primary loses its power, and gets it back.
    Node,
    /// Another image is asked for.
    Image,
}

const FAULTS: [Fault; 5] = [
    Fault::Deleted(ALL.first_chunk::<1>().expect("there are six")),
    Fault::Deleted(ALL.last_chunk::<2>().expect("there are six")),
    Fault::Deleted(&ALL),
    Fault::Node,
    Fault::Image,
];

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_whole_again_by_itself_with_its_data() -> Result<()> {
    let sdks = Sdks::prepare()?;
    let deployed = Deployed::start("redis", Install::Namespaced).await?;
    let scenario = timeout(SCENARIO, faults(&deployed, &sdks)).await;
    deployed
        .namespace
        .explain(scenario.context("it takes too long").flatten())
}

async fn faults(deployed: &Deployed, sdks: &Sdks) -> Result<()> {
    let scratch = paste(deployed)?;
    let mut chatters = [
        Chatter::start(&scratch, "alice", "acme")?,
        Chatter::start(&scratch, "bob", "acme")?,
    ];
    let mut countly = countly(deployed, sdks, "anna")?;
    let publisher = Publisher::start(deployed.address);
    publish_everywhere(deployed, "0").await?;
    for (number, fault) in (1..).zip(&FAULTS) {
        let before = deployed.pods_of(REDIS).await?;
        let ids = redis_ids(deployed, &before).await?;
        let since = Instant::now();
        let dead = inflict(deployed, fault, &before).await?;
        let next = publisher.next();
        for chatter in &mut chatters {
            chatter.until(|line| line == next)?;
        }
        let flowing = since.elapsed();
        if let Some(node) = dead {
            deployed.namespace.cluster().restart_node(node).await?;
        }
        let healed = async || has_healed(deployed, fault, &before).await;
        let cluster = deployed.namespace.cluster();
        cluster
            .wait_for("Redis is whole again", HEALED, healed)
            .await?;
        eprintln!(
            "{fault:?}: texts again after {flowing:?}, whole after {:?}",
            since.elapsed()
        );
        let after = deployed.pods_of(REDIS).await?;
        ensure!(
            redis_ids(deployed, &after).await? == ids,
            "nodes are other ones than before"
        );
        publish_everywhere(deployed, &number.to_string()).await?;
    }
    let published = publisher.finish().await?;
    for (name, chatter) in ["alice", "bob"].into_iter().zip(chatters) {
        heard(name, chatter, published)?;
    }
    eprintln!("{published} texts, each once and in order");
    counted(deployed, &mut countly, "anna", REPEATS_MAX).await?;
    countly.succeed(SOON)?;
    histories(deployed).await
}

/// Returns the node that is dead now.
async fn inflict(deployed: &Deployed, fault: &Fault, before: &[Pod]) -> Result<Option<u8>> {
    match fault {
        Fault::Deleted(pods) => {
            let words = [&["delete", "pod", "--wait=false"][..], pods].concat();
            deployed.namespace.kubectl(&words).await.map(|_| None)
        }
        Fault::Image => {
            let spec = json!({"spec": {"redis": {"managed": {"image": OTHER_IMAGE}}}}).to_string();
            let words = ["patch", "slgw/demo", "--type=merge", "--patch", &spec];
            deployed.namespace.kubectl(&words).await.map(|_| None)
        }
        Fault::Node => {
            // Two primaries on it would be another fault: without a majority only the operator replaces them, later.
            let are_apart = async || primaries_are_apart(deployed).await;
            let cluster = deployed.namespace.cluster();
            cluster
                .wait_for("primaries are on nodes of their own", SOON, are_apart)
                .await?;
            let node = node_of_a_primary(deployed, before).await?;
            deployed.namespace.cluster().kill_node(node).await?;
            Ok(Some(node))
        }
    }
}

async fn primaries_are_apart(deployed: &Deployed) -> Result<bool> {
    let mut nodes = BTreeSet::new();
    let mut primaries = 0;
    for pod in deployed.pods_of(REDIS).await? {
        let role = deployed.redis(&pod, &["INFO", "replication"]).await?;
        if role.to_string().contains("role:master") {
            primaries += 1;
            nodes.insert(pod.node);
        }
    }
    Ok(primaries == 3 && nodes.len() == primaries)
}

/// Not the first one: clients come in through it.
async fn node_of_a_primary(deployed: &Deployed, pods: &[Pod]) -> Result<u8> {
    for pod in pods {
        let role = deployed.redis(pod, &["INFO", "replication"]).await?;
        let node = parse_node(&pod.node).map_err(anyhow::Error::msg)?;
        if node != 1 && role.to_string().contains("role:master") {
            return Ok(node);
        }
    }
    anyhow::bail!("all primaries are on the first node")
}

async fn has_healed(deployed: &Deployed, fault: &Fault, before: &[Pod]) -> Result<bool> {
    let pods = deployed.pods_of(REDIS).await?;
    let lost: &[&str] = match fault {
        Fault::Deleted(pods) => pods,
        Fault::Image => &ALL,
        Fault::Node => &[],
    };
    let replaced = before
        .iter()
        .filter(|old| lost.contains(&old.name.as_str()))
        .all(|old| {
            let mut others = pods.iter();
            others.any(|pod| pod.name == old.name && pod.is_other_than(old))
        });
    Ok(replaced && pods.len() == before.len() && is_whole(deployed, &pods).await?)
}

/// Publishes once to each channel, again until it is answered with success.
async fn publish_everywhere(deployed: &Deployed, text: &str) -> Result<()> {
    let deadline = Instant::now() + SOON;
    for n in 0..CHANNELS {
        let message = publication(&format!("chat:{n}"), text);
        while let Err(error) = deployed.api("publish", &message).await {
            ensure!(Instant::now() < deadline, "chat:{n}: {error:#}");
            sleep(STEP).await;
        }
    }
    Ok(())
}

/// What was published to each channel is in its history.
async fn histories(deployed: &Deployed) -> Result<()> {
    let expected: Vec<Value> = (0..=FAULTS.len()).map(|n| json!(n.to_string())).collect();
    for n in 0..CHANNELS {
        let asked = json!({ "account": "acme", "channel": format!("chat:{n}"), "limit": 10 });
        let history = deployed.api("history", &asked).await?;
        let publications = history["publications"].as_array().context("publications")?;
        let texts: Vec<&Value> = publications.iter().map(|p| &p["data"]["text"]).collect();
        ensure!(texts.iter().copied().eq(&expected), "chat:{n}: {history}");
    }
    Ok(())
}

/// What the servers call themselves, by pod.
async fn redis_ids(deployed: &Deployed, pods: &[Pod]) -> Result<BTreeSet<(String, String)>> {
    let mut ids = BTreeSet::new();
    for pod in pods {
        let id = deployed.redis(pod, &["CLUSTER", "MYID"]).await?.to_string();
        ids.insert((pod.name.clone(), id));
    }
    Ok(ids)
}

/// Every server sees all slots served and all others connected at the address they have now; every replica follows.
async fn is_whole(deployed: &Deployed, pods: &[Pod]) -> Result<bool> {
    for pod in pods {
        let info = deployed.redis(pod, &["CLUSTER", "INFO"]).await?.to_string();
        let nodes = deployed
            .redis(pod, &["CLUSTER", "NODES"])
            .await?
            .to_string();
        let role = deployed
            .redis(pod, &["INFO", "replication"])
            .await?
            .to_string();
        let follows = role.contains("role:master") || role.contains("master_link_status:up");
        let all = pods
            .iter()
            .all(|other| nodes.contains(&format!(" {}:6379@", other.ip)));
        let whole = info.contains("cluster_slots_ok:16384") && !nodes.contains("fail") && all;
        if !(whole
            && follows
            && nodes.lines().filter(|line| !line.is_empty()).count() == pods.len())
        {
            return Ok(false);
        }
    }
    Ok(true)
}
