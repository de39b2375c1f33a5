//! Verdicts, attempts, dismissals, and what is counted.

use super::*;

pub(super) async fn run(harness: &dyn Harness) {
    the_first_verdict_stays(harness).await;
    attempts_survive(harness).await;
    counts_are_exact(harness).await;
    an_operator_dismisses_what_waits(harness).await;
    an_operator_dismisses_what_is_parked(harness).await;
    a_claimed_entry_can_be_dismissed(harness).await;
    settles_at_once_are_all_kept(harness).await;
}

async fn the_first_verdict_stays(harness: &dyn Harness) {
    let queue = harness.queue().await;
    append_many(&*queue, "a", 0..1).await;
    let token = claim_all(&*queue, "a").await[0].token;
    let first = Verdict {
        outcome: Outcome::Parked,
        reason: "AttemptsExhausted".into(),
        http_status: 503,
        attempts: 10,
        upstream: "other".into(),
        at_ms: NOW_MS + 77,
    };
    let second = verdict(Outcome::Delivered);
    let both = vec![(token, first.clone()), (token, second.clone())];
    queue.settle(both).await.unwrap();
    queue.settle(vec![(token, second)]).await.unwrap();
    for queue in [queue.clone(), harness.killed(queue).await] {
        let (found, request) = queue.get(id(NOW_MS, 0)).await.unwrap().unwrap();
        assert_eq!(found.verdict, Some(first.clone()));
        assert_eq!(request, "request 0");
        assert_eq!(queue.stats().parked, 1);
        assert!(claim_all(&*queue, "a").await.is_empty());
    }
}

async fn attempts_survive(harness: &dyn Harness) {
    let queue = harness.queue().await;
    append_many(&*queue, "a", 0..3).await;
    let claimed = claim_all(&*queue, "a").await;
    queue.record_attempts(claimed[1].token, 2).await.unwrap();
    queue.record_attempts(claimed[1].token, 5).await.unwrap();
    queue.record_attempts(claimed[2].token, 1).await.unwrap();
    let mut queue = harness.killed(queue).await;
    for _ in 0..2 {
        let again = claim_all(&*queue, "a").await;
        let attempts: Vec<u32> = again.iter().map(|claimed| claimed.attempts).collect();
        assert_eq!(attempts, [0, 5, 1]);
        queue = harness.killed(queue).await;
    }
}

async fn counts_are_exact(harness: &dyn Harness) {
    let queue = harness.queue().await;
    append_many(&*queue, "a", 0..10).await;
    append_many(&*queue, "b", 10..12).await;
    let limits = ClaimLimits {
        entries: 4,
        bytes: usize::MAX,
    };
    let claimed = queue.claim(&lane("a"), limits).await.unwrap();
    settle(
        &*queue,
        [claimed[0].token, claimed[2].token],
        Outcome::Delivered,
    )
    .await;
    let before = lane_stats(&*queue, "a").unwrap();
    assert_eq!((before.waiting, before.waiting_bytes), (8, 72));
    assert_eq!(before.oldest_ms, Some(NOW_MS + 1), "claimed, not settled");
    settle(&*queue, [claimed[1].token], Outcome::Parked).await;
    settle(&*queue, [claimed[3].token], Outcome::Discarded).await;
    for queue in [queue.clone(), harness.killed(queue).await] {
        let stats = lane_stats(&*queue, "a").unwrap();
        let expected = LaneStats {
            lane: lane("a"),
            waiting: 6,
            waiting_bytes: 54,
            oldest_ms: Some(NOW_MS + 4),
            parked: 1,
        };
        assert_eq!(stats, expected);
        let total = queue.stats();
        assert_eq!((total.waiting, total.parked, total.entries), (8, 1, 12));
        assert_eq!(total.waiting_bytes, 54 + 20);
        assert!(total.stored_bytes > 0 && total.accepting);
    }
}

