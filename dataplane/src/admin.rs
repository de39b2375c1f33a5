//! The admin port: health, readiness, metrics, the configuration in force, the log filter.
//!
//! A small HTTP server of its own, on the control runtime, so that `/livez` answers as long as that runtime turns. Slow
//! or malformed clients are bounded in number, bytes and time. Itself it shows no secrets and changes nothing but the log
//! filter; other parts of the process add paths of their own as [`Routes`].

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::registry::Registry;
use sluice_crds::config::GatewayConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tracing::{debug, error, info, warn};

use crate::drain::{Drain, Phase};
use crate::limits::{
    ADMIN_BODY_BYTES_MAX, ADMIN_CONNECTION_TIMEOUT, ADMIN_CONNECTIONS_MAX, ADMIN_HEADER_TIMEOUT,
    ADMIN_REQUEST_BYTES_MAX,
};
use crate::telemetry::LogControl;

pub use readiness::{Readiness, ReadinessGuard};

pub mod guard;
mod readiness;

/// What the admin port shows.
pub struct AdminState {
    pub readiness: Readiness,
    pub drain: Drain,
    pub registry: Arc<Registry>,
    pub config: watch::Receiver<Arc<GatewayConfig>>,
    pub log: LogControl,
    /// Asked in order for paths that are not the admin port's own.
    pub routes: Vec<Arc<dyn Routes>>,
}

/// A part of the process that answers some paths of the admin port.
#[async_trait]
pub trait Routes: Send + Sync {
    /// The paths, for people who look for them.
    fn paths(&self) -> &'static str;

    /// `None`: the path is none of its own.
    async fn answer(&self, head: &http::request::Parts, body: Bytes) -> Option<Answer>;
}

pub struct Admin {
    listener: TcpListener,
    state: Arc<AdminState>,
}

impl Admin {
    pub async fn bind(address: SocketAddr, state: AdminState) -> io::Result<Self> {
        Ok(Self {
            listener: TcpListener::bind(address).await?,
            state: Arc::new(state),
        })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped, the drain's time included.
    pub async fn serve(self) {
        /// Out of descriptors, most likely; trying again at once would spin.
        const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
        let places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
        let mut connections = JoinSet::new();
        loop {
            let place = Arc::clone(&places)
                .acquire_owned()
                .await
                .expect("the semaphore is never closed");
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let state = Arc::clone(&self.state);
                    connections.spawn(async move {
                        serve_connection(stream, state).await;
                        drop(place);
                    });
                }
                Err(failure) => {
                    warn!(%failure, "admin connection not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            while let Some(ended) = connections.try_join_next() {
                if let Err(failure) = ended {
                    error!(%failure, "admin connection failed");
                }
            }
        }
    }
}

async fn serve_connection(stream: TcpStream, state: Arc<AdminState>) {
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(&state, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ADMIN_HEADER_TIMEOUT)
        .max_buf_size(ADMIN_REQUEST_BYTES_MAX)
        // One request per connection: a scraper that stays would hold a place for nothing.
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match tokio::time::timeout(ADMIN_CONNECTION_TIMEOUT, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(failure)) => debug!(%failure, "bad admin connection"),
        Err(_) => debug!("admin connection took too long"),
    }
}

pub type Answer = Response<Full<Bytes>>;

async fn answer(state: &AdminState, request: Request<Incoming>) -> Answer {
    let path = request.uri().path();
    let readable = request.method() == Method::GET || request.method() == Method::HEAD;
    match path {
        "/livez" if readable => text(StatusCode::OK, "ok\n"),
        "/readyz" if readable => ready(state),
        "/metrics" if readable => metrics(&state.registry),
        "/config" if readable => text(StatusCode::OK, format!("{:#?}\n", *state.config.borrow())),
        "/log" if readable => text(StatusCode::OK, format!("{}\n", state.log.current())),
        "/log" if request.method() == Method::PUT => {
            set_log_filter(&state.log, request.into_body()).await
        }
        "/livez" | "/readyz" | "/metrics" | "/config" => not_allowed("GET, HEAD"),
        "/log" => not_allowed("GET, HEAD, PUT"),
        _ => answer_by_routes(&state.routes, request).await,
    }
}

async fn answer_by_routes(routes: &[Arc<dyn Routes>], request: Request<Incoming>) -> Answer {
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, ADMIN_BODY_BYTES_MAX).collect().await else {
        return text(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("expected at most {ADMIN_BODY_BYTES_MAX} bytes\n"),
        );
    };
    let body = body.to_bytes();
    for routes in routes {
        if let Some(answer) = routes.answer(&head, body.clone()).await {
            return answer;
        }
    }
    let mut paths = "not found; there are /livez, /readyz, /metrics, /config, /log".to_owned();
    for routes in routes {
        paths.push_str(", ");
        paths.push_str(routes.paths());
    }
    paths.push('\n');
    text(StatusCode::NOT_FOUND, paths)
}

/// One line per thing that is missing.
fn ready(state: &AdminState) -> Answer {
    let mut missing: Vec<String> = state
        .readiness
        .missing()
        .iter()
        .map(|name| format!("waiting for {name}\n"))
        .collect();
    let troubles = state.readiness.troubles();
    missing.extend(
        troubles
            .iter()
            .map(|(name, trouble)| format!("{name}: {trouble}\n")),
    );
    match state.drain.phase() {
        Phase::Serving => {}
        Phase::Draining { .. } => missing.push("draining\n".to_owned()),
        Phase::Closing => missing.push("closing\n".to_owned()),
    }
    if missing.is_empty() {
        text(StatusCode::OK, "ok\n")
    } else {
        text(StatusCode::SERVICE_UNAVAILABLE, missing.concat())
    }
}

fn metrics(registry: &Registry) -> Answer {
    let mut body = String::new();
    if let Err(failure) = prometheus_client::encoding::text::encode(&mut body, registry) {
        error!(%failure, "metrics cannot be written");
        return text(
            StatusCode::INTERNAL_SERVER_ERROR,
            "metrics cannot be written\n",
        );
    }
    let mut answer = text(StatusCode::OK, body);
    let kind =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

async fn set_log_filter<B>(log: &LogControl, body: B) -> Answer
where
    B: Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let Ok(body) = Limited::new(body, ADMIN_BODY_BYTES_MAX).collect().await else {
        return text(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("expected a log filter of at most {ADMIN_BODY_BYTES_MAX} bytes\n"),
        );
    };
    let body = body.to_bytes();
    let Ok(filter) = std::str::from_utf8(&body) else {
        return text(StatusCode::BAD_REQUEST, "expected a log filter as text\n");
    };
    let filter = filter.trim();
    match log.set(filter) {
        Ok(()) => {
            info!(filter, "log filter changed");
            text(StatusCode::OK, format!("{filter}\n"))
        }
        Err(failure) => text(StatusCode::BAD_REQUEST, format!("{failure}\n")),
    }
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = text(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("expected {methods}\n"),
    );
    answer
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(methods));
    answer
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    answer
}

#[cfg(test)]
mod tests;
