//! Decides what a subscriber has missed and whether it gets it: recovery, and the seam between stream and live events.
//!
//! Pure. A subscription collects live events from before the broker's subscribe until its reply is written; then
//! [`begin`] joins what was read from the stream with what was collected. From there on [`check_live`] guards every
//! publication. Either a subscriber gets exactly the publications it misses, or it is told that it cannot: never
//! a silent gap, never one twice.
//!
//! Publications without a position (from channels without history, or published past it) belong to no stream; they
//! do not come here. Tag filters apply to what this module lets through, not before: a filtered publication is no gap.

use std::sync::Arc;

use thiserror::Error;

use crate::relay::protocol::{Position, Publication};
use crate::store::{ReadOptions, StreamRead};

#[cfg(test)]
mod tests;

/// The most publications one recovery or history read returns. Who missed more starts anew.
pub const MAX_RECOVERED: usize = 300;

/// Events were lost between the stream and the live feed, or the stream was replaced: the subscription cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("insufficient state")]
pub struct Gap;

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

/// Whether `read`, made with [`read_options`] after live events were being collected, is all that was missed.
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

/// Joins the stream's part that was read (up to `top`) with the live events collected meanwhile, which may overlap.
///
/// `recovered` is empty when nothing is to be recovered; the result is then what came after `top`.
pub fn merge(
    recovered: Vec<Arc<Publication>>,
    top: &Position,
    collected: Vec<(Arc<Publication>, Position)>,
) -> Result<Vec<Arc<Publication>>, Gap> {
    let mut merged = recovered;
    let mut position = top.clone();
    for (publication, at) in collected {
        match check_live(&position, &at) {
            Live::Deliver => {
                merged.push(publication);
                position.offset = at.offset;
            }
            Live::Drop => {}
            Live::Gap => return Err(Gap),
        }
    }
    Ok(merged)
}

/// The beginning of a positioned subscription; `request` is `None` when the client does not ask to recover.
///
/// Collected publications that a subscriber without recovery does not get count as from before its subscription.
pub fn begin(
    request: Option<&Position>,
    read: StreamRead,
    collected: Vec<(Arc<Publication>, Position)>,
) -> Result<Beginning, Gap> {
    let recovered = request.is_some_and(|request| is_recovered(request, &read));
    let top = read.top;
    let missed = if recovered {
        read.publications
    } else {
        Vec::new()
    };
    let mut publications = merge(missed, &top, collected)?;
    let newest = publications
        .last()
        .map_or(top.offset, |newest| newest.offset.max(top.offset));
    let live = Position {
        offset: newest,
        epoch: top.epoch,
    };
    let reply = match request {
        Some(request) if recovered => Position {
            offset: request.offset,
            epoch: live.epoch.clone(),
        },
        _ => {
            publications.clear();
            live.clone()
        }
    };
    Ok(Beginning {
        recovered,
        publications,
        reply,
        live,
    })
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
