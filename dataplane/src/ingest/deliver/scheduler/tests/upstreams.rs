use std::time::Duration;

use super::super::settings::UpstreamChange;
use super::sim::{Sim, application, ingest, lane, upstream};
use crate::ingest::limiter::{Class, Sample, SampleOutcome};

const SECOND: Duration = Duration::from_secs(1);

fn sent_to(sim: &Sim, name: &str) -> usize {
    sim.sent
        .iter()
        .filter(|sent| &*sent.upstream == name)
        .count()
}

#[test]
fn weights_divide_the_load() {
    let mut heavy = upstream("v");
    heavy.weight = 3;
    let mut sim = Sim::new(&ingest(vec![application("a")], vec![upstream("u"), heavy]));
    // One at a time, so that there is no load to go by.
    for _ in 0..400 {
        sim.flood("a", 1);
        sim.run(Duration::from_millis(20));
    }
    assert_eq!((sent_to(&sim, "u"), sent_to(&sim, "v")), (100, 300));
}

#[test]
fn lower_priorities_take_what_does_not_fit() {
    let mut first = upstream("u");
    first.concurrency_max = 2;
    let mut second = upstream("v");
    second.priority = 1;
    let mut sim = Sim::new(&ingest(vec![application("a")], vec![second, first]));
    for _ in 0..50 {
        sim.flood("a", 1);
        sim.run(Duration::from_millis(20));
    }
    assert_eq!((sent_to(&sim, "u"), sent_to(&sim, "v")), (50, 0));
    sim.flood("a", 1_000);
    sim.run(SECOND);
    assert!(sent_to(&sim, "v") > 100);
}

#[test]
fn the_others_take_over_from_one_that_fails() {
    let mut sim = Sim::new(&ingest(
        vec![application("a")],
        vec![upstream("u"), upstream("v")],
    ));
    sim.failing = vec!["u".into()];
    sim.flood("a", 2_000);
    sim.run(60 * SECOND);
    assert_eq!(sim.held("a"), None);
    assert!(sent_to(&sim, "v") >= 1_990);
}

#[test]
fn an_unhealthy_upstream_gets_nothing() {
    let mut sim = Sim::new(&ingest(vec![application("a")], vec![upstream("u")]));
    sim.scheduler.set_healthy(0, false);
    sim.flood("a", 10);
    sim.run(SECOND);
    assert_eq!(sim.sent.len(), 0);
    assert_eq!(sim.held("a"), Some("UnhealthyUpstream"));
    sim.scheduler.set_healthy(0, true);
    sim.run(SECOND);
    assert_eq!(sim.sent.len(), 10);
}

#[test]
fn a_key_stays_where_it_was() {
    let mut sim = Sim::new(&ingest(
        vec![application("a")],
        vec![upstream("u"), upstream("v")],
    ));
    for round in 0..40 {
        for key in 0..6 {
            sim.add(&lane("a"), &key.to_string(), 1);
        }
        sim.run(Duration::from_millis(if round == 20 { 5_000 } else { 50 }));
    }
    for key in 0..6 {
        let used: std::collections::HashSet<_> = sim
            .sent
            .iter()
            .filter(|sent| (sent.id - 1) % 6 == key)
            .map(|sent| sent.upstream.clone())
            .collect();
        assert_eq!(used.len(), 1, "key {key}");
    }
    assert!(sent_to(&sim, "u") > 0 && sent_to(&sim, "v") > 0);
}

#[test]
fn failing_upstreams_of_one_application_delay_no_other() {
    let mut own = application("own");
    own.upstreams = vec![upstream("broken").into()];
    let mut sim = Sim::new(&ingest(vec![application("a"), own], vec![upstream("u")]));
    sim.failing = vec!["own/broken".into()];
    sim.flood("own", 1_000);
    sim.run(10 * SECOND);
    assert_eq!(sim.held("own"), Some("Breaker"));
    for _ in 0..20 {
        sim.flood("a", 1);
        sim.run(Duration::from_millis(50));
    }
    let delays = sim
        .sent
        .iter()
        .filter(|sent| &*sent.lane.application == "a");
    assert!(delays.map(|sent| sent.delay).max().unwrap() < Duration::from_millis(1));
}

