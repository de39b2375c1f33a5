//! nginx that answers every request with 200 and does nothing: what an HTTP server can do at best here.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::bench::process;
use crate::ports::free_port;

const PATIENCE: Duration = Duration::from_secs(10);
const PROGRAM: &str = "/usr/sbin/nginx";

/// A running nginx.
pub struct Nginx {
    master: Child,
    pub address: SocketAddr,
}

impl Nginx {
    /// Whether it is installed.
    #[must_use]
    pub fn is_there() -> bool {
        Path::new(PROGRAM).exists()
    }

    /// Starts it with so many workers and its files in `folder`.
    pub fn start(folder: &Path, workers: usize) -> Result<Self> {
        let folder = folder.join("nginx");
        fs::create_dir_all(&folder)?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let config = folder.join("nginx.conf");
        fs::write(&config, text(address, workers, &folder))?;
        let log = File::create(folder.join("log"))?;
        let master = Command::new(PROGRAM)
            .arg("-p")
            .arg(&folder)
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let nginx = Self { master, address };
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_err() || nginx.workers()?.len() < workers {
            ensure!(
                Instant::now() < deadline,
                "nginx does not start: see {}",
                folder.display()
            );
            sleep(Duration::from_millis(20));
        }
        Ok(nginx)
    }

    fn workers(&self) -> Result<Vec<u32>> {
        process::children(self.master.id())
    }

    /// CPU seconds of all its workers.
    pub fn cpu_seconds(&self) -> Result<f64> {
        self.workers()?.into_iter().map(process::cpu_seconds).sum()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master must be asked, or its workers stay.
        let _ = process::terminate(self.master.id());
        let _ = self.master.wait();
    }
}

fn text(address: SocketAddr, workers: usize, folder: &Path) -> String {
    format!(
        "daemon off;
worker_processes {workers};
pid {folder}/pid;
error_log {folder}/error.log error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen {address} backlog=4096;
    default_type application/json;
    location / {{ return 200 '{{\"result\":\"Success\"}}'; }}
  }}
}}
",
        folder = folder.display()
    )
}
