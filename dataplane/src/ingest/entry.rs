//! A request as it is stored and delivered: byte for byte what the client sent, but for hop-by-hop headers.
//!
//! `encode` writes it as one run of bytes, `decode` reads it back without copying: target, header values and body are
//! slices of what was stored. What comes from the store may be damaged or of another version; it is refused then, and
//! nothing is allocated by a length that the bytes themselves do not bear out.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::{Buf, BufMut, Bytes};
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use thiserror::Error;

#[cfg(test)]
mod tests;

/// As the key or the barrier of an entry: it is ordered with every entry of its lane, whatever their keys. For a request
/// that speaks for more devices than an entry can name.
pub const EVERY_KEY: &[u8] = b"\xff*";

/// The first byte of what is stored.
const VERSION: u8 = 1;
const SECURE: u8 = 1;
const IPV6: u8 = 2;
/// Shortest encoded header: two lengths, a name of one byte.
const HEADER_BYTES_MIN: usize = 3;

/// What is delivered.
#[derive(Clone, PartialEq)]
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("stored request of unknown version {0}")]
    Version(u8),
    #[error("stored request is damaged")]
    Damaged,
}

/// Parameters, headers and bodies are the client's business.
impl fmt::Debug for StoredRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredRequest")
            .field("method", &self.method)
            .field("target_bytes", &self.target.len())
            .field("headers", &self.headers.len())
            .field("body_bytes", &self.body.len())
            .finish_non_exhaustive()
    }
}

/// A request that is not put together yet: what `encode` needs of it, borrowed.
#[derive(Clone, Copy)]
pub struct Draft<'a> {
    pub method: &'a Method,
    pub target: &'a [u8],
    /// As they came; what is not to be delivered is left out when they are stored.
    pub headers: &'a HeaderMap,
    pub client: IpAddr,
    pub secure: bool,
    pub body: &'a Bytes,
}

impl Draft<'_> {
    pub fn encode(&self) -> Bytes {
        let headers = Kept::new(self.headers);
        encode(self, || headers.iter())
    }

    pub fn to_request(&self) -> StoredRequest {
        let kept = Kept::new(self.headers);
        StoredRequest {
            method: self.method.clone(),
            target: Bytes::copy_from_slice(self.target),
            headers: kept
                .iter()
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            client: self.client,
            secure: self.secure,
            body: self.body.clone(),
        }
    }
}

impl StoredRequest {
    pub fn encode(&self) -> Bytes {
        let draft = Draft {
            method: &self.method,
            target: &self.target,
            headers: &HeaderMap::new(),
            client: self.client,
            secure: self.secure,
            body: &self.body,
        };
        encode(&draft, || {
            self.headers.iter().map(|(name, value)| (name, value))
        })
    }

    pub fn decode(mut stored: Bytes) -> Result<Self, DecodeError> {
        match byte(&mut stored)? {
            VERSION => {}
            other => return Err(DecodeError::Version(other)),
        }
        let flags = byte(&mut stored)?;
        if flags & !(SECURE | IPV6) != 0 {
            return Err(DecodeError::Damaged);
        }
        let client = if flags & IPV6 == 0 {
            let octets: [u8; 4] = octets(&mut stored)?;
            IpAddr::V4(Ipv4Addr::from(octets))
        } else {
            let octets: [u8; 16] = octets(&mut stored)?;
            IpAddr::V6(Ipv6Addr::from(octets))
        };
        let method = run(&mut stored)?;
        let method = Method::from_bytes(&method).map_err(|_| DecodeError::Damaged)?;
        let target = run(&mut stored)?;
        let count = length(&mut stored)?;
        if count > stored.len() / HEADER_BYTES_MIN {
            return Err(DecodeError::Damaged);
        }
        let mut headers = Vec::with_capacity(count);
        for _ in 0..count {
            let name = run(&mut stored)?;
            let name = HeaderName::from_lowercase(&name).map_err(|_| DecodeError::Damaged)?;
            let value = HeaderValue::from_maybe_shared(run(&mut stored)?)
                .map_err(|_| DecodeError::Damaged)?;
            headers.push((name, value));
        }
        Ok(Self {
            method,
            target,
            headers,
            client,
            secure: flags & SECURE != 0,
            body: stored,
        })
    }
}

