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

pub enum Decided {
    /// The answer is 101.
    Upgrade(Upgrade, Response<Body>),
    Refused(Response<Body>),
}

pub fn decide(worker: &Rc<Worker>, request: &request::Parts) -> Decided {
    let refuse = |status, why| Decided::Refused(text(status, why).map(whole));
    if request.method != Method::GET {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        return refuse(status, "use GET with a WebSocket upgrade");
    }
    let upgrade::Upgrade {
        encoding,
        accept,
        subprotocol,
    } = match upgrade::check(&request.headers, request.uri.query()) {
        Ok(upgrade) => upgrade,
        Err(problem) => return refuse(problem.status, problem.text),
    };
    let admitted = match worker.shared().admit() {
        Ok(admitted) => admitted,
        Err(refused) => {
            worker.metrics().refused(refused);
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let mut response = text(status, "not taking connections now").map(whole);
            let seconds = worker.shared().retry_after_seconds(refused);
            let headers = response.headers_mut();
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
            return Decided::Refused(response);
        }
    };
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
    Decided::Upgrade(Upgrade { encoding, admitted }, response)
}
