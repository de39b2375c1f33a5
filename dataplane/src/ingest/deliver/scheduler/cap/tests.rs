use std::time::Duration;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const CAP: u32 = 1_200;

fn part(start: Instant, per_minute: f64, until: Instant, safe_per_minute: f64) -> Part {
    Part {
        boot: Some(Boot {
            since: start,
            data_planes_max: 4,
        }),
        grant: Some(Grant {
            per_minute,
            until,
            safe_per_minute,
            safe_from: until,
        }),
    }
}

/// With a lease that outlasts any test.
fn leased(start: Instant, per_minute: f64) -> Part {
    part(start, per_minute, start + 60 * MINUTE, per_minute)
}

/// The most in any minute of what was sent, in the order of time.
fn most_in_a_minute(sent: &[(Duration, u32)]) -> u64 {
    let mut most = 0;
    for (index, (first, _)) in sent.iter().enumerate() {
        let within = sent[index..]
            .iter()
            .take_while(|(at, _)| *at - *first < MINUTE);
        most = most.max(within.map(|(_, cost)| u64::from(*cost)).sum());
    }
    most
}

/// A data plane with something to send all the time.
struct Pod {
    cap: Cap,
    per_minute: f64,
    costs: Vec<u32>,
    next: usize,
    /// When it looks again.
    at: Instant,
}

impl Pod {
    fn new(start: Instant, per_minute: f64, costs: &[u32]) -> Self {
        Self {
            cap: Cap::new(CAP, leased(start, per_minute), start),
            per_minute,
            costs: costs.to_vec(),
            next: 0,
            at: start,
        }
    }

    /// What it sends now, if anything.
    fn turn(&mut self, now: Instant) -> Option<u32> {
        let cost = self.costs[self.next % self.costs.len()];
        match self.cap.check(cost, now) {
            Ok(()) => {
                self.cap.take(cost, now);
                self.next += 1;
                Some(cost)
            }
            Err(until) => {
                assert!(until > now);
                self.at = until;
                None
            }
        }
    }
}

/// All pods until then, each whenever it may send.
fn run(pods: &mut [Pod], start: Instant, until: Instant, sent: &mut Vec<(Duration, u32)>) {
    while let Some(pod) = pods.iter_mut().min_by_key(|pod| pod.at)
        && pod.at < until
    {
        let now = pod.at;
        if let Some(cost) = pod.turn(now) {
            sent.push((now - start, cost));
        }
    }
}

fn burst(per_minute: f64) -> f64 {
    (per_minute / 60.0 * 0.05).max(1.0)
}

#[test]
fn what_costs_more_than_the_burst_keeps_within_the_minute_and_uses_it() {
    let start = Instant::now();
    for (costs, uses) in [
        (&[1][..], 0.99),
        (&[10], 0.95),
        (&[1, 1, 1, 1, 1, 1, 1, 1, 1, 50], 0.7),
        (&[100], 0.95),
        (&[300, 1], 0.45),
    ] {
        let mut pods = [Pod::new(start, 600.0, costs)];
        let mut sent = Vec::new();
        run(&mut pods, start, start + 10 * MINUTE, &mut sent);
        let most = most_in_a_minute(&sent);
        assert!(most <= 602, "{costs:?}: {most}");
        // What was sent before the first one is not known, so that it saves at first.
        let later = sent.iter().filter(|(at, _)| *at >= MINUTE);
        let all: u64 = later.map(|(_, cost)| u64::from(*cost)).sum();
        let used = all as f64 / 5_400.0;
        assert!(used >= uses, "{costs:?}: {used}");
    }
}

#[test]
fn what_costs_more_than_the_part_of_a_minute_goes_once_as_much_is_saved() {
    let start = Instant::now();
    let mut pod = Pod::new(start, 60.0, &[1, 90]);
    let mut sent = Vec::new();
    run(
        std::slice::from_mut(&mut pod),
        start,
        start + 5 * MINUTE,
        &mut sent,
    );
    let large: Vec<u64> = sent
        .iter()
        .filter(|(_, cost)| *cost == 90)
        .map(|(at, _)| at.as_secs())
        .collect();
    // Saved for a minute and a half, paid for as long, and so on.
    assert_eq!(large.len(), 2);
    assert!(
        (88..92).contains(&large[0]) && (266..276).contains(&large[1]),
        "{large:?}"
    );
}

#[test]
fn what_comes_a_little_late_is_made_up_for_within_the_minute() {
    let start = Instant::now();
    let mut cap = Cap::new(CAP, leased(start, 600.0), start);
    let mut sent = Vec::new();
    let mut now = start;
    while now < start + 5 * MINUTE {
        match cap.check(1, now) {
            // Something else holds it up for a tenth of the time between two.
            Ok(()) => {
                now += Duration::from_millis(10);
                cap.take(1, now);
                sent.push((now - start, 1));
            }
            Err(until) => now = until,
        }
    }
    let most = most_in_a_minute(&sent);
    assert!((594..=601).contains(&most), "{most}");
    assert!(sent.len() >= 2_970, "{}", sent.len());
}