fn encode<'a, I>(draft: &Draft<'_>, headers: impl Fn() -> I) -> Bytes
where
    I: Iterator<Item = (&'a HeaderName, &'a HeaderValue)>,
{
    // Exactly as large as it will be: bytes with room to spare are costlier to share.
    let address_bytes = if draft.client.is_ipv4() { 4 } else { 16 };
    let mut count = 0;
    let mut capacity = 2 + address_bytes + draft.body.len();
    capacity += run_bytes(draft.method.as_str().len()) + run_bytes(draft.target.len());
    for (name, value) in headers() {
        count += 1;
        capacity += run_bytes(name.as_str().len()) + run_bytes(value.len());
    }
    capacity += length_bytes(count);
    let mut out = Vec::with_capacity(capacity);
    out.push(VERSION);
    let mut flags = 0;
    if draft.secure {
        flags |= SECURE;
    }
    if draft.client.is_ipv6() {
        flags |= IPV6;
    }
    out.push(flags);
    match draft.client {
        IpAddr::V4(address) => out.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => out.extend_from_slice(&address.octets()),
    }
    put_run(&mut out, draft.method.as_str().as_bytes());
    put_run(&mut out, draft.target);
    put_length(&mut out, count);
    for (name, value) in headers() {
        put_run(&mut out, name.as_str().as_bytes());
        put_run(&mut out, value.as_bytes());
    }
    out.extend_from_slice(draft.body);
    out.into()
}

/// Headers that are delivered: all but those that speak of this connection or are made anew for the next one.
struct Kept<'a> {
    headers: &'a HeaderMap,
    /// Headers that `Connection` names, in lower case.
    named: Vec<HeaderName>,
}

impl<'a> Kept<'a> {
    fn new(headers: &'a HeaderMap) -> Self {
        let tokens = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|token| {
                !token.eq_ignore_ascii_case("close") && !token.eq_ignore_ascii_case("keep-alive")
            });
        Self {
            headers,
            named: tokens.filter_map(|token| token.parse().ok()).collect(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = (&'a HeaderName, &'a HeaderValue)> {
        self.headers
            .iter()
            .filter(|(name, _)| is_end_to_end(name) && !self.named.contains(name))
    }
}

/// Neither about the connection nor made anew by whoever sends the request on.
fn is_end_to_end(name: &HeaderName) -> bool {
    !(*name == HOST
        || *name == CONTENT_LENGTH
        || *name == CONNECTION
        || *name == TRANSFER_ENCODING
        || *name == EXPECT
        || *name == TE
        || *name == TRAILER
        || *name == UPGRADE
        || name.as_str() == "keep-alive"
        || name.as_str().starts_with("proxy-"))
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.put_u8((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    out.put_u8(length as u8);
}

fn length_bytes(length: usize) -> usize {
    (usize::BITS - length.leading_zeros()).div_ceil(7).max(1) as usize
}

/// Of a run with its length.
fn run_bytes(length: usize) -> usize {
    length_bytes(length) + length
}

fn put_run(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn byte(stored: &mut Bytes) -> Result<u8, DecodeError> {
    stored.try_get_u8().map_err(|_| DecodeError::Damaged)
}

fn octets<const N: usize>(stored: &mut Bytes) -> Result<[u8; N], DecodeError> {
    let mut octets = [0; N];
    stored
        .try_copy_to_slice(&mut octets)
        .map_err(|_| DecodeError::Damaged)?;
    Ok(octets)
}

/// Little end first, seven bits to a byte.
fn length(stored: &mut Bytes) -> Result<usize, DecodeError> {
    let mut length: usize = 0;
    for shift in (0..usize::BITS).step_by(7) {
        let byte = byte(stored)?;
        let bits = usize::from(byte & 0x7f);
        if bits << shift >> shift != bits {
            return Err(DecodeError::Damaged);
        }
        length |= bits << shift;
        if byte & 0x80 == 0 {
            return Ok(length);
        }
    }
    Err(DecodeError::Damaged)
}

fn run(stored: &mut Bytes) -> Result<Bytes, DecodeError> {
    let length = length(stored)?;
    if length > stored.len() {
        return Err(DecodeError::Damaged);
    }
    Ok(stored.split_to(length))
}
