//! Runs the built operator for a test, beside the cluster, and stops it again.
//!
//! It reaches the API server as the cluster's administrator. The binary is built before its first start;
//! `SLUICE_OPERATOR_BIN` names another. `stage` has what its tests begin with, `audit` what the API server was asked.

pub mod audit;
pub mod pretend;
pub mod stage;

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::http;
use crate::ports::free_port;
use crate::sluice::{Scratch, build};

const START_TIMEOUT: Duration = Duration::from_secs(60);
const END_TIMEOUT: Duration = Duration::from_secs(20);

/// Killed when dropped.
#[derive(Debug)]
pub struct Operator {
    child: Child,
    log: PathBuf,
    _scratch: Scratch,
    pub admin: SocketAddr,
}

/// The binary under test, built if need be.
fn binary() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| match std::env::var_os("SLUICE_OPERATOR_BIN") {
        Some(path) => Ok(path.into()),
        None => build("sluice-operator", "sluice-operator").map_err(|error| format!("{error:#}")),
    });
    built.clone().map_err(anyhow::Error::msg)
}

impl Operator {
    /// Watches this namespace only; operators of one namespace share a lease in it. Returns when it has seen everything.
    pub async fn start(cluster: &Cluster, namespace: &str, arguments: &[&str]) -> Result<Self> {
        let watched = ["--watch-namespaces", namespace];
        let arguments = [&watched, arguments].concat();
        Self::start_with(cluster, namespace, &arguments).await
    }

    /// Watches all namespaces unless the arguments say otherwise; its lease is in this one.
    pub async fn start_with(
        cluster: &Cluster,
        namespace: &str,
        arguments: &[&str],
    ) -> Result<Self> {
        let scratch = Scratch::new()?;
        let log = scratch.path().join("log");
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let file = File::create(&log)?;
        let child = Command::new(binary()?)
            .env("KUBECONFIG", cluster.kubeconfig())
            .args(["--admin", &admin.to_string()])
            // Any port: no data plane finds it beside the cluster, and there are several of them.
            .args(["--fleet", "127.0.0.1:0"])
            .args(["--monitor", "127.0.0.1:0"])
            .args(["--namespace", namespace])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .context("the operator")?;
        let mut operator = Self {
            child,
            log,
            _scratch: scratch,
            admin,
        };
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if http::get(admin, "/readyz")
                .await
                .is_ok_and(|answer| answer.status == 200)
            {
                return Ok(operator);
            }
            let ended = operator.child.try_wait()?;
            ensure!(
                ended.is_none() && Instant::now() < deadline,
                "the operator does not start:\n{}",
                operator.log()
            );
            sleep(Duration::from_millis(100)).await;
        }
    }

    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it do nothing, as on a machine that is suspended.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on after a pause.
    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        Ok(kill_process(
            pid.context("a process has a number")?,
            signal,
        )?)
    }

    /// Ends it as Kubernetes does, and waits for its end.
    pub async fn stop(mut self) -> Result<()> {
        self.signal(Signal::TERM)?;
        let deadline = Instant::now() + END_TIMEOUT;
        while self.child.try_wait()?.is_none() {
            ensure!(
                Instant::now() < deadline,
                "the operator does not end:\n{}",
                self.log()
            );
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}
