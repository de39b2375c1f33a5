//! Streams: reading, retention, epochs.

use std::time::Instant;

use super::super::{STREAM_META_TTL, StoreError};
use super::*;

pub(super) async fn run(harness: &dyn Harness) {
    reading_makes_a_stream(harness).await;
    reads_from_any_position(harness).await;
    another_epoch_is_refused(harness).await;
    size_drops_the_oldest(harness).await;
    publications_expire_after_the_last_publish(harness).await;
    removed_history_keeps_the_position(harness).await;
    a_forgotten_stream_starts_anew(harness).await;
}

async fn reading_makes_a_stream(harness: &dyn Harness) {
    let fleet = Fleet::new(harness).await;
    let top = fleet.top(0, &channel()).await;
    assert_eq!(top.offset, 0);
    assert!(!top.epoch.is_empty());
    assert_eq!(fleet.top(1, &channel()).await, top);
    let published = fleet
        .publish(1, &channel(), "1", with_history(fleet.lasting(5)))
        .await;
    assert_eq!(
        published.position,
        Some(Position {
            offset: 1,
            epoch: top.epoch.clone()
        })
    );
    assert_eq!(
        fleet.offsets(0, &channel(), since(0, &top.epoch)).await,
        [1]
    );
}

/// Since, limit, reverse, offsets.
type Read<'a> = (Option<u64>, Option<usize>, bool, &'a [u64]);

async fn reads_from_any_position(harness: &dyn Harness) {
    let fleet = Fleet::new(harness).await;
    // Kept: 3, 4, 5, 6.
    fleet.publish_many(&channel(), 6, fleet.lasting(4)).await;
    let cases: &[Read<'_>] = &[
        (None, None, false, &[3, 4, 5, 6]),
        (None, Some(0), false, &[]),
        (None, Some(2), false, &[3, 4]),
        (None, Some(99), false, &[3, 4, 5, 6]),
        (None, None, true, &[6, 5, 4, 3]),
        (None, Some(0), true, &[]),
        (None, Some(1), true, &[6]),
        (Some(0), None, false, &[3, 4, 5, 6]),
        (Some(2), None, false, &[3, 4, 5, 6]),
        (Some(3), None, false, &[4, 5, 6]),
        (Some(3), Some(2), false, &[4, 5]),
        (Some(3), Some(0), false, &[]),
        (Some(6), None, false, &[]),
        (Some(7), None, false, &[]),
        (Some(u64::MAX), None, false, &[]),
        (Some(0), None, true, &[]),
        (Some(2), None, true, &[]),
        (Some(3), None, true, &[]),
        (Some(5), None, true, &[4, 3]),
        (Some(5), Some(1), true, &[4]),
        (Some(7), None, true, &[6, 5, 4, 3]),
        (Some(u64::MAX), Some(2), true, &[6, 5]),
    ];
    let top = fleet.top(0, &channel()).await;
    for (case, &(from, limit, reverse, expected)) in cases.iter().enumerate() {
        for epoch in ["", &top.epoch] {
            let since = from.map(|offset| Position {
                offset,
                epoch: epoch.into(),
            });
            let read = fleet
                .read(
                    case,
                    &channel(),
                    ReadOptions {
                        since,
                        limit,
                        reverse,
                    },
                )
                .await;
            let offsets: Vec<u64> = read
                .publications
                .iter()
                .map(|publication| publication.offset)
                .collect();
            assert_eq!(offsets, expected, "case {case}");
            assert_eq!(read.top, top, "case {case}");
            assert!(
                read.publications
                    .iter()
                    .all(|publication| text(publication) == publication.offset.to_string())
            );
        }
    }
}

async fn another_epoch_is_refused(harness: &dyn Harness) {
    let fleet = Fleet::new(harness).await;
    for _ in 0..2 {
        for offset in [0, 1, 5] {
            for (limit, reverse) in [(None, false), (None, true), (Some(0), false)] {
                let options = ReadOptions {
                    limit,
                    reverse,
                    ..since(offset, "wrong")
                };
                let read = fleet
                    .broker(0)
                    .read(&channel(), fleet.lasting(5), options)
                    .await;
                assert_eq!(read, Err(StoreError::UnrecoverablePosition));
            }
        }
        fleet
            .publish(0, &channel(), "1", with_history(fleet.lasting(5)))
            .await;
    }
}

