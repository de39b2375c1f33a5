//! The socket of an HTTP/1.x connection: what was read and not used yet, the body under way, the timer.
//!
//! Reads go through the worker's buffer, so that a connection which waits holds none. The body of a request is read
//! by whoever handles it ([`Incoming`]); the connection's task reads heads and writes answers. Nothing is borrowed
//! across a wait.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use http::StatusCode;
use hyper::body::{Body, Frame, SizeHint};
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::chunked::{Decoder, Step};
use super::head::{self, Framing, HTTP2_PREFACE, Head, Scan};
use crate::relay::limits::HEAD_DEADLINE;
use crate::relay::socket::Transport;
use crate::relay::worker::Worker;

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

pub struct Wire {
    worker: Rc<Worker>,
    io: RefCell<Io>,
}

struct Io {
    transport: Transport,
    buffer: BytesMut,
    body: BodyState,
    /// What is left to be written before the client sends its body.
    promise: &'static [u8],
    timer: Option<Pin<Box<Sleep>>>,
}

enum BodyState {
    /// All of it was read.
    Done,
    Length(u64),
    Chunked(Decoder),
    /// The rest cannot be read, nor anything behind it.
    Broken,
}

#[derive(Debug, Error)]
pub enum BodyError {
    #[error("malformed body")]
    Malformed,
    #[error("the connection ended within the body")]
    Cut,
}

/// What came instead of more answers to write.
pub enum Next {
    Request(Box<Head>),
    /// The client speaks HTTP/2; its preface is not consumed.
    Http2,
    Refused(StatusCode),
    /// The client is gone, or has nothing to say any more.
    Ended,
}

impl Wire {
    pub fn new(worker: Rc<Worker>, transport: Transport) -> Rc<Self> {
        Rc::new(Self {
            worker,
            io: RefCell::new(Io {
                transport,
                buffer: BytesMut::new(),
                body: BodyState::Done,
                promise: b"",
                timer: None,
            }),
        })
    }

    pub fn worker(&self) -> &Rc<Worker> {
        &self.worker
    }

