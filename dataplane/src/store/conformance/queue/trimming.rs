//! Retention and the budget.

use super::*;
use crate::store::queue::QueueError;

const HOUR: Duration = Duration::from_secs(3600);
const HOUR_MS: u64 = 3_600_000;

pub(super) async fn run(harness: &dyn Harness) {
    settled_entries_go_when_they_are_old(harness).await;
    waiting_entries_never_go(harness).await;
    applications_have_their_own_time(harness).await;
    claimed_entries_survive_a_trim(harness).await;
    a_short_budget_takes_settled_entries(harness).await;
    a_full_queue_refuses_until_there_is_room(harness).await;
}

async fn settle_all(queue: &dyn Queue, application: &str) {
    let claimed = claim_all(queue, application).await;
    settle(
        queue,
        claimed.iter().map(|claimed| claimed.token),
        Outcome::Delivered,
    )
    .await;
}

async fn settled_entries_go_when_they_are_old(harness: &dyn Harness) {
    let queue = harness.queue().await;
    append_many(&*queue, "a", 0..10).await;
    settle_all(&*queue, "a").await;
    let keep = horizon(HOUR, BUDGET_BYTES);
    queue.trim(&keep, NOW_MS + HOUR_MS - 1_000).await.unwrap();
    assert_eq!(total_entries(&*queue).await.len(), 10, "not old yet");
    queue.trim(&keep, NOW_MS + HOUR_MS + 1_000).await.unwrap();
    for queue in [queue.clone(), harness.killed(queue).await] {
        assert!(total_entries(&*queue).await.is_empty());
        assert_eq!(queue.stats().entries, 0);
        assert_eq!(queue.get(id(NOW_MS, 0)).await.unwrap(), None);
    }
}

async fn waiting_entries_never_go(harness: &dyn Harness) {
    let queue = harness.queue().await;
    append_many(&*queue, "a", 0..20).await;
    let claimed = claim_all(&*queue, "a").await;
    let tokens = |range: std::ops::Range<usize>| {
        claimed[range]
            .iter()
            .map(|claimed| claimed.token)
            .collect::<Vec<_>>()
    };
    settle(&*queue, tokens(2..19), Outcome::Delivered).await;
    settle(&*queue, tokens(1..2), Outcome::Parked).await;
    queue.record_attempts(claimed[19].token, 4).await.unwrap();
    let keep = horizon(HOUR, BUDGET_BYTES);
    queue.trim(&keep, NOW_MS + 10 * HOUR_MS).await.unwrap();
    for queue in [queue.clone(), harness.killed(queue.clone()).await] {
        assert_eq!(total_entries(&*queue).await, [0, 19]);
        let stats = lane_stats(&*queue, "a").unwrap();
        assert_eq!(
            (stats.waiting, stats.waiting_bytes, stats.parked),
            (2, 19, 0)
        );
        assert_eq!(stats.oldest_ms, Some(NOW_MS));
    }
    let after = harness.killed(queue.clone()).await;
    let again = claim_all(&*after, "a").await;
    assert_eq!(requests(&again), expected([0, 19]));
    assert_eq!(again[1].attempts, 4);
    // The one that claimed them goes on as if nothing was.
    let loaded = queue
        .load(&[claimed[19].token, claimed[0].token])
        .await
        .unwrap();
    assert_eq!(
        loaded,
        [Some("request 19".into()), Some("request 0".into())]
    );
    settle(&*queue, [claimed[0].token], Outcome::Delivered).await;
    let after = harness.killed(queue).await;
    assert_eq!(requests(&claim_all(&*after, "a").await), expected([19]));
}

