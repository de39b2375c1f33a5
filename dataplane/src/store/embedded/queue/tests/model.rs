//! Any sequence of calls, kills and restarts against a plain list.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::store::queue::State;

#[derive(Debug, Clone)]
enum Step {
    Append {
        lane: usize,
        count: usize,
        size: usize,
    },
    Claim {
        lane: usize,
        entries: usize,
        bytes: usize,
    },
    Settle {
        pick: usize,
        count: usize,
        parked: bool,
    },
    Attempts {
        pick: usize,
        attempts: u32,
    },
    Dismiss {
        pick: usize,
    },
    Kill,
    Close,
    Trim {
        hours: u64,
    },
    Find,
    Load {
        pick: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0_usize..3, 1_usize..12, prop_oneof![Just(0_usize), Just(50), Just(3_000), Just(40_000)])
            .prop_map(|(lane, count, size)| Step::Append { lane, count, size }),
        6 => (0_usize..3, 0_usize..20, 0_usize..100_000)
            .prop_map(|(lane, entries, bytes)| Step::Claim { lane, entries, bytes }),
        6 => (any::<usize>(), 1_usize..12, any::<bool>())
            .prop_map(|(pick, count, parked)| Step::Settle { pick, count, parked }),
        1 => (any::<usize>(), 1_u32..9).prop_map(|(pick, attempts)| Step::Attempts { pick, attempts }),
        2 => any::<usize>().prop_map(|pick| Step::Dismiss { pick }),
        1 => Just(Step::Kill),
        1 => Just(Step::Close),
        2 => (0_u64..4).prop_map(|hours| Step::Trim { hours }),
        1 => Just(Step::Find),
        1 => any::<usize>().prop_map(|pick| Step::Load { pick }),
    ];
    proptest::collection::vec(step, 1..60)
}

#[derive(Debug, Clone)]
struct Modelled {
    lane: usize,
    request: Bytes,
    attempts: u32,
    outcome: Option<Outcome>,
    claimed: Option<Token>,
}

struct Run {
    local: Local,
    dir: PathBuf,
    queue: Arc<EmbeddedQueue>,
    entries: BTreeMap<EntryId, Modelled>,
    next: u64,
    now_ms: u64,
}

fn lanes() -> [Lane; 3] {
    [
        lane(),
        Lane {
            replay: true,
            ..lane()
        },
        Lane {
            application: "b".into(),
            ..lane()
        },
    ]
}

impl Run {
    fn new() -> Self {
        let options = QueueOptions {
            durability: Durability::Memory,
            budget_bytes: 64 << 20,
        };
        let local = Local::new(options);
        let dir = local.fresh();
        let queue = local.open(dir.clone());
        Self {
            local,
            dir,
            queue,
            entries: BTreeMap::new(),
            next: 0,
            now_ms: NOW_MS,
        }
    }

