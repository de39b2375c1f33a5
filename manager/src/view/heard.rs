//! What a pod said, and the rates that follow from what it said before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_proto::fleet::{Application, CapKey, Report};

/// Reports closer together than this say nothing about rates.
const RATE_SPAN_MIN: Duration = Duration::from_millis(200);
/// Rates that are decided by are smoothed over about so long.
const RATE_SMOOTHING: Duration = Duration::from_secs(3);
/// Those that are only shown: people want to see what happens.
const SHOWN_SMOOTHING: Duration = Duration::from_millis(1_500);

/// What a pod said.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) at: Instant,
    /// First report of this instance.
    pub(crate) since: Instant,
    pub(crate) report: Report,
    /// The report that the next rates are counted from.
    base: Report,
    base_at: Instant,
    pub(crate) rates: Rates,
    /// All that it ever said something of.
    pub(crate) applications: BTreeMap<Arc<str>, Served>,
}

/// An application in one pod.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    pub(crate) said: Application,
    base: Counts,
    /// Per second, smoothed: of [`Counts`].
    pub(crate) arrived: f64,
    pub(crate) delivered: f64,
    pub(crate) failed: f64,
}

/// Requests since a process began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) arrived: u64,
    pub(crate) delivered: u64,
    pub(crate) failed: u64,
}

impl Counts {
    pub(crate) fn add(&mut self, other: Self) {
        self.arrived += other.arrived;
        self.delivered += other.delivered;
        self.failed += other.failed;
    }
}

/// Per second, smoothed.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Rates {
    pub(crate) arrived: f64,
    pub(crate) delivered: f64,
    pub(crate) failed: f64,
    pub(crate) cpu_cores: f64,
    pub(crate) messages_in: f64,
    pub(crate) messages_out: f64,
    /// Sent under each cap.
    pub(crate) sent: BTreeMap<CapKey, f64>,
    /// Taken and failed by each upstream.
    pub(crate) upstream: BTreeMap<Arc<str>, f64>,
}

impl Served {
    fn new(said: Application) -> Self {
        let mut served = Self {
            base: Counts::default(),
            said,
            arrived: 0.0,
            delivered: 0.0,
            failed: 0.0,
        };
        served.base = served.counts();
        served
    }

    pub(crate) fn counts(&self) -> Counts {
        Counts {
            arrived: self.said.arrived_total,
            delivered: self.said.delivered_total,
            failed: self.said.failed_total,
        }
    }

    fn follow(&mut self, seconds: f64, part: f64) {
        let (before, now) = (self.base, self.counts());
        let smooth = |rate: &mut f64, before: u64, now: u64| {
            *rate += (now.saturating_sub(before) as f64 / seconds - *rate) * part;
        };
        smooth(&mut self.arrived, before.arrived, now.arrived);
        smooth(&mut self.delivered, before.delivered, now.delivered);
        smooth(&mut self.failed, before.failed, now.failed);
        self.base = now;
    }
}

impl Heard {
    pub(super) fn first(mut report: Report, now: Instant) -> Self {
        let applications = std::mem::take(&mut report.applications).into_iter();
        let applications = applications.map(|said| (Arc::clone(&said.name), Served::new(said)));
        Self {
            applications: applications.collect(),
            at: now,
            since: now,
            base: report.clone(),
            base_at: now,
            report,
            rates: Rates::default(),
        }
    }

    pub(super) fn next(&mut self, mut report: Report, now: Instant) {
        for said in std::mem::take(&mut report.applications) {
            match self.applications.get_mut(&said.name) {
                Some(served) => served.said = said,
                None => {
                    let name = Arc::clone(&said.name);
                    // It was idle before, or it would have been said.
                    let base = Counts::default();
                    let served = Served {
                        base,
                        ..Served::new(said)
                    };
                    self.applications.insert(name, served);
                }
            }
        }
        let span = now.saturating_duration_since(self.base_at);
        if span >= RATE_SPAN_MIN {
            let seconds = span.as_secs_f64();
            let part = |smoothing: Duration| (seconds / smoothing.as_secs_f64()).min(1.0);
            let shown = part(SHOWN_SMOOTHING);
            self.rates.show(&self.base, &report, seconds, shown);
            self.rates
                .follow(&self.base, &report, seconds, part(RATE_SMOOTHING));
            for served in self.applications.values_mut() {
                served.follow(seconds, shown);
            }
            self.base = report.clone();
            self.base_at = now;
        }
        self.at = now;
        self.report = report;
    }

    pub(crate) fn counts(&self) -> Counts {
        let queue = &self.report.queue;
        Counts {
            arrived: queue.arrived_total,
            delivered: queue.delivered_total,
            failed: queue.failed_total,
        }
    }
}

impl Rates {
    fn show(&mut self, before: &Report, now: &Report, seconds: f64, part: f64) {
        let smooth = |rate: &mut f64, grown: f64| *rate += (grown / seconds - *rate) * part;
        let grown = |before: u64, now: u64| now.saturating_sub(before) as f64;
        let (old, new) = (&before.queue, &now.queue);
        smooth(
            &mut self.arrived,
            grown(old.arrived_total, new.arrived_total),
        );
        smooth(
            &mut self.delivered,
            grown(old.delivered_total, new.delivered_total),
        );
        smooth(&mut self.failed, grown(old.failed_total, new.failed_total));
        let (old, new) = (&before.relay, &now.relay);
        smooth(
            &mut self.messages_in,
            grown(old.messages_in_total, new.messages_in_total),
        );
        smooth(
            &mut self.messages_out,
            grown(old.messages_out_total, new.messages_out_total),
        );
    }

    fn follow(&mut self, before: &Report, now: &Report, seconds: f64, part: f64) {
        let smooth = |rate: &mut f64, grown: f64| *rate += (grown / seconds - *rate) * part;
        let grown = |before: u64, now: u64| now.saturating_sub(before) as f64;
        let cpu = now.load.cpu_seconds_total - before.load.cpu_seconds_total;
        smooth(&mut self.cpu_cores, cpu.max(0.0));
        let totals: BTreeMap<&CapKey, u64> = before
            .caps
            .iter()
            .map(|cap| (&cap.key, cap.sent_total))
            .collect();
        self.sent
            .retain(|key, _| now.caps.iter().any(|cap| cap.key == *key));
        for cap in &now.caps {
            let before = totals.get(&cap.key).copied().unwrap_or(cap.sent_total);
            let rate = self.sent.entry(cap.key.clone()).or_default();
            smooth(rate, grown(before, cap.sent_total));
        }
        self.upstream
            .retain(|name, _| now.upstreams.iter().any(|upstream| upstream.name == *name));
        for upstream in &now.upstreams {
            let before = before
                .upstreams
                .iter()
                .find(|old| old.name == upstream.name);
            let before = before.map_or(upstream.succeeded_total, |old| old.succeeded_total);
            let rate = self.upstream.entry(upstream.name.clone()).or_default();
            smooth(rate, grown(before, upstream.succeeded_total));
        }
    }
}
