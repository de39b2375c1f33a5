//! The admin port: health, readiness, metrics, and what the managers want. It changes nothing.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::fleet::{self, Fleets};
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

/// What the port shows.
#[derive(Clone)]
pub struct Admin {
    pub health: Arc<Health>,
    pub registry: Arc<Registry>,
    pub fleets: Arc<Fleets>,
}

impl Admin {
    pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
        TcpListener::bind(address).await
    }

    pub async fn serve(self, listener: TcpListener) {
        /// Out of descriptors, most likely; trying again at once would spin.
        const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        while let Ok(place) = Arc::clone(&places).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let shown = self.clone();
                    connections.spawn(async move {
                        connection(stream, shown).await;
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

async fn connection(stream: TcpStream, shown: Admin) {
    let service = service_fn(move |request| {
        let answer = shown.answer(&request);
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

impl Admin {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().path();
        match path {
            "/livez" => text(StatusCode::OK, "ok\n"),
            "/readyz" if self.health.ready.load(Ordering::Relaxed) => text(StatusCode::OK, "ok\n"),
            "/readyz" => text(
                StatusCode::SERVICE_UNAVAILABLE,
                "not everything was seen yet\n",
            ),
            "/metrics" => self.metrics(),
            _ => match path.strip_prefix("/fleets") {
                Some(rest) => self.fleets(rest),
                None => text(
                    StatusCode::NOT_FOUND,
                    "not found; there are /livez, /readyz, /metrics, /fleets\n",
                ),
            },
        }
    }

    fn metrics(&self) -> Response<Full<Bytes>> {
        let mut body = String::new();
        match prometheus_client::encoding::text::encode(&mut body, &self.registry) {
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

    /// What the managers want: of all Gateways, or of `/<namespace>/<name>`.
    fn fleets(&self, path: &str) -> Response<Full<Bytes>> {
        let Some(plans) = self.fleets.plans() else {
            let why = "another operator leads, and has the plans\n";
            return text(StatusCode::SERVICE_UNAVAILABLE, why);
        };
        let one = path.trim_matches('/').split_once('/');
        let shown = match one {
            None => fleet::show_all(&plans),
            Some((namespace, name)) => {
                let key = (namespace.to_owned(), name.to_owned());
                match plans.get(&key) {
                    Some(plan) => fleet::show_one(&key, plan),
                    None => return text(StatusCode::NOT_FOUND, "there is no such Gateway\n"),
                }
            }
        };
        let mut answer = text(StatusCode::OK, shown.to_string());
        let kind = HeaderValue::from_static("application/json");
        answer.headers_mut().insert(CONTENT_TYPE, kind);
        answer
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}
