//! The stream to the manager, kept for ever: reports up, directives down, and a new one when it breaks.
//!
//! Owns the orders and hands on what they come to. Runs on the control runtime; those who serve clients never wait for it.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use http::Uri;
use prometheus_client::registry::Registry;
use sluice_crds::config::GatewayConfig;
use sluice_proto::fleet::{Directive, Phase, Report, Steering, Version};
use sluice_proto::fleet_wire as wire;
use tokio::sync::{mpsc, watch};
use tokio::time::MissedTickBehavior;
use tonic::Streaming;

use super::Links;
use super::connect::{Target, describe};
use super::limits::{
    LAST_WORD, PAUSE_MAX, PAUSE_MIN, REPORTS_REMEMBERED, REPORTS_WAITING_MAX, SILENCE_MAX,
};
use super::metrics::Metrics;
use super::orders::Orders;
use super::report::{self, Collected, Collector};
use super::shares::Boot;
use crate::args::ManagerArgs;
use crate::drain::{self, Drain, Watcher};
use crate::pressure::Pressure;
use crate::relay::{Shared, leave};

pub use super::report::IngestSide;

/// How often what is in force is looked at while there is no stream.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub struct Parts {
    pub args: ManagerArgs,
    pub config: watch::Receiver<Arc<GatewayConfig>>,
    pub relay: Arc<Shared>,
    pub pressure: Arc<Pressure>,
    pub drain: Drain,
    pub ingest: Option<IngestSide>,
    pub links: Links,
}

/// This data plane as a member of the fleet.
pub struct Member {
    parts: Parts,
    url: Uri,
    /// What does not change in reports.
    identity: Report,
    applications: Vec<Arc<str>>,
    orders: Orders,
    collector: Collector,
    applied: watch::Receiver<Version>,
    ended: watch::Receiver<Option<Instant>>,
    /// The process does not end before the manager was told that nothing is sent any more.
    last_word: Option<Watcher>,
    sequence: u64,
    /// When the last reports were sent.
    sent: VecDeque<(u64, Instant)>,
    /// Whether a manager says what to do, as far as the log knows.
    attended: Option<bool>,
    metrics: Metrics,
}

impl Member {
    /// `None`: the process was given no manager, and shows no metrics of one. Fails where what it was given cannot be used at all.
    pub fn join(parts: Parts, registry: &mut Registry) -> anyhow::Result<Option<Self>> {
        let Some(url) = parts.args.url.clone() else {
            return Ok(None);
        };
        // What is not there yet may come; what is wrong now is told now.
        if url.scheme_str() == Some("https") && parts.args.ca.is_none() {
            anyhow::bail!("manager {url}: https:// needs --manager-ca FILE");
        }
        let pod = match &parts.args.pod {
            Some(pod) => pod.clone(),
            None => host_name().context("name of the pod: give --pod NAME")?,
        };
        let config = parts.config.borrow().clone();
        let cores = parts.args.cpu_request_millicores;
        let identity = Report {
            gateway: format!("{}/{}", config.namespace, config.name).into(),
            pod: pod.into(),
            instance: uuid::Uuid::new_v4().to_string().into(),
            release: env!("CARGO_PKG_VERSION").into(),
            cpu_request_cores: cores.map(|millicores| f64::from(millicores) / 1e3),
            ..Report::default()
        };
        let boot = parts.links.rates.borrow().boot;
        let boot = boot.unwrap_or(Boot {
            since: Instant::now(),
            data_planes_max: config.data_planes_max,
        });
        let mut member = Self {
            url,
            identity,
            applications: Vec::new(),
            orders: Orders::new(boot),
            collector: Collector::default(),
            applied: parts.links.applied.subscribe(),
            ended: parts.links.ended.subscribe(),
            last_word: parts.ingest.as_ref().map(|_| parts.drain.subscribe()),
            sequence: 0,
            sent: VecDeque::new(),
            attended: None,
            metrics: Metrics::register(registry),
            parts,
        };
        member.follow_config();
        Ok(Some(member))
    }

