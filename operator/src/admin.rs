//! The admin port: health, readiness, metrics, and what the managers want. It changes nothing.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tracing::error;

use crate::fleet::{self, Fleets};
use crate::web::{self, Answer, Limits};

/// Probes, a scraper or two and a person; each asks one thing and reads the answer.
const LIMITS: Limits = Limits {
    connections: 32,
    lifetime: Duration::from_secs(10),
    keep_alive: false,
};

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

    /// Serves for ever.
    pub async fn serve(self, listener: TcpListener) {
        let handler = move |request: Request<Incoming>| {
            let answer = self.answer(&request);
            async move { answer }.boxed()
        };
        web::serve(listener, LIMITS, Arc::new(handler)).await;
    }

    fn answer(&self, request: &Request<Incoming>) -> Answer {
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

    fn metrics(&self) -> Answer {
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
    fn fleets(&self, path: &str) -> Answer {
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

fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Answer::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}
