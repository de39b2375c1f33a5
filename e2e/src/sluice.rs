//! Runs the built `sluice` for a test and stops it again.
//!
//! Owns the child process, its manifest file and its log. The binary is built before its first start, so a test
//! never runs against an old one; `SLUICE_BIN` names another. With `ORACLE` naming a Centrifugo binary, tests of
//! the protocol run against that instead, which shows that what they expect is right.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use tokio::time::sleep;

use crate::client::Client;
use crate::http;
use crate::manifest::Manifest;
use crate::ports::{free_port, is_free};

/// A debug build on a busy machine is ready well before this.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .canonicalize()
        .expect("e2e lies in the repository")
}

/// Cargo's target folder, where what is built for tests lies too.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The binary under test, built if need be.
pub fn binary() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT
        .get_or_init(|| match std::env::var_os("SLUICE_BIN") {
            Some(path) => Ok(path.into()),
            None => build("sluice-dataplane", "sluice").map_err(|e| format!("{e:#}")),
        })
        .clone()
        .map_err(anyhow::Error::msg)
}

pub(crate) fn build(package: &str, binary: &str) -> Result<PathBuf> {
    let output = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--locked",
            "--package",
            package,
            "--bin",
            binary,
            "--message-format=json",
        ])
        .current_dir(root())
        .stderr(Stdio::inherit())
        .output()
        .context("cargo build")?;
    ensure!(output.status.success(), "cargo build failed");
    let executable = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .next_back();
    executable.context("cargo named no executable")
}

/// Runs `sluice` with these arguments to its end.
pub fn run(arguments: &[&str]) -> Result<Output> {
    Ok(Command::new(binary()?).args(arguments).output()?)
}

/// A directory of one test, removed with it.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    pub fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!(
            "sluice-e2e-{}-{:08x}",
            std::process::id(),
            fastrand::u32(..)
        ));
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Puts a file in place at once, as editors and kubelets do.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        let partial = path.with_extension("partial");
        std::fs::write(&partial, text)?;
        std::fs::rename(&partial, &path)?;
        Ok(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// How to start a server.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Text of the manifest, whose listener has `port`.
    pub text: String,
    pub port: u16,
    /// A free one when not given.
    pub admin: Option<SocketAddr>,
    /// Further arguments of `standalone`.
    pub arguments: Vec<String>,
    /// A program and its arguments that runs the server, as the same process in the end.
    pub wrapper: Vec<String>,
}

impl Launch {
    #[must_use]
    pub fn new(text: String, port: u16) -> Self {
        Self {
            text,
            port,
            admin: None,
            arguments: Vec::new(),
            wrapper: Vec::new(),
        }
    }
}

/// A running server.
pub struct Sluice {
    child: Child,
    /// Where clients connect.
    pub address: SocketAddr,
    /// Health, readiness and metrics.
    pub admin: SocketAddr,
    scratch: Scratch,
    log: Arc<Mutex<Vec<String>>>,
}

impl Sluice {
    /// Starts with a manifest and waits until it is ready.
    pub async fn start(manifest: &Manifest) -> Result<Self> {
        let port = free_port()?;
        if let Some(centrifugo) = std::env::var_os("ORACLE") {
            let scratch = Scratch::new()?;
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
            let mut command = Command::new(centrifugo);
            let text = manifest.render_for_centrifugo(port);
            command.arg("-c").arg(scratch.write("config.json", &text)?);
            return Self::spawn(command, scratch, address, address, "/health").await;
        }
        Self::launch(Launch::new(manifest.render(port), port)).await
    }

    /// Starts with the text of a manifest whose listener has this port.
    pub async fn start_text(text: &str, port: u16) -> Result<Self> {
        Self::launch(Launch::new(text.to_owned(), port)).await
    }

