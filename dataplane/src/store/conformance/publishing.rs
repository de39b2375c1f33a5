//! Publish, subscribe, idempotency and versions.

use futures_util::future::join_all;

use super::super::{IDEMPOTENCY_WINDOW, PresenceEvent};
use super::*;

pub(super) async fn run(harness: &dyn Harness) {
    every_subscribed_node_gets_each_publication_once(harness).await;
    without_history_nothing_is_kept(harness).await;
    a_publication_keeps_all_its_fields(harness).await;
    concurrent_publishers_leave_no_gap(harness).await;
    a_delivered_publication_can_be_read(harness).await;
    only_subscribed_channels_are_delivered(harness).await;
    unsubscribing_one_node_leaves_the_other(harness).await;
    accounts_never_meet(harness).await;
    presence_events_are_delivered_and_not_stored(harness).await;
    a_known_key_has_no_effect(harness).await;
    a_key_is_forgotten_after_the_window(harness).await;
    versions_must_grow(harness).await;
}

async fn every_subscribed_node_gets_each_publication_once(harness: &dyn Harness) {
    let fleet = Fleet::new(harness).await;
    for node in 0..fleet.nodes.len() {
        fleet.broker(node).subscribe(&channel()).await.unwrap();
        fleet.broker(node).subscribe(&channel()).await.unwrap();
    }
    fleet.publish_many(&channel(), 3, fleet.lasting(10)).await;
    fleet
        .publish(1, &channel(), "4", PublishOptions::default())
        .await;
    for node in 0..fleet.nodes.len() {
        assert_eq!(fleet.texts(node, &channel()).await, ["1", "2", "3", "4"]);
        let delivered = fleet.delivered(node, &channel()).await;
        let epoch = fleet.top(0, &channel()).await.epoch;
        for (index, (publication, position)) in delivered[..3].iter().enumerate() {
            let offset = index as u64 + 1;
            assert_eq!(publication.offset, offset);
            assert_eq!(
                *position,
                Some(Position {
                    offset,
                    epoch: epoch.clone()
                })
            );
            assert_eq!(
                publication.epoch,
                (offset == 1).then(|| epoch.clone()),
                "the first carries the epoch"
            );
        }
        assert_eq!((delivered[3].0.offset, &delivered[3].1), (0, &None));
    }
}

async fn without_history_nothing_is_kept(harness: &dyn Harness) {
    let fleet = Fleet::new(harness).await;
    let tick = harness.tick();
    for history in [
        None,
        Some(Retention { size: 0, ttl: tick }),
        Some(Retention {
            size: 1,
            ttl: Duration::ZERO,
        }),
    ] {
        let options = PublishOptions {
            history,
            ..PublishOptions::default()
        };
        let published = fleet.publish(0, &channel(), "1", options).await;
        assert_eq!(
            published,
            Published {
                position: None,
                suppressed: false
            }
        );
    }
    let read = fleet.read(1, &channel(), ReadOptions::default()).await;
    assert!(read.publications.is_empty());
    assert_eq!(read.top.offset, 0);
}

async fn a_publication_keeps_all_its_fields(harness: &dyn Harness) {
    let fleet = Fleet::new(harness).await;
    fleet.broker(1).subscribe(&channel()).await.unwrap();
    let who = ClientInfo {
        user: "u".into(),
        client: "c".into(),
        conn_info: "{\"a\":1}".into(),
        chan_info: "\u{0}b".into(),
    };
    let tags = vec![("k".into(), "v".into()), ("k2".into(), "".into())];
    let data = NewPublication {
        data: vec![0_u8, 255, 10].into(),
        info: Some(Arc::new(who)),
        tags,
        time_ms: 1_700_000_000_123,
    };
    let options = PublishOptions {
        delta: true,
        ..with_history(fleet.lasting(5))
    };
    fleet
        .broker(0)
        .publish(&channel(), data.clone(), options)
        .await
        .unwrap();
    let read = fleet.read(1, &channel(), ReadOptions::default()).await;
    let (delivered, _) = fleet.delivered(1, &channel()).await.remove(0);
    for publication in [&delivered, &read.publications[0]] {
        assert_eq!(publication.data, data.data);
        assert_eq!(publication.info, data.info);
        assert_eq!(publication.tags, data.tags);
        assert_eq!(publication.time_ms, data.time_ms);
        assert!(
            !publication.delta,
            "publications are whole; deltas are made per subscription"
        );
    }
    assert!(matches!(
        fleet.events(1, &channel()).await[0],
        Event::Publication { delta: true, .. }
    ));
}