async fn applications_have_their_own_time(harness: &dyn Harness) {
    let queue = harness.queue().await;
    for serial in 0..30 {
        let application = if serial % 10 == 0 { "long" } else { "short" };
        queue.append(entry(application, serial)).await.unwrap();
    }
    settle_all(&*queue, "short").await;
    settle_all(&*queue, "long").await;
    let mut keep = horizon(24 * HOUR, BUDGET_BYTES);
    keep.by_application.insert("short".into(), HOUR);
    queue.trim(&keep, NOW_MS + 2 * HOUR_MS).await.unwrap();
    assert_eq!(total_entries(&*queue).await, [0, 10, 20]);
    queue.trim(&keep, NOW_MS + 25 * HOUR_MS).await.unwrap();
    assert!(total_entries(&*queue).await.is_empty());
}

async fn claimed_entries_survive_a_trim(harness: &dyn Harness) {
    let queue = harness.queue().await;
    append_many(&*queue, "a", 0..50).await;
    let limits = ClaimLimits {
        entries: 30,
        bytes: usize::MAX,
    };
    let claimed = queue.claim(&lane("a"), limits).await.unwrap();
    settle(
        &*queue,
        claimed[..25].iter().map(|claimed| claimed.token),
        Outcome::Delivered,
    )
    .await;
    let keep = horizon(Duration::from_secs(60), BUDGET_BYTES);
    queue.trim(&keep, NOW_MS + HOUR_MS).await.unwrap();
    append_many(&*queue, "a", 50..55).await;
    assert_eq!(requests(&claim_all(&*queue, "a").await), expected(30..55));
    settle(
        &*queue,
        claimed[25..].iter().map(|claimed| claimed.token),
        Outcome::Delivered,
    )
    .await;
    assert_eq!(queue.stats().waiting, 25);
}

/// An entry that compression does not make smaller.
fn large(serial: u64) -> NewEntry {
    let mut state = serial + 1;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u8
    };
    NewEntry {
        request: (0..64 * 1024).map(|_| next()).collect::<Vec<u8>>().into(),
        ..entry("a", serial)
    }
}

async fn a_short_budget_takes_settled_entries(harness: &dyn Harness) {
    let queue = harness.queue().await;
    for serial in 0..100 {
        queue.append(large(serial)).await.unwrap();
    }
    let claimed = claim_all(&*queue, "a").await;
    settle(
        &*queue,
        claimed[..80].iter().map(|claimed| claimed.token),
        Outcome::Delivered,
    )
    .await;
    let short = horizon(HOUR, 4 << 20);
    queue.trim(&short, NOW_MS + 1_000).await.unwrap();
    let left = total_entries(&*queue).await;
    assert!(
        left.ends_with(&(80..100).collect::<Vec<_>>()),
        "what waits stays: {left:?}"
    );
    assert!(left.len() < 65, "enough went: {left:?}");
    assert!(queue.stats().stored_bytes <= 4 << 20);
    assert_eq!(queue.stats().budget_bytes, 4 << 20);
}

async fn a_full_queue_refuses_until_there_is_room(harness: &dyn Harness) {
    let queue = harness.queue().await;
    let small = horizon(HOUR, 4 << 20);
    queue.trim(&small, NOW_MS).await.unwrap();
    let mut stored = 0;
    let refused = loop {
        match queue.append(large(stored)).await {
            Ok(()) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 100, "never full");
    };
    assert_eq!(refused, QueueError::Full);
    assert!(stored > 50, "full too early: {stored}");
    assert!(!queue.stats().accepting);
    queue.trim(&small, NOW_MS + 10 * HOUR_MS).await.unwrap();
    assert_eq!(
        queue.append(large(200)).await,
        Err(QueueError::Full),
        "nothing may go"
    );
    let claimed = claim_all(&*queue, "a").await;
    assert_eq!(
        claimed.len() as u64,
        stored,
        "what was refused is not there"
    );
    settle(
        &*queue,
        claimed.iter().map(|claimed| claimed.token),
        Outcome::Delivered,
    )
    .await;
    queue.trim(&small, NOW_MS + 1_000).await.unwrap();
    assert!(queue.stats().accepting);
    for serial in 300..340 {
        queue.append(large(serial)).await.unwrap();
    }
}
