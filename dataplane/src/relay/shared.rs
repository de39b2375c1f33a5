//! What all workers of the process share: configuration, stores, router, counters.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use sluice_crds::config::GatewayConfig;
use tokio::sync::watch;

use super::account::Accounts;
use super::leave;
use super::limits::RESERVED_DESCRIPTORS;
use super::metrics::{Metrics, Refused};
use super::rate::Bucket;
use super::router::Router;
use super::survey::Surveys;
use crate::auth::Authenticator;
use crate::clock::unix_ms;
use crate::drain::Drain;
use crate::fleet::Gate;
use crate::ingest::accept::Accept;
use crate::limits::{EGRESS_MEMORY_PERCENT, INGRESS_MEMORY_PERCENT};
use crate::pressure::{Level, Pressure};
use crate::store::{Broker, Holder, Peers, Presence};

/// What the relay is made of.
pub struct Parts {
    pub config: watch::Receiver<Arc<GatewayConfig>>,
    pub broker: Arc<dyn Broker>,
    pub presence: Arc<dyn Presence>,
    pub peers: Arc<dyn Peers>,
    /// What `peers` tell this process goes here.
    pub surveys: Arc<Surveys>,
    pub router: Arc<Router>,
    pub pressure: Arc<Pressure>,
    pub metrics: Metrics,
    pub drain: Drain,
    /// Whether the manager sends new clients to others.
    pub gate: Arc<Gate>,
    /// How many clients the manager wants elsewhere.
    pub leave: watch::Receiver<leave::Wanted>,
    /// This process in presence and in `info`.
    pub holder: Holder,
    /// Open files the process may have; bounds connections when the user set no limit.
    pub descriptors_max: usize,
    /// Takes HTTP requests that are not the relay's; `None`: nobody does.
    pub ingest: Option<Arc<Accept>>,
}

pub struct Shared {
    parts: Parts,
    authenticator: RwLock<Arc<Authenticator>>,
    accounts: Arc<Accounts>,
    /// Upgraded connections and those being upgraded.
    connections: AtomicUsize,
    /// Sockets per worker, upgraded or not.
    worker_connections: Vec<AtomicUsize>,
    connection_rate: Mutex<Bucket>,
    started: Instant,
    /// A client could not join presence again.
    presence_incomplete: AtomicBool,
    /// Clients that were closed so that they come back elsewhere.
    shed: AtomicU64,
}

/// A place among the process's connections; dropping it gives it back.
pub struct Admitted(Arc<Shared>);

