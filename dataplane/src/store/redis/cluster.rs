//! Calls to the server that owns a slot, through failovers, moved slots and lost connections.
//!
//! Owns the links and the view of the topology, which a task of its own keeps current. A call is tried again only when a
//! server's answer proves that it was not carried out, or when the caller says that repeating it does no harm. All of
//! it is bounded: in time by [`CALL_DEADLINE`], in bytes by [`IN_FLIGHT_BYTES_MAX`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::RwLock;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;

mod watcher;

use super::limits::{CALL_DEADLINE, IN_FLIGHT_BYTES_MAX, REPLICATION_WAIT_MS, RETRY_PAUSE};
use super::link::{Fault, Hint};
use super::metrics::Metrics;
use super::node::Node;
use super::reply::Reply;
use super::script::Script;
use super::settings::Settings;
use super::topology::{Address, Topology};
use crate::store::StoreError;

/// Whether a call may be made again after an unknown outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// Making it twice is the same as making it once.
    Safe,
    Never,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CallError {
    #[error("not done: {0}")]
    NotDone(String),
    #[error("outcome unknown: {0}")]
    Unknown(String),
    /// The server's own words: the call is wrong, or the server is out of memory or disk.
    #[error("refused: {0}")]
    Refused(String),
}

impl From<CallError> for StoreError {
    fn from(error: CallError) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// The servers of one Redis or Redis Cluster.
pub struct Cluster {
    settings: Arc<Settings>,
    runtime: Handle,
    nodes: RwLock<HashMap<Address, Arc<Node>>>,
    topology: watch::Sender<Arc<Topology>>,
    /// Why there is no whole view of the servers, for `/readyz`; empty: there is.
    trouble: watch::Sender<Arc<str>>,
    /// Somebody found the view wrong.
    doubt: Notify,
    in_flight_bytes: Semaphore,
    metrics: Metrics,
}

impl Cluster {
    /// Starts to look for the servers, on `runtime`, for as long as the cluster is held; waits for nothing.
    pub fn start(settings: Settings, runtime: Handle, metrics: Metrics) -> Arc<Self> {
        let cluster = Arc::new(Self {
            settings: Arc::new(settings),
            runtime: runtime.clone(),
            nodes: RwLock::default(),
            topology: watch::Sender::new(Arc::default()),
            trouble: watch::Sender::new("no Redis server has answered yet".into()),
            doubt: Notify::new(),
            in_flight_bytes: Semaphore::new(IN_FLIGHT_BYTES_MAX),
            metrics,
        });
        runtime.spawn(watcher::run(Arc::downgrade(&cluster)));
        cluster
    }

    pub fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    /// Where the store's tasks live.
    pub fn runtime(&self) -> &Handle {
        &self.runtime
    }

    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    pub fn topology(&self) -> watch::Receiver<Arc<Topology>> {
        self.topology.subscribe()
    }

    /// Why Redis cannot be used, or not all of it; empty: it can.
    pub fn trouble(&self) -> watch::Receiver<Arc<str>> {
        self.trouble.subscribe()
    }

    /// Has the view looked at again soon.
    pub fn doubt(&self) {
        self.doubt.notify_one();
    }

    /// Runs a script on the owner of `slot`, in which all `keys` lie.
    pub async fn call(
        &self,
        slot: u16,
        script: &Script,
        keys: &[Bytes],
        args: impl IntoIterator<Item = Bytes>,
        again: Again,
    ) -> Result<Reply, CallError> {
        let mut all = vec![script.hash(), keys.len().to_string().into()];
        all.extend(keys.iter().cloned());
        all.extend(args);
        self.carry_out(slot, "EVALSHA", all, again, Some(script))
            .await
    }

    /// Runs a script that writes, and that does no harm when it is repeated, until a replica has what it wrote.
    pub async fn call_replicated(
        &self,
        slot: u16,
        script: &Script,
        keys: &[Bytes],
        args: impl IntoIterator<Item = Bytes>,
    ) -> Result<Reply, CallError> {
        let mut all = vec![script.hash(), keys.len().to_string().into()];
        all.extend(keys.iter().cloned());
        all.extend(args);
        let mut call = Call {
            replicated: true,
            ..Call::new(self, slot, "EVALSHA", all, Some(script))
        };
        self.repeat(&mut call, Again::Safe).await
    }

    /// Runs one command on the owner of `slot`.
    pub async fn command(
        &self,
        slot: u16,
        command: &'static str,
        args: Vec<Bytes>,
        again: Again,
    ) -> Result<Reply, CallError> {
        self.carry_out(slot, command, args, again, None).await
    }

    /// One try at one server, whatever it owns.
    pub async fn command_at(
        &self,
        server: &Address,
        command: &'static str,
        args: Vec<Bytes>,
    ) -> Result<Reply, CallError> {
        let outcome = self
            .node(server)
            .command(command, args, &self.metrics)
            .await;
        outcome.map_err(|fault| match fault {
            Fault::NotDone(hint) => CallError::NotDone(format!("{hint:?}")),
            Fault::Unknown(reason) => {
                self.doubt();
                CallError::Unknown(reason)
            }
            Fault::Refused(reason) => CallError::Refused(reason),
        })
    }

    async fn carry_out(
        &self,
        slot: u16,
        command: &'static str,
        args: Vec<Bytes>,
        again: Again,
        script: Option<&Script>,
    ) -> Result<Reply, CallError> {
        let mut call = Call::new(self, slot, command, args, script);
        self.repeat(&mut call, again).await
    }

