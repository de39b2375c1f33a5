//! The monitor of a gateway that is one process: the same manager, API and page as on Kubernetes, with one data plane that reports to it
//! from within.
//!
//! The manager decides nothing here, since there is nobody to share with or to move to; its directives go nowhere. Requests are those of
//! this process' queue. Settings are in the manifests, which are read anew when they change, so the page only shows them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{StatusCode, request};
use http_body_util::{BodyExt, Full};
use sluice_crds::config::GatewayConfig;
use sluice_manager::monitor::api::{self, Edit, GatewayName, Host, Refusal, Rights, Written};
use sluice_manager::monitor::{page, settings};
use sluice_manager::{Fleet, PodFacts, Policy, Rebalance, Scaling};
use subtle::ConstantTimeEq;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::admin::guard::{self, Hosts};
use crate::admin::{Answer, Routes};
use crate::clock::unix_ms;
use crate::fleet::{Reporter, Sides, Told};

/// As often as data planes on Kubernetes.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Browsers ask for a password by it.
const CHALLENGE: &str = "Basic realm=\"sluice\", charset=\"UTF-8\"";

/// What of it all the viewer may.
const EVERYTHING_BUT_SETTINGS: Rights = Rights {
    requests: true,
    replay: true,
    edit: false,
};

/// Who may look.
#[derive(Clone)]
pub enum Access {
    /// Whoever reaches the admin port, which is on loopback.
    Loopback,
    /// Whoever knows it: with `Bearer`, or as the password of any user.
    Password(Arc<str>),
    /// Nobody: the port can be reached from elsewhere, and there is no password.
    Closed,
}

impl Access {
    pub fn new(admin: SocketAddr, password: Option<String>) -> Self {
        match password {
            Some(password) => Self::Password(password.into()),
            None if admin.ip().is_loopback() => Self::Loopback,
            None => Self::Closed,
        }
    }
}

pub struct Monitor {
    gateway: GatewayName,
    fleet: Fleet,
    config: watch::Receiver<Arc<GatewayConfig>>,
    requests: Option<Arc<dyn Routes>>,
    access: Access,
}

impl Monitor {
    /// Begins to watch; `requests`: what answers for `/requests`, where there is a queue.
    pub fn start(
        sides: Sides,
        requests: Option<Arc<dyn Routes>>,
        access: Access,
        tasks: &mut JoinSet<()>,
    ) -> Arc<Self> {
        let config = sides.config.clone();
        let current = Arc::clone(&config.borrow());
        let (fleet, run) = Fleet::start(unix_ms(), policy(&current));
        let name = current.name.clone();
        fleet.set_facts(vec![facts(&name)]);
        tasks.spawn(run);
        let reporter = Reporter::new(sides, &name, None);
        tasks.spawn(report(reporter, fleet.clone()));
        tasks.spawn(follow(config.clone(), fleet.clone()));
        Arc::new(Self {
            gateway: GatewayName {
                namespace: current.namespace.clone(),
                name,
            },
            fleet,
            config,
            requests,
            access,
        })
    }

    /// What keeps somebody out; `None`: nothing.
    fn refusal(&self, head: &request::Parts) -> Option<Answer> {
        let refuse = |status, problem: &str| Some(full(Refusal::new(status, problem).into()));
        let hosts = match &self.access {
            Access::Loopback => Hosts::Local,
            Access::Password(_) => Hosts::Any,
            Access::Closed => {
                let problem = "the admin port is not on loopback: the monitor needs --monitor-password-file FILE";
                return refuse(StatusCode::FORBIDDEN, problem);
            }
        };
        if let Err((status, problem)) = guard::check(head, hosts) {
            return refuse(status, &problem);
        }
        match &self.access {
            Access::Password(password) if !knows(head, password) => {
                let problem = "the monitor's password is wanted";
                let refusal = Refusal::unauthenticated(CHALLENGE, problem);
                Some(full(refusal.into()))
            }
            Access::Password(_) | Access::Loopback | Access::Closed => None,
        }
    }
}

