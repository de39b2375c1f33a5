//! What is done from time to time: looks at the queue, gauges, retention, idle connections.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use sluice_crds::config::Ingest;
use tokio::task::{AbortHandle, spawn_local};
use tokio::time::Instant;

use super::Engine;
use crate::clock::unix_ms;
use crate::ingest::deliver::hold::Hold;
use crate::ingest::limiter::BreakerState;
use crate::store::queue::{Horizon, LaneStats};

/// Between two looks at the queue's lanes at least, however cheap they are.
const LOOK_PAUSE_MIN: Duration = Duration::from_millis(1);
/// A look takes time that grows with lanes; this many times as long is spent on delivering before the next one.
const LOOK_PAUSE_RATIO: u32 = 10;
const TRIM_INTERVAL: Duration = Duration::from_secs(3);

pub(super) struct Upkeep {
    /// The queue has changed since the last look.
    changed: bool,
    next_look: Instant,
    horizon: Option<Horizon>,
    next_trim: Instant,
    trim: Option<AbortHandle>,
    configured: HashSet<Arc<str>>,
    /// What gauges say, so that what is over is taken back.
    waiting: HashSet<Arc<str>>,
    held: HashMap<Arc<str>, Hold>,
    caps: HashSet<Arc<str>>,
    /// Upstreams that are given a rest, of which the log has said so.
    resting: HashSet<Arc<str>>,
}

impl Upkeep {
    pub(super) fn new() -> Self {
        let now = Instant::now();
        Self {
            changed: true,
            next_look: now,
            horizon: None,
            next_trim: now,
            trim: None,
            configured: HashSet::new(),
            waiting: HashSet::new(),
            held: HashMap::new(),
            caps: HashSet::new(),
            resting: HashSet::new(),
        }
    }

    /// The queue may have something that it did not have before.
    pub(super) fn look(&mut self) {
        self.changed = true;
    }

    pub(super) fn look_after(&mut self, pause: Duration) {
        self.changed = true;
        self.next_look = self.next_look.max(Instant::now() + pause);
    }

    pub(super) fn wake_at(&self) -> Option<Instant> {
        self.changed.then_some(self.next_look)
    }

    pub(super) fn configured(&mut self, ingest: Option<&Ingest>) {
        self.horizon = ingest.map(|ingest| Horizon {
            default: ingest.retention.time,
            by_application: ingest
                .applications
                .iter()
                .filter_map(|app| Some((Arc::from(app.name.as_str()), app.retention?)))
                .collect::<BTreeMap<_, _>>(),
            budget_bytes: ingest.retention.bytes,
        });
        self.next_trim = Instant::now();
        let applications = ingest.map_or(&[][..], |ingest| &ingest.applications);
        self.configured = applications
            .iter()
            .map(|app| app.name.as_str().into())
            .collect();
    }
}

impl Engine {
    /// Looks for lanes with entries to claim, when there may be some.
    pub(super) fn scan(&mut self, now: Instant) {
        if !self.upkeep.changed || now < self.upkeep.next_look {
            return;
        }
        self.upkeep.changed = false;
        let lanes = self.queue.lanes();
        self.scheduler.scanned(lanes, now.into_std());
        let pause = (now.elapsed() * LOOK_PAUSE_RATIO).max(LOOK_PAUSE_MIN);
        self.upkeep.next_look = now + pause;
    }

    pub(super) fn tick(&mut self) {
        let now = Instant::now();
        for state in self.servers.values() {
            state.server.close_idle();
        }
        let lanes = self.queue.lanes();
        self.show_waiting(&lanes);
        self.scheduler.scanned(lanes, now.into_std());
        self.metrics.set_queue(&self.queue.stats());
        self.show_held();
        self.show_upstreams(now);
        self.show_caps(now);
        self.trim(now);
    }

