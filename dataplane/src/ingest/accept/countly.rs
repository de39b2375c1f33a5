//! The dialect of Countly's SDKs: which calls are queued, which the upstream has to answer itself, and every reply. Pure.
//!
//! Only what routing and the upstream's own refusals need is read; the request is delivered as it came. Replies are
//! those that SDKs expect: an object with `result`, also for what is refused for good, and a status other than 2xx only
//! where the client should come back or its developer should notice.

pub mod bulk;
pub mod checksum;
pub mod form;
pub mod multipart;
pub mod reply;

use http::Method;

use self::bulk::{Bulk, Invalid};
use self::checksum::{Claimed, Mismatch};
use self::form::{Form, Name};
use self::reply::Replies;
use super::decision::{Decision, Incoming, Rejected, Reply, Routed};
use super::table::{Table, Tenant, ordering_key};
use crate::ingest::entry::EVERY_KEY;
use crate::store::queue::OrderingKey;

pub use self::reply::{SUCCESS, problem};

#[cfg(test)]
pub(crate) mod tests;

/// What devices send whose owner switched tracking off.
const NOBODY: &[u8] = b"00000000-0000-0000-0000-000000000000";
/// Upstream's object ids.
const ID_CHARS: usize = 24;

/// What method and path alone say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route {
    Write,
    Bulk,
    Proxy,
}

/// Before the body is read. `Err` is the answer.
pub fn route(method: &Method, path: &str, prefix: &str) -> Result<Route, Reply> {
    if *method == Method::OPTIONS {
        return Err(reply::preflight());
    }
    let path = match path.strip_prefix(prefix) {
        Some(rest) if rest.starts_with('/') => rest,
        _ => path,
    };
    let route = match path {
        "/i" => Route::Write,
        "/i/bulk" => Route::Bulk,
        _ if path.starts_with("/i/") || path == "/o" || path.starts_with("/o/") => Route::Proxy,
        _ => return Err(reply::no_such_path()),
    };
    let is_allowed = *method == Method::GET
        || *method == Method::POST
        // Clients ask before they show an upstream's page.
        || (*method == Method::HEAD && route == Route::Proxy);
    if is_allowed {
        Ok(route)
    } else {
        Err(reply::method_not_allowed())
    }
}

/// With the whole request at hand.
pub fn decide<'t>(table: &'t Table, route: Route, request: &Incoming<'_>) -> Decision<'t> {
    let required: Vec<&str> = table
        .required_parameters()
        .iter()
        .map(String::as_str)
        .collect();
    let form = Form::read(
        request.method,
        request.query.as_bytes(),
        request.headers,
        request.body,
        &required,
    );
    let form = match form {
        Ok(form) => form,
        // Calls with bodies of any other kind are between the caller and the upstream.
        Err(form::Malformed) if route == Route::Proxy => return Decision::Proxy(None),
        Err(form::Malformed) => {
            return Decision::Reply(Replies::default().bad("Invalid request body"));
        }
    };
    let wants_answer = [Name::SafeApiResponse, Name::ApiKey, Name::AuthToken]
        .into_iter()
        .any(|name| form.non_empty(name).is_some());
    if route == Route::Proxy || wants_answer {
        return Decision::Proxy(form.get(Name::AppKey).and_then(|key| table.find(key)));
    }
    let replies = Replies::to(form.get(Name::Callback));
    let decided = check_ids(&form, &replies).and_then(|()| match route {
        Route::Bulk => decide_bulk(table, request, &form, &required, &replies),
        Route::Write | Route::Proxy => decide_write(table, request, &form, &required, &replies),
    });
    match decided {
        Ok(mut routed) => {
            routed.success = replies.success_unless_usual();
            Decision::Queue(routed)
        }
        Err(reply) => Decision::Reply(reply),
    }
}

fn check_ids(form: &Form<'_>, replies: &Replies<'_>) -> Result<(), Reply> {
    for (name, text) in [(Name::AppId, "app_id"), (Name::UserId, "user_id")] {
        let is_odd = form
            .non_empty(name)
            .is_some_and(|value| String::from_utf8_lossy(value).encode_utf16().count() != ID_CHARS);
        if is_odd {
            return Err(replies.invalid_parameter(text));
        }
    }
    Ok(())
}

