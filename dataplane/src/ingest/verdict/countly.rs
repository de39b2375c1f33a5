//! Replies of a Countly server: JSON with a `result`, whose text says what a status of 400 does not.

use std::borrow::Cow;

use serde_json::Value;

use super::{Context, MISROUTED_ATTEMPTS, Meaning, REPLY_BODY_MAX, Reason, head, shown};

/// What it cannot do while its database fails; the request is in order.
const DATABASE: [&str; 5] = [
    "Cannot get app user",
    "Could not ingest data",
    "Cannot update user",
    "Cannot create uid",
    "Too many retries",
];
const INVALID: [&str; 3] = ["Missing parameter", "Invalid parameter", "Invalid path"];
const CHECKSUM: [&str; 2] = [
    "Request does not match checksum",
    "Request does not have checksum",
];
/// Sent for an application that is not there, and when the database cannot be read.
const UNKNOWN: &str = "App does not exist";
const PAUSED: &str = "App is currently not accepting data";
const LOCKED: &str = "App is locked";

/// Of an answer below 500 other than 408 and 429.
pub(super) fn meaning(status: u16, body: &[u8], context: &Context) -> Meaning {
    let reply = Reply::read(body);
    let text = reply.result.trim();
    let says = |known: &str| starts_with(text, known);
    if CHECKSUM.into_iter().any(says) {
        return hopeless(Reason::ChecksumRejected, text);
    }
    match status {
        200..=299 if reply.is_success => Meaning::Done {
            info: shown(if reply.info.is_empty() && text != "Success" {
                text
            } else {
                &reply.info
            }),
        },
        200..=299 => doubtful(Reason::UnexpectedAnswer, MISROUTED_ATTEMPTS, body),
        300..=399 => doubtful(Reason::Redirected, MISROUTED_ATTEMPTS, &[]),
        400 if says(PAUSED) => Meaning::Paused,
        400 if says(UNKNOWN) && context.application_succeeds => {
            Meaning::Overload(Reason::UpstreamDatabase)
        }
        400 if says(UNKNOWN) => doubtful(Reason::ApplicationUnknown, context.attempts_max, body),
        400 if DATABASE.into_iter().any(says) => Meaning::Overload(Reason::UpstreamDatabase),
        400 if INVALID.into_iter().any(says) => hopeless(Reason::InvalidRequest, text),
        400 if reply.is_success => doubtful(Reason::Rejected, context.attempts_max, body),
        403 if says(LOCKED) => hopeless(Reason::ApplicationLocked, text),
        // Too large in one way or another: it will not get smaller.
        413 | 414 | 431 => hopeless(Reason::Rejected, text),
        400..=499 => doubtful(Reason::Rejected, MISROUTED_ATTEMPTS, body),
        _ => doubtful(Reason::UnexpectedAnswer, MISROUTED_ATTEMPTS, body),
    }
}

fn hopeless(reason: Reason, text: &str) -> Meaning {
    Meaning::Hopeless {
        reason,
        info: shown(text),
    }
}

fn doubtful(reason: Reason, attempts: u32, body: &[u8]) -> Meaning {
    Meaning::Doubtful {
        reason,
        attempts,
        parked: reason,
        info: shown(&String::from_utf8_lossy(head(body))),
    }
}

fn starts_with(text: &str, known: &str) -> bool {
    text.as_bytes()
        .get(..known.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(known.as_bytes()))
}

struct Reply {
    /// It has a `result` that SDKs take for one.
    is_success: bool,
    /// `result` as text; empty when it is none.
    result: String,
    info: String,
}

impl Reply {
    const NONE: Self = Self {
        is_success: false,
        result: String::new(),
        info: String::new(),
    };

    fn read(body: &[u8]) -> Self {
        let body = &body[..body.len().min(REPLY_BODY_MAX)];
        let Ok(value) = serde_json::from_slice::<Value>(unwrapped(body)) else {
            // Longer than what is read, and what was read looks like it.
            let is_success = body.len() == REPLY_BODY_MAX
                && body.trim_ascii_start().starts_with(b"{")
                && memchr::memmem::find(body, b"\"result\"").is_some();
            return Self {
                is_success,
                ..Self::NONE
            };
        };
        let Some(object) = value.as_object() else {
            return Self::NONE;
        };
        let Some(result) = object.get("result").filter(|result| is_truthy(result)) else {
            return Self::NONE;
        };
        Self {
            is_success: true,
            result: text(result).into_owned(),
            info: object
                .get("info")
                .map(|info| text(info).into_owned())
                .unwrap_or_default(),
        }
    }
}

/// As JavaScript sees it, because SDKs do.
fn is_truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}

fn text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Cow::Borrowed("")
        }
    }
}

/// A request that asked for JSONP is answered `name({...})`.
fn unwrapped(body: &[u8]) -> &[u8] {
    let body = body
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(body)
        .trim_ascii();
    let Some(open) = memchr::memchr(b'(', body) else {
        return body;
    };
    let is_name = open > 0
        && body[..open]
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_$.[]\"'".contains(byte));
    let inner = body.strip_suffix(b";").unwrap_or(body).trim_ascii_end();
    match inner.strip_suffix(b")") {
        Some(inner) if is_name => &inner[open + 1..],
        _ => body,
    }
}
