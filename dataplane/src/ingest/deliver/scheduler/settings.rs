//! The configuration as the scheduler follows it, while requests are under way.
//!
//! What did not change keeps its state: tokens of caps, limits of upstreams, places of lanes. An upstream that is gone
//! gets nothing more and lives until its last answer.

use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::{HashMap, HashSet};
use slab::Slab;
use sluice_crds::config::{self, Delivery, Ingest, Ordering};
use sluice_proto::fleet::CapKey;

use super::affinity::Affinity;
use super::application::Application;
use super::cap::Cap;
use super::group::{Group, Upstream};
use super::supply::Supply;
use super::{ApplicationId, GroupId, LaneId, LaneState, Scheduler, UpstreamId};
use crate::ingest::deliver::fair::{FairQueue, Flow};
use crate::ingest::deliver::lane::Window;
use crate::ingest::limiter::{Limiter, LimiterSettings};
use crate::store::queue::Lane;

/// What the shell has to follow.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::ingest::deliver) enum UpstreamChange {
    Added(UpstreamId, Arc<str>, Arc<config::Upstream>),
    /// Same address, other settings.
    Changed(UpstreamId, Arc<config::Upstream>),
    Removed(UpstreamId, Arc<str>),
}

/// Until there is a configuration nothing is sent, so nothing of this is used.
fn no_delivery() -> Delivery {
    Delivery {
        attempts: 1,
        backoff_initial: Duration::from_secs(1),
        backoff_max: Duration::from_secs(60),
        timeout: Duration::from_secs(30),
        ordering: Ordering::PerKey,
    }
}

impl Scheduler {
    pub(in crate::ingest::deliver) fn new() -> Self {
        let mut groups = Slab::new();
        let default_group = groups.insert(Group::default());
        Self {
            lanes: Slab::new(),
            lane_of: HashMap::with_hasher(RandomState::default()),
            applications: Slab::new(),
            application_of: HashMap::with_hasher(RandomState::default()),
            groups,
            default_group,
            upstreams: Slab::new(),
            top: FairQueue::default(),
            cap: None,
            capped_until: None,
            capped_at: None,
            rates: Arc::default(),
            timers: BinaryHeap::new(),
            affinity: Affinity::default(),
            supply: Supply::default(),
            delivery: Arc::new(no_delivery()),
            stopped: None,
            in_flight: 0,
        }
    }

    /// Follows a configuration; `None`: ingest is switched off, and what waits waits on.
    pub(in crate::ingest::deliver) fn configure(
        &mut self,
        ingest: Option<&Ingest>,
        now: Instant,
    ) -> Vec<UpstreamChange> {
        let mut changes = Vec::new();
        let requests_per_minute = ingest.and_then(|ingest| ingest.requests_per_minute);
        let part = self.part(&CapKey::Gateway);
        Cap::configure(&mut self.cap, requests_per_minute, part, now);
        self.capped_until = None;
        if let Some(ingest) = ingest {
            self.delivery = Arc::new(ingest.delivery.clone());
        }
        let applications = ingest.map_or(&[][..], |ingest| &ingest.applications);
        let upstreams = ingest.map_or(&[][..], |ingest| &ingest.upstreams);
        let longest = applications
            .iter()
            .filter(|application| application.upstreams.is_empty())
            .filter_map(|application| application.delivery.as_ref())
            .map(|delivery| delivery.timeout)
            .fold(self.delivery.timeout, Duration::max);
        self.set_upstreams(self.default_group, upstreams, longest, now, &mut changes);

        let configured: HashSet<&str> = applications.iter().map(|app| app.name.as_str()).collect();
        for application in applications {
            let group = self.own_group(application, now, &mut changes);
            self.set_application(application, group, now);
        }
        let gone: Vec<ApplicationId> = self
            .applications
            .iter()
            .filter(|(_, application)| !configured.contains(&*application.name))
            .map(|(id, _)| id)
            .collect();
        for id in gone {
            self.orphan(id, now);
        }
        self.close_groups(&mut changes);
        self.forget_applications();
        self.set_ceilings(now);
        for id in self.groups.iter().map(|(id, _)| id).collect::<Vec<_>>() {
            self.unblock(id);
        }
        changes
    }

