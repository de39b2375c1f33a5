//! Inspection and replay on the admin port: what waits, what became of it, and once more.
//!
//! | path | what |
//! | --- | --- |
//! | `GET /requests?FILTERS&after=ID&limit=N` | `{"requests": [...], "next": ID or null}`, oldest first |
//! | `GET /requests/ID` | one with its `request`: method, target, headers, body |
//! | `POST /requests/ID/replay`, `/discard` | `{"id": ID, "replayedAs": ID}`, `{"id": ID}` |
//! | `POST /requests/replay?FILTERS&after=ID&limit=N`, `/requests/discard?...` | counts, and `next` to go on with |
//! | `GET /lanes` | what waits, why it is not being sent, and how the upstreams are |
//!
//! Filters are `application`, `key`, `from`, `until` and `state`; see `filter`. Every POST needs the content type
//! `application/json`, and every request a host that is this machine's or the cluster's: a page in an operator's
//! browser can send neither. What the gateway's `redact` names is not shown. Owns nothing: all state is the queue's.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Response, StatusCode, request};
use http_body_util::Full;
use serde_json::{Value, json};
use sluice_crds::config::GatewayConfig;
use tokio::sync::watch;

use self::filter::Query;
use self::redact::Redaction;
use super::accept::EntryIds;
use super::deliver::DeliverHandle;
use super::metrics::Metrics;
use crate::admin::guard::{self, Hosts};
use crate::admin::{Answer, Routes};
use crate::store::queue::{EntryId, Queue, QueueError};

mod actions;
mod filter;
mod json;
mod redact;
pub mod time;

/// What the admin port needs to show and repeat requests.
pub struct Requests {
    pub queue: Arc<dyn Queue>,
    /// `None`: nothing is delivered by this process.
    pub deliver: Option<DeliverHandle>,
    pub ids: EntryIds,
    pub metrics: Arc<Metrics>,
    pub config: watch::Receiver<Arc<GatewayConfig>>,
}

/// An answer that is no success: a status and what is wrong.
struct Refusal(StatusCode, String);

impl From<QueueError> for Refusal {
    fn from(failure: QueueError) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, failure.to_string())
    }
}

/// What one asks for.
enum Asked {
    List,
    Show(EntryId),
    Replay(EntryId),
    Discard(EntryId),
    ReplayAll,
    DiscardAll,
    Lanes,
}

#[async_trait]
impl Routes for Requests {
    fn paths(&self) -> &'static str {
        "/requests, /lanes"
    }

    async fn answer(&self, head: &request::Parts, _body: Bytes) -> Option<Answer> {
        let path = head.uri.path();
        let is_ours = path == "/lanes"
            || path
                .strip_prefix("/requests")
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if !is_ours {
            return None;
        }
        let answer = self.handle(path, head).await;
        Some(answer.unwrap_or_else(|Refusal(status, error)| {
            let mut answer = json_answer(status, &json!({ "error": error }));
            if status == StatusCode::METHOD_NOT_ALLOWED {
                let allowed = HeaderValue::from_str(&error);
                allowed
                    .map(|allowed| answer.headers_mut().insert(ALLOW, allowed))
                    .ok();
            }
            answer
        }))
    }
}

impl Requests {
    async fn handle(&self, path: &str, head: &request::Parts) -> Result<Answer, Refusal> {
        guard::check(head, Hosts::Local).map_err(|(status, problem)| Refusal(status, problem))?;
        let asked = route(path, &head.method)?;
        let query = Query::parse(head.uri.query().unwrap_or_default())
            .map_err(|problem| Refusal(StatusCode::BAD_REQUEST, problem))?;
        let shown = match asked {
            Asked::List => self.list(&query).await?,
            Asked::Show(id) => self.show(id).await?,
            Asked::Replay(id) => self.replay(id).await?,
            Asked::Discard(id) => self.discard(id).await?,
            Asked::ReplayAll => self.replay_all(query).await?,
            Asked::DiscardAll => self.discard_all(query).await?,
            Asked::Lanes => self.lanes().await?,
        };
        Ok(json_answer(StatusCode::OK, &shown))
    }

    async fn list(&self, query: &Query) -> Result<Value, Refusal> {
        let page = self
            .queue
            .find(&query.filter, query.after, query.limit)
            .await?;
        let redaction = self.redaction();
        Ok(json!({
            "requests": page.found.iter().map(|found| redaction.found(found)).collect::<Vec<_>>(),
            "next": page.next.map(|id| id.to_string()),
        }))
    }

    async fn show(&self, id: EntryId) -> Result<Value, Refusal> {
        let (found, request) = self.queue.get(id).await?.ok_or_else(|| not_found(id))?;
        let redaction = self.redaction();
        let mut shown = redaction.found(&found);
        shown["request"] = json::request(request, &redaction);
        Ok(shown)
    }

    /// What nobody is shown, as it is in force.
    fn redaction(&self) -> Redaction {
        Redaction::new(self.config.borrow().ingest.as_deref())
    }

    async fn lanes(&self) -> Result<Value, Refusal> {
        let Some(deliver) = &self.deliver else {
            let lanes = self.queue.lanes();
            let lanes: Vec<_> = lanes.iter().map(json::stats).collect();
            return Ok(json!({ "lanes": lanes, "upstreams": [], "caps": [] }));
        };
        let report = deliver.report().await.ok_or_else(|| {
            let problem = "delivery does not answer".to_owned();
            Refusal(StatusCode::SERVICE_UNAVAILABLE, problem)
        })?;
        Ok(json::report(&report))
    }
}

fn route(path: &str, method: &Method) -> Result<Asked, Refusal> {
    let only = |wanted: &str| {
        let matches = wanted.split(", ").any(|wanted| wanted == method.as_str());
        let refusal = || Refusal(StatusCode::METHOD_NOT_ALLOWED, wanted.to_owned());
        matches.then_some(()).ok_or_else(refusal)
    };
    let id = |text: &str| {
        text.parse::<EntryId>().map_err(|_| {
            let problem = format!("{text:?} is no id of a request");
            Refusal(StatusCode::BAD_REQUEST, problem)
        })
    };
    let mut parts = path.trim_start_matches('/').split('/');
    let (first, second, third) = (parts.next(), parts.next(), parts.next());
    let (allowed, asked) = match (first, second, third, parts.next()) {
        (Some("lanes"), None, ..) => ("GET, HEAD", Asked::Lanes),
        (Some("requests"), None, ..) => ("GET, HEAD", Asked::List),
        (_, Some("replay"), None, _) => ("POST", Asked::ReplayAll),
        (_, Some("discard"), None, _) => ("POST", Asked::DiscardAll),
        (_, Some(text), None, _) => ("GET, HEAD", Asked::Show(id(text)?)),
        (_, Some(text), Some("replay"), None) => ("POST", Asked::Replay(id(text)?)),
        (_, Some(text), Some("discard"), None) => ("POST", Asked::Discard(id(text)?)),
        _ => return Err(Refusal(StatusCode::NOT_FOUND, "no such path".to_owned())),
    };
    only(allowed)?;
    Ok(asked)
}

fn not_found(id: EntryId) -> Refusal {
    let problem = format!("there is no request {id}: it never was, or retention has removed it");
    Refusal(StatusCode::NOT_FOUND, problem)
}

fn json_answer(status: StatusCode, value: &Value) -> Answer {
    let mut text = value.to_string();
    text.push('\n');
    let mut answer = Response::new(Full::new(Bytes::from(text)));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("application/json");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

#[cfg(test)]
mod tests;
