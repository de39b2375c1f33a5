//! A process that is killed: this test binary, run again.

use std::collections::BTreeSet;
use std::env;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;

/// Says to the copy where its queue is; a normal run does not have it.
const DIR: &str = "SLUICE_TEST_QUEUE_DIR";

/// What the child says it was told: `a` and the serial of an append, `s` of a settled entry.
fn told(dir: &Path) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let text = fs::read_to_string(dir.join("told")).unwrap_or_default();
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    let of = |kind: char| {
        let lines = whole
            .lines()
            .filter_map(move |line| line.strip_prefix(kind));
        lines.map(|serial| serial.parse().unwrap()).collect()
    };
    (of('a'), of('s'))
}

/// Appends and settles until it is killed.
#[test]
fn child() {
    let Ok(dir) = env::var(DIR) else { return };
    let dir = PathBuf::from(dir);
    let begun = Instant::now();
    let options = QueueOptions {
        budget_bytes: 64 << 20,
        ..OPTIONS
    };
    let queue = EmbeddedQueue::open(&dir, options).unwrap();
    let told = File::options()
        .append(true)
        .create(true)
        .open(dir.join("told"))
        .unwrap();
    let tell = |kind: char, serial: u64| {
        (&told)
            .write_all(format!("{kind}{serial}\n").as_bytes())
            .unwrap()
    };
    let first = queue.ids().next(NOW_MS).accepted_ms() - NOW_MS + 1;
    let run = async {
        for round in 0.. {
            // Its parent may be gone.
            assert!(begun.elapsed() < Duration::from_secs(90));
            let appends = (0..20).map(|one| {
                let serial = first + round * 20 + one;
                let (queue, tell) = (&queue, &tell);
                async move {
                    queue
                        .append(entry(serial, vec![serial as u8; 2_000]))
                        .await
                        .unwrap();
                    tell('a', serial);
                }
            });
            futures_util::future::join_all(appends).await;
            let limits = ClaimLimits {
                entries: 15,
                bytes: usize::MAX,
            };
            for claimed in queue.claim(&lane(), limits).await.unwrap() {
                settle(&queue, std::slice::from_ref(&claimed)).await;
                tell('s', claimed.id.0 as u64);
            }
        }
    };
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(run);
}

#[tokio::test]
async fn a_killed_process_loses_nothing_and_repeats_little() {
    let local = Local::new(OPTIONS);
    let dir = local.fresh();
    fs::create_dir_all(&dir).unwrap();
    let (_, module) = module_path!().split_once("::").unwrap();
    for run in 1..=4_u32 {
        let before = told(&dir).1.len();
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", &format!("{module}::child")])
            .env(DIR, &dir)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let due = Instant::now() + Duration::from_secs(60);
        while told(&dir).1.len() < before + 50 && Instant::now() < due {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(37) * run).await;
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(told(&dir).1.len() >= before + 50, "the child did nothing");
    }
    let queue = EmbeddedQueue::open(&dir, OPTIONS).unwrap();
    assert_eq!(queue.damaged(), 0);
    let (acknowledged, settled) = told(&dir);
    let waiting: BTreeSet<u64> = serials(&claim_all(&queue).await).into_iter().collect();
    assert!(
        waiting.is_disjoint(&settled),
        "settled entries are not handed out again"
    );
    let mut stored = BTreeSet::new();
    let mut after = None;
    loop {
        let page = queue.find(&Filter::default(), after, 1_000).await.unwrap();
        stored.extend(page.found.iter().map(|found| found.id.0 as u64));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert!(
        acknowledged.is_subset(&stored),
        "acknowledged entries are there"
    );
    // Settled without being told of it: at most the one that was under way in each run.
    assert!(
        acknowledged
            .difference(&waiting)
            .filter(|serial| !settled.contains(serial))
            .count()
            <= 4
    );
    assert_eq!(queue.stats().waiting, waiting.len() as u64);
}
