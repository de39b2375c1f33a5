//! What others tell a worker to do with its connections.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::Worker;
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
    /// Count the distinct users of this worker's connections.
    Users(mpsc::Sender<Vec<(Arc<str>, Arc<str>)>>),
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
            Order::Users(answer) => {
                let users = self.users.borrow().keys().cloned().collect();
                // The asker may have gone; then nobody misses the answer.
                let _ = answer.try_send(users);
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
