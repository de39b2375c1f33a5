//! What waits to be written to one client, and the slow-consumer rule.
//!
//! A client is slow when more waits for it than it may have. One whose socket goes on taking bytes may have several times as
//! much for a moment: large messages fill a queue within milliseconds, long before publishers can be made to wait.
//!
//! Frames are built once per worker and shared by reference count, so a queue costs its pointers. One frame fits
//! inline: a client that keeps up never allocates here.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use super::limits::BURST_MS;

/// Bytes of all frames alive on one worker, whatever queues they are in.
pub type FrameBytes = Rc<Cell<usize>>;

/// One or more whole WebSocket frames, ready to write. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Frame(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    bytes: Box<[u8]>,
    alive: FrameBytes,
}

impl Frame {
    pub fn new(bytes: Vec<u8>, alive: &FrameBytes) -> Self {
        alive.set(alive.get() + bytes.len());
        Self(Rc::new(Inner {
            bytes: bytes.into(),
            alive: Rc::clone(alive),
        }))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.alive
            .set(self.alive.get().saturating_sub(self.bytes.len()));
    }
}

#[derive(Debug, Default)]
enum Queue {
    #[default]
    Empty,
    One(Frame),
    Many(VecDeque<Frame>),
}

/// The queue is over its limit: the client is too slow.
#[derive(Debug, PartialEq, Eq)]
pub struct Overflow;

/// What one client may have waiting, as of now.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    pub queue_bytes: usize,
    /// For a moment, while its socket takes bytes.
    pub burst_bytes: usize,
    /// On the worker's clock.
    pub now_ms: u64,
}

#[derive(Debug, Default)]
pub struct Outbox {
    queue: Queue,
    /// Bytes of the first frame that are written already.
    written: usize,
    /// Bytes still to write.
    waiting: usize,
    /// Since when there has been more than the client may have for long; 0 when there is not.
    over_since_ms: u64,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    pub fn waiting_bytes(&self) -> usize {
        self.waiting
    }

    /// Queues a frame, unless bytes are waiting already and the frame would take them over the limit: a single
    /// frame larger than the limit may pass. `taking`: the socket has not been full for long.
    pub fn push(
        &mut self,
        frame: Frame,
        allowance: Allowance,
        taking: bool,
    ) -> Result<(), Overflow> {
        let after = self.waiting + frame.bytes().len();
        if self.waiting == 0 || after <= allowance.queue_bytes {
            self.over_since_ms = 0;
        } else {
            if self.over_since_ms == 0 || self.waiting <= allowance.queue_bytes {
                self.over_since_ms = allowance.now_ms.max(1);
            }
            let for_a_moment = allowance.now_ms.saturating_sub(self.over_since_ms) < BURST_MS;
            if !(taking && for_a_moment && after <= allowance.burst_bytes) {
                return Err(Overflow);
            }
        }
        self.push_unchecked(frame);
        Ok(())
    }

    /// For the close frame, which must always fit.
    pub fn push_unchecked(&mut self, frame: Frame) {
        self.waiting += frame.bytes().len();
        self.queue = match std::mem::take(&mut self.queue) {
            Queue::Empty => Queue::One(frame),
            Queue::One(first) => Queue::Many(VecDeque::from([first, frame])),
            Queue::Many(mut frames) => {
                frames.push_back(frame);
                Queue::Many(frames)
            }
        };
    }

    /// Drops what has not begun to be written: a frame cut in the middle would break the stream.
    pub fn discard_unwritten(&mut self) {
        let first = match std::mem::take(&mut self.queue) {
            Queue::Empty => None,
            Queue::One(frame) => Some(frame),
            Queue::Many(mut frames) => frames.pop_front(),
        };
        self.waiting = 0;
        if let Some(frame) = first.filter(|_| self.written > 0) {
            self.waiting = frame.bytes().len() - self.written;
            self.queue = Queue::One(frame);
        }
    }

    /// The unwritten slices in order; at most `count`.
    pub fn slices(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        let (one, many) = match &self.queue {
            Queue::Empty => (None, None),
            Queue::One(frame) => (Some(frame), None),
            Queue::Many(frames) => (None, Some(frames)),
        };
        let frames = one.into_iter().chain(many.into_iter().flatten());
        frames.take(count).enumerate().map(|(index, frame)| {
            if index == 0 {
                &frame.bytes()[self.written..]
            } else {
                frame.bytes()
            }
        })
    }