fn decide_write<'t>(
    table: &'t Table,
    request: &Incoming<'_>,
    form: &Form<'_>,
    required: &[&str],
    replies: &Replies<'_>,
) -> Result<Routed<'t>, Reply> {
    let (Some(app_key), Some(device)) =
        (form.non_empty(Name::AppKey), form.non_empty(Name::DeviceId))
    else {
        return Err(replies.missing_identity());
    };
    if device == NOBODY {
        return Err(replies.ignored_device());
    }
    let tenant = match table.find(app_key) {
        Some(tenant) => tenant,
        None => table.unknown().map_err(|why| replies.unknown(why))?,
    };
    check_required(table, request, replies)?;
    if let Some(missing) = form.present().iter().position(|present| !present) {
        return Err(replies.missing_parameter(required[missing]));
    }
    if table.ingest.accept.tamper_check {
        check_tampering(tenant, request, form).map_err(|mismatch| replies.tampered(mismatch))?;
    }
    let barrier = form
        .non_empty(Name::OldDeviceId)
        .filter(|old| *old != device)
        .map_or_else(OrderingKey::new, ordering_key);
    Ok(Routed {
        tenant,
        key: ordering_key(device),
        barrier,
        cost: 1,
        success: None,
    })
}

fn check_required(
    table: &Table,
    request: &Incoming<'_>,
    replies: &Replies<'_>,
) -> Result<(), Reply> {
    match table.missing_header(request.headers) {
        Some(name) => Err(replies.missing_header(name)),
        None => Ok(()),
    }
}

fn check_tampering(
    tenant: &Tenant,
    request: &Incoming<'_>,
    form: &Form<'_>,
) -> Result<(), Mismatch> {
    let salt = tenant
        .application
        .as_ref()
        .and_then(|application| application.salt.as_ref());
    let Some(salt) = salt else {
        return Ok(());
    };
    let claimed = Claimed {
        checksum: form.get(Name::Checksum),
        checksum256: form.get(Name::Checksum256),
    };
    let body = form.signed_body(request.body);
    let candidates = [request.query.as_bytes(), &body];
    let count = if *request.method == Method::POST {
        2
    } else {
        1
    };
    checksum::check(claimed, salt.expose(), &candidates[..count])
}

fn decide_bulk<'t>(
    table: &'t Table,
    request: &Incoming<'_>,
    form: &Form<'_>,
    required: &[&str],
    replies: &Replies<'_>,
) -> Result<Routed<'t>, Reply> {
    let app_key = form.non_empty(Name::AppKey);
    let requests = form.get(Name::Requests).unwrap_or_default();
    let bulk =
        bulk::read(requests, app_key.is_some(), required, form.present()).map_err(|invalid| {
            match invalid {
                Invalid::Missing => replies.missing_parameter("requests"),
                Invalid::NotAnArray => replies.invalid_parameter("requests"),
            }
        })?;
    if bulk.devices.is_empty() {
        // Upstream would skip every item and say the same.
        return Err(replies.dropped(Rejected::EmptyBulk));
    }
    let keys = app_key
        .into_iter()
        .chain(bulk.app_keys.iter().map(Vec::as_slice));
    let tenant = match keys.into_iter().find_map(|key| table.find(key)) {
        Some(tenant) => tenant,
        None => table.unknown().map_err(|why| replies.unknown(why))?,
    };
    check_required(table, request, replies)?;
    if let Some(missing) = bulk.lacks {
        return Err(replies.missing_parameter(required[missing]));
    }
    let (key, barrier) = bulk_keys(&bulk);
    Ok(Routed {
        tenant,
        key,
        barrier,
        cost: bulk.items.max(1),
        success: None,
    })
}

fn bulk_keys(bulk: &Bulk) -> (OrderingKey, OrderingKey) {
    match bulk.devices.as_slice() {
        [] => (OrderingKey::new(), OrderingKey::new()),
        [one] => (ordering_key(one), OrderingKey::new()),
        [one, other] => (ordering_key(one), ordering_key(other)),
        _ => (OrderingKey::from_static(EVERY_KEY), OrderingKey::new()),
    }
}
