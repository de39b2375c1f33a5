//! Append, claim, load.

use std::collections::BTreeSet;

use futures_util::future::join_all;

use super::*;

pub(super) async fn run(harness: &dyn Harness) {
    an_entry_keeps_all_its_fields(harness).await;
    entries_are_claimed_in_order_and_once(harness).await;
    order_holds_for_any_sizes(harness).await;
    lanes_are_separate(harness).await;
    limits_are_kept(harness).await;
    claims_at_once_share_out(harness).await;
    appends_at_once_are_all_stored(harness).await;
    changes_are_told(harness).await;
    requests_can_be_loaded_again(harness).await;
    what_was_not_settled_is_claimed_again(harness).await;
}

async fn an_entry_keeps_all_its_fields(harness: &dyn Harness) {
    let queue = harness.queue().await;
    let new = NewEntry {
        id: id(NOW_MS, u64::MAX),
        lane: lane("a"),
        key: Bytes::from_static(b"\0\xff key"),
        barrier: Bytes::from_static(b"old"),
        cost: 77,
        replay_of: Some(id(NOW_MS - 5, 3)),
        request: (0..=255).collect::<Vec<u8>>().into(),
    };
    queue.append(new.clone()).await.unwrap();
    for queue in [queue.clone(), harness.killed(queue).await] {
        let claimed = claim_all(&*queue, "a").await.remove(0);
        assert_eq!(claimed.id, new.id);
        assert_eq!((&claimed.key, &claimed.barrier), (&new.key, &new.barrier));
        assert_eq!((claimed.cost, claimed.attempts), (77, 0));
        assert_eq!(claimed.request, new.request);
        let (found, request) = queue.get(new.id).await.unwrap().unwrap();
        assert_eq!(request, new.request);
        let whole = Found {
            id: new.id,
            lane: new.lane.clone(),
            key: new.key.clone(),
            barrier: new.barrier.clone(),
            cost: 77,
            replay_of: new.replay_of,
            request_bytes: 256,
            verdict: None,
        };
        assert_eq!(found, whole);
    }
}

async fn entries_are_claimed_in_order_and_once(harness: &dyn Harness) {
    let queue = harness.queue().await;
    assert!(claim_all(&*queue, "a").await.is_empty());
    append_many(&*queue, "a", 0..10).await;
    assert_eq!(requests(&claim_all(&*queue, "a").await), expected(0..10));
    assert!(claim_all(&*queue, "a").await.is_empty());
    append_many(&*queue, "a", 10..12).await;
    assert_eq!(requests(&claim_all(&*queue, "a").await), expected(10..12));
}

async fn order_holds_for_any_sizes(harness: &dyn Harness) {
    let queue = harness.queue().await;
    let mut given = Vec::new();
    for serial in 0..200_u64 {
        let size = [0, 1, 100, 5_000, 70_000][serial as usize % 5];
        let mut new = entry("a", serial);
        new.request = vec![serial as u8; size].into();
        given.push(new.request.clone());
        queue.append(new).await.unwrap();
    }
    let mut claimed = Vec::new();
    while claimed.len() < given.len() {
        let limits = ClaimLimits {
            entries: 7,
            bytes: 200_000,
        };
        let some = queue.claim(&lane("a"), limits).await.unwrap();
        assert!(!some.is_empty());
        claimed.extend(some.into_iter().map(|claimed| claimed.request));
    }
    assert_eq!(claimed, given);
    let queue = harness.killed(queue).await;
    let again = claim_all(&*queue, "a").await.into_iter();
    assert_eq!(
        again.map(|claimed| claimed.request).collect::<Vec<_>>(),
        given
    );
}

async fn lanes_are_separate(harness: &dyn Harness) {
    let queue = harness.queue().await;
    let lanes = [
        lane("a"),
        lane("b"),
        lane(""),
        Lane {
            replay: true,
            ..lane("a")
        },
        Lane {
            partition: 3,
            ..lane("a")
        },
    ];
    for serial in 0..20 {
        let lane = lanes[serial as usize % 5].clone();
        let new = NewEntry {
            lane,
            ..entry("", serial)
        };
        queue.append(new).await.unwrap();
    }
    for queue in [queue.clone(), harness.killed(queue).await] {
        assert_eq!(queue.lanes().len(), 5);
        for (number, lane) in lanes.iter().enumerate() {
            let claimed = claim_lane(&*queue, lane).await;
            let serials = (0..20).filter(|serial| *serial as usize % 5 == number);
            assert_eq!(requests(&claimed), expected(serials));
        }
    }
}