    fn pick(&self, pick: usize, of: impl Fn(&Modelled) -> bool) -> Vec<EntryId> {
        let mut ids: Vec<EntryId> = self
            .entries
            .iter()
            .filter(|(_, entry)| of(entry))
            .map(|(id, _)| *id)
            .collect();
        if !ids.is_empty() {
            let start = pick % ids.len();
            ids.rotate_left(start);
        }
        ids
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Append { lane, count, size } => self.append(lane, count, size).await,
            Step::Claim {
                lane,
                entries,
                bytes,
            } => self.claim(lane, ClaimLimits { entries, bytes }).await,
            Step::Settle {
                pick,
                count,
                parked,
            } => self.settle(pick, count, parked).await,
            Step::Attempts { pick, attempts } => {
                let claimed = |entry: &Modelled| entry.claimed.is_some() && entry.outcome.is_none();
                if let Some(id) = self.pick(pick, claimed).first() {
                    let entry = self.entries.get_mut(id).unwrap();
                    entry.attempts = attempts;
                    let token = entry.claimed.unwrap();
                    self.queue.record_attempts(token, attempts).await.unwrap();
                }
            }
            Step::Dismiss { pick } => {
                if let Some(id) = self.pick(pick, |_| true).first() {
                    let verdict = Verdict {
                        outcome: Outcome::Discarded,
                        ..delivered()
                    };
                    let there = self.queue.dismiss(*id, verdict).await.unwrap();
                    let entry = self.entries.get_mut(id).unwrap();
                    let expected = matches!(entry.outcome, None | Some(Outcome::Parked));
                    assert_eq!(there, expected, "{entry:?}");
                    if there {
                        entry.outcome = Some(Outcome::Discarded);
                    }
                }
            }
            Step::Kill => {
                let to = self.local.fresh();
                copy_files(&self.dir, &to);
                self.reopen(to);
            }
            Step::Close => {
                self.queue.shutdown();
                self.reopen(self.dir.clone());
            }
            Step::Trim { hours } => self.trim(hours).await,
            Step::Find => self.find().await,
            Step::Load { pick } => {
                let claimed = |entry: &Modelled| entry.claimed.is_some() && entry.outcome.is_none();
                for id in self.pick(pick, claimed).iter().take(5) {
                    let entry = &self.entries[id];
                    let loaded = self.queue.load(&[entry.claimed.unwrap()]).await.unwrap();
                    assert_eq!(loaded, [Some(entry.request.clone())]);
                }
            }
        }
        self.check();
    }

    fn reopen(&mut self, dir: PathBuf) {
        self.queue = self.local.open(dir.clone());
        self.dir = dir;
        self.entries
            .values_mut()
            .for_each(|entry| entry.claimed = None);
        assert_eq!(self.queue.damaged(), 0);
    }

    async fn append(&mut self, lane: usize, count: usize, size: usize) {
        let new: Vec<NewEntry> = (0..count)
            .map(|_| {
                self.next += 1;
                let request: Vec<u8> = (0..size).map(|at| (at as u64 * self.next) as u8).collect();
                NewEntry {
                    lane: lanes()[lane].clone(),
                    ..entry(self.now_ms - NOW_MS + self.next, request)
                }
            })
            .collect();
        let appends = new.iter().map(|entry| self.queue.append(entry.clone()));
        for appended in futures_util::future::join_all(appends).await {
            appended.unwrap();
        }
        for entry in new {
            let modelled = Modelled {
                lane,
                request: entry.request,
                attempts: 0,
                outcome: None,
                claimed: None,
            };
            self.entries.insert(entry.id, modelled);
        }
    }

    async fn claim(&mut self, lane: usize, limits: ClaimLimits) {
        let claimed = self.queue.claim(&lanes()[lane], limits).await.unwrap();
        let bytes: usize = claimed.iter().map(|claimed| claimed.request.len()).sum();
        assert!(claimed.len() <= limits.entries);
        assert!(claimed.len() <= 1 || bytes <= limits.bytes);
        let next = |entry: &Modelled| {
            entry.lane == lane && entry.claimed.is_none() && entry.outcome.is_none()
        };
        let expected = self.pick(0, next);
        assert!(expected.is_empty() || limits.entries == 0 || !claimed.is_empty());
        for (claimed, id) in claimed
            .into_iter()
            .zip(expected.iter().chain([&EntryId(0)]))
        {
            assert_eq!(claimed.id, *id);
            let entry = self.entries.get_mut(id).unwrap();
            assert_eq!(claimed.request, entry.request);
            assert_eq!(claimed.attempts, entry.attempts);
            entry.claimed = Some(claimed.token);
        }
    }

    async fn settle(&mut self, pick: usize, count: usize, parked: bool) {
        let outcome = if parked {
            Outcome::Parked
        } else {
            Outcome::Delivered
        };
        let ids = self.pick(pick, |entry| entry.claimed.is_some());
        let mut verdicts = Vec::new();
        for id in ids.into_iter().take(count) {
            let entry = self.entries.get_mut(&id).unwrap();
            verdicts.push((
                entry.claimed.unwrap(),
                Verdict {
                    outcome,
                    ..delivered()
                },
            ));
            entry.outcome.get_or_insert(outcome);
        }
        self.queue.settle(verdicts).await.unwrap();
    }

    /// What is settled and not older must stay, and so must what waits; the rest may.
    async fn trim(&mut self, hours: u64) {
        self.now_ms += hours * 3_600_000;
        let keep = Horizon {
            default: Duration::from_secs(3_600),
            by_application: BTreeMap::from([("b".into(), Duration::from_secs(7_200))]),
            budget_bytes: 64 << 20,
        };
        self.queue.trim(&keep, self.now_ms).await.unwrap();
        let page = self.found().await;
        let now_ms = self.now_ms;
        self.entries.retain(|id, entry| {
            let time = if entry.lane == 2 {
                7_200_000
            } else {
                3_600_000
            };
            let may_go = entry.outcome.is_some() && id.accepted_ms() + time < now_ms;
            let there = page.contains_key(id);
            assert!(there || may_go, "{id} went");
            there
        });
    }

    async fn found(&self) -> BTreeMap<EntryId, Found> {
        let mut all = BTreeMap::new();
        let mut after = None;
        loop {
            let page = self
                .queue
                .find(&Filter::default(), after, 100)
                .await
                .unwrap();
            all.extend(page.found.into_iter().map(|found| (found.id, found)));
            after = page.next;
            if after.is_none() {
                return all;
            }
        }
    }

    async fn find(&self) {
        let found = self.found().await;
        assert!(found.keys().eq(self.entries.keys()));
        for (id, entry) in &self.entries {
            let outcome = found[id].verdict.as_ref().map(|verdict| verdict.outcome);
            assert_eq!(outcome, entry.outcome);
            assert_eq!(found[id].lane, lanes()[entry.lane]);
        }
        for state in [State::Waiting, State::Settled(Outcome::Parked)] {
            let filter = Filter {
                state: Some(state),
                ..Filter::default()
            };
            let page = self.queue.find(&filter, None, 1_000).await.unwrap();
            let expected = self
                .entries
                .values()
                .filter(|entry| entry.outcome.map_or(State::Waiting, State::Settled) == state);
            assert_eq!(page.found.len(), expected.count());
        }
    }

    fn check(&self) {
        let stats = self.queue.lanes();
        for (number, lane) in lanes().into_iter().enumerate() {
            let of = |entry: &&Modelled| entry.lane == number;
            let waiting = || {
                self.entries
                    .iter()
                    .filter(|(_, e)| of(e) && e.outcome.is_none())
            };
            let parked = self.entries.values().filter(of);
            let parked = parked
                .filter(|entry| entry.outcome == Some(Outcome::Parked))
                .count();
            let expected = (waiting().count() > 0 || parked > 0).then(|| LaneStats {
                lane: lane.clone(),
                waiting: waiting().count() as u64,
                waiting_bytes: waiting().map(|(_, entry)| entry.request.len() as u64).sum(),
                oldest_ms: waiting().next().map(|(id, _)| id.accepted_ms()),
                parked: parked as u64,
            });
            let stats = stats.iter().find(|stats| stats.lane == lane).cloned();
            // When nothing of the lane is at hand its age is found out a little later.
            let known = |stats: &LaneStats| LaneStats {
                oldest_ms: None,
                ..stats.clone()
            };
            assert_eq!(stats.as_ref().map(known), expected.as_ref().map(known));
            let oldest = |stats: Option<LaneStats>| stats.and_then(|stats| stats.oldest_ms);
            assert!(
                oldest(stats) <= oldest(expected),
                "never younger than it is"
            );
        }
        assert_eq!(self.queue.stats().entries, self.entries.len() as u64);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 300, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_the_model(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let mut run = Run::new();
            for step in steps {
                run.step(step).await;
            }
            run.find().await;
        });
    }
}
