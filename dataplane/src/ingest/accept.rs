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

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use bytes::Bytes;
use foldhash::fast::RandomState;
use http::{Method, Request, Response, StatusCode, request};
use parking_lot::RwLock;
use sluice_crds::config::{Dialect, GatewayConfig};
use tokio::sync::watch;

pub use self::answer::Body;
use self::body::Budget;
use self::decision::{Content, Decision, Incoming, Rejected, Reply, Routed};
use self::table::{Table, Tenant};
use super::entry::Draft;
use super::metrics::Metrics;
use super::proxy::{Proxy, ProxyError};
use crate::pressure::Pressure;
use crate::store::queue::{EntryId, NewEntry, Queue, QueueError};

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

/// What the path and the method alone decide.
enum Route {
    Countly(countly::Route),
    Generic,
}

/// One request on its way.
struct Work<'a> {
    accept: &'a Arc<Accept>,
    table: &'a Table,
    peer: Peer,
    head: &'a request::Parts,
    began: Instant,
}

impl<'a> Work<'a> {
    async fn serve<B>(&self, body: B) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes>,
    {
        let rules = &self.table.ingest.accept;
        let route = match &rules.dialect {
            Dialect::Countly => countly::route(&self.head.method, self.path(), &rules.path_prefix)
                .map(Route::Countly),
            Dialect::Generic(_) => generic::route(&self.head.method).map(|()| Route::Generic),
        };
        let route = match route {
            Ok(route) => route,
            Err(reply) => return self.reply(reply),
        };
        let place = match self.accept.enter(rules.concurrent_requests) {
            Ok(place) => place,
            Err(rejected) => return self.refuse(rejected, None),
        };
        let collected = body::collect(body, rules.body_bytes, &self.accept.bodies).await;
        let collected = match collected {
            Ok(collected) => collected,
            Err(rejected) => return self.refuse(rejected, None),
        };
        let incoming = Incoming {
            method: &self.head.method,
            query: self.head.uri.query().unwrap_or_default(),
            headers: &self.head.headers,
            body: &collected.bytes,
        };
        let decision = match (&rules.dialect, route) {
            (Dialect::Generic(rules), _) => generic::decide(self.table, rules, &incoming),
            (Dialect::Countly, Route::Countly(route)) => {
                countly::decide(self.table, route, &incoming)
            }
            // One table says the dialect to both.
            (Dialect::Countly, Route::Generic) => {
                return self.refuse(Rejected::Malformed, None);
            }
        };
        match decision {
            Decision::Reply(reply) => self.reply(reply),
            Decision::Queue(routed) => {
                let request = self.draft(&collected.bytes).encode();
                let reserved = collected.into_reservation();
                let answer = self.queue(routed, request).await;
                drop((reserved, place));
                answer
            }
            Decision::Proxy(tenant) => self.proxy(tenant, &collected.bytes, place).await,
        }
    }

