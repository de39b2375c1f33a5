//! A running `sluice-upstream` as a test or a benchmark holds it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::record::{Copy, Record, Stats, UserSummary};
use super::settings::{Fault, Settings};
use crate::http;
use crate::ports::free_port;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Killed when dropped.
pub struct Upstream {
    child: Option<Child>,
    /// Where the gateway sends requests.
    pub address: SocketAddr,
    control: SocketAddr,
    settings: Settings,
}

impl Upstream {
    /// Starts one with these settings.
    pub async fn start(settings: Settings) -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST, settings).await
    }

    /// Starts one at another address of this machine.
    pub async fn start_at(address: Ipv4Addr, settings: Settings) -> Result<Self> {
        let at = |port| SocketAddr::from((address, port));
        let mut upstream = Self {
            child: None,
            address: at(free_port()?),
            control: at(free_port()?),
            settings,
        };
        upstream.restart().await?;
        Ok(upstream)
    }

    /// Starts it again at the same address after [`Upstream::kill`]; it has forgotten everything.
    pub async fn restart(&mut self) -> Result<()> {
        let mut command = Command::new(binary("sluice-upstream")?);
        command
            .arg("--quiet")
            .args(["--listen", &self.address.to_string()])
            .args(["--control", &self.control.to_string()])
            .args(["--settings", &serde_json::to_string(&self.settings)?])
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        let child = self.child.insert(child);
        let deadline = Instant::now() + START_TIMEOUT;
        while http::get(self.control, "/_stats").await.is_err() {
            let ended = child.try_wait()?;
            ensure!(
                ended.is_none() && Instant::now() < deadline,
                "the upstream does not start: {ended:?}"
            );
            sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes the settings that the patch names.
    pub async fn set(&self, patch: Value) -> Result<()> {
        let body = patch.to_string();
        let answer = http::request(self.control, "POST", "/_control", &[], body.as_bytes()).await?;
        ensure!(answer.status == 200, "{patch}: {}", answer.text());
        Ok(())
    }

    /// From now on these go wrong, and no others.
    pub async fn fail(&self, faults: &[Fault]) -> Result<()> {
        self.set(json!({ "faults": faults })).await
    }

    /// Nothing goes wrong from now on.
    pub async fn heal(&self) -> Result<()> {
        self.fail(&[]).await
    }

    pub async fn stats(&self) -> Result<Stats> {
        self.get("/_stats").await
    }

    pub async fn records(&self) -> Result<Vec<Record>> {
        self.get("/_records").await
    }

    /// Requests as they came; needs `keep_requests`.
    pub async fn copies(&self) -> Result<Vec<Copy>> {
        self.get("/_requests").await
    }

    /// Users by device.
    pub async fn users(&self) -> Result<BTreeMap<String, UserSummary>> {
        let users: Vec<UserSummary> = self.get("/_users").await?;
        Ok(users
            .into_iter()
            .map(|user| (user.device.clone(), user))
            .collect())
    }

    /// Waits until the sums are as wanted.
    pub async fn until(&self, within: Duration, fits: impl Fn(&Stats) -> bool) -> Result<Stats> {
        let deadline = Instant::now() + within;
        loop {
            let stats = self.stats().await?;
            if fits(&stats) {
                return Ok(stats);
            }
            ensure!(
                Instant::now() < deadline,
                "after {within:?} still {stats:?}"
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = http::get(self.control, path).await?;
        ensure!(answer.status == 200, "{path}: {}", answer.status);
        serde_json::from_slice(&answer.body).with_context(|| path.to_owned())
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// A program of this package that was built together with this one.
pub fn binary(name: &str) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    // Tests are one directory below the programs.
    let folders = this.ancestors().skip(1).take(2);
    folders
        .map(|folder: &Path| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| format!("{name} was not built beside {}", this.display()))
}
