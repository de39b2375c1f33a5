use std::collections::HashMap;

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::clock::manual::ManualClock;
use super::*;
use crate::relay::protocol::{Position, Publication};
use crate::store::conformance::{Harness, Node, RecordingSink, run};
use crate::store::{Event, IDEMPOTENCY_WINDOW, STREAM_META_TTL};

const TICK: Duration = Duration::from_secs(1);

struct OneProcess(Arc<ManualClock>);

#[async_trait]
impl Harness for OneProcess {
    async fn nodes(&self) -> Vec<Node> {
        let sink = Arc::new(RecordingSink::default());
        let store = Arc::new(Embedded::with(
            sink.clone(),
            self.0.clone(),
            Limits::default(),
        ));
        vec![Node {
            broker: store.clone(),
            presence: store,
            sink,
        }]
    }

    fn tick(&self) -> Duration {
        TICK
    }

    async fn pass(&self, time: Duration) {
        self.0.advance(time);
    }

    fn can_skip(&self) -> bool {
        true
    }

    async fn settle(&self) {}
}

#[tokio::test]
async fn conforms() {
    run(&OneProcess(Arc::new(ManualClock::new()))).await;
}

#[test]
fn threads_publish_in_one_order() {
    const EACH: u64 = 2_000;
    let sink = Arc::new(RecordingSink::default());
    let store = Embedded::new(sink.clone());
    store
        .subscribe(&channel(0))
        .now_or_never()
        .unwrap()
        .unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..EACH {
                    store
                        .publish(&channel(0), NewPublication::default(), keep())
                        .now_or_never()
                        .unwrap()
                        .unwrap();
                }
            });
        }
    });
    let offsets: Vec<u64> = sink
        .publications()
        .iter()
        .map(|publication| publication.offset)
        .collect();
    assert_eq!(offsets, (1..=4 * EACH).collect::<Vec<_>>());
}

#[test]
fn threads_reap_each_entry_once() {
    let fixture = fixture(Limits::default());
    let (store, holder) = (&fixture.store, Holder("h".into()));
    for number in 0..5_000_usize {
        let info = ClientInfo {
            client: number.to_string().into(),
            ..ClientInfo::default()
        };
        store
            .join(&holder, &channel(number % 100), Arc::new(info))
            .now_or_never()
            .unwrap()
            .unwrap();
    }
    let reaped: usize = std::thread::scope(|scope| {
        let reap = || store.reap().now_or_never().unwrap().unwrap().len();
        let reapers: Vec<_> = (0..4).map(|_| scope.spawn(reap)).collect();
        reapers
            .into_iter()
            .map(|reaper| reaper.join().unwrap())
            .sum()
    });
    assert_eq!(reaped, 5_000);
}

struct NoSink;

impl EventSink for NoSink {
    fn deliver(&self, _channel: &Channel, _event: Event) {}
}

struct Fixture {
    store: Arc<Embedded>,
    clock: Arc<ManualClock>,
}

fn fixture(limits: Limits) -> Fixture {
    let clock = Arc::new(ManualClock::new());
    Fixture {
        store: Arc::new(Embedded::with(Arc::new(NoSink), clock.clone(), limits)),
        clock,
    }
}

fn channel(number: usize) -> Channel {
    Channel::new("a", &format!("channel{number}"))
}

impl Fixture {
    fn publish(&self, channel: &Channel, data: Vec<u8>, options: PublishOptions) -> Published {
        let new = NewPublication {
            data: data.into(),
            ..NewPublication::default()
        };
        self.store
            .publish(channel, new, options)
            .now_or_never()
            .unwrap()
            .unwrap()
    }

    fn read(&self, channel: &Channel, options: ReadOptions) -> Result<StreamRead, StoreError> {
        self.store
            .read(channel, KEEP, options)
            .now_or_never()
            .unwrap()
    }

    fn sweep(&self) {
        self.store.sweep(self.clock.now());
    }
}

const KEEP: Retention = Retention {
    size: 5,
    ttl: Duration::from_secs(60),
};

fn keep() -> PublishOptions {
    PublishOptions {
        history: Some(KEEP),
        ..PublishOptions::default()
    }
}

#[test]
fn the_sweeper_frees_everything_in_the_end() {
    let fixture = fixture(Limits::default());
    for number in 0..500 {
        let options = PublishOptions {
            idempotency_key: Some("key".into()),
            ..keep()
        };
        fixture.publish(&channel(number), vec![0; 100], options);
    }
    fixture
        .store
        .subscribe(&channel(0))
        .now_or_never()
        .unwrap()
        .unwrap();
    assert!(fixture.store.history_bytes() > 50_000);
    assert_eq!(fixture.store.streams.sizes(), (500, 500, 500));
    fixture.clock.advance(KEEP.ttl);
    fixture.sweep();
    assert_eq!(fixture.store.history_bytes(), 0);
    assert_eq!(
        fixture.store.streams.sizes(),
        (500, 500, 500),
        "positions and keys live longer"
    );
    fixture.clock.advance(IDEMPOTENCY_WINDOW);
    fixture.sweep();
    assert_eq!(fixture.store.streams.sizes(), (500, 500, 0));
    fixture.clock.advance(STREAM_META_TTL);
    fixture.sweep();
    assert_eq!(
        fixture.store.streams.sizes(),
        (1, 0, 0),
        "the subscription stays"
    );
    fixture
        .store
        .unsubscribe(&channel(0))
        .now_or_never()
        .unwrap()
        .unwrap();
    assert_eq!(fixture.store.streams.sizes(), (0, 0, 0));
}

