//! Publishing while servers die, stop and change roles: every acknowledged publication of a channel with history is
//! delivered exactly once and in order, or its loss is told; without history publications keep flowing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use sluice_e2e::redis::{Options, RedisCluster};
use sluice_e2e::timing::{Promises, kept_in_one_run};

use super::{Process, TURN, fresh_gateway, seeds, settings};
use crate::relay::channel::Channel;
use crate::relay::protocol::Position;
use crate::store::{
    Broker, Event, EventSink, NewPublication, PublishOptions, ReadOptions, Retention,
};

const CHANNELS: u64 = 24;
const PER_SECOND: u64 = 200;
/// How soon publishing with history goes on after the servers' failover; with the pause between two publications.
const BACK_WITHIN: Duration = Duration::from_millis(1_200);
/// No silence is longer where no failover is waited for.
const GAP_MAX: Duration = Duration::from_secs(1);
/// For Redis's own failover, and for what was published last to arrive, on a machine that has no time.
const PATIENCE: Duration = Duration::from_secs(30);

fn kept(index: u64) -> Channel {
    Channel::new("a", &format!("kept-{index}"))
}

fn plain(index: u64) -> Channel {
    Channel::new("a", &format!("plain-{index}"))
}

#[derive(Default)]
struct Seen {
    /// Numbers of the publications, and `None` where a loss was told.
    events: Vec<Option<u64>>,
    at: Vec<Instant>,
    last: Option<Position>,
}

/// Checks positions as the hub does, and remembers the numbers.
#[derive(Default)]
struct Witness {
    channels: Mutex<HashMap<Channel, Seen>>,
    broken: Mutex<Vec<String>>,
}

impl EventSink for Witness {
    fn deliver(&self, channel: &Channel, event: Event) {
        let mut channels = self.channels.lock();
        let seen = channels.entry(channel.clone()).or_default();
        match event {
            Event::Publication {
                publication,
                position,
                ..
            } => {
                let number = std::str::from_utf8(&publication.data).unwrap();
                seen.events.push(Some(number.parse().unwrap()));
                seen.at.push(Instant::now());
                if let (Some(last), Some(now)) = (&seen.last, &position)
                    && (last.epoch != now.epoch || last.offset + 1 != now.offset)
                {
                    let problem = format!("{channel:?}: {last:?} then {now:?}");
                    self.broken.lock().push(problem);
                }
                seen.last = position;
            }
            Event::Lost => {
                seen.events.push(None);
                seen.last = None;
            }
            Event::Join(_) | Event::Leave(_) => {}
        }
    }
}

#[derive(Default)]
struct Published {
    /// By channel: the numbers that were acknowledged.
    acknowledged: Mutex<HashMap<Channel, Vec<u64>>>,
    errors: AtomicU64,
    is_over: AtomicBool,
}

struct Rig {
    cluster: RedisCluster,
    publisher: Process,
    subscriber: Process,
    witness: Arc<Witness>,
    published: Arc<Published>,
}

impl Rig {
    async fn start() -> Self {
        let options = Options {
            node_timeout_ms: 2_000,
            ..Options::default()
        };
        let cluster = RedisCluster::start(3, 1, options).await.unwrap();
        let gateway = fresh_gateway();
        let witness = Arc::new(Witness::default());
        let nobody = Arc::new(Witness::default());
        let publisher = Process::start(settings(seeds(cluster.nodes()), &gateway), nobody).await;
        let of_witness = settings(seeds(cluster.nodes()), &gateway);
        let subscriber = Process::start(of_witness, witness.clone()).await;
        for index in 0..CHANNELS {
            for channel in [kept(index), plain(index)] {
                subscriber.broker.subscribe(&channel).await.unwrap();
            }
            let options = ReadOptions {
                limit: Some(0),
                ..ReadOptions::default()
            };
            let broker = &subscriber.broker;
            broker
                .read(&kept(index), retention(), options)
                .await
                .unwrap();
        }
        Self {
            cluster,
            publisher,
            subscriber,
            witness,
            published: Arc::default(),
        }
    }

    /// Publishes in every channel, one after the other, each number once.
    fn publish(&self) -> Vec<tokio::task::JoinHandle<()>> {
        let channels = (0..CHANNELS).flat_map(|index| [(kept(index), true), (plain(index), false)]);
        let task = |(channel, has_history): (Channel, bool)| {
            let broker = Arc::clone(&self.publisher.broker);
            let published = Arc::clone(&self.published);
            tokio::spawn(async move {
                let pause = Duration::from_millis(1_000 * CHANNELS / PER_SECOND);
                let options = PublishOptions {
                    history: has_history.then(retention),
                    ..PublishOptions::default()
                };
                for number in 0.. {
                    if published.is_over.load(Ordering::Relaxed) {
                        return;
                    }
                    let publication = NewPublication {
                        data: number.to_string().into(),
                        ..NewPublication::default()
                    };
                    let outcome = broker.publish(&channel, publication, options.clone()).await;
                    if outcome.is_ok() {
                        let mut acknowledged = published.acknowledged.lock();
                        acknowledged
                            .entry(channel.clone())
                            .or_default()
                            .push(number);
                    } else {
                        published.errors.fetch_add(1, Ordering::Relaxed);
                    }
                    tokio::time::sleep(pause).await;
                }
            })
        };
        channels.map(task).collect()
    }

    /// How long the server's own failover took.
    async fn taken_over(&self, old: usize) -> Duration {
        let since = Instant::now();
        let taken = self.cluster.wait_taken_over(1, old, PATIENCE).await;
        taken.unwrap();
        println!("failover seen after {:?}", since.elapsed());
        since.elapsed()
    }

