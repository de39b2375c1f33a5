//! Requests, lanes and upstreams as JSON.
//!
//! Bytes that are text are shown as they are under their name, others in base64 under the name with `Base64`. Times are
//! given twice: for people, and in unix milliseconds with `Ms`.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::redact::Redaction;
use super::time::format_ms;
use crate::clock::unix_ms;
use crate::ingest::deliver::{CapReport, CapState, LaneReport, Report, UpstreamReport};
use crate::ingest::entry::StoredRequest;
use crate::ingest::limiter::BreakerState;
use crate::ingest::metrics::UNKNOWN_APPLICATION;
use crate::store::queue::{Found, LaneStats, Outcome, Verdict};

/// More of a body is not shown; `bodyBytes` tells how much there is.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// `{"id", "application", "key", "barrier"?, "state", "acceptedAt", "acceptedAtMs", "cost", "bytes", "replayOf"?,
/// "replay", "verdict"?: {"reason", "httpStatus", "attempts", "upstream", "at", "atMs"}}`
pub(super) fn found(found: &Found) -> Value {
    let mut shown = Map::new();
    let accepted_ms = found.id.accepted_ms();
    shown.insert("id".to_owned(), found.id.to_string().into());
    shown.insert(
        "application".to_owned(),
        application(&found.lane.application).into(),
    );
    put_bytes(&mut shown, "key", &found.key);
    if !found.barrier.is_empty() {
        put_bytes(&mut shown, "barrier", &found.barrier);
    }
    let outcome = found.verdict.as_ref().map(|verdict| verdict.outcome);
    shown.insert("state".to_owned(), state(outcome).into());
    shown.insert("acceptedAt".to_owned(), format_ms(accepted_ms).into());
    shown.insert("acceptedAtMs".to_owned(), accepted_ms.into());
    shown.insert("cost".to_owned(), found.cost.into());
    shown.insert("bytes".to_owned(), found.request_bytes.into());
    shown.insert("replay".to_owned(), found.lane.replay.into());
    if let Some(of) = found.replay_of {
        shown.insert("replayOf".to_owned(), of.to_string().into());
    }
    if let Some(verdict) = &found.verdict {
        shown.insert("verdict".to_owned(), verdict_json(verdict));
    }
    Value::Object(shown)
}

fn verdict_json(verdict: &Verdict) -> Value {
    json!({
        "reason": &*verdict.reason,
        "httpStatus": verdict.http_status,
        "attempts": verdict.attempts,
        "upstream": &*verdict.upstream,
        "at": format_ms(verdict.at_ms),
        "atMs": verdict.at_ms,
    })
}

/// `{"method", "target", "headers": [[name, value]...], "client", "secure", "body", "bodyBytes", "bodyTruncated"?}`, or
/// `{"error"}` when what is stored cannot be read.
pub(super) fn request(stored: Bytes, redaction: &Redaction) -> Value {
    let mut request = match StoredRequest::decode(stored) {
        Ok(request) => request,
        Err(failure) => return json!({ "error": failure.to_string() }),
    };
    let bytes = request.body.len();
    redaction.request(&mut request);
    let mut shown = Map::new();
    shown.insert("method".to_owned(), request.method.as_str().into());
    put_bytes(&mut shown, "target", &request.target);
    let headers = request.headers.iter().map(|(name, value)| {
        // A value is text by nearly all who write one; what is not is shown as nearly as can be.
        json!([name.as_str(), String::from_utf8_lossy(value.as_bytes())])
    });
    shown.insert("headers".to_owned(), headers.collect());
    shown.insert("client".to_owned(), request.client.to_string().into());
    shown.insert("secure".to_owned(), request.secure.into());
    let whole = request.body.len();
    let mut end = whole.min(BODY_BYTES_MAX);
    if end < whole {
        shown.insert("bodyTruncated".to_owned(), true.into());
        // Text is not cut within a character.
        let is_inside = |end: usize| request.body[end] & 0xc0 == 0x80;
        while end > BODY_BYTES_MAX - 4 && is_inside(end) {
            end -= 1;
        }
    }
    shown.insert("bodyBytes".to_owned(), bytes.into());
    put_bytes(&mut shown, "body", &request.body[..end]);
    Value::Object(shown)
}

