//! Traffic of both kinds through a deployed gateway, with exact accounts: README's clients of the relay, texts through the
//! server API, and the Countly SDK.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{ACCOUNT, APP_KEY, Deployed, api, publication};
use crate::readme::Readme;
use crate::sdk::{Script, Sdks};
use crate::sluice::Scratch;
use crate::upstream::steps;

/// Generous: the machine may be busy with everything else.
const SOON: Duration = Duration::from_secs(90);
const STEP: Duration = Duration::from_millis(250);

/// One of the README's Python clients, and all that it has printed.
pub struct Chatter {
    pub script: Script,
    pub printed: Vec<String>,
}

impl Chatter {
    /// Starts one and waits until it is online.
    pub fn start(scratch: &Scratch, user: &str, account: &str) -> Result<Self> {
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
    pub fn until(&mut self, fits: impl Fn(&str) -> bool) -> Result<()> {
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
    #[must_use]
    pub fn published(&self) -> Vec<&str> {
        let of_server = |line: &'_ String| line.starts_with("server: ");
        let lines = self.printed.iter().filter(|line| of_server(line));
        lines
            .filter_map(|line| line.split_once(": "))
            .map(|(_, text)| text)
            .collect()
    }
}

/// Publishes numbered texts, each again until it is answered with success.
pub struct Publisher {
    published: Arc<AtomicU64>,
    stop: watch::Sender<bool>,
    task: JoinHandle<Result<()>>,
}

impl Publisher {
    pub fn start(address: SocketAddr) -> Self {
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
    #[must_use]
    pub fn next(&self) -> String {
        format!(
            "server: text {}",
            self.published.load(Ordering::Relaxed) + 2
        )
    }

    /// Ends it and returns how many it published.
    pub async fn finish(self) -> Result<u64> {
        self.stop.send_replace(true);
        self.task.await??;
        Ok(self.published.load(Ordering::Relaxed))
    }
}

/// The README's Python client as pasted, but for the address.
pub fn paste(deployed: &Deployed) -> Result<Scratch> {
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
pub async fn chatter_on_other_pod(
    deployed: &Deployed,
    scratch: &Scratch,
    user: &str,
    elsewhere: Option<&str>,
) -> Result<(Chatter, String)> {
    for _ in 0..30 {
        let before = deployed.clients().await?;
        let chatter = Chatter::start(scratch, user, ACCOUNT)?;
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
pub fn talk(alice: &mut Chatter, bob: &mut Chatter, about: &str) -> Result<()> {
    alice.script.say(&format!("{about}?"))?;
    bob.until(|line| line == format!("alice: {about}?"))?;
    bob.script.say(&format!("{about}!"))?;
    alice.until(|line| line == format!("bob: {about}!"))
}

/// Waits until a client has the last of so many texts; it has all of them then, once and in order.
pub fn heard(name: &str, mut chatter: Chatter, published: u64) -> Result<()> {
    let last = format!("server: text {published}");
    if !chatter.printed.contains(&last) {
        chatter.until(|line| line == last)?;
    }
    let expected: Vec<String> = (1..=published).map(|n| format!("text {n}")).collect();
    ensure!(
        chatter.published() == expected,
        "{name} of {published}: {:?}",
        chatter.printed
    );
    Ok(())
}

/// The Countly SDK, which adds events until it is stopped.
pub fn countly(deployed: &Deployed, sdks: &Sdks, device: &str) -> Result<Script> {
    let url = format!("http://{}", deployed.address);
    let options = json!({ "endless": true }).to_string();
    let arguments = ["single", &url, APP_KEY, device, &options];
    sdks.start_node("e2e/sdk/countly.mjs", &arguments)
}

/// Stops the SDK and waits until all that it was given has arrived, in order; so many requests may have come twice.
pub async fn counted(
    deployed: &Deployed,
    countly: &mut Script,
    device: &str,
    repeats_max: usize,
) -> Result<()> {
    countly.say("stop")?;
    countly.event("sent", SOON)?;
    let printed = countly.rest(STEP);
    let count = printed.iter().filter(|line| line.contains("added")).count();
    let deadline = Instant::now() + SOON;
    loop {
        let copies = deployed.upstream.copies().await?;
        let (arrived, repeats) = steps::once(&steps::batches(&copies)?[device]);
        if arrived.len() >= count {
            let expected: Vec<u64> = (1..=arrived.len() as u64).collect();
            ensure!(
                arrived.len() == count && arrived == expected,
                "not {count} in order: {arrived:?}"
            );
            ensure!(repeats <= repeats_max, "{repeats} requests came twice");
            eprintln!("{count} events in order, {repeats} requests of them twice");
            return Ok(());
        }
        if Instant::now() > deadline {
            let (last, lanes) = (arrived.last(), deployed.lanes().await?);
            bail!(
                "{} of {count} events arrived, {last:?} last; {lanes}",
                arrived.len()
            );
        }
        sleep(STEP).await;
    }
}