    fn show_waiting(&mut self, lanes: &[LaneStats]) {
        let now_ms = unix_ms();
        let mut sums: HashMap<Arc<str>, (u64, Option<u64>)> = HashMap::new();
        for lane in lanes {
            let (waiting, oldest) = sums.entry(Arc::clone(&lane.lane.application)).or_default();
            *waiting += lane.waiting;
            *oldest = match (*oldest, lane.oldest_ms) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        }
        for (application, (waiting, oldest)) in &sums {
            let age = oldest.map_or(0, |oldest| now_ms.saturating_sub(oldest));
            self.metrics
                .set_waiting(application, *waiting, Duration::from_millis(age));
        }
        let before = std::mem::take(&mut self.upkeep.waiting);
        for gone in before.iter().filter(|name| !sums.contains_key(*name)) {
            if gone.is_empty() || self.upkeep.configured.contains(gone) {
                self.metrics.set_waiting(gone, 0, Duration::ZERO);
            } else {
                self.upkeep.held.remove(gone);
                let reasons = Hold::ALL.map(Hold::as_str);
                self.metrics.forget_application(gone, &reasons);
            }
        }
        self.upkeep.waiting = sums.into_keys().collect();
    }

    fn show_held(&mut self) {
        let mut held: HashMap<Arc<str>, Hold> = HashMap::new();
        for report in self.scheduler.lane_reports() {
            if let Some(reason) = report.held {
                // Sorted: the lane of fresh entries comes first, and its reason is the application's.
                held.entry(report.lane.application).or_insert(reason.why);
            }
        }
        let before = std::mem::take(&mut self.upkeep.held);
        for (application, why) in &before {
            if held.get(application) != Some(why) {
                self.metrics.set_lane_held(application, why.as_str(), false);
            }
        }
        for (application, why) in &held {
            if before.get(application) != Some(why) {
                self.metrics.set_lane_held(application, why.as_str(), true);
            }
        }
        self.upkeep.held = held;
    }

    fn show_upstreams(&mut self, now: Instant) {
        let mut resting = HashSet::new();
        for report in self.scheduler.upstream_reports(now.into_std()) {
            if report.retired {
                continue;
            }
            let limits = report.limits;
            let breaker_open = limits.breaker != BreakerState::Closed;
            self.metrics.set_upstream(
                &report.name,
                limits.in_flight.into(),
                // A limit is far below what a float holds exactly.
                limits.limit as u64,
                limits.rate.unwrap_or(f64::INFINITY),
                breaker_open,
            );
            if breaker_open {
                resting.insert(report.name);
            }
        }
        let before = std::mem::replace(&mut self.upkeep.resting, resting);
        for name in self.upkeep.resting.difference(&before) {
            // Not answered at all, or else its answers are to blame, which metrics and parked requests show.
            let server = self.servers.values().find(|state| state.label == *name);
            let unanswered = server.and_then(|state| state.server.last_failure());
            let last_unanswered = unanswered.map(|failure| failure.to_string());
            tracing::warn!(upstream = %name, last_unanswered, "upstream fails, it is given a rest");
        }
        for name in before.difference(&self.upkeep.resting) {
            tracing::info!(upstream = %name, "upstream is used again");
        }
    }

    fn show_caps(&mut self, now: Instant) {
        let mut shown = HashSet::new();
        for report in self.scheduler.cap_reports(now.into_std()) {
            let name: Arc<str> = report.key.to_string().into();
            self.metrics
                .set_cap(&name, report.state.in_force.per_minute);
            shown.insert(name);
        }
        for gone in self.upkeep.caps.difference(&shown) {
            self.metrics.forget_cap(gone);
        }
        self.upkeep.caps = shown;
    }

    /// Retention: one run at a time.
    fn trim(&mut self, now: Instant) {
        let running = self.upkeep.trim.as_ref();
        if now < self.upkeep.next_trim || running.is_some_and(|trim| !trim.is_finished()) {
            return;
        }
        let Some(horizon) = self.upkeep.horizon.clone() else {
            return;
        };
        self.upkeep.next_trim = now + TRIM_INTERVAL;
        let queue = Arc::clone(&self.queue);
        let trim = spawn_local(async move {
            if let Err(failure) = queue.trim(&horizon, unix_ms()).await {
                tracing::warn!(%failure, "retention did not run");
            }
        });
        self.upkeep.trim = Some(trim.abort_handle());
    }
}
