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
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use sluice_crds::config::GatewayConfig;
use sluice_proto::fleet::{Directive, Steering, Version};
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
use super::past::{self, Remembered};
use super::reporter::{Reporter, Sides, Told};
use super::shares::Boot;
use crate::args::ManagerArgs;
use crate::drain::Watcher;
use crate::relay::{Shared, leave};

/// How often what is in force is looked at while there is no stream.
const LOOK_EVERY: Duration = Duration::from_secs(1);

pub struct Parts {
    pub args: ManagerArgs,
    pub sides: Sides,
    pub links: Links,
}

/// This data plane as a member of the fleet.
pub struct Member {
    args: ManagerArgs,
    url: Uri,
    config: watch::Receiver<Arc<GatewayConfig>>,
    relay: Arc<Shared>,
    has_ingest: bool,
    links: Links,
    reporter: Reporter,
    past: Arc<Mutex<Remembered>>,
    sides: Sides,
    orders: Orders,
    applied: watch::Receiver<Version>,
    ended: watch::Receiver<Option<Instant>>,
    /// The process does not end before the manager was told that nothing is sent any more.
    last_word: Option<Watcher>,
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
        let Parts { args, sides, links } = parts;
        let cores = args.cpu_request_millicores;
        let cores = cores.map(|millicores| f64::from(millicores) / 1e3);
        let boot = links.rates.borrow().boot;
        let boot = boot.unwrap_or(Boot {
            since: Instant::now(),
            data_planes_max: sides.config.borrow().data_planes_max,
        });
        Ok(Some(Self {
            url,
            config: sides.config.clone(),
            relay: Arc::clone(&sides.relay),
            has_ingest: sides.ingest.is_some(),
            orders: Orders::new(boot),
            applied: links.applied.subscribe(),
            ended: links.ended.subscribe(),
            last_word: sides.ingest.as_ref().map(|_| sides.drain.subscribe()),
            sent: VecDeque::new(),
            attended: None,
            metrics: Metrics::register(registry),
            reporter: Reporter::new(sides.clone(), &pod, cores),
            past: Arc::default(),
            sides,
            args,
            links,
        }))
    }

    /// Runs until it is dropped.
    pub async fn attend(mut self) {
        let remembered = past::remember(self.sides.clone(), Arc::clone(&self.past));
        tokio::join!(remembered, self.attend_for_ever());
    }

    async fn attend_for_ever(&mut self) {
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
        let target = match Target::read(&self.url, &self.args) {
            Ok(target) => target,
            Err(problem) => return problem,
        };
        let (reports, outgoing) = mpsc::channel(REPORTS_WAITING_MAX);
        let past = self.past.lock().told();
        self.reporter.begin(past);
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
        self.links.gate.set(self.orders.fence(), spread);
        let (total, until) = self.orders.shed();
        self.links
            .leave
            .send_replace(leave::Wanted { total, until });
        self.share();
        self.look();
    }

    /// Hands on the parts of limits; delivery says when it uses them.
    fn share(&self) {
        let rates = Arc::new(self.orders.rates());
        self.links.rates.send_replace(rates);
        self.apply_for_delivery();
    }

    /// Delivery has ended, and what it sent is paid for.
    fn sends_nothing(&self) -> bool {
        let paid = *self.links.ended.borrow();
        paid.is_some_and(|paid| paid <= Instant::now())
    }

    /// Where nothing is sent, every cap is kept to.
    fn apply_for_delivery(&self) {
        if self.has_ingest && !self.sends_nothing() {
            return;
        }
        let version = self.links.rates.borrow().version;
        self.links.applied.send_if_modified(|applied| {
            let is_new = *applied != version;
            *applied = version;
            is_new
        });
    }

    /// What changes by itself.
    fn look(&mut self) {
        if self.config.has_changed().unwrap_or(false) {
            self.follow_config();
        }
        // Delivery ends before the last clients have gone.
        self.apply_for_delivery();
        self.give_up_last_word();
        let steering = self.orders.steering(Instant::now());
        self.metrics.set_steering(steering);
        self.metrics.set_shed(self.relay.shed_total());
    }

    /// Nobody hears it, or it would be long in coming: what was sent is not paid for yet.
    fn give_up_last_word(&mut self) {
        let has_ended = self.links.ended.borrow().is_some();
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
        let data_planes_max = self.config.borrow_and_update().data_planes_max;
        if self.orders.set_data_planes_max(data_planes_max) {
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
        let told = Told {
            applied,
            drains: self.orders.steering(at) == Steering::Drain,
            sends_nothing: self.sends_nothing(),
        };
        let report = self.reporter.next(told).await;
        if self.sent.len() >= REPORTS_REMEMBERED {
            self.sent.pop_front();
        }
        self.sent.push_back((report.sequence, at));
        let is_last_word = report.sends_nothing;
        place.send(report.into());
        if is_last_word {
            self.said_last_word();
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
