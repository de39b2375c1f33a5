//! Calls that need the upstream's own answer: a place in the reserved part of its limits, then the answer as it comes.
//!
//! A call waits a little for its place, before what is queued; when there is no hope it is told at once. Its place is
//! free again when the answer was read to its end, or nobody wants it any more.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, PROXY_AUTHENTICATE, RETRY_AFTER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, Method, Response};
use http_body_util::BodyExt;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Engine, Event, judge};
use crate::clock::unix_ms;
use crate::ingest::deliver::hold::Hold;
use crate::ingest::deliver::outgoing::{KEEP_ALIVE, PROXY_CONNECTION, outgoing};
use crate::ingest::deliver::scheduler::UpstreamId;
use crate::ingest::limiter::{Class, Sample, SampleOutcome};
use crate::ingest::proxy::{Body, Call, ProxyError};
use crate::ingest::upstream::{Connection, Failure, Server};
use crate::ingest::verdict::{outcome_of, parse_retry_after};

/// Calls that wait for their place. More are refused: each wait would be too long.
const WAITING_MAX: usize = 256;
/// How long a client is kept waiting for a place.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// An upstream that sends nothing more of an answer for so long has forgotten it.
const STALL_MAX: Duration = Duration::from_secs(30);

pub(super) struct WaitingCall {
    call: Call,
    since: Instant,
    /// When it may be worth asking again; `None`: when something ends.
    again: Option<Instant>,
}

impl Engine {
    pub(super) fn has_room_for_calls(&self) -> bool {
        self.waiting_calls.len() < WAITING_MAX
    }

    pub(super) fn take_call(&mut self, call: Call) {
        self.waiting_calls.push_back(WaitingCall {
            call,
            since: Instant::now(),
            again: None,
        });
    }

    pub(super) fn calls_wake_at(&self) -> Option<Instant> {
        let waiting = self.waiting_calls.iter();
        waiting
            .map(|waiting| {
                let last = waiting.since + WAIT_MAX;
                waiting.again.map_or(last, |again| again.min(last))
            })
            .min()
    }

    pub(super) fn serve_calls(&mut self, now: Instant) {
        for _ in 0..self.waiting_calls.len() {
            let Some(mut waiting) = self.waiting_calls.pop_front() else {
                return;
            };
            if waiting.call.reply.is_closed() {
                continue;
            }
            let application = waiting.call.application.as_ref();
            let name = application.map_or("", |application| application.name.as_str());
            match self.scheduler.call(name, now.into_std()) {
                Ok(upstream) => self.call(waiting.call, upstream, now),
                Err(held) if is_hopeless(held.why) || now - waiting.since >= WAIT_MAX => {
                    let _ = waiting.call.reply.send(Err(ProxyError::Busy));
                }
                Err(held) => {
                    waiting.again = held.until.map(Instant::from_std);
                    self.waiting_calls.push_back(waiting);
                }
            }
        }
    }

    fn call(&mut self, call: Call, upstream: UpstreamId, now: Instant) {
        let sender = self.sender.clone();
        let place = Place {
            sender,
            upstream,
            began: now,
            latency: None,
            outcome: SampleOutcome::Abandoned,
            connection: None,
        };
        let Some(state) = self.servers.get(&upstream) else {
            let _ = call.reply.send(Err(ProxyError::Busy));
            return;
        };
        let server = Rc::clone(&state.server);
        let timeout = self.scheduler.call_timeout(upstream);
        self.tasks.spawn_local(answer(server, call, place, timeout));
    }

    pub(super) fn call_ended(
        &mut self,
        upstream: UpstreamId,
        sample: Sample,
        connection: Option<Connection>,
        now: Instant,
    ) {
        self.scheduler
            .ended(upstream, Class::Proxied, sample, now.into_std());
        if let Some(failed) = judge::fails(sample.outcome) {
            self.scheduler.blame(upstream, None, failed, now.into_std());
        }
        if let (Some(connection), Some(state)) = (connection, self.servers.get(&upstream)) {
            let server = Rc::clone(&state.server);
            self.tasks
                .spawn_local(async move { server.keep(connection).await });
        }
    }
}

