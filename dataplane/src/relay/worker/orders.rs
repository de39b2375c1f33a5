//! What others tell a worker to do with its connections.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Worker;
use crate::relay::codes::Disconnect;
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
    Name {
        count: usize,
        /// And then those for whom something is under way.
        whoever: bool,
        answer: mpsc::Sender<Vec<LeavingClient>>,
    },
    /// Send these clients elsewhere.
    Shed {
        clients: Vec<LeavingClient>,
        /// Also those for whom something is under way.
        whoever: bool,
        disconnect: Disconnect,
        /// Dropped when the order is carried out: how the sender knows.
        done: mpsc::Sender<()>,
    },
    /// Count the distinct users of this worker's connections.
    Users(mpsc::Sender<Vec<(Arc<str>, Arc<str>)>>),
}

/// A client that may be sent elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeavingClient {
    pub worker: usize,
    key: usize,
    /// Tells it from one that has its key after it.
    digest: u64,
    /// 0 while something is under way for it.
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
            Order::Name {
                count,
                whoever,
                answer,
            } => {
                // The asker may have gone; then nobody misses the answer.
                let _ = answer.try_send(self.longest_idle(*count, *whoever));
            }
            Order::Shed {
                clients,
                whoever,
                disconnect,
                done: _,
            } => self.shed(clients, *whoever, disconnect),
            Order::Users(answer) => {
                let users = self.users.borrow().keys().cloned().collect();
                // The asker may have gone; then nobody misses the answer.
                let _ = answer.try_send(users);
            }
        }
    }

    fn longest_idle(&self, count: usize, whoever: bool) -> Vec<LeavingClient> {
        let now_ms = self.clock_ms();
        let connections = self.connections.borrow();
        let mut named: Vec<LeavingClient> = connections
            .iter()
            .filter_map(|(key, connection)| {
                let idle_ms = match connection.idle_since_ms() {
                    Some(since) => now_ms.saturating_sub(since),
                    None if whoever && !connection.is_leaving() => 0,
                    None => return None,
                };
                Some(LeavingClient {
                    worker: self.index,
                    key,
                    digest: 0,
                    idle_ms,
                })
            })
            .collect();
        let longest = |client: &LeavingClient| std::cmp::Reverse(client.idle_ms);
        if named.len() > count && count > 0 {
            named.select_nth_unstable_by_key(count - 1, longest);
        }
        named.truncate(count);
        named.sort_by_key(longest);
        for client in &mut named {
            client.digest = digest(&connections[client.key]);
        }
        named
    }

    fn shed(&self, clients: &[LeavingClient], whoever: bool, disconnect: &Disconnect) {
        let connections = self.connections.borrow();
        for client in clients {
            // It may have got something since: in a lively fleet everyone has, and only what is under way now would be cut.
            if let Some(connection) = connections.get(client.key)
                && !connection.is_leaving()
                && (whoever || connection.idle_since_ms().is_some())
                && digest(connection) == client.digest
            {
                connection.request_close(disconnect.clone());
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