    /// The group of an application's own upstreams, or the gateway's.
    fn own_group(
        &mut self,
        application: &config::Application,
        now: Instant,
        changes: &mut Vec<UpstreamChange>,
    ) -> GroupId {
        if application.upstreams.is_empty() {
            return self.default_group;
        }
        let known = self
            .groups
            .iter()
            .find(|(id, group)| *id != self.default_group && *group.scope == *application.name)
            .map(|(id, _)| id);
        let id = known.unwrap_or_else(|| {
            let scope = application.name.as_str().into();
            self.groups.insert(Group::new(scope))
        });
        let timeout = application
            .delivery
            .as_ref()
            .map_or(self.delivery.timeout, |delivery| delivery.timeout);
        self.set_upstreams(id, &application.upstreams, timeout, now, changes);
        id
    }

    fn set_upstreams(
        &mut self,
        group: GroupId,
        wanted: &[Arc<config::Upstream>],
        timeout_max: Duration,
        now: Instant,
        changes: &mut Vec<UpstreamChange>,
    ) {
        let mut before = std::mem::take(&mut self.groups[group].upstreams);
        let mut after = Vec::with_capacity(wanted.len());
        for wanted in wanted {
            let settings = LimiterSettings {
                concurrency_min: wanted.concurrency_min,
                concurrency_max: wanted.concurrency_max,
                weight: wanted.weight,
                timeout_max,
            };
            let known = before.iter().position(|id| {
                let known = &self.upstreams[*id].config;
                known.name == wanted.name && known.url == wanted.url
            });
            match known.map(|index| before.swap_remove(index)) {
                Some(id) => {
                    let upstream = &mut self.upstreams[id];
                    upstream.limiter.reconfigure(settings);
                    if upstream.config != *wanted {
                        if upstream.config.health.is_some() && wanted.health.is_none() {
                            upstream.healthy = true;
                        }
                        upstream.config = Arc::clone(wanted);
                        changes.push(UpstreamChange::Changed(id, Arc::clone(wanted)));
                    }
                    after.push(id);
                }
                None => {
                    let label = label(&self.groups[group].scope, &wanted.name);
                    let limiter = Limiter::new(settings, fastrand::u64(..), now);
                    let upstream =
                        Upstream::new(Arc::clone(&label), Arc::clone(wanted), group, limiter);
                    let id = self.upstreams.insert(upstream);
                    changes.push(UpstreamChange::Added(id, label, Arc::clone(wanted)));
                    after.push(id);
                }
            }
        }
        after.sort_by_key(|id| self.upstreams[*id].config.priority);
        self.groups[group].upstreams = after;
        for id in before {
            self.retire(id, changes);
        }
    }

    fn retire(&mut self, id: UpstreamId, changes: &mut Vec<UpstreamChange>) {
        let upstream = &mut self.upstreams[id];
        upstream.retired = true;
        changes.push(UpstreamChange::Removed(id, Arc::clone(&upstream.label)));
        if upstream.in_flight == 0 {
            self.remove_upstream(id);
        }
    }

    pub(super) fn remove_upstream(&mut self, id: UpstreamId) {
        self.upstreams.remove(id);
        self.affinity.clear();
    }

    fn set_application(&mut self, wanted: &config::Application, group: GroupId, now: Instant) {
        let id = self.application(&wanted.name);
        let name = Arc::clone(&self.applications[id].name);
        let part = self.part(&CapKey::Application(name));
        let delivery = wanted
            .delivery
            .as_ref()
            .map_or_else(|| Arc::clone(&self.delivery), |own| Arc::new(own.clone()));
        let application = &mut self.applications[id];
        application.configured = true;
        application.weight = wanted.weight;
        application.paused = wanted.paused;
        Cap::configure(&mut application.cap, wanted.requests_per_minute, part, now);
        self.move_application(id, group, delivery, now);
    }

