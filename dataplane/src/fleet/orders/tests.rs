use proptest::prelude::*;
use sluice_proto::fleet::{Share, UpstreamShare};

use super::*;
use crate::fleet::shares::{Why, in_force};

const SECOND: Duration = Duration::from_secs(1);
const CAP: f64 = 600.0;

fn boot(since: Instant) -> Boot {
    Boot {
        since,
        data_planes_max: 3,
    }
}

fn version(term: u64, generation: u64) -> Version {
    Version { term, generation }
}

fn directive(term: u64, generation: u64) -> Directive {
    Directive {
        version: version(term, generation),
        ..Directive::default()
    }
}

fn share(per_minute: f64, lease_s: u64, safe_per_minute: f64) -> Share {
    Share {
        key: CapKey::Gateway,
        per_minute,
        lease: Duration::from_secs(lease_s),
        safe_per_minute,
    }
}

fn allowed(orders: &Orders, now: Instant) -> (f64, Why) {
    let rates = orders.rates();
    let grant = rates.grants.get(&CapKey::Gateway).copied();
    let found = in_force(rates.boot, grant, CAP, now);
    (found.per_minute, found.why)
}

#[test]
fn what_an_older_manager_or_an_older_directive_says_changes_nothing() {
    let now = Instant::now();
    // What came before, what comes, and what becomes of it.
    let cases = [
        ((0, 0), (1, 1), Ok(())),
        ((5, 7), (5, 8), Ok(())),
        ((5, 7), (5, 7), Ok(())),
        ((5, 7), (6, 1), Ok(())),
        ((5, 7), (5, 6), Err(Ignored::Stale)),
        ((5, 7), (4, 99), Err(Ignored::LowerTerm)),
    ];
    for (before, next, outcome) in cases {
        let mut orders = Orders::new(boot(now));
        orders
            .take(directive(before.0, before.1), Some(now), now)
            .unwrap();
        let untouched = orders.clone();
        let fencing = Directive {
            steering: Steering::Fence,
            shed_to: 9,
            shares: vec![share(1.0, 1, 1.0)],
            ..directive(next.0, next.1)
        };
        assert_eq!(orders.take(fencing, Some(now), now), outcome, "{next:?}");
        assert_eq!(orders == untouched, outcome.is_err(), "{next:?}");
    }
}

#[test]
fn times_count_from_the_report_that_is_answered() {
    let start = Instant::now();
    let at = |s: f64| start + Duration::from_secs_f64(s);
    // When the answered report was sent; it comes after 4 s. Then at which time what holds: fenced, rate.
    let cases = [
        (Some(0.0), 4.0, true, (450.0, Why::Lease)),
        (Some(0.0), 4.9, true, (450.0, Why::Lease)),
        (Some(0.0), 5.0, false, (450.0, Why::Lease)),
        (Some(0.0), 14.9, false, (450.0, Why::Lease)),
        (Some(0.0), 15.0, false, (100.0, Why::Safe)),
        (Some(3.0), 7.9, true, (450.0, Why::Lease)),
        (Some(3.0), 17.9, false, (450.0, Why::Lease)),
        (Some(3.0), 18.0, false, (100.0, Why::Safe)),
        // It is not known any more: nothing lasts, and what is safe is.
        (None, 4.0, false, (100.0, Why::Safe)),
    ];
    for (sent_s, now_s, fenced, rate) in cases {
        let mut orders = Orders::new(boot(start));
        let said = Directive {
            steering: Steering::Fence,
            valid: Some(5 * SECOND),
            shares: vec![share(450.0, 15, 100.0)],
            ..directive(1, 1)
        };
        orders.take(said, sent_s.map(at), at(4.0)).unwrap();
        let now = at(now_s);
        let steering = orders.steering(now);
        assert_eq!(steering == Steering::Fence, fenced, "{sent_s:?} {now_s}");
        assert_eq!(steering == Steering::Accept, !fenced, "{sent_s:?} {now_s}");
        assert_eq!(allowed(&orders, now), rate, "{sent_s:?} {now_s}");
    }
}

#[test]
fn without_an_end_steering_holds_until_the_next_directive() {
    let now = Instant::now();
    let mut orders = Orders::new(boot(now));
    let drain = Directive {
        steering: Steering::Drain,
        shed_to: 7,
        ..directive(1, 1)
    };
    orders.take(drain, Some(now), now).unwrap();
    assert_eq!(orders.steering(now + 9_999 * SECOND), Steering::Drain);
    assert_eq!((orders.fence(), orders.shed()), (Fence::Closed, (7, None)));
    orders.take(directive(1, 2), Some(now), now).unwrap();
    assert_eq!(
        (orders.steering(now), orders.fence()),
        (Steering::Accept, Fence::Open)
    );
}