    /// Waits for a request until `idle_until`; one that has begun has a deadline of its own. `leave` ends an idle wait.
    pub async fn next(
        &self,
        idle_until: Instant,
        is_first: bool,
        mut leave: Option<Pin<&mut (dyn Future<Output = ()> + '_)>>,
    ) -> Next {
        let mut scan = Scan::default();
        let mut until = idle_until;
        let mut has_begun = false;
        poll_fn(|cx| {
            loop {
                let io = &mut *self.io.borrow_mut();
                head::skip_empty_lines(&mut io.buffer);
                if is_first && !io.buffer.is_empty() && is_preface_so_far(&io.buffer) {
                    if io.buffer.len() >= HTTP2_PREFACE.len() {
                        return Poll::Ready(Next::Http2);
                    }
                } else {
                    match scan.end(&io.buffer) {
                        Ok(None) => {}
                        Ok(Some(end)) => return Poll::Ready(io.begin(end)),
                        Err(status) => return Poll::Ready(Next::Refused(status)),
                    }
                }
                if !io.buffer.is_empty() && !has_begun {
                    has_begun = true;
                    until = until.min(Instant::now() + HEAD_DEADLINE);
                }
                match io.poll_fill(cx, &self.worker) {
                    Poll::Ready(Ok(1..)) => {}
                    Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(Next::Ended),
                    Poll::Pending => break,
                }
            }
            let io = &mut *self.io.borrow_mut();
            if io.buffer.is_empty()
                && let Some(leave) = &mut leave
                && leave.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Next::Ended);
            }
            ready!(io.poll_timer(cx, until));
            Poll::Ready(if has_begun {
                Next::Refused(StatusCode::REQUEST_TIMEOUT)
            } else {
                Next::Ended
            })
        })
        .await
    }

    /// Reads what is left of the request's body if it is here already. `false`: the connection cannot be used further.
    pub fn finish_body(&self) -> bool {
        let io = &mut *self.io.borrow_mut();
        loop {
            match io.next_data() {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return false,
            }
        }
        let is_done = matches!(io.body, BodyState::Done);
        if is_done && io.buffer.is_empty() {
            // Waiting connections hold no memory.
            io.buffer = BytesMut::new();
        }
        is_done
    }

    /// `until` is asked once, and only when there is something to wait for.
    pub async fn write_all(&self, bytes: &[u8], until: impl Fn() -> Instant) -> io::Result<()> {
        let mut rest = bytes;
        let mut asked = None;
        poll_fn(|cx| {
            let io = &mut *self.io.borrow_mut();
            match io.poll_write_all(cx, &mut rest) {
                Poll::Ready(written) => Poll::Ready(written),
                Poll::Pending => {
                    let until = *asked.get_or_insert_with(&until);
                    ready!(io.poll_timer(cx, until));
                    Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
                }
            }
        })
        .await
    }

    /// Ends our side and reads what the client still sends, for a while: closed at once, the answer would be lost with
    /// what it has not read.
    pub async fn linger(&self, until: Instant, mut bytes_max: usize) {
        poll_fn(|cx| {
            let io = &mut *self.io.borrow_mut();
            let _ = Pin::new(&mut io.transport).poll_shutdown(cx);
            loop {
                io.buffer.clear();
                match io.poll_fill(cx, &self.worker) {
                    Poll::Ready(Ok(read @ 1..)) if read < bytes_max => bytes_max -= read,
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            io.poll_timer(cx, until)
        })
        .await;
    }

    pub async fn shutdown(&self, until: Instant) {
        poll_fn(|cx| {
            let io = &mut *self.io.borrow_mut();
            match Pin::new(&mut io.transport).poll_shutdown(cx) {
                Poll::Ready(_) => Poll::Ready(()),
                Poll::Pending => io.poll_timer(cx, until),
            }
        })
        .await;
    }

    /// The socket and what was read beyond the last request. `None`: a handler still holds its body.
    pub fn into_parts(self: Rc<Self>) -> Option<(Transport, Bytes)> {
        let io = Rc::into_inner(self)?.io.into_inner();
        Some((io.transport, io.buffer.freeze()))
    }
}

fn is_preface_so_far(bytes: &[u8]) -> bool {
    let common = bytes.len().min(HTTP2_PREFACE.len());
    bytes[..common] == HTTP2_PREFACE[..common]
}

impl Io {
    /// Takes a head off the buffer; what follows is its body.
    fn begin(&mut self, end: usize) -> Next {
        let head = match head::parse(self.buffer.split_to(end).freeze()) {
            Ok(head) => head,
            Err(status) => return Next::Refused(status),
        };
        self.body = match head.framing {
            Framing::Length(0) => BodyState::Done,
            Framing::Length(bytes) => BodyState::Length(bytes),
            Framing::Chunked => BodyState::Chunked(Decoder::default()),
        };
        self.promise = if head.expects_continue { CONTINUE } else { b"" };
        Next::Request(Box::new(head))
    }

    /// Reads what is there. 0: the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>, worker: &Worker) -> Poll<io::Result<usize>> {
        let mut shared = worker.read_buffer();
        let mut read = ReadBuf::new(&mut shared);
        ready!(Pin::new(&mut self.transport).poll_read(cx, &mut read))?;
        self.buffer.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    }

    /// The next piece of the body that is in the buffer. `None`: there is none, or no more of the body.
    fn next_data(&mut self) -> Result<Option<Bytes>, BodyError> {
        match &mut self.body {
            BodyState::Done => Ok(None),
            BodyState::Broken => Err(BodyError::Malformed),
            BodyState::Length(_) if self.buffer.is_empty() => Ok(None),
            BodyState::Length(left) => {
                let taken = usize::try_from(*left)
                    .unwrap_or(usize::MAX)
                    .min(self.buffer.len());
                *left -= taken as u64;
                if *left == 0 {
                    self.body = BodyState::Done;
                }
                Ok(Some(self.buffer.split_to(taken).freeze()))
            }
            BodyState::Chunked(decoder) => match decoder.decode(&mut self.buffer) {
                Ok(Step::Data(data)) => Ok(Some(data)),
                Ok(Step::NeedsMore) => Ok(None),
                Ok(Step::End) => {
                    self.body = BodyState::Done;
                    Ok(None)
                }
                Err(_) => {
                    self.body = BodyState::Broken;
                    Err(BodyError::Malformed)
                }
            },
        }
    }

    fn poll_data(
        &mut self,
        cx: &mut Context<'_>,
        worker: &Worker,
    ) -> Poll<Option<Result<Bytes, BodyError>>> {
        loop {
            match self.next_data() {
                Ok(Some(data)) => return Poll::Ready(Some(Ok(data))),
                Ok(None) if matches!(self.body, BodyState::Done) => return Poll::Ready(None),
                Ok(None) => {}
                Err(error) => return Poll::Ready(Some(Err(error))),
            }
            if !self.promise.is_empty() {
                let mut promise = self.promise;
                let written = self.poll_write_all(cx, &mut promise);
                self.promise = promise;
                if ready!(written).is_err() {
                    self.body = BodyState::Broken;
                    return Poll::Ready(Some(Err(BodyError::Cut)));
                }
            }
            match ready!(self.poll_fill(cx, worker)) {
                Ok(1..) => {}
                Ok(0) | Err(_) => {
                    self.body = BodyState::Broken;
                    return Poll::Ready(Some(Err(BodyError::Cut)));
                }
            }
        }
    }

    fn poll_write_all(&mut self, cx: &mut Context<'_>, rest: &mut &[u8]) -> Poll<io::Result<()>> {
        while !rest.is_empty() {
            let written = ready!(Pin::new(&mut self.transport).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            *rest = &rest[written..];
        }
        Pin::new(&mut self.transport).poll_flush(cx)
    }

    /// One timer for everything that is waited for: it is moved only when it would fire too late, and moved on when it
    /// fires too early, so that a busy connection seldom touches it.
    fn poll_timer(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(until)));
        if timer.deadline() > until {
            timer.as_mut().reset(until);
        }
        loop {
            ready!(timer.as_mut().poll(cx));
            if timer.deadline() >= until {
                return Poll::Ready(());
            }
            timer.as_mut().reset(until);
        }
    }
}

/// The body of the request under way.
pub struct Incoming(pub Rc<Wire>);

impl Body for Incoming {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let wire = &self.0;
        let data = ready!(wire.io.borrow_mut().poll_data(cx, &wire.worker));
        Poll::Ready(data.map(|data| data.map(Frame::data)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.0.io.borrow().body, BodyState::Done)
    }

    fn size_hint(&self) -> SizeHint {
        match self.0.io.borrow().body {
            BodyState::Done | BodyState::Broken => SizeHint::with_exact(0),
            BodyState::Length(bytes) => SizeHint::with_exact(bytes),
            BodyState::Chunked(_) => SizeHint::new(),
        }
    }
}