    /// An application that is no longer configured: what it left is delivered by the gateway's rules.
    fn orphan(&mut self, id: ApplicationId, now: Instant) {
        let delivery = Arc::clone(&self.delivery);
        let application = &mut self.applications[id];
        application.configured = false;
        application.weight = 1;
        application.paused = false;
        application.cap = None;
        self.move_application(id, self.default_group, delivery, now);
    }

    fn move_application(
        &mut self,
        id: ApplicationId,
        group: GroupId,
        delivery: Arc<Delivery>,
        now: Instant,
    ) {
        let lanes = self.applications[id].lanes.clone();
        for lane in &lanes {
            self.leave(*lane);
        }
        let ordered = delivery.ordering == Ordering::PerKey;
        let application = &mut self.applications[id];
        if application.group != group {
            application.group = group;
            for lane in &lanes {
                // Virtual times of different groups have nothing to do with each other.
                self.lanes[*lane].flow = Flow::default();
            }
        }
        application.delivery = delivery;
        for lane in lanes {
            self.lanes[lane].window.set_ordered(ordered);
            self.refresh(lane, now);
            self.feed(lane);
        }
    }

    /// Groups that no application uses any more.
    fn close_groups(&mut self, changes: &mut Vec<UpstreamChange>) {
        let used: HashSet<GroupId> = self.applications.iter().map(|(_, app)| app.group).collect();
        let unused: Vec<GroupId> = self
            .groups
            .iter()
            .map(|(id, _)| id)
            .filter(|id| *id != self.default_group && !used.contains(id))
            .collect();
        for id in unused {
            for upstream in std::mem::take(&mut self.groups[id].upstreams) {
                self.retire(upstream, changes);
            }
            // Its last upstreams may still wait for answers; then it goes with a later configuration.
            if !self
                .upstreams
                .iter()
                .any(|(_, upstream)| upstream.group == id)
            {
                self.groups.remove(id);
            }
        }
    }

    /// The application of that name, made when it is not known.
    pub(super) fn application(&mut self, name: &str) -> ApplicationId {
        if let Some(id) = self.application_of.get(name) {
            return *id;
        }
        let name: Arc<str> = name.into();
        let id = self.applications.insert(Application {
            name: Arc::clone(&name),
            weight: 1,
            paused: false,
            cap: None,
            delivery: Arc::clone(&self.delivery),
            group: self.default_group,
            lanes: Vec::new(),
            succeeded_at: None,
            configured: false,
        });
        self.application_of.insert(name, id);
        id
    }

    pub(super) fn add_lane(&mut self, lane: Lane, now: Instant) -> LaneId {
        let application = self.application(&lane.application);
        let ordering = self.applications[application].delivery.ordering;
        let id = self.lanes.insert(LaneState {
            lane: lane.clone(),
            application,
            window: Window::new(ordering == Ordering::PerKey),
            flow: Flow::default(),
            queued_weight: 0,
            held: None,
            paused_until: None,
            timer: None,
            supply: super::supply::LaneSupply::default(),
            free_since: None,
        });
        self.lane_of.insert(lane, id);
        self.applications[application].lanes.push(id);
        self.refresh(id, now);
        id
    }

    pub(super) fn remove_lane(&mut self, id: LaneId) {
        self.leave(id);
        let lane = self.lanes.remove(id);
        self.lane_of.remove(&lane.lane);
        let lanes = &mut self.applications[lane.application].lanes;
        lanes.retain(|other| *other != id);
    }

    /// Applications that are neither configured nor have anything left.
    pub(super) fn forget_applications(&mut self) {
        let applications = &mut self.applications;
        self.application_of.retain(|_, id| {
            let application = &applications[*id];
            let keep = application.configured || !application.lanes.is_empty();
            if !keep {
                applications.remove(*id);
            }
            keep
        });
    }
}

fn label(scope: &str, name: &str) -> Arc<str> {
    if scope.is_empty() {
        name.into()
    } else {
        format!("{scope}/{name}").into()
    }
}