    fn path(&self) -> &'a str {
        self.head.uri.path()
    }

    fn draft<'b>(&self, body: &'b Bytes) -> Draft<'b>
    where
        'a: 'b,
    {
        let target = self.head.uri.path_and_query();
        Draft {
            method: &self.head.method,
            target: target.map_or("/", |target| target.as_str()).as_bytes(),
            headers: &self.head.headers,
            client: self.peer.address.to_canonical(),
            secure: self.peer.secure,
            body,
        }
    }

    async fn queue(&self, routed: Routed<'_>, request: Bytes) -> Response<Body> {
        let Routed {
            tenant,
            key,
            barrier,
            cost,
            success,
        } = routed;
        let parts = &self.accept.parts;
        let id = (parts.ids)();
        let entry = NewEntry {
            id,
            lane: tenant.lane.clone(),
            key: key.clone(),
            barrier,
            cost,
            replay_of: None,
            request,
        };
        match parts.queue.append(entry).await {
            Ok(()) => {
                tenant.accepted.inc();
                parts.metrics.accept_took(self.began.elapsed());
                self.success(id, success)
            }
            Err(QueueError::Full) => self.refuse(Rejected::QueueFull, Some(&key)),
            Err(QueueError::Unavailable(reason)) => {
                tracing::debug!(%reason, "queue takes nothing");
                self.refuse(Rejected::QueueUnavailable, Some(&key))
            }
        }
    }

    fn success(&self, id: EntryId, success: Option<Reply>) -> Response<Body> {
        match &self.table.ingest.accept.dialect {
            Dialect::Countly => answer::countly(success.unwrap_or(Reply {
                status: StatusCode::OK,
                content: Content::Json,
                body: Bytes::from_static(countly::SUCCESS),
                rejected: None,
            })),
            Dialect::Generic(_) => {
                let reply = Reply {
                    status: StatusCode::ACCEPTED,
                    content: Content::Json,
                    body: Bytes::from_static(generic::ACCEPTED),
                    rejected: None,
                };
                answer::with_request_id(answer::generic(reply), &id.to_string())
            }
        }
    }

    async fn proxy(&self, tenant: Option<&Tenant>, body: &Bytes, place: Place) -> Response<Body> {
        let parts = &self.accept.parts;
        let application = tenant.and_then(|tenant| tenant.application.clone());
        let request = self.draft(body).to_request();
        let answer = match &parts.proxy {
            Some(proxy) => proxy.call(request, application).await,
            None => Err(ProxyError::Busy),
        };
        let response = match answer {
            Ok(answer) => answer::proxied(answer, place),
            Err(error) => {
                let (status, text) = match &error {
                    ProxyError::Busy => (
                        StatusCode::SERVICE_UNAVAILABLE,
                        "no upstream can take the call now",
                    ),
                    ProxyError::Timeout => (
                        StatusCode::GATEWAY_TIMEOUT,
                        "the upstream did not answer in time",
                    ),
                    ProxyError::Failed(_) => (StatusCode::BAD_GATEWAY, "the upstream failed"),
                };
                tracing::debug!(%error, "proxied call failed");
                let response = self.problem(status, "upstream", text);
                if error == ProxyError::Busy {
                    answer::with_retry_after(response, fastrand::u64(..))
                } else {
                    response
                }
            }
        };
        parts.metrics.proxied(response.status().as_u16());
        response
    }

    fn reply(&self, reply: Reply) -> Response<Body> {
        if let Some(rejected) = reply.rejected {
            self.accept.parts.metrics.rejected(rejected.name());
        }
        match &self.table.ingest.accept.dialect {
            Dialect::Countly => answer::countly(reply),
            Dialect::Generic(_) => answer::generic(reply),
        }
    }

    /// `key`: who asks, when it is known, so that each client is told its own time.
    fn refuse(&self, rejected: Rejected, key: Option<&[u8]>) -> Response<Body> {
        self.accept.parts.metrics.rejected(rejected.name());
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        let (status, field, text) = match rejected {
            Rejected::BodyTooLarge => (
                StatusCode::PAYLOAD_TOO_LARGE,
                "body",
                "Request body is too large",
            ),
            Rejected::BodyTooSlow => (
                StatusCode::REQUEST_TIMEOUT,
                "body",
                "Request body came too slowly",
            ),
            Rejected::Concurrency => (busy, "gateway", "Too many requests at a time"),
            Rejected::BodyMemory | Rejected::Overload => (busy, "gateway", "Overloaded"),
            Rejected::QueueFull => (busy, "queue", "Queue is full"),
            Rejected::QueueUnavailable => (busy, "queue", "Queue is not available"),
            Rejected::Malformed
            | Rejected::BodyBroken
            | Rejected::Path
            | Rejected::Method
            | Rejected::MissingField
            | Rejected::InvalidField
            | Rejected::UnknownKey
            | Rejected::UnknownKeyDiscarded
            | Rejected::Checksum
            | Rejected::IgnoredDevice
            | Rejected::EmptyBulk => (StatusCode::BAD_REQUEST, "body", "Bad request"),
        };
        let response = self.problem(status, field, text);
        if status != busy {
            return response;
        }
        let spread = key.map_or_else(|| fastrand::u64(..), |key| self.accept.spread.hash_one(key));
        answer::with_retry_after(response, spread)
    }

    fn problem(&self, status: StatusCode, field: &str, text: &str) -> Response<Body> {
        let reply = |body| Reply {
            status,
            content: Content::Json,
            body,
            rejected: None,
        };
        match &self.table.ingest.accept.dialect {
            Dialect::Countly => answer::countly(reply(countly::problem(text))),
            Dialect::Generic(_) => answer::generic(reply(generic::problem(field, text))),
        }
    }
}

/// Whether an answer to this request has no body, whatever its headers say.
pub fn is_bodiless(method: &Method) -> bool {
    *method == Method::HEAD
}
