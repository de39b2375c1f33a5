//! A disk that is full, or fails.

use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicI64};
use std::time::{Duration, Instant};

use super::*;

/// A disk with room for so many more bytes, and with an fsync that can fail.
struct Faulty {
    room: AtomicI64,
    sync_fails: AtomicBool,
    write_fails: AtomicBool,
}

impl Faulty {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            room: AtomicI64::new(i64::MAX / 2),
            sync_fails: AtomicBool::new(false),
            write_fails: AtomicBool::new(false),
        })
    }
}

impl Disk for Faulty {
    fn create(&self, path: &Path) -> io::Result<File> {
        RealDisk.create(path)
    }

    /// Writes what there is room for, as a disk does.
    fn write_at(&self, file: &File, data: &[u8], offset: u64) -> io::Result<()> {
        if self.write_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("broken"));
        }
        let room = self.room.fetch_sub(data.len() as i64, Ordering::SeqCst);
        if room < data.len() as i64 {
            self.room.store(0, Ordering::SeqCst);
            file.write_all_at(&data[..room.max(0) as usize], offset)?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        file.write_all_at(data, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        if self.sync_fails.load(Ordering::SeqCst) {
            return Err(io::Error::other("broken"));
        }
        RealDisk.sync(file)
    }

    fn cut(&self, file: &File, length: u64) -> io::Result<()> {
        RealDisk.cut(file, length)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        RealDisk.rename(from, to)
    }
}

fn open(local: &Local, dir: &Path, disk: &Arc<Faulty>) -> Arc<EmbeddedQueue> {
    EmbeddedQueue::open_on(dir, local.options, disk.clone()).unwrap()
}

/// Appends until it is refused; what was acknowledged.
async fn fill(queue: &EmbeddedQueue, mut serial: u64) -> Vec<u64> {
    let mut stored = Vec::new();
    loop {
        match queue.append(entry(serial, vec![serial as u8; 3_000])).await {
            Ok(()) => stored.push(serial),
            Err(QueueError::Unavailable(why)) => {
                assert!(why.starts_with("cannot write"), "{why}");
                return stored;
            }
            Err(QueueError::Full) => panic!("that is for the budget"),
        }
        serial += 1;
        assert!(serial < 10_000, "never full");
    }
}