#[test]
fn nothing_is_kept_for_publishes_without_history() {
    let fixture = fixture(Limits::default());
    for number in 0..100 {
        fixture.publish(&channel(number), vec![0; 100], PublishOptions::default());
    }
    assert_eq!(fixture.store.streams.sizes(), (0, 0, 0));
}

#[test]
fn the_number_of_streams_is_bounded_and_the_newest_stay() {
    let fixture = fixture(Limits {
        streams_per_shard: 32,
        ..Limits::default()
    });
    for number in 0..10_000 {
        fixture.publish(&channel(number), vec![0; 100], keep());
        fixture.clock.advance(Duration::from_micros(1));
    }
    let (channels, streams, _) = fixture.store.streams.sizes();
    assert_eq!(channels, streams);
    assert!((SHARDS * 24..=SHARDS * 32).contains(&streams), "{streams}");
    let newest = fixture
        .read(&channel(9_999), ReadOptions::default())
        .unwrap();
    assert_eq!(newest.publications.len(), 1);
    let position = Position {
        offset: 1,
        epoch: "old".into(),
    };
    let options = ReadOptions {
        since: Some(position),
        ..ReadOptions::default()
    };
    assert_eq!(
        fixture.read(&channel(0), options),
        Err(StoreError::UnrecoverablePosition)
    );
}

#[test]
fn the_bytes_of_all_publications_are_bounded() {
    let limits = Limits {
        history_bytes: 100_000,
        ..Limits::default()
    };
    let fixture = fixture(limits);
    for round in 1..=20 {
        for number in 0..40 {
            let published = fixture.publish(&channel(number), vec![0; 1_000], keep());
            assert_eq!(published.position.unwrap().offset, round);
            assert!(fixture.store.history_bytes() <= limits.history_bytes);
        }
    }
    assert!(
        fixture.store.history_bytes() > limits.history_bytes * 9 / 10,
        "what fits is kept"
    );
    for number in 0..40 {
        let read = fixture
            .read(&channel(number), ReadOptions::default())
            .unwrap();
        let kept: Vec<u64> = read
            .publications
            .iter()
            .map(|publication| publication.offset)
            .collect();
        let expected: Vec<u64> = (21 - kept.len() as u64..=20).collect();
        assert_eq!(kept, expected, "what is kept is the newest, without a gap");
    }
    for number in 0..40 {
        fixture
            .store
            .remove_history(&channel(number))
            .now_or_never()
            .unwrap()
            .unwrap();
    }
    assert_eq!(fixture.store.history_bytes(), 0);
}

#[test]
fn idempotency_keys_are_bounded() {
    let fixture = fixture(Limits::default());
    let one = channel(0);
    let key = |number: usize| PublishOptions {
        idempotency_key: Some(number.to_string().into()),
        ..PublishOptions::default()
    };
    for number in 0..20_000 {
        fixture.publish(&one, vec![], key(number));
    }
    assert_eq!(fixture.store.streams.sizes().2, 16_384);
    assert!(fixture.publish(&one, vec![], key(19_999)).suppressed);
    assert!(
        !fixture.publish(&one, vec![], key(0)).suppressed,
        "the oldest is forgotten"
    );
}

#[tokio::test(start_paused = true)]
async fn the_sweeper_comes_round() {
    let fixture = fixture(Limits::default());
    fixture.publish(&channel(0), vec![0; 100], keep());
    fixture.clock.advance(KEEP.ttl);
    let sweeper = tokio::spawn(fixture.store.clone().run_sweeper());
    tokio::time::sleep(SWEEP_PAUSE * (SHARDS as u32 + 1)).await;
    assert_eq!(fixture.store.history_bytes(), 0);
    sweeper.abort();
}

#[test]
fn an_entry_of_presence_is_small() {
    // Each client of each channel with presence pays for these.
    assert_eq!(presence::slot_bytes(), (40, 16, 24));
}