#[async_trait]
impl Routes for Monitor {
    fn paths(&self) -> &'static str {
        "/ (the monitor), /api/v1"
    }

    async fn answer(&self, head: &request::Parts, body: Bytes) -> Option<Answer> {
        let path = head.uri.path();
        let is_api = path == api::ROOT || path.starts_with("/api/");
        let page = page::find(path);
        if !is_api && page.is_none() {
            return None;
        }
        if let Some(refused) = self.refusal(head) {
            return Some(refused);
        }
        Some(full(match page {
            Some(page) if !is_api => page.answer(&head.method),
            _ => api::answer(self, head, &body).await,
        }))
    }
}

#[async_trait]
impl Host for Monitor {
    async fn gateways(&self) -> Result<Vec<GatewayName>, Refusal> {
        Ok(vec![self.gateway.clone()])
    }

    async fn rights(&self, _: &GatewayName) -> Result<Rights, Refusal> {
        Ok(EVERYTHING_BUT_SETTINGS)
    }

    fn fleet(&self, gateway: &GatewayName) -> Option<Fleet> {
        (*gateway == self.gateway).then(|| self.fleet.clone())
    }

    async fn requests(
        &self,
        _: &GatewayName,
        head: &request::Parts,
        path: &str,
    ) -> Result<api::Answer, Refusal> {
        let nothing = || Refusal::not_found("this gateway has no queue");
        let requests = self.requests.as_ref().ok_or_else(nothing)?;
        let mut asked = head.clone();
        asked.uri = path.parse().map_err(|_| {
            let problem = "this is no path of requests";
            Refusal::new(StatusCode::BAD_REQUEST, problem)
        })?;
        let answer = requests.answer(&asked, Bytes::new()).await;
        let (head, body) = answer.ok_or_else(nothing)?.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes());
        Ok(api::Answer::from_parts(head, body.unwrap_or_default()))
    }

    async fn settings(&self, _: &GatewayName) -> Result<api::Answer, Refusal> {
        let config = Arc::clone(&self.config.borrow());
        let shown = settings::of(&config, settings::Source::Manifests);
        Ok(api::json_answer(StatusCode::OK, &shown))
    }

    async fn written(&self, _: &GatewayName, _: &Written) -> Result<api::Answer, Refusal> {
        Err(in_files())
    }

    async fn edit(
        &self,
        _: &GatewayName,
        _: &Written,
        _: Edit,
        _: bool,
    ) -> Result<api::Answer, Refusal> {
        Err(in_files())
    }
}

fn in_files() -> Refusal {
    let problem = "settings are in the manifests that the process was started with: edit the files";
    Refusal::not_found(problem)
}

/// Whether whoever asks has given the password.
fn knows(head: &request::Parts, password: &str) -> bool {
    let given = head.headers.get(AUTHORIZATION);
    let Some((scheme, given)) = given
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split_once(' '))
    else {
        return false;
    };
    let same = |given: &[u8]| bool::from(given.ct_eq(password.as_bytes()));
    if scheme.eq_ignore_ascii_case("bearer") {
        return same(given.trim().as_bytes());
    }
    let decoded = STANDARD.decode(given.trim()).unwrap_or_default();
    let colon = decoded.iter().position(|byte| *byte == b':');
    scheme.eq_ignore_ascii_case("basic") && colon.is_some_and(|colon| same(&decoded[colon + 1..]))
}

fn full(answer: api::Answer) -> Answer {
    answer.map(Full::new)
}

fn policy(config: &GatewayConfig) -> Policy {
    Policy {
        caps: Policy::caps_of(config),
        applications: Policy::applications_of(config),
        scaling: Scaling::default(),
        rebalance: Rebalance::Off,
        moves_per_second: None,
        fence_delay: Duration::ZERO,
        steering: false,
    }
}

fn facts(name: &str) -> PodFacts {
    PodFacts {
        name: name.into(),
        ready: true,
        terminating: false,
        node: None,
        zone: None,
        current_revision: true,
        drain_requested: false,
    }
}

async fn report(mut reporter: Reporter, fleet: Fleet) {
    let mut ticks = tokio::time::interval(REPORT_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        fleet.report(reporter.next(Told::default()).await).await;
    }
}

async fn follow(mut config: watch::Receiver<Arc<GatewayConfig>>, fleet: Fleet) {
    while config.changed().await.is_ok() {
        let current = Arc::clone(&config.borrow_and_update());
        fleet.set_policy(policy(&current));
    }
}

#[cfg(test)]
mod tests;
