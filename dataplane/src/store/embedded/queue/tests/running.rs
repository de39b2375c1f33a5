//! The running queue: contract, threads, lock, shutdown.

use std::collections::BTreeSet;

use super::*;

#[tokio::test]
async fn conforms() {
    conformance::run(&Local::new(OPTIONS)).await;
}

#[tokio::test]
async fn conforms_without_fsync() {
    let durability = Durability::Memory;
    conformance::run(&Local::new(QueueOptions {
        durability,
        ..OPTIONS
    }))
    .await;
}

#[tokio::test]
async fn conforms_with_small_segments() {
    // Segments of a megabyte: cases that fill megabytes go over several.
    let budget_bytes = 64 << 20;
    conformance::run(&Local::new(QueueOptions {
        budget_bytes,
        ..OPTIONS
    }))
    .await;
}

#[test]
fn a_directory_has_one_process() {
    let local = Local::new(OPTIONS);
    let dir = local.fresh();
    let queue = EmbeddedQueue::open(&dir, OPTIONS).unwrap();
    let second = EmbeddedQueue::open(&dir, OPTIONS).err().expect("refused");
    assert!(matches!(second, OpenError::InUse { .. }));
    assert!(
        second.to_string().ends_with("is in use by another process"),
        "{second}"
    );
    drop(queue);
    EmbeddedQueue::open(&dir, OPTIONS).unwrap();
}

#[tokio::test]
async fn shut_down_it_refuses_and_has_everything_on_disk() {
    let local = Local::new(OPTIONS);
    let dir = local.fresh();
    let queue = EmbeddedQueue::open(&dir, OPTIONS).unwrap();
    for serial in 0..20 {
        queue.append(entry(serial, "x")).await.unwrap();
    }
    let claimed = claim_all(&queue).await;
    settle(&queue, &claimed[..5]).await;
    queue.shutdown();
    queue.shutdown();
    let refused = Err(shutting_down());
    assert_eq!(queue.append(entry(21, "x")).await, refused);
    assert_eq!(
        queue.settle(vec![(claimed[9].token, delivered())]).await,
        refused
    );
    assert!(queue.find(&Filter::default(), None, 1).await.is_err());
    let keep = Horizon {
        default: std::time::Duration::from_secs(1),
        by_application: Default::default(),
        budget_bytes: 1 << 30,
    };
    assert_eq!(queue.trim(&keep, NOW_MS).await, refused);
    assert_eq!((files(&dir, "idx").len(), files(&dir, "chk").len()), (1, 1));
    let queue = EmbeddedQueue::open(&dir, OPTIONS).unwrap();
    assert_eq!(
        serials(&claim_all(&queue).await),
        (5..20).collect::<Vec<_>>()
    );
}

#[test]
fn callers_need_no_runtime_and_may_be_many() {
    const EACH: u64 = 500;
    let local = Local::new(OPTIONS);
    let queue = local.open(local.fresh());
    let taken = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for thread in 0..4 {
            let queue = &queue;
            scope.spawn(move || {
                for serial in 0..EACH {
                    let append = queue.append(entry(thread * EACH + serial, vec![7; 300]));
                    futures_util::FutureExt::now_or_never(async {}).unwrap();
                    block_on(append).unwrap();
                }
            });
        }
        for _ in 0..2 {
            let (queue, taken) = (&queue, &taken);
            scope.spawn(move || {
                while (taken.lock().len() as u64) < 4 * EACH {
                    let limits = ClaimLimits {
                        entries: 17,
                        bytes: 4_000,
                    };
                    let claimed = block_on(queue.claim(&lane(), limits)).unwrap();
                    block_on(settle(queue, &claimed));
                    taken.lock().extend(serials(&claimed));
                    thread::yield_now();
                }
            });
        }
    });
    let taken = taken.into_inner();
    assert_eq!(taken.len() as u64, 4 * EACH);
    assert_eq!(taken.iter().collect::<BTreeSet<_>>().len() as u64, 4 * EACH);
    assert_eq!(queue.stats().waiting, 0);
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(future)
}

