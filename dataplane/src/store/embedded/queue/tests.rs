use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicUsize;

use tempfile::TempDir;

use super::*;
use crate::store::conformance::queue::{self as conformance, address};
use crate::store::queue::Outcome;

mod faults;
mod formats;
mod killing;
mod model;
mod recovering;
mod running;

const OPTIONS: QueueOptions = QueueOptions {
    durability: Durability::Group,
    budget_bytes: 1 << 30,
};

/// Queues in directories below one that goes with the test.
struct Local {
    dir: TempDir,
    made: AtomicUsize,
    options: QueueOptions,
    /// Where a queue is, by its address.
    places: Mutex<HashMap<usize, PathBuf>>,
}

impl Local {
    fn new(options: QueueOptions) -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            made: AtomicUsize::new(0),
            options,
            places: Mutex::default(),
        }
    }

    fn fresh(&self) -> PathBuf {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        self.dir.path().join(number.to_string())
    }

    fn open(&self, dir: PathBuf) -> Arc<EmbeddedQueue> {
        let queue = EmbeddedQueue::open(&dir, self.options).unwrap();
        self.places.lock().insert(address(&queue), dir);
        queue
    }
}

/// What a process that is killed leaves: the files as they are.
fn copy_files(from: &Path, to: &Path) {
    let (from, to) = (from.join("queue"), to.join("queue"));
    fs::create_dir_all(&to).unwrap();
    // Logs last: an entry may be copied without its verdict, but no verdict without its entry.
    let mut files: Vec<PathBuf> = fs::read_dir(&from)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort_by_key(|path| path.extension().is_some_and(|extension| extension == "log"));
    for file in files {
        match fs::copy(&file, to.join(file.file_name().unwrap())) {
            Ok(_) => {}
            // Upkeep goes on meanwhile.
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::NotFound),
        }
    }
}

#[async_trait]
impl conformance::Harness for Local {
    async fn queue(&self) -> Arc<dyn Queue> {
        self.open(self.fresh())
    }

    async fn killed(&self, queue: Arc<dyn Queue>) -> Arc<dyn Queue> {
        let from = self.places.lock()[&address(&queue)].clone();
        let to = self.fresh();
        copy_files(&from, &to);
        self.open(to)
    }
}

fn lane() -> Lane {
    Lane {
        partition: 0,
        application: "a".into(),
        replay: false,
    }
}

const NOW_MS: u64 = 1_800_000_000_000;

fn entry(serial: u64, request: impl Into<Bytes>) -> NewEntry {
    NewEntry {
        id: EntryId(u128::from(NOW_MS + serial) << 80 | u128::from(serial)),
        lane: lane(),
        key: format!("key-{}", serial % 7).into(),
        barrier: Bytes::new(),
        cost: 1,
        replay_of: None,
        request: request.into(),
    }
}

fn delivered() -> Verdict {
    Verdict {
        outcome: Outcome::Delivered,
        reason: Arc::default(),
        http_status: 200,
        attempts: 1,
        upstream: "main".into(),
        at_ms: NOW_MS,
    }
}

const ALL: ClaimLimits = ClaimLimits {
    entries: usize::MAX,
    bytes: usize::MAX,
};

async fn claim_all(queue: &EmbeddedQueue) -> Vec<Claimed> {
    let mut all = Vec::new();
    loop {
        let some = queue.claim(&lane(), ALL).await.unwrap();
        if some.is_empty() {
            return all;
        }
        all.extend(some);
    }
}

fn serials(claimed: &[Claimed]) -> Vec<u64> {
    claimed.iter().map(|claimed| claimed.id.0 as u64).collect()
}

async fn settle(queue: &EmbeddedQueue, claimed: &[Claimed]) {
    let verdicts = claimed.iter().map(|claimed| (claimed.token, delivered()));
    queue.settle(verdicts.collect()).await.unwrap();
}

fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir.join("queue"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|of| of == extension))
        .collect();
    files.sort();
    files
}