    async fn repeat(&self, call: &mut Call<'_>, again: Again) -> Result<Reply, CallError> {
        let bytes = call.args.iter().map(Bytes::len).sum::<usize>();
        let bytes = u32::try_from(bytes.min(IN_FLIGHT_BYTES_MAX)).unwrap_or(u32::MAX);
        let Ok(_room) = self.in_flight_bytes.try_acquire_many(bytes) else {
            return Err(CallError::NotDone(
                "too much is waiting for Redis".to_owned(),
            ));
        };
        let deadline = Instant::now() + CALL_DEADLINE;
        loop {
            let fault = match call.once().await {
                Ok(reply) => return Ok(reply),
                Err(fault) => fault,
            };
            let late = Instant::now() >= deadline;
            let pause = match fault {
                Fault::Refused(reason) => return Err(CallError::Refused(reason)),
                Fault::Unknown(reason) if again == Again::Never || late => {
                    self.doubt();
                    return Err(CallError::Unknown(reason));
                }
                Fault::NotDone(hint) if late => return Err(CallError::NotDone(hint.to_string())),
                Fault::Unknown(_) => RETRY_PAUSE,
                Fault::NotDone(hint) => call.follow(hint),
            };
            self.metrics.retried();
            if !pause.is_zero() {
                self.doubt();
                tokio::time::sleep(pause).await;
            }
        }
    }

    fn node(&self, address: &Address) -> Arc<Node> {
        if let Some(node) = self.nodes.read().get(address) {
            return Arc::clone(node);
        }
        let mut nodes = self.nodes.write();
        let node = nodes.entry(address.clone()).or_insert_with(|| {
            let settings = Arc::clone(&self.settings);
            Arc::new(Node::new(address.clone(), settings, self.runtime.clone()))
        });
        Arc::clone(node)
    }
}

/// One call on its way to the server that can carry it out.
struct Call<'a> {
    cluster: &'a Cluster,
    slot: u16,
    command: &'static str,
    args: Vec<Bytes>,
    script: Option<&'a Script>,
    /// Where the last server said to go, and whether only for this once.
    elsewhere: Option<(Address, bool)>,
    /// It counts only when a replica has it.
    replicated: bool,
}

impl<'a> Call<'a> {
    fn new(
        cluster: &'a Cluster,
        slot: u16,
        command: &'static str,
        args: Vec<Bytes>,
        script: Option<&'a Script>,
    ) -> Self {
        Self {
            cluster,
            slot,
            command,
            args,
            script,
            elsewhere: None,
            replicated: false,
        }
    }

    async fn once(&mut self) -> Result<Reply, Fault> {
        let cluster = self.cluster;
        let (server, asking) = match self.elsewhere.take() {
            Some(elsewhere) => elsewhere,
            None => {
                let topology = cluster.topology.borrow().clone();
                let Some(shard) = topology.shard(self.slot) else {
                    let reason = format!("no server is known to own slot {}", self.slot);
                    return Err(Fault::NotDone(Hint::Later(reason)));
                };
                (shard.primary.clone(), false)
            }
        };
        let node = cluster.node(&server);
        if self.replicated {
            if asking {
                // The slot has moved soon, and then its new owner has it replicated.
                let reason = format!("slot {} is on the move", self.slot);
                return Err(Fault::NotDone(Hint::Later(reason)));
            }
            let args = self.args.clone();
            let (reply, replicas) = node
                .durable(self.command, args, REPLICATION_WAIT_MS, &cluster.metrics)
                .await?;
            if replicas == 0 {
                let reason = format!("no replica of {server} has it yet");
                return Err(Fault::Unknown(reason));
            }
            return Ok(reply);
        }
        if asking {
            node.asking(self.command, self.args.clone()).await
        } else {
            node.command(self.command, self.args.clone(), &cluster.metrics)
                .await
        }
    }

    /// Prepares the next try; returns how long to wait before it.
    fn follow(&mut self, hint: Hint) -> Duration {
        match hint {
            Hint::Later(_) => RETRY_PAUSE,
            Hint::NoScript => {
                // A promoted or restarted server does not know the scripts. With its text it learns this one.
                if let Some(script) = self.script {
                    self.command = "EVAL";
                    self.args[0] = script.text();
                }
                Duration::ZERO
            }
            Hint::Moved(text) | Hint::Ask(text) => {
                let asking = text.starts_with("ASK");
                match target(&text, self.cluster, self.slot) {
                    Some(server) => {
                        self.elsewhere = Some((server, asking));
                        if !asking {
                            self.cluster.doubt();
                        }
                        Duration::ZERO
                    }
                    None => RETRY_PAUSE,
                }
            }
        }
    }
}

/// The server that `MOVED 3999 host:port` or `ASK ...` names; without a host it is the one that answered.
fn target(text: &str, cluster: &Cluster, slot: u16) -> Option<Address> {
    let place = text.split_ascii_whitespace().nth(2)?;
    let (host, port) = place.rsplit_once(':')?;
    let port = port.parse().ok()?;
    if !host.is_empty() && host != "?" {
        return Some(Address::new(host, port));
    }
    let topology = cluster.topology.borrow().clone();
    let host = &topology.shard(slot)?.primary.host;
    Some(Address::new(host, port))
}
