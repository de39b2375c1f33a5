//! Every limit of the manager, and why it is what it is.

use std::time::Duration;

/// Decisions are made so often; reports come as often.
pub const TICK: Duration = Duration::from_secs(1);

/// A pod that has said nothing for so long gets no new clients: two reports are missing, and the third is late.
pub(crate) const SILENT_AFTER: Duration = Duration::from_millis(2_500);

/// One whose stream has ended opens another one within this, unless it is dead.
pub(crate) const GONE_AFTER: Duration = Duration::from_secs(1);

/// A pod that is ready and has never reported is left alone for so long, since it may have started just now.
pub(crate) const NEVER_HEARD_AFTER: Duration = Duration::from_secs(20);

/// Figures older than this are not counted when pods are added or removed.
pub(crate) const STALE_AFTER: Duration = Duration::from_secs(6);

/// A pod that nobody knows any more, and that was silent for so long, is forgotten: its leases are over.
pub(crate) const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// How long a share may be used without a further word.
pub const LEASE: Duration = Duration::from_secs(15);

/// Directives are repeated so often, so that leases do not end while both sides live.
pub(crate) const REFRESH: Duration = Duration::from_secs(3);

/// How long steering and shedding hold without a further word.
pub(crate) const VALID: Duration = Duration::from_secs(8);

/// A pod stays in a state of steering for so long at least: each change is a write that every node follows.
pub(crate) const DWELL: Duration = Duration::from_secs(10);

/// Messages that wait for the one owner of a fleet: a few seconds' worth of 1,000 pods. Senders wait when it is full.
pub(crate) const MAILBOX: usize = 4_096;

/// Largest message of a stream: a report with 10,000 caps, twice.
pub(crate) const MESSAGE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Streams of all gateways together: each holds a few kilobytes.
pub(crate) const STREAMS_MAX: usize = 10_000;

/// A stream on which nothing came for so long is ended: its pod opens another one.
pub(crate) const STREAM_SILENCE: Duration = Duration::from_secs(10);