/// A stream as the contract describes it.
#[derive(Default)]
struct Model {
    published: Vec<u64>,
    kept_from: usize,
    age: Duration,
    epoch: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
enum Step {
    Publish {
        size: u32,
    },
    Read {
        since: Option<u64>,
        limit: Option<usize>,
        reverse: bool,
    },
    Follow,
    Remove,
    Pass {
        seconds: u64,
    },
    Forget,
    Sweep,
}

fn steps() -> impl Strategy<Value = Vec<(usize, Step)>> {
    let read = (
        proptest::option::of(0_u64..20),
        proptest::option::of(0_usize..8),
        any::<bool>(),
    );
    let step = prop_oneof![
        8 => (1_u32..6).prop_map(|size| Step::Publish { size }),
        6 => read.prop_map(|(since, limit, reverse)| Step::Read { since, limit, reverse }),
        6 => Just(Step::Follow),
        1 => Just(Step::Remove),
        2 => (1_u64..50).prop_map(|seconds| Step::Pass { seconds }),
        1 => Just(Step::Forget),
        1 => Just(Step::Sweep),
    ];
    proptest::collection::vec((0_usize..3, step), 1..80)
}

impl Model {
    fn kept(&self) -> Vec<(u64, u64)> {
        let all = self
            .published
            .iter()
            .enumerate()
            .map(|(index, serial)| (index as u64 + 1, *serial));
        all.skip(self.kept_from).collect()
    }

    fn pass(&mut self, time: Duration) {
        self.age += time;
        if self.age >= KEEP.ttl {
            self.kept_from = self.published.len();
        }
    }
}

fn contents(publications: &[Arc<Publication>]) -> Vec<(u64, u64)> {
    let serial =
        |publication: &Publication| u64::from_be_bytes(publication.data[..].try_into().unwrap());
    publications
        .iter()
        .map(|publication| (publication.offset, serial(publication)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn behaves_like_the_model(steps in steps()) {
        let fixture = fixture(Limits::default());
        let mut models: HashMap<usize, Model> = (0..3).map(|number| (number, Model::default())).collect();
        let mut followers: HashMap<usize, (Position, u64)> = HashMap::new();
        let mut serial = 0_u64;
        for (number, step) in steps {
            let channel = channel(number);
            let model = models.get_mut(&number).unwrap();
            match step {
                Step::Publish { size } => {
                    serial += 1;
                    let history = Some(Retention { size, ..KEEP });
                    let options = PublishOptions { history, ..PublishOptions::default() };
                    let position = fixture.publish(&channel, serial.to_be_bytes().to_vec(), options).position.unwrap();
                    model.published.push(serial);
                    model.age = Duration::ZERO;
                    model.kept_from = model.kept_from.max(model.published.len().saturating_sub(size as usize));
                    prop_assert_eq!(position.offset, model.published.len() as u64);
                    prop_assert_eq!(model.epoch.get_or_insert(position.epoch.clone()), &position.epoch);
                }
                Step::Read { since, limit, reverse } => {
                    let since_position = since.map(|offset| Position { offset, epoch: Arc::default() });
                    let read = fixture.read(&channel, ReadOptions { since: since_position, limit, reverse }).unwrap();
                    let mut expected = model.kept();
                    if reverse {
                        expected.reverse();
                        expected.retain(|(offset, _)| since.is_none_or(|since| *offset < since));
                    } else {
                        expected.retain(|(offset, _)| since.is_none_or(|since| *offset > since));
                    }
                    expected.truncate(limit.unwrap_or(usize::MAX));
                    prop_assert_eq!(contents(&read.publications), expected);
                    prop_assert_eq!(model.epoch.get_or_insert(read.top.epoch.clone()), &read.top.epoch);
                }
                Step::Follow => {
                    let (position, last) = followers.entry(number).or_default().clone();
                    match fixture.read(&channel, ReadOptions { since: Some(position.clone()), ..ReadOptions::default() }) {
                        Ok(read) => {
                            let contents = contents(&read.publications);
                            let first = contents.first().map_or(read.top.offset + 1, |(offset, _)| *offset);
                            if first == position.offset + 1 {
                                let missed: Vec<u64> = contents.iter().map(|(_, serial)| *serial).collect();
                                let expected: Vec<u64> =
                                    model.published.iter().copied().filter(|serial| *serial > last).collect();
                                prop_assert_eq!(missed, expected, "all that was missed, once");
                            } else {
                                prop_assert!(model.kept_from as u64 > position.offset, "a gap that is seen is real");
                            }
                            model.epoch.get_or_insert(read.top.epoch.clone());
                            followers.insert(number, (read.top, model.published.last().copied().unwrap_or(0)));
                        }
                        Err(error) => {
                            prop_assert_eq!(error, StoreError::UnrecoverablePosition);
                            prop_assert_ne!(model.epoch.get_or_insert_with(|| "new".into()), &position.epoch);
                            let top = fixture.read(&channel, ReadOptions { limit: Some(0), ..Default::default() });
                            let top = top.unwrap().top;
                            model.epoch = Some(top.epoch.clone());
                            followers.insert(number, (top, model.published.last().copied().unwrap_or(0)));
                        }
                    }
                }
                Step::Remove => {
                    fixture.store.remove_history(&channel).now_or_never().unwrap().unwrap();
                    model.kept_from = model.published.len();
                }
                Step::Pass { seconds } => {
                    let time = Duration::from_secs(seconds);
                    fixture.clock.advance(time);
                    models.values_mut().for_each(|model| model.pass(time));
                }
                Step::Forget => {
                    fixture.clock.advance(STREAM_META_TTL);
                    models.values_mut().for_each(|model| *model = Model::default());
                }
                Step::Sweep => fixture.sweep(),
            }
        }
    }
}
