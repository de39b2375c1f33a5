//! The header `Retry-After`: seconds or a date.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longer pauses are cut to this: they are more often a mistake than a wish, and the upstream may repeat itself.
const MAX: Duration = Duration::from_secs(300);
/// No date and no sensible number is longer.
const LENGTH_MAX: usize = 64;

/// How long to wait; `None` for zero, the past, and what cannot be read.
pub fn parse(value: &[u8], now_ms: u64) -> Option<Duration> {
    if value.len() > LENGTH_MAX {
        return None;
    }
    let text = std::str::from_utf8(value).ok()?.trim();
    let wait = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than fit are a very long time.
        Duration::from_secs(text.parse().unwrap_or(u64::MAX))
    } else {
        let at: SystemTime = httpdate::parse_http_date(text).ok()?;
        let at = at.duration_since(UNIX_EPOCH).ok()?;
        at.saturating_sub(Duration::from_millis(now_ms))
    };
    (!wait.is_zero()).then(|| wait.min(MAX))
}
