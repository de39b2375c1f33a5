//! Readiness as guards: whoever is not ready to serve holds one, and says so by name.
//!
//! A guard counts until it is released; one that is lost on an error path keeps the process unready, because nobody said
//! that its part is ready. A part that comes and goes says what is wrong with it instead ([`Readiness::say`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// Names with how many guards hold them, and troubles by name.
#[derive(Debug, Clone, Default)]
pub struct Readiness {
    held: Arc<Mutex<BTreeMap<&'static str, usize>>>,
    troubles: Arc<Mutex<BTreeMap<&'static str, Arc<str>>>>,
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

    /// What is wrong with a part; empty: nothing any more.
    pub fn say(&self, name: &'static str, trouble: Arc<str>) {
        let mut troubles = self.troubles.lock();
        if trouble.is_empty() {
            troubles.remove(name);
        } else {
            troubles.insert(name, trouble);
        }
    }

    pub fn troubles(&self) -> Vec<(&'static str, Arc<str>)> {
        let troubles = self.troubles.lock();
        troubles
            .iter()
            .map(|(name, trouble)| (*name, Arc::clone(trouble)))
            .collect()
    }

    pub fn is_ready(&self) -> bool {
        self.held.lock().is_empty() && self.troubles.lock().is_empty()
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
    fn troubles_come_and_go() {
        let readiness = Readiness::default();
        readiness.say("redis", "no answer".into());
        assert!(!readiness.is_ready());
        assert_eq!(readiness.troubles(), [("redis", "no answer".into())]);
        readiness.say("redis", "".into());
        assert!(readiness.is_ready());
    }

    #[test]
    fn a_lost_guard_is_not_ready() {
        let readiness = Readiness::default();
        drop(readiness.guard("store"));
        assert_eq!(readiness.missing(), ["store"]);
    }
}
