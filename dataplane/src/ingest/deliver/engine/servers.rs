//! The clients of the configured upstreams, and their health checks.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use sluice_crds::config::{self, Health, Upstream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::{Instant, MissedTickBehavior};

use super::{Engine, Event};
use crate::ingest::deliver::scheduler::{UpstreamChange, UpstreamId};
use crate::ingest::upstream::{Address, Outgoing, Server, read_body};
use crate::ingest::verdict::Dialect;

/// Checks in a row that must fail; one that succeeds is enough.
const FAILURES_UNTIL_UNHEALTHY: u32 = 2;
const CHECK_TIMEOUT_MAX: Duration = Duration::from_secs(5);
/// A health check says what it has to say in its status.
const CHECK_BODY_BYTES_MAX: usize = 16 * 1024;

pub(super) struct ServerState {
    pub(super) server: Rc<Server>,
    pub(super) label: Arc<str>,
    /// Tells events of this server from those of an earlier one with its number.
    serial: u64,
    health: Option<Health>,
    check: Option<AbortHandle>,
}

impl Drop for ServerState {
    fn drop(&mut self) {
        if let Some(check) = &self.check {
            check.abort();
        }
    }
}

impl Engine {
    /// Follows the configuration.
    pub(super) fn configure(&mut self) {
        let config = Arc::clone(&self.config.borrow_and_update());
        let now = Instant::now().into_std();
        for change in self.scheduler.configure(config.ingest.as_deref(), now) {
            match change {
                UpstreamChange::Added(id, label, upstream) => self.add_server(id, label, &upstream),
                UpstreamChange::Changed(id, upstream) => {
                    if !self.servers.contains_key(&id) {
                        self.scheduler.set_healthy(id, false);
                    }
                    if let Some(state) = self.servers.get_mut(&id)
                        && state.health != upstream.health
                    {
                        state.health.clone_from(&upstream.health);
                        self.scheduler.set_healthy(id, true);
                        self.check_health(id);
                    }
                }
                UpstreamChange::Removed(id, label) => {
                    self.servers.remove(&id);
                    self.metrics.forget_upstream(&label);
                }
            }
        }
        if let Some(ingest) = &config.ingest {
            self.dialect = match ingest.accept.dialect {
                config::Dialect::Countly => Dialect::Countly,
                config::Dialect::Generic(_) => Dialect::Generic,
            };
        }
        self.upkeep.configured(config.ingest.as_deref());
        self.upkeep.look();
    }

    fn add_server(&mut self, id: UpstreamId, label: Arc<str>, upstream: &Upstream) {
        let address = match Address::parse(&upstream.url) {
            Ok(address) => address,
            Err(failure) => {
                // The configuration was checked, so this is about something that only delivery refuses.
                tracing::error!(upstream = %label, %failure, "upstream cannot be used");
                self.scheduler.set_healthy(id, false);
                return;
            }
        };
        self.last_serial += 1;
        let state = ServerState {
            server: Server::new(address),
            label,
            serial: self.last_serial,
            health: upstream.health.clone(),
            check: None,
        };
        self.servers.insert(id, state);
        self.check_health(id);
    }

    fn check_health(&mut self, id: UpstreamId) {
        let Some(state) = self.servers.get_mut(&id) else {
            return;
        };
        if let Some(check) = state.check.take() {
            check.abort();
        }
        let Some(health) = state.health.clone() else {
            return;
        };
        let (server, serial) = (Rc::clone(&state.server), state.serial);
        let checks = checks(server, health, id, serial, self.sender.clone());
        state.check = Some(spawn_local(checks).abort_handle());
    }

    pub(super) fn health(&mut self, id: UpstreamId, serial: u64, healthy: bool) {
        let Some(state) = self.servers.get(&id) else {
            return;
        };
        if state.serial == serial && state.health.is_some() {
            tracing::info!(upstream = %state.label, healthy, "upstream health");
            self.scheduler.set_healthy(id, healthy);
        }
    }
}

/// Tells of every change for as long as it is not aborted.
async fn checks(
    server: Rc<Server>,
    health: Health,
    upstream: UpstreamId,
    serial: u64,
    sender: mpsc::UnboundedSender<Event>,
) {
    let Some(target) = check_target(&server, &health.path) else {
        tracing::error!("path of a health check cannot be requested");
        return;
    };
    let mut ticks = tokio::time::interval(health.interval.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let time = health.interval.min(CHECK_TIMEOUT_MAX);
    // An upstream starts as healthy; a check that fails first is to say so again.
    let mut said_healthy = true;
    let mut failures = 0;
    loop {
        ticks.tick().await;
        let passed = tokio::time::timeout(time, check(&server, &target)).await;
        failures = if passed.unwrap_or(false) {
            0
        } else {
            failures + 1
        };
        let healthy = match failures {
            0 => true,
            FAILURES_UNTIL_UNHEALTHY.. => false,
            _ => said_healthy,
        };
        if healthy != said_healthy {
            said_healthy = healthy;
            let event = Event::Health {
                upstream,
                serial,
                healthy,
            };
            if sender.send(event).is_err() {
                return;
            }
        }
    }
}

fn check_target(server: &Server, path: &str) -> Option<Uri> {
    let target = format!("{}{path}", server.address().prefix());
    let target = PathAndQuery::try_from(target).ok()?;
    Uri::builder().path_and_query(target).build().ok()
}

async fn check(server: &Server, target: &Uri) -> bool {
    let request = || -> Option<Outgoing> {
        let mut request = Request::new(Full::default());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = target.clone();
        let headers = request.headers_mut();
        headers.insert(http::header::HOST, server.address().host().clone());
        let agent = concat!("sluice/", env!("CARGO_PKG_VERSION"));
        headers.insert(http::header::USER_AGENT, HeaderValue::from_static(agent));
        Some(request)
    };
    let Some(first) = request() else { return false };
    let Ok((response, connection)) = server.exchange(first, Some(&request)).await else {
        return false;
    };
    let (head, mut body) = response.into_parts();
    if let Ok(body) = read_body(&mut body, CHECK_BODY_BYTES_MAX).await
        && body.complete
    {
        server.keep(connection).await;
    }
    head.status.is_success()
}
