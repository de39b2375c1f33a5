//! A request as it is stored and delivered: byte for byte what the client sent, but for hop-by-hop headers.

use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};

/// What is delivered.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredRequest {
    pub method: Method,
    /// Path and query exactly as they came.
    pub target: Bytes,
    /// Those that matter to the upstream, in order, without hop-by-hop ones, `Host` and `Content-Length`.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// Who sent it; delivered as the last address of `X-Forwarded-For`.
    pub client: IpAddr,
    /// The listener spoke TLS.
    pub secure: bool,
    pub body: Bytes,
}
