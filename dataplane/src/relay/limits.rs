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
/// The same for events of other processes, whose publishers cannot be made to wait: then their connection waits, with all
/// channels of a shard, so only when a worker is well behind.
pub const MAILBOX_FOREIGN_EVENTS_MAX: usize = 8_192;
pub const MAILBOX_FOREIGN_BYTES_MAX: usize = 16 * 1024 * 1024;
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
/// How much longer a queue may be than it should for a client that takes bytes all the while, and for how long: such a client
/// has it short again by then, or is slow. Memory is bounded besides, over all clients of a worker.
pub const BURST_QUEUES: usize = 4;
pub const BURST_MS: u64 = 1_000;
/// A socket that took nothing for so long takes nothing; longer than the worker's clock may be behind.
pub const TAKING_MS: u64 = 300;
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
/// Lease of this process in presence, and how often it is renewed. The clients of a process that dies are shown for no longer
/// than 10 s, the answer's way included; a shard of the store may be away for the rest of a lease.
pub const PRESENCE_LEASE: Duration = Duration::from_secs(9);
pub const PRESENCE_RENEW: Duration = Duration::from_secs(3);
/// HTTP connections that are not (yet) WebSockets; further ones wait in the listen queue.
pub const HANDSHAKES_MAX: usize = 4_096;
/// Time for TLS handshake and request head.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// Time for a request head once its first byte is here, on any HTTP connection.
pub const HEAD_DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection that makes ingest requests may be silent between them; a little more than proxies in front
/// keep theirs, so that they close first.
pub const INGEST_IDLE: Duration = Duration::from_secs(75);
/// What a client may take to read an answer whatever its size.
pub const ANSWER_GRACE: Duration = Duration::from_secs(20);
/// Beyond that it has to read at least this fast: a place among concurrent requests is held for it.
pub const ANSWER_BYTES_PER_SECOND_MIN: u64 = 1_024;
/// How long, and how much, a client that was refused may go on sending before its connection is cut.
pub const LINGER: Duration = Duration::from_secs(2);
pub const LINGER_BYTES_MAX: usize = 1024 * 1024;
/// Requests at a time on one HTTP/2 connection.
pub const HTTP2_STREAMS_MAX: u32 = 128;
/// What one request's body, and all bodies of one HTTP/2 connection, may have on their way to us unread.
pub const HTTP2_STREAM_WINDOW_BYTES: u32 = 64 * 1024;
pub const HTTP2_CONNECTION_WINDOW_BYTES: u32 = 256 * 1024;
/// What one HTTP/2 request's answer may have waiting to be sent.
pub const HTTP2_SEND_BUFFER_BYTES: usize = 64 * 1024;
/// Requests that an HTTP/2 client may open and cancel before we have looked at them (rapid reset).
pub const HTTP2_RESETS_MAX: usize = 32;
/// Requests of one HTTP/2 connection that we may have to cancel for its errors before it is closed.
pub const HTTP2_ERRORS_MAX: usize = 128;
/// A peer that is gone without a word is found by a ping after this, and given as much again to answer.
pub const HTTP2_PING: Duration = Duration::from_secs(20);
/// An HTTP/2 connection on which requests are under way and nothing begins or ends is cut.
pub const HTTP2_STALLED: Duration = Duration::from_secs(300);
/// Time for an HTTP/2 connection to end after it was told to.
pub const HTTP2_GOODBYE: Duration = Duration::from_secs(5);
/// Body of a server API request: a batch of some thousand publications.
pub const API_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// File descriptors kept for listeners, admin and stores when the connection limit is derived from the process limit.
pub const RESERVED_DESCRIPTORS: usize = 256;
/// Connections' timers fire at multiples of this: nothing of theirs is more precise than seconds.
pub const TIMER_GRAIN_MS: u64 = 32;
