use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use proptest::prelude::*;

use super::*;
use crate::relay::channel::Channel;
use crate::store::embedded::clock::manual::ManualClock;
use crate::store::embedded::{Embedded, Limits};
use crate::store::{
    Broker as _, Event, EventSink, NewPublication, PublishOptions, Retention, STREAM_META_TTL,
};

fn at(offset: u64, epoch: &str) -> Position {
    Position {
        offset,
        epoch: epoch.into(),
    }
}

fn publication(offset: u64) -> Arc<Publication> {
    Arc::new(Publication {
        offset,
        ..Publication::default()
    })
}

fn read(offsets: &[u64], top: u64) -> StreamRead {
    StreamRead {
        publications: offsets.iter().copied().map(publication).collect(),
        top: at(top, "e"),
    }
}

fn offsets(publications: &[Arc<Publication>]) -> Vec<u64> {
    publications
        .iter()
        .map(|publication| publication.offset)
        .collect()
}

#[test]
fn recovered_only_when_all_was_read() {
    let cases: &[(u64, &str, &[u64], u64, bool)] = &[
        // request offset, epoch, read, top, recovered
        (0, "e", &[], 0, true),
        (0, "", &[], 0, true),
        (0, "e", &[1, 2], 2, true),
        (3, "e", &[], 3, true),
        (3, "", &[4, 5], 5, true),
        (3, "e", &[4, 5], 5, true),
        (3, "f", &[4, 5], 5, false),
        (3, "f", &[], 3, false),
        (3, "e", &[], 5, false),
        (3, "e", &[5], 5, false),
        (3, "e", &[4, 5], 9, false),
        (3, "e", &[4, 6], 6, false),
        (9, "e", &[], 5, false),
        (9, "", &[], 5, false),
        (u64::MAX, "e", &[1], 1, false),
        (u64::MAX, "e", &[], u64::MAX, true),
    ];
    for &(offset, epoch, publications, top, expected) in cases {
        let recovered = is_recovered(&at(offset, epoch), &read(publications, top));
        assert_eq!(
            recovered, expected,
            "{offset} {epoch:?} {publications:?} {top}"
        );
    }
}

#[test]
fn begins_with_the_position_the_reply_needs() {
    let fresh = begin(None, read(&[], 5));
    assert_eq!(
        (fresh.recovered, fresh.reply, fresh.live),
        (false, at(5, "e"), at(5, "e"))
    );
    assert!(fresh.publications.is_empty());

    let back = begin(Some(&at(3, "")), read(&[4, 5], 5));
    assert_eq!(
        (back.recovered, back.reply, back.live),
        (true, at(3, "e"), at(5, "e"))
    );
    assert_eq!(offsets(&back.publications), [4, 5]);

    let void = begin(Some(&at(3, "old")), read(&[4, 5], 5));
    assert_eq!(
        (void.recovered, void.reply, void.live),
        (false, at(5, "e"), at(5, "e"))
    );
    assert!(void.publications.is_empty());
}

#[test]
fn live_publications_are_checked() {
    assert_eq!(check_live(&at(4, "e"), &at(5, "e")), Live::Deliver);
    assert_eq!(check_live(&at(4, "e"), &at(4, "e")), Live::Drop);
    assert_eq!(check_live(&at(4, "e"), &at(6, "e")), Live::Gap);
    assert_eq!(check_live(&at(4, "e"), &at(5, "f")), Live::Gap);
    assert_eq!(
        check_live(&at(u64::MAX, "e"), &at(u64::MAX, "e")),
        Live::Drop
    );
}

#[test]
fn reads_no_more_than_needed() {
    assert_eq!(read_options(None).limit, Some(0));
    let options = read_options(Some(&at(7, "e")));
    assert_eq!(
        (options.limit, options.since),
        (Some(MAX_RECOVERED), Some(at(7, "")))
    );
}

#[derive(Default)]
struct Feed(Mutex<VecDeque<(Arc<Publication>, Position)>>);

impl EventSink for Feed {
    fn deliver(&self, _channel: &Channel, event: Event) {
        if let Event::Publication {
            publication,
            position: Some(position),
            ..
        } = event
        {
            self.0.lock().push_back((publication, position));
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Publish,
    /// Many at once, above what one recovery takes.
    Flood,
    /// The live feed loses its oldest event, as after a broker reconnect.
    Lose,
    /// The live feed delivers its oldest event twice.
    Double,
    Deliver,
    Disconnect,
    /// Begin a subscription in three parts, so that publishes come in between.
    Subscribe,
    Read,
    Finish,
    RemoveHistory,
    Expire,
    Forget,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        12 => Just(Step::Publish),
        1 => Just(Step::Flood),
        1 => Just(Step::Lose),
        1 => Just(Step::Double),
        8 => Just(Step::Deliver),
        3 => Just(Step::Disconnect),
        6 => Just(Step::Subscribe),
        6 => Just(Step::Read),
        6 => Just(Step::Finish),
        1 => Just(Step::RemoveHistory),
        1 => Just(Step::Expire),
        1 => Just(Step::Forget),
    ];
    proptest::collection::vec(step, 1..120)
}

enum State {
    Away,
    /// Live events are held back. With what was read, the last serial number at that time.
    Holding(Option<(StreamRead, u64)>),
    Live(Position),
}

/// A client that believes what it is told and checks it: every publication's data is its serial number.
struct Subscriber {
    state: State,
    /// What a client keeps to recover from.
    held: Option<Position>,
    /// The serial number of the last publication it got or was told not to expect.
    serial: Option<u64>,
}

struct World {
    store: Embedded,
    clock: Arc<ManualClock>,
    feed: Arc<Feed>,
    channel: Channel,
    published: u64,
    subscriber: Subscriber,
}

const RETENTION: Retention = Retention {
    size: 400,
    ttl: Duration::from_secs(60),
};

impl World {
    fn new() -> Self {
        let (feed, clock) = (Arc::new(Feed::default()), Arc::new(ManualClock::new()));
        let store = Embedded::with(feed.clone(), clock.clone(), Limits::default());
        let subscriber = Subscriber {
            state: State::Away,
            held: None,
            serial: None,
        };
        Self {
            store,
            clock,
            feed,
            channel: Channel::new("a", "x"),
            published: 0,
            subscriber,
        }
    }

