use std::time::Duration;

use sluice_proto::fleet::{Application as Said, Queue, Report};

use super::*;
use crate::policy::{Rebalance, Scaling};
use sluice_proto::fleet::CapKey;

const SECOND: Duration = Duration::from_secs(1);

#[expect(clippy::disallowed_methods, reason = "tests begin somewhere")]
fn start() -> Instant {
    Instant::now()
}

fn policy() -> Policy {
    Policy {
        caps: [(CapKey::Application("shop".into()), 600.0)].into(),
        applications: ["shop".into(), "idle".into()].into(),
        scaling: Scaling::default(),
        rebalance: Rebalance::Steer,
        moves_per_second: None,
        fence_delay: SECOND,
        steering: true,
    }
}

/// `applications`: name, taken in, delivered, what waits, and why.
fn report(
    (pod, instance): (&str, &str),
    sequence: u64,
    applications: &[(&str, u64, u64, u64, &str)],
) -> Report {
    let (arrived, delivered, waiting) = applications.iter().fold((0, 0, 0), |sum, one| {
        (sum.0 + one.1, sum.1 + one.2, sum.2 + one.3)
    });
    Report {
        gateway: "n/g".into(),
        pod: pod.into(),
        instance: instance.into(),
        sequence,
        queue: Queue {
            arrived_total: arrived,
            delivered_total: delivered,
            waiting,
            oldest: SECOND * waiting as u32,
            ..Queue::default()
        },
        applications: applications
            .iter()
            .map(|(name, arrived, delivered, waiting, held)| Said {
                name: (*name).into(),
                arrived_total: *arrived,
                delivered_total: *delivered,
                waiting: *waiting,
                oldest: SECOND * *waiting as u32,
                held: (*held).into(),
                ..Said::default()
            })
            .collect(),
        ..Report::default()
    }
}

#[test]
fn what_pods_said_is_added_up() {
    let mut now = start();
    let mut planner = Planner::new(1, policy(), now);
    let mut recorder = Recorder::default();
    for second in 0..30_u64 {
        now += SECOND;
        planner.note(
            report(
                ("a", "1"),
                second + 1,
                &[("shop", 10 * second, 8 * second, 2, "Cap")],
            ),
            now,
        );
        // Of `shop` nothing changes after the first report of this one.
        let said = [("shop", 7, 7, 0, "")];
        planner.note(
            report(("b", "1"), second + 1, &said[..usize::from(second == 0)]),
            now,
        );
        planner.tick(now);
        recorder.record(&planner, now, 1_000 + second);
    }
    let looked = recorder.look(&planner, now, 1_029);
    let applications = looked.applications();
    let names: Vec<&str> = applications.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["idle", "shop"]);
    let shop = &applications[1].flow;
    assert_eq!((shop.arrived, shop.delivered, shop.waiting), (297, 239, 2));
    assert!((shop.arrived_per_minute - 600.0).abs() < 5.0, "{shop:?}");
    assert!((shop.delivered_per_minute - 480.0).abs() < 5.0, "{shop:?}");
    assert_eq!((&*shop.held, shop.limit_per_minute), ("Cap", Some(600.0)));
    assert_eq!(applications[0].flow, Flow::default());
    let all = looked.snapshot();
    assert_eq!((&*all.flow.held, all.flow.oldest_seconds), ("Cap", 2.0));
    assert_eq!(all.pods.len(), 2);
    let series = looked.series(Some("shop"), 60).unwrap();
    assert_eq!((series.step_seconds, series.from), (1, 1_000));
    let arrived = &series.columns["arrivedPerMinute"];
    assert_eq!(arrived.len(), 30);
    assert!((arrived[29].unwrap() - 600.0).abs() < 5.0);
    assert!(looked.series(Some("nobody"), 60).is_none());
}

#[test]
fn what_processes_counted_that_are_gone_still_counts() {
    let mut now = start();
    let mut planner = Planner::new(1, policy(), now);
    planner.note(report(("a", "1"), 1, &[("shop", 10, 9, 1, "Rate")]), now);
    planner.note(report(("b", "1"), 1, &[("shop", 5, 5, 0, "")]), now);
    // One starts again, and is gone with its pod later; the other is only silent.
    planner.note(report(("a", "2"), 1, &[("shop", 3, 3, 0, "")]), now);
    let count = |planner: &Planner, now| {
        let recorder = Recorder::default();
        let flow = recorder.look(planner, now, 0).snapshot().flow;
        (flow.arrived, flow.delivered)
    };
    assert_eq!(count(&planner, now), (18, 17));
    now += SECOND * 90;
    planner.note(report(("b", "1"), 2, &[("shop", 6, 6, 0, "")]), now);
    planner.tick(now);
    assert_eq!(planner.view().pods.len(), 1);
    assert_eq!(count(&planner, now), (19, 18));
}
