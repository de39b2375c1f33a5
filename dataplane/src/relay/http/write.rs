//! Answers of HTTP/1.x onto the wire: head and body in one write when the body is at hand.

use std::cell::RefCell;
use std::io::Write;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::time::Instant;

use super::wire::Wire;
use crate::ingest::accept::Body;
use crate::relay::limits::{ANSWER_BYTES_PER_SECOND_MIN, ANSWER_GRACE};

/// Room for a usual head and its small body.
const HEAD_ROOM_BYTES: usize = 320;
/// Pieces of a streamed body are gathered up to this before they are written.
const GATHER_BYTES: usize = 64 * 1024;

/// What the answer depends on.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: Method,
    pub version: Version,
    pub keep_alive: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    /// No body, nor a word about it.
    None,
    /// No body, but how long it would have been.
    Would(u64),
    Exact(u64),
    Chunked,
    UntilClose,
}

/// `Err`: the connection is of no further use. `Ok` says whether the client may send another request.
pub async fn respond(
    wire: &Wire,
    asked: &Asked,
    response: Response<Body>,
) -> Result<bool, std::io::Error> {
    let (head, body) = response.into_parts();
    let length = length(asked, head.status, &head.headers, &body);
    let may_go_on =
        asked.keep_alive && length != Length::UntilClose && !asks_to_close(&head.headers);
    let mut out = Vec::with_capacity(HEAD_ROOM_BYTES);
    put_head(
        &mut out,
        asked,
        head.status,
        &head.headers,
        length,
        may_go_on,
    );
    match body {
        Body::Whole(bytes) => {
            if matches!(length, Length::Exact(_)) {
                out.extend_from_slice(&bytes.unwrap_or_default());
            }
            wire.write_all(&out, || Instant::now() + ANSWER_GRACE)
                .await?;
        }
        body @ Body::Stream(..) => Box::pin(stream(wire, out, body, length)).await?,
    }
    Ok(may_go_on)
}

async fn stream(
    wire: &Wire,
    mut out: Vec<u8>,
    mut body: Body,
    length: Length,
) -> Result<(), std::io::Error> {
    let began = Instant::now();
    let broken = || std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    let mut sent_bytes = 0_u64;
    let mut left_bytes = match length {
        Length::None | Length::Would(_) => {
            drop(body);
            return wire.write_all(&out, || began + ANSWER_GRACE).await;
        }
        Length::Exact(bytes) => Some(bytes),
        Length::Chunked | Length::UntilClose => None,
    };
    loop {
        let at_hand = body.frame().now_or_never();
        if at_hand.is_none() || out.len() >= GATHER_BYTES {
            sent_bytes += out.len() as u64;
            wire.write_all(&out, || began + reading_time(sent_bytes))
                .await?;
            out.clear();
        }
        let frame = match at_hand {
            Some(frame) => frame,
            None => body.frame().await,
        };
        let data = match frame {
            None => break,
            Some(Err(error)) => {
                tracing::debug!(%error, "answer broke off");
                return Err(broken());
            }
            Some(Ok(frame)) => frame.into_data().unwrap_or_default(),
        };
        if let Some(left) = &mut left_bytes {
            *left = left.checked_sub(data.len() as u64).ok_or_else(broken)?;
        }
        if length == Length::Chunked && !data.is_empty() {
            // Writing to a vector cannot fail.
            let _ = write!(out, "{:x}\r\n", data.len());
            out.extend_from_slice(&data);
            out.extend_from_slice(b"\r\n");
        } else {
            out.extend_from_slice(&data);
        }
    }
    if left_bytes.is_some_and(|left| left > 0) {
        return Err(broken());
    }
    if length == Length::Chunked {
        out.extend_from_slice(b"0\r\n\r\n");
    }
    sent_bytes += out.len() as u64;
    wire.write_all(&out, || began + reading_time(sent_bytes))
        .await
}

/// What a client may take to read this much. An upstream that answers slowly does not count against the client, as
/// waiting for it makes nothing late that has been read.
fn reading_time(bytes: u64) -> Duration {
    ANSWER_GRACE + Duration::from_secs(bytes / ANSWER_BYTES_PER_SECOND_MIN)
}

fn asks_to_close(headers: &HeaderMap) -> bool {
    headers
        .get(CONNECTION)
        .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"))
}

fn length(asked: &Asked, status: StatusCode, headers: &HeaderMap, body: &Body) -> Length {
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        return Length::None;
    }
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse().ok());
    let is_bodiless = asked.method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
    if is_bodiless {
        let whole = match body {
            Body::Whole(_) => body.size_hint().exact(),
            Body::Stream(..) => None,
        };
        return declared.or(whole).map_or(Length::None, Length::Would);
    }
    match body.size_hint().exact().or(declared) {
        Some(bytes) => Length::Exact(bytes),
        None if asked.version == Version::HTTP_10 => Length::UntilClose,
        None => Length::Chunked,
    }
}

fn put_head(
    out: &mut Vec<u8>,
    asked: &Asked,
    status: StatusCode,
    headers: &HeaderMap,
    length: Length,
    may_go_on: bool,
) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    let reason = status.canonical_reason().unwrap_or_default();
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    let is_switch = status == StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in headers {
        let is_ours = *name == CONTENT_LENGTH
            || *name == TRANSFER_ENCODING
            || (*name == CONNECTION && !is_switch);
        if !is_ours {
            put_header(out, name.as_str(), value.as_bytes());
        }
    }
    match length {
        Length::Would(bytes) | Length::Exact(bytes) => {
            // Writing to a vector cannot fail.
            let _ = write!(out, "content-length: {bytes}\r\n");
        }
        Length::Chunked => put_header(out, "transfer-encoding", b"chunked"),
        Length::None | Length::UntilClose => {}
    }
    if !is_switch && !may_go_on {
        put_header(out, "connection", b"close");
    } else if asked.version == Version::HTTP_10 {
        put_header(out, "connection", b"keep-alive");
    }
    if !headers.contains_key(DATE) {
        with_date(|date| put_header(out, "date", date));
    }
    out.extend_from_slice(b"\r\n");
}

fn put_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// The time as HTTP has it, made once a second.
fn with_date(put: impl FnOnce(&[u8])) {
    thread_local! {
        static DATE: RefCell<(u64, String)> = RefCell::default();
    }
    let now = SystemTime::now();
    let seconds = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    DATE.with_borrow_mut(|(made, date)| {
        if *made != seconds {
            *made = seconds;
            *date = httpdate::fmt_http_date(now);
        }
        put(date.as_bytes());
    });
}
