//! One HTTP/2 connection, by ALPN or by prior knowledge: its requests are answered like those of HTTP/1.1.
//!
//! hyper speaks the protocol and bounds what a client can make us hold (streams, windows, headers, resets). Here the
//! connection as a whole is bounded in time: the first request, silence between requests, requests that go nowhere, and
//! the end of the process.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Request, Response};
use hyper::body::{Body as _, Incoming};
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep_until};

use super::head::HEAD_BYTES_MAX;
use super::route::{self, Target};
use crate::drain::Phase;
use crate::ingest::accept::{Body, KeptConnection, Peer};
use crate::relay::limits::{
    HANDSHAKE_DEADLINE, HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_ERRORS_MAX, HTTP2_GOODBYE, HTTP2_PING,
    HTTP2_RESETS_MAX, HTTP2_SEND_BUFFER_BYTES, HTTP2_STALLED, HTTP2_STREAM_WINDOW_BYTES,
    HTTP2_STREAMS_MAX, INGEST_IDLE,
};
use crate::relay::socket::Transport;
use crate::relay::worker::Worker;

/// What the connection's requests do, as its end depends on it.
struct Activity {
    under_way: Cell<usize>,
    /// When a request last began or ended.
    changed: Cell<Instant>,
    permit: RefCell<Option<OwnedSemaphorePermit>>,
    kept: RefCell<Option<KeptConnection>>,
    /// There is no place for a connection that stays.
    is_last: Cell<bool>,
}

impl Activity {
    /// When the connection has been of no use for too long.
    fn deadline(&self) -> Instant {
        let patience = if self.under_way.get() > 0 {
            HTTP2_STALLED
        } else if self.kept.borrow().is_some() {
            INGEST_IDLE
        } else {
            HANDSHAKE_DEADLINE
        };
        self.changed.get() + patience
    }
}

/// A request under way.
struct UnderWay(Rc<Activity>);

impl UnderWay {
    fn new(activity: &Rc<Activity>) -> Self {
        activity.under_way.set(activity.under_way.get() + 1);
        activity.changed.set(Instant::now());
        Self(Rc::clone(activity))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.set(self.0.under_way.get() - 1);
        self.0.changed.set(Instant::now());
    }
}

pub async fn run(
    worker: Rc<Worker>,
    transport: Transport,
    early: Bytes,
    peer: Peer,
    permit: OwnedSemaphorePermit,
) {
    let activity = Rc::new(Activity {
        under_way: Cell::new(0),
        changed: Cell::new(Instant::now()),
        permit: RefCell::new(Some(permit)),
        kept: RefCell::new(None),
        is_last: Cell::new(false),
    });
    let mut watcher = worker.shared().drain().subscribe();
    let service = service_fn(|request| {
        let under_way = UnderWay::new(&activity);
        Box::pin(answer(Rc::clone(&worker), peer, under_way, request))
    });
    let connection = http2::Builder::new(Local)
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS_MAX)
        .max_header_list_size(u32::try_from(HEAD_BYTES_MAX).unwrap_or(u32::MAX))
        .initial_stream_window_size(HTTP2_STREAM_WINDOW_BYTES)
        .initial_connection_window_size(HTTP2_CONNECTION_WINDOW_BYTES)
        .max_send_buf_size(HTTP2_SEND_BUFFER_BYTES)
        .max_pending_accept_reset_streams(HTTP2_RESETS_MAX)
        .max_local_error_reset_streams(HTTP2_ERRORS_MAX)
        .keep_alive_interval(HTTP2_PING)
        .keep_alive_timeout(HTTP2_PING)
        .serve_connection(TokioIo::new(Rewound { early, transport }), service);
    let mut connection = pin!(connection);
    {
        let mut leave = pin!(watcher.after(Phase::Serving));
        let mut timer = pin!(sleep_until(activity.deadline()));
        let ended = poll_fn(|cx| {
            if let Poll::Ready(outcome) = connection.as_mut().poll(cx) {
                return Poll::Ready(Some(outcome));
            }
            if activity.is_last.get() || leave.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            while timer.as_mut().poll(cx).is_ready() {
                let deadline = activity.deadline();
                if deadline <= Instant::now() {
                    return Poll::Ready(None);
                }
                timer.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await;
        if let Some(outcome) = ended {
            if let Err(error) = outcome {
                tracing::debug!(%error, "HTTP/2 connection ended");
            }
            return;
        }
    }
    connection.as_mut().graceful_shutdown();
    // Requests under way are finished, within their own limits and this one.
    let patience = if activity.deadline() <= Instant::now() {
        HTTP2_GOODBYE
    } else {
        HTTP2_STALLED
    };
    let _ = tokio::time::timeout(patience, connection).await;
}

async fn answer(
    worker: Rc<Worker>,
    peer: Peer,
    under_way: UnderWay,
    request: Request<Incoming>,
) -> Result<Response<Counted>, Infallible> {
    let target = route::target(&worker, request.uri().path());
    if let Target::Ingest(accept) = &target {
        let activity = &under_way.0;
        if activity.kept.borrow().is_none() && !activity.is_last.get() {
            match accept.keep_connection() {
                Some(place) => {
                    activity.kept.replace(Some(place));
                    activity.permit.replace(None);
                }
                None => activity.is_last.set(true),
            }
        }
    }
    let is_head = *request.method() == Method::HEAD;
    let response = route::answer(worker.shared(), target, peer, request).await;
    Ok(if is_head {
        without_body(response)
    } else {
        response
    }
    .map(|body| Counted {
        body,
        _under_way: under_way,
    }))
}

/// Says how long the body would have been.
fn without_body(response: Response<Body>) -> Response<Body> {
    let (mut head, body) = response.into_parts();
    if let Some(bytes) = body.size_hint().exact()
        && !head.headers.contains_key(CONTENT_LENGTH)
    {
        head.headers
            .insert(CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    Response::from_parts(head, Body::whole(Bytes::new()))
}

/// An answer on its way; its request is under way until it is sent.
struct Counted {
    body: Body,
    _under_way: UnderWay,
}

impl hyper::body::Body for Counted {
    type Data = Bytes;
    type Error = <Body as hyper::body::Body>::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> hyper::body::SizeHint {
        self.body.size_hint()
    }
}

/// Tasks of a connection stay on its worker.
#[derive(Clone, Copy)]
struct Local;

impl<F> Executor<F> for Local
where
    F: Future<Output = ()> + 'static,
{
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// A socket of which something was read already.
struct Rewound {
    early: Bytes,
    transport: Transport,
}

impl AsyncRead for Rewound {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            return Pin::new(&mut this.transport).poll_read(cx, buf);
        }
        let taken = this.early.len().min(buf.remaining());
        buf.put_slice(&this.early[..taken]);
        this.early.advance(taken);
        if this.early.is_empty() {
            this.early = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().transport).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_shutdown(cx)
    }
}
