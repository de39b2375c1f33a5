//! One `redis-server` process: its port, directory, configuration and log.

use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::protocol::{CallError, Connection, Resp};
use super::{Options, Tls};
use crate::ports::{Ports, is_free};
use crate::sluice::Scratch;

/// Redis is up in milliseconds; a busy machine and a long append-only file take longer.
const START_TIMEOUT: Duration = Duration::from_secs(20);
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a server may take to end in good order before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Other test programs look for ports at the same time.
const ATTEMPTS: usize = 20;

/// The bus of a node is 10,000 above its port. Both ranges are apart from those of this project's other servers
/// and below the kernel's for outgoing connections.
static PORTS: Ports = Ports::new(4_000, 4_000);
const BUS: u16 = 10_000;

/// The user as which the harness and replicas speak where others need a password.
const HARNESS: &str = "harness";

/// Killed when dropped.
pub struct RedisServer {
    port: u16,
    scratch: Scratch,
    tls: Option<Tls>,
    /// The harness's password, when users are told apart.
    password: Option<String>,
    child: Mutex<Child>,
    paused: AtomicBool,
}

impl RedisServer {
    /// Starts a server and waits until it answers.
    pub async fn start(options: Options) -> Result<Self> {
        Self::launch(&options, None).await
    }

    /// With `cluster`, the password of the harness in all of its nodes.
    pub(super) async fn launch(options: &Options, cluster: Option<&str>) -> Result<Self> {
        for _ in 0..ATTEMPTS {
            let port = free_port(cluster.is_some())?;
            let scratch = Scratch::new()?;
            let own = format!("{:016x}", fastrand::u64(..));
            let guarded = options.password.is_some() || !options.users.is_empty();
            let password = guarded.then(|| cluster.unwrap_or(&own).to_owned());
            configure(
                &scratch,
                port,
                options,
                password.as_deref(),
                cluster.is_some(),
            )?;
            let child = spawn(&scratch)?;
            let server = Self {
                port,
                scratch,
                tls: options.tls.clone(),
                password,
                child: Mutex::new(child),
                paused: AtomicBool::new(false),
            };
            match server.wait_ready().await {
                Ok(()) => return Ok(server),
                Err(_) if server.log().contains("Address already in use") => {}
                Err(error) => return Err(error),
            }
        }
        bail!("no free port for redis-server after {ATTEMPTS} attempts")
    }

    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Without a user or password.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() {
            "rediss"
        } else {
            "redis"
        };
        format!("{scheme}://{}", self.address())
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child().id()
    }

    /// Whether the process exists and is not paused.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.paused.load(Ordering::Relaxed) && self.ended().is_none()
    }

    /// Kills it as `kill -9` does and waits until it is gone.
    pub fn kill(&self) -> Result<()> {
        let mut child = self.child();
        child.kill()?;
        child.wait()?;
        self.paused.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Stops the process where it is (SIGSTOP): its sockets stay open and nobody answers.
    pub fn pause(&self) -> Result<()> {
        self.signal(Signal::STOP)?;
        self.paused.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)?;
        self.paused.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Starts it again on its port with its data, after ending it in good order if it runs.
    pub async fn restart(&self) -> Result<()> {
        if self.is_running() {
            self.signal(Signal::TERM)?;
            let deadline = Instant::now() + STOP_TIMEOUT;
            while self.ended().is_none() && Instant::now() < deadline {
                sleep(Duration::from_millis(5)).await;
            }
        }
        self.kill()?;
        *self.child() = spawn(&self.scratch)?;
        self.wait_ready().await
    }

    /// Sends one command over a connection of its own.
    pub async fn call(&self, words: &[&str]) -> Result<Resp, CallError> {
        timeout(CALL_TIMEOUT, async {
            let mut connection = self.connect().await?;
            if let Some(password) = &self.password {
                connection.call(&["AUTH", HARNESS, password]).await?;
            }
            connection.call(words).await
        })
        .await
        .unwrap_or(Err(CallError::Timeout))
    }

    /// What the server has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.scratch.path().join("redis.log")).unwrap_or_default()
    }

    pub(super) fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    async fn connect(&self) -> Result<Connection, CallError> {
        let tcp = TcpStream::connect(self.address()).await?;
        tcp.set_nodelay(true)?;
        let Some(tls) = &self.tls else {
            return Ok(Connection::new(Box::new(tcp)));
        };
        let connector = tls.connector().map_err(io::Error::other)?;
        let name = ServerName::from(self.address().ip());
        let stream = connector.connect(name, tcp).await?;
        Ok(Connection::new(Box::new(stream)))
    }

    async fn wait_ready(&self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.ended() {
                bail!("redis-server ended at start with {status}:\n{}", self.log());
            }
            let error = match self.call(&["PING"]).await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            ensure!(
                Instant::now() < deadline,
                "redis-server is not ready after {START_TIMEOUT:?}: {error}\n{}",
                self.log_tail()
            );
            sleep(Duration::from_millis(5)).await;
        }
    }

    fn ended(&self) -> Option<ExitStatus> {
        self.child().try_wait().ok().flatten()
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        ensure!(self.ended().is_none(), "redis {} is not running", self.port);
        let pid = Pid::from_raw(i32::try_from(self.pid())?).context("a pid is positive")?;
        Ok(kill_process(pid, signal)?)
    }

    fn child(&self) -> MutexGuard<'_, Child> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            eprintln!("redis {} may still run: {error}", self.port);
        }
    }
}

