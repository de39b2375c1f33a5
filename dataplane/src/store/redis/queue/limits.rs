//! Limits of the queue in Redis that users do not set, each with its reason.

use std::time::Duration;

/// Partitions of a gateway's queue. Each is a log of its own whose entries one data plane delivers. Few, because entries
/// that come together are stored together per partition; enough to share out evenly among 1 to 6 shards and data planes,
/// and 12 of them at most. Must never change for entries that are to be found again.
pub(super) const QUEUE_PARTITIONS: u16 = 12;

/// Requests of one block, and the largest one that is stored in a block: little to unpack for one request.
pub(super) const BESIDE_BYTES: usize = 64 << 10;
/// Scripts hold a state per entry as an argument of one call, of which Lua takes some thousands.
pub(super) const BLOCK_ENTRIES_MAX: usize = 256;
/// No block or request that claims to be larger is unpacked; the largest body that can be configured is 64 MiB.
pub(super) const RAW_BYTES_MAX: usize = 96 << 20;
/// One request with its keys.
pub(super) const ENTRY_BYTES_MAX: usize = 60 << 20;
/// Names of applications are object names.
pub(super) const NAME_BYTES_MAX: usize = 253;
/// The beginning of a block that holds its head, whatever the name.
pub(super) const HEAD_BYTES: usize = 320;

/// Entries of one append, and their bytes: bounds how long one script holds the server.
pub(super) const APPEND_JOBS: usize = 512;
pub(super) const APPEND_BYTES: usize = 1 << 20;
/// Entries that wait to be written, of this process.
pub(super) const APPEND_WAITING_BYTES: usize = 48 << 20;
/// With so many entries an append does not wait for more: they cost the server a third of what they would cost it one by one,
/// and clients who wait for their answers send nothing meanwhile.
pub(super) const APPEND_ENOUGH: usize = 96;
/// Appends of a partition begin so far apart: a lone request does not wait, those of a burst share a call. The longest pace
/// is what an answer may be late for the server's sake.
pub(super) const APPEND_PACE_MIN: Duration = Duration::from_millis(2);
pub(super) const APPEND_PACE_MAX: Duration = Duration::from_millis(30);
/// A request beside a block that was never appended goes after this.
pub(super) const BESIDE_TTL_MS: u64 = 600_000;

/// Records of one call.
pub(super) const SETTLE_JOBS: usize = 256;
pub(super) const SETTLE_BYTES: usize = 256 << 10;
pub(super) const SETTLE_WAITING_BYTES: usize = 64 << 20;
pub(super) const SETTLE_PACE: Duration = Duration::from_millis(5);

/// A lease that was not renewed for so long may be taken by others. With the interval below, others deliver within 12 s.
pub(super) const LEASE_TTL: Duration = Duration::from_secs(9);
/// How often leases are renewed, shares looked at, and servers asked how full they are.
pub(super) const TICK: Duration = Duration::from_secs(1);
/// While partitions change hands, and for how long after data planes came or went: what is in them waits meanwhile.
pub(super) const HAND_OVER_TICK: Duration = Duration::from_millis(100);
pub(super) const HAND_OVER_FOR: Duration = Duration::from_secs(5);
/// What is in flight when a partition is given back is waited for so long.
pub(super) const LEAVE_GRACE: Duration = Duration::from_secs(5);
/// Pauses between two looks for entries that others appended: short while there are some.
pub(super) const POLL_MIN: Duration = Duration::from_millis(25);
pub(super) const POLL_MAX: Duration = Duration::from_millis(250);

/// One read: blocks, their bytes, and numbers looked at. Bounds how long a script holds the server.
pub(super) const READ_BLOCKS: usize = 128;
pub(super) const READ_BYTES: usize = 512 << 10;
pub(super) const READ_LOOKS: usize = 2_000;
/// Blocks that one claim or load fetches at a time.
pub(super) const FETCH_BLOCKS: usize = 16;
/// Unpacked blocks that are kept for claims and loads.
pub(super) const CACHE_BYTES: usize = 32 << 20;

/// Entries of one page.
pub(super) const PAGE_ENTRIES_MAX: usize = 1_000;
/// A search answers with what it has after reading so much, or after so long.
pub(super) const FIND_BYTES: usize = 16 << 20;
pub(super) const FIND_TIME: Duration = Duration::from_millis(1_500);
/// How far the order of entries may differ from that of their times: clocks of data planes, and an append that was
/// tried for as long as it may be.
pub(super) const SKEW_MS: u64 = 5_000;

/// Blocks that one trim looks at in one partition. When applications have different retention, a look goes round.
pub(super) const TRIM_BLOCKS: usize = 2_000;
pub(super) const DELETE_BLOCKS: usize = 200;

/// Part of a server's memory above which it takes no more entries: the rest is for verdicts and everything else.
pub(super) const MEMORY_HIGH: f64 = 0.9;

/// A full queue takes entries again below this, so that it does not change its mind with every request.
pub(super) fn reopen_bytes(budget_bytes: u64) -> u64 {
    budget_bytes - budget_bytes / 32
}

/// Above this, room is made.
pub(super) fn short_bytes(budget_bytes: u64) -> u64 {
    budget_bytes - budget_bytes / 16
}