#[test]
fn upstreams_come_and_go_while_requests_are_under_way() {
    let mut config = ingest(vec![application("a")], vec![upstream("u")]);
    let mut sim = Sim::new(&config);
    sim.latency = SECOND;
    sim.flood("a", 100);
    sim.run(Duration::from_millis(500));
    config.upstreams = vec![upstream("v").into()];
    let changes = sim.scheduler.configure(Some(&config), sim.now);
    assert!(matches!(
        changes[..],
        [UpstreamChange::Added(1, ..), UpstreamChange::Removed(0, _)]
    ));
    let before = sent_to(&sim, "u");
    sim.run(100 * SECOND);
    assert_eq!(sent_to(&sim, "u"), before);
    assert_eq!(sent_to(&sim, "v"), 100 - before);
    assert_eq!(sim.scheduler.upstreams.len(), 1);
}

#[test]
fn settings_change_without_forgetting_what_was_learned() {
    let mut config = ingest(vec![application("a")], vec![upstream("u")]);
    let mut sim = Sim::new(&config);
    sim.flood("a", 5_000);
    sim.run(5 * SECOND);
    let learned = sim.scheduler.upstream_reports(sim.now)[0].limits.limit;
    assert!(learned > 4.0, "{learned}");
    let mut changed = upstream("u");
    changed.weight = 2;
    config.upstreams = vec![changed.into()];
    let changes = sim.scheduler.configure(Some(&config), sim.now);
    assert!(matches!(changes[..], [UpstreamChange::Changed(0, _)]));
    assert_eq!(
        sim.scheduler.upstream_reports(sim.now)[0].limits.limit,
        learned
    );
}

#[test]
fn a_lane_that_is_turned_away_rests_and_tries_with_one() {
    let mut sim = Sim::new(&ingest(vec![application("a")], vec![upstream("u")]));
    sim.failing = vec!["u".into()];
    sim.flood("a", 1);
    sim.run(Duration::from_millis(1));
    sim.failing.clear();
    let id = sim.scheduler.lane_of[&lane("a")];
    sim.scheduler.pause_lane(id, 5 * SECOND, sim.now);
    sim.flood("a", 10);
    sim.run(4 * SECOND);
    assert_eq!(sim.sent.len(), 1);
    assert_eq!(sim.held("a"), Some("UpstreamPaused"));
    sim.latency = SECOND;
    sim.run(Duration::from_millis(1_500));
    assert_eq!(sim.sent.len(), 2, "one probe");
    sim.run(20 * SECOND);
    assert_eq!(sim.sent.len(), 12);
}

#[test]
fn calls_go_before_what_waits() {
    let mut config = ingest(vec![application("a")], vec![upstream("u")]);
    config.requests_per_minute = Some(600);
    let mut sim = Sim::new(&config);
    sim.flood("a", 1_000);
    sim.run(Duration::from_millis(9_950));
    let held = sim.scheduler.call("a", sim.now).unwrap_err();
    assert_eq!(held.why.as_str(), "GlobalCap");
    sim.now = held.until.unwrap();
    let upstream = sim.scheduler.call("a", sim.now).unwrap();
    let before = sim.sent.len();
    sim.run(Duration::from_millis(90));
    assert_eq!(sim.sent.len(), before, "the call took the token");
    let sample = Sample {
        latency: SECOND,
        outcome: SampleOutcome::Ok,
    };
    sim.scheduler
        .ended(upstream, Class::Proxied, sample, sim.now);
    assert!(sim.scheduler.call("unknown", sim.now + SECOND).is_ok());
}
