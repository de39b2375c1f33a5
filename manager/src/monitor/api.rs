//! The monitor's JSON API, version 1; `docs/monitor.yaml` describes it.
//!
//! | path, below `/api/v1` | what |
//! | --- | --- |
//! | `GET /` | the release, the gateways that the viewer may see, and what else he may |
//! | `GET /gateways/NAMESPACE/NAME` | how it is now: a [`Snapshot`](super::Snapshot) |
//! | `GET .../applications?find=TEXT&limit=N` | its applications, the busiest first |
//! | `GET .../series?seconds=N&application=NAME` | figures of the last so many seconds, as columns |
//! | `GET .../plan` | what the manager wants, and why |
//! | `GET`, `POST .../requests...` | requests found, shown, replayed, discarded: as on a data plane's admin port |
//! | `GET .../settings` | what may be changed on the page, and where it is written |
//!
//! Who the viewer is, and what he may, is decided before this is asked.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Response, StatusCode, request};
use serde::Serialize;
use serde_json::{Value, json};

use super::Application;
use crate::fleet::Fleet;

/// Where the API is.
pub const ROOT: &str = "/api/v1";

/// Series of so many seconds are shown unless something else is asked for, and at most.
const SECONDS: u64 = 600;
const SECONDS_MAX: u64 = 86_400;
/// Applications of one answer.
const APPLICATIONS: usize = 100;
const APPLICATIONS_MAX: usize = 2_000;

/// Namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct GatewayName {
    pub namespace: String,
    pub name: String,
}

/// What somebody may who looks at the monitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rights {
    /// To look at requests, with what is in them.
    pub requests: bool,
    /// To replay and to discard them.
    pub replay: bool,
    /// To change settings.
    pub edit: bool,
}

/// What the manager does not know itself.
#[async_trait]
pub trait Host: Send + Sync {
    /// Those that are led here.
    fn gateways(&self) -> Vec<GatewayName>;

    /// `None`: it is not led here.
    fn fleet(&self, gateway: &GatewayName) -> Option<Fleet>;

    /// Asks a data plane: `path` and query as on its admin port.
    async fn requests(&self, gateway: &GatewayName, head: &request::Parts, path: &str) -> Answer;

    /// What may be changed.
    async fn settings(&self, gateway: &GatewayName) -> Answer;
}

pub type Answer = Response<Bytes>;

/// Answers what is below [`ROOT`]. `rights`: of the viewer, about this gateway.
pub async fn answer(host: &dyn Host, rights: Rights, head: &request::Parts) -> Answer {
    let path = head.uri.path().strip_prefix(ROOT);
    let Some(path) = path.filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
        return refused(StatusCode::NOT_FOUND, "there is no such path");
    };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        [] => only_get(head, || {
            json!({
                "release": env!("CARGO_PKG_VERSION"),
                "gateways": host.gateways(),
                "rights": rights,
            })
        }),
        ["gateways", namespace, name, rest @ ..] => {
            let gateway = GatewayName {
                namespace: (*namespace).to_owned(),
                name: (*name).to_owned(),
            };
            match host.fleet(&gateway) {
                Some(fleet) => of_gateway(host, rights, &gateway, &fleet, rest, head).await,
                None => refused(StatusCode::NOT_FOUND, "there is no such gateway here"),
            }
        }
        _ => refused(StatusCode::NOT_FOUND, "there is no such path"),
    }
}

async fn of_gateway(
    host: &dyn Host,
    rights: Rights,
    gateway: &GatewayName,
    fleet: &Fleet,
    rest: &[&str],
    head: &request::Parts,
) -> Answer {
    let query = query(head.uri.query().unwrap_or_default());
    if let ["requests", of @ ..] = rest {
        let is_read = head.method == Method::GET;
        if !(if is_read {
            rights.requests
        } else {
            rights.replay
        }) {
            return refused(StatusCode::FORBIDDEN, "you may not do this with requests");
        }
        let mut path = "/requests".to_owned();
        for part in of {
            path = format!("{path}/{part}");
        }
        if let Some(asked) = head.uri.query() {
            path = format!("{path}?{asked}");
        }
        return host.requests(gateway, head, &path).await;
    }
    if head.method != Method::GET {
        return not_allowed("GET");
    }
    match rest {
        [] => shown(fleet.look(|fleet| Some(fleet.snapshot())).await),
        ["applications"] => shown(
            fleet
                .look(|fleet| Some(fleet.applications()))
                .await
                .map(|all| select(all, &query)),
        ),
        ["series"] => {
            let seconds = query
                .get("seconds")
                .map_or(Ok(SECONDS), |seconds| seconds.parse());
            let Some(seconds) = seconds
                .ok()
                .filter(|seconds| (1..=SECONDS_MAX).contains(seconds))
            else {
                let problem = format!("seconds: expected a number from 1 to {SECONDS_MAX}");
                return refused(StatusCode::BAD_REQUEST, &problem);
            };
            let application = query.get("application").cloned();
            shown(
                fleet
                    .look(move |fleet| fleet.series(application.as_deref(), seconds))
                    .await,
            )
        }
        ["plan"] => shown(
            fleet
                .look(|fleet| Some(super::plan::shown(&fleet.plan())))
                .await,
        ),
        ["settings"] => host.settings(gateway).await,
        _ => refused(StatusCode::NOT_FOUND, "there is no such path"),
    }
}

/// The busiest first.
fn select(mut all: Vec<Application>, query: &BTreeMap<String, String>) -> Value {
    let total = all.len();
    if let Some(text) = query.get("find") {
        all.retain(|one| one.name.contains(text.as_str()));
    }
    all.sort_by(|a, b| {
        let by_waiting = b.flow.waiting.cmp(&a.flow.waiting);
        let by_rate = b
            .flow
            .arrived_per_minute
            .total_cmp(&a.flow.arrived_per_minute);
        by_waiting.then(by_rate).then(a.name.cmp(&b.name))
    });
    let found = all.len();
    let limit = query.get("limit").and_then(|limit| limit.parse().ok());
    all.truncate(limit.unwrap_or(APPLICATIONS).min(APPLICATIONS_MAX));
    json!({ "applications": all, "found": found, "total": total })
}

fn query(text: &str) -> BTreeMap<String, String> {
    form_urlencoded::parse(text.as_bytes())
        .into_owned()
        .collect()
}

fn only_get(head: &request::Parts, shown: impl FnOnce() -> Value) -> Answer {
    match head.method {
        Method::GET => json_answer(StatusCode::OK, &shown()),
        _ => not_allowed("GET"),
    }
}

fn shown<T: Serialize>(found: Option<T>) -> Answer {
    match found {
        Some(found) => json_answer(StatusCode::OK, &found),
        None => refused(StatusCode::NOT_FOUND, "nothing is known of that"),
    }
}

fn not_allowed(methods: &'static str) -> Answer {
    let mut answer = refused(
        StatusCode::METHOD_NOT_ALLOWED,
        &format!("expected {methods}"),
    );
    let methods = HeaderValue::from_static(methods);
    answer.headers_mut().insert(ALLOW, methods);
    answer
}

/// `{"error": ...}`.
pub fn refused(status: StatusCode, problem: &str) -> Answer {
    json_answer(status, &json!({ "error": problem }))
}

pub fn json_answer(status: StatusCode, shown: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(shown);
    let (status, body) = match body {
        Ok(body) => (status, body),
        Err(failure) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            json!({ "error": failure.to_string() }).to_string().into(),
        ),
    };
    let mut answer = Response::new(Bytes::from(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
