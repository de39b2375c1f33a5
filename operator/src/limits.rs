//! Limits of the operator, each with its reason.

use std::time::Duration;

/// Passes at a time: more would only make the API server throttle.
pub const CONCURRENT_PASSES: usize = 8;
/// Changes come in bursts: a rollout, a file of many Applications. They are looked at together.
pub const GATHERING: Duration = Duration::from_millis(100);
/// Numbers in a status change all the time; what a person reads need not. A changed condition does not wait.
pub const STATUS_INTERVAL: Duration = Duration::from_secs(10);
/// Everything is looked at this often even if nothing says that it changed.
pub const RESYNC: Duration = Duration::from_secs(600);
/// Between looks at objects that are still being deleted.
pub const RETRY_PENDING: Duration = Duration::from_secs(1);
/// Longest wait for the watches at the start, before the log says so.
pub const SYNC_WARNING: Duration = Duration::from_secs(15);
/// How long passes that are under way may take at the end of the process.
pub const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(10);
