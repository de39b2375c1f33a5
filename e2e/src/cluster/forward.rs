//! `kubectl port-forward`, for as long as it is held.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Inner;

const START_TIMEOUT: Duration = Duration::from_secs(30);

/// A port of this machine that leads into the cluster. Ends when dropped.
#[derive(Debug)]
pub struct Forward {
    child: Child,
    pub address: SocketAddr,
}

impl Forward {
    /// `target` is like `pod/name` or `service/name`.
    pub(super) fn start(inner: &Inner, namespace: &str, target: &str, port: u16) -> Result<Self> {
        let port = format!(":{port}");
        let arguments = ["--namespace", namespace, "port-forward", target, &port];
        let mut child = inner
            .kubectl
            .command(&arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take().context("stdout is piped")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            // Read to its end, so that it never waits for us.
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let mut forward = Self {
            child,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
        };
        let line = lines
            .recv_timeout(START_TIMEOUT)
            .with_context(|| format!("port-forward to {target} does not start"))?;
        forward.address = address(&line).with_context(|| line.clone())?;
        Ok(forward)
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of `Forwarding from 127.0.0.1:35001 -> 80`.
fn address(line: &str) -> Option<SocketAddr> {
    let rest = line.strip_prefix("Forwarding from ")?;
    rest.split(" -> ").next()?.parse().ok()
}
