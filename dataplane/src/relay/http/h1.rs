//! One HTTP/1.x connection: request after request, until it is left or becomes a WebSocket.
//!
//! A connection begins with a handshake permit. Its first ingest request trades it for a place among kept connections,
//! which may be many and long-lived; where there is no such place, the connection ends with its answer. What handles
//! a request is boxed, so that a waiting connection is small.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

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
    leave: Leave,
}

/// Ready when the process goes away.
struct Leave {
    /// Made while the process served. The drain waits for the connection to end.
    watcher: Watcher,
    /// Wakes the connection's task, once it is registered; polling it touches what all threads touch.
    wait: Pin<Box<dyn Future<Output = ()>>>,
    is_registered: bool,
}

impl Future for Leave {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // A connection has one task, which is woken for whatever it waits for.
        if self.is_registered && !self.watcher.may_have_changed() {
            return Poll::Pending;
        }
        self.is_registered = true;
        self.wait.as_mut().poll(cx)
    }
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
                match route::target(&shared, head.parts.uri.path()) {
                    Target::WebSocket => match Box::pin(connection.upgrade(head)).await {
                        Ok(upgrade) => return connection.become_websocket(upgrade, place),
                        Err(after) => after,
                    },
                    target @ (Target::Api | Target::Ingest(_) | Target::Nobody) => {
                        Box::pin(connection.serve(head, target)).await
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
        match &mut self.kept {
            None => {
                let until = Instant::now() + HANDSHAKE_DEADLINE;
                self.wire.next(until, is_first, None).await
            }
            Some(kept) => {
                // Far away: the worker's last look at its clock will do.
                let worker = self.wire.worker();
                let until = worker.timer_at(worker.coarse_ms()) + INGEST_IDLE;
                let leave = Pin::new(&mut kept.leave);
                self.wire.next(until, is_first, Some(leave)).await
            }
        }
    }

    async fn serve(&mut self, head: Box<Head>, target: Target<'_>) -> After {
        let worker = Rc::clone(self.wire.worker());
        let mut asked = asked(&head);
        let watcher = match &target {
            Target::Ingest(accept) => self.keep(accept),
            Target::WebSocket | Target::Api | Target::Nobody => None,
        };
        let is_ingest = matches!(target, Target::Ingest(_));
        let body = Incoming(Rc::clone(&self.wire));
        let response = match target {
            Target::Ingest(accept) => accept.handle(self.peer, &head.parts, body).await,
            target @ (Target::WebSocket | Target::Api | Target::Nobody) => {
                let request = Request::from_parts(head.parts, body);
                Box::pin(route::answer(worker.shared(), target, self.peer, request)).await
            }
        };
        let has_read_all = self.wire.finish_body();
        asked.keep_alive &= has_read_all;
        if is_ingest {
            let kept = self.kept.as_ref();
            asked.keep_alive &= kept.is_some_and(|kept| !kept.leave.watcher.may_have_changed());
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
        // One that was made while the process goes away would not see that it does.
        let place = watcher
            .is_serving()
            .then(|| accept.keep_connection())
            .flatten();
        let Some(place) = place else {
            return Some(watcher);
        };
        self.permit = None;
        self.kept = Some(Kept {
            _place: place,
            leave: Leave {
                watcher: watcher.clone(),
                wait: Box::pin(async move {
                    watcher.after(Phase::Serving).await;
                }),
                is_registered: false,
            },
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
    async fn upgrade(&self, head: Box<Head>) -> Result<websocket::Upgrade, After> {
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