fn free_port(with_bus: bool) -> Result<u16> {
    let free = |port: u16| is_free((Ipv4Addr::LOCALHOST, port).into());
    PORTS.next(|port| free(port) && (!with_bus || free(port + BUS)))
}

fn spawn(scratch: &Scratch) -> Result<Child> {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(scratch.path().join("redis.log"))?;
    Command::new("redis-server")
        .arg("redis.conf")
        .current_dir(scratch.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("redis-server does not start; ./test.sh installs it")
}

/// Writes the configuration and the certificates.
fn configure(
    scratch: &Scratch,
    port: u16,
    options: &Options,
    password: Option<&str>,
    cluster: bool,
) -> Result<()> {
    let mut text = String::from(
        "daemonize no\nbind 127.0.0.1\nprotected-mode no\nsave \"\"\nrepl-diskless-sync-delay 0\n",
    );
    let (plain, tls) = match options.tls {
        Some(_) => (0, port),
        None => (port, 0),
    };
    writeln!(text, "port {plain}\ntls-port {tls}")?;
    if options.append_only {
        text.push_str("appendonly yes\nappendfsync always\n");
    } else {
        text.push_str("appendonly no\n");
    }
    if cluster {
        text.push_str("cluster-enabled yes\ncluster-require-full-coverage no\n");
        // A replica that got no time for long takes over all the same.
        text.push_str("cluster-replica-validity-factor 0\n");
        writeln!(text, "cluster-node-timeout {}", options.node_timeout_ms)?;
    }
    if let Some(tls) = &options.tls {
        scratch.write("ca.pem", &tls.ca)?;
        scratch.write("server.pem", &tls.server_certificate)?;
        scratch.write("server.key", &tls.server_key)?;
        let clients = if tls.client_required { "yes" } else { "no" };
        writeln!(
            text,
            "tls-ca-cert-file ca.pem\ntls-cert-file server.pem\ntls-key-file server.key\n\
             tls-auth-clients {clients}\ntls-cluster yes\ntls-replication yes"
        )?;
    }
    if let Some(password) = password {
        writeln!(text, "user {HARNESS} on >{password} ~* &* +@all")?;
        writeln!(text, "masteruser {HARNESS}\nmasterauth {password}")?;
    }
    if let Some(password) = &options.password {
        writeln!(text, "requirepass {password}")?;
    }
    for user in &options.users {
        let password = match &user.password {
            Some(password) => format!(">{password}"),
            None => "nopass".to_owned(),
        };
        writeln!(text, "user {} on {password} {}", user.name, user.rules)?;
    }
    for (directive, arguments) in &options.extra {
        writeln!(text, "{directive} {arguments}")?;
    }
    scratch.write("redis.conf", &text)?;
    Ok(())
}
