//! A token bucket that takes `now`: per-client and per-account rates.

/// Starts full and holds one second's worth, so that a client may send its second's commands at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct Bucket {
    /// Thousandths of a token that are used up. A fresh bucket is full.
    used_milli: u32,
    last_ms: u64,
}

impl Bucket {
    /// Takes one token, or says that the rate is exceeded. `per_second` may change between calls.
    pub fn take(&mut self, per_second: u32, now_ms: u64) -> bool {
        let elapsed_ms = now_ms.saturating_sub(self.last_ms).min(1_000);
        self.last_ms = now_ms;
        let refill_milli = u64::from(per_second) * elapsed_ms;
        let used_milli = u64::from(self.used_milli).saturating_sub(refill_milli);
        let allowed = used_milli + 1_000 <= u64::from(per_second) * 1_000;
        let used_milli = if allowed {
            used_milli + 1_000
        } else {
            used_milli
        };
        self.used_milli = u32::try_from(used_milli).unwrap_or(u32::MAX);
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holds_the_rate_and_not_one_more() {
        let mut bucket = Bucket::default();
        let allowed = (0..50).filter(|_| bucket.take(10, 1_000)).count();
        assert_eq!(allowed, 10);
        assert!(!bucket.take(10, 1_099));
        assert!(bucket.take(10, 1_200));
        let later = (0..50).filter(|_| bucket.take(10, 60_000)).count();
        assert_eq!(later, 10);
    }

    #[test]
    fn over_any_window_the_rate_plus_burst_is_never_exceeded() {
        let mut bucket = Bucket::default();
        let allowed = (0..10_000u64)
            .filter(|step| bucket.take(100, step * 3))
            .count();
        assert!((3_000..=3_101).contains(&allowed), "{allowed}");
    }
}
