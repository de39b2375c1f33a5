//! The dialect without a protocol: any method and body below a prefix; headers or parameters say whose it is. Pure.

use std::borrow::Cow;

use bytes::Bytes;
use http::{Method, StatusCode};
use serde_json::json;
use sluice_crds::config::{Generic, RequestPart};

use super::decision::{Content, Decision, Incoming, Rejected, Reply, Routed};
use super::parameters;
use super::table::{Table, ordering_key};
use crate::store::queue::OrderingKey;

/// Whether a path is below the prefix.
pub fn takes(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| prefix.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

/// Before the body is read. `Err` is the answer.
pub fn route(method: &Method) -> Result<(), Reply> {
    // Neither asks for anything that could be delivered later.
    if *method == Method::CONNECT || *method == Method::TRACE {
        return Err(refuse(
            StatusCode::METHOD_NOT_ALLOWED,
            Rejected::Method,
            "method",
            "is not taken",
        ));
    }
    Ok(())
}

pub fn decide<'t>(table: &'t Table, rules: &Generic, request: &Incoming<'_>) -> Decision<'t> {
    match try_decide(table, rules, request) {
        Ok(routed) => Decision::Queue(routed),
        Err(reply) => Decision::Reply(reply),
    }
}

fn try_decide<'t>(
    table: &'t Table,
    rules: &Generic,
    request: &Incoming<'_>,
) -> Result<Routed<'t>, Reply> {
    let known = match &rules.application_key {
        None => None,
        Some(part) => {
            let key = value(part, request).ok_or_else(|| missing(part))?;
            table.find(&key)
        }
    };
    let tenant = match known {
        Some(tenant) => tenant,
        None => table
            .unknown()
            .map_err(|why| unknown(why, rules.application_key.as_ref()))?,
    };
    for part in &table.ingest.accept.required_fields {
        value(part, request).ok_or_else(|| missing(part))?;
    }
    let key = rules
        .ordering_key
        .as_ref()
        .and_then(|part| value(part, request))
        .map_or_else(OrderingKey::new, |key| ordering_key(&key));
    Ok(Routed {
        tenant,
        key,
        barrier: OrderingKey::new(),
        cost: 1,
        success: None,
    })
}

/// There and not empty.
fn value<'a>(part: &RequestPart, request: &Incoming<'a>) -> Option<Cow<'a, [u8]>> {
    let value = match part {
        RequestPart::Header(name) => request
            .headers
            .get(name.as_str())
            .map(|value| Cow::Borrowed(value.as_bytes())),
        RequestPart::Parameter(name) => parameters::find(request.query.as_bytes(), name.as_bytes()),
    };
    value.filter(|value| !value.is_empty())
}

fn field(part: &RequestPart) -> String {
    match part {
        RequestPart::Header(name) => format!("header {name}"),
        RequestPart::Parameter(name) => format!("parameter {name}"),
    }
}

fn missing(part: &RequestPart) -> Reply {
    refuse(
        StatusCode::BAD_REQUEST,
        Rejected::MissingField,
        &field(part),
        "is required",
    )
}

fn unknown(why: Rejected, part: Option<&RequestPart>) -> Reply {
    if why == Rejected::UnknownKeyDiscarded {
        return Reply {
            status: StatusCode::ACCEPTED,
            content: Content::Json,
            body: Bytes::from_static(ACCEPTED),
            rejected: Some(why),
        };
    }
    let (field, message) = match part {
        Some(part) => (field(part), "belongs to no application"),
        None => (
            "application".to_owned(),
            "is unknown: this gateway names no application key",
        ),
    };
    refuse(StatusCode::FORBIDDEN, why, &field, message)
}

fn refuse(status: StatusCode, rejected: Rejected, field: &str, message: &str) -> Reply {
    Reply {
        status,
        content: Content::Json,
        body: problem(field, message),
        rejected: Some(rejected),
    }
}

pub const ACCEPTED: &[u8] = br#"{"result":"Accepted"}"#;

pub fn problem(field: &str, message: &str) -> Bytes {
    json!({ "error": { "field": field, "message": message } })
        .to_string()
        .into()
}

#[cfg(test)]
mod tests;
