//! A stored request as it goes to an upstream.
//!
//! Method, target, headers and body are the client's, byte for byte; the upstream's path prefix, its `Host` and who
//! sent the request are put before and beside them. Nothing else is added, so that checksums and duplicates stay
//! recognizable.

use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING,
    UPGRADE,
};
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Full;

use crate::ingest::entry::StoredRequest;
use crate::ingest::upstream::{Address, Outgoing};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
pub(super) const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// `None`: the target is none that HTTP can carry.
pub(super) fn outgoing(stored: &StoredRequest, address: &Address) -> Option<Outgoing> {
    let target = if address.prefix().is_empty() {
        PathAndQuery::from_maybe_shared(stored.target.clone()).ok()?
    } else {
        let prefix = address.prefix().as_bytes();
        PathAndQuery::try_from([prefix, &stored.target].concat()).ok()?
    };
    // A fragment is cut off, and nothing else is changed: better not sent than sent as something else.
    if target.as_str().len() != address.prefix().len() + stored.target.len() {
        return None;
    }
    let mut request = Request::new(Full::new(stored.body.clone()));
    *request.method_mut() = stored.method.clone();
    *request.uri_mut() = Uri::builder().path_and_query(target).build().ok()?;
    *request.headers_mut() = headers(stored, address)?;
    if let Some(length) = length(stored) {
        request.headers_mut().insert(CONTENT_LENGTH, length);
    }
    Some(request)
}

fn headers(stored: &StoredRequest, address: &Address) -> Option<HeaderMap> {
    let mut headers = HeaderMap::with_capacity(stored.headers.len() + 4);
    headers.insert(HOST, address.host().clone());
    let mut forwarded_for: Vec<u8> = Vec::new();
    for (name, value) in &stored.headers {
        if *name == FORWARDED_FOR {
            forwarded_for.extend_from_slice(value.as_bytes());
            forwarded_for.extend_from_slice(b", ");
        } else if !is_of_the_hop(name) {
            headers.append(name, value.clone());
        }
    }
    let client = stored.client.to_canonical().to_string();
    forwarded_for.extend_from_slice(client.as_bytes());
    headers.insert(FORWARDED_FOR, HeaderValue::try_from(forwarded_for).ok()?);
    if !headers.contains_key(FORWARDED_PROTO) {
        let scheme = if stored.secure { "https" } else { "http" };
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static(scheme));
    }
    Some(headers)
}

/// Said wherever there is a body, and where one is expected: some servers insist.
fn length(stored: &StoredRequest) -> Option<HeaderValue> {
    let without_body = [
        Method::GET,
        Method::HEAD,
        Method::DELETE,
        Method::OPTIONS,
        Method::TRACE,
        Method::CONNECT,
    ];
    let told = !stored.body.is_empty() || !without_body.contains(&stored.method);
    told.then(|| stored.body.len().into())
}

/// Headers that speak about one connection, and the two that this one has its own of.
fn is_of_the_hop(name: &HeaderName) -> bool {
    let names = [
        HOST,
        CONTENT_LENGTH,
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        EXPECT,
    ];
    names.contains(name)
}

#[cfg(test)]
mod tests;