    /// Starts as described and waits until it is ready.
    pub async fn launch(launch: Launch) -> Result<Self> {
        let scratch = Scratch::new()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, launch.port));
        let admin = match launch.admin {
            Some(admin) => admin,
            None => SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)),
        };
        let mut words: Vec<OsString> = launch.wrapper.iter().map(OsString::from).collect();
        words.push(binary()?.into());
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .arg("standalone")
            .arg(scratch.write("gateway.yaml", &launch.text)?)
            .args(["--bind", "127.0.0.1"])
            .args(["--admin", &admin.to_string()])
            .args(["--log-format", "json"])
            .args(&launch.arguments);
        Self::spawn(command, scratch, address, admin, "/readyz").await
    }

    /// Runs with a configuration file and its secrets; its listener has this port.
    pub async fn run_config(config: &Path, secrets_dir: &Path, port: u16) -> Result<Self> {
        Self::run_config_with(config, secrets_dir, port, &[]).await
    }

    /// The same with further arguments.
    pub async fn run_config_with(
        config: &Path,
        secrets_dir: &Path,
        port: u16,
        arguments: &[String],
    ) -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut command = Command::new(binary()?);
        command
            .arg("run")
            .arg("--config")
            .arg(config)
            .arg("--secrets-dir")
            .arg(secrets_dir)
            .args(["--bind", "127.0.0.1"])
            .args(["--admin", &admin.to_string()])
            .args(["--log-format", "json"])
            .args(arguments);
        Self::spawn(command, Scratch::new()?, address, admin, "/readyz").await
    }

    async fn spawn(
        mut command: Command,
        scratch: Scratch,
        address: SocketAddr,
        admin: SocketAddr,
        ready: &str,
    ) -> Result<Self> {
        // Nothing but this process must answer on the port.
        ensure!(is_free(address), "{address} is in use");
        let mut child = command
            .current_dir(scratch.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{command:?}"))?;
        let log = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take(), &log);
        collect(child.stderr.take(), &log);
        let mut sluice = Self {
            child,
            address,
            admin,
            scratch,
            log,
        };
        sluice.wait_ready(ready).await?;
        Ok(sluice)
    }

    async fn wait_ready(&mut self, path: &str) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                // The reader threads may still be busy with the last lines.
                sleep(Duration::from_millis(200)).await;
                bail!("ended at start with {status}: {}", self.log_text());
            }
            if http::get(self.admin, path)
                .await
                .is_ok_and(|answer| answer.status == 200)
            {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "not ready after {START_TIMEOUT:?}: {}",
                self.log_text()
            );
            sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn url(&self) -> String {
        format!("ws://{}/connection/websocket", self.address)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Connects a raw client.
    pub async fn client(&self, token: &str) -> Result<Client> {
        Ok(Client::connect(self.address, token).await?.0)
    }

    /// Replaces the manifest's file.
    pub fn rewrite(&self, manifest: &Manifest) -> Result<()> {
        self.rewrite_text(&manifest.render(self.address.port()))
    }

    pub fn rewrite_text(&self, text: &str) -> Result<()> {
        self.scratch.write("gateway.yaml", text).map(drop)
    }

    /// Sends a signal by name (`TERM`).
    pub fn signal(&self, name: &str) -> Result<()> {
        let status = Command::new("sh")
            .args(["-c", &format!("kill -{name} {}", self.pid())])
            .status()?;
        ensure!(status.success(), "kill -{name} {} failed", self.pid());
        Ok(())
    }

    /// Kills it as `kill -9` does and waits until it is gone.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for the process to end by itself.
    pub async fn ended(&mut self, within: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "still running after {within:?}: {}",
                self.log_text()
            );
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether the process runs.
    pub fn alive(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    pub fn log_text(&self) -> String {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .join("\n")
    }

    /// Waits until a log line holds all of these words.
    pub async fn logged(&self, words: &[&str], within: Duration) -> Result<String> {
        let deadline = Instant::now() + within;
        loop {
            let found = {
                let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
                log.iter()
                    .find(|line| words.iter().all(|word| line.contains(word)))
                    .cloned()
            };
            if let Some(line) = found {
                return Ok(line);
            }
            ensure!(
                Instant::now() < deadline,
                "no log line with {words:?} in {within:?}: {}",
                self.log_text()
            );
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The metrics page.
    pub async fn metrics(&self) -> Result<String> {
        let answer = http::get(self.admin, "/metrics").await?;
        ensure!(answer.status == 200, "metrics: {}", answer.status);
        Ok(answer.text())
    }

    /// The sum of a metric over its labels; `None` when it is not there.
    pub async fn metric(&self, name: &str) -> Result<Option<f64>> {
        let page = self.metrics().await?;
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let value = match rest.strip_prefix('{') {
                Some(labelled) => labelled.rsplit_once('}')?.1,
                None => rest.strip_prefix(' ')?,
            };
            value.split_whitespace().next()?.parse::<f64>().ok()
        });
        Ok(values.reduce(|a, b| a + b))
    }
}

impl Drop for Sluice {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let log = self.log_text();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            for line in tail.iter().rev() {
                eprintln!("server log: {line}");
            }
        }
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>, log: &Arc<Mutex<Vec<String>>>) {
    let Some(pipe) = pipe else { return };
    let log = Arc::clone(log);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            log.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(line);
        }
    });
}
