//! Limits of the embedded queue that users do not set, each with its reason.

use std::time::Duration;

/// A segment is what retention deletes at once, what recovery reads after a crash, and what compaction rewrites.
const SEGMENT_BYTES: u64 = 64 << 20;
/// A small budget is cut into so many segments at least, that retention is not all or nothing.
const SEGMENTS_MIN: u64 = 64;
/// A large one into so many at most: each takes memory, and a file or two.
const SEGMENTS_MAX: u64 = 4_096;
const SEGMENT_BYTES_MAX: u64 = 1 << 30;
/// Ordinals are counted in 24 bits of a token, and bitmaps have one bit for each.
pub(super) const SEGMENT_ENTRIES_MAX: u32 = 1 << 20;
/// The index of one segment stays below 4 MB.
pub(super) const SEGMENT_BLOCKS_MAX: usize = 1 << 16;
/// An unfinished segment is finished when it is older than this part of the shortest retention.
pub(super) const SEAL_RETENTION_PARTS: u32 = 8;
pub(super) const SEAL_AGE_MIN: Duration = Duration::from_secs(5);

/// Requests of one block: enough for compression to find repetition, little to unpack for one request.
pub(super) const BLOCK_REQUEST_BYTES: usize = 64 * 1024;
/// One write: bounds the buffer that it is made in.
pub(super) const FLUSH_REQUEST_BYTES: usize = 4 << 20;
/// So much is written without waiting for more.
pub(super) const GATHER_BYTES: usize = 256 * 1024;
/// Writes begin at least so far apart. A lone request does not wait; those of a burst share a write.
pub(super) const FLUSH_PACE: Duration = Duration::from_millis(1);
/// Requests that wait to be written; beyond it the disk is too slow for what comes.
pub(super) const PENDING_BYTES_MAX: usize = 64 << 20;
/// One request with its keys; the largest body that can be configured is 64 MiB.
pub(super) const ENTRY_BYTES_MAX: usize = 80 << 20;
/// Recovery takes no block for one that claims to be larger.
pub(super) const BLOCK_BYTES_MAX: usize = 256 << 20;
/// Names of applications are object names.
pub(super) const NAME_BYTES_MAX: usize = 1_024;

/// Blocks just written, for deliveries that keep up.
pub(super) const TAIL_CACHE_BYTES: usize = 8 << 20;
/// Unpacked blocks, for deliveries that are behind.
pub(super) const BLOCK_CACHE_BYTES: usize = 16 << 20;
/// Indexes of finished segments.
pub(super) const INDEX_CACHE_BYTES: usize = 16 << 20;
/// Opened segments, whose files count too.
pub(super) const OPEN_SEGMENTS_MAX: usize = 128;
/// Verdict files that are kept open for writing.
pub(super) const OPEN_VERDICTS_MAX: usize = 64;

/// Given back when the disk is full, so that verdicts can still be recorded.
pub(super) const RESERVE_BYTES: usize = 4 << 20;
/// A disk that failed is tried again with the first append after it.
pub(super) const PROBE_PAUSE: Duration = Duration::from_millis(250);
/// What was written without fsync (verdicts; entries with `Memory`) is so much at risk if the machine dies.
pub(super) const SYNC_PAUSE: Duration = Duration::from_secs(1);
/// Verdicts of a segment that are read again after a crash, before the segment's state is saved anew.
pub(super) const CHECKPOINT_RECORDS: u64 = 1 << 16;

/// A search answers with what it has after reading so much, or after so long.
pub(super) const FIND_BYTES: usize = 64 << 20;
pub(super) const FIND_TIME: Duration = Duration::from_millis(200);
/// Entries of one page.
pub(super) const PAGE_ENTRIES_MAX: usize = 1_000;
/// Requests that wait for a thread of the queue: claims and loads, and searches.
pub(super) const READS_MAX: usize = 1_024;
pub(super) const SEARCHES_MAX: usize = 64;
/// Calls that wait for their verdicts to be written.
pub(super) const SETTLES_MAX: usize = 1 << 16;

/// Old segments are rewritten when at least one part in so many goes away; under a short budget earlier.
pub(super) const COMPACT_PART: u64 = 2;
pub(super) const COMPACT_PART_SHORT: u64 = 8;

/// A finished segment of small, badly compressed blocks is rewritten once with larger ones: requests that came one by one
/// are alike only to each other. Smaller segments, larger blocks and better compression are not worth it.
pub(super) const REPACK_LOG_BYTES: u64 = 1 << 20;
pub(super) const REPACK_BLOCK_BYTES: u64 = BLOCK_REQUEST_BYTES as u64 / 4;
pub(super) const REPACK_RATIO: u64 = 3;
/// After it could not be done.
pub(super) const REPACK_PAUSE: Duration = Duration::from_secs(60);

pub(super) fn segment_bytes(budget_bytes: u64) -> u64 {
    let largest = (budget_bytes / SEGMENTS_MAX).clamp(SEGMENT_BYTES, SEGMENT_BYTES_MAX);
    (budget_bytes / SEGMENTS_MIN).clamp(1 << 20, largest)
}

/// A full queue takes entries again below this, so that it does not change its mind with every request.
pub(super) fn reopen_bytes(budget_bytes: u64) -> u64 {
    budget_bytes - budget_bytes / 32
}

/// Above this, room is made.
pub(super) fn short_bytes(budget_bytes: u64) -> u64 {
    budget_bytes - budget_bytes / 16
}
