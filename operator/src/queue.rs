//! What has to be looked at, and when: a queue without I/O and without a clock.
//!
//! A key is in it once, at the earliest time that was asked for. It is never given to two workers at a time: what comes
//! while one has it waits until it is done. Failures of a key delay only that key, longer each time.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::time::{Duration, Instant};

/// After the first failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
/// However many there were: something else may have been put right.
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// Doublings after which the greatest delay is reached.
const DOUBLINGS_MAX: u32 = 7;

/// How a look at a key ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do until something changes.
    Settled,
    /// Look again after this time.
    Again(Duration),
    /// Look again after the backoff of the key.
    Failed,
}

#[derive(Debug)]
pub struct Queue<K> {
    due: BTreeSet<(Instant, K)>,
    at: HashMap<K, Instant>,
    running: HashSet<K>,
    /// Asked for while they were running.
    again: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            due: BTreeSet::new(),
            at: HashMap::new(),
            running: HashSet::new(),
            again: HashMap::new(),
            failures: HashMap::new(),
        }
    }
}

impl<K: Clone + Eq + Ord + Hash> Queue<K> {
    /// Asks for a look at a key, at this time or earlier.
    pub fn add(&mut self, key: K, at: Instant) {
        if self.running.contains(&key) {
            let again = self.again.entry(key).or_insert(at);
            *again = at.min(*again);
            return;
        }
        match self.at.get_mut(&key) {
            Some(known) if *known <= at => {}
            Some(known) => {
                self.due.remove(&(*known, key.clone()));
                *known = at;
                self.due.insert((at, key));
            }
            None => {
                self.at.insert(key.clone(), at);
                self.due.insert((at, key));
            }
        }
    }

    /// Hands out the key that has been due for longest. [`Self::done`] gives it back.
    pub fn take(&mut self, now: Instant) -> Option<K> {
        let (at, key) = self.due.first()?;
        if *at > now {
            return None;
        }
        let (at, key) = (*at, key.clone());
        self.due.remove(&(at, key.clone()));
        self.at.remove(&key);
        self.running.insert(key.clone());
        Some(key)
    }

    /// When there is something to take.
    pub fn next_at(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// How many could be taken now.
    pub fn overdue(&self, now: Instant) -> usize {
        self.due.iter().take_while(|(at, _)| *at <= now).count()
    }

    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    pub fn done(&mut self, key: K, outcome: Outcome, now: Instant) {
        self.running.remove(&key);
        let again = self.again.remove(&key);
        let wanted = match outcome {
            Outcome::Settled => {
                self.failures.remove(&key);
                again
            }
            Outcome::Again(after) => {
                self.failures.remove(&key);
                Some(again.map_or(now + after, |again| again.min(now + after)))
            }
            // What came meanwhile may be the failure's own echo: it waits as well.
            Outcome::Failed => {
                let failures = self.failures.entry(key.clone()).or_default();
                let delay = BACKOFF_FIRST * 2_u32.pow((*failures).min(DOUBLINGS_MAX));
                *failures += 1;
                Some(now + delay.min(BACKOFF_MAX))
            }
        };
        if let Some(at) = wanted {
            self.add(key, at);
        }
    }

    /// Forgets everything that is waiting.
    pub fn clear(&mut self) {
        self.due.clear();
        self.at.clear();
        self.again.clear();
        self.failures.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_key_is_in_once_at_its_earliest_time() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add("a", now + SECOND);
        queue.add("a", now);
        queue.add("a", now + 2 * SECOND);
        queue.add("b", now + SECOND);
        assert_eq!((queue.len(), queue.overdue(now)), (2, 1));
        assert_eq!((queue.take(now), queue.overdue(now)), (Some("a"), 0));
        assert_eq!(queue.take(now + SECOND), Some("b"));
        assert_eq!(
            (queue.take(now + 9 * SECOND), queue.next_at()),
            (None, None)
        );
    }

    #[test]
    fn a_key_is_never_with_two_workers() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add("a", now);
        assert_eq!(queue.take(now), Some("a"));
        queue.add("a", now);
        assert_eq!(queue.take(now), None);
        queue.done("a", Outcome::Settled, now);
        assert_eq!(queue.take(now), Some("a"));
        queue.done("a", Outcome::Settled, now);
        assert!(queue.is_empty());
    }

    #[test]
    fn failures_wait_longer_each_time_and_are_forgiven() {
        let mut now = Instant::now();
        let mut queue = Queue::default();
        queue.add("a", now);
        let mut delays = Vec::new();
        for _ in 0..10 {
            assert_eq!(queue.take(now), Some("a"));
            queue.add("a", now);
            queue.done("a", Outcome::Failed, now);
            let next = queue.next_at().unwrap();
            delays.push(next - now);
            now = next;
        }
        assert_eq!(delays[0], BACKOFF_FIRST);
        assert!(delays.is_sorted() && delays[9] == BACKOFF_MAX, "{delays:?}");
        assert_eq!(queue.take(now), Some("a"));
        queue.done("a", Outcome::Again(SECOND), now);
        assert_eq!(queue.next_at(), Some(now + SECOND));
        assert_eq!(queue.take(now + SECOND), Some("a"));
        queue.done("a", Outcome::Failed, now);
        assert_eq!(queue.next_at(), Some(now + BACKOFF_FIRST));
    }

    #[test]
    fn what_is_due_first_comes_first() {
        let now = Instant::now();
        let mut queue = Queue::default();
        queue.add("late", now + SECOND);
        queue.add("early", now);
        assert_eq!(queue.take(now + SECOND), Some("early"));
        assert_eq!(queue.take(now + SECOND), Some("late"));
    }
}