/// `{"at", "lanes": [{"application", "replay", "partition", "waiting", "oldestAgeMs", "parked", "known", "ready",
/// "inFlight", "held": null or {"reason", "retryInMs"}}], "upstreams": [{"name", "url", "priority", "weight",
/// "healthy", "retired", "inFlight", "limitInFlight", "limitRate", "goodput", "breaker", "retryAfterMs",
/// "baseLatencyMs", "timeoutMs", "limitsSetBy", "partRate"}], "caps": [{"cap", "requestsPerMinute",
/// "allowedPerMinute", "why", "safePerMinute", "changesInMs"}]}`
pub(super) fn report(report: &Report) -> Value {
    let lanes: Vec<Value> = report
        .lanes
        .iter()
        .map(|lane| lane_json(lane, report.at))
        .collect();
    let upstreams = report.upstreams.iter();
    let upstreams: Vec<Value> = upstreams
        .map(|upstream| upstream_json(upstream, report.at))
        .collect();
    let caps = report.caps.iter();
    let caps: Vec<Value> = caps.map(|cap| cap_json(cap, report.at)).collect();
    json!({ "at": format_ms(unix_ms()), "lanes": lanes, "upstreams": upstreams, "caps": caps })
}

fn lane_json(lane: &LaneReport, at: Instant) -> Value {
    let held = lane.held.map(|held| {
        let retry = held
            .until
            .map(|until| millis(until.saturating_duration_since(at)));
        json!({ "reason": held.why.as_str(), "retryInMs": retry })
    });
    json!({
        "application": application(&lane.lane.application),
        "replay": lane.lane.replay,
        "partition": lane.lane.partition,
        "waiting": lane.waiting,
        "oldestAgeMs": age(lane.oldest_ms),
        "parked": lane.parked,
        "known": lane.known,
        "ready": lane.ready,
        "inFlight": lane.in_flight,
        "held": held,
    })
}

/// A lane as the queue knows it, where nothing is delivered.
pub(super) fn stats(lane: &LaneStats) -> Value {
    json!({
        "application": application(&lane.lane.application),
        "replay": lane.lane.replay,
        "partition": lane.lane.partition,
        "waiting": lane.waiting,
        "oldestAgeMs": age(lane.oldest_ms),
        "parked": lane.parked,
        "held": null,
    })
}

fn upstream_json(upstream: &UpstreamReport, at: Instant) -> Value {
    let limits = &upstream.limits;
    let breaker = match limits.breaker {
        BreakerState::Closed => "Closed",
        BreakerState::Open => "Open",
        BreakerState::HalfOpen => "HalfOpen",
    };
    let retry_after = limits.retry_after_until;
    json!({
        "name": &*upstream.name,
        "url": upstream.url,
        "priority": upstream.priority,
        "weight": upstream.weight,
        "healthy": upstream.healthy,
        "retired": upstream.retired,
        "inFlight": limits.in_flight,
        "limitInFlight": limits.limit,
        "limitRate": limits.rate,
        "goodput": limits.goodput,
        "breaker": breaker,
        "retryAfterMs": retry_after.map(|until| millis(until.saturating_duration_since(at))),
        "baseLatencyMs": limits.base_latency.map(|latency| latency.as_secs_f64() * 1000.0),
        "timeoutMs": millis(limits.timeout),
        "limitsSetBy": limits.why.name(),
        "partRate": upstream.part,
    })
}

/// What is allowed under a cap here: `Configured` is all of it; else a part, by a `Lease`, the `Safe` rate, or what holds from
/// the start (`Boot`).
fn cap_json(cap: &CapReport, at: Instant) -> Value {
    let CapState {
        requests_per_minute,
        in_force,
        ..
    } = cap.state;
    json!({
        "cap": cap.key.to_string(),
        "requestsPerMinute": requests_per_minute,
        "allowedPerMinute": in_force.per_minute,
        "why": in_force.why.name(),
        "safePerMinute": in_force.safe_per_minute,
        "changesInMs": in_force.until.map(|until| millis(until.saturating_duration_since(at))),
    })
}

pub(super) fn application(name: &str) -> &str {
    if name.is_empty() {
        UNKNOWN_APPLICATION
    } else {
        name
    }
}

fn state(outcome: Option<Outcome>) -> &'static str {
    match outcome {
        None => "waiting",
        Some(Outcome::Delivered) => "delivered",
        Some(Outcome::Parked) => "parked",
        Some(Outcome::Discarded) => "discarded",
        Some(Outcome::Replayed) => "replayed",
    }
}

fn put_bytes(shown: &mut Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => shown.insert(name.to_owned(), text.into()),
        Err(_) => shown.insert(format!("{name}Base64"), STANDARD.encode(bytes).into()),
    };
}

fn age(oldest_ms: Option<u64>) -> Option<u64> {
    oldest_ms.map(|oldest| unix_ms().saturating_sub(oldest))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