    /// `bytes` of the front have been written.
    pub fn advance(&mut self, mut bytes: usize) {
        self.waiting -= bytes;
        if self.waiting == 0 {
            // Also gives the memory of a grown queue back.
            self.queue = Queue::Empty;
            self.written = 0;
            return;
        }
        match &mut self.queue {
            Queue::Empty => {}
            Queue::One(_) => self.written += bytes,
            Queue::Many(frames) => {
                while let Some(front) = frames.front() {
                    let left = front.bytes().len() - self.written;
                    if bytes < left {
                        self.written += bytes;
                        break;
                    }
                    bytes -= left;
                    self.written = 0;
                    frames.pop_front();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the socket takes at a time, the bytes leave in order and the count stays exact.
        #[test]
        fn bytes_leave_in_order(frames in prop::collection::vec(1usize..50, 1..40), takes in prop::collection::vec(1usize..70, 1..200)) {
            let alive = FrameBytes::default();
            let mut outbox = Outbox::default();
            let mut want = Vec::new();
            let mut next = 0u8;
            for len in frames {
                let bytes: Vec<u8> = (0..len).map(|_| { next = next.wrapping_add(1); next }).collect();
                want.extend_from_slice(&bytes);
                outbox.push_unchecked(Frame::new(bytes, &alive));
            }
            let mut got = Vec::new();
            for take in takes {
                let chunk: Vec<u8> = outbox.slices(16).flatten().copied().take(take).collect();
                outbox.advance(chunk.len());
                got.extend(chunk);
                prop_assert_eq!(outbox.waiting_bytes(), want.len() - got.len());
            }
            prop_assert_eq!(&got[..], &want[..got.len()]);
            drop(outbox);
            prop_assert_eq!(alive.get(), 0);
        }
    }

    #[test]
    fn a_queue_over_its_limit_refuses_but_one_large_frame_passes() {
        let alive = FrameBytes::default();
        let frame = |bytes| Frame::new(vec![0; bytes], &alive);
        let mut outbox = Outbox::default();
        assert_eq!(outbox.push(frame(200), at(0), false), Ok(()));
        assert_eq!(outbox.push(frame(1), at(0), false), Err(Overflow));
        outbox.advance(150);
        assert_eq!(outbox.push(frame(50), at(0), false), Ok(()));
    }

    /// 100 bytes, 400 for a moment.
    fn at(now_ms: u64) -> Allowance {
        Allowance {
            queue_bytes: 100,
            burst_bytes: 400,
            now_ms,
        }
    }

    #[test]
    fn a_client_that_takes_bytes_is_spared_for_a_moment_and_up_to_a_bound() {
        let alive = FrameBytes::default();
        let frame = |bytes| Frame::new(vec![0; bytes], &alive);
        let mut outbox = Outbox::default();
        for _ in 0..4 {
            assert_eq!(outbox.push(frame(100), at(10), true), Ok(()));
        }
        assert_eq!(outbox.push(frame(1), at(10), true), Err(Overflow), "bound");
        outbox.advance(250);
        assert_eq!(outbox.push(frame(10), at(10), false), Err(Overflow), "full");
        assert_eq!(outbox.push(frame(10), at(BURST_MS + 9), true), Ok(()));
        let late = outbox.push(frame(10), at(BURST_MS + 10), true);
        assert_eq!(late, Err(Overflow), "over for too long");
        // Under the limit once: the next burst counts anew.
        outbox.advance(100);
        assert_eq!(outbox.push(frame(90), at(BURST_MS + 20), true), Ok(()));
        let next = outbox.push(frame(90), at(BURST_MS * 2 + 19), true);
        assert_eq!(next, Ok(()));
    }

    #[test]
    fn discarding_keeps_the_frame_that_is_half_written() {
        let alive = FrameBytes::default();
        let mut outbox = Outbox::default();
        outbox.push_unchecked(Frame::new(vec![1; 10], &alive));
        outbox.push_unchecked(Frame::new(vec![2; 10], &alive));
        outbox.advance(4);
        outbox.discard_unwritten();
        assert_eq!(outbox.slices(9).collect::<Vec<_>>(), [&[1u8; 6][..]]);
        assert_eq!(alive.get(), 10);
    }
}
