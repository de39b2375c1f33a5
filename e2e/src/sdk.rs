//! The official SDKs in real use: prepares them once and runs scripts that speak JSON lines.
//!
//! `e2e/sdk/setup.sh` does the preparing; what it makes lies under `target/sdk` and is used by all tests.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::sluice::{root, target};

/// Where the prepared SDKs are.
#[derive(Debug, Clone)]
pub struct Sdks {
    directory: PathBuf,
}

impl Sdks {
    /// Prepares the SDKs if that was not done yet.
    pub fn prepare() -> Result<Self> {
        static PREPARED: OnceLock<Result<Sdks, String>> = OnceLock::new();
        PREPARED
            .get_or_init(|| Self::set_up().map_err(|e| format!("{e:#}")))
            .clone()
            .map_err(anyhow::Error::msg)
    }

    fn set_up() -> Result<Self> {
        let directory = target().join("sdk");
        let output = Command::new("bash")
            .arg(root().join("e2e/sdk/setup.sh"))
            .arg(&directory)
            .output()?;
        ensure!(
            output.status.success(),
            "e2e/sdk/setup.sh: {}",
            describe(&output)
        );
        Ok(Self {
            directory: directory.canonicalize()?,
        })
    }

    pub fn python(&self) -> PathBuf {
        self.directory.join("venv/bin/python")
    }

    /// The unpacked source of the Python SDK, with its `tests`.
    pub fn python_suite(&self) -> PathBuf {
        self.directory.join("python-suite")
    }

    /// A directory whose `node_modules` holds the JavaScript SDK.
    pub fn node(&self) -> PathBuf {
        self.directory.join("node")
    }

    /// Starts a Python script of the repository.
    pub fn start_python(&self, script: &str, arguments: &[&str]) -> Result<Script> {
        let mut command = Command::new(self.python());
        command.arg(root().join(script)).args(arguments);
        Script::start(command)
    }

    /// Starts a Node script of the repository, from a copy beside the packages it imports.
    pub fn start_node(&self, script: &str, arguments: &[&str]) -> Result<Script> {
        let source = root().join(script);
        let name = Path::new(script)
            .file_name()
            .context("a script has a name")?;
        let copy = self.node().join(name);
        // Tests run in parallel: nobody must see half a file.
        let partial = self
            .node()
            .join(format!(".{:08x}.partial", fastrand::u32(..)));
        std::fs::copy(&source, &partial).with_context(|| source.display().to_string())?;
        std::fs::rename(&partial, &copy)?;
        let mut command = Command::new("node");
        command.arg(copy).args(arguments);
        Script::start(command)
    }
}

pub fn describe(output: &Output) -> String {
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    format!("{}\n{out}\n{err}", output.status)
}

/// A running script. Killed when dropped.
pub struct Script {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    seen: VecDeque<String>,
    errors: Arc<Mutex<String>>,
}

impl Script {
    pub fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("{command:?}"))?;
        let (sender, lines) = channel();
        let errors = Arc::new(Mutex::new(String::new()));
        let stdout = child.stdout.take().context("stdout is piped")?;
        std::thread::spawn(move || forward(BufReader::new(stdout), &sender));
        let stderr = child.stderr.take().context("stderr is piped")?;
        let kept = Arc::clone(&errors);
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                kept.push_str(&line);
                kept.push('\n');
            }
        });
        let stdin = child.stdin.take();
        Ok(Self {
            child,
            stdin,
            lines,
            seen: VecDeque::new(),
            errors,
        })
    }

    /// Types a line.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("stdin was closed")?;
        writeln!(stdin, "{line}")?;
        Ok(stdin.flush()?)
    }

    /// Ends the script's input.
    pub fn finish(&mut self) {
        self.stdin = None;
    }

    /// The next line that fits; lines before it are kept for other questions.
    pub fn line(&mut self, within: Duration, fits: impl Fn(&str) -> bool) -> Result<String> {
        if let Some(at) = self.seen.iter().position(|line| fits(line)) {
            return self.seen.remove(at).context("just seen");
        }
        let deadline = Instant::now() + within;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) if fits(&line) => return Ok(line),
                Ok(line) => self.seen.push_back(line),
                Err(reason) => {
                    let ended = matches!(reason, RecvTimeoutError::Disconnected);
                    bail!(
                        "the line awaited did not come ({}); printed {:?}, errors: {}",
                        if ended { "script ended" } else { "timeout" },
                        self.seen,
                        self.errors()
                    )
                }
            }
        }
    }

    /// The next JSON line whose member `event` has this value.
    pub fn event(&mut self, event: &str, within: Duration) -> Result<Value> {
        let parsed = |line: &str| serde_json::from_str::<Value>(line).ok();
        let line = self
            .line(within, |line| {
                parsed(line).is_some_and(|value| value["event"] == event)
            })
            .with_context(|| format!("event {event}"))?;
        Ok(serde_json::from_str(&line)?)
    }

    /// All lines printed and not yet taken, after waiting.
    pub fn rest(&mut self, quiet: Duration) -> Vec<String> {
        while let Ok(line) = self.lines.recv_timeout(quiet) {
            self.seen.push_back(line);
        }
        self.seen.drain(..).collect()
    }

    /// Waits for the end; a failure shows what was printed to stderr.
    pub fn succeed(mut self, within: Duration) -> Result<Vec<String>> {
        self.finish();
        let deadline = Instant::now() + within;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            ensure!(
                Instant::now() < deadline,
                "script still running after {within:?}: {}",
                self.errors()
            );
            std::thread::sleep(Duration::from_millis(20));
        };
        let lines = self.rest(Duration::from_millis(200));
        ensure!(
            status.success(),
            "script ended with {status}: {lines:?}\n{}",
            self.errors()
        );
        Ok(lines)
    }

    fn errors(&self) -> String {
        self.errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn forward(reader: impl BufRead, lines: &Sender<String>) {
    for line in reader.lines().map_while(Result::ok) {
        if lines.send(line).is_err() {
            return;
        }
    }
}
