//! Limits of the relay that users do not set, each with its reason.

use std::time::Duration;

/// A connection that has not sent a connect command by then is of no use to anyone (3502).
pub const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// How long the peer may take to answer our close frame before the socket is dropped.
pub const CLOSE_HANDSHAKE: Duration = Duration::from_secs(5);
/// How long in all, for a peer that still sends or takes bytes meanwhile.
pub const CLOSE_HANDSHAKE_BUSY: Duration = Duration::from_secs(30);
/// One read takes at most this much; shared by all connections of a worker.
pub const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Bytes the kernel holds for a client beyond what is on the wire: one write. The rest waits in the outbox, where a message is
/// shared by all its readers.
pub const KERNEL_UNSENT_BYTES: u32 = 64 * 1024;
/// The kernel's buffer for what a client sends: one read.
pub const KERNEL_RECEIVE_BYTES: usize = 64 * 1024;
/// Frames are copied together into one write up to this size: above it copying costs more than a system call saves.
pub const WRITE_GATHER_BYTES: usize = 64 * 1024;
/// Frames in one write; the kernel takes 1,024, but by then the gather limit has been reached.
pub const WRITE_FRAMES_MAX: usize = 256;
/// Events that wait for a worker before publishers are made to wait: a round's worth of batching, and little memory.
pub const MAILBOX_EVENTS_MAX: usize = 64;
/// Payload bytes that wait for a worker before publishers are made to wait: well below a client's queue limit, so that one
/// round cannot overrun readers that keep up. Large messages gain nothing from being written together.
pub const MAILBOX_BYTES_MAX: usize = 256 * 1024;
/// Sockets written between two looks at other work of the worker: about half a millisecond.
pub const FLUSHES_PER_TURN: usize = 64;
/// Events held back for a member whose subscribe reply is being made; more means it has to recover.
pub const HELD_EVENTS_MAX: usize = 1_024;
/// Server-API and hub orders that wait for one connection; a connection that takes none is being closed anyway.
pub const CONTROLS_MAX: usize = 512;
/// How often one publisher may pass the gate of a congested channel: slow readers delay publishers, they cannot stop them.
pub const CONGESTION_PASS: Duration = Duration::from_secs(5);
/// A publisher waits so long for its readers, then it gets a temporary error: its connection is read on, so that its pongs come
/// through, and SDKs give a command 5 s.
pub const PUBLISH_WAIT: Duration = Duration::from_secs(3);
/// A reader that took nothing for so long is no reason for publishers to wait.
pub const STUCK_MS: u64 = 10_000;
/// A pong is not overdue while the connection itself did not look for it: handling that took longer gives the time back.
pub const HANDLING_LONG_MS: u64 = 1_000;
/// How often congested channels are looked at again.
pub const CONGESTION_LOOK: Duration = Duration::from_millis(20);
/// Under memory pressure a client may have no more than this waiting, whatever its own limit.
pub const QUEUE_BYTES_UNDER_PRESSURE: usize = 64 * 1024;
/// A message below this size needs no reservation of inbound memory.
pub const UNRESERVED_MESSAGE_BYTES: usize = 4 * 1024;
/// A client that sent less since the ping has no backlog that its pong could wait behind.
pub const PONG_BEHIND_BYTES_MIN: usize = 16 * 1024;
/// A client that took less since the ping has no backlog that the ping could wait behind.
pub const PING_BEHIND_BYTES_MIN: usize = 64 * 1024;
/// How often a client with a backlog gets the pong time once more: a minute of bulk sending, or of trickling.
pub const PONG_EXTENSIONS_MAX: u8 = 6;
/// How long a server API request's body may take to arrive.
pub const API_BODY_DEADLINE: Duration = Duration::from_secs(30);
/// Lease of this process in presence, and how often it is renewed.
pub const PRESENCE_LEASE: Duration = Duration::from_secs(10);
pub const PRESENCE_RENEW: Duration = Duration::from_secs(3);
/// HTTP connections that are not (yet) WebSockets; further ones wait in the listen queue.
pub const HANDSHAKES_MAX: usize = 4_096;
/// Time for TLS handshake and request head.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Body of a server API request: a batch of some thousand publications.
pub const API_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// File descriptors kept for listeners, admin and stores when the connection limit is derived from the process limit.
pub const RESERVED_DESCRIPTORS: usize = 256;
/// Connections' timers fire at multiples of this: nothing of theirs is more precise than seconds.
pub const TIMER_GRAIN_MS: u64 = 32;
