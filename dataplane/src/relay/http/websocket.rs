//! The answer to a request for a WebSocket: 101 with a place among connections, or why not.

use std::rc::Rc;

use bytes::Bytes;
use http::header::{
    CONNECTION, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use http::{HeaderValue, Method, Response, StatusCode, request};

use super::route::{text, whole};
use crate::ingest::accept::Body;
use crate::relay::protocol::Encoding;
use crate::relay::shared::Admitted;
use crate::relay::upgrade;
use crate::relay::worker::Worker;

/// What the connection begins with.
pub struct Upgrade {
    pub encoding: Encoding,
    pub admitted: Admitted,
}

pub fn decide(
    worker: &Rc<Worker>,
    request: &request::Parts,
) -> Result<(Upgrade, Response<Body>), Response<Body>> {
    if request.method != Method::GET {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return Err(text(status, "use GET with a WebSocket upgrade").map(whole));
    }
    let upgrade::Upgrade {
        encoding,
        accept,
        subprotocol,
    } = upgrade::check(&request.headers, request.uri.query())
        .map_err(|problem| text(problem.status, problem.text).map(whole))?;
    let admitted = worker.shared().admit().map_err(|refused| {
        worker.metrics().refused(refused);
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let mut response = text(status, "not taking connections now").map(whole);
        let seconds = worker.shared().retry_after_seconds(refused);
        let headers = response.headers_mut();
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
        response
    })?;
    let mut response = Response::new(Body::whole(Bytes::new()));
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
    Ok((Upgrade { encoding, admitted }, response))
}
