//! Bodies in pieces, too large, too slow, too many.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body_util::{Full, StreamBody};
use hyper::body::{Frame, SizeHint};
use tokio::time::{Sleep, sleep};

use super::*;

/// Pieces with pauses before them.
struct Pieces {
    pieces: VecDeque<(Duration, Bytes)>,
    pause: Option<Pin<Box<Sleep>>>,
    announced: Option<u64>,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some((pause, piece)) = self.pieces.front().cloned() else {
            return Poll::Ready(None);
        };
        let timer = self.pause.get_or_insert_with(|| Box::pin(sleep(pause)));
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        self.pause = None;
        self.pieces.pop_front();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn size_hint(&self) -> SizeHint {
        self.announced
            .map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

fn pieces(count: usize, piece: &[u8], pause: Duration) -> Pieces {
    let piece = Bytes::copy_from_slice(piece);
    Pieces {
        pieces: (0..count).map(|_| (pause, piece.clone())).collect(),
        pause: None,
        announced: None,
    }
}

fn used(budget: &Budget) -> usize {
    budget.used_bytes.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn pieces_come_together_and_one_piece_is_not_copied() {
    let budget = Budget::new(1 << 20);
    let whole = Bytes::from(vec![7; 5_000]);
    let collected = collect(Full::new(whole.clone()), 5_000, &budget)
        .await
        .expect("fits");
    assert_eq!(collected.bytes.as_ptr(), whole.as_ptr());
    assert_eq!(used(&budget), 5_000);
    drop(collected);
    assert_eq!(used(&budget), 0);
    for announced in [None, Some(30_000)] {
        let mut body = pieces(
            1_000,
            b"0123456789abcdefghijklmnopqrst",
            Duration::from_millis(1),
        );
        body.announced = announced;
        let collected = collect(body, 30_000, &budget).await.expect("fits");
        assert_eq!(
            collected.bytes,
            b"0123456789abcdefghijklmnopqrst".repeat(1_000)
        );
        assert!(used(&budget) >= collected.bytes.len());
        assert!(used(&budget) <= 2 * 32 * 1024 + 30);
        drop(collected.into_reservation());
        assert_eq!(used(&budget), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn too_large_announced_or_not() {
    let budget = Budget::new(1 << 20);
    let refused = collect(Full::new(Bytes::from_static(b"abcdef")), 5, &budget).await;
    assert_eq!(refused.err(), Some(Rejected::BodyTooLarge));
    let refused = collect(pieces(6, b"a", Duration::ZERO), 5, &budget).await;
    assert_eq!(refused.err(), Some(Rejected::BodyTooLarge));
    assert!(
        collect(pieces(5, b"a", Duration::ZERO), 5, &budget)
            .await
            .is_ok()
    );
    assert_eq!(used(&budget), 0);
}

#[tokio::test(start_paused = true)]
async fn slow_bodies_are_given_up() {
    let budget = Budget::new(1 << 20);
    // Nothing at all.
    let began = Instant::now();
    let silent = pieces(1, b"a", Duration::from_secs(3_600));
    assert_eq!(
        collect(silent, 100, &budget).await.err(),
        Some(Rejected::BodyTooSlow)
    );
    assert_eq!(began.elapsed().as_secs(), GRACE.as_secs());
    // A byte a second.
    let began = Instant::now();
    let trickle = pieces(10_000, b"a", Duration::from_secs(1));
    assert_eq!(
        collect(trickle, 10_000, &budget).await.err(),
        Some(Rejected::BodyTooSlow)
    );
    assert!(began.elapsed() < GRACE * 2);
    // Twice the least speed is served for as long as it takes.
    let steady = pieces(100, &[7; 2_048], Duration::from_secs(1));
    assert!(collect(steady, 1 << 20, &budget).await.is_ok());
    // But not for ever.
    let began = Instant::now();
    let endless = pieces(10_000, &[7; 2_048], Duration::from_secs(1));
    assert_eq!(
        collect(endless, 1 << 30, &Budget::new(1 << 30)).await.err(),
        Some(Rejected::BodyTooSlow)
    );
    assert!(began.elapsed() <= BODY_DEADLINE + Duration::from_secs(1));
    assert_eq!(used(&budget), 0);
}

#[tokio::test(start_paused = true)]
async fn all_bodies_together_have_a_budget() {
    let budget = Budget::new(10_000);
    let held = collect(Full::new(Bytes::from(vec![0; 9_000])), 10_000, &budget)
        .await
        .expect("fits");
    let refused = collect(Full::new(Bytes::from(vec![0; 1_001])), 10_000, &budget).await;
    assert_eq!(refused.err(), Some(Rejected::BodyMemory));
    assert_eq!(used(&budget), 9_000);
    drop(held);
    assert!(
        collect(Full::new(Bytes::from(vec![0; 1_001])), 10_000, &budget)
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn a_body_that_breaks_is_refused() {
    let frames = [Ok(Frame::data(Bytes::from_static(b"abc"))), Err("gone")];
    let body = StreamBody::new(futures_util::stream::iter(frames));
    let budget = Budget::new(1_000);
    let refused = collect(body, 100, &budget).await;
    assert_eq!(refused.err(), Some(Rejected::BodyBroken));
}