    fn publish(&mut self) {
        self.published += 1;
        let new = NewPublication {
            data: self.published.to_string().into(),
            ..NewPublication::default()
        };
        let options = PublishOptions {
            history: Some(RETENTION),
            ..PublishOptions::default()
        };
        let published = self
            .store
            .publish(&self.channel, new, options)
            .now_or_never()
            .unwrap()
            .unwrap();
        assert!(!published.suppressed);
    }

    fn disconnect(&mut self) {
        self.store
            .unsubscribe(&self.channel)
            .now_or_never()
            .unwrap()
            .unwrap();
        self.feed.0.lock().clear();
        self.subscriber.state = State::Away;
    }

    fn receive(&mut self, publication: &Publication) {
        let serial: u64 = std::str::from_utf8(&publication.data)
            .unwrap()
            .parse()
            .unwrap();
        let last = self
            .subscriber
            .serial
            .expect("publications come to subscribers only");
        assert_eq!(serial, last + 1, "a silent gap or a duplicate");
        self.subscriber.serial = Some(serial);
    }

    fn read(&mut self) {
        let State::Holding(read) = &mut self.subscriber.state else {
            return;
        };
        let options = read_options(self.subscriber.held.as_ref());
        let fresh = self
            .store
            .read(&self.channel, RETENTION, options)
            .now_or_never()
            .unwrap()
            .unwrap();
        read.get_or_insert((fresh, self.published));
    }

    fn finish(&mut self) {
        let State::Holding(Some(read)) = &mut self.subscriber.state else {
            return;
        };
        let (read, serial) = std::mem::take(read);
        let beginning = begin(self.subscriber.held.as_ref(), read);
        let mut held = beginning.reply.offset;
        for publication in &beginning.publications {
            held += 1;
            assert_eq!(publication.offset, held);
            self.receive(publication);
        }
        assert_eq!(held, beginning.live.offset);
        if !beginning.recovered {
            // Told that it starts anew here: everything published so far is behind it.
            self.subscriber.serial = Some(serial);
        }
        self.subscriber.held = Some(beginning.live.clone());
        self.subscriber.state = State::Live(beginning.live);
        // What was held back is released at once.
        let held_back = self.feed.0.lock().len();
        for _ in 0..held_back {
            self.deliver();
        }
    }

    fn deliver(&mut self) {
        let State::Live(held) = &mut self.subscriber.state else {
            return;
        };
        let Some((publication, at)) = self.feed.0.lock().pop_front() else {
            return;
        };
        match check_live(held, &at) {
            Live::Drop => {}
            Live::Gap => self.disconnect(),
            Live::Deliver => {
                *held = at.clone();
                self.subscriber.held = Some(at);
                self.receive(&publication);
            }
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Publish => self.publish(),
            Step::Flood => (0..MAX_RECOVERED + 1).for_each(|_| self.publish()),
            Step::Lose => drop(self.feed.0.lock().pop_front()),
            Step::Double => {
                let mut feed = self.feed.0.lock();
                let first = feed.front().cloned();
                feed.extend(first);
            }
            Step::Deliver => self.deliver(),
            Step::Disconnect => self.disconnect(),
            Step::Subscribe => {
                if matches!(self.subscriber.state, State::Away) {
                    self.store
                        .subscribe(&self.channel)
                        .now_or_never()
                        .unwrap()
                        .unwrap();
                    self.subscriber.state = State::Holding(None);
                }
            }
            Step::Read => self.read(),
            Step::Finish => self.finish(),
            Step::RemoveHistory => {
                self.store
                    .remove_history(&self.channel)
                    .now_or_never()
                    .unwrap()
                    .unwrap();
            }
            Step::Expire => self.clock.advance(RETENTION.ttl),
            Step::Forget => self.clock.advance(STREAM_META_TTL),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_silent_gap_and_no_duplicate(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        // Whatever happened, a client that comes back twice (the first time may meet a gap) is up to date.
        world.disconnect();
        for step in [Step::Subscribe, Step::Read, Step::Finish] {
            world.step(&step);
        }
        world.publish();
        world.deliver();
        prop_assert_eq!(world.subscriber.serial, Some(world.published));
    }
}
