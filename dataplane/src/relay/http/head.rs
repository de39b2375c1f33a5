//! Request heads of HTTP/1.x (RFC 9112), strictly. Pure.
//!
//! What two readers could understand differently is refused: a request that is one to us and two to somebody else lets
//! its sender speak for others. So a line ends with CR LF and nothing else, a length is said once and in one way, and
//! there is exactly one host.

use bytes::{Bytes, BytesMut};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, request};
use memchr::memchr_iter;

/// Largest request head.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Header lines of one request.
pub const HEADERS_MAX: usize = 100;

/// What a client that speaks HTTP/2 without asking sends first.
pub const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How the body is delimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    Length(u64),
    Chunked,
}

#[derive(Debug)]
pub struct Head {
    pub parts: request::Parts,
    pub framing: Framing,
    pub keep_alive: bool,
    /// The client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// Looks for the end of a head in bytes that arrive bit by bit; each byte is looked at once.
#[derive(Debug, Default)]
pub struct Scan {
    seen: usize,
}

impl Scan {
    /// Where the head ends, the empty line included. `None`: not yet. What can never become a head is refused at once.
    pub fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>, StatusCode> {
        if bytes == b"\r" {
            // Perhaps the first half of an empty line.
            return Ok(None);
        }
        if bytes.first().is_some_and(|byte| !is_token_byte(*byte)) {
            return Err(StatusCode::BAD_REQUEST);
        }
        for at in memchr_iter(b'\n', &bytes[self.seen..]).map(|at| at + self.seen) {
            let line = &bytes[..at];
            if !line.ends_with(b"\r") {
                return Err(StatusCode::BAD_REQUEST);
            }
            if line.ends_with(b"\r\n\r") {
                let end = at + 1;
                return if end > HEAD_BYTES_MAX {
                    Err(too_large(bytes))
                } else {
                    Ok(Some(end))
                };
            }
        }
        self.seen = bytes.len();
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(too_large(bytes));
        }
        Ok(None)
    }
}

fn too_large(bytes: &[u8]) -> StatusCode {
    let first_line = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
    if first_line.contains(&b'\n') {
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
    } else {
        StatusCode::URI_TOO_LONG
    }
}

/// Empty lines before a request are skipped (RFC 9112 section 2.2).
pub fn skip_empty_lines(bytes: &mut BytesMut) {
    while bytes.starts_with(b"\r\n") {
        let _ = bytes.split_to(2);
    }
}

/// A whole head, as [`Scan`] found it. `Err` is the status to refuse it with.
pub fn parse(head: Bytes) -> Result<Head, StatusCode> {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(&head) {
        Ok(httparse::Status::Complete(_)) => {}
        Err(httparse::Error::TooManyHeaders) => {
            return Err(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        }
        Err(httparse::Error::Version) if has_other_version(&head) => {
            return Err(StatusCode::HTTP_VERSION_NOT_SUPPORTED);
        }
        Ok(httparse::Status::Partial) | Err(_) => return Err(BAD),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(BAD);
    };
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| BAD)?;
    let uri = target_uri(&method, target, &head)?;
    let version = match minor {
        0 => Version::HTTP_10,
        _ => Version::HTTP_11,
    };
    let mut map = HeaderMap::with_capacity(request.headers.len());
    for header in request.headers.iter() {
        let name = HeaderName::from_bytes(header.name.as_bytes()).map_err(|_| BAD)?;
        let value =
            HeaderValue::from_maybe_shared(head.slice_ref(header.value)).map_err(|_| BAD)?;
        map.append(name, value);
    }
    check_host(&map, version)?;
    let framing = framing(&map, version)?;
    let expects_continue = expects_continue(&map)? && version == Version::HTTP_11;
    let keep_alive = keep_alive(&map, version);
    let (mut parts, ()) = http::Request::new(()).into_parts();
    parts.method = method;
    parts.uri = uri;
    parts.version = version;
    parts.headers = map;
    Ok(Head {
        parts,
        framing,
        keep_alive,
        expects_continue,
    })
}

/// The request line is one, but for a version that is none of ours.
fn has_other_version(head: &[u8]) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let version = words.nth(2).unwrap_or_default();
    words.next().is_none()
        && matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// RFC 9112 section 3.2: a path, a whole address, `*` for OPTIONS, host and port for CONNECT.
fn target_uri(method: &Method, target: &str, head: &Bytes) -> Result<Uri, StatusCode> {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    if !target
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    {
        return Err(BAD);
    }
    let uri = Uri::from_maybe_shared(head.slice_ref(target.as_bytes())).map_err(|_| BAD)?;
    let is_path = target.starts_with('/');
    let is_right = if *method == Method::CONNECT {
        uri.scheme().is_none() && uri.port().is_some() && uri.path_and_query().is_none()
    } else if target == "*" {
        *method == Method::OPTIONS
    } else {
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        let has_user = uri
            .authority()
            .is_some_and(|authority| authority.as_str().contains('@'));
        is_path || (is_http && !has_user)
    };
    if is_right { Ok(uri) } else { Err(BAD) }
}

fn check_host(headers: &HeaderMap, version: Version) -> Result<(), StatusCode> {
    let mut hosts = headers.get_all(HOST).iter();
    let is_right = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host
            .as_bytes()
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=:[]".contains(byte)),
        (None, _) => version == Version::HTTP_10,
        (Some(_), Some(_)) => false,
    };
    if is_right {
        Ok(())
    } else {
        Err(StatusCode::BAD_REQUEST)
    }
}

fn framing(headers: &HeaderMap, version: Version) -> Result<Framing, StatusCode> {
    const BAD: StatusCode = StatusCode::BAD_REQUEST;
    let mut lengths = headers.get_all(CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (lengths.next(), codings.next()) {
        (None, None) => Ok(Framing::Length(0)),
        (Some(length), None) if lengths.next().is_none() => {
            let length = length.as_bytes();
            let is_number = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
            std::str::from_utf8(length)
                .ok()
                .filter(|_| is_number)
                .and_then(|length| length.parse().ok())
                .map(Framing::Length)
                .ok_or(BAD)
        }
        (None, Some(coding)) if version == Version::HTTP_11 && codings.next().is_none() => {
            let mut last_first = coding.as_bytes().rsplit(|byte| *byte == b',');
            let is_chunked = last_first
                .next()
                .is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(b"chunked"));
            let is_chunked_twice = last_first
                .clone()
                .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"chunked"));
            match (is_chunked && !is_chunked_twice, last_first.next()) {
                (true, None) => Ok(Framing::Chunked),
                // Well formed, but in a coding that nobody here undoes.
                (true, Some(_)) => Err(StatusCode::NOT_IMPLEMENTED),
                (false, _) => Err(BAD),
            }
        }
        _ => Err(BAD),
    }
}

fn expects_continue(headers: &HeaderMap) -> Result<bool, StatusCode> {
    match headers.get(EXPECT) {
        None => Ok(false),
        Some(value) if value.as_bytes().eq_ignore_ascii_case(b"100-continue") => Ok(true),
        Some(_) => Err(StatusCode::EXPECTATION_FAILED),
    }
}

fn keep_alive(headers: &HeaderMap, version: Version) -> bool {
    let has = |token: &str| {
        headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|found| found.trim().eq_ignore_ascii_case(token))
    };
    !has("close") && (version == Version::HTTP_11 || has("keep-alive"))
}

/// RFC 9110 section 5.6.2.
pub fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests;
