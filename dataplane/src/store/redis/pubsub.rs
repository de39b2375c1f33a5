//! Messages to every process that subscribed, over sharded pub/sub; at least once while a server of the shard lives.
//!
//! Owns this process's subscriptions and one connection to every server that carries some. A channel is subscribed on
//! its shard's primary and on one replica: both hand out what either is given, so a message comes twice, and goes on
//! coming when one of the two dies, is stopped, or changes its role. One replica is enough however many there are: when
//! another one is promoted, this one is handed the promoted one's messages. Receivers tell the second copy from a second
//! message themselves. Knows nothing of what is in a message.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::{Instant, timeout, timeout_at};

mod connection;
mod line;
mod table;

use self::line::Line;
use self::table::Table;
use super::cluster::{CallError, Cluster};
use super::limits::{
    CALL_DEADLINE, MESSAGE_BYTES_MAX, MESSAGE_DETOUR, MESSAGE_TIMEOUT, RETRY_PAUSE,
    SUBSCRIBE_REPEAT,
};
use super::topology::{Address, Topology};

/// Gets the messages of the channels that it is subscribed with. Must be quick, and must not subscribe.
pub trait Receiver: Send + Sync {
    /// One message, possibly a second time (from the shard's other server). Of one channel's messages, two may come at
    /// the same time.
    fn message(&self, channel: &Bytes, payload: Bytes);

    /// For a time no connection carried the channel: messages may have been missed. From now on they come again.
    fn interrupted(&self, channel: &Bytes);
}

/// Says whether messages should be taken in now. While not, connections are not read, and the servers keep what comes, up
/// to their own limit; beyond it they cut the connection, which interrupts its channels.
pub trait Gate: Send + Sync {
    fn is_open(&self) -> bool;
}

/// A gate that is never closed.
#[cfg(test)]
pub(super) struct Open;

#[cfg(test)]
impl Gate for Open {
    fn is_open(&self) -> bool {
        true
    }
}

/// A message and the channel it goes to.
pub type Message = (Bytes, Bytes);

/// Sharded pub/sub of one process. Its tasks end when it is dropped.
pub struct PubSub(Arc<Shared>);

/// What the connections' tasks work on.
struct Shared {
    cluster: Arc<Cluster>,
    gate: Arc<dyn Gate>,
    table: Mutex<Table>,
    /// Servers or connections changed: subscriptions have to follow.
    changed: Notify,
    is_closed: AtomicBool,
    on_their_way_bytes: Semaphore,
    /// Servers that did not take a message lately.
    passed_over: Mutex<HashMap<Address, Instant>>,
}

impl Drop for PubSub {
    fn drop(&mut self) {
        self.0.is_closed.store(true, Ordering::Relaxed);
        self.0.changed.notify_one();
        self.0.table.lock().stop();
    }
}

impl PubSub {
    pub fn start(cluster: Arc<Cluster>, gate: Arc<dyn Gate>) -> Arc<Self> {
        let shared = Arc::new(Shared {
            table: Mutex::default(),
            changed: Notify::new(),
            is_closed: AtomicBool::new(false),
            on_their_way_bytes: Semaphore::new(MESSAGE_BYTES_MAX),
            passed_over: Mutex::default(),
            cluster,
            gate,
        });
        let runtime = shared.cluster.runtime();
        runtime.spawn(Arc::clone(&shared).follow());
        Arc::new(Self(shared))
    }

    /// Returns when the primary has confirmed the subscription, or a replica while the primary cannot be reached. Callers
    /// take turns for one channel: a channel has one receiver, the last one.
    pub async fn subscribe(
        &self,
        slot: u16,
        channel: Bytes,
        receiver: Weak<dyn Receiver>,
    ) -> Result<(), CallError> {
        let (confirm, confirmed) = oneshot::channel();
        {
            let mut table = self.0.table.lock();
            table.add(slot, channel.clone(), receiver, confirm);
            self.0.ensure_lines(&mut table, slot);
            table.ask_for(slot, &channel);
            table.confirm(&channel);
        }
        if let Ok(Ok(())) = timeout(CALL_DEADLINE, confirmed).await {
            return Ok(());
        }
        self.unsubscribe(&channel);
        Err(CallError::NotDone(
            "no server confirms the subscription".to_owned(),
        ))
    }

    /// After it returns, no message of the channel begins to be handed out; the servers are told later.
    pub fn unsubscribe(&self, channel: &Bytes) {
        self.0.table.lock().leave(channel, Instant::now());
    }

    /// Hands the message to the primary, or to a replica when the primary does not take it in [`MESSAGE_TIMEOUT`].
    pub async fn publish(
        &self,
        slot: u16,
        channel: Bytes,
        payload: Bytes,
    ) -> Result<(), CallError> {
        self.publish_all(slot, vec![(channel, payload)]).await
    }

