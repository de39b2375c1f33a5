//! The HTTP/1.1 client of one upstream: connections that are kept, requests out, answers in.
//!
//! A request that never got onto the wire, because the upstream had closed a kept connection, goes out again at once on
//! another one: that is no failure of anybody. Owns the idle connections; limits, deadlines and what an
//! answer means are up to the caller. Lives on one thread. Error texts hold no addresses, which can carry credentials.

use std::cell::RefCell;
use std::error::Error;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use thiserror::Error;
use tokio::time::Instant;
use tower_service::Service;

pub use self::address::Address;
use crate::outbound::{self, with_causes};

mod address;

/// Kept connections: about as many as a busy upstream has in use at a time.
const IDLE_MAX: usize = 256;
/// Below the five seconds after which common servers close a connection without a word.
const IDLE_TIME: Duration = Duration::from_secs(4);
/// An upstream that does not even take a connection is not worth a whole attempt's time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest head of an answer; as much as common servers allow themselves.
const HEAD_BYTES_MAX: usize = 64 * 1024;

pub(super) type Outgoing = Request<Full<Bytes>>;

/// A connection whose answer is being read; dropped, it is closed.
pub(super) type Connection = SendRequest<Full<Bytes>>;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(super) enum Failure {
    /// Nothing was sent.
    #[error("not connected: {0}")]
    NotConnected(Arc<str>),
    /// The upstream may have seen the request, or a part of it.
    #[error("connection broke: {0}")]
    Broken(Arc<str>),
}

/// An answer's body as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Body {
    pub(super) bytes: Bytes,
    pub(super) complete: bool,
}

struct Idle {
    connection: Connection,
    since: Instant,
}

pub(super) struct Server {
    address: Address,
    /// An error stays: it is about the certificates of the system.
    connector: Result<HttpsConnector<HttpConnector>, Arc<str>>,
    idle: RefCell<Vec<Idle>>,
    last_failure: RefCell<Option<Failure>>,
}

impl Server {
    pub(super) fn new(address: Address) -> Rc<Self> {
        let connector = connector(address.encrypted()).map_err(Arc::from);
        Rc::new(Self {
            address,
            connector,
            idle: RefCell::default(),
            last_failure: RefCell::default(),
        })
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Why there was no answer the last time there was none, for people.
    pub(super) fn last_failure(&self) -> Option<Failure> {
        self.last_failure.borrow().clone()
    }

    /// Sends a request and waits for the head of the answer. `repeat` makes the request again when it may be sent
    /// twice: once, when a kept connection turns out to be closed although something may have been written.
    pub(super) async fn exchange(
        &self,
        request: Outgoing,
        repeat: Option<&dyn Fn() -> Option<Outgoing>>,
    ) -> Result<(Response<Incoming>, Connection), Failure> {
        let answer = self.try_exchange(request, repeat).await;
        if let Err(failure) = &answer {
            *self.last_failure.borrow_mut() = Some(failure.clone());
        }
        answer
    }

    async fn try_exchange(
        &self,
        request: Outgoing,
        repeat: Option<&dyn Fn() -> Option<Outgoing>>,
    ) -> Result<(Response<Incoming>, Connection), Failure> {
        let mut request = request;
        let mut use_idle = true;
        loop {
            let idle = use_idle.then(|| self.take_idle()).flatten();
            let was_idle = idle.is_some();
            let mut connection = match idle {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let mut failure = match connection.try_send_request(request).await {
                Ok(response) => return Ok((response, connection)),
                Err(failure) => failure,
            };
            let unsent = failure.take_message();
            let failure = failure.into_error();
            let again = match unsent {
                Some(unsent) if was_idle => Some(unsent),
                Some(_) => {
                    return Err(Failure::NotConnected(with_causes(&failure).into()));
                }
                None if was_idle && is_closed(&failure) => {
                    use_idle = false;
                    repeat.and_then(|make| make())
                }
                None => None,
            };
            match again {
                Some(again) => request = again,
                None => return Err(Failure::Broken(with_causes(&failure).into())),
            }
        }
    }

    async fn connect(&self) -> Result<Connection, Failure> {
        let not_connected = |text: &str| Failure::NotConnected(text.into());
        let mut connector = self
            .connector
            .clone()
            .map_err(|text| not_connected(&text))?;
        let connecting = async {
            let stream = connector
                .call(self.address.uri().clone())
                .await
                .map_err(|failure| not_connected(&with_causes(failure.as_ref())))?;
            http1::Builder::new()
                .max_buf_size(HEAD_BYTES_MAX)
                .handshake(stream)
                .await
                .map_err(|failure| not_connected(&with_causes(&failure)))
        };
        let (sender, connection) = tokio::time::timeout(CONNECT_TIMEOUT, connecting)
            .await
            .map_err(|_| not_connected("no connection in time"))??;
        tokio::task::spawn_local(async move {
            // How it ended shows where it was used.
            let _ = connection.await;
        });
        Ok(sender)
    }

    fn take_idle(&self) -> Option<Connection> {
        let mut idle = self.idle.borrow_mut();
        while let Some(Idle { connection, since }) = idle.pop() {
            if since.elapsed() > IDLE_TIME {
                // The rest is older.
                idle.clear();
                return None;
            }
            if connection.is_ready() {
                return Some(connection);
            }
        }
        None
    }

    /// Keeps a connection whose answer was read to its end.
    pub(super) async fn keep(&self, mut connection: Connection) {
        if connection.ready().await.is_err() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() < IDLE_MAX {
            idle.push(Idle {
                connection,
                since: Instant::now(),
            });
        }
    }

    /// Closes connections that were not used for long.
    pub(super) fn close_idle(&self) {
        self.idle
            .borrow_mut()
            .retain(|idle| idle.since.elapsed() <= IDLE_TIME && !idle.connection.is_closed());
    }
}

/// Reads an answer's body up to a bound.
pub(super) async fn read_body(body: &mut Incoming, bytes_max: usize) -> Result<Body, Failure> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|failure| Failure::Broken(with_causes(&failure).into()))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        let room = bytes_max - bytes.len();
        if data.len() > room {
            bytes.extend_from_slice(&data[..room]);
            return Ok(Body {
                bytes: bytes.freeze(),
                complete: false,
            });
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Body {
        bytes: bytes.freeze(),
        complete: true,
    })
}

fn connector(encrypted: bool) -> Result<HttpsConnector<HttpConnector>, String> {
    let mut http = HttpConnector::new();
    http.set_nodelay(true);
    outbound::connector(encrypted, http)
}

/// Whether the peer had closed the connection, as opposed to having answered badly.
fn is_closed(failure: &hyper::Error) -> bool {
    if failure.is_incomplete_message() || failure.is_closed() || failure.is_canceled() {
        return true;
    }
    let cause = failure
        .source()
        .and_then(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| {
        matches!(
            cause.kind(),
            io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe
                | io::ErrorKind::NotConnected
        )
    })
}

#[cfg(test)]
mod tests;
