//! What a crash may leave, and damage.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

/// Requests of which some are compressed and some are not.
fn request(serial: u64) -> Vec<u8> {
    let length = [10, 200, 5_000][serial as usize % 3];
    (0..length)
        .map(|at: u64| (at * (serial + 1) / 3) as u8)
        .collect()
}

/// A log as a killed process leaves it, and how long it was after each append that was answered.
struct Log {
    local: Local,
    bytes: Vec<u8>,
    ends: Vec<u64>,
}

impl Log {
    fn new(entries: u64) -> Self {
        let local = Local::new(OPTIONS);
        let dir = local.fresh();
        let queue = local.open(dir.clone());
        let path = dir.join("queue/000000000001.log");
        let mut ends = Vec::new();
        block_on(async {
            for serial in 0..entries {
                queue.append(entry(serial, request(serial))).await.unwrap();
                ends.push(path.metadata().unwrap().len());
            }
        });
        let bytes = fs::read(path).unwrap();
        assert_eq!(ends.last(), Some(&(bytes.len() as u64)));
        Self { local, bytes, ends }
    }

    /// Opens a queue that has only that log, and takes what is in it.
    fn opened(&self, bytes: &[u8]) -> (Arc<EmbeddedQueue>, Vec<Claimed>) {
        let dir = self.local.fresh();
        fs::create_dir_all(dir.join("queue")).unwrap();
        fs::write(dir.join("queue/000000000001.log"), bytes).unwrap();
        let queue = self.local.open(dir);
        let claimed = block_on(claim_all(&queue));
        for claimed in &claimed {
            assert_eq!(claimed.request, request(claimed.id.0 as u64));
        }
        (queue, claimed)
    }
}

