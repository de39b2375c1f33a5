//! Limits of the process itself, each with its reason.
//!
//! What a user may tune per gateway is in `GatewayConfig`; what one module alone needs is a constant of that module.
//! Nothing here is read from flags or the environment.

use std::time::Duration;

/// How often manifests and secrets are looked at. Mounted files change about once a minute, and a person who edits
/// one expects an answer at once.
pub const CONFIG_POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Connections to the admin port at a time: probes, a scraper or two and a person. More wait in the backlog.
pub const ADMIN_CONNECTIONS_MAX: usize = 32;
/// A client of the admin port is near and quick; one that is not must not hold a place.
pub const ADMIN_HEADER_TIMEOUT: Duration = Duration::from_secs(3);
/// Whole life of an admin connection, the answer read included.
pub const ADMIN_CONNECTION_TIMEOUT: Duration = Duration::from_secs(10);
/// Read buffer of an admin connection, which also bounds the request head. No less than hyper's minimum of 8 KiB.
pub const ADMIN_REQUEST_BYTES_MAX: usize = 16 * 1024;
/// A log filter is a line of text.
pub const ADMIN_BODY_BYTES_MAX: usize = 4 * 1024;

/// How often pressure is measured, and how often each worker reports its loop delay.
pub const PRESSURE_INTERVAL: Duration = Duration::from_millis(100);
/// All outbound queues together may hold this part of the memory limit. The rest is for connections, streams and the
/// allocator's slack.
pub const EGRESS_MEMORY_PERCENT: u64 = 25;
/// All messages of clients that are on their way in.
pub const INGRESS_MEMORY_PERCENT: u64 = 12;

/// What remains of clean-up after the drain's deadline: closing sockets, the last log lines.
pub const CLOSING_GRACE: Duration = Duration::from_millis(500);

/// Below this the process cannot hold its own code, tables and a useful number of clients.
pub const MEMORY_LIMIT_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// More threads than any machine has cores: a typo, not a wish.
pub const WORKERS_MAX: usize = 1024;
