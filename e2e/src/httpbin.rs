//! go-httpbin as an upstream that nobody here wrote, pinned by `e2e/httpbin/go.sum`.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use tokio::time::sleep;

use crate::ports::free_port;
use crate::{go_tool, http};

const START_TIMEOUT: Duration = Duration::from_secs(30);
const PACKAGE: &str = "github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin";

/// Killed when dropped.
pub struct Httpbin {
    child: Child,
    pub address: SocketAddr,
}

impl Httpbin {
    pub async fn start() -> Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let child = Command::new(go_tool::program("httpbin", PACKAGE)?)
            .args(["-host", &address.ip().to_string()])
            .args(["-port", &address.port().to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let httpbin = Self { child, address };
        let deadline = Instant::now() + START_TIMEOUT;
        while http::get(address, "/get").await.is_err() {
            ensure!(Instant::now() < deadline, "go-httpbin does not start");
            sleep(Duration::from_millis(10)).await;
        }
        Ok(httpbin)
    }

    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for Httpbin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
