//! Decides what a subscriber has missed and whether it gets it: recovery, and the seam between stream and live events.
//!
//! Pure. Live events are held back from before the broker's subscribe until the subscribe reply is written.
//! [`begin`] makes the reply from what was read of the stream; from there on [`check_live`] guards every publication,
//! first those held back, which may overlap with what was read. Either a subscriber gets exactly the publications it
//! misses, or it is told that it cannot: never a silent gap, never one twice.
//!
//! Publications without a position (from channels without history, or published past it) belong to no stream; they
//! do not come here. Tag filters apply to what this module lets through, not before: a filtered publication is no gap.

use std::sync::Arc;

use crate::relay::protocol::{Position, Publication};
use crate::store::{ReadOptions, StreamRead};

#[cfg(test)]
mod tests;

/// The most publications one recovery or history read returns. Who missed more starts anew.
pub const MAX_RECOVERED: usize = 300;

/// How a positioned subscription begins.
#[derive(Debug, Clone, PartialEq)]
pub struct Beginning {
    pub recovered: bool,
    /// What the subscriber missed, oldest first; empty unless recovered.
    pub publications: Vec<Arc<Publication>>,
    /// For the reply: the requested offset when recovered (the publications lead on from there), else `live`'s.
    pub reply: Position,
    /// What the subscriber knows once it has the reply: the first live publication has the next offset.
    pub live: Position,
}

/// What to do with a live publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Live {
    /// It is the next one: deliver it and move the position to it.
    Deliver,
    /// The subscriber has it.
    Drop,
    /// One before it is missing, or the stream was replaced: end the subscription (2500, server-side 3010).
    Gap,
}

/// How to read a stream for a subscription that begins. `request` is the position a client asks to recover from.
///
/// The epoch is left to [`begin`], so that one read yields the top even when the request is void.
pub fn read_options(request: Option<&Position>) -> ReadOptions {
    match request {
        Some(request) => ReadOptions {
            since: Some(Position {
                offset: request.offset,
                epoch: Arc::default(),
            }),
            limit: Some(MAX_RECOVERED),
            reverse: false,
        },
        None => ReadOptions {
            since: None,
            limit: Some(0),
            reverse: false,
        },
    }
}

/// Whether `read`, made with [`read_options`] while live events were held back, is all that was missed.
pub fn is_recovered(request: &Position, read: &StreamRead) -> bool {
    if !request.epoch.is_empty() && request.epoch != read.top.epoch {
        return false;
    }
    // The last publication may lie below the top: more were missed than one recovery takes.
    let mut offset = request.offset;
    let gapless = read.publications.iter().all(|publication| {
        let next = offset.checked_add(1) == Some(publication.offset);
        offset = publication.offset;
        next
    });
    gapless && offset == read.top.offset
}

/// The beginning of a positioned subscription; `request` is `None` when the client does not ask to recover.
pub fn begin(request: Option<&Position>, read: StreamRead) -> Beginning {
    let recovered = request.is_some_and(|request| is_recovered(request, &read));
    let live = read.top;
    match request {
        Some(request) if recovered => Beginning {
            recovered,
            publications: read.publications,
            reply: Position {
                offset: request.offset,
                epoch: live.epoch.clone(),
            },
            live,
        },
        _ => Beginning {
            recovered,
            publications: Vec::new(),
            reply: live.clone(),
            live,
        },
    }
}

/// Compares a live publication's position with the subscriber's.
pub fn check_live(held: &Position, at: &Position) -> Live {
    if at.epoch != held.epoch {
        return Live::Gap;
    }
    match held.offset.checked_add(1) {
        Some(next) if at.offset == next => Live::Deliver,
        Some(next) if at.offset > next => Live::Gap,
        _ => Live::Drop,
    }
}