#[test]
fn calls_do_not_starve_the_one_that_saves() {
    let start = Instant::now();
    let mut cap = Cap::new(CAP, leased(start, 600.0), start);
    let mut now = start;
    let mut went = None;
    while went.is_none() && now < start + 2 * MINUTE {
        if cap.check(100, now).is_ok() {
            cap.take(100, now);
            went = Some(now - start);
        } else if cap.check_call(true, 1, now).is_ok() {
            cap.take_call(1, now);
        }
        now += Duration::from_millis(20);
    }
    let went = went.expect("it never goes");
    assert!((10 * SECOND..30 * SECOND).contains(&went), "{went:?}");
}

#[test]
fn a_lease_that_ends_before_a_large_one_is_paid_for_does_not_count() {
    let start = Instant::now();
    let at = |s: u64| start + Duration::from_secs(s);
    // A minute of the same rate, so that only the lease is in question.
    let check = |until_s: u64| {
        let mut cap = Cap::new(CAP, part(start, 600.0, at(until_s), 30.0), start);
        assert!(cap.check(100, at(1)).is_err(), "nothing is saved yet");
        cap.take(1, at(61));
        cap.check(100, at(62))
    };
    assert_eq!(check(90), Ok(()));
    assert!(check(70).is_err());
}

#[test]
fn a_part_is_given_back_when_what_was_sent_is_paid_for() {
    let start = Instant::now();
    let at = |s: u64| start + Duration::from_secs(s);
    let mut cap = Cap::new(CAP, leased(start, 600.0), start);
    assert_eq!(cap.share(leased(start, 300.0), at(1)), (true, None));
    assert_eq!(cap.share(leased(start, 600.0), at(2)), (true, None));
    cap.take(100, at(3));
    assert_eq!(cap.share(leased(start, 600.0), at(3)), (false, None));
    let (changed, paid) = cap.share(leased(start, 0.0), at(3));
    let paid_s = (paid.unwrap() - at(3)).as_secs_f64();
    assert!(changed && (9.8..=10.0).contains(&paid_s), "{paid_s}");
}

#[test]
fn the_first_minute_of_a_boot_and_the_end_of_a_lease_come_by_themselves() {
    let start = Instant::now();
    let at = |s: f64| start + Duration::from_secs_f64(s);
    let mut boot = part(start, 0.0, start, 0.0);
    boot.grant = None;
    let mut cap = Cap::new(CAP, boot, start);
    assert_eq!(cap.check(1, start), Err(at(20.0)));
    assert_eq!(cap.check(1, at(19.9)), Err(at(20.0)));
    assert_eq!(cap.check(1, at(20.0)), Ok(()));
    assert_eq!(cap.state(at(20.0)).in_force.per_minute, 150.0);

    let mut cap = Cap::new(CAP, part(start, 0.0, at(9.0), 60.0), start);
    assert_eq!(cap.check(1, start), Err(at(9.0)));
    assert_eq!(cap.check_call(false, 1, start), Err(at(9.0)));
    assert_eq!(cap.check(1, at(9.0)), Ok(()));
    assert_eq!(cap.state(at(9.0)).in_force.why, Why::Safe);
}

/// The parts that pods have of a cap, moved as a manager moves them: lowered at once, raised when what was lowered is given back.
fn moves(count: usize) -> impl Strategy<Value = Vec<(u64, Vec<u32>)>> {
    prop::collection::vec((1u64..40, prop::collection::vec(0u32..10, count)), 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn no_minute_has_more_than_the_cap_over_all_data_planes(
        moves in moves(3),
        costs in prop::collection::vec(
            prop::collection::vec(prop_oneof![4 => Just(1u32), 1 => 2u32..40], 1..12), 3),
    ) {
        let start = Instant::now();
        // Enough for what costs most to be saved and paid within a minute, and room for bursts.
        let least = 90.0;
        let total = f64::from(CAP) - 3.0 * burst(f64::from(CAP));
        let mut pods: Vec<Pod> = costs
            .iter()
            .map(|costs| Pod::new(start, total / 3.0, costs))
            .collect();
        let mut sent = Vec::new();
        let mut now = start;
        for (pause_s, weights) in moves {
            let end = now + Duration::from_secs(pause_s);
            run(&mut pods, start, end, &mut sent);
            now = end;
            let sum: u32 = weights.iter().sum();
            let spare = total - 3.0 * least;
            let wanted: Vec<f64> = weights
                .iter()
                .map(|weight| least + spare * f64::from(*weight) / f64::from(sum.max(1)))
                .collect();
            let mut given_back = now;
            for (pod, wanted) in pods.iter_mut().zip(&wanted) {
                if *wanted < pod.per_minute {
                    let (_, paid) = pod.cap.share(leased(start, *wanted), now);
                    given_back = paid.map_or(given_back, |paid| paid.max(given_back));
                    pod.per_minute = *wanted;
                }
            }
            run(&mut pods, start, given_back, &mut sent);
            now = now.max(given_back);
            for (pod, wanted) in pods.iter_mut().zip(&wanted) {
                pod.cap.share(leased(start, *wanted), now);
                pod.per_minute = *wanted;
                pod.at = now;
            }
        }
        run(&mut pods, start, now + MINUTE, &mut sent);
        sent.sort_unstable();
        let most = most_in_a_minute(&sent);
        prop_assert!(most <= u64::from(CAP), "{most}");
        // And every data plane gets on.
        for pod in &pods {
            prop_assert!(pod.next > 0);
        }
    }
}
