//! Answers as they go to the client: made here, or streamed from an upstream.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW,
    CONNECTION, CONTENT_TYPE, HeaderName, RETRY_AFTER, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use hyper::body::{Frame, SizeHint};

use super::Place;
use super::decision::{Content, Reply};
use crate::ingest::proxy::{self, ProxyError};

/// Refused clients come back after this time and up to as much again and more: SDKs would come back together otherwise.
const RETRY_AFTER_SECONDS_MIN: u32 = 30;
const RETRY_AFTER_SECONDS_SPREAD: u32 = 61;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

pub enum Body {
    Whole(Option<Bytes>),
    /// The place among concurrent requests is given back with the end of the answer.
    Stream(proxy::Body, Place),
}

impl Body {
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        Self::Whole((!bytes.is_empty()).then_some(bytes))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = ProxyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ProxyError>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Self::Stream(body, _) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Stream(body, _) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => {
                SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
            }
            Self::Stream(body, _) => body.size_hint(),
        }
    }
}

/// Headers that Countly's servers send with everything: clients are pages of any origin.
pub fn countly(reply: Reply) -> Response<Body> {
    let mut response = plain(reply);
    let is_preflight =
        response.status() == StatusCode::OK && !response.headers().contains_key(CONTENT_TYPE);
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if is_preflight {
        headers.insert(
            ACCESS_CONTROL_ALLOW_METHODS,
            HeaderValue::from_static("POST, GET, OPTIONS"),
        );
        headers.insert(
            ACCESS_CONTROL_ALLOW_HEADERS,
            HeaderValue::from_static("countly-token, Content-Type"),
        );
    }
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response
            .headers_mut()
            .insert(ALLOW, HeaderValue::from_static("GET, POST, OPTIONS"));
    }
    response
}

pub fn generic(reply: Reply) -> Response<Body> {
    plain(reply)
}

pub fn with_request_id(mut response: Response<Body>, id: &str) -> Response<Body> {
    if let Ok(id) = HeaderValue::from_str(id) {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    response
}

fn plain(reply: Reply) -> Response<Body> {
    let mut response = Response::new(Body::whole(reply.body));
    *response.status_mut() = reply.status;
    let content_type = match reply.content {
        Content::Json => "application/json; charset=utf-8",
        Content::JavaScript => {
            response
                .headers_mut()
                .insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
            "application/javascript; charset=utf-8"
        }
        Content::Nothing => return response,
    };
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// `spread`: anything that differs from client to client.
pub fn with_retry_after(mut response: Response<Body>, spread: u64) -> Response<Body> {
    let more = u32::try_from(spread % u64::from(RETRY_AFTER_SECONDS_SPREAD)).unwrap_or_default();
    response.headers_mut().insert(
        RETRY_AFTER,
        HeaderValue::from(RETRY_AFTER_SECONDS_MIN + more),
    );
    response
}

/// An upstream's answer without what concerned the connection to it.
pub fn proxied(answer: Response<proxy::Body>, place: Place) -> Response<Body> {
    let (mut head, body) = answer.into_parts();
    strip_hop_by_hop(&mut head.headers);
    Response::from_parts(head, Body::Stream(body, place))
}

fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&[
        CONNECTION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        HeaderName::from_static("proxy-authenticate"),
    ]) {
        headers.remove(name);
    }
}
