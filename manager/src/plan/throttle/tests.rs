use std::time::{Duration, Instant};

use sluice_proto::fleet::{Cap, Report, Version};

use super::*;
use crate::policy::{Rebalance, Scaling};

const SECOND: Duration = Duration::from_secs(1);
const CAP: f64 = 600.0;

#[expect(clippy::disallowed_methods, reason = "tests begin somewhere")]
fn start() -> Instant {
    Instant::now()
}

fn policy() -> Policy {
    Policy {
        applications: std::collections::BTreeSet::new(),
        caps: [(CapKey::Gateway, CAP)].into(),
        scaling: Scaling {
            max: 2,
            ..Scaling::default()
        },
        rebalance: Rebalance::Steer,
        moves_per_second: None,
        fence_delay: SECOND,
        steering: true,
    }
}

fn report(pod: &str, sequence: u64, applied: Version, waiting: u64) -> Report {
    Report {
        gateway: "n/g".into(),
        pod: pod.into(),
        instance: pod.into(),
        sequence,
        applied,
        caps: vec![Cap {
            key: CapKey::Gateway,
            arrived_total: 0,
            sent_total: 0,
            waiting,
            oldest: Duration::ZERO,
            allowed_per_minute: 0.0,
            lease_left: Duration::ZERO,
            safe_per_minute: None,
        }],
        ..Report::default()
    }
}

fn version(generation: u64) -> Version {
    Version {
        term: 1,
        generation,
    }
}

#[test]
fn what_a_cap_leaves() {
    // Cap, pods; holders and what is usable. One request of burst for each holder, or a twentieth of a second's worth.
    let cases = [
        (6_000.0, 1, 1, 5_994.0),
        (6_000.0, 4, 4, 5_991.0),
        (600.0, 4, 4, 595.5),
        (60.0, 4, 3, 56.95),
        (5.0, 4, 1, 3.9958),
        (1.0, 4, 1, 0.5),
        (0.0, 0, 1, 0.0),
    ];
    for (cap, pods, holders, usable) in cases {
        let room = Room::of(cap, pods, 4);
        assert_eq!(room.holders, holders, "{cap} for {pods}");
        assert!(
            (room.usable - usable).abs() < 1e-3,
            "{cap} for {pods}: {room:?}"
        );
        assert!((room.boot - cap / 8.0).abs() < 1e-9);
    }
}

#[test]
fn one_is_raised_only_when_the_other_has_confirmed_or_outlived_what_it_had() {
    let start = start();
    let policy = policy();
    let mut view = View::default();
    let mut ledger = Ledger::default();
    for pod in ["a", "b"] {
        let first = report(pod, 1, Version::default(), 1);
        ledger.begin(&first, (&policy, 1), 2, start);
        view.note(first, start);
    }
    let began = start - LEASE * 3;
    let give = |ledger: &mut Ledger, view: &View, generation, now| {
        let grants = split(ledger, view, &policy, began, now)
            .remove(&CapKey::Gateway)
            .unwrap();
        for (pod, grant) in &grants {
            ledger.tell(
                &CapKey::Gateway,
                pod,
                (*grant, 150.0),
                version(generation),
                now,
            );
        }
        ["a", "b"].map(|pod| {
            grants
                .get(pod)
                .map_or(0.0, |grant| grant.per_minute.round())
        })
    };
    assert_eq!(give(&mut ledger, &view, 1, start), [299.0, 299.0]);
    for pod in ["a", "b"] {
        ledger.confirm(&pod.into(), version(1));
    }
    // Only one has something to send now, and hears of it; the other is not sure to have given up its part.
    let now = start + SECOND;
    view.note(report("a", 2, version(1), 1), now);
    view.note(report("b", 2, version(1), 0), now);
    let [raised, lowered] = give(&mut ledger, &view, 2, now);
    assert_eq!((raised, lowered), (299.0, 15.0));
    let mut confirmed = ledger.clone();
    confirmed.confirm(&"b".into(), version(2));
    assert_eq!(give(&mut confirmed, &view, 3, now)[0], 583.0);
    // It says nothing any more: what it may fall back to is left alone, and no more than that once its lease is over.
    for second in 2..40 {
        view.note(
            report("a", second + 1, version(second), 1),
            start + second as u32 * SECOND,
        );
        ledger.confirm(&"a".into(), version(second));
        ledger.expire(&policy, &view, start + second as u32 * SECOND);
        give(
            &mut ledger,
            &view,
            second + 1,
            start + second as u32 * SECOND,
        );
    }
    let total = ledger.total(&CapKey::Gateway, &view, start + 40 * SECOND);
    assert!(total <= CAP, "{total}");
    let left = give(&mut ledger, &view, 41, start + 40 * SECOND);
    assert!((290.0..=450.0).contains(&left[0]), "{left:?}");
}
