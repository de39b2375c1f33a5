//! Parts of what is shared with other data planes, as they come and go while requests are under way.

use std::sync::Arc;
use std::time::Instant;

use sluice_proto::fleet::CapKey;

use super::cap::Part;
use super::{ApplicationId, Scheduler};
use crate::fleet::shares::Rates;

impl Scheduler {
    /// Uses these from now on. Returns when what was sent before at higher rates is paid for, if that takes time: until then
    /// others must not have what was taken away.
    pub(in crate::ingest::deliver) fn share(
        &mut self,
        rates: Arc<Rates>,
        now: Instant,
    ) -> Option<Instant> {
        self.rates = rates;
        let mut paid = None;
        let part = self.part(&CapKey::Gateway);
        if let Some(cap) = &mut self.cap {
            let (changed, paid_at) = cap.share(part, now);
            paid = paid.max(paid_at);
            if changed {
                self.capped_until = None;
            }
        }
        let capped = self.applications.iter();
        let capped: Vec<ApplicationId> = capped
            .filter(|(_, application)| application.cap.is_some())
            .map(|(id, _)| id)
            .collect();
        for id in capped {
            let name = Arc::clone(&self.applications[id].name);
            let part = self.part(&CapKey::Application(name));
            let Some(cap) = &mut self.applications[id].cap else {
                continue;
            };
            let (changed, paid_at) = cap.share(part, now);
            paid = paid.max(paid_at);
            if changed {
                for index in 0..self.applications[id].lanes.len() {
                    let lane = self.applications[id].lanes[index];
                    self.refresh(lane, now);
                }
            }
        }
        self.set_ceilings(now);
        paid
    }

    /// When all that was sent is paid for, if nothing is sent from now on.
    pub(in crate::ingest::deliver) fn paid_at(&self, now: Instant) -> Instant {
        let applications = self.applications.iter();
        let caps = applications.filter_map(|(_, application)| application.cap.as_ref());
        let paid = caps.chain(&self.cap).filter_map(|cap| cap.paid_at(now));
        paid.fold(now, Instant::max)
    }

    pub(super) fn part(&self, key: &CapKey) -> Part {
        Part {
            boot: self.rates.boot,
            grant: self.rates.grants.get(key).copied(),
        }
    }

    /// What upstreams may be sent at most, beside what their limiters find.
    pub(super) fn set_ceilings(&mut self, now: Instant) {
        let mut groups = Vec::new();
        for (_, upstream) in &mut self.upstreams {
            let ceiling = self.rates.ceiling(&upstream.label, now);
            let ceiling = ceiling.zip(self.rates.upstreams_until);
            if upstream.limiter.set_ceiling(ceiling) {
                groups.push(upstream.group);
            }
        }
        for group in groups {
            self.unblock(group);
        }
    }
}