    /// Hands messages of one slot on, in order. An error means that some may have gone out, and some not.
    pub async fn publish_all(&self, slot: u16, messages: Vec<Message>) -> Result<(), CallError> {
        let bytes: usize = messages.iter().map(|(c, p)| c.len() + p.len()).sum();
        let bytes = u32::try_from(bytes.min(MESSAGE_BYTES_MAX)).unwrap_or(u32::MAX);
        let Ok(_room) = self.0.on_their_way_bytes.try_acquire_many(bytes) else {
            return Err(CallError::NotDone(
                "too much is waiting for Redis".to_owned(),
            ));
        };
        let messages: Arc<[Message]> = messages.into();
        let deadline = Instant::now() + CALL_DEADLINE;
        let mut outcome = Err(CallError::NotDone(format!(
            "no server is known to own slot {slot}"
        )));
        while Instant::now() < deadline {
            for server in self.0.takers(slot) {
                outcome = self.0.hand_over(&server, Arc::clone(&messages)).await;
                match &outcome {
                    Ok(()) | Err(CallError::Refused(_)) => return outcome,
                    Err(CallError::NotDone(_) | CallError::Unknown(_)) => {
                        self.0.cluster.metrics().retried();
                        self.0.cluster.doubt();
                    }
                }
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        outcome
    }
}

impl Shared {
    /// Keeps connections and subscriptions where the servers are.
    async fn follow(self: Arc<Self>) {
        let mut topology = self.cluster.topology();
        let mut is_behind = true;
        loop {
            if self.is_closed.load(Ordering::Relaxed) {
                return;
            }
            if is_behind {
                let now: Arc<Topology> = topology.borrow_and_update().clone();
                is_behind = self.arrange(now);
            }
            let pause = Instant::now() + SUBSCRIBE_REPEAT;
            let moved = tokio::select! {
                changed = topology.changed() => changed.is_ok(),
                () = self.changed.notified() => true,
                () = tokio::time::sleep_until(pause) => false,
            };
            is_behind |= moved;
            let mut table = self.table.lock();
            table.expire(Instant::now());
            table.confirm_waiting();
        }
    }

    /// Returns whether something is left to be done later.
    fn arrange(self: &Arc<Self>, topology: Arc<Topology>) -> bool {
        let mut table = self.table.lock();
        table.set_topology(topology);
        for slot in table.slots() {
            self.ensure_lines(&mut table, slot);
        }
        table.ask_for_all();
        table.part_with_unwanted()
    }

    fn ensure_lines(self: &Arc<Self>, table: &mut Table, slot: u16) {
        for address in table.wanted(slot) {
            if let Some(line) = table.missing_line(&address) {
                let runtime = self.cluster.runtime();
                runtime.spawn(line::run(Arc::clone(self), line));
            }
        }
    }

    fn line_is_up(&self, line: &Line) {
        self.table.lock().line_is_up(line);
        self.changed.notify_one();
    }

    fn line_is_down(&self, line: &Line) {
        self.table.lock().line_is_down(line);
        self.changed.notify_one();
    }

    /// The servers of a slot's shard in the order in which they should be given a message.
    fn takers(&self, slot: u16) -> Vec<Address> {
        let topology = self.cluster.topology().borrow().clone();
        let Some(shard) = topology.shard(slot) else {
            return Vec::new();
        };
        let mut servers = vec![shard.primary.clone()];
        servers.extend(shard.replicas.iter().cloned());
        let mut passed_over = self.passed_over.lock();
        if !passed_over.is_empty() {
            let now = Instant::now();
            passed_over.retain(|_, until| now < *until);
            // Stable: the primary stays first among the good ones.
            servers.sort_by_key(|server| passed_over.contains_key(server));
        }
        servers
    }

    /// In a task of its own, which sees each command's end: only so is a connection that does not answer given up.
    async fn hand_over(
        self: &Arc<Self>,
        server: &Address,
        messages: Arc<[Message]>,
    ) -> Result<(), CallError> {
        let (this, to) = (Arc::clone(self), server.clone());
        let sent = self.cluster.runtime().spawn(async move {
            let commands = messages.iter().map(|(channel, payload)| {
                let args = vec![channel.clone(), payload.clone()];
                this.cluster.command_at(&to, "SPUBLISH", args)
            });
            for outcome in join_all(commands).await {
                outcome?;
            }
            Ok(())
        });
        let deadline = Instant::now() + MESSAGE_TIMEOUT;
        let outcome = match timeout_at(deadline, sent).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(CallError::Unknown("shutting down".to_owned())),
            Err(_) => Err(CallError::Unknown(format!("{server}: no answer"))),
        };
        if outcome.is_err() {
            let until = Instant::now() + MESSAGE_DETOUR;
            self.passed_over.lock().insert(server.clone(), until);
        }
        outcome
    }
}
