//! A queue and upstreams in virtual time around a scheduler.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sluice_crds::config::Ingest;

use super::super::{Attempt, Scheduler, UpstreamId};
pub(super) use crate::ingest::deliver::tests::fixtures::{application, ingest, upstream};
use crate::ingest::limiter::{Class, Sample, SampleOutcome};
use crate::store::queue::{Claimed, EntryId, Lane, LaneStats, Token};

pub(super) fn lane(application: &str) -> Lane {
    Lane {
        partition: 0,
        application: application.into(),
        replay: false,
    }
}

pub(super) struct Sent {
    pub(super) at: Instant,
    pub(super) lane: Lane,
    pub(super) id: u64,
    pub(super) cost: u32,
    pub(super) upstream: Arc<str>,
    /// Since it was added.
    pub(super) delay: Duration,
}

type End = (Instant, u64, Attempt, UpstreamId, Duration, bool);

pub(super) struct Sim {
    pub(super) scheduler: Scheduler,
    pub(super) now: Instant,
    pub(super) start: Instant,
    pub(super) sent: Vec<Sent>,
    /// How long an upstream takes; applications may take longer.
    pub(super) latency: Duration,
    pub(super) slow: HashMap<Arc<str>, Duration>,
    /// Upstreams that refuse.
    pub(super) failing: Vec<Arc<str>>,
    /// The queue answers with an error, or as if it were empty.
    pub(super) store_fails: bool,
    pub(super) steps: u64,
    store: BTreeMap<Lane, VecDeque<Claimed>>,
    requests: HashMap<Token, Bytes>,
    waiting: BTreeMap<Lane, u64>,
    added: HashMap<u64, Instant>,
    ends: BinaryHeap<Reverse<(Instant, u64)>>,
    open: HashMap<u64, End>,
    last_id: u64,
    last_end: u64,
    changed: bool,
    /// The queue is looked at once a second whether it has changed or not.
    pub(super) next_scan: Instant,
}

impl Sim {
    pub(super) fn new(ingest: &Ingest) -> Self {
        let now = Instant::now();
        let mut scheduler = Scheduler::new();
        scheduler.configure(Some(ingest), now);
        Self {
            scheduler,
            now,
            start: now,
            sent: Vec::new(),
            latency: Duration::from_millis(10),
            slow: HashMap::new(),
            failing: Vec::new(),
            store_fails: false,
            steps: 0,
            store: BTreeMap::new(),
            requests: HashMap::new(),
            waiting: BTreeMap::new(),
            added: HashMap::new(),
            ends: BinaryHeap::new(),
            open: HashMap::new(),
            last_id: 0,
            last_end: 0,
            changed: false,
            next_scan: now,
        }
    }

    pub(super) fn add(&mut self, lane: &Lane, key: &str, cost: u32) -> u64 {
        self.last_id += 1;
        let id = self.last_id;
        let request = Bytes::from(vec![b'x'; 100]);
        self.requests.insert(Token(id), request.clone());
        self.added.insert(id, self.now);
        *self.waiting.entry(lane.clone()).or_default() += 1;
        self.store
            .entry(lane.clone())
            .or_default()
            .push_back(Claimed {
                id: EntryId(id.into()),
                token: Token(id),
                key: Bytes::copy_from_slice(key.as_bytes()),
                barrier: Bytes::new(),
                cost,
                attempts: 0,
                request,
            });
        self.changed = true;
        id
    }

    /// Entries without order.
    pub(super) fn flood(&mut self, application: &str, entries: usize) {
        for _ in 0..entries {
            self.add(&lane(application), "", 1);
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.turn();
            let next = self.scheduler.wake_at().unwrap_or(end);
            let ends = self.ends.peek().map_or(end, |Reverse((at, _))| *at);
            let next = next.min(ends).min(self.next_scan);
            if next >= end {
                self.now = end;
                self.turn();
                return;
            }
            assert!(
                next > self.now,
                "wakes for nothing: {:?}",
                next - self.start
            );
            self.now = next;
        }
    }

    fn turn(&mut self) {
        self.end_due();
        // Until it settles: dispatches make room for claims, and claims bring dispatches.
        while self.dispatch() | self.feed() {}
    }

