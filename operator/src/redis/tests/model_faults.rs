//! Faults of all kinds upon the model, with an operator that is late, fails, repeats itself and is replaced.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::model::World;
use crate::redis::*;

/// From the last fault until all is in order. A minute of bans and two of patience are in it.
const HEALED_WITHIN: u64 = 900;
/// Passes in a row that have nothing to do.
const CALM: u32 = 20;

#[derive(Debug, Clone)]
enum Fault {
    /// Down for so long; comes back with its volume, if it has one.
    Kill {
        place: usize,
        down: u64,
        moves: bool,
    },
    KillAll {
        down: u64,
        shuffle: bool,
    },
    LoseVolume {
        place: usize,
        moves: bool,
    },
    Isolate {
        place: usize,
        long: u64,
    },
    Hide {
        place: usize,
        long: u64,
    },
    NewRevision,
    NewOperator,
    SlowSync(u64),
    FailingSteps {
        percent: u32,
        long: u64,
    },
}

fn fault() -> impl Strategy<Value = Fault> {
    let place = 0..9usize;
    prop_oneof![
        (place.clone(), 0..300u64, any::<bool>()).prop_map(|(place, down, moves)| Fault::Kill {
            place,
            down,
            moves
        }),
        (0..40u64, any::<bool>()).prop_map(|(down, shuffle)| Fault::KillAll { down, shuffle }),
        (place.clone(), any::<bool>())
            .prop_map(|(place, moves)| Fault::LoseVolume { place, moves }),
        (place.clone(), 1..90u64).prop_map(|(place, long)| Fault::Isolate { place, long }),
        (place, 1..90u64).prop_map(|(place, long)| Fault::Hide { place, long }),
        Just(Fault::NewRevision),
        Just(Fault::NewOperator),
        (0..30u64).prop_map(Fault::SlowSync),
        (10..90u32, 5..60u64).prop_map(|(percent, long)| Fault::FailingSteps { percent, long }),
    ]
}

struct Run {
    world: World,
    memory: Memory,
    start: Instant,
    failing: (u32, u64),
    dice: u32,
    taken: Vec<String>,
}

impl Run {
    fn new(wanted: Wanted, dice: u32) -> Self {
        Self {
            world: World::new(wanted),
            memory: Memory::default(),
            start: Instant::now(),
            failing: (0, 0),
            dice,
            taken: Vec::new(),
        }
    }

    /// Deterministic, so that cases can be made smaller.
    fn roll(&mut self) -> u32 {
        self.dice = self
            .dice
            .wrapping_mul(1_664_525)
            .wrapping_add(1_013_904_223);
        (self.dice >> 16) % 100
    }

    /// A second; every other one has a pass.
    fn tick(&mut self) -> Option<Decision> {
        self.world.tick();
        if self.world.now % 2 == 1 {
            return None;
        }
        let seen = self.world.observe();
        let now = self.start + Duration::from_secs(self.world.now);
        let memory = std::mem::take(&mut self.memory);
        let decision = plan(&seen, &self.world.wanted.clone(), memory, now);
        for step in &decision.steps {
            if self.failing.1 > self.world.now && self.roll() < self.failing.0 {
                continue;
            }
            self.taken.push(format!("{} {step}", self.world.now));
            self.world.apply(step);
            if self.roll() < 10 {
                self.world.apply(step);
            }
        }
        self.memory = decision.memory.clone();
        Some(decision)
    }

    fn inject(&mut self, fault: &Fault) {
        let count = self.world.places.len();
        match *fault {
            Fault::Kill { place, down, moves } => {
                let place = place % count;
                // Without a volume that is the end of the data.
                if self.world.wanted.is_persistent || self.may_lose(place) {
                    self.world.kill(place, down, moves);
                }
            }
            Fault::KillAll { down, shuffle } if self.world.wanted.is_persistent => {
                let mut ips: Vec<u32> = self.world.places.iter().map(|place| place.ip).collect();
                ips.rotate_left(1);
                for (place, ip) in ips.into_iter().enumerate() {
                    self.world.kill(place, down, !shuffle);
                    if shuffle {
                        self.world.places[place].ip = ip;
                    }
                }
            }
            Fault::KillAll { .. } => {}
            Fault::LoseVolume { place, moves } => {
                let place = place % count;
                if self.may_lose(place) {
                    self.world.kill(place, 1, moves);
                    self.world.places[place].volume = None;
                }
            }
            Fault::Isolate { place, long } => {
                self.world.places[place % count].isolated_until = self.world.now + long;
            }
            Fault::Hide { place, long } => {
                self.world.places[place % count].hidden_until = self.world.now + long;
            }
            Fault::NewRevision => self.world.revision += 1,
            Fault::NewOperator => self.memory = Memory::default(),
            Fault::SlowSync(seconds) => self.world.sync_s = seconds,
            Fault::FailingSteps { percent, long } => {
                self.failing = (percent, self.world.now + long)
            }
        }
    }

