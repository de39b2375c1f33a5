use std::time::Duration;

use super::sim::{Sim, application, ingest, lane, upstream};
use crate::store::queue::Lane;

const SECOND: Duration = Duration::from_secs(1);

/// An upstream with so many places, of which each serves a hundred requests per second.
fn places(places: u32) -> sluice_crds::config::Upstream {
    let mut upstream = upstream("u");
    upstream.concurrency_min = places;
    upstream.concurrency_max = places;
    upstream
}

/// How long the requests of `b` wait, ten per second, while `a` has so many waiting.
fn delay_beside(flood: usize) -> (Duration, Duration) {
    let mut sim = Sim::new(&ingest(
        vec![application("a"), application("b")],
        vec![places(4)],
    ));
    sim.flood("a", flood);
    for _ in 0..100 {
        sim.flood("b", 1);
        sim.run(Duration::from_millis(100));
    }
    let mut delays: Vec<_> = sim
        .sent
        .iter()
        .filter(|sent| &*sent.lane.application == "b")
        .map(|sent| sent.delay + sim.latency)
        .collect();
    delays.sort();
    assert_eq!(delays.len(), 100);
    (delays[50], delays[99])
}

#[test]
fn a_flood_at_most_doubles_the_delay_of_others() {
    let (alone, alone_max) = delay_beside(0);
    let (beside, beside_max) = delay_beside(10_000);
    assert!(beside <= 2 * alone, "{alone:?} {beside:?}");
    assert!(beside_max <= 2 * alone_max, "{alone_max:?} {beside_max:?}");
}

#[test]
fn shares_follow_weights_where_the_upstream_is_the_limit() {
    let mut heavy = application("b");
    heavy.weight = 4;
    let mut sim = Sim::new(&ingest(vec![application("a"), heavy], vec![places(5)]));
    sim.flood("a", 10_000);
    sim.flood("b", 10_000);
    sim.run(10 * SECOND);
    let (a, b) = (sim.sent_of("a"), sim.sent_of("b"));
    assert!(a + b >= 4_900, "{a} {b}");
    assert!((b as f64 / a as f64 - 4.0).abs() < 0.3, "{a} {b}");
}

#[test]
fn bulk_requests_count_by_what_they_hold() {
    let mut sim = Sim::new(&ingest(
        vec![application("a"), application("b")],
        vec![places(2)],
    ));
    for _ in 0..2_000 {
        sim.add(&lane("a"), "", 50);
    }
    sim.flood("b", 5_000);
    sim.run(10 * SECOND);
    let cost = |name: &str| -> u32 {
        let sent = sim
            .sent
            .iter()
            .filter(|sent| &*sent.lane.application == name);
        sent.map(|sent| sent.cost).sum()
    };
    assert!(
        cost("a").abs_diff(cost("b")) <= 150,
        "{} {}",
        cost("a"),
        cost("b")
    );
}

#[test]
fn slow_requests_of_one_leave_room_for_others() {
    let mut sim = Sim::new(&ingest(
        vec![application("a"), application("b")],
        vec![places(20)],
    ));
    sim.slow.insert("a".into(), 30 * SECOND);
    sim.flood("b", 1);
    sim.run(Duration::from_millis(100));
    sim.flood("a", 1_000);
    for _ in 0..50 {
        sim.flood("b", 1);
        sim.run(Duration::from_millis(200));
    }
    let delays = sim
        .sent
        .iter()
        .filter(|sent| &*sent.lane.application == "b");
    assert!(delays.map(|sent| sent.delay).max().unwrap() < Duration::from_millis(100));
    assert_eq!(sim.sent_of("a"), 18, "two places are kept");
    assert_eq!(sim.held("a"), Some("InFlight"));
}

#[test]
fn alone_an_application_has_all_places() {
    let mut sim = Sim::new(&ingest(vec![application("a")], vec![places(20)]));
    sim.slow.insert("a".into(), 30 * SECOND);
    sim.flood("a", 1_000);
    sim.run(SECOND);
    assert_eq!(sim.sent_of("a"), 20);
}

#[test]
fn replays_get_little_beside_fresh_ones_and_all_without() {
    let mut sim = Sim::new(&ingest(
        vec![application("a"), application("b")],
        vec![places(2)],
    ));
    let replays = Lane {
        replay: true,
        ..lane("a")
    };
    for _ in 0..2_000 {
        sim.add(&replays, "", 1);
    }
    sim.flood("b", 2_000);
    sim.run(9 * SECOND);
    let replayed = sim.sent.iter().filter(|sent| sent.lane.replay).count();
    assert!((20..=100).contains(&replayed), "{replayed}");
    sim.run(12 * SECOND);
    assert_eq!(sim.sent.len(), 4_000);
}

#[test]
fn keys_are_in_order_and_one_at_a_time() {
    let mut sim = Sim::new(&ingest(
        vec![application("a")],
        vec![upstream("u"), upstream("v")],
    ));
    for index in 0..2_000 {
        sim.add(&lane("a"), &(index % 7).to_string(), 1);
    }
    sim.run(60 * SECOND);
    assert_eq!(sim.sent.len(), 2_000);
    let mut last = [(0, None); 7];
    for sent in &sim.sent {
        let (id, at) = &mut last[(sent.id % 7) as usize];
        assert!(sent.id > *id);
        assert!(
            at.is_none_or(|at| sent.at >= at + sim.latency),
            "two at a time"
        );
        (*id, *at) = (sent.id, Some(sent.at));
    }
}

#[test]
fn what_is_dismissed_while_it_waits_hides_nothing_new() {
    let mut sim = Sim::new(&ingest(vec![application("a")], vec![upstream("u")]));
    sim.failing = vec!["u".into()];
    let ids: Vec<u64> = (0..20).map(|_| sim.add(&lane("a"), "blocked", 1)).collect();
    sim.run(Duration::from_millis(100));
    for id in &ids[1..11] {
        sim.dismiss(&lane("a"), *id);
    }
    // As many new ones as were dismissed.
    let new: Vec<u64> = (0..10).map(|_| sim.add(&lane("a"), "other", 1)).collect();
    sim.failing.clear();
    sim.run(20 * SECOND);
    let sent: Vec<u64> = sim.sent.iter().map(|sent| sent.id).collect();
    assert!(new.iter().all(|id| sent.contains(id)), "{sent:?}");
}
