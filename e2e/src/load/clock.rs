//! Time that several processes of one machine agree on: publishers stamp it, subscribers subtract it.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds of the monotonic clock, which the kernel shares between all processes.
#[must_use]
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    // The monotonic clock starts at boot, so neither part is ever negative.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