#[test]
fn what_is_not_named_any_more_keeps_its_safe_rate() {
    let now = Instant::now();
    let mut orders = Orders::new(boot(now));
    let first = Directive {
        shares: vec![share(450.0, 15, 100.0)],
        ..directive(1, 1)
    };
    orders.take(first, Some(now), now).unwrap();
    orders.take(directive(2, 1), Some(now), now).unwrap();
    assert_eq!(allowed(&orders, now), (450.0, Why::Lease));
    assert_eq!(allowed(&orders, now + 15 * SECOND), (100.0, Why::Safe));
    assert_eq!(allowed(&orders, now + 99_999 * SECOND), (100.0, Why::Safe));
}

#[test]
fn before_anything_is_heard_there_is_silence_and_then_half_a_part() {
    let now = Instant::now();
    let mut orders = Orders::new(boot(now));
    assert_eq!(allowed(&orders, now + 19 * SECOND), (0.0, Why::Boot));
    assert_eq!(allowed(&orders, now + 20 * SECOND), (100.0, Why::Boot));
    assert!(orders.set_data_planes_max(6) && !orders.set_data_planes_max(6));
    assert_eq!(allowed(&orders, now + 20 * SECOND), (50.0, Why::Boot));
}

#[test]
fn parts_of_upstreams_and_times_of_reports_are_taken_within_bounds() {
    let now = Instant::now();
    let mut orders = Orders::new(boot(now));
    let upstream = |name: &str, per_second| UpstreamShare {
        name: name.into(),
        per_second,
    };
    let said = Directive {
        upstreams: vec![upstream("u", Some(3.0)), upstream("free", None)],
        report_every: Some(Duration::from_millis(1)),
        shares: vec![share(1.0, u64::MAX / 1_000, 1.0)],
        ..directive(1, 1)
    };
    orders.take(said, Some(now), now).unwrap();
    let rates = orders.rates();
    assert_eq!(rates.ceiling("u", now), Some(3.0));
    assert_eq!(rates.ceiling("free", now), None);
    assert_eq!(rates.ceiling("u", now + UPSTREAM_SHARES_HOLD), None);
    assert_eq!(orders.report_every(), REPORT_EVERY_MIN);
    assert_eq!(allowed(&orders, now + LEASE_MAX).1, Why::Safe);
}

/// Pause before it, term, generation, how long ago the report was sent (`None`: not known), rate, lease, safe rate.
type Said = (u64, u64, u64, Option<u64>, u32, u64, u32);

fn said() -> impl Strategy<Value = Said> {
    (
        0u64..20,
        1u64..4,
        1u64..4,
        prop::option::of(0u64..10),
        0u32..600,
        0u64..20,
        0u32..600,
    )
}

proptest! {
    /// Whatever comes in whatever order: what is allowed is the rate of the last directive that counts while its lease holds, and
    /// its safe rate from then on; never is it what a lower term said after a higher one.
    #[test]
    fn only_the_latest_counts(all in prop::collection::vec(said(), 1..20), look_s in 0u64..40) {
        let start = Instant::now();
        let mut now = start + 100 * SECOND;
        let mut orders = Orders::new(boot(start));
        let mut latest: Option<(Version, Instant, Instant, u32, u32)> = None;
        for (pause_s, term, generation, ago_s, rate, lease_s, safe) in all {
            now += Duration::from_secs(pause_s);
            let sent = ago_s.map(|s| now - Duration::from_secs(s));
            let next = Directive {
                shares: vec![share(rate.into(), lease_s, safe.into())],
                ..directive(term, generation)
            };
            let counts = latest.is_none_or(|(before, ..)| version(term, generation) >= before);
            let taken = orders.take(next.clone(), sent, now);
            prop_assert_eq!(taken.is_ok(), counts);
            if counts {
                let until = sent.map_or(now, |sent| sent + Duration::from_secs(lease_s));
                let safe_from = until + Duration::from_secs(lease_s);
                latest = Some((version(term, generation), until, safe_from, rate, safe));
                // A doubled one does no harm.
                let once = orders.clone();
                orders.take(next, sent, now).unwrap();
                prop_assert_eq!(&once, &orders);
            }
        }
        let (_, until, safe_from, rate, safe) = latest.unwrap();
        let look = now + Duration::from_secs(look_s);
        let expected = if look < until {
            rate
        } else if look < safe_from {
            rate.min(safe)
        } else {
            safe
        };
        prop_assert_eq!(allowed(&orders, look).0, f64::from(expected));
    }
}
