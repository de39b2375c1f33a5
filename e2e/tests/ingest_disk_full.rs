//! When its file system is full the gateway refuses, loses nothing it acknowledged, and goes on when there is room.
//!
//! The file system is a small one in memory, mounted in a namespace of its own; needs `unshare` and `nsenter`.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sluice_e2e::http_load::schedule::Phase;
use sluice_e2e::http_load::shape::Shape;
use sluice_e2e::http_load::{Load, OnFailure, Plan};
use sluice_e2e::ingest::{Gateway, Ingest, KEY, nothing_lost};
use sluice_e2e::upstream::handle::Upstream;
use sluice_e2e::upstream::settings::{Fault, Settings};
use tokio::time::{Instant, sleep};

const DISK_MIB: usize = 96;
const ROOM_MIB: usize = 8;

/// A file system of [`DISK_MIB`] at a directory, seen only by processes that are started in it.
struct Disk {
    keeper: Child,
    directory: PathBuf,
}

impl Disk {
    fn mount(directory: &Path) -> Result<Self> {
        let script = format!(
            "mount -t tmpfs -o size={DISK_MIB}m tmpfs \"$1\" && echo mounted && exec sleep 600"
        );
        let mut keeper = Command::new("unshare")
            .args([
                "--user",
                "--map-root-user",
                "--mount",
                "sh",
                "-c",
                &script,
                "sh",
            ])
            .arg(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("unshare of util-linux is needed")?;
        let mut line = String::new();
        let output = keeper.stdout.take().context("stdout is piped")?;
        BufReader::new(output).read_line(&mut line)?;
        let disk = Self {
            keeper,
            directory: directory.to_owned(),
        };
        ensure!(
            line == "mounted\n",
            "user namespaces with mounts are not allowed here"
        );
        Ok(disk)
    }

    /// What runs a program inside.
    fn enter(&self) -> Vec<String> {
        let keeper = self.keeper.id().to_string();
        [
            "nsenter",
            "--target",
            &keeper,
            "--user",
            "--mount",
            "--preserve-credentials",
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn ballast(&self) -> PathBuf {
        let inside = format!(
            "/proc/{}/root{}",
            self.keeper.id(),
            self.directory.display()
        );
        Path::new(&inside).join("ballast")
    }

    /// Takes up room until so many MiB are left.
    fn fill(&self, left_mib: usize) -> Result<()> {
        Ok(std::fs::write(
            self.ballast(),
            vec![7; (DISK_MIB - left_mib) << 20],
        )?)
    }

    fn empty(&self) -> Result<()> {
        Ok(std::fs::remove_file(self.ballast())?)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

#[tokio::test]
async fn a_full_disk_refuses_loses_nothing_and_recovers() -> Result<()> {
    let upstream = Upstream::start(Settings::default()).await?;
    // Nothing is delivered for now: all of it must be kept.
    upstream.fail(&[Fault::reply(503, "")]).await?;
    let mut mounted = None;
    let ingest = Ingest::new(&upstream.url());
    let mut gateway = Gateway::start_in(&ingest, |data| {
        let disk = mounted.insert(Disk::mount(data)?);
        Ok(disk.enter())
    })
    .await?;
    let disk = mounted.context("mounted before the start")?;
    disk.fill(ROOM_MIB)?;
    let mut plan = Plan::new(gateway.address(), KEY, vec![Phase::rate(120.0, 14.0)]);
    plan.shape = noise(KEY, 16 * 1024);
    plan.on_failure = OnFailure::Retry(Duration::from_millis(300));
    let load = Load::start(plan)?;
    let deadline = Instant::now() + Duration::from_secs(20);
    let refused = loop {
        let answer = gateway.event("probe", 0).await?;
        if answer.status != 200 {
            break answer;
        }
        ensure!(
            Instant::now() < deadline,
            "{} acknowledged into {ROOM_MIB} MiB",
            load.acked()
        );
        sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(refused.status, 503);
    ensure!(refused.header("Retry-After").is_some(), "no Retry-After");
    ensure!(
        refused.json()?.get("result").is_some(),
        "{}",
        refused.text()
    );
    // It stays up, and stays so after a kill, with what it has.
    sleep(Duration::from_secs(2)).await;
    let held = load.acked();
    ensure!(held > 100, "only {held} acknowledged");
    gateway.kill()?;
    gateway.restart().await?;
    let waiting = gateway.waiting().await?;
    ensure!(
        waiting >= held as f64,
        "{held} acknowledged, {waiting} waiting after the restart"
    );

    disk.empty()?;
    let outcome = load.outcome().await?;
    assert_eq!((outcome.acked, outcome.given_up), (1680, 0), "{outcome:?}");
    ensure!(
        outcome.statuses.contains_key(&503),
        "{:?}",
        outcome.statuses
    );
    upstream.heal().await?;
    gateway.drained(Duration::from_secs(120)).await?;
    let more = nothing_lost(&upstream, &outcome).await?;
    assert_eq!(more, 0);
    Ok(())
}

/// A request with a body that does not compress.
fn noise(app: &str, bytes: usize) -> Shape {
    let noise: String = (0..bytes).map(|_| fastrand::alphanumeric()).collect();
    let body = format!("app_key={app}&device_id=dDDDDDDDDD&seq=SSSSSSSSS&user_details={noise}");
    Shape::of(&format!(
        "POST /i HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ))
}
