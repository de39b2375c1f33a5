//! The servers compared, each started with settings of equal meaning and stopped by process id.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use serde::Serialize;
use serde_json::json;

use super::{floor, process};
use crate::load::dialect::Dialect;
use crate::ports::free_port;

/// How long a server may take to listen, or to end after SIGTERM before it is killed.
const PATIENCE: Duration = Duration::from_secs(15);
/// Largest message all servers are told to take: more than any case sends.
const MESSAGE_BYTES: usize = 256 * 1024;

/// A server this benchmark knows to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// This project's, from the release build.
    Sluice,
    /// The binary `CENTRIFUGO` names.
    Centrifugo,
    /// nginx with Debian's libnginx-mod-nchan, one worker.
    Nchan,
    /// No server but `limit.c`, which fans out and does nothing else, with a thread per core: what no server's
    /// latency can be below. It stands messages at a rate, not floods.
    #[value(skip)]
    Limit,
}

/// Settings that differ between cases.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Where it keeps its state: a URL, `redis://` with one server, or with the nodes of a cluster.
    pub redis: Option<String>,
    /// Channels have a server list.
    pub presence: bool,
    /// Over how many seconds a stopping server closes its connections.
    pub drain_seconds: u32,
    /// What the server is told to stay under, if it can be told.
    pub memory_limit_bytes: Option<u64>,
}

/// A running server.
pub struct Server {
    /// Which.
    pub kind: Kind,
    /// The process that does the work: what is measured.
    pub pid: u32,
    /// Where clients connect.
    pub address: SocketAddr,
    child: Child,
}

impl Kind {
    /// All that can be asked for, in the order of the tables.
    pub const ALL: [Self; 3] = [Self::Sluice, Self::Centrifugo, Self::Nchan];

    /// What its clients speak.
    #[must_use]
    pub fn dialect(self) -> Dialect {
        match self {
            Self::Sluice | Self::Centrifugo => Dialect::Centrifugo,
            Self::Nchan | Self::Limit => Dialect::Nchan,
        }
    }

    /// Whether it can.
    #[must_use]
    pub fn keeps_state_in_redis(self) -> bool {
        matches!(self, Self::Sluice | Self::Centrifugo)
    }

    /// Its program, when it is installed; `Limit` is built when it is started.
    #[must_use]
    pub fn program(self) -> Option<PathBuf> {
        let program = match self {
            Self::Limit => return None,
            Self::Sluice => std::env::current_exe().ok()?.with_file_name("sluice"),
            Self::Centrifugo => PathBuf::from(std::env::var_os("CENTRIFUGO")?),
            Self::Nchan => {
                let module = Path::new("/usr/lib/nginx/modules/ngx_nchan_module.so");
                module.exists().then(|| PathBuf::from("/usr/sbin/nginx"))?
            }
        };
        program.exists().then_some(program)
    }

