//! What subscribers get when their connections, or the stream itself, are cut.

use bytes::Bytes;
use parking_lot::Mutex;
use sluice_e2e::redis::{Options, RedisServer};

use super::*;
use crate::relay::channel::Channel;
use crate::relay::protocol::Position;
use crate::store::redis::cluster::CallError;
use crate::store::redis::pubsub::{Open, Receiver};
use crate::store::{
    Broker, Event, NewPublication, PublishOptions, Published, ReadOptions, Retention, StoreError,
};

fn channel() -> Channel {
    Channel::new("a", "x")
}

const RETENTION: Retention = Retention {
    size: 50,
    ttl: Duration::from_secs(300),
};

#[derive(Default)]
struct Texts(Mutex<Vec<String>>);

impl EventSink for Texts {
    fn deliver(&self, _: &Channel, event: Event) {
        self.0.lock().push(match event {
            Event::Publication { publication, .. } => {
                String::from_utf8(publication.data.to_vec()).unwrap()
            }
            Event::Join(_) | Event::Leave(_) => "presence".to_owned(),
            Event::Lost => "lost".to_owned(),
        });
    }
}

impl Texts {
    async fn wait_for(&self, expected: &[&str]) {
        for _ in 0..400 {
            if *self.0.lock() == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(*self.0.lock(), expected);
    }
}

async fn publish(process: &Process, text: &'static str) -> Result<Published, StoreError> {
    let publication = NewPublication {
        data: text.into(),
        ..NewPublication::default()
    };
    let options = PublishOptions {
        history: Some(RETENTION),
        ..PublishOptions::default()
    };
    process
        .broker
        .publish(&channel(), publication, options)
        .await
}

async fn read_since(process: &Process, offset: u64, epoch: &str) -> Result<Vec<u64>, StoreError> {
    let options = ReadOptions {
        since: Some(Position {
            offset,
            epoch: epoch.into(),
        }),
        ..ReadOptions::default()
    };
    let read = process.broker.read(&channel(), RETENTION, options).await?;
    Ok(read.publications.iter().map(|of| of.offset).collect())
}

/// A server, a process that is subscribed and one that is not, and what the first is handed.
async fn start() -> (RedisServer, Process, Process, Arc<Texts>) {
    let server = RedisServer::start(Options::default()).await.unwrap();
    let gateway = fresh_gateway();
    let of = || settings(seeds([&server]), &gateway);
    let texts = Arc::new(Texts::default());
    let subscriber = Process::start(of(), texts.clone()).await;
    let publisher = Process::start(of(), Arc::new(Texts::default())).await;
    subscriber.broker.subscribe(&channel()).await.unwrap();
    (server, subscriber, publisher, texts)
}

/// Cuts the subscription connections, and lets nobody in until `meanwhile` is done.
async fn cut(server: &RedisServer, meanwhile: impl Future<Output = ()>) {
    server
        .call(&["ACL", "SETUSER", "default", "-hello", "-ssubscribe"])
        .await
        .unwrap();
    server
        .call(&["CLIENT", "KILL", "TYPE", "pubsub"])
        .await
        .unwrap();
    meanwhile.await;
    server
        .call(&["ACL", "SETUSER", "default", "+@all"])
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_missed_is_delivered_late_and_in_order() {
    let (server, _subscriber, publisher, texts) = start().await;
    publish(&publisher, "1").await.unwrap();
    texts.wait_for(&["1"]).await;
    cut(&server, async {
        for text in ["2", "3"] {
            publish(&publisher, text).await.unwrap();
        }
    })
    .await;
    texts.wait_for(&["1", "2", "3"]).await;
    publish(&publisher, "4").await.unwrap();
    texts.wait_for(&["1", "2", "3", "4"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_missed_before_the_first_publication_is_delivered_too() {
    let (server, subscriber, publisher, texts) = start().await;
    assert_eq!(read_since(&subscriber, 0, "").await, Ok(vec![]));
    cut(&server, async {
        publish(&publisher, "1").await.unwrap();
    })
    .await;
    texts.wait_for(&["1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_is_told() {
    let (server, _subscriber, publisher, texts) = start().await;
    publish(&publisher, "1").await.unwrap();
    texts.wait_for(&["1"]).await;
    cut(&server, async {
        publish(&publisher, "2").await.unwrap();
        publisher.broker.remove_history(&channel()).await.unwrap();
    })
    .await;
    texts.wait_for(&["1", "lost"]).await;
    publish(&publisher, "3").await.unwrap();
    texts.wait_for(&["1", "lost", "3"]).await;
}

/// Leaves the first entry of a stream and no trace of the others.
const FALL_BACK: &str = "local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
    redis.call('DEL', KEYS[1])
    redis.call('XADD', KEYS[1], first[1], unpack(first[2]))";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_fell_back_gets_a_new_epoch() {
    let (server, _subscriber, publisher, texts) = start().await;
    let mut epoch = Arc::default();
    for text in ["1", "2", "3"] {
        epoch = publish(&publisher, text)
            .await
            .unwrap()
            .position
            .unwrap()
            .epoch;
    }
    texts.wait_for(&["1", "2", "3"]).await;
    let keys = server.call(&["KEYS", "*"]).await.unwrap().to_string();
    let key = |kind: &str| {
        keys.split(' ')
            .find(|key| key.contains(kind))
            .unwrap()
            .to_owned()
    };
    // As a replica that had seen only the first publication: then another second one was published.
    let (stream, meta) = (key(":s:"), key(":m:"));
    server
        .call(&["EVAL", FALL_BACK, "1", &stream])
        .await
        .unwrap();
    server.call(&["HSET", &meta, "o", "1"]).await.unwrap();
    let second = publish(&publisher, "other 2").await.unwrap();
    assert_eq!(second.position.unwrap().offset, 2);
    texts.wait_for(&["1", "2", "3", "lost"]).await;
    let void = read_since(&publisher, 3, &epoch).await;
    assert_eq!(void, Err(StoreError::UnrecoverablePosition));
    publish(&publisher, "other 3").await.unwrap();
    texts.wait_for(&["1", "2", "3", "lost", "other 3"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_notices_that_a_stream_fell_back() {
    let (server, subscriber, publisher, _) = start().await;
    subscriber.broker.unsubscribe(&channel()).await.unwrap();
    let mut epoch = Arc::default();
    for text in ["1", "2"] {
        epoch = publish(&publisher, text)
            .await
            .unwrap()
            .position
            .unwrap()
            .epoch;
    }
    assert_eq!(read_since(&subscriber, 2, &epoch).await, Ok(vec![]));
    let keys = server.call(&["KEYS", "*"]).await.unwrap().to_string();
    let key = |kind: &str| {
        keys.split(' ')
            .find(|key| key.contains(kind))
            .unwrap()
            .to_owned()
    };
    server.call(&["DEL", &key(":s:")]).await.unwrap();
    server.call(&["HSET", &key(":m:"), "o", "0"]).await.unwrap();
    publish(&publisher, "other 1").await.unwrap();
    let void = read_since(&subscriber, 1, &epoch).await;
    assert_eq!(void, Err(StoreError::UnrecoverablePosition));
}

/// Hears nothing.
struct Deaf;

impl Receiver for Deaf {
    fn message(&self, _: &Bytes, _: Bytes) {}
    fn interrupted(&self, _: &Bytes) {}
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_calls_fail_in_bounded_time() {
    let server = RedisServer::start(Options::default()).await.unwrap();
    let of = settings(seeds([&server]), &fresh_gateway());
    let process = Process::start(of.clone(), Arc::new(Texts::default())).await;
    server.kill().unwrap();
    let since = std::time::Instant::now();
    assert!(publish(&process, "1").await.is_err());
    assert!(process.broker.subscribe(&channel()).await.is_err());
    let receiver: Arc<dyn Receiver> = Arc::new(Deaf);
    let cluster = connect(of);
    let pubsub = PubSub::start(cluster, Arc::new(Open));
    let subscribed = pubsub
        .subscribe(0, "c".into(), Arc::downgrade(&receiver))
        .await;
    assert!(matches!(subscribed, Err(CallError::NotDone(_))));
    // A few seconds each, and not for ever.
    assert!(
        since.elapsed() < Duration::from_secs(40),
        "{:?}",
        since.elapsed()
    );
    server.restart().await.unwrap();
    pubsub
        .subscribe(0, "c".into(), Arc::downgrade(&receiver))
        .await
        .unwrap();
    process.broker.subscribe(&channel()).await.unwrap();
    publish(&process, "1").await.unwrap();
}
