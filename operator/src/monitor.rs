//! The monitor on Kubernetes: the manager's page and JSON API, for people of the cluster.
//!
//! Whoever looks shows a token of the cluster. It is the API server that says what he may, and that is asked in his name for whatever
//! is changed (`viewers`), so there is nothing here that could be talked into more, and no right that the operator needs for it. The
//! operator that leads answers; the others ask it (`leader`). Requests are asked of a data plane (`requests`).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::AUTHORIZATION;
use http::{Request, StatusCode, request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use sluice_manager::Fleet;
use sluice_manager::monitor::api::{self, Edit, GatewayName, Host, Refusal, Rights, Written};
use sluice_manager::monitor::{page, settings};
use tokio::time::timeout;

use crate::fleet::Fleets;
use crate::shelf::Key;
use crate::web::{Handler, Limits};
use crate::world::World;

pub mod leader;
mod objects;
mod requests;
pub mod viewers;

use leader::Leader;
use viewers::Viewers;

/// A browser opens up to six; more people than that look through something that shares.
pub const LIMITS: Limits = Limits {
    connections: 512,
    lifetime: Duration::from_secs(600),
    keep_alive: true,
};
/// Settings of an object are a few lines.
const BODY_BYTES_MAX: usize = 64 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

pub struct Monitor {
    pub world: Arc<World>,
    pub fleets: Arc<Fleets>,
    pub viewers: Viewers,
    pub leader: Leader,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asker {
    Person,
    /// Another operator, which takes this one for the leader.
    Operator,
}

impl Monitor {
    pub fn handler(self: &Arc<Self>, asker: Asker) -> Handler {
        let monitor = Arc::clone(self);
        Arc::new(move |request| {
            let monitor = Arc::clone(&monitor);
            async move { monitor.answer(request, asker).await.map(Full::new) }.boxed()
        })
    }

    async fn answer(&self, request: Request<Incoming>, asker: Asker) -> api::Answer {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let is_api = path == api::ROOT || path.starts_with("/api/");
        if !is_api {
            return match page::find(path) {
                Some(page) => page.answer(&head.method),
                None => Refusal::not_found("there is / and /api/v1").into(),
            };
        }
        let answered = match bearer(&head) {
            Some(token) => self.answer_to(token, &head, body, asker).await,
            None => Err(unauthenticated("a token of this cluster is wanted")),
        };
        answered.unwrap_or_else(api::Answer::from)
    }

    async fn answer_to(
        &self,
        token: &str,
        head: &request::Parts,
        body: Incoming,
        asker: Asker,
    ) -> Result<api::Answer, Refusal> {
        let body = read(body).await?;
        if self.fleets.term().is_none() {
            return match asker {
                Asker::Person => self.leader.ask(head, body).await,
                Asker::Operator => Err(leader::nobody()),
            };
        }
        let look = Look {
            monitor: self,
            token,
        };
        Ok(api::answer(&look, head, &body).await)
    }
}

async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    let body = Limited::new(body, BODY_BYTES_MAX).collect();
    let body = timeout(BODY_TIMEOUT, body).await.map_err(|_| {
        let problem = "the body did not come in time";
        Refusal::new(StatusCode::REQUEST_TIMEOUT, problem)
    })?;
    let body = body.map_err(|_| {
        let problem = format!("expected a body of at most {BODY_BYTES_MAX} bytes");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, &problem)
    })?;
    Ok(body.to_bytes())
}

fn bearer(head: &request::Parts) -> Option<&str> {
    let given = head.headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = given.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

fn unauthenticated(problem: &str) -> Refusal {
    Refusal::unauthenticated("Bearer", problem)
}

fn key(gateway: &GatewayName) -> Key {
    (gateway.namespace.clone(), gateway.name.clone())
}

/// The monitor as one person sees it.
struct Look<'a> {
    monitor: &'a Monitor,
    token: &'a str,
}

#[async_trait]
impl Host for Look<'_> {
    async fn gateways(&self) -> Result<Vec<GatewayName>, Refusal> {
        let all = self.monitor.fleets.led();
        self.monitor.viewers.seen(self.token, all).await
    }

    async fn rights(&self, gateway: &GatewayName) -> Result<Rights, Refusal> {
        self.monitor.viewers.rights(self.token, gateway).await
    }

    fn fleet(&self, gateway: &GatewayName) -> Option<Fleet> {
        self.monitor.fleets.fleet(&key(gateway))
    }

    async fn requests(
        &self,
        gateway: &GatewayName,
        head: &request::Parts,
        path: &str,
    ) -> Result<api::Answer, Refusal> {
        requests::ask(&self.monitor.world, &key(gateway), head, path).await
    }

    async fn settings(&self, gateway: &GatewayName) -> Result<api::Answer, Refusal> {
        let config = self.monitor.fleets.config(&key(gateway));
        let config = config.ok_or_else(|| Refusal::not_found("nothing is in force"))?;
        let shown = settings::of(&config, settings::Source::Kubernetes);
        Ok(api::json_answer(StatusCode::OK, &shown))
    }

    async fn written(
        &self,
        gateway: &GatewayName,
        object: &Written,
    ) -> Result<api::Answer, Refusal> {
        let viewers = &self.monitor.viewers;
        let found = objects::find(viewers, self.token, gateway, object).await?;
        Ok(objects::shown(&found))
    }

    async fn edit(
        &self,
        gateway: &GatewayName,
        object: &Written,
        edit: Edit,
        dry: bool,
    ) -> Result<api::Answer, Refusal> {
        let viewers = &self.monitor.viewers;
        let edited = objects::edit(viewers, self.token, gateway, object, &edit, dry).await?;
        Ok(objects::shown(&edited))
    }
}

#[cfg(test)]
mod tests;
