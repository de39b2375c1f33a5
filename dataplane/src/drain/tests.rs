use proptest::prelude::*;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(30);

#[tokio::test(start_paused = true)]
async fn ends_when_the_last_watcher_is_dropped() {
    let drain = Drain::new();
    let mut watchers = vec![drain.subscribe(), drain.subscribe()];
    let start = Instant::now();
    let waiting = tokio::spawn({
        let drain = drain.clone();
        async move { drain.complete().await }
    });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(drain.is_serving() && !waiting.is_finished());

    drain.start(TIMEOUT);
    let (since, until) = watchers[0].draining().await;
    assert_eq!(
        (since - start, until - start),
        (Duration::from_secs(5), Duration::from_secs(35))
    );
    watchers.pop();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!waiting.is_finished());
    watchers.pop();
    assert_eq!(waiting.await.unwrap(), Outcome::Finished);
    assert_eq!(start.elapsed(), Duration::from_secs(10));
}

#[tokio::test(start_paused = true)]
async fn without_watchers_it_ends_at_once() {
    let drain = Drain::new();
    drain.start(TIMEOUT);
    let start = Instant::now();
    assert_eq!(drain.complete().await, Outcome::Finished);
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_it_with_watchers_left() {
    let drain = Drain::new();
    let mut watcher = drain.subscribe();
    let start = Instant::now();
    drain.start(TIMEOUT);
    let (outcome, ()) = tokio::join!(drain.complete(), async {
        watcher.closing().await;
        assert_eq!(start.elapsed(), TIMEOUT);
    });
    assert_eq!(outcome, Outcome::DeadlinePassed { remaining: 1 });
    assert_eq!(start.elapsed(), TIMEOUT + CLOSING_GRACE);
    assert_eq!(watcher.phase(), Phase::Closing);
}

#[tokio::test(start_paused = true)]
async fn a_second_start_only_brings_the_deadline_nearer() {
    let drain = Drain::new();
    let mut watcher = drain.subscribe();
    let start = Instant::now();
    drain.start(TIMEOUT);
    drain.start(TIMEOUT * 2);
    let (_, until) = watcher.draining().await;
    assert_eq!(until, start + TIMEOUT);

    let waiting = tokio::spawn({
        let drain = drain.clone();
        async move { drain.complete().await }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    let seen = watcher.phase();
    drain.start(Duration::from_secs(2));
    assert_ne!(watcher.after(seen).await, seen);
    assert_eq!(
        waiting.await.unwrap(),
        Outcome::DeadlinePassed { remaining: 1 }
    );
    assert_eq!(start.elapsed(), Duration::from_secs(3) + CLOSING_GRACE);
}

#[tokio::test(start_paused = true)]
async fn a_lost_trigger_closes() {
    let drain = Drain::new();
    let mut watcher = drain.subscribe();
    drop(drain);
    watcher.closing().await;
    let (since, until) = watcher.draining().await;
    assert_eq!(since, until);
}

#[test]
fn pace_table() {
    let cases = [
        // total, over ms, elapsed ms, closed
        (0, 10_000, 5_000, 0),
        (100, 10_000, 0, 0),
        (100, 10_000, 900, 10),
        (100, 10_000, 4_500, 50),
        (100, 10_000, 4_501, 51),
        (100, 10_000, 8_999, 100),
        (100, 10_000, 9_000, 100),
        (100, 10_000, 60_000, 100),
        (1, 10_000, 1, 1),
        (3, 10_000, 3_000, 1),
        (3, 10_000, 3_001, 2),
        (10_000, 30_000, 13_500, 5_000),
        (100, 0, 0, 100),
        (usize::MAX, 10_000, 9_000, usize::MAX),
    ];
    for (total, over_ms, elapsed_ms, closed) in cases {
        let pace = pace(total, Duration::from_millis(over_ms));
        assert_eq!(
            pace(Duration::from_millis(elapsed_ms)),
            closed,
            "{total} over {over_ms} at {elapsed_ms}"
        );
    }
}

proptest! {
    /// Never backwards, never more than an even share ahead, everything before the end.
    #[test]
    fn pace_is_even(total in 0usize..50_000, over_ms in 1u64..600_000, steps in proptest::collection::vec(0u64..600_000, 1..20)) {
        let over = Duration::from_millis(over_ms);
        let pace = pace(total, over);
        let mut steps = steps;
        steps.sort_unstable();
        let mut last = 0;
        for step in steps {
            let closed = pace(Duration::from_millis(step));
            prop_assert!(closed >= last && closed <= total);
            let share = total as f64 * step as f64 / (over_ms as f64 * 0.9);
            prop_assert!(closed as f64 <= share + 1.001);
            last = closed;
        }
        prop_assert_eq!(pace(over.mul_f64(0.9)), total);
    }
}