#[test]
fn a_cut_anywhere_loses_nothing_before_it() {
    let log = Log::new(12);
    for cut in 0..=log.bytes.len() {
        if cut % 7 != 0 && !log.ends.iter().any(|end| cut.abs_diff(*end as usize) < 3) {
            continue;
        }
        let whole = log.ends.iter().filter(|end| **end <= cut as u64).count() as u64;
        let (queue, claimed) = log.opened(&log.bytes[..cut]);
        assert_eq!(
            serials(&claimed),
            (0..whole).collect::<Vec<_>>(),
            "cut at {cut}"
        );
        assert_eq!(queue.stats().waiting, whole);
        assert_eq!(queue.damaged(), 0, "a torn tail is no damage");
        block_on(queue.append(entry(100, request(100)))).unwrap();
        assert_eq!(serials(&block_on(claim_all(&queue))), [100]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn garbage_behind_a_cut_loses_nothing_before_it(
        cut in 0.0..1.0_f64,
        garbage in proptest::collection::vec(any::<u8>(), 0..3_000),
        zeros in 0_usize..5_000,
    ) {
        let log = Log::new(12);
        let cut = (log.bytes.len() as f64 * cut) as usize;
        let mut bytes = log.bytes[..cut].to_vec();
        bytes.extend(garbage);
        bytes.extend(vec![0; zeros]);
        let whole = log.ends.iter().filter(|end| **end <= cut as u64).count() as u64;
        let (queue, claimed) = log.opened(&bytes);
        // A log that has lost its own beginning is put aside whole.
        prop_assert!(serials(&claimed) == (0..whole).collect::<Vec<_>>());
        block_on(queue.append(entry(100, request(100)))).unwrap();
    }

    #[test]
    fn flipped_bytes_lose_their_blocks_only(
        flips in proptest::collection::vec((0.0..1.0_f64, 1_u8..=255), 1..4),
        finished: bool,
    ) {
        let log = Log::new(12);
        let mut bytes = log.bytes.clone();
        let mut hit = BTreeSet::new();
        for (at, flip) in flips {
            // Not in the log's own header, of which there is a case of its own.
            let at = log::HEADER_BYTES + ((bytes.len() - log::HEADER_BYTES) as f64 * at) as usize;
            bytes[at] ^= flip;
            hit.insert(log.ends.iter().filter(|end| **end <= at as u64).count() as u64);
        }
        let kept: Vec<u64> = (0..12).filter(|serial| !hit.contains(serial)).collect();
        if finished {
            // Damaged after the segment was finished: the index knows nothing of it.
            let dir = log.local.fresh();
            fs::create_dir_all(dir.join("queue")).unwrap();
            let path = dir.join("queue/000000000001.log");
            fs::write(&path, &log.bytes).unwrap();
            drop(EmbeddedQueue::open(&dir, OPTIONS).unwrap());
            prop_assert_eq!(files(&dir, "idx").len(), 1);
            fs::write(&path, &bytes).unwrap();
            let queue = EmbeddedQueue::open(&dir, OPTIONS).unwrap();
            prop_assert_eq!(serials(&block_on(claim_all(&queue))), kept.clone());
            prop_assert!(queue.damaged() >= 1);
            // Upkeep rewrites the segment, and then the counts are right.
            let due = std::time::Instant::now() + Duration::from_secs(40);
            while queue.stats().waiting != kept.len() as u64 && std::time::Instant::now() < due {
                thread::sleep(Duration::from_millis(5));
            }
            prop_assert_eq!(queue.stats().waiting, kept.len() as u64);
            prop_assert_eq!(queue.stats().entries, kept.len() as u64);
        } else {
            let (queue, claimed) = log.opened(&bytes);
            prop_assert_eq!(serials(&claimed), kept.clone());
            prop_assert_eq!(queue.stats().waiting, kept.len() as u64);
            let middle = hit.iter().any(|hit| kept.last().is_some_and(|last| hit < last));
            prop_assert_eq!(queue.damaged() > 0, middle);
        }
    }

    #[test]
    fn verdicts_survive_a_cut_behind_them(
        cut in 0.0..1.0_f64,
        garbage in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let local = Local::new(OPTIONS);
        let dir = local.fresh();
        let queue = local.open(dir.clone());
        let path = dir.join("queue/000000000001.ver");
        let ends = block_on(async {
            for serial in 0..10 {
                queue.append(entry(serial, request(serial))).await.unwrap();
            }
            let mut ends = Vec::new();
            for claimed in claim_all(&queue).await {
                settle(&queue, &[claimed]).await;
                ends.push(path.metadata().unwrap().len());
            }
            ends
        });
        let to = local.fresh();
        copy_files(&dir, &to);
        let copy = to.join("queue/000000000001.ver");
        let mut bytes = fs::read(&copy).unwrap();
        let cut = (bytes.len() as f64 * cut) as usize;
        bytes.truncate(cut);
        bytes.extend(garbage);
        fs::write(&copy, bytes).unwrap();
        drop(fs::remove_file(to.join("queue/000000000001.chk")));
        let queue = local.open(to);
        let settled = ends.iter().filter(|end| **end <= cut as u64).count() as u64;
        let claimed = block_on(claim_all(&queue));
        prop_assert_eq!(serials(&claimed), (settled..10).collect::<Vec<_>>());
        // And what is recorded now is kept.
        block_on(settle(&queue, &claimed));
        queue.shutdown();
        prop_assert_eq!(queue.stats().waiting, 0);
    }
}

#[test]
fn a_log_without_its_header_is_put_aside() {
    let log = Log::new(3);
    let mut bytes = log.bytes.clone();
    bytes[10] ^= 1;
    let (queue, claimed) = log.opened(&bytes);
    assert!(claimed.is_empty());
    assert_eq!(queue.damaged(), 1);
}

#[test]
fn a_later_version_is_refused() {
    let log = Log::new(1);
    let header = log::Header {
        version: log::VERSION + 1,
        seq: 1,
        segment: 9,
        generation: 0,
        created_ms: 0,
    };
    let mut bytes = header.encode();
    bytes.extend_from_slice(&log.bytes[log::HEADER_BYTES..]);
    let dir = log.local.fresh();
    fs::create_dir_all(dir.join("queue")).unwrap();
    fs::write(dir.join("queue/000000000001.log"), bytes).unwrap();
    let error = EmbeddedQueue::open(&dir, OPTIONS).err().unwrap();
    assert!(matches!(error, OpenError::Version { .. }), "{error}");
}

#[test]
fn what_a_request_looks_like_is_no_block() {
    // A request that is a log itself, in a log whose blocks before it are damaged.
    let inner = Log::new(5);
    let local = Local::new(OPTIONS);
    let dir = local.fresh();
    let queue = local.open(dir.clone());
    block_on(async {
        for serial in 0..3 {
            queue
                .append(entry(serial, inner.bytes.clone()))
                .await
                .unwrap();
        }
    });
    let to = local.fresh();
    copy_files(&dir, &to);
    let path = to.join("queue/000000000001.log");
    let file = File::options().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 40], log::HEADER_BYTES as u64)
        .unwrap();
    let queue = local.open(to);
    assert_eq!(serials(&block_on(claim_all(&queue))), [1, 2]);
}