    async fn stop(&self, tasks: Vec<tokio::task::JoinHandle<()>>) {
        self.published.is_over.store(true, Ordering::Relaxed);
        for task in tasks {
            task.await.unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        while !self.has_all() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // For what comes twice.
        tokio::time::sleep(Duration::from_secs(1)).await;
    }

    /// Whether what was acknowledged last has arrived in every channel.
    fn has_all(&self) -> bool {
        let acknowledged = self.published.acknowledged.lock();
        let channels = self.witness.channels.lock();
        acknowledged.iter().all(|(channel, numbers)| {
            let seen = channels.get(channel);
            seen.and_then(|seen| seen.events.last())
                .is_some_and(|event| event.is_none() || *event >= numbers.last().copied())
        })
    }

    fn check(&self, fault: &str) -> Report {
        assert_eq!(*self.witness.broken.lock(), Vec::<String>::new());
        let mut report = Report::default();
        let acknowledged = self.published.acknowledged.lock();
        let channels = self.witness.channels.lock();
        for index in 0..CHANNELS {
            let (channel, seen) = (kept(index), &channels[&kept(index)]);
            report.lost += seen.events.iter().filter(|event| event.is_none()).count();
            exactly_once_or_told(&seen.events, &acknowledged[&channel])
                .unwrap_or_else(|problem| panic!("{fault}: {channel:?}: {problem}"));
            report.kept_gap = report.kept_gap.max(longest_gap(&seen.at));
            let (channel, seen) = (plain(index), &channels[&plain(index)]);
            let numbers: Vec<u64> = seen.events.iter().flatten().copied().collect();
            assert!(numbers.is_sorted_by(|a, b| a < b), "{fault}: {channel:?}");
            let is_missing = |number: &&u64| numbers.binary_search(number).is_err();
            report.plain_missing += acknowledged[&channel].iter().filter(is_missing).count();
            report.plain_gap = report.plain_gap.max(longest_gap(&seen.at));
            report.acknowledged += acknowledged[&kept(index)].len();
        }
        let errors = self.published.errors.load(Ordering::Relaxed);
        println!(
            "{fault}: {report:?}, {errors} errors, subscriber {:?}",
            self.subscriber.metrics
        );
        report
    }
}

#[derive(Debug, Default)]
struct Report {
    acknowledged: usize,
    lost: usize,
    plain_missing: usize,
    kept_gap: Duration,
    plain_gap: Duration,
}

fn retention() -> Retention {
    Retention {
        size: 100,
        ttl: Duration::from_secs(300),
    }
}

fn longest_gap(at: &[Instant]) -> Duration {
    at.windows(2)
        .map(|pair| pair[1] - pair[0])
        .max()
        .unwrap_or_default()
}

/// Between two told losses, all acknowledged numbers in order and nothing twice; a loss may swallow some around it.
fn exactly_once_or_told(events: &[Option<u64>], acknowledged: &[u64]) -> Result<(), String> {
    let has_losses = events.iter().any(Option::is_none);
    for part in events.split(Option::is_none) {
        let numbers: Vec<u64> = part.iter().flatten().copied().collect();
        if !numbers.is_sorted_by(|a, b| a < b) {
            return Err(format!("not in order: {numbers:?}"));
        }
        let (Some(first), Some(last)) = (numbers.first(), numbers.last()) else {
            continue;
        };
        let (from, to) = match has_losses {
            true => (*first, *last),
            false => (0, u64::MAX),
        };
        let owed = acknowledged
            .iter()
            .filter(|number| (from..=to).contains(number));
        let missing: Vec<&u64> = owed.filter(|number| !numbers.contains(number)).collect();
        if !missing.is_empty() {
            return Err(format!("missing without a word: {missing:?}"));
        }
    }
    Ok(())
}

impl Report {
    /// How long publishing may pause: with history until the failover is over, without it hardly at all.
    fn promises(&self, kept_max: Duration) -> Promises {
        let (kept, plain) = (self.kept_gap, self.plain_gap);
        Promises::new()
            .expect(
                kept < kept_max,
                format!("with history {kept:?} of {kept_max:?}"),
            )
            .expect(plain < GAP_MAX, format!("without {plain:?} of {GAP_MAX:?}"))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary() {
    let _turn = TURN.lock().await;
    let kept = kept_in_one_run(async || {
        let rig = Rig::start().await;
        let tasks = rig.publish();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let old = rig.cluster.kill_primary(1).await?;
        let took = rig.taken_over(old).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        rig.stop(tasks).await;
        Ok(rig.check("kill -9").promises(took + BACK_WITHIN))
    });
    kept.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_primary_that_comes_back() {
    let _turn = TURN.lock().await;
    let kept = kept_in_one_run(async || {
        let rig = Rig::start().await;
        let tasks = rig.publish();
        tokio::time::sleep(Duration::from_secs(2)).await;
        let old = rig.cluster.pause_primary(1).await?;
        let took = rig.taken_over(old).await;
        tokio::time::sleep(Duration::from_secs(6).saturating_sub(took)).await;
        rig.cluster.resume(old)?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        rig.stop(tasks).await;
        Ok(rig.check("stop").promises(took + BACK_WITHIN))
    });
    kept.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover() {
    let _turn = TURN.lock().await;
    let kept = kept_in_one_run(async || {
        let rig = Rig::start().await;
        let tasks = rig.publish();
        tokio::time::sleep(Duration::from_secs(2)).await;
        rig.cluster.failover(1).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        rig.stop(tasks).await;
        let report = rig.check("planned failover");
        assert_eq!(report.lost, 0);
        assert_eq!(report.plain_missing, 0);
        Ok(report.promises(GAP_MAX))
    });
    kept.await.unwrap();
}
