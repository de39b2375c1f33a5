//! What retention and the budget ask of a segment. Pure.

use std::time::Duration;

use super::limits::{
    COMPACT_PART, COMPACT_PART_SHORT, REPACK_BLOCK_BYTES, REPACK_LOG_BYTES, REPACK_RATIO,
    SEAL_AGE_MIN, SEAL_RETENTION_PARTS,
};
use super::segment::{LaneId, Segment};
use crate::store::queue::{Horizon, Lane};

/// What compaction may leave out.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut<'a> {
    pub(super) horizon: Option<&'a Horizon>,
    pub(super) now_ms: u64,
    /// The budget is short: everything that is settled.
    pub(super) short: bool,
}

impl Cut<'_> {
    /// Whether a settled entry may go.
    pub(super) fn takes(&self, application: &str, accepted_ms: u64) -> bool {
        let old = |horizon| is_older(horizon, application, accepted_ms, self.now_ms, 1);
        self.short || self.horizon.is_some_and(old)
    }
}

fn time_of(horizon: &Horizon, application: &str) -> Duration {
    let own = horizon.by_application.get(application);
    own.copied().unwrap_or(horizon.default)
}

fn millis(time: Duration) -> u64 {
    time.as_millis().try_into().unwrap_or(u64::MAX)
}

fn is_older(horizon: &Horizon, application: &str, at_ms: u64, now_ms: u64, times: u64) -> bool {
    let time = millis(time_of(horizon, application)).saturating_mul(times);
    at_ms.saturating_add(time) < now_ms
}

/// Whether a live segment is to be finished, so that retention can get at it.
pub(super) fn seal_is_due(segment: &Segment, horizon: &Horizon, now_ms: u64) -> bool {
    let times = horizon.by_application.values();
    let shortest = times.copied().chain([horizon.default]).min();
    let age = shortest.map_or(SEAL_AGE_MIN, |time| time / SEAL_RETENTION_PARTS);
    segment.entries > 0 && now_ms.saturating_sub(segment.min_ms) > millis(age.max(SEAL_AGE_MIN))
}

/// Whether all of a segment may go.
pub(super) fn has_expired(
    segment: &Segment,
    lane: impl Fn(LaneId) -> Lane,
    horizon: &Horizon,
    now_ms: u64,
) -> bool {
    !segment.is_live()
        && segment.waiting == 0
        && segment
            .lanes
            .iter()
            .filter(|of| of.entries > 0)
            .all(|of| is_older(horizon, &lane(of.lane).application, of.max_ms, now_ms, 1))
}

/// Whether enough of a segment may go. What is long overdue goes even where that frees little.
pub(super) fn is_worth_compacting(
    segment: &Segment,
    lane: impl Fn(LaneId) -> Lane,
    cut: &Cut<'_>,
) -> bool {
    if segment.is_live() || segment.waiting == segment.entries {
        return false;
    }
    let mut total = 0;
    let mut removable = 0;
    let mut overdue = false;
    for of in segment.lanes.iter().filter(|of| of.entries > 0) {
        total += of.request_bytes;
        let settled = of.request_bytes.saturating_sub(of.counts.waiting_bytes);
        let lane = lane(of.lane);
        if cut.takes(&lane.application, of.max_ms) {
            removable += settled;
            let long = |horizon| is_older(horizon, &lane.application, of.max_ms, cut.now_ms, 2);
            overdue |= of.counts.waiting < of.entries && cut.horizon.is_some_and(long);
        }
    }
    let part = if cut.short {
        COMPACT_PART_SHORT
    } else {
        COMPACT_PART
    };
    overdue || removable > 0 && removable.saturating_mul(part) >= total
}

/// Whether a segment as it was written would be much smaller with larger blocks.
pub(super) fn is_worth_repacking(segment: &Segment) -> bool {
    let requests: u64 = segment.lanes.iter().map(|of| of.request_bytes).sum();
    !segment.is_live()
        && segment.generation == 0
        && segment.log_bytes >= REPACK_LOG_BYTES
        && requests < REPACK_BLOCK_BYTES.saturating_mul(segment.blocks.into())
        && requests < REPACK_RATIO.saturating_mul(segment.log_bytes)
}
