//! Several data planes on one server: who holds what, and what a stale holder may do.

use super::*;
use sluice_e2e::timing::{Promises, kept_in_one_run};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_shared_out_and_given_back() {
    kept_in_one_run(async || Ok(given_back().await))
        .await
        .unwrap();
}

async fn given_back() -> Promises {
    /// Before leases end by themselves.
    const TAKEN_WITHIN: Duration = Duration::from_secs(4);
    let server = RedisServer::start(Options::default()).await.unwrap();
    let seeds = seeds([&server]);
    let one = pod(&seeds, "g", "one", Durability::Group);
    holds_all(&one).await;
    one.append(entry(&one, "shop", "first")).await.unwrap();
    let two = pod(&seeds, "g", "two", Durability::Group);
    let three = pod(&seeds, "g", "three", Durability::Group);
    let even = || [&one, &two, &three].iter().all(|pod| pod.held().0 == 4);
    until("an even share", PATIENCE, even).await;
    // Entries from anywhere reach whoever holds their partition, in order.
    two.append(entry(&two, "shop", "second")).await.unwrap();
    three.append(entry(&three, "shop", "third")).await.unwrap();
    let lane = entry(&one, "shop", "").lane;
    let mut claimed = Vec::new();
    let began = Instant::now();
    while claimed.len() < 3 && began.elapsed() < PATIENCE {
        for pod in [&one, &two, &three] {
            claimed.extend(pod.claim(&lane, ALL).await.unwrap());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let requests: Vec<_> = claimed.iter().map(|entry| entry.request.clone()).collect();
    assert_eq!(requests, ["first", "second", "third"]);
    let closed = Instant::now();
    one.close().await;
    assert!(one.append(entry(&one, "shop", "late")).await.is_err());
    let even = || [&two, &three].iter().all(|pod| pod.held().0 == 6);
    until("what was given back is taken", PATIENCE, even).await;
    let taken = closed.elapsed();
    let figure = format!("taken after {taken:?} of {TAKEN_WITHIN:?}");
    Promises::new().expect(taken < TAKEN_WITHIN, figure)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_hands_is_in_nobodys_for_a_moment_only() {
    kept_in_one_run(async || Ok(changes_hands().await))
        .await
        .unwrap();
}

async fn changes_hands() -> Promises {
    /// Given back at one look, and taken at another, on a machine that does something else as well.
    const MOMENT: Duration = Duration::from_millis(500);
    let server = RedisServer::start(Options::default()).await.unwrap();
    let seeds = seeds([&server]);
    let one = pod(&seeds, "g", "one", Durability::Group);
    holds_all(&one).await;
    // Neither of them starts with a look of the other.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let two = pod(&seeds, "g", "two", Durability::Group);
    let delivers = |queue: &RedisQueue, partition: usize| {
        let held = queue.shared.parts[partition].held.lock();
        held.as_ref().is_some_and(|held| held.leaving.is_none())
    };
    let count = one.held().1;
    let mut since: Vec<Option<Instant>> = vec![None; count];
    let mut longest = Duration::ZERO;
    let began = Instant::now();
    while two.held().0 < count / 2 || since.iter().any(Option::is_some) {
        assert!(began.elapsed() < PATIENCE, "{:?}", two.held());
        for (partition, since) in since.iter_mut().enumerate() {
            if delivers(&one, partition) || delivers(&two, partition) {
                let waited = since.take().map(|since| since.elapsed());
                longest = longest.max(waited.unwrap_or_default());
            } else {
                since.get_or_insert_with(Instant::now);
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(!longest.is_zero(), "nothing changed hands");
    let figure = format!("nobody delivered for {longest:?} of {MOMENT:?}");
    Promises::new().expect(longest < MOMENT, figure)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stale_holder_changes_nothing() {
    let server = RedisServer::start(Options::default()).await.unwrap();
    let seeds = seeds([&server]);
    let one = pod(&seeds, "g", "one", Durability::Group);
    holds_all(&one).await;
    one.append(entry(&one, "shop", "request")).await.unwrap();
    let lane = entry(&one, "shop", "").lane;
    let claimed = one.claim(&lane, ALL).await.unwrap().remove(0);
    assert!(one.may_send(claimed.token));
    // As if it had stood still for longer than its leases last.
    for task in one.tasks.lock().drain(..) {
        task.abort();
    }
    let keys = &one.shared.keys[usize::from(lane.partition)];
    let lease = vec![keys.lease.clone()];
    let call = one
        .shared
        .cluster
        .command(keys.slot, "DEL", lease, Again::Safe);
    call.await.unwrap();
    let two = pod(&seeds, "g", "two", Durability::Group);
    let has = || {
        two.shared.parts[usize::from(lane.partition)]
            .held
            .lock()
            .is_some()
    };
    until("the partition is taken over", PATIENCE, has).await;
    until("it is read", PATIENCE, || !two.lanes().is_empty()).await;
    one.settle(vec![(claimed.token, delivered())])
        .await
        .unwrap();
    assert!(
        !one.may_send(claimed.token),
        "it has learned that it is replaced"
    );
    let again = two.claim(&lane, ALL).await.unwrap().remove(0);
    assert_eq!(again.id, claimed.id);
    let (found, _) = two.get(claimed.id).await.unwrap().unwrap();
    assert_eq!(found.verdict, None);
    // Any data plane can dismiss it, and its holder learns of it.
    let discarded = Verdict {
        outcome: Outcome::Discarded,
        ..delivered()
    };
    assert!(one.dismiss(claimed.id, discarded).await.unwrap());
    until("the holder knows", PATIENCE, || two.lanes().is_empty()).await;
    two.settle(vec![(again.token, delivered())]).await.unwrap();
    let (found, _) = two.get(claimed.id).await.unwrap().unwrap();
    assert_eq!(found.verdict.unwrap().outcome, Outcome::Discarded);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_emptied_server_is_used_again() {
    let server = RedisServer::start(Options::default()).await.unwrap();
    let seeds = seeds([&server]);
    let queue = pod(&seeds, "g", "one", Durability::Group);
    holds_all(&queue).await;
    queue.append(entry(&queue, "shop", "lost")).await.unwrap();
    let lane = entry(&queue, "shop", "").lane;
    server.call(&["FLUSHALL"]).await.unwrap();
    queue.append(entry(&queue, "shop", "kept")).await.unwrap();
    let mut claimed = Vec::new();
    let began = Instant::now();
    while claimed.is_empty() && began.elapsed() < PATIENCE {
        claimed = queue.claim(&lane, ALL).await.unwrap();
        claimed.retain(|entry| entry.request == "kept");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(claimed.len(), 1, "what came afterwards is delivered");
    queue
        .settle(vec![(claimed[0].token, delivered())])
        .await
        .unwrap();
    until("nothing waits", PATIENCE, || queue.stats().waiting == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_room_is_not_filled_up() {
    let options = Options {
        extra: vec![("maxmemory".into(), "8mb".into())],
        ..Options::default()
    };
    let server = RedisServer::start(options).await.unwrap();
    let queue = pod(&seeds([&server]), "g", "one", Durability::Group);
    holds_all(&queue).await;
    let mut state = 1_u64;
    let mut noise = || {
        let mut next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as u8
        };
        (0..20_000).map(|_| next()).collect::<Vec<u8>>()
    };
    let mut refused = None;
    for _ in 0..2_000 {
        if let Err(error) = queue.append(entry(&queue, "shop", noise())).await {
            refused = Some(error);
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(refused, Some(QueueError::Full));
    assert_eq!(
        queue.append(entry(&queue, "shop", noise())).await,
        Err(QueueError::Full)
    );
    // Verdicts and deletions go on, and make room.
    let lane = entry(&queue, "shop", "").lane;
    loop {
        let claimed = queue.claim(&lane, ALL).await.unwrap();
        if claimed.is_empty() {
            break;
        }
        let verdicts = claimed.iter().map(|entry| (entry.token, delivered()));
        queue.settle(verdicts.collect()).await.unwrap();
    }
    let horizon = Horizon {
        default: Duration::from_millis(1),
        by_application: Default::default(),
        budget_bytes: 1 << 30,
    };
    queue
        .trim(&horizon, crate::clock::unix_ms() + 10_000)
        .await
        .unwrap();
    assert_eq!(queue.stats().entries, 0);
    until("it accepts again", PATIENCE, || queue.stats().accepting).await;
    queue.append(entry(&queue, "shop", noise())).await.unwrap();
}
