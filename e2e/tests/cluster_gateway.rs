//! The data plane's image as a Deployment of three pods on a Redis Cluster of StatefulSets: the SDKs work through its
//! Service, and neither a killed pod, nor a rollout, nor a Redis pod that goes and comes back loses anything.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use sluice_e2e::deployed::{APP_KEY, Deployed, Pod, api, publication};
use sluice_e2e::readme::Readme;
use sluice_e2e::sdk::{Script, Sdks};
use sluice_e2e::sluice::Scratch;
use sluice_e2e::upstream::steps;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

/// Generous: the machine may be busy with everything else.
const SOON: Duration = Duration::from_secs(90);
const HEALED: Duration = Duration::from_secs(180);
const ROLLOUT: Duration = Duration::from_secs(240);
const SCENARIO: Duration = Duration::from_secs(600);
const STEP: Duration = Duration::from_millis(250);

/// Requests that may come twice through a killed pod and a rollout of three.
const REPEATS_MAX: usize = 12;

/// A deployment is nine pods: one at a time is enough for the machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// One of the README's Python clients, and all that it has printed.
struct Chatter {
    script: Script,
    printed: Vec<String>,
}

impl Chatter {
    /// Starts one and waits until it is online.
    fn start(scratch: &Scratch, user: &str, account: &str) -> Result<Self> {
        let mut command = Command::new(Sdks::prepare()?.python());
        command
            .arg(scratch.path().join("chat.py"))
            .args([user, account]);
        let script = Script::start(command)?;
        let mut chatter = Self {
            script,
            printed: Vec::new(),
        };
        chatter.until(|line| line.starts_with("online: ") && line.contains(user))?;
        Ok(chatter)
    }

    /// Waits for a line that it has not been asked for yet.
    fn until(&mut self, fits: impl Fn(&str) -> bool) -> Result<()> {
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.script.line(left, |_| true)?;
            let found = fits(&line);
            self.printed.push(line);
            if found {
                return Ok(());
            }
        }
    }

    /// The texts that came through the server API, in order.
    fn published(&self) -> Vec<&str> {
        let of_server = |line: &'_ String| line.starts_with("server: ");
        let lines = self.printed.iter().filter(|line| of_server(line));
        lines
            .filter_map(|line| line.split_once(": "))
            .map(|(_, text)| text)
            .collect()
    }
}

/// Publishes numbered texts, each again until it is answered with success.
struct Publisher {
    published: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<()>>,
}

impl Publisher {
    fn start(address: SocketAddr) -> Self {
        let published = Arc::new(AtomicU64::new(0));
        let (stop, stopped) = watch::channel(false);
        let count = Arc::clone(&published);
        let task = tokio::spawn(async move {
            while !*stopped.borrow() {
                let n = count.load(Ordering::Relaxed) + 1;
                let message = publication("chat:all", &format!("text {n}"));
                let deadline = Instant::now() + SOON;
                while let Err(error) = api(address, "publish", &message).await {
                    ensure!(Instant::now() < deadline, "text {n}: {error:#}");
                    sleep(STEP).await;
                }
                count.store(n, Ordering::Relaxed);
                sleep(Duration::from_millis(100)).await;
            }
            Ok(())
        });
        Self {
            published,
            stop,
            task,
        }
    }

    /// A text that has not been published yet.
    fn next(&self) -> String {
        format!(
            "server: text {}",
            self.published.load(Ordering::Relaxed) + 2
        )
    }

    /// Ends it and returns how many it published.
    async fn finish(self) -> Result<u64> {
        self.stop.send_replace(true);
        self.task.await??;
        Ok(self.published.load(Ordering::Relaxed))
    }
}

/// The README's Python client as pasted, but for the address.
fn paste(deployed: &Deployed) -> Result<Scratch> {
    let scratch = Scratch::new()?;
    let readme = Readme::read()?;
    let pasted = readme.block("python", "chat")?;
    ensure!(
        pasted.contains("localhost:8000"),
        "the README's client connects elsewhere"
    );
    scratch.write(
        "chat.py",
        &pasted.replace("localhost:8000", &deployed.address.to_string()),
    )?;
    Ok(scratch)
}

