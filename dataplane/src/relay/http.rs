//! HTTP on a client listener: the route table, and the upgrade to WebSocket.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_TYPE, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio_rustls::TlsAcceptor;

use super::api;
use super::connection;
use super::limits::HANDSHAKE_DEADLINE;
use super::protocol::Encoding;
use super::shared::Admitted;
use super::socket::Transport;
use super::upgrade::{self, Upgrade};
use super::worker::Worker;

/// Where SDKs connect.
const WEBSOCKET_PATH: &str = "/connection/websocket";
/// Largest request head; hyper answers 431 above it.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// A socket on its way from the listener to a worker.
pub struct Accepted(Mutex<Option<Handover>>);

pub struct Handover {
    pub tcp: std::net::TcpStream,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Counts the sockets that are not WebSockets yet.
    pub permit: OwnedSemaphorePermit,
}

impl Accepted {
    pub fn new(handover: Handover) -> Self {
        Self(Mutex::new(Some(handover)))
    }

    pub(super) fn take(&self) -> Option<Handover> {
        self.0.lock().take()
    }
}

/// What the handler leaves behind when it answers 101.
type Answer = Rc<RefCell<Option<(Encoding, Admitted)>>>;

/// A socket's place on its worker; dropping it gives the place back.
pub struct Place(Rc<Worker>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.shared().socket_gone(self.0.index());
    }
}

/// Speaks HTTP on a new socket; if it becomes a WebSocket, a task of its own goes on with it.
pub(super) async fn serve(worker: Rc<Worker>, handover: Handover) {
    let Handover { tcp, tls, permit } = handover;
    let place = Place(Rc::clone(&worker));
    let transport = match TcpStream::from_std(tcp) {
        Ok(tcp) => match tls {
            None => Transport::Plain(tcp),
            Some(config) => {
                let accept = TlsAcceptor::from(config).accept(tcp);
                match tokio::time::timeout(HANDSHAKE_DEADLINE, accept).await {
                    Ok(Ok(tls)) => Transport::Tls(Box::new(tls)),
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "TLS handshake failed");
                        return;
                    }
                    Err(_) => return,
                }
            }
        },
        Err(error) => {
            tracing::warn!(%error, "socket not usable");
            return;
        }
    };
    let answer = Answer::default();
    let service =
        service_fn(|request| Box::pin(handle(Rc::clone(&worker), Rc::clone(&answer), request)));
    let mut http = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_DEADLINE)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(transport), service);
    let outcome = poll_fn(|cx| http.poll_without_shutdown(cx)).await;
    let Some((encoding, admitted)) = answer.take() else {
        if let Err(error) = outcome {
            tracing::debug!(%error, "HTTP connection ended");
        }
        return;
    };
    let parts = http.into_parts();
    let socket = parts.io.into_inner().into();
    drop(permit);
    let upgraded = connection::Upgraded {
        socket,
        encoding,
        early: parts.read_buf,
        admitted,
        place,
    };
    // A task of its own, so that an idle client does not keep the HTTP state.
    tokio::task::spawn_local(connection::run(Rc::clone(&worker), upgraded));
}

async fn handle(
    worker: Rc<Worker>,
    answer: Answer,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, std::convert::Infallible> {
    let path = request.uri().path();
    Ok(match (request.method(), path) {
        (&Method::GET, WEBSOCKET_PATH) => websocket(&worker, &answer, &request),
        (_, WEBSOCKET_PATH) => text(
            StatusCode::METHOD_NOT_ALLOWED,
            "use GET with a WebSocket upgrade",
        ),
        (_, path) if path == "/api" || path.starts_with("/api/") => {
            api::handle(worker.shared(), request).await
        }
        _ => text(StatusCode::NOT_FOUND, "not found"),
    })
}

fn websocket(
    worker: &Rc<Worker>,
    answer: &Answer,
    request: &Request<Incoming>,
) -> Response<Full<Bytes>> {
    let Upgrade {
        encoding,
        accept,
        subprotocol,
    } = match upgrade::check(request.headers(), request.uri().query()) {
        Ok(upgrade) => upgrade,
        Err(problem) => return text(problem.status, problem.text),
    };
    let admitted = match worker.shared().admit() {
        Ok(admitted) => admitted,
        Err(refused) => {
            worker.metrics().refused(refused);
            let mut response = text(
                StatusCode::SERVICE_UNAVAILABLE,
                "not taking connections now",
            );
            let seconds = worker.shared().retry_after_seconds(refused);
            response
                .headers_mut()
                .insert(RETRY_AFTER, HeaderValue::from(seconds));
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
    };
    *answer.borrow_mut() = Some((encoding, admitted));
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if let Some(subprotocol) = subprotocol {
        headers.insert(
            SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static(subprotocol),
        );
    }
    response
}

pub(super) fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