    fn feed(&mut self) -> bool {
        let mut fed = false;
        if std::mem::take(&mut self.changed) || self.now >= self.next_scan {
            self.next_scan = self.now + Duration::from_secs(1);
            let stats = self.waiting.iter().map(|(lane, waiting)| LaneStats {
                lane: lane.clone(),
                waiting: *waiting,
                waiting_bytes: 0,
                oldest_ms: Some(0),
                parked: 0,
            });
            let stats = stats.filter(|stats| stats.waiting > 0).collect();
            self.scheduler.scanned(stats, self.now);
        }
        while let Some(claim) = self.scheduler.next_claim() {
            if self.store_fails {
                let error_or_empty = (claim.id % 2 == 0).then(Vec::new);
                self.scheduler.claimed(&claim, error_or_empty, self.now);
                continue;
            }
            let queue = self.store.entry(claim.lane.clone()).or_default();
            let entries = queue.len().min(claim.limits.entries);
            let claimed = queue.drain(..entries).collect();
            self.scheduler.claimed(&claim, Some(claimed), self.now);
            fed = true;
        }
        while let Some(load) = self.scheduler.next_load(self.now) {
            if self.store_fails {
                self.scheduler.loaded(&load, None, self.now);
                break;
            }
            let requests = load
                .entries
                .iter()
                .map(|(_, token)| self.requests.get(token).cloned());
            let requests = requests.collect();
            self.scheduler.loaded(&load, Some(requests), self.now);
            fed = true;
        }
        fed
    }

    fn dispatch(&mut self) -> bool {
        let mut any = false;
        while let Some(dispatch) = self.scheduler.next(self.now) {
            any = true;
            self.steps += 1;
            let lane = self.scheduler.lanes[dispatch.lane].lane.clone();
            let upstream = Arc::clone(&self.scheduler.upstreams[dispatch.upstream].label);
            let slow = self.slow.get(&lane.application);
            let latency = slow.copied().unwrap_or(self.latency);
            let fails = self.failing.contains(&upstream);
            let id = dispatch.sending.token.0;
            self.sent.push(Sent {
                at: self.now,
                lane,
                id,
                cost: dispatch.sending.cost,
                upstream,
                delay: self.now - self.added[&id],
            });
            let attempt = Attempt {
                lane: dispatch.lane,
                seq: dispatch.seq,
            };
            self.last_end += 1;
            let at = self.now + latency;
            self.ends.push(Reverse((at, self.last_end)));
            let end = (at, id, attempt, dispatch.upstream, latency, fails);
            self.open.insert(self.last_end, end);
        }
        any
    }

    fn end_due(&mut self) {
        while let Some(Reverse((at, number))) = self.ends.peek().copied()
            && at <= self.now
        {
            self.ends.pop();
            let (_, id, attempt, upstream, latency, fails) = self.open.remove(&number).unwrap();
            let outcome = if fails {
                SampleOutcome::Failed
            } else {
                SampleOutcome::Ok
            };
            let sample = Sample { latency, outcome };
            self.scheduler
                .ended(upstream, Class::Queued, sample, self.now);
            if fails {
                let again = self.now + Duration::from_secs(1);
                self.scheduler.retry(attempt, again, 0, self.now);
                continue;
            }
            let lane = self.scheduler.lanes[attempt.lane].lane.clone();
            if self.requests.remove(&Token(id)).is_some() {
                *self.waiting.get_mut(&lane).unwrap() -= 1;
            }
            self.scheduler.settle(attempt, true, self.now);
            self.scheduler.recorded(attempt, self.now);
        }
    }

    /// An operator settles a waiting entry.
    pub(super) fn dismiss(&mut self, lane: &Lane, id: u64) {
        *self.waiting.get_mut(lane).unwrap() -= 1;
        self.requests.remove(&Token(id));
        self.changed = true;
    }

    pub(super) fn sent_of(&self, application: &str) -> usize {
        let sent = self.sent.iter();
        sent.filter(|sent| &*sent.lane.application == application)
            .count()
    }

    pub(super) fn held(&self, application: &str) -> Option<&'static str> {
        let reports = self.scheduler.lane_reports();
        let report = reports
            .iter()
            .find(|report| &*report.lane.application == application);
        report
            .and_then(|report| report.held)
            .map(|held| held.why.as_str())
    }
}
