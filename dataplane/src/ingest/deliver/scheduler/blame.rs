//! Whose failures an upstream has had since it last answered well.
//!
//! When one entry alone keeps failing, that says as much about the entry as about the upstream; two of them are the
//! upstream's trouble.

use std::time::{Duration, Instant};

use super::{Scheduler, UpstreamId};
use crate::store::queue::EntryId;

/// An upstream that is restarted fails everything for a while, and at a quiet time that may be one entry.
const ALONE_MIN: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Blame {
    #[default]
    Nobody,
    One {
        entry: EntryId,
        since: Instant,
    },
    Several,
}

impl Blame {
    /// `None`: somebody else's than an entry's.
    pub(super) fn failed(&mut self, entry: Option<EntryId>, now: Instant) {
        *self = match (*self, entry) {
            (Self::Nobody, Some(entry)) => Self::One { entry, since: now },
            (Self::One { entry, since }, Some(again)) if entry == again => {
                Self::One { entry, since }
            }
            _ => Self::Several,
        };
    }

    pub(super) fn answered(&mut self) {
        *self = Self::Nobody;
    }

    /// Whether a failure may count against the entry. `last`: it would be parked for it.
    fn is_its_own(self, entry: EntryId, last: bool, now: Instant) -> bool {
        match self {
            Self::One { entry: one, since } => {
                entry == one && (!last || now.saturating_duration_since(since) >= ALONE_MIN)
            }
            Self::Nobody | Self::Several => false,
        }
    }
}

impl Scheduler {
    /// Whether the upstream fails, and not only on this entry, as far as one can tell before its failure is told.
    /// `blamable`: it was answered in a way that requests bring about; `last`: it would be parked for it.
    pub(in crate::ingest::deliver) fn is_failing_others(
        &self,
        upstream: UpstreamId,
        entry: EntryId,
        (blamable, last): (bool, bool),
        now: Instant,
    ) -> bool {
        let Some(upstream) = self.upstreams.get(upstream) else {
            return true;
        };
        let is_own = blamable && upstream.blame.is_its_own(entry, last, now);
        upstream.limiter.is_failing() && !is_own
    }

    /// How a request ended, for the blame: of an entry, or else of a proxied call.
    pub(in crate::ingest::deliver) fn blame(
        &mut self,
        upstream: UpstreamId,
        entry: Option<EntryId>,
        failed: bool,
        now: Instant,
    ) {
        let Some(upstream) = self.upstreams.get_mut(upstream) else {
            return;
        };
        if failed {
            upstream.blame.failed(entry, now);
        } else {
            upstream.blame.answered();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn one_entry_is_blamed_until_another_fails_or_the_upstream_answers() {
        let (mine, other) = (Some(EntryId(1)), Some(EntryId(2)));
        let now = Instant::now();
        // Who failed, or `answered`; whether the next failure of entry 1 counts, and whether it may be its last.
        type Case<'a> = (&'a [Result<(), Option<EntryId>>], bool, bool);
        let cases: [Case<'_>; 8] = [
            (&[], false, false),
            (&[Err(mine)], true, true),
            (&[Err(mine), Err(mine)], true, true),
            (&[Err(mine), Err(other)], false, false),
            (&[Err(mine), Err(None)], false, false),
            (&[Err(mine), Err(other), Err(mine)], false, false),
            (&[Err(other), Ok(()), Err(mine)], true, false),
            (&[Err(mine), Ok(())], false, false),
        ];
        for (ends, counts, parks) in cases {
            let mut blame = Blame::default();
            for (seconds, end) in (0u32..).zip(ends) {
                let at = now + seconds * SECOND;
                match end {
                    Ok(()) => blame.answered(),
                    Err(entry) => blame.failed(*entry, at),
                }
            }
            let later = now + ALONE_MIN;
            assert_eq!(
                blame.is_its_own(EntryId(1), false, later),
                counts,
                "{ends:?}"
            );
            assert_eq!(blame.is_its_own(EntryId(1), true, later), parks, "{ends:?}");
            assert!(
                !blame.is_its_own(EntryId(1), true, later - SECOND),
                "{ends:?}"
            );
        }
    }
}
