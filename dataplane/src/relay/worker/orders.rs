//! What others tell a worker to do with its connections.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Worker;
use crate::relay::codes;
use crate::relay::connection::Connection;
use crate::relay::http::{self, Accepted};
use crate::relay::session::Control;

pub enum Order {
    /// Serve a new socket.
    Serve(Accepted),
    /// Hand a control to every connection that the target names.
    Control {
        target: Arc<Target>,
        control: Control,
        /// Dropped when the order is carried out: how the sender knows.
        done: mpsc::Sender<()>,
    },
    /// Presence has lost this process's entries: every client joins again.
    JoinAgain,
    /// Name so many of the longest idle clients, longest first.
    Idle {
        count: usize,
        answer: mpsc::Sender<Vec<IdleClient>>,
    },
    /// Send these clients elsewhere, those of them for whom nothing is under way.
    Shed {
        clients: Vec<IdleClient>,
        /// Dropped when the order is carried out: how the sender knows.
        done: mpsc::Sender<()>,
    },
    /// Count the distinct users of this worker's connections.
    Users(mpsc::Sender<Vec<(Arc<str>, Arc<str>)>>),
}

/// A client that was idle when its worker looked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdleClient {
    pub worker: usize,
    key: usize,
    /// Tells it from one that has its key after it.
    digest: u64,
    /// When it or others last had something for it, on its worker's clock.
    active_ms: u64,
    pub idle_ms: u64,
}

/// Which connections of one account are meant. Never reaches into another account.
#[derive(Debug, Clone, Default)]
pub struct Target {
    pub account: Arc<str>,
    pub user: Arc<str>,
    /// Only this client of the user; empty for all.
    pub client: String,
    /// Clients to spare.
    pub except: Vec<String>,
}

/// Of the client's id.
fn digest(connection: &Connection) -> u64 {
    let mut hasher = DefaultHasher::new();
    connection.session().borrow().client().hash(&mut hasher);
    hasher.finish()
}

impl Worker {
    pub(super) fn obey(self: &Rc<Self>, order: &Order) {
        match order {
            Order::Serve(accepted) => {
                if let Some(socket) = accepted.take() {
                    tokio::task::spawn_local(http::serve(Rc::clone(self), socket));
                }
            }
            Order::Control {
                target,
                control,
                done,
            } => {
                for connection in self.connections_of(target) {
                    connection.control(control.clone(), Some(done.clone()));
                }
            }
            Order::JoinAgain => {
                for (_, connection) in &*self.connections.borrow() {
                    connection.control(Control::JoinAgain, None);
                }
            }
            Order::Idle { count, answer } => {
                // The asker may have gone; then nobody misses the answer.
                let _ = answer.try_send(self.longest_idle(*count));
            }
            Order::Shed { clients, done: _ } => self.shed(clients),
            Order::Users(answer) => {
                let users = self.users.borrow().keys().cloned().collect();
                // The asker may have gone; then nobody misses the answer.
                let _ = answer.try_send(users);
            }
        }
    }

    fn longest_idle(&self, count: usize) -> Vec<IdleClient> {
        let now_ms = self.clock_ms();
        let connections = self.connections.borrow();
        let mut idle: Vec<IdleClient> = connections
            .iter()
            .filter_map(|(key, connection)| {
                let active_ms = connection.idle_since_ms()?;
                Some(IdleClient {
                    worker: self.index,
                    key,
                    digest: 0,
                    active_ms,
                    idle_ms: now_ms.saturating_sub(active_ms),
                })
            })
            .collect();
        if idle.len() > count && count > 0 {
            idle.select_nth_unstable_by_key(count - 1, |client| client.active_ms);
        }
        idle.truncate(count);
        idle.sort_by_key(|client| client.active_ms);
        for client in &mut idle {
            client.digest = digest(&connections[client.key]);
        }
        idle
    }

    fn shed(&self, clients: &[IdleClient]) {
        let connections = self.connections.borrow();
        for client in clients {
            // It may have got something since: in a lively fleet everyone has, and only what is under way now would be cut.
            if let Some(connection) = connections.get(client.key)
                && connection.idle_since_ms().is_some()
                && digest(connection) == client.digest
            {
                connection.request_close(codes::DISCONNECT_FORCE_RECONNECT);
                self.shared.count_shed();
            }
        }
    }

    fn connections_of(&self, target: &Target) -> Vec<Rc<Connection>> {
        let users = self.users.borrow();
        let Some(connections) = users.get(&(Arc::clone(&target.account), Arc::clone(&target.user)))
        else {
            return Vec::new();
        };
        let meant = |connection: &&Rc<Connection>| {
            let session = connection.session().borrow();
            let client = &**session.client();
            (target.client.is_empty() || target.client == client)
                && !target.except.iter().any(|spared| spared == client)
        };
        connections.iter().filter(meant).cloned().collect()
    }
}