async fn concurrent_publishers_leave_no_gap(harness: &dyn Harness) {
    const PUBLISHERS: usize = 8;
    const EACH: usize = 25;
    let fleet = Fleet::new(harness).await;
    for node in 0..fleet.nodes.len() {
        fleet.broker(node).subscribe(&channel()).await.unwrap();
    }
    let retention = fleet.lasting(1000);
    let tasks = (0..PUBLISHERS).map(|publisher| {
        let broker = fleet.node(publisher).broker.clone();
        tokio::spawn(async move {
            let mut offsets = Vec::new();
            for _ in 0..EACH {
                let published = broker
                    .publish(&channel(), new("x"), with_history(retention))
                    .await
                    .unwrap();
                offsets.push(published.position.unwrap().offset);
                tokio::task::yield_now().await;
            }
            offsets
        })
    });
    let mut answered: Vec<u64> = join_all(tasks)
        .await
        .into_iter()
        .flat_map(Result::unwrap)
        .collect();
    answered.sort_unstable();
    let all: Vec<u64> = (1..=(PUBLISHERS * EACH) as u64).collect();
    assert_eq!(answered, all);
    for node in 0..fleet.nodes.len() {
        let delivered = fleet.delivered(node, &channel()).await;
        assert_eq!(
            delivered
                .iter()
                .map(|(publication, _)| publication.offset)
                .collect::<Vec<_>>(),
            all
        );
    }
    assert_eq!(
        fleet.offsets(0, &channel(), ReadOptions::default()).await,
        all
    );
}

async fn a_delivered_publication_can_be_read(harness: &dyn Harness) {
    let fleet = Fleet::new(harness).await;
    fleet.broker(1).subscribe(&channel()).await.unwrap();
    for count in 1..=5_usize {
        fleet
            .publish(0, &channel(), "x", with_history(fleet.lasting(10)))
            .await;
        let delivered = fleet.delivered(1, &channel()).await;
        let all: Vec<u64> = (1..=count as u64).collect();
        assert_eq!(delivered.last().unwrap().0.offset, count as u64);
        assert_eq!(
            fleet.offsets(1, &channel(), ReadOptions::default()).await,
            all
        );
    }
}

async fn only_subscribed_channels_are_delivered(harness: &dyn Harness) {
    let fleet = Fleet::new(harness).await;
    let other = Channel::new("a", "y");
    fleet
        .publish(0, &channel(), "before", PublishOptions::default())
        .await;
    // What is still on its way may reach a new subscriber.
    fleet.harness.settle().await;
    fleet.broker(0).subscribe(&channel()).await.unwrap();
    fleet
        .publish(1, &channel(), "in", PublishOptions::default())
        .await;
    fleet
        .publish(1, &other, "other", with_history(fleet.lasting(1)))
        .await;
    fleet.harness.settle().await;
    fleet.broker(0).unsubscribe(&channel()).await.unwrap();
    fleet
        .publish(1, &channel(), "after", with_history(fleet.lasting(1)))
        .await;
    fleet
        .broker(1)
        .publish_presence(&channel(), PresenceEvent::Join(info("u", "c")))
        .await
        .unwrap();
    assert_eq!(fleet.texts(0, &channel()).await, ["in"]);
    assert_eq!(fleet.events(0, &channel()).await.len(), 1);
    assert!(fleet.events(0, &other).await.is_empty());
    fleet.broker(0).subscribe(&channel()).await.unwrap();
    fleet
        .publish(1, &channel(), "again", PublishOptions::default())
        .await;
    assert_eq!(fleet.texts(0, &channel()).await, ["in", "again"]);
    fleet.broker(0).unsubscribe(&other).await.unwrap();
}

async fn unsubscribing_one_node_leaves_the_other(harness: &dyn Harness) {
    let fleet = Fleet::new(harness).await;
    if fleet.nodes.len() < 2 {
        return;
    }
    fleet.broker(0).subscribe(&channel()).await.unwrap();
    fleet.broker(1).subscribe(&channel()).await.unwrap();
    fleet.broker(0).unsubscribe(&channel()).await.unwrap();
    fleet
        .publish(0, &channel(), "1", PublishOptions::default())
        .await;
    assert!(fleet.texts(0, &channel()).await.is_empty());
    assert_eq!(fleet.texts(1, &channel()).await, ["1"]);
}

async fn accounts_never_meet(harness: &dyn Harness) {
    let fleet = Fleet::new(harness).await;
    let (ours, theirs, default) = (
        Channel::new("a", "x"),
        Channel::new("b", "x"),
        Channel::new("", "x"),
    );
    for channel in [&ours, &theirs, &default] {
        fleet.broker(0).subscribe(channel).await.unwrap();
    }
    let options = || PublishOptions {
        idempotency_key: Some("key".into()),
        version: 7,
        ..with_history(fleet.lasting(10))
    };
    assert!(!fleet.publish(0, &ours, "ours", options()).await.suppressed);
    assert!(
        !fleet
            .publish(0, &theirs, "theirs", options())
            .await
            .suppressed,
        "keys and versions are per channel"
    );
    assert_eq!(fleet.texts(0, &ours).await, ["ours"]);
    assert_eq!(fleet.texts(0, &theirs).await, ["theirs"]);
    assert!(fleet.texts(0, &default).await.is_empty());
    fleet.broker(0).remove_history(&theirs).await.unwrap();
    assert_eq!(fleet.offsets(1, &ours, ReadOptions::default()).await, [1]);
    assert!(
        fleet
            .offsets(1, &default, ReadOptions::default())
            .await
            .is_empty()
    );
    assert_ne!(
        fleet.top(0, &ours).await.epoch,
        fleet.top(0, &theirs).await.epoch
    );
}

