use proptest::prelude::*;

use super::*;

const TIME: Duration = Duration::from_secs(100);

fn draining(since: Instant) -> Phase {
    Phase::Draining {
        since,
        until: since + TIME,
    }
}

fn at(second: u64, connections: usize, missing: usize, attended: bool) -> (usize, bool) {
    let since = Instant::now();
    let now = since + Duration::from_secs(second);
    let due = due(draining(since), connections, missing, attended, now);
    (due.clients, due.whoever)
}

#[tokio::test]
async fn who_serves_closes_what_is_wanted_and_who_is_idle() {
    let now = Instant::now();
    for (connections, missing, wanted) in
        [(10, 0, 0), (10, 4, 4), (10, 40, 10), (9_000, 5_000, 2_000)]
    {
        let due = due(Phase::Serving, connections, missing, true, now);
        assert_eq!((due.clients, due.whoever), (wanted, false));
    }
}

#[tokio::test]
async fn a_manager_paces_the_first_half_of_a_drain() {
    assert_eq!(at(0, 9_000, 0, true), (0, false));
    assert_eq!(at(49, 9_000, 25, true), (25, false));
    // 9,000 in the 40 seconds that are left of the ninety.
    assert_eq!(at(50, 9_000, 0, true), (225, true));
    // It may want more.
    assert_eq!(at(50, 9_000, 400, true), (400, true));
}

#[tokio::test]
async fn a_drain_of_a_second_waits_for_no_orders() {
    let since = Instant::now();
    let until = since + Duration::from_secs(1);
    let due = due(Phase::Draining { since, until }, 212, 0, true, since);
    assert_eq!(
        (due.clients, due.whoever, due.within),
        (212, true, Duration::from_millis(900))
    );
}

#[tokio::test]
async fn without_a_manager_all_leave_evenly() {
    assert_eq!(at(0, 9_000, 0, false), (100, true));
    assert_eq!(at(45, 4_500, 0, false), (100, true));
    assert_eq!(at(80, 1_000, 0, false), (100, true));
    assert_eq!(at(89, 100, 0, false), (100, true));
    // Few need not take that long.
    assert_eq!(at(0, 300, 0, false), (10, true));
    assert_eq!(at(0, 3, 0, false), (3, true));
}

#[tokio::test]
async fn at_the_end_everyone_leaves_at_once() {
    for second in [90, 99, 100, 5_000] {
        assert_eq!(at(second, 12_345, 0, true), (12_345, true));
    }
    let due = due(Phase::Closing, 7, 0, true, Instant::now());
    assert_eq!((due.clients, due.within), (7, Duration::ZERO));
}

proptest! {
    /// Whatever the manager says, and whether it is there: nobody is left when closing has to be over.
    #[test]
    fn nobody_is_left_in_the_end(
        mut connections in 0_usize..40_000,
        seconds in 0_u64..400,
        orders in prop::collection::vec((0_usize..3_000, any::<bool>()), 1..50),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let since = runtime.block_on(async { Instant::now() });
        let time = Duration::from_secs(seconds);
        let phase = Phase::Draining { since, until: since + time };
        let mut now = since;
        for round in 0.. {
            let (missing, attended) = orders[round % orders.len()];
            let due = due(phase, connections, missing, attended, now);
            prop_assert!(due.clients <= connections);
            connections -= due.clients;
            now += due.within.max(STEP);
            if now >= since + time * CLOSING_PERCENT / 100 + STEP {
                break;
            }
        }
        prop_assert_eq!(connections, 0);
    }
}