    /// Runs until it is dropped.
    pub async fn attend(mut self) {
        let mut pause_max = PAUSE_MIN;
        loop {
            let mut was_attended = false;
            let why = self.session(&mut was_attended).await;
            self.lost(&why);
            pause_max = if was_attended {
                PAUSE_MIN * 2
            } else {
                (pause_max * 2).min(PAUSE_MAX)
            };
            let spread = (pause_max - PAUSE_MIN).mul_f64(fastrand::f64());
            self.meanwhile(tokio::time::sleep(PAUSE_MIN + spread)).await;
        }
    }

    /// One stream, from connecting to its end, and why it ended.
    async fn session(&mut self, was_attended: &mut bool) -> String {
        let target = match Target::read(&self.url, &self.parts.args) {
            Ok(target) => target,
            Err(problem) => return problem,
        };
        let (reports, outgoing) = mpsc::channel(REPORTS_WAITING_MAX);
        self.collector.begin();
        self.report(&reports).await;
        let mut directives = match self.meanwhile(target.attend(outgoing)).await {
            Ok(directives) => directives,
            Err(problem) => return problem,
        };
        let mut heard = tokio::time::Instant::now();
        let mut next = heard + self.orders.report_every();
        loop {
            tokio::select! {
                directive = next_directive(&mut directives) => match directive {
                    Ok(directive) => {
                        heard = tokio::time::Instant::now();
                        *was_attended = true;
                        self.found();
                        self.take(directive);
                    }
                    Err(why) => return why,
                },
                Ok(()) = self.applied.changed() => self.report(&reports).await,
                Ok(()) = self.ended.changed() => self.report(&reports).await,
                () = tokio::time::sleep_until(next) => {
                    next = tokio::time::Instant::now() + self.orders.report_every();
                    self.look();
                    self.report(&reports).await;
                }
                () = tokio::time::sleep_until(heard + SILENCE_MAX) => {
                    return format!("nothing heard for {SILENCE_MAX:?}");
                }
            }
            if reports.is_closed() {
                return "the stream was closed".to_owned();
            }
        }
    }

    fn take(&mut self, directive: Directive) {
        let now = Instant::now();
        let sent = self
            .sent
            .iter()
            .find(|(sequence, _)| *sequence == directive.answers)
            .map(|(_, at)| *at);
        let version = directive.version;
        if let Err(ignored) = self.orders.take(directive, sent, now) {
            let why = ignored.name();
            tracing::debug!(
                why,
                term = version.term,
                generation = version.generation,
                "directive ignored"
            );
            self.metrics.ignored();
            return;
        }
        self.metrics.applied();
        let spread = self.orders.retry_spread();
        self.parts.links.gate.set(self.orders.fence(), spread);
        let (total, until) = self.orders.shed();
        self.parts
            .links
            .leave
            .send_replace(leave::Wanted { total, until });
        self.share();
        self.look();
    }

    /// Hands on the parts of limits; delivery says when it uses them.
    fn share(&self) {
        let rates = Arc::new(self.orders.rates());
        self.parts.links.rates.send_replace(rates);
        self.apply_for_delivery();
    }

    /// Delivery has ended, and what it sent is paid for.
    fn sends_nothing(&self) -> bool {
        let paid = *self.parts.links.ended.borrow();
        paid.is_some_and(|paid| paid <= Instant::now())
    }

    /// Where nothing is sent, every cap is kept to.
    fn apply_for_delivery(&self) {
        if self.parts.ingest.is_some() && !self.sends_nothing() {
            return;
        }
        let version = self.parts.links.rates.borrow().version;
        self.parts.links.applied.send_if_modified(|applied| {
            let is_new = *applied != version;
            *applied = version;
            is_new
        });
    }

    /// What changes by itself.
    fn look(&mut self) {
        if self.parts.config.has_changed().unwrap_or(false) {
            self.follow_config();
        }
        // Delivery ends before the last clients have gone.
        self.apply_for_delivery();
        self.give_up_last_word();
        let steering = self.orders.steering(Instant::now());
        self.metrics.set_steering(steering);
        self.metrics.set_shed(self.parts.relay.shed_total());
    }

