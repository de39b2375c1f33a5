//! Searches.

use super::*;

pub(super) async fn run(harness: &dyn Harness) {
    entries_are_found_by_each_filter(harness).await;
    pages_join_without_gap(harness).await;
    replays_are_found(harness).await;
}

async fn entries_are_found_by_each_filter(harness: &dyn Harness) {
    let queue = harness.queue().await;
    append_many(&*queue, "a", 0..6).await;
    append_many(&*queue, "b", 6..9).await;
    append_many(&*queue, "a", 9..12).await;
    let claimed = claim_all(&*queue, "a").await;
    settle(
        &*queue,
        [claimed[0].token, claimed[7].token],
        Outcome::Delivered,
    )
    .await;
    settle(&*queue, [claimed[1].token], Outcome::Parked).await;
    for queue in [queue.clone(), harness.killed(queue).await] {
        let find = async |filter: Filter| found_serials(&*queue, &filter).await;
        assert_eq!(find(Filter::default()).await, (0..12).collect::<Vec<_>>());
        let application = Some("b".into());
        let of_b = Filter {
            application,
            ..Filter::default()
        };
        assert_eq!(find(of_b).await, [6, 7, 8]);
        let key = Some(Bytes::from_static(b"key-1"));
        let of_key = Filter {
            key,
            ..Filter::default()
        };
        assert_eq!(find(of_key.clone()).await, [1, 4, 7, 10]);
        let times = Filter {
            from_ms: Some(NOW_MS + 4),
            until_ms: Some(NOW_MS + 10),
            ..of_key
        };
        assert_eq!(find(times).await, [4, 7]);
        let delivered = in_state(State::Settled(Outcome::Delivered));
        assert_eq!(find(delivered).await, [0, 10]);
        assert_eq!(find(in_state(State::Settled(Outcome::Parked))).await, [1]);
        assert_eq!(
            find(in_state(State::Settled(Outcome::Replayed))).await,
            [0; 0]
        );
        let waiting = Filter {
            application: Some("a".into()),
            ..in_state(State::Waiting)
        };
        assert_eq!(find(waiting).await, [2, 3, 4, 5, 9, 11]);
        let none = Filter {
            application: Some("c".into()),
            ..Filter::default()
        };
        assert_eq!(find(none).await, [0; 0]);
        assert_eq!(queue.get(id(NOW_MS, 55)).await.unwrap(), None);
    }
}

async fn pages_join_without_gap(harness: &dyn Harness) {
    let queue = harness.queue().await;
    // Several in one millisecond, and not in order of ids.
    for serial in 0..60_u64 {
        let shuffled = serial ^ 3;
        let new = NewEntry {
            id: id(NOW_MS + shuffled / 7, shuffled),
            ..entry(["a", "b", "c"][serial as usize % 3], serial)
        };
        queue.append(new).await.unwrap();
    }
    for limit in [1, 2, 7, 59, 60, 61, 500] {
        let found = find_all(&*queue, &Filter::default(), limit).await;
        let serials: Vec<u64> = found.iter().map(|found| found.id.0 as u64).collect();
        assert_eq!(serials, (0..60).collect::<Vec<_>>(), "pages of {limit}");
    }
    let page = queue
        .find(&Filter::default(), Some(id(u64::MAX >> 16, 0)), 5)
        .await
        .unwrap();
    assert!(page.found.is_empty() && page.next.is_none());
}

async fn replays_are_found(harness: &dyn Harness) {
    let queue = harness.queue().await;
    append_many(&*queue, "a", 0..1).await;
    let claimed = claim_all(&*queue, "a").await.remove(0);
    settle(&*queue, [claimed.token], Outcome::Parked).await;
    let again = NewEntry {
        lane: Lane {
            replay: true,
            ..lane("a")
        },
        replay_of: Some(claimed.id),
        ..entry("a", 5)
    };
    queue.append(again.clone()).await.unwrap();
    assert!(
        queue
            .dismiss(claimed.id, verdict(Outcome::Replayed))
            .await
            .unwrap()
    );
    let of_a = Filter {
        application: Some("a".into()),
        ..Filter::default()
    };
    let found = find_all(&*queue, &of_a, 10).await;
    assert_eq!(found.len(), 2);
    let outcome = found[0].verdict.as_ref().map(|verdict| verdict.outcome);
    assert_eq!(outcome, Some(Outcome::Replayed));
    assert_eq!(
        (found[1].replay_of, found[1].lane.replay),
        (Some(claimed.id), true)
    );
}
