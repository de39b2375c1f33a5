//! Objects as the API server last showed them, of one kind, by namespace and name.
//!
//! Filled by one watch per namespace that is watched, or by one for all of them. Readers get what is there at the moment;
//! nothing here waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

/// Namespace and name.
pub type Key = (String, String);

#[derive(Debug)]
pub struct Shelf<T> {
    inner: RwLock<BTreeMap<Key, Arc<T>>>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self {
            inner: RwLock::new(BTreeMap::new()),
        }
    }
}

impl<T> Shelf<T> {
    /// Puts an object in the place of the former one, which is returned.
    pub fn put(&self, key: Key, object: T) -> Option<Arc<T>> {
        // A map is whole also after a panic.
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.insert(key, Arc::new(object))
    }

    pub fn remove(&self, key: &Key) -> Option<Arc<T>> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.remove(key)
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        inner.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    pub fn all(&self) -> Vec<(Key, Arc<T>)> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let pairs = inner.iter();
        pairs
            .map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect()
    }

    /// Those of one namespace.
    pub fn of_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        let from = (namespace.to_owned(), String::new());
        inner
            .range(from..)
            .take_while(|((of, _), _)| of == namespace)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// Removes what a new list of a namespace, or of all, does not have; returns what it removed.
    pub fn keep(&self, namespace: Option<&str>, listed: &BTreeSet<Key>) -> Vec<(Key, Arc<T>)> {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let gone: Vec<Key> = inner
            .keys()
            .filter(|key| namespace.is_none_or(|namespace| key.0 == namespace))
            .filter(|key| !listed.contains(*key))
            .cloned()
            .collect();
        gone.into_iter()
            .filter_map(|key| inner.remove_entry(&key))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: &str) -> Key {
        (namespace.to_owned(), name.to_owned())
    }

    #[test]
    fn a_list_replaces_what_is_of_its_namespace() {
        let shelf = Shelf::default();
        for (namespace, name) in [("a", "x"), ("a", "y"), ("b", "x")] {
            shelf.put(key(namespace, name), ());
        }
        let gone = shelf.keep(Some("a"), &BTreeSet::from([key("a", "y")]));
        assert_eq!(gone.len(), 1);
        assert!(shelf.get("a", "x").is_none() && shelf.get("b", "x").is_some());
        assert_eq!(shelf.of_namespace("a").len(), 1);
        assert_eq!(shelf.keep(None, &BTreeSet::new()).len(), 2);
    }
}
