//! Readiness as guards: whoever is not ready to serve holds one, and says so by name.
//!
//! A guard counts until it is released; one that is lost on an error path keeps the process unready, because nobody said
//! that its part is ready.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Names with how many guards hold them.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    held: Arc<Mutex<BTreeMap<&'static str, usize>>>,
}

impl Readiness {
    /// Also for later: a part that lost what it needs takes a guard again.
    pub fn guard(&self, name: &'static str) -> ReadinessGuard {
        *self.held.lock().entry(name).or_default() += 1;
        ReadinessGuard {
            held: Arc::clone(&self.held),
            name,
        }
    }

    pub fn is_ready(&self) -> bool {
        self.held.lock().is_empty()
    }

    /// In alphabetical order.
    pub fn missing(&self) -> Vec<&'static str> {
        self.held.lock().keys().copied().collect()
    }
}

#[derive(Debug)]
#[must_use = "a guard that is dropped without `release` keeps the process unready"]
pub struct ReadinessGuard {
    held: Arc<Mutex<BTreeMap<&'static str, usize>>>,
    name: &'static str,
}

impl ReadinessGuard {
    /// This part is ready.
    pub fn release(self) {
        let mut held = self.held.lock();
        if let Some(count) = held.get_mut(self.name) {
            *count -= 1;
            if *count == 0 {
                held.remove(self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_every_guard_is_released() {
        let readiness = Readiness::default();
        assert!(readiness.is_ready());
        let (store, first, second) = (
            readiness.guard("store"),
            readiness.guard("listeners"),
            readiness.guard("listeners"),
        );
        assert_eq!(readiness.missing(), ["listeners", "store"]);
        first.release();
        store.release();
        assert_eq!(readiness.missing(), ["listeners"]);
        second.release();
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_lost_guard_is_not_ready() {
        let readiness = Readiness::default();
        drop(readiness.guard("store"));
        assert_eq!(readiness.missing(), ["store"]);
    }
}
