//! A machine of the cluster: namespaces of its own (network, mounts, processes, name) around one init process.
//!
//! Nothing in it outlives the init process, and what it mounts or links exists in there only: stopping it is a kill, and
//! leaves a control group to remove and files. The init process may outlive the harness.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::cgroup;
use super::folders::write;
use super::process::Process;

/// Making namespaces takes milliseconds.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// As the scripts know it.
const NETWORK: &str = "network";

const COMMON: &str = include_str!("../../cluster/common.sh");

/// Joins the control group before it does anything else, so that nothing it starts can be missed.
const ENTER: &str = r#"echo $$ >"$1" || exit 1; shift; exec "$@""#;

pub(super) struct Space {
    folder: PathBuf,
    cgroup: String,
}

#[derive(Serialize, Deserialize)]
struct Running {
    /// Made the namespaces, and takes the init process with it when it ends.
    outer: Process,
    init: Process,
}

impl Space {
    pub(super) fn new(folder: PathBuf, cgroup: String) -> Self {
        Self { folder, cgroup }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its init process, if it runs.
    pub(super) fn init(&self) -> Option<Process> {
        let bytes = std::fs::read(self.folder.join("process.json")).ok()?;
        let running: Running = serde_json::from_slice(&bytes).ok()?;
        (running.init.is_alive() && running.outer.is_alive()).then_some(running.init)
    }

    /// Whether its start was gone through with: one that was broken off has an init process that waits for ever.
    pub(super) fn is_started(&self) -> bool {
        self.init().is_some() && self.folder.join(NETWORK).exists()
    }

    /// Tells the init process that its links are there, which ends its start.
    pub(super) fn tell_network(&self) -> Result<()> {
        self.tell(NETWORK)
    }

    /// Starts `script` as its init process; what ran of it before has been stopped.
    pub(super) fn start(
        &self,
        script: &str,
        environment: &[(&str, &dyn AsRef<std::ffi::OsStr>)],
    ) -> Result<Process> {
        write(&self.folder.join("common.sh"), COMMON)?;
        let script_path = self.folder.join("init.sh");
        write(&script_path, script)?;
        for folder in ["logs", "running", "held"] {
            std::fs::create_dir_all(self.folder.join(folder))?;
        }
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.folder.join("logs/init.log"))?;
        let members = cgroup::create(&format!("{}/system", self.cgroup))?;
        let mut command = Command::new("sh");
        command
            .args(["-c", ENTER, "sh"])
            .arg(members)
            .args(["setsid", "unshare", "--mount", "--uts", "--ipc", "--net"])
            .args(["--pid", "--fork", "--kill-child", "--mount-proc"])
            .args(["--propagation", "private", "sh"])
            .arg(&script_path)
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("HOME", &self.folder)
            .env("FOLDER", &self.folder)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        for (name, value) in environment {
            command.env(name, value.as_ref());
        }
        let mut child = command.spawn().context("sh")?;
        let running = self.wait_started(child.id());
        // A test program lives longer than a node it kills: somebody has to take the dead process's status.
        std::thread::spawn(move || child.wait());
        let running = running?;
        write(
            &self.folder.join("process.json"),
            serde_json::to_vec(&running)?,
        )?;
        Ok(running.init)
    }

    fn wait_started(&self, pid: u32) -> Result<Running> {
        let deadline = Instant::now() + START_TIMEOUT;
        let own = std::fs::read_link("/proc/self/ns/net")?;
        loop {
            let outer = Process::of(pid).filter(|outer| outer.is_alive());
            let Some(outer) = outer else {
                bail!("no namespaces: {}", self.log("init"));
            };
            if let Some(init) = outer.child()
                && std::fs::read_link(format!("/proc/{}/ns/net", init.pid))
                    .is_ok_and(|net| net != own)
            {
                return Ok(Running { outer, init });
            }
            ensure!(
                Instant::now() < deadline,
                "no namespaces after {START_TIMEOUT:?}: {}",
                self.log("init")
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Tells the init process that something it waits for is there.
    pub(super) fn tell(&self, what: &str) -> Result<()> {
        write(&self.folder.join(what), "")
    }

    /// Kills it with everything in it.
    pub(super) fn stop(&self) -> Result<()> {
        let path = self.folder.join("process.json");
        if let Some(running) = std::fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Running>(&bytes).ok())
        {
            running.init.kill();
            running.outer.kill();
            running.init.wait_gone()?;
            running.outer.wait_gone()?;
        }
        cgroup::sweep(&self.cgroup)?;
        for name in ["process.json", NETWORK, "api"] {
            let _ = std::fs::remove_file(self.folder.join(name));
        }
        Ok(())
    }

    /// The end of one of its logs.
    pub(super) fn log(&self, name: &str) -> String {
        let path = self.folder.join(format!("logs/{name}.log"));
        let text = std::fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}