    fn may_lose(&self, place: usize) -> bool {
        self.world.places[place].deleted_at.is_none() && self.world.is_safe_without(place)
    }

    /// Until nothing has been done for a while and all is in order.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        let (mut calm, mut last) = (0, None);
        for _ in 0..HEALED_WITHIN {
            if let Some(decision) = self.tick() {
                let summary = &decision.summary;
                let is_calm =
                    summary.is_healthy && summary.is_updated() && decision.steps.is_empty();
                calm = if is_calm { calm + 1 } else { 0 };
                last = Some(decision);
            }
            if calm >= CALM {
                return Ok(());
            }
        }
        let tail = self.taken.len().saturating_sub(30);
        Err(TestCaseError::fail(format!(
            "not whole: {:?}\n{}\n{:#?}",
            last.map(|decision| (decision.hold, decision.summary)),
            self.taken[tail..].join("\n"),
            self.world.places,
        )))
    }

    fn check(&self) -> Result<(), TestCaseError> {
        prop_assert!(
            self.world.wrongs.is_empty(),
            "{:?}\n{}",
            self.world.wrongs,
            self.taken.join("\n")
        );
        for (shard, keys) in &self.world.acknowledged {
            let owner = self
                .world
                .places
                .iter()
                .filter_map(|place| place.server.as_ref());
            let owner = owner
                .into_iter()
                .find(|server| server.claims == Some(*shard));
            let lost = owner.map_or(keys.len(), |owner| keys.difference(&owner.data).count());
            prop_assert_eq!(lost, 0, "of shard {}\n{}", shard, self.taken.join("\n"));
        }
        Ok(())
    }
}

fn live(wanted: Wanted, faults: &[(u64, Fault)], dice: u32) -> Result<(), TestCaseError> {
    let mut run = Run::new(wanted, dice);
    run.settle()?;
    for (pause, fault) in faults {
        run.inject(fault);
        for _ in 0..*pause {
            run.tick();
        }
        run.check_wrongs()?;
    }
    run.failing = (0, 0);
    run.world.sync_s = 2;
    run.settle()?;
    run.check()
}

impl Run {
    fn check_wrongs(&self) -> Result<(), TestCaseError> {
        prop_assert!(
            self.world.wrongs.is_empty(),
            "{:?}\n{}",
            self.world.wrongs,
            self.taken.join("\n")
        );
        Ok(())
    }
}

fn wanted(replicas: u32, is_persistent: bool) -> Wanted {
    Wanted {
        shape: Shape::Cluster {
            shards: 3,
            replicas,
        },
        is_persistent,
        may_lose_data: false,
    }
}

fn faults() -> impl Strategy<Value = Vec<(u64, Fault)>> {
    prop::collection::vec((1..120u64, fault()), 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24,
        max_shrink_iters: 60,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn with_volumes_and_replicas(replicas in 1..3u32, faults in faults(), dice: u32) {
        live(wanted(replicas, true), &faults, dice)?;
    }

    #[test]
    fn with_replicas_in_memory(replicas in 1..3u32, faults in faults(), dice: u32) {
        live(wanted(replicas, false), &faults, dice)?;
    }

    #[test]
    fn with_volumes_alone(faults in faults(), dice: u32) {
        live(wanted(0, true), &faults, dice)?;
    }
}

#[test]
fn everything_restarts_on_other_addresses() {
    for shuffle in [false, true] {
        let all = [(1, Fault::KillAll { down: 3, shuffle })];
        live(wanted(1, true), &all, 1).unwrap();
    }
}

/// An election while the only replica still waits for its first copy would make emptiness the truth.
#[test]
fn a_replica_without_a_copy_is_not_elected() {
    let faults = [
        (10, Fault::NewRevision),
        (1, Fault::Isolate { place: 0, long: 8 }),
    ];
    live(wanted(1, false), &faults, 0).unwrap();
}