impl Drop for Admitted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    pub fn new(mut parts: Parts, authenticator: Authenticator) -> Arc<Self> {
        parts.config.mark_unchanged();
        let worker_connections = parts
            .router
            .mailboxes()
            .iter()
            .map(|_| AtomicUsize::new(0))
            .collect();
        Arc::new(Self {
            parts,
            authenticator: RwLock::new(Arc::new(authenticator)),
            accounts: Arc::default(),
            connections: AtomicUsize::new(0),
            worker_connections,
            connection_rate: Mutex::default(),
            started: Instant::now(),
            presence_incomplete: AtomicBool::new(false),
            shed: AtomicU64::new(0),
        })
    }

    pub fn config(&self) -> Arc<GatewayConfig> {
        self.parts.config.borrow().clone()
    }

    pub fn watch_config(&self) -> watch::Receiver<Arc<GatewayConfig>> {
        self.parts.config.clone()
    }

    pub fn broker(&self) -> &dyn Broker {
        &*self.parts.broker
    }

    pub fn presence(&self) -> &dyn Presence {
        &*self.parts.presence
    }

    pub fn peers(&self) -> &dyn Peers {
        &*self.parts.peers
    }

    pub fn surveys(&self) -> &Arc<Surveys> {
        &self.parts.surveys
    }

    pub fn presence_is_incomplete(&self) {
        self.presence_incomplete.store(true, Ordering::Relaxed);
    }

    pub fn take_presence_incomplete(&self) -> bool {
        self.presence_incomplete.swap(false, Ordering::Relaxed)
    }

    pub fn holder(&self) -> &Holder {
        &self.parts.holder
    }

    pub fn router(&self) -> &Router {
        &self.parts.router
    }

    pub fn metrics(&self) -> &Metrics {
        &self.parts.metrics
    }

    pub fn pressure(&self) -> &Pressure {
        &self.parts.pressure
    }

    pub fn drain(&self) -> &Drain {
        &self.parts.drain
    }

    /// How many clients the manager wants elsewhere.
    pub fn leave(&self) -> &watch::Receiver<leave::Wanted> {
        &self.parts.leave
    }

    pub fn ingest(&self) -> Option<&Arc<Accept>> {
        self.parts.ingest.as_ref()
    }

    pub fn accounts(&self) -> &Arc<Accounts> {
        &self.accounts
    }

    pub fn authenticator(&self) -> Arc<Authenticator> {
        Arc::clone(&self.authenticator.read())
    }

    pub fn replace_authenticator(&self, authenticator: Authenticator) {
        *self.authenticator.write() = Arc::new(authenticator);
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn count_shed(&self) {
        self.shed.fetch_add(1, Ordering::Relaxed);
    }

    pub fn shed_total(&self) -> u64 {
        self.shed.load(Ordering::Relaxed)
    }

    /// Clients that this process takes at most.
    pub fn connections_max(&self) -> usize {
        let limit = self.config().relay.limits.connections;
        let descriptors = self.parts.descriptors_max;
        limit
            .unwrap_or(usize::MAX)
            .min(descriptors.saturating_sub(RESERVED_DESCRIPTORS))
    }

    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The worker that a new socket should go to.
    pub fn least_loaded_worker(&self) -> usize {
        let loads = self
            .worker_connections
            .iter()
            .map(|connections| connections.load(Ordering::Relaxed));
        let least = loads
            .enumerate()
            .min_by_key(|(_, connections)| *connections)
            .map_or(0, |(worker, _)| worker);
        // Counted at once: a burst of sockets is spread before the first of them is served.
        self.worker_connections[least].fetch_add(1, Ordering::Relaxed);
        least
    }

    /// A socket that `least_loaded_worker` placed is gone.
    pub fn socket_gone(&self, worker: usize) {
        self.worker_connections[worker].fetch_sub(1, Ordering::Relaxed);
    }

    /// Inbound and outbound memory of one worker.
    pub fn worker_memory_bytes(&self) -> (usize, usize) {
        let limit = self.parts.pressure.memory_limit_bytes()
            / self.parts.router.mailboxes().len().max(1) as u64;
        let part = |percent: u64| usize::try_from(limit / 100 * percent).unwrap_or(usize::MAX);
        (part(INGRESS_MEMORY_PERCENT), part(EGRESS_MEMORY_PERCENT))
    }

    /// Before the upgrade: whether one more connection may come in.
    pub fn admit(self: &Arc<Self>) -> Result<Admitted, Refused> {
        let config = self.config();
        let limits = &config.relay.limits;
        if !self.parts.drain.is_serving() {
            return Err(Refused::Draining);
        }
        if self.parts.gate.is_fenced(Instant::now()) {
            return Err(Refused::Fenced);
        }
        if self.parts.pressure.level().sheds_connections() {
            return Err(Refused::Overload);
        }
        let connections_max = self.connections_max();
        // Counted first, so that two at once cannot both take the last place.
        let admitted = Admitted(Arc::clone(self));
        if self.connections.fetch_add(1, Ordering::Relaxed) >= connections_max {
            return Err(Refused::Connections);
        }
        if let Some(rate) = limits.connections_per_second
            && !self.connection_rate.lock().take(rate, unix_ms())
        {
            return Err(Refused::Rate);
        }
        Ok(admitted)
    }

    /// When a refused client should come again, in seconds; spread so that they do not come together.
    pub fn retry_after_seconds(&self, refused: Refused) -> u32 {
        let level = match refused {
            Refused::Overload => Level::ShedConnections,
            Refused::Fenced => {
                if let Some(seconds) = self.parts.gate.retry_after_seconds() {
                    return seconds;
                }
                self.parts.pressure.level()
            }
            Refused::Draining | Refused::Connections | Refused::Rate => self.parts.pressure.level(),
        };
        crate::pressure::retry_after_seconds(level, &mut fastrand::Rng::new())
    }
}