#[tokio::test]
async fn an_append_that_nobody_waits_for_is_stored_whole_or_not() {
    let local = Local::new(OPTIONS);
    let queue = local.open(local.fresh());
    for serial in 0..50 {
        let append = queue.append(entry(serial, vec![1; 100]));
        // Polled once, then dropped.
        drop(tokio::time::timeout(std::time::Duration::ZERO, append).await);
    }
    queue.append(entry(50, vec![1; 100])).await.unwrap();
    let claimed = claim_all(&queue).await;
    assert!(claimed.iter().all(|claimed| claimed.request.len() == 100));
    assert_eq!(queue.stats().waiting, claimed.len() as u64);
}

#[tokio::test]
async fn what_is_too_large_is_refused() {
    let local = Local::new(OPTIONS);
    let queue = local.open(local.fresh());
    let large = queue.append(entry(0, vec![0; ENTRY_BYTES_MAX + 1])).await;
    assert!(matches!(large, Err(QueueError::Unavailable(_))));
    queue.append(entry(1, vec![0; 5 << 20])).await.unwrap();
    assert_eq!(claim_all(&queue).await[0].request.len(), 5 << 20);
}

#[tokio::test]
async fn the_disk_is_not_needed_for_what_was_just_written() {
    let local = Local::new(OPTIONS);
    let dir = local.fresh();
    let queue = local.open(dir.clone());
    for serial in 0..100 {
        queue.append(entry(serial, vec![1; 1_000])).await.unwrap();
    }
    for log in files(&dir, "log") {
        File::options()
            .write(true)
            .open(log)
            .unwrap()
            .set_len(0)
            .unwrap();
    }
    assert_eq!(claim_all(&queue).await.len(), 100);
}

#[tokio::test]
async fn ids_continue_above_what_is_stored() {
    let local = Local::new(OPTIONS);
    let dir = local.fresh();
    for clean in [true, false] {
        let queue = EmbeddedQueue::open(&dir, OPTIONS).unwrap();
        let new = entry(if clean { 50 } else { 70 }, "x");
        queue.append(new.clone()).await.unwrap();
        let to = local.fresh();
        copy_files(&dir, &to);
        drop(queue);
        let from = if clean { &dir } else { &to };
        let queue = EmbeddedQueue::open(from, OPTIONS).unwrap();
        assert!(queue.ids().next(NOW_MS) > new.id);
    }
}

#[tokio::test]
async fn what_came_one_by_one_is_compressed_together_later() {
    let local = Local::new(QueueOptions {
        budget_bytes: 64 << 20,
        ..OPTIONS
    });
    let dir = local.fresh();
    let queue = local.open(dir.clone());
    let mut state = 7_u64;
    let base: Vec<u8> = (0..8_000)
        .map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 40) as u8
        })
        .collect();
    let request = |serial: u64| [&serial.to_le_bytes(), &base[..]].concat();
    for serial in 0..140 {
        queue.append(entry(serial, request(serial))).await.unwrap();
    }
    let limits = ClaimLimits {
        entries: 100,
        bytes: usize::MAX,
    };
    let mut claimed = Vec::new();
    while claimed.len() < 100 {
        let entries = 100 - claimed.len();
        claimed.extend(
            queue
                .claim(&lane(), ClaimLimits { entries, ..limits })
                .await
                .unwrap(),
        );
    }
    settle(&queue, &claimed[..10]).await;
    let due = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while queue.stats().stored_bytes > 400_000 {
        assert!(std::time::Instant::now() < due, "{:?}", queue.stats());
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    // Whoever claimed entries before does not notice.
    let tokens: Vec<Token> = claimed[10..].iter().map(|claimed| claimed.token).collect();
    let loaded = queue.load(&tokens).await.unwrap();
    assert!(
        loaded
            .into_iter()
            .eq((10..100).map(|serial| Some(request(serial).into())))
    );
    settle(&queue, &claimed[10..50]).await;
    assert_eq!(
        serials(&claim_all(&queue).await),
        (100..140).collect::<Vec<_>>()
    );
    let found = queue
        .find(&Filter::default(), None, 1_000)
        .await
        .unwrap()
        .found;
    assert_eq!(
        found.iter().filter(|found| found.verdict.is_some()).count(),
        50
    );
    let to = local.fresh();
    copy_files(&dir, &to);
    assert_eq!(
        serials(&claim_all(&local.open(to)).await),
        (50..140).collect::<Vec<_>>()
    );
}
