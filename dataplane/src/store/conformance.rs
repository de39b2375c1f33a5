//! The suite that every implementation of [`Broker`] and [`Presence`] must pass.
//!
//! An implementation gives a [`Harness`]; [`run`] makes a fresh, empty fleet from it for every case. A fleet has as
//! many nodes as the implementation has processes that share state: one for the embedded store, two for a shared
//! one. Cases go around the nodes (`fleet.node(0)`, `fleet.node(1)`, ...), so with one node they all mean the same.
//!
//! Delivery may take a moment: cases wait for events, and call [`Harness::settle`] before they claim that none came.
//! The queue's suite is [`queue`], with a harness of its own.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{
    Broker, Event, EventSink, NewPublication, Presence, PublishOptions, Published, ReadOptions,
    Retention,
};
use crate::relay::channel::Channel;
use crate::relay::protocol::{ClientInfo, Position, Publication};

mod positions;
mod presence;
mod publishing;
pub(crate) mod queue;

/// What a case may ask of the implementation under test.
#[async_trait]
pub(crate) trait Harness: Send + Sync {
    /// Nodes that share a new, empty store.
    async fn nodes(&self) -> Vec<Node>;

    /// The unit of all short times in the cases: long enough that a case gets through its steps within it.
    fn tick(&self) -> Duration;

    /// Lets time pass, for the store: a clock that is moved, or a sleep.
    async fn pass(&self, time: Duration);

    /// Whether `pass` can skip minutes and days.
    fn can_skip(&self) -> bool;

    /// Until everything that was published has been delivered.
    async fn settle(&self);
}

pub(crate) struct Node {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) presence: Arc<dyn Presence>,
    pub(crate) sink: Arc<RecordingSink>,
}

/// Remembers all events in the order of delivery.
#[derive(Default)]
pub(crate) struct RecordingSink(Mutex<Vec<(Channel, Event)>>);

impl EventSink for RecordingSink {
    fn deliver(&self, channel: &Channel, event: Event) {
        self.0.lock().push((channel.clone(), event));
    }
}

impl RecordingSink {
    /// The publications of all channels.
    pub(crate) fn publications(&self) -> Vec<Arc<Publication>> {
        let publication = |(_, event): &(Channel, Event)| match event {
            Event::Publication { publication, .. } => Some(publication.clone()),
            Event::Join(_) | Event::Leave(_) | Event::Lost => None,
        };
        self.0.lock().iter().filter_map(publication).collect()
    }
}

/// Runs all cases.
pub(crate) async fn run(harness: &dyn Harness) {
    run_broker(harness).await;
    run_presence(harness).await;
}

/// The cases of [`Broker`] alone.
pub(crate) async fn run_broker(harness: &dyn Harness) {
    publishing::run(harness).await;
    positions::run(harness).await;
}

/// The cases of [`Presence`] alone.
pub(crate) async fn run_presence(harness: &dyn Harness) {
    presence::run(harness).await;
}

/// Whether a case got through its steps before what has to last until then ended.
struct InTime(bool);

/// Runs a case again, on a fresh store, while the machine stood still for too long in it; a few times at most.
async fn in_time(case: impl AsyncFn() -> InTime) {
    for _ in 0..5 {
        if case().await.0 {
            return;
        }
    }
    panic!("not in time in any of five runs");
}

/// One case's fresh store.
struct Fleet<'a> {
    harness: &'a dyn Harness,
    nodes: Vec<Node>,
}

impl<'a> Fleet<'a> {
    async fn new(harness: &'a dyn Harness) -> Self {
        Self {
            harness,
            nodes: harness.nodes().await,
        }
    }

    fn node(&self, index: usize) -> &Node {
        &self.nodes[index % self.nodes.len()]
    }

    fn broker(&self, index: usize) -> &dyn Broker {
        &*self.node(index).broker
    }

    fn presence(&self, index: usize) -> &dyn Presence {
        &*self.node(index).presence
    }

    /// Long enough for any case.
    fn lasting(&self, size: u32) -> Retention {
        Retention {
            size,
            ttl: self.harness.tick() * 1000,
        }
    }

    async fn publish(
        &self,
        node: usize,
        channel: &Channel,
        data: &str,
        options: PublishOptions,
    ) -> Published {
        self.broker(node)
            .publish(channel, new(data), options)
            .await
            .unwrap()
    }

    /// Publishes "1", "2", ... with history.
    async fn publish_many(&self, channel: &Channel, count: usize, retention: Retention) {
        for serial in 1..=count {
            self.publish(
                serial,
                channel,
                &serial.to_string(),
                with_history(retention),
            )
            .await;
        }
    }

    async fn read(
        &self,
        node: usize,
        channel: &Channel,
        options: ReadOptions,
    ) -> super::StreamRead {
        self.broker(node)
            .read(channel, self.lasting(10), options)
            .await
            .unwrap()
    }

    async fn top(&self, node: usize, channel: &Channel) -> Position {
        self.read(
            node,
            channel,
            ReadOptions {
                limit: Some(0),
                ..ReadOptions::default()
            },
        )
        .await
        .top
    }

    async fn offsets(&self, node: usize, channel: &Channel, options: ReadOptions) -> Vec<u64> {
        self.read(node, channel, options)
            .await
            .publications
            .iter()
            .map(|publication| publication.offset)
            .collect()
    }

    /// The node's events of the channel, once all are there.
    async fn events(&self, node: usize, channel: &Channel) -> Vec<Event> {
        self.harness.settle().await;
        let events = self.node(node).sink.0.lock();
        events
            .iter()
            .filter(|(of, _)| of == channel)
            .map(|(_, event)| event.clone())
            .collect()
    }

    async fn delivered(
        &self,
        node: usize,
        channel: &Channel,
    ) -> Vec<(Arc<Publication>, Option<Position>)> {
        let publication = |event| match event {
            Event::Publication {
                publication,
                position,
                ..
            } => Some((publication, position)),
            Event::Join(_) | Event::Leave(_) | Event::Lost => None,
        };
        self.events(node, channel)
            .await
            .into_iter()
            .filter_map(publication)
            .collect()
    }

    /// What was delivered to the node in the channel, as text.
    async fn texts(&self, node: usize, channel: &Channel) -> Vec<String> {
        self.delivered(node, channel)
            .await
            .iter()
            .map(|(publication, _)| text(publication))
            .collect()
    }
}

fn text(publication: &Publication) -> String {
    String::from_utf8(publication.data.to_vec()).unwrap()
}

fn new(data: &str) -> NewPublication {
    NewPublication {
        data: data.to_owned().into(),
        ..NewPublication::default()
    }
}

fn with_history(retention: Retention) -> PublishOptions {
    PublishOptions {
        history: Some(retention),
        ..PublishOptions::default()
    }
}

fn since(offset: u64, epoch: &str) -> ReadOptions {
    ReadOptions {
        since: Some(Position {
            offset,
            epoch: epoch.into(),
        }),
        ..ReadOptions::default()
    }
}

fn channel() -> Channel {
    Channel::new("a", "x")
}

fn info(user: &str, client: &str) -> Arc<ClientInfo> {
    Arc::new(ClientInfo {
        user: user.into(),
        client: client.into(),
        ..ClientInfo::default()
    })
}
