use std::time::{Duration, Instant};

use proptest::prelude::*;
use sluice_e2e::timing::{Promises, kept_in_one_run};

use super::sim::{Sim, application, ingest, lane, upstream};

const SECOND: Duration = Duration::from_secs(1);

fn applications(count: usize) -> Vec<sluice_crds::config::Application> {
    (0..count)
        .map(|index| application(&format!("a{index}")))
        .collect()
}

#[test]
fn ten_thousand_applications_are_served_and_none_is_forgotten() {
    let mut config = ingest(applications(10_000), vec![upstream("u")]);
    config.requests_per_minute = Some(60 * 20_000);
    let mut sim = Sim::new(&config);
    for index in 0..10_000 {
        sim.flood(&format!("a{index}"), 3);
    }
    sim.run(20 * SECOND);
    assert_eq!(sim.sent.len(), 30_000);
    let mut first: Vec<_> = sim.sent[..10_000]
        .iter()
        .map(|sent| sent.lane.clone())
        .collect();
    first.sort();
    first.dedup();
    assert_eq!(
        first.len(),
        10_000,
        "each is served once before one is served twice"
    );
}

/// Time per entry sent while so many lanes wait for an upstream that takes one request at a time.
fn time_per_step(lanes: usize) -> Duration {
    let mut slow = upstream("u");
    slow.concurrency_max = 1;
    let mut sim = Sim::new(&ingest(applications(lanes), vec![slow]));
    for index in 0..lanes {
        sim.flood(&format!("a{index}"), 20_000 / lanes);
    }
    sim.run(SECOND);
    // Looks at the queue are paid for otherwise, by being made less often.
    sim.next_scan = sim.now + 60 * SECOND;
    let (began, steps) = (Instant::now(), sim.steps);
    sim.run(10 * SECOND);
    began.elapsed() / u32::try_from(sim.steps - steps).unwrap()
}

#[tokio::test]
async fn a_step_does_not_cost_more_with_more_lanes() {
    let kept = kept_in_one_run(async || {
        let (few, many) = (time_per_step(50), time_per_step(10_000));
        // A hundredth of what a step over all lanes would take.
        Ok(Promises::new().expect(
            many < few * 10 + Duration::from_micros(200),
            format!("a step takes {few:?} with few, {many:?} with many"),
        ))
    });
    kept.await.unwrap();
}

#[derive(Debug, Clone)]
enum Step {
    Add {
        application: u8,
        key: u8,
        entries: u8,
    },
    Run {
        millis: u16,
    },
    Fail(bool),
    Pause {
        application: u8,
        paused: bool,
    },
    Cap(Option<u32>),
    Unhealthy(bool),
    StoreFails(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0u8..4, 0u8..4, 1u8..40)
            .prop_map(|(application, key, entries)| Step::Add { application, key, entries }),
        3 => (1u16..3_000).prop_map(|millis| Step::Run { millis }),
        1 => any::<bool>().prop_map(Step::Fail),
        1 => (0u8..4, any::<bool>())
            .prop_map(|(application, paused)| Step::Pause { application, paused }),
        1 => prop::option::of(60u32..6_000).prop_map(Step::Cap),
        1 => any::<bool>().prop_map(Step::Unhealthy),
        1 => any::<bool>().prop_map(Step::StoreFails),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happened, when obstacles are gone everything is sent, in order, and nothing twice.
    #[test]
    fn nothing_is_stuck(steps in steps()) {
        let mut config = ingest(applications(4), vec![upstream("u"), upstream("v")]);
        let mut sim = Sim::new(&config);
        let mut added = 0;
        for step in steps {
            match step {
                Step::Add { application, key, entries } => {
                    for _ in 0..entries {
                        let key = if key == 0 { String::new() } else { key.to_string() };
                        sim.add(&lane(&format!("a{application}")), &key, 1);
                        added += 1;
                    }
                }
                Step::Run { millis } => sim.run(Duration::from_millis(millis.into())),
                Step::Fail(fails) => {
                    sim.failing = if fails { vec!["u".into()] } else { Vec::new() };
                }
                Step::Pause { application, paused } => {
                    let mut changed = (*config.applications[usize::from(application)]).clone();
                    changed.paused = paused;
                    config.applications[usize::from(application)] = changed.into();
                    sim.scheduler.configure(Some(&config), sim.now);
                }
                Step::Cap(cap) => {
                    config.requests_per_minute = cap;
                    sim.scheduler.configure(Some(&config), sim.now);
                }
                Step::Unhealthy(unhealthy) => sim.scheduler.set_healthy(1, !unhealthy),
                Step::StoreFails(fails) => sim.store_fails = fails,
            }
        }
        sim.failing.clear();
        sim.store_fails = false;
        sim.scheduler.set_healthy(1, true);
        config.requests_per_minute = None;
        config.applications = applications(4).into_iter().map(Into::into).collect();
        sim.scheduler.configure(Some(&config), sim.now);
        sim.run(Duration::from_secs(300));
        let mut sent: Vec<_> = sim.sent.iter().map(|sent| sent.id).collect();
        sent.sort_unstable();
        sent.dedup();
        prop_assert_eq!(sent.len(), added);
        prop_assert_eq!(sim.scheduler.in_flight(), 0);
    }
}
