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

use std::cell::RefCell;
use std::net::IpAddr;
use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use foldhash::fast::RandomState;
use http::{Response, StatusCode, request};
use parking_lot::RwLock;
use sluice_crds::config::{Dialect, GatewayConfig, Ingest};
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
    /// Tells this one from others of the process.
    number: u64,
    parts: Parts,
    table: RwLock<Option<Arc<Table>>>,
    bodies: Budget,
    /// Requests whose body or answer is under way.
    requests: Count,
    connections: Count,
    spread: RandomState,
}

/// On cache lines of its own: every thread writes it with every request.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicUsize);

/// The table as a thread saw it last. Looking at it costs no lock and no counter that threads share.
struct Seen {
    /// Of whose table.
    number: u64,
    config: watch::Receiver<Arc<GatewayConfig>>,
    table: Option<Rc<Shared>>,
}

/// The table of all threads, behind a count of references that is a thread's own.
struct Shared(Arc<Table>);

thread_local! {
    static SEEN: RefCell<Option<Seen>> = const { RefCell::new(None) };
}

static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub address: IpAddr,
    /// The listener spoke TLS.
    pub secure: bool,
}

/// A place among concurrent requests; dropping it gives it back.
pub struct Place<A: Deref<Target = Accept> = Arc<Accept>>(A);

impl<A: Deref<Target = Accept>> Drop for Place<A> {
    fn drop(&mut self) {
        self.0.requests.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Place<&Accept> {
    /// The same place, for longer than this request is looked at.
    fn hold(self, accept: &Arc<Accept>) -> Place {
        std::mem::forget(self);
        Place(Arc::clone(accept))
    }
}

/// A place among connections that stay open; dropping it gives it back.
pub struct KeptConnection(Arc<Accept>);

impl Drop for KeptConnection {
    fn drop(&mut self) {
        self.0.connections.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Accept {
    pub fn new(parts: Parts) -> Arc<Self> {
        let bodies_bytes = match parts.pressure.memory_limit_bytes() {
            0 => BODIES_BYTES_UNLIMITED,
            limit => usize::try_from(limit / BODIES_MEMORY_DIVISOR).unwrap_or(usize::MAX),
        };
        Arc::new(Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            parts,
            table: RwLock::default(),
            bodies: Budget::new(bodies_bytes),
            requests: Count::default(),
            connections: Count::default(),
            spread: RandomState::default(),
        })
    }

    /// Whether a request for this path, which nobody else takes, is to be handled here.
    pub fn takes(&self, path: &str) -> bool {
        self.table().is_some_and(|table| {
            let rules = &table.0.ingest.accept;
            match &rules.dialect {
                Dialect::Countly => true,
                Dialect::Generic(_) => generic::takes(path, &rules.path_prefix),
            }
        })
    }

    /// Leave to keep a connection open between requests.
    pub fn keep_connection(self: &Arc<Self>) -> Option<KeptConnection> {
        let place = KeptConnection(Arc::clone(self));
        let before = self.connections.0.fetch_add(1, Ordering::Relaxed);
        (before < self.parts.connections_max).then_some(place)
    }

    /// A request that is not HTTP was refused by whoever read it.
    pub fn count_malformed(&self) {
        self.parts.metrics.rejected(Rejected::Malformed.name());
    }

    /// The table of the current configuration.
    fn table(&self) -> Option<Rc<Shared>> {
        SEEN.with_borrow_mut(|seen| {
            let is_current = |seen: &&Seen| {
                seen.number == self.number && matches!(seen.config.has_changed(), Ok(false))
            };
            if let Some(seen) = seen.as_ref().filter(is_current) {
                return seen.table.clone();
            }
            let mut config = self.parts.config.clone();
            let ingest = config.borrow_and_update().ingest.clone();
            let table = ingest.map(|ingest| Rc::new(Shared(self.table_of(ingest))));
            *seen = Some(Seen {
                number: self.number,
                config,
                table: table.clone(),
            });
            table
        })
    }

    /// The same for all threads.
    fn table_of(&self, ingest: Arc<Ingest>) -> Arc<Table> {
        let is_current = |table: &&Arc<Table>| Arc::ptr_eq(&table.ingest, &ingest);
        if let Some(table) = self.table.read().as_ref().filter(is_current) {
            return Arc::clone(table);
        }
        let mut held = self.table.write();
        if let Some(table) = held.as_ref().filter(is_current) {
            return Arc::clone(table);
        }
        let metrics = &self.parts.metrics;
        let table = Arc::new(Table::new(ingest, |name| metrics.accepted_counter(name)));
        *held = Some(Arc::clone(&table));
        table
    }

    pub async fn handle<B>(
        self: &Arc<Self>,
        peer: Peer,
        head: &request::Parts,
        body: B,
    ) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes>,
    {
        let Some(table) = self.table() else {
            // The configuration changed between routing and now.
            let mut gone = Response::new(Body::whole(Bytes::new()));
            *gone.status_mut() = StatusCode::NOT_FOUND;
            return gone;
        };
        let work = Work {
            accept: self,
            table: &table.0,
            peer,
            head,
            began: Instant::now(),
        };
        work.serve(body).await
    }

    fn enter(&self, concurrent_max: usize) -> Result<Place<&Self>, Rejected> {
        if self.parts.pressure.level().sheds_connections() {
            return Err(Rejected::Overload);
        }
        // Counted first, so that two at once cannot both take the last place.
        let before = self.requests.0.fetch_add(1, Ordering::Relaxed);
        let place = Place(self);
        if before >= concurrent_max {
            return Err(Rejected::Concurrency);
        }
        Ok(place)
    }
}
