//! Request bodies: from a stream of frames to one run of bytes, within limits of size, time and memory.
//!
//! Memory is reserved as bytes arrive and not as they are announced: whoever announces much and sends little holds little.
//! A body that came in one piece is not copied.

use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use http_body_util::BodyExt;
use hyper::body::Body;
use tokio::time::{Instant, timeout_at};

use super::decision::Rejected;

/// What a body may take whatever its size: a phone in a tunnel.
const GRACE: Duration = Duration::from_secs(20);
/// Beyond that it has to come at least this fast; slower ones hold memory and a place for nothing.
const BYTES_PER_SECOND_MIN: u64 = 1_024;
/// However large it is and however steadily it comes.
const BODY_DEADLINE: Duration = Duration::from_secs(300);
/// First room for a body that comes in several pieces.
const ROOM_BYTES_MIN: usize = 8 * 1024;

/// Memory for the bodies of all requests of the process.
#[repr(align(128))]
pub struct Budget {
    limit_bytes: usize,
    used_bytes: AtomicUsize,
}

impl Budget {
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit_bytes,
            used_bytes: AtomicUsize::new(0),
        }
    }

    fn reserve(&self, bytes: usize) -> bool {
        let before = self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before
            .checked_add(bytes)
            .is_some_and(|after| after <= self.limit_bytes);
        if !fits {
            self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        fits
    }
}

/// A body and its part of the budget, which is given back when this is dropped.
pub struct Collected<'b> {
    pub bytes: Bytes,
    reserved: Reserved<'b>,
}

impl<'b> Collected<'b> {
    /// The bytes are not needed any more, what was made of them is as large.
    pub fn into_reservation(self) -> Reserved<'b> {
        self.reserved
    }
}

pub struct Reserved<'b> {
    budget: &'b Budget,
    bytes: usize,
}

impl Reserved<'_> {
    fn grow(&mut self, bytes: usize) -> Result<(), Rejected> {
        if !self.budget.reserve(bytes) {
            return Err(Rejected::BodyMemory);
        }
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        self.budget
            .used_bytes
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Until when more has to have come, by what there is.
fn deadline(received_bytes: usize) -> Duration {
    let earned = Duration::from_secs(received_bytes as u64 / BYTES_PER_SECOND_MIN);
    (GRACE + earned).min(BODY_DEADLINE)
}

pub async fn collect<B>(
    body: B,
    limit_bytes: usize,
    budget: &Budget,
) -> Result<Collected<'_>, Rejected>
where
    B: Body<Data = Bytes>,
{
    let mut reserved = Reserved { budget, bytes: 0 };
    let announced = body.size_hint();
    if announced.lower() > limit_bytes as u64 {
        return Err(Rejected::BodyTooLarge);
    }
    let announced = announced
        .exact()
        .and_then(|bytes| usize::try_from(bytes).ok());
    let mut body = pin!(body);
    if body.is_end_stream() {
        return Ok(Collected {
            bytes: Bytes::new(),
            reserved,
        });
    }
    let mut began = None;
    let mut first = Bytes::new();
    let mut pieces = BytesMut::new();
    loop {
        let received = first.len() + pieces.len();
        // Most bodies are here with their heads, and need no clock.
        let frame = match body.frame().now_or_never() {
            Some(frame) => frame,
            None => {
                let began = *began.get_or_insert_with(Instant::now);
                // Boxed, so that those that need no clock have no place for one.
                Box::pin(timeout_at(began + deadline(received), body.frame()))
                    .await
                    .map_err(|_| Rejected::BodyTooSlow)?
            }
        };
        let data = match frame {
            None => break,
            Some(Err(_)) => return Err(Rejected::BodyBroken),
            // Trailers are not delivered.
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) if !data.is_empty() => data,
                _ => continue,
            },
        };
        if data.len() > limit_bytes - received {
            return Err(Rejected::BodyTooLarge);
        }
        if received == 0 {
            reserved.grow(data.len())?;
            first = data;
            if body.is_end_stream() {
                break;
            }
            continue;
        }
        let room = room(pieces.capacity(), received + data.len(), announced);
        if room > pieces.capacity() {
            reserved.grow(room - pieces.capacity())?;
            pieces.reserve(room - pieces.len());
        }
        if pieces.is_empty() {
            pieces.extend_from_slice(&first);
            first = Bytes::new();
        }
        pieces.extend_from_slice(&data);
    }
    let bytes = if pieces.is_empty() {
        first
    } else {
        pieces.freeze()
    };
    Ok(Collected { bytes, reserved })
}

/// How much room to have for what is there now: doubled, so that copying stays linear, up to what was announced.
fn room(capacity: usize, needed: usize, announced: Option<usize>) -> usize {
    if needed <= capacity {
        return capacity;
    }
    let doubled = needed.max(capacity * 2).max(ROOM_BYTES_MIN);
    announced.map_or(doubled, |announced| doubled.min(announced.max(needed)))
}

#[cfg(test)]
mod tests;
