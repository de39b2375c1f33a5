//! What is remembered from pass to pass: since when things have been so, and which steps were taken lately.
//!
//! Never what to do next. An empty memory is always a valid one.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Step;

/// Doublings of a step's first pause: what does not help is tried less and less often, but never given up.
const DOUBLINGS_MAX: u32 = 4;
/// A step that has not been called for in so long was for another occasion.
const ATTEMPTS_KEPT: Duration = Duration::from_secs(300);

#[derive(Debug, Clone, Default)]
pub struct Memory {
    now: Option<Instant>,
    /// Facts that held in every pass since.
    since: BTreeMap<String, Instant>,
    /// Facts of this pass.
    current: BTreeMap<String, Instant>,
    attempts: BTreeMap<Step, Attempts>,
}

#[derive(Debug, Clone, Copy)]
struct Attempts {
    count: u32,
    last: Instant,
}

impl Memory {
    pub(super) fn begin(mut self, now: Instant) -> Self {
        self.now = Some(now);
        self.current.clear();
        self.attempts
            .retain(|_, attempts| now.saturating_duration_since(attempts.last) < ATTEMPTS_KEPT);
        self
    }

    pub(super) fn end(mut self) -> Self {
        self.since = std::mem::take(&mut self.current);
        self
    }

    /// For how long this has been so, in every pass.
    pub(super) fn lasting(&mut self, fact: String) -> Duration {
        let Some(now) = self.now else {
            return Duration::ZERO;
        };
        let since = self.since.get(&fact).copied().unwrap_or(now);
        self.current.insert(fact, since);
        now.saturating_duration_since(since)
    }

    /// Whether it is time for this step, which counts as taken then.
    pub(super) fn may(&mut self, step: &Step) -> bool {
        let Some(now) = self.now else { return false };
        let count = match self.attempts.get(step) {
            None => 1,
            Some(attempts) => {
                let pause = pause(step) * (1 << (attempts.count - 1).min(DOUBLINGS_MAX));
                if now.saturating_duration_since(attempts.last) < pause {
                    return false;
                }
                attempts.count.saturating_add(1)
            }
        };
        self.attempts
            .insert(step.clone(), Attempts { count, last: now });
        true
    }
}

/// How long a step takes to show, when the servers are well.
fn pause(step: &Step) -> Duration {
    Duration::from_secs(match step {
        // Gossip has to go round.
        Step::Meet { .. } | Step::Forget { .. } => 5,
        // An election, and word of it.
        Step::Force(_) | Step::TakeOver(_) | Step::HandOver(_) => 8,
        Step::DeletePod { .. } => 15,
        Step::SetEpoch { .. }
        | Step::AddSlots { .. }
        | Step::BumpEpoch(_)
        | Step::Unseal(_)
        | Step::Replicate { .. } => 2,
    })
}