/// A client, and the pod that has it, which is not `elsewhere`: kube-proxy chooses by chance.
async fn chatter_on_other_pod(
    deployed: &Deployed,
    scratch: &Scratch,
    user: &str,
    elsewhere: Option<&str>,
) -> Result<(Chatter, String)> {
    for _ in 0..30 {
        let before = deployed.clients().await?;
        let chatter = Chatter::start(scratch, user, "acme")?;
        let after = deployed.clients().await?;
        let more = |(pod, count): &(&String, &u64)| before.get(*pod).is_some_and(|b| b < *count);
        let (pod, _) = after
            .iter()
            .find(more)
            .context("no pod has one client more")?;
        if Some(pod.as_str()) != elsewhere {
            return Ok((chatter, pod.clone()));
        }
        drop(chatter);
        let deadline = Instant::now() + SOON;
        while deployed.clients().await? != before {
            ensure!(
                Instant::now() < deadline,
                "a client that is gone is still counted"
            );
            sleep(STEP).await;
        }
    }
    bail!("30 connections through the Service, and all came to {elsewhere:?}")
}

/// Both say something and both hear it.
fn talk(alice: &mut Chatter, bob: &mut Chatter, about: &str) -> Result<()> {
    alice.script.say(&format!("{about}?"))?;
    bob.until(|line| line == format!("alice: {about}?"))?;
    bob.script.say(&format!("{about}!"))?;
    alice.until(|line| line == format!("bob: {about}!"))
}

async fn pod(deployed: &Deployed, name: &str) -> Result<Pod> {
    let pods = deployed.pods().await?;
    let pod = pods.into_iter().find(|pod| pod.name == name);
    pod.with_context(|| format!("{name} is gone"))
}

#[tokio::test(flavor = "multi_thread")]
async fn sdks_work_through_the_service_while_pods_are_killed_and_replaced() -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock().await;
    let sdks = Sdks::prepare()?;
    let deployed = Deployed::start("gateway").await?;
    let scenario = timeout(SCENARIO, chat_and_count(&deployed, &sdks)).await;
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

    let url = format!("http://{}", deployed.address);
    let options = json!({ "endless": true }).to_string();
    let arguments = ["single", &url, APP_KEY, "anna", &options];
    let mut countly = sdks.start_node("e2e/sdk/countly.mjs", &arguments)?;
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

    let before: BTreeSet<String> = names(deployed).await?;
    let since = Instant::now();
    let restart = ["rollout", "restart", "deployment/sluice"];
    deployed.namespace.kubectl(&restart).await?;
    deployed.rolled_out(ROLLOUT).await?;
    eprintln!("rolled out in {:?}", since.elapsed());
    gone(deployed, &before).await?;
    let next = publisher.next();
    for chatter in [&mut alice, &mut bob] {
        chatter.until(|line| line == next)?;
    }
    talk(&mut alice, &mut bob, "here again")?;

    let published = publisher.finish().await?;
    let expected: Vec<String> = (1..=published).map(|n| format!("text {n}")).collect();
    for (name, mut chatter) in [("alice", alice), ("bob", bob)] {
        let last = format!("server: text {published}");
        if !chatter.printed.contains(&last) {
            chatter.until(|line| line == last)?;
        }
        ensure!(
            chatter.published() == expected,
            "{name} of {published}: {:?}",
            chatter.printed
        );
    }
    let rest = eve.script.rest(Duration::from_millis(500));
    let is_own = |line: &String| ["joined: eve", "left: eve"].contains(&line.as_str());
    ensure!(rest.iter().all(is_own), "eve saw {rest:?}");
    eprintln!("{published} texts, each once and in order");
    counted(deployed, &mut countly).await?;
    countly.succeed(SOON).map(drop)
}

async fn names(deployed: &Deployed) -> Result<BTreeSet<String>> {
    Ok(deployed
        .pods()
        .await?
        .into_iter()
        .map(|pod| pod.name)
        .collect())
}

