//! The monitor's JSON API, version 1; `docs/monitor.yaml` describes it.
//!
//! | path, below `/api/v1` | what |
//! | --- | --- |
//! | `GET /` | the release, and the gateways that the viewer may see |
//! | `GET /gateways/NAMESPACE/NAME` | how it is now: a [`Snapshot`](super::Snapshot) |
//! | `GET .../rights` | what else the viewer may |
//! | `GET .../applications?find=TEXT&limit=N` | its applications, the busiest first |
//! | `GET .../series?seconds=N&application=NAME` | figures of the last so many seconds, as columns |
//! | `GET .../plan` | what the manager wants, and why |
//! | `GET`, `POST .../requests...` | requests found, shown, replayed, discarded: as on a data plane's admin port |
//! | `GET .../settings` | settings in force, and where they are written |
//! | `GET`, `PATCH .../settings/gateway`, `.../settings/applications/NAMESPACE/NAME` | the object in which they are written |
//!
//! Who the viewer is, and what he may, is the [`Host`]'s to know.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Response, StatusCode, request};
use serde::Serialize;
use serde_json::{Value, json};

use super::Application;
use crate::fleet::Fleet;

mod host;

pub use host::{Answer, Edit, GatewayName, Host, Refusal, Rights, Written};

/// Where the API is.
pub const ROOT: &str = "/api/v1";

/// Series of so many seconds are shown unless something else is asked for, and at most.
const SECONDS: u64 = 600;
const SECONDS_MAX: u64 = 86_400;
/// Applications of one answer.
const APPLICATIONS: usize = 100;
const APPLICATIONS_MAX: usize = 2_000;

/// Answers what is below [`ROOT`].
pub async fn answer(host: &dyn Host, head: &request::Parts, body: &Bytes) -> Answer {
    let path = head.uri.path().strip_prefix(ROOT);
    let Some(path) = path.filter(|rest| rest.is_empty() || rest.starts_with('/')) else {
        return no_such_path().into();
    };
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let answered = match parts.as_slice() {
        [] => root(host, head).await,
        ["gateways", namespace, name, rest @ ..] => {
            let gateway = GatewayName {
                namespace: (*namespace).to_owned(),
                name: (*name).to_owned(),
            };
            let asked = Asked {
                host,
                gateway: &gateway,
                head,
                body,
            };
            asked.answer(rest).await
        }
        _ => Err(no_such_path()),
    };
    answered.unwrap_or_else(Answer::from)
}

async fn root(host: &dyn Host, head: &request::Parts) -> Result<Answer, Refusal> {
    if head.method != Method::GET {
        return Err(Refusal::not_allowed("GET"));
    }
    let shown = json!({ "release": env!("CARGO_PKG_VERSION"), "gateways": host.gateways().await? });
    Ok(json_answer(StatusCode::OK, &shown))
}

/// A question about one gateway.
struct Asked<'a> {
    host: &'a dyn Host,
    gateway: &'a GatewayName,
    head: &'a request::Parts,
    body: &'a Bytes,
}

impl Asked<'_> {
    async fn answer(&self, rest: &[&str]) -> Result<Answer, Refusal> {
        let rights = self.host.rights(self.gateway).await?;
        let fleet = self.host.fleet(self.gateway);
        let fleet = fleet.ok_or_else(|| {
            Refusal::not_found("there is no such gateway here, or it is not served")
        })?;
        match rest {
            ["requests", of @ ..] => self.requests(rights, of).await,
            ["settings", "gateway"] => self.settings(rights, &Written::Gateway).await,
            ["settings", "applications", namespace, name] => {
                let of = Written::Application {
                    namespace: (*namespace).to_owned(),
                    name: (*name).to_owned(),
                };
                self.settings(rights, &of).await
            }
            _ if self.head.method != Method::GET => Err(Refusal::not_allowed("GET")),
            ["rights"] => Ok(json_answer(StatusCode::OK, &rights)),
            ["settings"] => self.host.settings(self.gateway).await,
            _ => self.figures(&fleet, rest).await,
        }
    }

    async fn requests(&self, rights: Rights, of: &[&str]) -> Result<Answer, Refusal> {
        let may = match self.head.method {
            Method::GET | Method::HEAD => rights.requests,
            _ => rights.replay,
        };
        if !may {
            let problem = "you may not do this with requests";
            return Err(Refusal::new(StatusCode::FORBIDDEN, problem));
        }
        let mut path = "/requests".to_owned();
        for part in of {
            path = format!("{path}/{part}");
        }
        if let Some(asked) = self.head.uri.query() {
            path = format!("{path}?{asked}");
        }
        self.host.requests(self.gateway, self.head, &path).await
    }

    async fn settings(&self, rights: Rights, of: &Written) -> Result<Answer, Refusal> {
        match self.head.method {
            Method::GET => self.host.written(self.gateway, of).await,
            Method::PATCH if !rights.edit => {
                let problem = "you may not change settings here";
                Err(Refusal::new(StatusCode::FORBIDDEN, problem))
            }
            Method::PATCH => {
                let edit = serde_json::from_slice(self.body).map_err(|wrong| {
                    let problem = format!(
                        "expected {{\"generation\": N, \"spec\": {{...}}}} as JSON: {wrong}"
                    );
                    Refusal::new(StatusCode::BAD_REQUEST, &problem)
                })?;
                let dry = self.query().get("dryRun").is_some_and(|dry| dry == "true");
                self.host.edit(self.gateway, of, edit, dry).await
            }
            _ => Err(Refusal::not_allowed("GET, PATCH")),
        }
    }

    async fn figures(&self, fleet: &Fleet, rest: &[&str]) -> Result<Answer, Refusal> {
        let query = self.query();
        match rest {
            [] => shown(fleet.look(|fleet| Some(fleet.snapshot())).await),
            ["applications"] => {
                let all = fleet.look(|fleet| Some(fleet.applications())).await;
                shown(all.map(|all| select(all, &query)))
            }
            ["series"] => {
                let (seconds, application) = (seconds(&query)?, query.get("application").cloned());
                let series = fleet.look(move |fleet| fleet.series(application.as_deref(), seconds));
                shown(series.await)
            }
            ["plan"] => {
                let plan = fleet.look(|fleet| Some(super::plan::shown(&fleet.plan())));
                shown(plan.await)
            }
            _ => Err(no_such_path()),
        }
    }

    fn query(&self) -> BTreeMap<String, String> {
        let text = self.head.uri.query().unwrap_or_default();
        form_urlencoded::parse(text.as_bytes())
            .into_owned()
            .collect()
    }
}

fn seconds(query: &BTreeMap<String, String>) -> Result<u64, Refusal> {
    let seconds = query
        .get("seconds")
        .map_or(Ok(SECONDS), |seconds| seconds.parse());
    let seconds = seconds
        .ok()
        .filter(|seconds| (1..=SECONDS_MAX).contains(seconds));
    seconds.ok_or_else(|| {
        let problem = format!("seconds: expected a number from 1 to {SECONDS_MAX}");
        Refusal::new(StatusCode::BAD_REQUEST, &problem)
    })
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

fn no_such_path() -> Refusal {
    Refusal::not_found("there is no such path")
}

fn shown<T: Serialize>(found: Option<T>) -> Result<Answer, Refusal> {
    let found = found.ok_or_else(|| Refusal::not_found("nothing is known of that"))?;
    Ok(json_answer(StatusCode::OK, &found))
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