/// Many small entries over several finished segments; some settled.
fn several_segments() -> (Local, PathBuf, Vec<u64>) {
    let options = QueueOptions {
        durability: Durability::Memory,
        budget_bytes: 64 << 20,
    };
    let local = Local::new(options);
    let dir = local.fresh();
    let queue = local.open(dir.clone());
    let waiting = block_on(async {
        for from in (0..1_000).step_by(50) {
            let appends = (from..from + 50).map(|serial| {
                let mut state: u64 = serial;
                let mut request = vec![0; 5_000];
                request.fill_with(|| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    (state >> 40) as u8
                });
                queue.append(entry(serial, request))
            });
            for appended in futures_util::future::join_all(appends).await {
                appended.unwrap();
            }
        }
        let claimed = claim_all(&queue).await;
        let (done, waiting): (Vec<_>, Vec<_>) = claimed
            .into_iter()
            .partition(|claimed| claimed.id.0 as u64 % 100 < 90);
        settle(&queue, &done).await;
        serials(&waiting)
    });
    (local, dir, waiting)
}

#[test]
fn finished_segments_are_opened_without_their_logs() {
    let (local, dir, waiting) = several_segments();
    let logs = files(&dir, "log");
    assert!(logs.len() >= 4, "{}", logs.len());
    let to = local.fresh();
    // As shut down: everything has an index and a checkpoint.
    copy_files(&dir, &to);
    drop(local.open(to.clone()));
    assert_eq!(files(&to, "idx").len(), logs.len());
    // Heads and bodies are not read but for the first waiting entry of the lane, in the first log.
    for log in &files(&to, "log")[1..] {
        let length = log.metadata().unwrap().len();
        let header = fs::read(log).unwrap()[..log::HEADER_BYTES].to_vec();
        let file = File::create(log).unwrap();
        file.write_all_at(&header, 0).unwrap();
        file.set_len(length).unwrap();
    }
    let queue = local.open(to);
    assert_eq!(queue.stats().waiting, waiting.len() as u64);
    assert_eq!(queue.stats().entries, 1_000);
    assert_eq!(queue.damaged(), 0);
}

#[test]
fn lost_indexes_and_checkpoints_are_made_again() {
    let (local, dir, waiting) = several_segments();
    for lost in [&["idx"][..], &["chk"], &["idx", "chk"]] {
        let to = local.fresh();
        copy_files(&dir, &to);
        drop(local.open(to.clone()));
        for extension in lost {
            for file in files(&to, extension) {
                fs::remove_file(file).unwrap();
            }
        }
        let queue = local.open(to);
        assert_eq!(
            serials(&block_on(claim_all(&queue))),
            waiting,
            "without {lost:?}"
        );
        assert_eq!(queue.stats().waiting, waiting.len() as u64);
    }
}

#[test]
fn compaction_leaves_what_must_stay_whenever_it_is_killed() {
    let (local, dir, waiting) = several_segments();
    let keep = Horizon {
        default: Duration::from_secs(60),
        by_application: Default::default(),
        budget_bytes: 64 << 20,
    };
    let before = local.fresh();
    copy_files(&dir, &before);
    let after = local.fresh();
    copy_files(&dir, &after);
    let queue = local.open(after.clone());
    block_on(queue.trim(&keep, NOW_MS + 10_000_000)).unwrap();
    assert_eq!(queue.stats().entries, waiting.len() as u64);
    assert!(queue.stats().stored_bytes < 2 << 20, "{:?}", queue.stats());
    queue.shutdown();
    let claimed = serials(&block_on(claim_all(&local.open(after.clone()))));
    assert_eq!(claimed, waiting);
    // Killed between any two of its steps: a mixture of files from before and from after.
    for kinds in [
        &["log"][..],
        &["log", "idx"],
        &["log", "ver"],
        &["log", "idx", "ver"],
    ] {
        let mixed = local.fresh();
        copy_files(&before, &mixed);
        for kind in kinds {
            for file in files(&after, kind) {
                fs::copy(&file, mixed.join("queue").join(file.file_name().unwrap())).unwrap();
            }
        }
        let queue = local.open(mixed);
        assert_eq!(
            serials(&block_on(claim_all(&queue))),
            waiting,
            "new: {kinds:?}"
        );
        assert_eq!(queue.stats().entries, waiting.len() as u64);
        assert_eq!(queue.damaged(), 0);
    }
}

#[test]
fn files_without_a_log_and_unfinished_ones_are_removed() {
    let local = Local::new(OPTIONS);
    let dir = local.fresh();
    fs::create_dir_all(dir.join("queue")).unwrap();
    for name in [
        "000000000007.ver",
        "000000000007.idx",
        "000000000008.log.new",
        "000000000009.log",
    ] {
        fs::write(dir.join("queue").join(name), "x").unwrap();
    }
    let queue = local.open(dir.clone());
    block_on(queue.append(entry(1, "x"))).unwrap();
    let logs = files(&dir, "log");
    assert_eq!(logs.len(), 1);
    assert!(
        logs[0].ends_with("000000000010.log"),
        "numbers are not used again: {logs:?}"
    );
    assert!(files(&dir, "ver").is_empty() && files(&dir, "new").is_empty());
}
