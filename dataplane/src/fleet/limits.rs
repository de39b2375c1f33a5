//! Limits of what the manager is told and may say, each with its reason.

use std::time::Duration;

/// From the first byte to the stream's opening: a manager near by answers at once, and another one may.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A manager that is gone without a word is noticed by a ping after the first, unanswered for the second.
pub(super) const PING_AFTER: Duration = Duration::from_secs(2);
pub(super) const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// A manager says something every three seconds at least.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Between two tries to reach it; all data planes lose a manager at the same time.
pub(super) const PAUSE_MIN: Duration = Duration::from_millis(200);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(3);
/// Reports, where nothing else was said, and what may be said.
pub(super) const REPORT_EVERY: Duration = Duration::from_secs(1);
pub(super) const REPORT_EVERY_MIN: Duration = Duration::from_millis(100);
pub(super) const REPORT_EVERY_MAX: Duration = Duration::from_secs(5);
/// For the last report to leave before the process ends.
pub(super) const LAST_WORD: Duration = Duration::from_millis(200);
/// Reports that a manager has not taken yet: older ones are worth nothing when it does.
pub(super) const REPORTS_WAITING_MAX: usize = 4;
/// Reports that a directive may answer: two minutes of them.
pub(super) const REPORTS_REMEMBERED: usize = 128;
/// A longer lease is a mistake, and must not be more than a clock can count.
pub(super) const LEASE_MAX: Duration = Duration::from_secs(3_600);
/// Parts of upstreams hold so long without another word. They are advice; the data plane's own limits stay.
pub(super) const UPSTREAM_SHARES_HOLD: Duration = Duration::from_secs(15);
/// A file that holds a token or certificates.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;