async fn limits_are_kept(harness: &dyn Harness) {
    let queue = harness.queue().await;
    for serial in 0..6 {
        let request = vec![0; 1_000].into();
        let new = NewEntry {
            request,
            ..entry("a", serial)
        };
        queue.append(new).await.unwrap();
    }
    let claim = async |entries, bytes| {
        let limits = ClaimLimits { entries, bytes };
        queue.claim(&lane("a"), limits).await.unwrap().len()
    };
    assert_eq!(claim(0, 5_000).await, 0);
    assert_eq!(claim(2, 5_000).await, 2);
    assert_eq!(claim(9, 10).await, 1, "one goes out whatever its size");
    assert_eq!(claim(9, 2_500).await, 2);
    assert_eq!(claim(9, 2_000).await, 1, "the last one");
}

async fn claims_at_once_share_out(harness: &dyn Harness) {
    let queue = harness.queue().await;
    append_many(&*queue, "a", 0..100).await;
    let limits = ClaimLimits {
        entries: 10,
        bytes: usize::MAX,
    };
    let lane = lane("a");
    let claims = join_all((0..10).map(|_| queue.claim(&lane, limits))).await;
    let mut seen = BTreeSet::new();
    for claimed in claims {
        let claimed = claimed.unwrap();
        assert!(claimed.is_sorted_by_key(|claimed| claimed.id));
        for one in claimed {
            assert!(seen.insert(one.id), "handed out twice");
        }
    }
    let rest = claim_all(&*queue, "a").await;
    assert_eq!(seen.len() + rest.len(), 100);
}

async fn appends_at_once_are_all_stored(harness: &dyn Harness) {
    let queue = harness.queue().await;
    let appends = (0..300).map(|serial| {
        let application = ["a", "b"][serial as usize % 2];
        queue.append(entry(application, serial))
    });
    for appended in join_all(appends).await {
        appended.unwrap();
    }
    let queue = harness.killed(queue).await;
    let mut all = claim_all(&*queue, "a").await;
    all.extend(claim_all(&*queue, "b").await);
    let ids: BTreeSet<EntryId> = all.iter().map(|claimed| claimed.id).collect();
    assert_eq!((all.len(), ids.len()), (300, 300));
    assert_eq!(queue.stats().waiting, 300);
}

async fn changes_are_told(harness: &dyn Harness) {
    let queue = harness.queue().await;
    let mut changes = queue.changes();
    changes.borrow_and_update();
    assert!(!changes.has_changed().unwrap());
    queue.append(entry("a", 0)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(40), changes.changed())
        .await
        .expect("told of the append")
        .unwrap();
    assert_eq!(claim_all(&*queue, "a").await.len(), 1);
}

async fn requests_can_be_loaded_again(harness: &dyn Harness) {
    let queue = harness.queue().await;
    append_many(&*queue, "a", 0..50).await;
    let queue = harness.killed(queue).await;
    let claimed = claim_all(&*queue, "a").await;
    let backward: Vec<Token> = claimed.iter().rev().map(|claimed| claimed.token).collect();
    let loaded = queue.load(&backward).await.unwrap();
    let expected: Vec<Option<Bytes>> = claimed
        .iter()
        .rev()
        .map(|claimed| Some(claimed.request.clone()))
        .collect();
    assert_eq!(loaded, expected);
    assert!(queue.load(&[]).await.unwrap().is_empty());
}

async fn what_was_not_settled_is_claimed_again(harness: &dyn Harness) {
    let queue = harness.queue().await;
    append_many(&*queue, "a", 0..30).await;
    let claimed = claim_all(&*queue, "a").await;
    let even = claimed.iter().step_by(2).map(|claimed| claimed.token);
    settle(&*queue, even, Outcome::Delivered).await;
    let queue = harness.killed(queue).await;
    append_many(&*queue, "a", 30..33).await;
    let rest = claim_all(&*queue, "a").await;
    let odd = (0..30).filter(|serial| serial % 2 == 1);
    assert_eq!(requests(&rest), expected(odd.chain(30..33)));
    settle(
        &*queue,
        rest.iter().map(|claimed| claimed.token),
        Outcome::Delivered,
    )
    .await;
    let queue = harness.killed(queue).await;
    assert!(claim_all(&*queue, "a").await.is_empty());
    assert_eq!(queue.stats().waiting, 0);
}
