//! The relay: long-lived client connections of accounts, their channels and messages.
//!
//! A message's way: `http` upgrades a socket, `connection` reads frames and decodes commands (`frame`, `protocol`),
//! `session` decides, the connection carries out, for a publish by the store's `Broker`. Its event comes back through
//! `router` to the `mailbox` of each `worker` with readers; the worker's `hub` encodes it once per form and appends
//! it to the readers' `outbox`es, and the worker writes each touched socket once. Sender and reader meet only in the
//! store. `Relay` starts the workers and hands them sockets.

pub mod account;
pub mod api;
pub mod channel;
pub mod codes;
pub mod congestion;
pub mod connection;
pub mod delta;
pub mod filter;
pub mod fossil;
pub mod frame;
pub mod heartbeat;
pub mod history;
pub mod http;
pub mod hub;
pub mod lease;
pub mod leave;
pub mod limits;
pub mod mailbox;
pub mod metrics;
pub mod outbox;
pub mod protocol;
pub mod rate;
pub mod router;
pub mod seats;
pub mod session;
pub mod shared;
pub mod socket;
pub mod survey;
pub mod upgrade;
pub mod worker;

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::thread;

use tokio::runtime;
use tokio::sync::Semaphore;
use tokio::task::LocalSet;

pub use self::http::Accepted;
use self::http::Handover;
use self::limits::HANDSHAKES_MAX;
use self::mailbox::Item;
pub use self::metrics::Metrics;
pub use self::router::{Router, WORKERS_MAX};
pub use self::shared::{Parts, Shared};
use self::worker::{Order, Worker};
use crate::auth::Authenticator;

/// The running relay: its workers are threads that live as long as the process.
#[derive(Clone)]
pub struct Relay {
    shared: Arc<Shared>,
    /// Sockets that are not WebSockets yet.
    handshakes: Arc<Semaphore>,
}

impl Relay {
    pub fn start(parts: Parts, authenticator: Authenticator) -> io::Result<Self> {
        let shared = Shared::new(parts, authenticator);
        for index in 0..shared.router().mailboxes().len() {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name(format!("relay-{index}"))
                .spawn(move || run_worker(index, shared))?;
        }
        Ok(Self {
            shared,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
        })
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Waits until another socket may be taken from a listener: sockets in their handshake are bounded.
    pub async fn ready_for_socket(&self) -> SocketPermit {
        let permit = Arc::clone(&self.handshakes).acquire_owned().await;
        SocketPermit(permit.expect("the semaphore is never closed"))
    }

    /// Hands a socket to the worker with the fewest connections.
    pub fn serve(
        &self,
        tcp: TcpStream,
        tls: Option<Arc<rustls::ServerConfig>>,
        permit: SocketPermit,
    ) {
        let worker = self.shared.least_loaded_worker();
        let accepted = Accepted::new(Handover {
            tcp,
            tls,
            permit: permit.0,
        });
        self.shared.router().mailboxes()[worker].push(Item::Order(Order::Serve(accepted)));
    }

    /// What has to be done all the time beside serving clients; never ends.
    pub async fn keep(self) {
        tokio::join!(
            lease::keep(Arc::clone(&self.shared)),
            seats::keep(Arc::clone(&self.shared)),
            survey::answer_all(&self.shared),
            leave::keep(Arc::clone(&self.shared), self.shared.leave().clone()),
        );
    }
}

/// Leave to take one socket.
pub struct SocketPermit(tokio::sync::OwnedSemaphorePermit);

fn run_worker(index: usize, shared: Arc<Shared>) {
    let runtime = runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, index, "relay worker cannot start");
            return;
        }
    };
    let tasks = LocalSet::new();
    let drain = shared.drain().subscribe();
    let worker = Worker::new(index, shared);
    tasks.spawn_local(std::rc::Rc::clone(&worker).watch_congestion());
    tasks.spawn_local(std::rc::Rc::clone(&worker).probe());
    tasks.spawn_local(std::rc::Rc::clone(&worker).follow_config());
    tasks.spawn_local(std::rc::Rc::clone(&worker).drain(drain));
    tasks.block_on(&runtime, worker.deliver());
}
