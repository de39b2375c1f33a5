//! Data planes that attend a manager, as pods do: each has a name, and the manager is told which of them exist.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::ports::free_port;
use crate::sluice::{Scratch, Sluice, run};
use crate::upstream::handle::binary;

/// A debug build on a busy machine is there well before this.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A fleet and its manager. Both can be killed.
pub struct Managed {
    /// By the name of the pod.
    pub planes: BTreeMap<String, Sluice>,
    /// The manifest for a port.
    render: Box<dyn Fn(u16) -> String + Send + Sync>,
    manager: Option<Child>,
    listen: SocketAddr,
    arguments: Vec<String>,
    scratch: Scratch,
    started: usize,
}

impl Managed {
    /// A manager with these further arguments, and no data plane. `replicas`: the most that there will be.
    pub async fn start(
        replicas: usize,
        arguments: &[&str],
        render: impl Fn(u16) -> String + Send + Sync + 'static,
    ) -> Result<Self> {
        let render = move |port| with_replicas(&render(port), replicas);
        let mut fleet = Self {
            planes: BTreeMap::new(),
            render: Box::new(render),
            manager: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)),
            arguments: arguments.iter().map(|word| (*word).to_owned()).collect(),
            scratch: Scratch::new()?,
            started: 0,
        };
        fleet.tell_pods()?;
        fleet.start_manager().await?;
        Ok(fleet)
    }

    /// Starts a manager, the first one or the next.
    pub async fn start_manager(&mut self) -> Result<()> {
        let (config, secrets) = self.written("manager", free_port()?)?;
        let mut command = Command::new(binary("sluice-e2e")?);
        command
            .arg("manager")
            .args(["--listen", &self.listen.to_string()])
            .arg("--config")
            .arg(config)
            .arg("--secrets-dir")
            .arg(secrets)
            .arg("--pods")
            .arg(self.scratch.path().join("pods"))
            .args(&self.arguments)
            .stdin(Stdio::null());
        let child = command.spawn().with_context(|| format!("{command:?}"))?;
        let child = self.manager.insert(child);
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(self.listen).await.is_err() {
            let ended = child.try_wait()?;
            ensure!(
                ended.is_none() && Instant::now() < deadline,
                "the manager does not start: {ended:?}"
            );
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// `kill -9`.
    pub fn kill_manager(&mut self) -> Result<()> {
        if let Some(mut manager) = self.manager.take() {
            manager.kill()?;
            manager.wait()?;
        }
        Ok(())
    }

    /// Starts one more data plane; returns its name.
    pub async fn add(&mut self) -> Result<String> {
        self.started += 1;
        let name = format!("front-{}", self.started);
        let port = free_port()?;
        let (config, secrets) = self.written(&name, port)?;
        let arguments = [
            "--manager".to_owned(),
            format!("http://{}", self.listen),
            "--pod".to_owned(),
            name.clone(),
            "--cpu-request".to_owned(),
            "1".to_owned(),
        ];
        // Kubernetes knows of a pod before it runs.
        self.tell_pods_and(Some(&name))?;
        let sluice = Sluice::run_config_with(&config, &secrets, port, &arguments).await?;
        self.planes.insert(name.clone(), sluice);
        Ok(name)
    }

    /// `kill -9`; its pod is gone for good.
    pub fn kill(&mut self, name: &str) -> Result<()> {
        let mut sluice = self.planes.remove(name).context("no such data plane")?;
        sluice.kill()?;
        self.tell_pods()
    }

    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.planes.values().map(|plane| plane.address).collect()
    }

    /// Until all of them attend the manager.
    pub async fn attended(&self, within: Duration) -> Result<()> {
        let deadline = Instant::now() + within;
        for (name, plane) in &self.planes {
            while plane.metric("sluice_fleet_connected").await? != Some(1.0) {
                ensure!(Instant::now() < deadline, "{name} attends no manager");
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }

    fn tell_pods(&self) -> Result<()> {
        self.tell_pods_and(None)
    }

    fn tell_pods_and(&self, starting: Option<&str>) -> Result<()> {
        let known = self.planes.keys().map(String::as_str);
        let names: Vec<&str> = known.chain(starting).collect();
        self.scratch.write("pods", &names.join("\n")).map(drop)
    }

    /// The configuration and secrets of a process whose listener has this port.
    fn written(&self, name: &str, port: u16) -> Result<(PathBuf, PathBuf)> {
        let manifest = self
            .scratch
            .write(&format!("{name}.yaml"), &(self.render)(port))?;
        let dir = self.scratch.path().join(name);
        let words = [manifest.display().to_string(), dir.display().to_string()];
        let output = run(&["check", &words[0], "--write", &words[1]])?;
        ensure!(output.status.success(), "{output:?}");
        Ok((dir.join("config.json"), dir.join("secrets")))
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        let _ = self.kill_manager();
    }
}

/// The manifest of a gateway with so many data planes.
fn with_replicas(text: &str, replicas: usize) -> String {
    let documents = text.split("---\n").map(|document| {
        let mut document: Value = serde_json::from_str(document).expect("manifests are JSON here");
        if document["kind"] == "Gateway" {
            document["spec"]["dataPlane"]["scaling"] = json!({ "replicas": replicas });
        }
        format!("{document:#}\n")
    });
    documents.collect::<Vec<_>>().join("---\n")
}
