use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sluice_proto::fleet::CapKey;

use super::sim::{Sim, application, ingest, upstream};
use crate::fleet::shares::{Boot, Grant, Rates, Why};

const SECOND: Duration = Duration::from_secs(1);

fn rates(start: Instant, grants: &[(CapKey, f64, Instant, f64)]) -> Arc<Rates> {
    let grants = grants
        .iter()
        .map(|(key, per_minute, until, safe_per_minute)| {
            let grant = Grant {
                per_minute: *per_minute,
                until: *until,
                safe_per_minute: *safe_per_minute,
                safe_from: *until,
            };
            (key.clone(), grant)
        });
    Arc::new(Rates {
        boot: Some(Boot {
            since: start,
            data_planes_max: 2,
        }),
        grants: grants.collect(),
        ..Rates::default()
    })
}

/// One application under a cap of 6,000 a minute, with as much to send as one likes.
fn capped() -> Sim {
    let mut app = application("a");
    app.requests_per_minute = Some(6_000);
    let config = ingest(vec![app], vec![upstream("u")]);
    let mut sim = Sim::new(&config);
    let boot = rates(sim.now, &[]);
    sim.scheduler.share(boot, sim.now);
    sim.flood("a", 20_000);
    sim
}

fn key() -> CapKey {
    CapKey::Application("a".into())
}

/// Requests sent in the next time.
fn sent_in(sim: &mut Sim, time: Duration) -> usize {
    let before = sim.sent.len();
    sim.run(time);
    sim.sent.len() - before
}

#[test]
fn parts_come_and_go_at_once_and_end_by_themselves() {
    let mut sim = capped();
    let start = sim.now;
    assert_eq!(sent_in(&mut sim, 19 * SECOND), 0);
    assert_eq!(sim.held("a"), Some("Cap"));
    sim.run(SECOND);
    // 6,000 over twice two: 25 per second.
    let booting = sent_in(&mut sim, 10 * SECOND);
    assert!((248..=252).contains(&booting), "{booting}");

    let until = sim.now + 20 * SECOND;
    let raised = rates(start, &[(key(), 4_800.0, until, 600.0)]);
    assert_eq!(sim.scheduler.share(raised, sim.now), None);
    let leased = sent_in(&mut sim, 10 * SECOND);
    assert!((795..=806).contains(&leased), "{leased}");

    let lowered = rates(start, &[(key(), 1_200.0, until, 600.0)]);
    sim.scheduler.share(lowered, sim.now);
    let less = sent_in(&mut sim, 10 * SECOND);
    assert!((195..=206).contains(&less), "{less}");
    // The lease is over.
    let safe = sent_in(&mut sim, 10 * SECOND);
    assert!((99..=102).contains(&safe), "{safe}");
    let caps = sim.scheduler.cap_reports(sim.now);
    assert_eq!(caps[0].state.in_force.why, Why::Safe);
    assert_eq!(caps[0].state.sent_total, sim.sent.len() as u64);
    // And nothing at all, as well.
    let until = sim.now + 20 * SECOND;
    let nothing = rates(start, &[(key(), 0.0, until, 600.0)]);
    sim.scheduler.share(nothing, sim.now);
    assert!(sent_in(&mut sim, 19 * SECOND) <= 1);
}

#[test]
fn the_gateways_part_holds_all_and_a_new_cap_begins_with_what_was_said() {
    let mut config = ingest(
        vec![application("a"), application("b")],
        vec![upstream("u")],
    );
    let mut sim = Sim::new(&config);
    let until = sim.now + 100 * SECOND;
    let said = rates(sim.now, &[(CapKey::Gateway, 1_200.0, until, 60.0)]);
    sim.scheduler.share(said, sim.now);
    config.requests_per_minute = Some(6_000);
    sim.scheduler.configure(Some(&config), sim.now);
    sim.flood("a", 5_000);
    sim.flood("b", 5_000);
    let sent = sent_in(&mut sim, 10 * SECOND);
    assert!((198..=202).contains(&sent), "{sent}");
    assert_eq!(sim.held("b"), Some("GlobalCap"));
    // Half of the whole is less than the part then.
    config.requests_per_minute = Some(600);
    sim.scheduler.configure(Some(&config), sim.now);
    let sent = sent_in(&mut sim, 10 * SECOND);
    assert!((99..=102).contains(&sent), "{sent}");
}

#[test]
fn an_upstreams_part_is_a_ceiling_while_it_holds() {
    let config = ingest(vec![application("a")], vec![upstream("u")]);
    let mut sim = Sim::new(&config);
    sim.flood("a", 40_000);
    let free = sent_in(&mut sim, SECOND);
    assert!(free > 200, "{free}");
    let said = Rates {
        upstreams: BTreeMap::from([("u".into(), 10.0)]),
        upstreams_until: Some(sim.now + 10 * SECOND),
        ..Rates::default()
    };
    sim.scheduler.share(Arc::new(said), sim.now);
    let bounded = sent_in(&mut sim, 10 * SECOND);
    assert!((95..=105).contains(&bounded), "{bounded}");
    assert!(sim.scheduler.upstream_reports(sim.now)[0].wanted);
    let after = sent_in(&mut sim, SECOND);
    assert!(after > 200, "{after}");
}

#[test]
fn what_only_this_process_holds_up_is_lag_and_nothing_else() {
    let now_ms = 1_000_000;
    let lag = |sim: &mut Sim| sim.scheduler.figures(sim.now, now_ms).dispatch_lag;
    let mut sim = capped();
    sim.run(30 * SECOND);
    assert_eq!(lag(&mut sim), Duration::ZERO, "the cap holds it up");
    let figures = sim.scheduler.figures(sim.now, now_ms);
    assert!(figures.waiting["a"].entries > 10_000);

    // An upstream that takes its time, with all its places taken.
    let config = ingest(vec![application("a")], vec![upstream("u")]);
    let mut sim = Sim::new(&config);
    sim.latency = 5 * SECOND;
    sim.flood("a", 10_000);
    sim.run(31 * SECOND);
    assert!(lag(&mut sim) <= SECOND, "{:?}", lag(&mut sim));

    // Nothing of it comes to be sent.
    let mut sim = Sim::new(&config);
    sim.store_fails = true;
    sim.flood("a", 10);
    sim.run(7 * SECOND);
    assert!(lag(&mut sim) >= 6 * SECOND, "{:?}", lag(&mut sim));
}
