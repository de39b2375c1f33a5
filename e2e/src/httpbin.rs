//! go-httpbin as an upstream that nobody here wrote: builds it once, pinned by `e2e/httpbin/go.sum`, and runs it.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::time::sleep;

use crate::http;
use crate::ports::free_port;
use crate::sdk::describe;
use crate::sluice::{root, target};

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
        let child = Command::new(program()?)
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

/// The program, built if need be.
fn program() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    BUILT
        .get_or_init(|| build().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(anyhow::Error::msg)
}

fn build() -> Result<PathBuf> {
    let folder = target().join("httpbin");
    std::fs::create_dir_all(&folder)?;
    // Several test programs may come here at a time.
    let lock = File::create(folder.join("lock"))?;
    lock.lock()?;
    let program = folder.canonicalize()?.join("go-httpbin");
    // Go's own cache makes this quick when there is nothing to do.
    let output = Command::new("go")
        .args(["build", "-mod=readonly", "-o"])
        .arg(&program)
        .arg(PACKAGE)
        .current_dir(root().join("e2e/httpbin"))
        .env("GOTOOLCHAIN", "local")
        .env("GOFLAGS", "")
        .output()
        .context("the end-to-end tests need Go; ./test.sh installs it")?;
    ensure!(output.status.success(), "go build: {}", describe(&output));
    Ok(program)
}