    /// Starts it with its files in `folder` and waits until it listens.
    pub fn start(self, folder: &Path, needs: Needs) -> Result<Server> {
        let folder = folder.join(format!("{self:?}").to_lowercase());
        fs::create_dir_all(&folder)?;
        let program = match self {
            Self::Limit => floor::compile(&folder, "limit")?,
            Self::Sluice | Self::Centrifugo | Self::Nchan => self
                .program()
                .with_context(|| format!("{self:?} is not installed"))?,
        };
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let mut command = Command::new(program);
        match self {
            Self::Sluice => {
                let manifest = folder.join("gateway.yaml");
                fs::write(&manifest, sluice_manifest(address.port(), &needs))?;
                command.arg("standalone").arg(manifest).args([
                    "--bind",
                    "127.0.0.1",
                    "--log-level",
                    "warn",
                ]);
                command.args(["--admin", &format!("127.0.0.1:{}", free_port()?)]);
                if let Some(bytes) = needs.memory_limit_bytes {
                    command.args(["--memory-limit", &bytes.to_string()]);
                }
            }
            Self::Centrifugo => {
                let config = folder.join("config.json");
                fs::write(
                    &config,
                    centrifugo_config(address.port(), &needs).to_string(),
                )?;
                command.arg("--config").arg(config);
            }
            Self::Nchan => {
                let config = folder.join("nginx.conf");
                fs::write(&config, nchan_config(address.port(), &folder))?;
                command.arg("-p").arg(&folder).arg("-c").arg(config);
            }
            Self::Limit => {
                let threads = available_parallelism()?.to_string();
                command.args([address.port().to_string(), threads]);
            }
        }
        let log = File::create(folder.join("log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .env_remove("CENTRIFUGO");
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {self:?}"))?;
        let mut server = Server {
            kind: self,
            pid: child.id(),
            address,
            child,
        };
        server
            .wait_until_listening()
            .with_context(|| format!("see {}", folder.join("log").display()))?;
        Ok(server)
    }
}

impl Server {
    fn wait_until_listening(&mut self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(self.address).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{:?} ended at once: {status}", self.kind);
            }
            if Instant::now() > deadline {
                bail!("{:?} does not listen on {}", self.kind, self.address);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        // The master listens before it has its one worker; the worker serves, so the worker is measured.
        while self.kind == Kind::Nchan && self.pid == self.child.id() {
            if Instant::now() > deadline {
                bail!("nginx has no worker");
            }
            std::thread::sleep(Duration::from_millis(20));
            self.pid = process::children(self.child.id())?
                .first()
                .copied()
                .unwrap_or(self.pid);
        }
        Ok(())
    }

    /// Asks it to end and does not wait.
    pub fn terminate(&self) -> Result<()> {
        process::terminate(self.child.id())
    }

    /// Waits for its end; its exit status, or none when it had to be killed.
    pub fn wait(&mut self, patience: Duration) -> Result<Option<i32>> {
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(None)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // A measured server need not drain: the case is over. nginx alone must be asked, or its worker stays.
        if self.kind == Kind::Nchan {
            let _ = self.terminate();
            let _ = self.wait(PATIENCE);
        } else {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn sluice_manifest(port: u16, needs: &Needs) -> String {
    let presence = if needs.presence {
        "Enabled"
    } else {
        "Disabled"
    };
    let redis = needs.redis.as_ref();
    let redis = redis.map_or_else(String::new, |url| {
        format!("  redis:\n    external:\n      url: {url}\n")
    });
    format!(
        "apiVersion: sluice.dev/v1alpha1
kind: Gateway
metadata:
  name: bench
spec:
  listeners:
    - name: clients
      port: {port}
  relay:
    authentication:
      anonymous: Allowed
    personalChannel: Disabled
    defaultNamespace:
      options:
        presence: {presence}
        allow: {{subscribe: Anyone, publish: Anyone, presence: Anyone}}
    limits:
      messageBytes: {MESSAGE_BYTES}
{redis}  dataPlane:
    drain:
      timeout: {}s
",
        needs.drain_seconds
    )
}

fn centrifugo_config(port: u16, needs: &Needs) -> serde_json::Value {
    let mut config = json!({
        "http_server": { "address": "127.0.0.1", "port": port.to_string() },
        "log": { "level": "error" },
        "client": { "allowed_origins": ["*"], "allow_anonymous_connect_without_token": true },
        "channel": { "without_namespace": {
            "presence": needs.presence,
            "allow_subscribe_for_client": true, "allow_subscribe_for_anonymous": true,
            "allow_publish_for_client": true, "allow_publish_for_anonymous": true,
            "allow_presence_for_client": needs.presence, "allow_presence_for_anonymous": needs.presence,
        } },
        "websocket": { "message_size_limit": MESSAGE_BYTES },
        "shutdown": { "timeout": format!("{}s", needs.drain_seconds.max(1)) },
    });
    if let Some(url) = &needs.redis {
        let nodes: Vec<&str> = url.trim_start_matches("redis://").split(',').collect();
        let redis = match nodes.as_slice() {
            [_] => json!({ "address": [url] }),
            nodes => json!({ "cluster_address": nodes }),
        };
        config["engine"] = json!({ "type": "redis", "redis": redis });
    }
    config
}

fn nchan_config(port: u16, folder: &Path) -> String {
    format!(
        "load_module /usr/lib/nginx/modules/ngx_nchan_module.so;
daemon off;
worker_processes 1;
worker_rlimit_nofile 20000;
pid {folder}/pid;
error_log {folder}/error.log error;
events {{ worker_connections 20000; }}
http {{
  access_log off;
  nchan_max_reserved_memory 1024M;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location ~ ^/pubsub/(\\w+)/(\\w+)$ {{
      nchan_pubsub websocket;
      nchan_subscriber_channel_id $1;
      nchan_publisher_channel_id $2;
      nchan_message_buffer_length 0;
      client_max_body_size {MESSAGE_BYTES};
    }}
  }}
}}
",
        folder = folder.display()
    )
}
