use std::time::Duration;

use super::sim::{Sim, application, ingest, lane, upstream};
use crate::ingest::limiter::{Class, Sample, SampleOutcome};
use crate::store::queue::Lane;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_application_stays_below_its_cap_and_uses_it() {
    let mut capped = application("a");
    capped.requests_per_minute = Some(6_000);
    let mut sim = Sim::new(&ingest(vec![capped, application("b")], vec![upstream("u")]));
    sim.flood("a", 3_000);
    sim.run(10 * SECOND);
    let sent = sim.sent_of("a");
    assert!((1_000..=1_250).contains(&sent), "{sent}");
    assert_eq!(sim.held("a"), Some("Cap"));
}

#[test]
fn costs_count_against_the_cap() {
    let mut capped = application("a");
    capped.requests_per_minute = Some(6_000);
    let mut sim = Sim::new(&ingest(vec![capped], vec![upstream("u")]));
    for _ in 0..500 {
        sim.add(&lane("a"), "", 10);
    }
    sim.run(10 * SECOND);
    let cost: u32 = sim.sent.iter().map(|sent| sent.cost).sum();
    assert!((1_000..=1_260).contains(&cost), "{cost}");
}

#[test]
fn a_capped_application_delays_nobody() {
    let mut capped = application("a");
    capped.requests_per_minute = Some(60);
    let mut sim = Sim::new(&ingest(vec![capped, application("b")], vec![upstream("u")]));
    sim.flood("a", 10_000);
    sim.run(SECOND);
    for _ in 0..50 {
        sim.flood("b", 1);
        sim.run(Duration::from_millis(100));
    }
    let delays = sim
        .sent
        .iter()
        .filter(|sent| &*sent.lane.application == "b");
    assert_eq!(delays.clone().count(), 50);
    assert!(delays.map(|sent| sent.delay).max().unwrap() < Duration::from_millis(1));
}

#[test]
fn the_gateways_cap_holds_all_and_is_shared() {
    let mut heavy = application("b");
    heavy.weight = 3;
    let mut config = ingest(vec![application("a"), heavy], vec![upstream("u")]);
    config.requests_per_minute = Some(6_000);
    let mut sim = Sim::new(&config);
    sim.flood("a", 5_000);
    sim.flood("b", 5_000);
    sim.run(20 * SECOND);
    let (a, b) = (sim.sent_of("a"), sim.sent_of("b"));
    assert!((2_000..=2_250).contains(&(a + b)), "{a} {b}");
    assert!((b as f64 / a as f64 - 3.0).abs() < 0.2, "{a} {b}");
    assert_eq!(sim.held("a"), Some("GlobalCap"));
    assert_eq!(sim.held("b"), Some("GlobalCap"));
}

#[test]
fn the_gateways_cap_is_shared_with_applications_that_have_their_own_upstreams() {
    let mut own = application("own");
    own.upstreams = vec![upstream("v").into()];
    let mut config = ingest(
        vec![application("a"), application("b"), own],
        vec![upstream("u")],
    );
    config.requests_per_minute = Some(6_000);
    let mut sim = Sim::new(&config);
    for name in ["a", "b", "own"] {
        sim.flood(name, 5_000);
    }
    sim.run(30 * SECOND);
    let counts = ["a", "b", "own"].map(|name| sim.sent_of(name));
    let fair = counts.iter().sum::<usize>() / 3;
    assert!(
        counts.iter().all(|count| count.abs_diff(fair) < fair / 10),
        "{counts:?}"
    );
}

#[test]
fn a_paused_application_waits_and_goes_on() {
    let mut paused = application("a");
    paused.paused = true;
    let mut config = ingest(vec![paused, application("b")], vec![upstream("u")]);
    let mut sim = Sim::new(&config);
    sim.flood("a", 10);
    sim.flood("b", 10);
    sim.run(SECOND);
    assert_eq!((sim.sent_of("a"), sim.sent_of("b")), (0, 10));
    assert_eq!(sim.held("a"), Some("Paused"));
    config.applications = vec![application("a").into(), application("b").into()];
    sim.scheduler.configure(Some(&config), sim.now);
    sim.run(SECOND);
    assert_eq!(sim.sent_of("a"), 10);
}

#[test]
fn a_changed_cap_counts_at_once() {
    let mut capped = application("a");
    capped.requests_per_minute = Some(1);
    let mut config = ingest(vec![capped], vec![upstream("u")]);
    let mut sim = Sim::new(&config);
    sim.flood("a", 100);
    sim.run(10 * SECOND);
    assert_eq!(sim.sent_of("a"), 1);
    config.applications = vec![application("a").into()];
    sim.scheduler.configure(Some(&config), sim.now);
    sim.run(SECOND);
    assert_eq!(sim.sent_of("a"), 100);
}

#[test]
fn what_a_removed_application_left_is_delivered() {
    let mut own = application("a");
    own.upstreams = vec![upstream("v").into()];
    own.paused = true;
    let mut config = ingest(vec![own], vec![upstream("u")]);
    let mut sim = Sim::new(&config);
    sim.flood("a", 10);
    sim.run(SECOND);
    config.applications = Vec::new();
    sim.scheduler.configure(Some(&config), sim.now);
    sim.run(SECOND);
    assert_eq!(sim.sent_of("a"), 10);
    assert!(sim.sent.iter().all(|sent| &*sent.upstream == "u"));
}

#[test]
fn cheap_replays_do_not_hold_up_what_is_dear() {
    let mut capped = application("a");
    capped.requests_per_minute = Some(600);
    let mut sim = Sim::new(&ingest(vec![capped], vec![upstream("u")]));
    let replays = Lane {
        replay: true,
        ..lane("a")
    };
    for _ in 0..1_000 {
        sim.add(&replays, "", 1);
    }
    sim.run(5 * SECOND);
    for _ in 0..10 {
        sim.add(&lane("a"), "", 20);
    }
    sim.run(30 * SECOND);
    let dear = sim.sent.iter().filter(|sent| !sent.lane.replay).count();
    assert_eq!(dear, 10);
}

#[test]
fn calls_leave_half_of_a_cap_to_what_is_queued() {
    let mut config = ingest(vec![application("a")], vec![upstream("u")]);
    config.requests_per_minute = Some(6_000);
    let mut sim = Sim::new(&config);
    sim.flood("a", 5_000);
    let mut calls = 0;
    for _ in 0..1_000 {
        while let Ok(upstream) = sim.scheduler.call("b", sim.now) {
            calls += 1;
            let sample = Sample {
                latency: Duration::from_millis(1),
                outcome: SampleOutcome::Ok,
            };
            sim.scheduler
                .ended(upstream, Class::Proxied, sample, sim.now);
        }
        sim.run(Duration::from_millis(10));
    }
    let queued = sim.sent_of("a");
    assert!(
        (450..=550).contains(&calls) && (450..=560).contains(&queued),
        "{calls} {queued}"
    );
}