async fn an_operator_dismisses_what_waits(harness: &dyn Harness) {
    let queue = harness.queue().await;
    append_many(&*queue, "a", 0..4).await;
    let discarded = verdict(Outcome::Discarded);
    for serial in [0, 2] {
        let id = id(NOW_MS + serial, serial);
        assert!(queue.dismiss(id, discarded.clone()).await.unwrap());
        assert!(
            !queue.dismiss(id, discarded.clone()).await.unwrap(),
            "done already"
        );
    }
    assert!(
        !queue
            .dismiss(id(NOW_MS, 99), discarded.clone())
            .await
            .unwrap()
    );
    let stats = lane_stats(&*queue, "a").unwrap();
    assert_eq!((stats.waiting, stats.oldest_ms), (2, Some(NOW_MS + 1)));
    for queue in [queue.clone(), harness.killed(queue).await] {
        assert_eq!(requests(&claim_all(&*queue, "a").await), expected([1, 3]));
        let (found, _) = queue.get(id(NOW_MS, 0)).await.unwrap().unwrap();
        assert_eq!(found.verdict, Some(discarded.clone()));
    }
}

async fn an_operator_dismisses_what_is_parked(harness: &dyn Harness) {
    let queue = harness.queue().await;
    append_many(&*queue, "a", 0..3).await;
    let claimed = claim_all(&*queue, "a").await;
    settle(
        &*queue,
        claimed[..2].iter().map(|claimed| claimed.token),
        Outcome::Parked,
    )
    .await;
    settle(&*queue, [claimed[2].token], Outcome::Delivered).await;
    let queue = harness.killed(queue).await;
    assert_eq!(lane_stats(&*queue, "a").unwrap().parked, 2);
    let replayed = verdict(Outcome::Replayed);
    assert!(
        queue
            .dismiss(claimed[0].id, replayed.clone())
            .await
            .unwrap()
    );
    assert!(
        !queue
            .dismiss(claimed[0].id, replayed.clone())
            .await
            .unwrap()
    );
    assert!(
        !queue
            .dismiss(claimed[2].id, replayed.clone())
            .await
            .unwrap(),
        "delivered"
    );
    for queue in [queue.clone(), harness.killed(queue).await] {
        assert_eq!(lane_stats(&*queue, "a").unwrap().parked, 1);
        let (found, _) = queue.get(claimed[0].id).await.unwrap().unwrap();
        assert_eq!(found.verdict, Some(replayed.clone()));
        assert!(claim_all(&*queue, "a").await.is_empty());
    }
}

async fn a_claimed_entry_can_be_dismissed(harness: &dyn Harness) {
    let queue = harness.queue().await;
    append_many(&*queue, "a", 0..1).await;
    let claimed = claim_all(&*queue, "a").await.remove(0);
    let discarded = verdict(Outcome::Discarded);
    assert!(queue.dismiss(claimed.id, discarded.clone()).await.unwrap());
    queue.record_attempts(claimed.token, 3).await.unwrap();
    settle(&*queue, [claimed.token], Outcome::Delivered).await;
    let (found, _) = queue.get(claimed.id).await.unwrap().unwrap();
    assert_eq!(found.verdict, Some(discarded));
    assert_eq!(queue.stats().waiting, 0);
    assert!(queue.lanes().is_empty());
}

async fn settles_at_once_are_all_kept(harness: &dyn Harness) {
    let queue = harness.queue().await;
    append_many(&*queue, "a", 0..100).await;
    let claimed = claim_all(&*queue, "a").await;
    let settles = claimed
        .iter()
        .map(|claimed| queue.settle(vec![(claimed.token, verdict(Outcome::Delivered))]));
    for settled in futures_util::future::join_all(settles).await {
        settled.unwrap();
    }
    let queue = harness.killed(queue).await;
    assert_eq!(queue.stats().waiting, 0);
    let delivered = in_state(State::Settled(Outcome::Delivered));
    assert_eq!(found_serials(&*queue, &delivered).await.len(), 100);
}
