//! One HTTP/1.x connection: request after request, until it is left or becomes a WebSocket.
//!
//! A connection begins with a handshake permit. Its first ingest request trades it for a place among kept connections,
//! which may be many and long-lived; where there is no such place, the connection ends with its answer. What handles
//! a request is boxed, so that a waiting connection is small.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;

use http::{Request, StatusCode};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::head::{Framing, Head};
use super::route::{self, Target};
use super::websocket::{self, Decided};
use super::wire::{Incoming, Next, Wire};
use super::write::{Asked, respond};
use super::{Place, h2};
use crate::drain::{Phase, Watcher};
use crate::ingest::accept::{Accept, KeptConnection, Peer};
use crate::relay::connection;
use crate::relay::limits::{HANDSHAKE_DEADLINE, INGEST_IDLE, LINGER, LINGER_BYTES_MAX};

/// A connection that makes ingest requests.
struct Kept {
    _place: KeptConnection,
    /// The drain waits for the connection to end.
    _watcher: Watcher,
    /// Ready when the process goes away.
    leave: Pin<Box<dyn Future<Output = ()>>>,
}

struct Connection {
    wire: Rc<Wire>,
    peer: Peer,
    permit: Option<OwnedSemaphorePermit>,
    kept: Option<Kept>,
}

/// What becomes of the connection after an answer.
enum After {
    GoOn,
    /// The client may still be sending what nobody reads.
    Linger,
    Close,
}

/// `place` is given back when the connection ends, or goes on with it as a WebSocket.
pub async fn run(wire: Rc<Wire>, peer: Peer, permit: OwnedSemaphorePermit, place: Place) {
    let mut connection = Connection {
        wire,
        peer,
        permit: Some(permit),
        kept: None,
    };
    let mut is_first = true;
    loop {
        let after = match connection.next(is_first).await {
            Next::Request(head) => {
                let shared = Rc::clone(connection.wire.worker());
                match route::target(shared.shared(), head.parts.uri.path()) {
                    Target::WebSocket => match Box::pin(connection.upgrade(*head)).await {
                        Ok(upgrade) => return connection.become_websocket(upgrade, place),
                        Err(after) => after,
                    },
                    target @ (Target::Api | Target::Ingest(_) | Target::Nobody) => {
                        Box::pin(connection.serve(*head, target)).await
                    }
                }
            }
            Next::Http2 => return connection.go_on_as_http2(place).await,
            Next::Refused(status) => Box::pin(connection.refuse(status)).await,
            Next::Ended => After::Close,
        };
        match after {
            After::GoOn => is_first = false,
            After::Linger => {
                let until = Instant::now() + LINGER;
                return connection.wire.linger(until, LINGER_BYTES_MAX).await;
            }
            After::Close => return connection.wire.shutdown(Instant::now() + LINGER).await,
        }
    }
}

impl Connection {
    async fn next(&mut self, is_first: bool) -> Next {
        let idle = if self.kept.is_some() {
            INGEST_IDLE
        } else {
            HANDSHAKE_DEADLINE
        };
        let leave = self.kept.as_mut().map(|kept| kept.leave.as_mut());
        let until = Instant::now() + idle;
        match leave {
            None => self.wire.next(until, is_first, None).await,
            Some(leave) => self.wire.next(until, is_first, Some(leave)).await,
        }
    }

    async fn serve(&mut self, head: Head, target: Target) -> After {
        let worker = Rc::clone(self.wire.worker());
        let mut asked = asked(&head);
        let watcher = match &target {
            Target::Ingest(accept) => self.keep(accept),
            Target::WebSocket | Target::Api | Target::Nobody => None,
        };
        let is_ingest = matches!(target, Target::Ingest(_));
        let request = Request::from_parts(head.parts, Incoming(Rc::clone(&self.wire)));
        let response = route::answer(worker.shared(), target, self.peer, request).await;
        let has_read_all = self.wire.finish_body();
        asked.keep_alive &= has_read_all;
        if is_ingest {
            asked.keep_alive &= self.kept.is_some() && worker.shared().drain().is_serving();
        }
        let after = match respond(&self.wire, &asked, response).await {
            Ok(true) => After::GoOn,
            Ok(false) if has_read_all => After::Close,
            Ok(false) => After::Linger,
            Err(_) => After::Close,
        };
        drop(watcher);
        after
    }

    /// Gives the handshake permit back in exchange for a place among kept connections. Without one the drain waits for
    /// the returned watcher.
    fn keep(&mut self, accept: &Arc<Accept>) -> Option<Watcher> {
        if self.kept.is_some() {
            return None;
        }
        let mut watcher = self.wire.worker().shared().drain().subscribe();
        let Some(place) = accept.keep_connection() else {
            return Some(watcher);
        };
        self.permit = None;
        self.kept = Some(Kept {
            _place: place,
            _watcher: watcher.clone(),
            leave: Box::pin(async move {
                watcher.after(Phase::Serving).await;
            }),
        });
        None
    }

    async fn refuse(&self, status: StatusCode) -> After {
        let shared = self.wire.worker().shared();
        if let Some(ingest) = shared.ingest() {
            ingest.count_malformed();
        }
        let asked = Asked {
            method: http::Method::GET,
            version: http::Version::HTTP_11,
            keep_alive: false,
        };
        let text = status.canonical_reason().unwrap_or("refused");
        let response = route::text(status, text).map(route::whole);
        match respond(&self.wire, &asked, response).await {
            Ok(_) => After::Linger,
            Err(_) => After::Close,
        }
    }

    /// Answers a request for a WebSocket. `Ok`: the answer was 101.
    async fn upgrade(&self, head: Head) -> Result<websocket::Upgrade, After> {
        let worker = self.wire.worker();
        let mut asked = asked(&head);
        let decided = if head.framing == Framing::Length(0) {
            websocket::decide(worker, &head.parts)
        } else {
            let text = "an upgrade has no body";
            Decided::Refused(route::text(StatusCode::BAD_REQUEST, text).map(route::whole))
        };
        match decided {
            Decided::Upgrade(upgrade, response) => {
                match respond(&self.wire, &asked, response).await {
                    Ok(_) => Ok(upgrade),
                    Err(_) => Err(After::Close),
                }
            }
            Decided::Refused(response) => {
                let has_read_all = self.wire.finish_body();
                asked.keep_alive &= has_read_all;
                Err(match respond(&self.wire, &asked, response).await {
                    Ok(true) => After::GoOn,
                    Ok(false) if !has_read_all => After::Linger,
                    Ok(false) | Err(_) => After::Close,
                })
            }
        }
    }

    fn become_websocket(self, upgrade: websocket::Upgrade, place: Place) {
        let worker = Rc::clone(self.wire.worker());
        let Some((transport, early)) = self.wire.into_parts() else {
            return;
        };
        let upgraded = connection::Upgraded {
            socket: transport.into(),
            encoding: upgrade.encoding,
            early,
            admitted: upgrade.admitted,
            place,
        };
        // A task of its own, so that an idle client does not keep the HTTP state.
        tokio::task::spawn_local(connection::run(worker, upgraded));
    }

    async fn go_on_as_http2(self, place: Place) {
        let worker = Rc::clone(self.wire.worker());
        let (Some((transport, early)), Some(permit)) = (self.wire.into_parts(), self.permit) else {
            return;
        };
        Box::pin(h2::run(worker, transport, early, self.peer, permit)).await;
        drop(place);
    }
}

fn asked(head: &Head) -> Asked {
    Asked {
        method: head.parts.method.clone(),
        version: head.parts.version,
        keep_alive: head.keep_alive,
    }
}
