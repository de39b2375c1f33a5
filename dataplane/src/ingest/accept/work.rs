//! One request from its head to its answer: route, place, body, decision, queue or upstream.
//!
//! The order is by cost: what can be refused without reading the body is. All that is held for the request (its place,
//! memory for its body) is given back when the answer is made, for a streamed answer when that ends.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Response, StatusCode, request};
use sluice_crds::config::Dialect;

use super::answer::{self, Body};
use super::decision::{Content, Decision, Incoming, Rejected, Reply, Routed};
use super::table::{Table, Tenant};
use super::{Accept, Peer, Place, body, countly, generic};
use crate::ingest::entry::Draft;
use crate::ingest::proxy::ProxyError;
use crate::store::queue::{EntryId, NewEntry, QueueError};

/// What the path and the method alone decide.
enum Route {
    Countly(countly::Route),
    Generic,
}

/// One request on its way.
pub struct Work<'a> {
    pub accept: &'a Arc<Accept>,
    pub table: &'a Table,
    pub peer: Peer,
    pub head: &'a request::Parts,
    pub began: Instant,
}

impl<'a> Work<'a> {
    pub async fn serve<B>(&self, body: B) -> Response<Body>
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
            Decision::Proxy(tenant) => {
                let place = place.hold(self.accept);
                Box::pin(self.proxy(tenant, &collected.bytes, place)).await
            }
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
        let spread = self.accept.spread.hash_one(&key);
        let mut lane = tenant.lane.clone();
        lane.partition = parts.queue.partition_of(&lane.application, &key);
        let entry = NewEntry {
            id,
            lane,
            key,
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
            Err(QueueError::Full) => self.refuse(Rejected::QueueFull, Some(spread)),
            Err(QueueError::Unavailable(reason)) => {
                tracing::debug!(%reason, "queue takes nothing");
                self.refuse(Rejected::QueueUnavailable, Some(spread))
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

    /// `spread`: stands for who asks, when it is known, so that each client is told its own time.
    fn refuse(&self, rejected: Rejected, spread: Option<u64>) -> Response<Body> {
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
        let spread = spread.unwrap_or_else(|| fastrand::u64(..));
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
