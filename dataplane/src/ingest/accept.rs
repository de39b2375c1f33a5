//! Takes requests from clients: a dialect decides, the queue holds, the client is answered.
//!
//! One [`Accept`] is shared by all workers. It owns the places of concurrent requests and the memory for their bodies;
//! dialects decide purely on what was read. Success is said only after the queue has the entry. What cannot be taken now
//! is refused with a time to come back, spread over clients; nothing waits here for room.

pub mod answer;
pub mod body;
pub mod countly;
pub mod decision;
pub mod generic;
pub mod parameters;
pub mod table;
#[cfg(test)]
mod tests;
pub mod work;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use foldhash::fast::RandomState;
use http::{Request, Response, StatusCode};
use parking_lot::RwLock;
use sluice_crds::config::{Dialect, GatewayConfig};
use tokio::sync::watch;

pub use self::answer::Body;
use self::body::Budget;
use self::decision::Rejected;
use self::table::Table;
use self::work::Work;
use super::metrics::Metrics;
use super::proxy::Proxy;
use crate::pressure::Pressure;
use crate::store::queue::{EntryId, Queue};

/// Share of the memory limit for request bodies.
const BODIES_MEMORY_DIVISOR: u64 = 4;
/// Without a memory limit: a thousand requests of the default size.
const BODIES_BYTES_UNLIMITED: usize = 1024 * 1024 * 1024;

/// Makes ids of entries; later ones are greater.
pub type EntryIds = Arc<dyn Fn() -> EntryId + Send + Sync>;

/// What accepting is made of.
pub struct Parts {
    pub config: watch::Receiver<Arc<GatewayConfig>>,
    pub queue: Arc<dyn Queue>,
    pub ids: EntryIds,
    /// `None`: calls that need the upstream's own answer are refused.
    pub proxy: Option<Proxy>,
    pub metrics: Arc<Metrics>,
    pub pressure: Arc<Pressure>,
    /// Connections that stay open for further requests; those beyond are closed after each answer.
    pub connections_max: usize,
}

pub struct Accept {
    parts: Parts,
    table: RwLock<Option<Arc<Table>>>,
    bodies: Budget,
    /// Requests whose body or answer is under way.
    requests: AtomicUsize,
    connections: AtomicUsize,
    spread: RandomState,
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub address: IpAddr,
    /// The listener spoke TLS.
    pub secure: bool,
}

/// A place among concurrent requests; dropping it gives it back.
pub struct Place(Arc<Accept>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A place among connections that stay open; dropping it gives it back.
pub struct KeptConnection(Arc<Accept>);

impl Drop for KeptConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Accept {
    pub fn new(parts: Parts) -> Arc<Self> {
        let bodies_bytes = match parts.pressure.memory_limit_bytes() {
            0 => BODIES_BYTES_UNLIMITED,
            limit => usize::try_from(limit / BODIES_MEMORY_DIVISOR).unwrap_or(usize::MAX),
        };
        Arc::new(Self {
            parts,
            table: RwLock::default(),
            bodies: Budget::new(bodies_bytes),
            requests: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            spread: RandomState::default(),
        })
    }

    /// Whether a request for this path, which nobody else takes, is to be handled here.
    pub fn takes(&self, path: &str) -> bool {
        match &self.parts.config.borrow().ingest {
            None => false,
            Some(ingest) => match &ingest.accept.dialect {
                Dialect::Countly => true,
                Dialect::Generic(_) => generic::takes(path, &ingest.accept.path_prefix),
            },
        }
    }

    /// Leave to keep a connection open between requests.
    pub fn keep_connection(self: &Arc<Self>) -> Option<KeptConnection> {
        let place = KeptConnection(Arc::clone(self));
        let before = self.connections.fetch_add(1, Ordering::Relaxed);
        (before < self.parts.connections_max).then_some(place)
    }

    /// A request that is not HTTP was refused by whoever read it.
    pub fn count_malformed(&self) {
        self.parts.metrics.rejected(Rejected::Malformed.name());
    }

    /// The table of the current configuration.
    fn table(&self) -> Option<Arc<Table>> {
        let ingest = self.parts.config.borrow().ingest.clone()?;
        let is_current = |table: &&Arc<Table>| Arc::ptr_eq(&table.ingest, &ingest);
        if let Some(table) = self.table.read().as_ref().filter(is_current) {
            return Some(Arc::clone(table));
        }
        let mut held = self.table.write();
        if let Some(table) = held.as_ref().filter(is_current) {
            return Some(Arc::clone(table));
        }
        let metrics = &self.parts.metrics;
        let table = Arc::new(Table::new(ingest, |name| metrics.accepted_counter(name)));
        *held = Some(Arc::clone(&table));
        Some(table)
    }

    pub async fn handle<B>(self: &Arc<Self>, peer: Peer, request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes>,
    {
        let Some(table) = self.table() else {
            // The configuration changed between routing and now.
            let mut gone = Response::new(Body::whole(Bytes::new()));
            *gone.status_mut() = StatusCode::NOT_FOUND;
            return gone;
        };
        let (head, body) = request.into_parts();
        let work = Work {
            accept: self,
            table: &table,
            peer,
            head: &head,
            began: Instant::now(),
        };
        work.serve(body).await
    }

    fn enter(self: &Arc<Self>, concurrent_max: usize) -> Result<Place, Rejected> {
        if self.parts.pressure.level().sheds_connections() {
            return Err(Rejected::Overload);
        }
        // Counted first, so that two at once cannot both take the last place.
        let place = Place(Arc::clone(self));
        if self.requests.fetch_add(1, Ordering::Relaxed) >= concurrent_max {
            return Err(Rejected::Concurrency);
        }
        Ok(place)
    }
}
