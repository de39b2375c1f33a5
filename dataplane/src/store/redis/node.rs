//! One server: its links, made when they are needed and made anew when they died.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::limits::{RECONNECT_PAUSE_MAX, RECONNECT_PAUSE_MIN};
use super::link::{Fault, Hint, Link};
use super::metrics::Metrics;
use super::reply::Reply;
use super::settings::Settings;
use super::topology::Address;

pub(super) struct Node {
    /// For data.
    commands: Line,
    /// For questions about the cluster, which must not wait behind data.
    questions: Line,
    /// For writes whose replication is waited for: `WAIT` holds up what follows it on its connection.
    durable: Line,
    /// For slots on the move: `ASKING` and its command must follow each other.
    asking: Mutex<Option<Link>>,
    address: Address,
    settings: Arc<Settings>,
    runtime: Handle,
}

/// A link that is replaced when it is dead, by one caller at a time.
struct Line {
    current: RwLock<Option<Arc<Link>>>,
    making: Mutex<Backoff>,
}

#[derive(Default)]
struct Backoff {
    pause: Duration,
    not_before: Option<Instant>,
}

impl Node {
    pub(super) fn new(address: Address, settings: Arc<Settings>, runtime: Handle) -> Self {
        let line = || Line {
            current: RwLock::new(None),
            making: Mutex::default(),
        };
        Self {
            commands: line(),
            questions: line(),
            durable: line(),
            asking: Mutex::default(),
            address,
            settings,
            runtime,
        }
    }

    pub(super) async fn command(
        &self,
        command: &'static str,
        args: Vec<Bytes>,
        metrics: &Metrics,
    ) -> Result<Reply, Fault> {
        let link = self.link(&self.commands, metrics).await?;
        link.send(command, args).await
    }

    pub(super) async fn question(
        &self,
        command: &'static str,
        args: Vec<Bytes>,
        metrics: &Metrics,
    ) -> Result<Reply, Fault> {
        let link = self.link(&self.questions, metrics).await?;
        link.send(command, args).await
    }

    /// A write, and how many replicas have it then; waits for one of them no longer than `wait_ms`.
    pub(super) async fn durable(
        &self,
        command: &'static str,
        args: Vec<Bytes>,
        wait_ms: u64,
        metrics: &Metrics,
    ) -> Result<(Reply, i64), Fault> {
        let link = self.link(&self.durable, metrics).await?;
        let reply = link.send(command, args).await?;
        // It is done already: whatever goes wrong from here on, the outcome is not known to be durable.
        let wait = vec![Bytes::from_static(b"1"), wait_ms.to_string().into()];
        match link.send("WAIT", wait).await {
            Ok(replicas) => Ok((reply, replicas.integer().unwrap_or(0))),
            Err(Fault::NotDone(hint)) => Err(Fault::Unknown(hint.to_string())),
            Err(Fault::Refused(error) | Fault::Unknown(error)) => Err(Fault::Unknown(error)),
        }
    }

    /// A command for a slot that is moving here.
    pub(super) async fn asking(
        &self,
        command: &'static str,
        args: Vec<Bytes>,
    ) -> Result<Reply, Fault> {
        let mut slot = self.asking.lock().await;
        let link = match slot.take().filter(|link| !link.is_dead()) {
            Some(link) => link,
            None => self.connect().await.map_err(later)?,
        };
        let outcome = match link.send("ASKING", Vec::new()).await {
            Ok(_) => link.send(command, args).await,
            Err(fault) => Err(fault),
        };
        *slot = Some(link);
        outcome
    }

    async fn link(&self, line: &Line, metrics: &Metrics) -> Result<Arc<Link>, Fault> {
        if let Some(link) = line.live() {
            return Ok(link);
        }
        let mut backoff = line.making.lock().await;
        if let Some(link) = line.live() {
            return Ok(link);
        }
        let now = Instant::now();
        if backoff.not_before.is_some_and(|at| now < at) {
            return Err(later(format!(
                "{} was not reachable just now",
                self.address
            )));
        }
        let had_link = line.current.write().take().is_some();
        match self.connect().await {
            Ok(link) => {
                if had_link {
                    metrics.reconnected();
                }
                *backoff = Backoff::default();
                let link = Arc::new(link);
                *line.current.write() = Some(Arc::clone(&link));
                Ok(link)
            }
            Err(error) => {
                backoff.pause = (backoff.pause * 2).clamp(RECONNECT_PAUSE_MIN, RECONNECT_PAUSE_MAX);
                backoff.not_before = Some(Instant::now() + backoff.pause);
                Err(later(format!("{}: {error}", self.address)))
            }
        }
    }

    /// On the store's runtime, where the link's task is to live; not stopped half way when the caller is.
    async fn connect(&self) -> Result<Link, String> {
        let (address, settings) = (self.address.clone(), Arc::clone(&self.settings));
        let made = self
            .runtime
            .spawn(async move { Link::connect(&address, &settings).await });
        made.await
            .unwrap_or_else(|_| Err("shutting down".to_owned()))
    }
}

impl Line {
    fn live(&self) -> Option<Arc<Link>> {
        let current = self.current.read();
        current.as_ref().filter(|link| !link.is_dead()).cloned()
    }
}

fn later(reason: String) -> Fault {
    Fault::NotDone(Hint::Later(reason))
}