    /// Nobody hears it, or it would be long in coming: what was sent is not paid for yet.
    fn give_up_last_word(&mut self) {
        let has_ended = self.parts.links.ended.borrow().is_some();
        if has_ended && (self.attended != Some(true) || !self.sends_nothing()) {
            self.last_word = None;
        }
    }

    /// The manager was told that nothing is sent any more.
    fn said_last_word(&mut self) {
        if let Some(watcher) = self.last_word.take() {
            tokio::spawn(async move {
                tokio::time::sleep(LAST_WORD).await;
                drop(watcher);
            });
        }
    }

    fn follow_config(&mut self) {
        let config = Arc::clone(&self.parts.config.borrow_and_update());
        let ingest = config.ingest.as_ref();
        self.applications = ingest
            .iter()
            .flat_map(|ingest| &ingest.applications)
            .map(|application| application.name.as_str().into())
            .collect();
        if self.orders.set_data_planes_max(config.data_planes_max) {
            self.share();
        }
    }

    /// Does what has to be done all the time while something is waited for.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut ticks = tokio::time::interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = ticks.tick() => self.look(),
                Ok(()) = self.ended.changed() => self.look(),
            }
        }
    }

    /// Sends how everything is. A manager that does not take reports gets none until it does.
    async fn report(&mut self, reports: &mpsc::Sender<wire::Report>) {
        let Ok(place) = reports.try_reserve() else {
            return;
        };
        // Before anything is collected: times in the answer count from here.
        let at = Instant::now();
        let applied = *self.applied.borrow_and_update();
        self.sequence += 1;
        let relay = &self.parts.relay;
        let collected = match &self.parts.ingest {
            Some(side) => self.collector.ingest(side, &self.applications).await,
            None => Collected::default(),
        };
        let is_draining =
            !self.parts.drain.is_serving() || self.orders.steering(at) == Steering::Drain;
        let report = Report {
            sequence: self.sequence,
            applied,
            phase: if is_draining {
                Phase::Draining
            } else {
                Phase::Serving
            },
            connections_max: Some(relay.connections_max() as u64),
            relay: report::relay(relay),
            load: report::load(&self.parts.pressure),
            caps: collected.caps,
            upstreams: collected.upstreams,
            queue: collected.queue,
            applications: collected.applications,
            ends_in: self.ends_in(),
            sends_nothing: self.sends_nothing(),
            ..self.identity.clone()
        };
        if self.sent.len() >= REPORTS_REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back((self.sequence, at));
        let is_last_word = report.sends_nothing;
        place.send(report.into());
        if is_last_word {
            self.said_last_word();
        }
    }

    /// By then at the latest, whatever the manager says.
    fn ends_in(&self) -> Option<Duration> {
        match self.parts.drain.phase() {
            drain::Phase::Serving => None,
            drain::Phase::Draining { until, .. } => {
                Some(until.saturating_duration_since(tokio::time::Instant::now()))
            }
            drain::Phase::Closing => Some(Duration::ZERO),
        }
    }

    fn found(&mut self) {
        self.metrics.set_connected(true);
        if self.attended != Some(true) {
            tracing::info!(manager = %self.url, "manager found");
        }
        self.attended = Some(true);
    }

    fn lost(&mut self, why: &str) {
        self.metrics.set_connected(false);
        if self.attended == Some(false) {
            tracing::debug!(manager = %self.url, why, "manager not reached");
        } else {
            tracing::warn!(manager = %self.url, why, "no manager: what it said last holds as long as it said");
        }
        self.attended = Some(false);
    }
}

async fn next_directive(directives: &mut Streaming<wire::Directive>) -> Result<Directive, String> {
    match directives.message().await {
        Ok(Some(directive)) => {
            Directive::try_from(directive).map_err(|malformed| malformed.to_string())
        }
        Ok(None) => Err("the manager ended the stream".to_owned()),
        Err(status) => Err(describe(&status)),
    }
}

/// As the kernel has it; in a pod that is the pod's name.
fn host_name() -> anyhow::Result<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")?;
    let name = name.trim();
    anyhow::ensure!(!name.is_empty(), "this host has none");
    Ok(name.to_owned())
}