/// What does not end while a client waits.
fn is_hopeless(why: Hold) -> bool {
    match why {
        Hold::Breaker
        | Hold::RetryAfter
        | Hold::Paused
        | Hold::UpstreamPaused
        | Hold::UnhealthyUpstream
        | Hold::Draining => true,
        Hold::Cap
        | Hold::GlobalCap
        | Hold::Rate
        | Hold::InFlight
        | Hold::OrderBlocked
        | Hold::Backoff
        | Hold::Store => false,
    }
}

/// A call's place in the limits; given back when it is dropped, wherever that is.
struct Place {
    sender: mpsc::UnboundedSender<Event>,
    upstream: UpstreamId,
    began: Instant,
    /// To the head of the answer: how long its body takes is up to the client as well.
    latency: Option<Duration>,
    outcome: SampleOutcome,
    connection: Option<Connection>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let sample = Sample {
            latency: self.latency.unwrap_or_else(|| self.began.elapsed()),
            outcome: self.outcome,
        };
        // The loop may have ended.
        let _ = self.sender.send(Event::CallEnded {
            upstream: self.upstream,
            sample,
            connection: self.connection.take(),
        });
    }
}

async fn answer(server: Rc<Server>, call: Call, mut place: Place, timeout: Duration) {
    let Call {
        request, mut reply, ..
    } = call;
    let make = || outgoing(&request, server.address());
    let Some(first) = make() else {
        let _ = reply.send(Err(ProxyError::Failed("target cannot be sent".into())));
        return;
    };
    // Whoever asks for something may not want it done twice.
    let is_safe = request.method == Method::GET || request.method == Method::HEAD;
    let exchange = async {
        let ended = server.exchange(first, is_safe.then_some(&make as _)).await;
        match (ended, is_safe.then(make).flatten()) {
            // What broke the first one, such as a restart, may be over.
            (Err(_), Some(second)) => server.exchange(second, None).await,
            (ended, _) => ended,
        }
    };
    let result = tokio::select! {
        result = tokio::time::timeout(timeout, exchange) => result,
        () = reply.closed() => return,
    };
    let result = match result {
        Err(_) => {
            place.outcome = SampleOutcome::TimedOut;
            Err(ProxyError::Timeout)
        }
        Ok(Err(Failure::NotConnected(reason) | Failure::Broken(reason))) => {
            place.outcome = SampleOutcome::Failed;
            Err(ProxyError::Failed(reason))
        }
        Ok(Ok((response, connection))) => Ok(streamed(response, connection, place)),
    };
    // A client that has left drops the answer, which gives the place back.
    let _ = reply.send(result);
}

fn streamed(
    response: Response<Incoming>,
    connection: Connection,
    mut place: Place,
) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    place.latency = Some(place.began.elapsed());
    let retry_after = head.headers.get(RETRY_AFTER);
    let retry_after = retry_after.and_then(|value| parse_retry_after(value.as_bytes(), unix_ms()));
    place.outcome = outcome_of(head.status.as_u16(), retry_after);
    remove_hop_headers(&mut head.headers);
    let mut body = Streamed {
        body,
        place: Some(place),
        connection: Some(connection),
        stall: None,
    };
    if body.is_end_stream() {
        // Nobody asks an empty body for its end.
        body.end();
    }
    Response::from_parts(head, body.boxed())
}

/// Headers of the connection to the upstream, and those it names itself.
fn remove_hop_headers(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let fixed = [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHENTICATE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    for name in fixed.into_iter().chain(named) {
        headers.remove(name);
    }
}

/// The upstream's body on its way to a client, which another thread reads.
struct Streamed {
    body: Incoming,
    place: Option<Place>,
    connection: Option<Connection>,
    stall: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Streamed {
    /// The answer was read: its place is free, and its connection can be used again.
    fn end(&mut self) {
        if let Some(mut place) = self.place.take() {
            place.connection = self.connection.take();
        }
    }
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) else {
            let stall = self
                .stall
                .get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL_MAX)));
            ready!(stall.as_mut().poll(cx));
            self.place = None;
            return Poll::Ready(Some(Err(ProxyError::Timeout)));
        };
        self.stall = None;
        match frame {
            Some(Ok(frame)) => {
                if self.body.is_end_stream() {
                    self.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(failure)) => {
                self.place = None;
                let failure = ProxyError::Failed(failure.to_string().into());
                Poll::Ready(Some(Err(failure)))
            }
            None => {
                self.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
