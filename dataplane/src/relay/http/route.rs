//! Whose a request is: the route table of client listeners, for all versions of HTTP.

use std::error::Error;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use sluice_crds::config::GatewayConfig;

use crate::ingest::accept::{self, Accept, Peer};
use crate::relay::api;
use crate::relay::shared::Shared;
use crate::relay::worker::Worker;

/// Where SDKs connect.
const WEBSOCKET_PATH: &str = "/connection/websocket";

pub enum Target<'a> {
    WebSocket,
    Api,
    Ingest(&'a Arc<Accept>),
    Nobody,
}

pub fn target<'a>(worker: &'a Worker, path: &str) -> Target<'a> {
    let ingest = worker.shared().ingest();
    let ingest = ingest.filter(|ingest| ingest.takes(path));
    worker.with_config(|config| choose(config, ingest, path))
}

fn choose<'a>(config: &GatewayConfig, ingest: Option<&'a Arc<Accept>>, path: &str) -> Target<'a> {
    let relay = &config.relay;
    let admits_nobody = relay.authentication.admits_nobody();
    let is_api = path == "/api" || path.starts_with("/api/");
    match ingest {
        _ if path == WEBSOCKET_PATH && !admits_nobody => Target::WebSocket,
        Some(ingest) if relay.is_closed() => Target::Ingest(ingest),
        _ if is_api => Target::Api,
        Some(ingest) => Target::Ingest(ingest),
        None => Target::Nobody,
    }
}

/// Answers everything but WebSocket upgrades.
pub async fn answer<B>(
    shared: &Arc<Shared>,
    target: Target<'_>,
    peer: Peer,
    request: Request<B>,
) -> Response<accept::Body>
where
    B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>>,
{
    match target {
        Target::Ingest(accept) => {
            let (head, body) = request.into_parts();
            accept.handle(peer, &head, body).await
        }
        Target::Api => api::handle(shared, request).await.map(whole),
        Target::WebSocket => text(StatusCode::BAD_REQUEST, "use HTTP/1.1").map(whole),
        Target::Nobody => text(StatusCode::NOT_FOUND, "not found").map(whole),
    }
}

/// The bytes of a body that is made of bytes.
pub fn whole(mut body: Full<Bytes>) -> accept::Body {
    let frame = body.frame().now_or_never().flatten();
    let bytes = frame
        .and_then(Result::ok)
        .and_then(|frame| frame.into_data().ok());
    accept::Body::whole(bytes.unwrap_or_default())
}

pub fn text(status: StatusCode, body: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