async fn presence_events_are_delivered_and_not_stored(harness: &dyn Harness) {
    let fleet = Fleet::new(harness).await;
    fleet.broker(1).subscribe(&channel()).await.unwrap();
    fleet
        .broker(0)
        .publish_presence(&channel(), PresenceEvent::Join(info("u", "c")))
        .await
        .unwrap();
    fleet
        .broker(0)
        .publish_presence(&channel(), PresenceEvent::Leave(info("u", "c")))
        .await
        .unwrap();
    let events = fleet.events(1, &channel()).await;
    assert_eq!(events.len(), 2);
    assert!(matches!(&events[0], Event::Join(joined) if *joined == info("u", "c")));
    assert!(matches!(&events[1], Event::Leave(left) if *left == info("u", "c")));
    assert_eq!(fleet.top(0, &channel()).await.offset, 0);
    assert!(fleet.presence(0).list(&channel()).await.unwrap().is_empty());
}

async fn a_known_key_has_no_effect(harness: &dyn Harness) {
    let fleet = Fleet::new(harness).await;
    fleet.broker(0).subscribe(&channel()).await.unwrap();
    for history in [Some(fleet.lasting(10)), None] {
        let key = |key: &str| PublishOptions {
            history,
            idempotency_key: Some(key.into()),
            ..Default::default()
        };
        let name = if history.is_some() {
            "kept"
        } else {
            "transient"
        };
        let first = fleet.publish(0, &channel(), name, key(name)).await;
        assert!(!first.suppressed);
        fleet
            .publish(
                1,
                &channel(),
                "between",
                PublishOptions {
                    history,
                    ..Default::default()
                },
            )
            .await;
        let second = fleet.publish(1, &channel(), "again", key(name)).await;
        assert_eq!(
            second,
            Published {
                suppressed: true,
                ..first
            }
        );
        assert!(
            !fleet
                .publish(1, &channel(), "other", key("other key"))
                .await
                .suppressed
                || history.is_none()
        );
    }
    assert_eq!(
        fleet.texts(0, &channel()).await,
        ["kept", "between", "other", "transient", "between"],
        "a key belongs to its channel, with history or without"
    );
}

async fn a_key_is_forgotten_after_the_window(harness: &dyn Harness) {
    if !harness.can_skip() {
        return;
    }
    let fleet = Fleet::new(harness).await;
    let key = || PublishOptions {
        idempotency_key: Some("key".into()),
        ..with_history(fleet.lasting(10))
    };
    assert!(!fleet.publish(0, &channel(), "1", key()).await.suppressed);
    harness.pass(IDEMPOTENCY_WINDOW - harness.tick()).await;
    assert!(
        fleet.publish(0, &channel(), "2", key()).await.suppressed,
        "the window is not prolonged"
    );
    harness.pass(harness.tick()).await;
    assert!(!fleet.publish(0, &channel(), "3", key()).await.suppressed);
    assert_eq!(fleet.top(0, &channel()).await.offset, 2);
}

async fn versions_must_grow(harness: &dyn Harness) {
    let fleet = Fleet::new(harness).await;
    fleet.broker(0).subscribe(&channel()).await.unwrap();
    let cases: &[(u64, &str, bool)] = &[
        // version, epoch, suppressed
        (5, "", false),
        (5, "", true),
        (4, "", true),
        (0, "", false),
        (5, "", true),
        (6, "", false),
        (1, "e1", false),
        (1, "e1", true),
        (1, "", true),
        (2, "", false),
        (2, "e1", false),
        (1, "e2", false),
        (2, "e2", false),
    ];
    let mut offset = 0;
    for (index, &(version, epoch, suppressed)) in cases.iter().enumerate() {
        let options = PublishOptions {
            version,
            version_epoch: epoch.into(),
            ..with_history(fleet.lasting(100))
        };
        let published = fleet
            .publish(index, &channel(), &index.to_string(), options)
            .await;
        offset += u64::from(!suppressed);
        assert_eq!(published.suppressed, suppressed, "case {index}");
        assert_eq!(
            published.position.unwrap().offset,
            offset,
            "case {index}: the stream's top"
        );
    }
    assert_eq!(fleet.texts(0, &channel()).await.len() as u64, offset);
    let options = |version| PublishOptions {
        version,
        idempotency_key: Some("key".into()),
        ..with_history(fleet.lasting(100))
    };
    assert!(
        fleet
            .publish(0, &channel(), "late", options(1))
            .await
            .suppressed
    );
    assert!(
        !fleet
            .publish(0, &channel(), "new", options(9))
            .await
            .suppressed,
        "a suppressed publish left its key unused"
    );
    let transient = PublishOptions {
        version: 1,
        ..PublishOptions::default()
    };
    assert!(
        !fleet
            .publish(0, &channel(), "transient", transient)
            .await
            .suppressed
    );
}
