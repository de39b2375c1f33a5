//! Which part of a limit this data plane may use, and why: a lease while it lasts, then the safe rate, and something small where
//! nothing was ever heard. Pure.
//!
//! A safe rate above the leased one is not for the moment at which the lease ends: some may still use what is to make room for
//! it. It is there when as much time again has gone by.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_proto::fleet::{CapKey, Version};

/// A data plane that never heard of a manager sends nothing under a cap for so long. The manager hears of it from Kubernetes: within
/// this time all leases have ended that leave it no part.
pub const BOOT_SILENCE: Duration = Duration::from_secs(20);
/// Afterwards it may use this part of what would be its part if as many as can be were there: others may just have left theirs.
const BOOT_DIVISOR: f64 = 2.0;

/// What the manager last said of a cap.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grant {
    pub per_minute: f64,
    /// End of the lease.
    pub until: Instant,
    /// What is allowed afterwards, until something else is heard.
    pub safe_per_minute: f64,
    /// Before this no more than the leased rate.
    pub safe_from: Instant,
}

/// What holds for caps of which the manager never said anything.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Boot {
    pub since: Instant,
    pub data_planes_max: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is no manager: the cap is this data plane's alone.
    Configured,
    Lease,
    Safe,
    Boot,
}

impl Why {
    pub fn name(self) -> &'static str {
        match self {
            Self::Configured => "Configured",
            Self::Lease => "Lease",
            Self::Safe => "Safe",
            Self::Boot => "Boot",
        }
    }
}

/// What may be sent under a cap now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InForce {
    pub per_minute: f64,
    /// What is left when nothing more is heard.
    pub safe_per_minute: f64,
    pub why: Why,
    /// When it changes by itself.
    pub until: Option<Instant>,
}

/// `boot`: `None` without a manager. `cap`: the whole of it, in requests per minute; no part is more.
pub fn in_force(boot: Option<Boot>, grant: Option<Grant>, cap: f64, now: Instant) -> InForce {
    let Some(boot) = boot else {
        return InForce {
            per_minute: cap,
            safe_per_minute: cap,
            why: Why::Configured,
            until: None,
        };
    };
    if let Some(grant) = grant {
        let safe_per_minute = grant.safe_per_minute.min(cap);
        let leased_per_minute = grant.per_minute.min(cap);
        let (per_minute, why, until) = if now < grant.until {
            (leased_per_minute, Why::Lease, Some(grant.until))
        } else if now < grant.safe_from && leased_per_minute < safe_per_minute {
            (leased_per_minute, Why::Safe, Some(grant.safe_from))
        } else {
            (safe_per_minute, Why::Safe, None)
        };
        return InForce {
            per_minute,
            safe_per_minute,
            why,
            until,
        };
    }
    let silent_until = boot.since + BOOT_SILENCE;
    let part = cap / (BOOT_DIVISOR * f64::from(boot.data_planes_max.max(1)));
    let is_silent = now < silent_until;
    InForce {
        per_minute: if is_silent { 0.0 } else { part },
        safe_per_minute: part,
        why: Why::Boot,
        until: is_silent.then_some(silent_until),
    }
}

/// All of it, as delivery gets it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Rates {
    /// The directive that it comes from.
    pub version: Version,
    /// `None`: there is no manager.
    pub boot: Option<Boot>,
    pub grants: BTreeMap<CapKey, Grant>,
    /// Requests per second, by the upstream's label.
    pub upstreams: BTreeMap<Arc<str>, f64>,
    /// The parts of upstreams hold so long; then its own limits alone.
    pub upstreams_until: Option<Instant>,
}

impl Rates {
    /// The most that an upstream may be sent per second.
    pub fn ceiling(&self, label: &str, now: Instant) -> Option<f64> {
        let holds = self.upstreams_until.is_some_and(|until| now < until);
        holds.then(|| self.upstreams.get(label).copied()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_in_force_by_what_was_heard_and_when() {
        let start = Instant::now();
        let boot = Some(Boot {
            since: start,
            data_planes_max: 4,
        });
        let grant = |per_minute, safe_per_minute| {
            Some(Grant {
                per_minute,
                until: start + 15 * SECOND,
                safe_per_minute,
                safe_from: start + 30 * SECOND,
            })
        };
        // Boot, grant, seconds; what is in force of 600, why, and until which second.
        let cases = [
            (None, None, 0.0, 600.0, Why::Configured, None),
            (None, grant(7.0, 3.0), 0.0, 600.0, Why::Configured, None),
            (boot, None, 0.0, 0.0, Why::Boot, Some(20.0)),
            (boot, None, 19.999, 0.0, Why::Boot, Some(20.0)),
            (boot, None, 20.0, 75.0, Why::Boot, None),
            (boot, None, 9_999.0, 75.0, Why::Boot, None),
            (
                boot,
                grant(450.0, 150.0),
                0.0,
                450.0,
                Why::Lease,
                Some(15.0),
            ),
            (
                boot,
                grant(450.0, 150.0),
                14.9,
                450.0,
                Why::Lease,
                Some(15.0),
            ),
            (boot, grant(450.0, 150.0), 15.0, 150.0, Why::Safe, None),
            (boot, grant(450.0, 150.0), 9_999.0, 150.0, Why::Safe, None),
            (boot, grant(50.0, 150.0), 14.9, 50.0, Why::Lease, Some(15.0)),
            (boot, grant(50.0, 150.0), 15.0, 50.0, Why::Safe, Some(30.0)),
            (boot, grant(50.0, 150.0), 30.0, 150.0, Why::Safe, None),
            // A lease of nothing is one, and a part is never more than the whole.
            (boot, grant(0.0, 150.0), 1.0, 0.0, Why::Lease, Some(15.0)),
            (
                boot,
                grant(900.0, 700.0),
                1.0,
                600.0,
                Why::Lease,
                Some(15.0),
            ),
            (boot, grant(900.0, 700.0), 20.0, 600.0, Why::Safe, None),
        ];
        for (boot, grant, at_s, per_minute, why, until_s) in cases {
            let now = start + Duration::from_secs_f64(at_s);
            let found = in_force(boot, grant, 600.0, now);
            let until = until_s.map(|s| start + Duration::from_secs_f64(s));
            assert_eq!(
                (found.per_minute, found.why, found.until),
                (per_minute, why, until),
                "{boot:?} {grant:?} at {at_s}"
            );
        }
    }

    #[test]
    fn parts_of_upstreams_end_with_their_time() {
        let now = Instant::now();
        let rates = Rates {
            upstreams: BTreeMap::from([("u".into(), 5.0)]),
            upstreams_until: Some(now + SECOND),
            ..Rates::default()
        };
        assert_eq!(rates.ceiling("u", now), Some(5.0));
        assert_eq!(rates.ceiling("v", now), None);
        assert_eq!(rates.ceiling("u", now + SECOND), None);
    }
}
