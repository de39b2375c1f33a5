//! The admin port: health, readiness, metrics. It shows nothing else and changes nothing.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tracing::{debug, error};

/// Probes, a scraper or two and a person. More wait in the backlog.
const CONNECTIONS_MAX: usize = 32;
/// Whole life of a connection, the answer read included.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Bounds the request head; hyper's minimum is 8 KiB.
const REQUEST_BYTES_MAX: usize = 16 * 1024;

/// Whether the operator can do its work.
#[derive(Debug, Default)]
pub struct Health {
    ready: AtomicBool,
}

impl Health {
    /// Everything was seen once.
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }
}

pub struct Admin {
    listener: TcpListener,
    health: Arc<Health>,
    registry: Arc<Registry>,
}

impl Admin {
    pub async fn bind(
        address: SocketAddr,
        health: Arc<Health>,
        registry: Arc<Registry>,
    ) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            health,
            registry,
        })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    pub async fn serve(self) {
        /// Out of descriptors, most likely; trying again at once would spin.
        const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (health, registry) = (Arc::clone(&self.health), Arc::clone(&self.registry));
                    connections.spawn(async move {
                        connection(stream, health, registry).await;
                        drop(place);
                    });
                }
                Err(failure) => {
                    debug!(%failure, "admin connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            while connections.try_join_next().is_some() {}
        }
    }
}

async fn connection(stream: TcpStream, health: Arc<Health>, registry: Arc<Registry>) {
    let service = service_fn(move |request| {
        let answer = answer(&request, &health, &registry);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .max_buf_size(REQUEST_BYTES_MAX)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(failure)) = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
        debug!(%failure, "bad admin connection");
    }
}

fn answer(
    request: &Request<Incoming>,
    health: &Health,
    registry: &Registry,
) -> Response<Full<Bytes>> {
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "ok\n"),
        "/readyz" if health.ready.load(Ordering::Relaxed) => text(StatusCode::OK, "ok\n"),
        "/readyz" => text(
            StatusCode::SERVICE_UNAVAILABLE,
            "not everything was seen yet\n",
        ),
        "/metrics" => {
            let mut body = String::new();
            match prometheus_client::encoding::text::encode(&mut body, registry) {
                Ok(()) => text(StatusCode::OK, body),
                Err(failure) => {
                    error!(%failure, "metrics cannot be written");
                    text(
                        StatusCode::INTERNAL_SERVER_ERROR,
                        "metrics cannot be written\n",
                    )
                }
            }
        }
        _ => text(
            StatusCode::NOT_FOUND,
            "not found; there are /livez, /readyz, /metrics\n",
        ),
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}
