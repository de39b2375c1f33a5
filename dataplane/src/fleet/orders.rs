//! What is in force, by directives and time. Pure.
//!
//! A directive is complete: it replaces the one before. Its times count from when the report that it answers was sent, so that nothing
//! lasts longer here than the manager thinks. What managers of lower terms say is ignored, and so is what is older than what is in
//! force. A cap that a directive does not name keeps what was said of it last: its lease ends, its safe rate stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_proto::fleet::{CAPS_MAX, CapKey, Directive, Steering, Version};

use super::gate::Fence;
use super::limits::{
    LEASE_MAX, REPORT_EVERY, REPORT_EVERY_MAX, REPORT_EVERY_MIN, UPSTREAM_SHARES_HOLD,
};
use super::shares::{Boot, Grant, Rates};

/// Why a directive was ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ignored {
    /// From a manager that has a successor.
    LowerTerm,
    /// Older than the one in force.
    Stale,
}

impl Ignored {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::LowerTerm => "lower term",
            Self::Stale => "stale",
        }
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Orders {
    boot: Boot,
    version: Version,
    steering: Steering,
    shed_to: u64,
    /// Steering and shedding end then; `None`: with the next directive.
    holds_until: Option<Instant>,
    report_every: Duration,
    retry_spread: Option<Duration>,
    grants: BTreeMap<CapKey, Grant>,
    upstreams: BTreeMap<Arc<str>, f64>,
    upstreams_until: Option<Instant>,
}

impl Orders {
    /// As long as nothing was heard.
    pub(super) fn new(boot: Boot) -> Self {
        Self {
            boot,
            version: Version::default(),
            steering: Steering::Accept,
            shed_to: 0,
            holds_until: None,
            report_every: REPORT_EVERY,
            retry_spread: None,
            grants: BTreeMap::new(),
            upstreams: BTreeMap::new(),
            upstreams_until: None,
        }
    }

    /// `sent`: when the report was sent that the directive answers; `None`: not known any more, so that nothing in it lasts.
    pub(super) fn take(
        &mut self,
        directive: Directive,
        sent: Option<Instant>,
        now: Instant,
    ) -> Result<(), Ignored> {
        let Directive {
            version,
            answers: _,
            steering,
            shed_to,
            valid,
            shares,
            upstreams,
            report_every,
            retry_spread,
        } = directive;
        if version.term < self.version.term {
            return Err(Ignored::LowerTerm);
        }
        if version < self.version {
            return Err(Ignored::Stale);
        }
        let end = |time: Duration| sent.map_or(now, |sent| sent + time.min(LEASE_MAX));
        self.version = version;
        self.steering = steering;
        self.shed_to = shed_to;
        self.holds_until = valid.map(end);
        self.report_every = report_every
            .unwrap_or(REPORT_EVERY)
            .clamp(REPORT_EVERY_MIN, REPORT_EVERY_MAX);
        self.retry_spread = retry_spread;
        let before = std::mem::take(&mut self.grants);
        for share in shares {
            let grant = Grant {
                per_minute: share.per_minute,
                until: end(share.lease),
                safe_per_minute: share.safe_per_minute,
                safe_from: end(share.lease) + share.lease.min(LEASE_MAX),
            };
            self.grants.insert(share.key, grant);
        }
        for (key, grant) in before {
            if self.grants.len() < CAPS_MAX {
                self.grants.entry(key).or_insert(grant);
            }
        }
        self.upstreams = upstreams
            .into_iter()
            .filter_map(|share| Some((share.name, share.per_second?)))
            .collect();
        self.upstreams_until = Some(end(UPSTREAM_SHARES_HOLD));
        Ok(())
    }

    pub(super) fn set_data_planes_max(&mut self, data_planes_max: u32) -> bool {
        let changed = self.boot.data_planes_max != data_planes_max;
        self.boot.data_planes_max = data_planes_max;
        changed
    }

    pub(super) fn report_every(&self) -> Duration {
        self.report_every
    }

    pub(super) fn retry_spread(&self) -> Option<Duration> {
        self.retry_spread
    }

    pub(super) fn steering(&self, now: Instant) -> Steering {
        if self.holds(now) {
            self.steering
        } else {
            Steering::Accept
        }
    }

    pub(super) fn fence(&self) -> Fence {
        match (self.steering, self.holds_until) {
            (Steering::Accept, _) => Fence::Open,
            (Steering::Fence | Steering::Drain, Some(until)) => Fence::Until(until),
            (Steering::Fence | Steering::Drain, None) => Fence::Closed,
        }
    }

    /// `relay.shed_total` to reach, and until when that is wanted.
    pub(super) fn shed(&self) -> (u64, Option<Instant>) {
        (self.shed_to, self.holds_until)
    }

    pub(super) fn rates(&self) -> Rates {
        Rates {
            version: self.version,
            boot: Some(self.boot),
            grants: self.grants.clone(),
            upstreams: self.upstreams.clone(),
            upstreams_until: self.upstreams_until,
        }
    }

    fn holds(&self, now: Instant) -> bool {
        self.holds_until.is_none_or(|until| now < until)
    }
}

#[cfg(test)]
mod tests;