/// Waits until none of these pods is left, and all of the others are on nodes of their own.
async fn gone(deployed: &Deployed, before: &BTreeSet<String>) -> Result<()> {
    let is_gone = async || {
        let list = ["get", "pods", "--selector=app=sluice", "--output=name"];
        let listed = deployed.namespace.kubectl(&list).await?;
        Ok(!before.iter().any(|pod| listed.contains(pod)))
    };
    let cluster = deployed.namespace.cluster();
    cluster
        .wait_for("the old pods are gone", ROLLOUT, is_gone)
        .await?;
    let pods = deployed.pods().await?;
    let nodes: BTreeSet<&String> = pods.iter().map(|pod| &pod.node).collect();
    ensure!(pods.len() == 3 && nodes.len() == 3, "{pods:?}");
    Ok(())
}

/// Stops the SDK and waits until all that it was given has arrived, in order.
async fn counted(deployed: &Deployed, countly: &mut Script) -> Result<()> {
    countly.say("stop")?;
    countly.event("sent", SOON)?;
    let printed = countly.rest(STEP);
    let count = printed.iter().filter(|line| line.contains("added")).count();
    let deadline = Instant::now() + SOON;
    loop {
        let copies = deployed.upstream.copies().await?;
        let (arrived, repeats) = steps::once(&steps::batches(&copies)?["anna"]);
        if arrived.len() >= count {
            let expected: Vec<u64> = (1..=arrived.len() as u64).collect();
            ensure!(
                arrived.len() == count && arrived == expected,
                "not {count} in order: {arrived:?}"
            );
            ensure!(repeats <= REPEATS_MAX, "{repeats} requests came twice");
            eprintln!("{count} events in order, {repeats} requests of them twice");
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "{} of {count} events arrived",
            arrived.len()
        );
        sleep(STEP).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_pods_come_back_with_their_data() -> Result<()> {
    let _turn = ONE_AT_A_TIME.lock().await;
    let deployed = Deployed::start("redis").await?;
    let scenario = timeout(SCENARIO, lose_redis_pods(&deployed)).await;
    deployed
        .namespace
        .explain(scenario.context("it takes too long").flatten())
}

/// Channels of as many partitions as there are, so that every shard has some.
const CHANNELS: usize = 60;

async fn lose_redis_pods(deployed: &Deployed) -> Result<()> {
    publish_everywhere(deployed, "first").await?;
    // A primary alone; a shard with all that it has; everything: then only the volumes are left, and no address is right.
    let all = [
        "redis-a-0",
        "redis-a-1",
        "redis-b-0",
        "redis-b-1",
        "redis-c-0",
        "redis-c-1",
    ];
    for (text, lost) in [
        ("second", &all[..1]),
        ("third", &all[2..4]),
        ("fourth", &all),
    ] {
        let before = deployed.pods_of("app=redis").await?;
        let ids = redis_ids(deployed, &before).await?;
        let since = Instant::now();
        let words = [&["delete", "pod", "--wait=false"][..], lost].concat();
        deployed.namespace.kubectl(&words).await?;
        let cluster = deployed.namespace.cluster();
        let healed = async || {
            let pods = deployed.pods_of("app=redis").await?;
            let replaced = before
                .iter()
                .filter(|old| lost.contains(&old.name.as_str()))
                .all(|old| {
                    pods.iter()
                        .any(|pod| pod.name == old.name && pod.is_other_than(old))
                });
            Ok(replaced && pods.len() == before.len() && is_whole(deployed, &pods).await?)
        };
        cluster
            .wait_for("Redis is whole again", HEALED, healed)
            .await?;
        eprintln!("whole {:?} after {lost:?} were deleted", since.elapsed());
        let after = deployed.pods_of("app=redis").await?;
        ensure!(
            redis_ids(deployed, &after).await? == ids,
            "nodes are other ones than before"
        );
        publish_everywhere(deployed, text).await?;
    }
    deployed.rolled_out(SOON).await?;
    for n in 0..CHANNELS {
        let asked = json!({ "account": "acme", "channel": format!("chat:{n}"), "limit": 10 });
        let history = deployed.api("history", &asked).await?;
        let publications = history["publications"].as_array().context("publications")?;
        let texts: Vec<&Value> = publications.iter().map(|p| &p["data"]["text"]).collect();
        ensure!(
            texts == ["first", "second", "third", "fourth"],
            "chat:{n}: {history}"
        );
    }
    Ok(())
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
