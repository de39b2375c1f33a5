//! How many pods Kubernetes is asked for: more at once, fewer when the manager says that one is empty. Pure functions.

use sluice_crds::gateway::{Scaling, ScalingMode};
use sluice_manager::ScaleDecision;

/// What is known besides the Gateway's own words.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// What Kubernetes was asked for until now; `None`: nothing yet.
    pub there: Option<i32>,
    /// What the status said last: a Deployment that somebody deleted is made again as it was.
    pub former: i32,
    /// The manager's decision, if it has made one.
    pub decision: Option<&'a ScaleDecision>,
    /// The manager is to change nothing.
    pub paused: bool,
}

/// The most pods that there may be, and why not as many as are asked for: without Redis a second pod would be another gateway.
pub fn bounded(asked: i32, has_redis: bool) -> (i32, Option<String>) {
    if has_redis || asked <= 1 {
        return (asked, None);
    }
    let limited = format!(
        "1 of {asked} pods: without redis each pod would be a gateway of its own; write spec.redis to have more"
    );
    (1, Some(limited))
}

/// What Kubernetes is to be asked for now.
pub fn replicas(scaling: &Scaling, has_redis: bool, known: Known<'_>) -> i32 {
    let (asked, least) = match scaling.mode {
        ScalingMode::Managed => (scaling.max(), scaling.min()),
        ScalingMode::External | ScalingMode::Fixed => (scaling.replicas, scaling.replicas),
    };
    let most = bounded(asked, has_redis).0;
    let least = least.min(most);
    let Some(there) = known.there else {
        let is_managed = scaling.mode == ScalingMode::Managed;
        return if is_managed { known.former } else { least }.clamp(least, most);
    };
    let is_held = known.paused && scaling.mode == ScalingMode::Managed;
    if is_held && has_redis && there > 0 {
        return there;
    }
    // A second gateway is to end, pods that nobody wants are not missed by one another, and up there is nothing to wait for.
    if !has_redis || most == 0 || there < least {
        return most.min(there).max(least);
    }
    let decision = known.decision;
    // One that was made of another number is late.
    let decided = decision.filter(|decision| i32::try_from(decision.of) == Ok(there));
    let decided = decided.and_then(|decision| i32::try_from(decision.replicas).ok());
    match decided {
        // The manager may have decided by a spec that was there before.
        Some(decided) if decided > there => decided.min(most.max(there)),
        Some(decided) => decided.max(least),
        None => there,
    }
}

#[cfg(test)]
mod tests {
    use sluice_manager::ScaleReason;

    use super::*;

    fn decision(of: u32, replicas: u32) -> ScaleDecision {
        ScaleDecision {
            replicas,
            of,
            wanted: replicas,
            reason: ScaleReason::Asked,
            wish: replicas,
            limit: None,
            waits: None,
            victim: None,
        }
    }

    fn scaling(mode: ScalingMode, replicas: i32) -> Scaling {
        Scaling {
            mode,
            replicas,
            min: Some(2),
            max: Some(8),
            ..Scaling::default()
        }
    }

    fn asked(scaling: &Scaling, there: Option<i32>, decision: Option<(u32, u32)>) -> i32 {
        let decision = decision.map(|(of, replicas)| self::decision(of, replicas));
        let known = Known {
            there,
            former: 5,
            decision: decision.as_ref(),
            paused: false,
        };
        replicas(scaling, true, known)
    }

    #[test]
    fn a_paused_number_stays() {
        let paused = |there| Known {
            there: Some(there),
            former: 5,
            decision: None,
            paused: true,
        };
        let managed = scaling(ScalingMode::Managed, 99);
        for (there, asked) in [(0, 2), (1, 1), (4, 4), (20, 20)] {
            assert_eq!(replicas(&managed, true, paused(there)), asked);
        }
        assert_eq!(replicas(&managed, false, paused(3)), 1);
        // It is the user who says how many.
        let fixed = scaling(ScalingMode::Fixed, 4);
        assert_eq!(replicas(&fixed, true, paused(1)), 4);
    }

    #[test]
    fn a_given_number_is_made_at_once_and_left_pod_by_pod() {
        for mode in [ScalingMode::Fixed, ScalingMode::External] {
            let four = scaling(mode, 4);
            assert_eq!(asked(&four, None, None), 4);
            assert_eq!(asked(&four, Some(2), None), 4);
            assert_eq!(asked(&four, Some(2), Some((2, 2))), 4);
            assert_eq!(asked(&four, Some(7), None), 7, "nobody says who goes");
            assert_eq!(asked(&four, Some(7), Some((7, 7))), 7, "it is not empty");
            assert_eq!(asked(&four, Some(7), Some((7, 6))), 6);
            assert_eq!(asked(&four, Some(6), Some((7, 6))), 6, "a late decision");
            assert_eq!(asked(&four, Some(6), Some((6, 3))), 4, "of a former spec");
            assert_eq!(asked(&four, Some(6), Some((6, 9))), 6, "of a former spec");
            assert_eq!(asked(&scaling(mode, 0), Some(6), None), 0);
        }
    }

    #[test]
    fn a_managed_number_stays_within_its_bounds() {
        let managed = scaling(ScalingMode::Managed, 99);
        assert_eq!(asked(&managed, None, None), 5, "as it was");
        assert_eq!(asked(&managed, Some(0), None), 2);
        assert_eq!(asked(&managed, Some(3), None), 3);
        assert_eq!(asked(&managed, Some(3), Some((3, 6))), 6);
        assert_eq!(asked(&managed, Some(3), Some((3, 20))), 8);
        assert_eq!(asked(&managed, Some(3), Some((2, 6))), 3);
        assert_eq!(asked(&managed, Some(3), Some((3, 1))), 2);
        assert_eq!(asked(&managed, Some(12), Some((12, 12))), 12, "not empty");
        assert_eq!(asked(&managed, Some(12), Some((12, 11))), 11);
    }

    #[test]
    fn without_redis_there_is_one() {
        let known = |there| Known {
            there,
            former: 0,
            decision: None,
            paused: false,
        };
        for mode in [ScalingMode::Fixed, ScalingMode::Managed] {
            for there in [None, Some(0), Some(1), Some(3)] {
                assert_eq!(replicas(&scaling(mode, 3), false, known(there)), 1);
            }
        }
        let none = scaling(ScalingMode::Fixed, 0);
        assert_eq!(replicas(&none, false, known(Some(1))), 0);
        assert!(bounded(3, false).1.unwrap().contains("write spec.redis"));
        assert_eq!(bounded(3, true), (3, None));
    }
}