async fn size_drops_the_oldest(harness: &dyn Harness) {
    let fleet = Fleet::new(harness).await;
    fleet.publish_many(&channel(), 5, fleet.lasting(3)).await;
    assert_eq!(
        fleet.offsets(0, &channel(), ReadOptions::default()).await,
        [3, 4, 5]
    );
    fleet
        .publish(0, &channel(), "6", with_history(fleet.lasting(1)))
        .await;
    assert_eq!(
        fleet.offsets(1, &channel(), ReadOptions::default()).await,
        [6],
        "the last publish rules"
    );
}

async fn publications_expire_after_the_last_publish(harness: &dyn Harness) {
    in_time(async || they_expire_after_the_last_publish(harness).await).await;
}

async fn they_expire_after_the_last_publish(harness: &dyn Harness) -> InTime {
    let fleet = Fleet::new(harness).await;
    let tick = harness.tick();
    let short = with_history(Retention {
        size: 10,
        ttl: tick * 4,
    });
    fleet.publish(0, &channel(), "1", short.clone()).await;
    harness.pass(tick * 2).await;
    let kept = Instant::now();
    fleet.publish(0, &channel(), "2", short.clone()).await;
    harness.pass(tick * 3).await;
    let offsets = fleet.offsets(1, &channel(), ReadOptions::default()).await;
    if kept.elapsed() >= tick * 4 {
        return InTime(false);
    }
    assert_eq!(offsets, [1, 2], "kept from the last publish on");
    let top = fleet.top(0, &channel()).await;
    harness.pass(tick * 2).await;
    let read = fleet.read(1, &channel(), ReadOptions::default()).await;
    assert!(read.publications.is_empty(), "and reading keeps nothing");
    assert_eq!(read.top, top, "the position stays");
    fleet.publish(0, &channel(), "3", short).await;
    assert_eq!(
        fleet.offsets(1, &channel(), since(1, &top.epoch)).await,
        [3],
        "the loss shows in the offsets"
    );
    InTime(true)
}

async fn removed_history_keeps_the_position(harness: &dyn Harness) {
    let fleet = Fleet::new(harness).await;
    fleet.broker(0).remove_history(&channel()).await.unwrap();
    fleet.publish_many(&channel(), 3, fleet.lasting(10)).await;
    let top = fleet.top(0, &channel()).await;
    fleet.broker(1).remove_history(&channel()).await.unwrap();
    let read = fleet.read(0, &channel(), since(0, &top.epoch)).await;
    assert!(read.publications.is_empty());
    assert_eq!(read.top, top);
    fleet
        .publish(0, &channel(), "4", with_history(fleet.lasting(10)))
        .await;
    let read = fleet.read(0, &channel(), since(3, &top.epoch)).await;
    assert_eq!(
        (
            read.publications.len(),
            read.publications[0].offset,
            read.top.offset
        ),
        (1, 4, 4)
    );
}

async fn a_forgotten_stream_starts_anew(harness: &dyn Harness) {
    if !harness.can_skip() {
        return;
    }
    let fleet = Fleet::new(harness).await;
    fleet.publish_many(&channel(), 2, fleet.lasting(10)).await;
    let old = fleet.top(0, &channel()).await;
    harness.pass(STREAM_META_TTL - harness.tick()).await;
    assert_eq!(
        fleet.top(0, &channel()).await,
        old,
        "and this read prolongs it"
    );
    harness.pass(STREAM_META_TTL - harness.tick()).await;
    let published = fleet
        .publish(0, &channel(), "3", with_history(fleet.lasting(10)))
        .await;
    assert_eq!(
        published.position,
        Some(Position {
            offset: 3,
            epoch: old.epoch.clone()
        })
    );
    harness.pass(STREAM_META_TTL).await;
    let read = fleet
        .broker(1)
        .read(&channel(), fleet.lasting(10), since(3, &old.epoch))
        .await;
    assert_eq!(read, Err(StoreError::UnrecoverablePosition));
    let published = fleet
        .publish(0, &channel(), "1", with_history(fleet.lasting(10)))
        .await
        .position
        .unwrap();
    assert_eq!(published.offset, 1);
    assert_ne!(published.epoch, old.epoch);
    let read = fleet.read(1, &channel(), ReadOptions::default()).await;
    assert_eq!(
        read.publications[0].epoch,
        Some(published.epoch),
        "the new first carries the new epoch"
    );
}