async fn until_taken(queue: &EmbeddedQueue, serial: u64) {
    let due = Instant::now() + Duration::from_secs(40);
    while queue.append(entry(serial, "x")).await.is_err() {
        assert!(Instant::now() < due, "does not recover");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_full_disk_refuses_and_loses_nothing() {
    for durability in [Durability::Group, Durability::Memory] {
        let local = Local::new(QueueOptions {
            durability,
            ..OPTIONS
        });
        let disk = Faulty::new();
        let dir = local.fresh();
        let queue = open(&local, &dir, &disk);
        disk.room.store(10_000, Ordering::SeqCst);
        let mut stored = fill(&queue, 0).await;
        assert!(!stored.is_empty());
        assert!(!queue.stats().accepting);
        // While it is full, most refusals do not touch the disk.
        let refused = Instant::now();
        for _ in 0..1_000 {
            assert!(queue.append(entry(5_000, "x")).await.is_err());
        }
        assert!(refused.elapsed() < Duration::from_secs(20));
        let to = local.fresh();
        copy_files(&dir, &to);
        let after = EmbeddedQueue::open(&to, OPTIONS).unwrap();
        assert_eq!(
            serials(&claim_all(&after).await),
            stored,
            "killed while it is full"
        );
        disk.room.store(1 << 30, Ordering::SeqCst);
        until_taken(&queue, 6_000).await;
        stored.push(6_000);
        assert!(queue.stats().accepting);
        assert_eq!(serials(&claim_all(&queue).await), stored);
        drop(queue);
        let queue = open(&local, &dir, &disk);
        assert_eq!(serials(&claim_all(&queue).await), stored);
        assert_eq!(queue.damaged(), 0);
    }
}

#[tokio::test]
async fn a_failed_fsync_acknowledges_nothing_and_leaves_the_file() {
    let local = Local::new(OPTIONS);
    let disk = Faulty::new();
    let dir = local.fresh();
    let queue = open(&local, &dir, &disk);
    queue.append(entry(0, "x")).await.unwrap();
    disk.sync_fails.store(true, Ordering::SeqCst);
    assert!(queue.append(entry(1, "x")).await.is_err());
    tokio::time::sleep(limits::PROBE_PAUSE).await;
    assert!(queue.append(entry(2, "x")).await.is_err());
    disk.sync_fails.store(false, Ordering::SeqCst);
    until_taken(&queue, 3).await;
    assert_eq!(files(&dir, "log").len(), 2, "a new segment");
    assert_eq!(serials(&claim_all(&queue).await), [0, 3]);
    drop(queue);
    let queue = open(&local, &dir, &disk);
    assert_eq!(serials(&claim_all(&queue).await), [0, 3]);
}

#[tokio::test]
async fn a_failed_write_acknowledges_nothing() {
    let local = Local::new(OPTIONS);
    let disk = Faulty::new();
    let dir = local.fresh();
    let queue = open(&local, &dir, &disk);
    queue.append(entry(0, "x")).await.unwrap();
    disk.write_fails.store(true, Ordering::SeqCst);
    let appends = (1..20).map(|serial| queue.append(entry(serial, "x")));
    for appended in futures_util::future::join_all(appends).await {
        assert!(appended.is_err());
    }
    disk.write_fails.store(false, Ordering::SeqCst);
    until_taken(&queue, 20).await;
    assert_eq!(serials(&claim_all(&queue).await), [0, 20]);
}

#[tokio::test]
async fn verdicts_are_recorded_on_a_full_disk() {
    let local = Local::new(OPTIONS);
    let disk = Faulty::new();
    let dir = local.fresh();
    let queue = open(&local, &dir, &disk);
    let reserve = dir.join("queue/reserve");
    let due = Instant::now() + Duration::from_secs(40);
    while !reserve.exists() && Instant::now() < due {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for serial in 0..10 {
        queue.append(entry(serial, "x")).await.unwrap();
    }
    let claimed = claim_all(&queue).await;
    disk.room.store(0, Ordering::SeqCst);
    let settled = settle(&queue, &claimed[..4]);
    tokio::pin!(settled);
    // It waits for room; giving the reserve back makes some.
    let waits = tokio::time::timeout(Duration::from_millis(100), &mut settled).await;
    assert!(waits.is_err() && !reserve.exists());
    disk.room.store(1 << 20, Ordering::SeqCst);
    settled.await;
    let to = local.fresh();
    copy_files(&dir, &to);
    let after = EmbeddedQueue::open(&to, OPTIONS).unwrap();
    assert_eq!(
        serials(&claim_all(&after).await),
        (4..10).collect::<Vec<_>>()
    );
    disk.room.store(1 << 30, Ordering::SeqCst);
    let due = Instant::now() + Duration::from_secs(40);
    while !reserve.exists() && Instant::now() < due {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(reserve.exists(), "kept again");
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_full_disk() {
    let local = Local::new(OPTIONS);
    let disk = Faulty::new();
    let dir = local.fresh();
    let queue = open(&local, &dir, &disk);
    queue.append(entry(0, "x")).await.unwrap();
    let claimed = claim_all(&queue).await;
    disk.room.store(0, Ordering::SeqCst);
    let settling = {
        let (queue, token) = (queue.clone(), claimed[0].token);
        tokio::spawn(async move { queue.settle(vec![(token, delivered())]).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    tokio::task::spawn_blocking(move || queue.shutdown())
        .await
        .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(settling.await.unwrap(), Err(shutting_down()));
    let queue = EmbeddedQueue::open(&dir, OPTIONS).unwrap();
    assert_eq!(
        serials(&claim_all(&queue).await),
        [0],
        "what was not recorded is delivered again"
    );
}

#[tokio::test]
async fn compaction_on_a_full_disk_changes_nothing() {
    let local = Local::new(OPTIONS);
    let disk = Faulty::new();
    let dir = local.fresh();
    let queue = open(&local, &dir, &disk);
    for serial in 0..20 {
        queue
            .append(entry(serial, vec![serial as u8; 3_000]))
            .await
            .unwrap();
    }
    let claimed = claim_all(&queue).await;
    settle(&queue, &claimed[1..]).await;
    disk.room.store(0, Ordering::SeqCst);
    let keep = Horizon {
        default: Duration::from_secs(60),
        by_application: Default::default(),
        budget_bytes: 1 << 30,
    };
    queue.trim(&keep, NOW_MS + 10_000_000).await.unwrap();
    assert_eq!(queue.stats().entries, 20);
    let to = local.fresh();
    copy_files(&dir, &to);
    let after = EmbeddedQueue::open(&to, OPTIONS).unwrap();
    assert_eq!(serials(&claim_all(&after).await), [0]);
    disk.room.store(1 << 30, Ordering::SeqCst);
    queue.trim(&keep, NOW_MS + 10_000_000).await.unwrap();
    assert_eq!(queue.stats().entries, 1);
    assert_eq!(
        queue.load(&[claimed[0].token]).await.unwrap(),
        [Some(claimed[0].request.clone())]
    );
}
