//! Objects as the API server last showed them, of one kind, by namespace and name.
//!
//! Filled by one watch per namespace that is watched, or by one for all of them. Readers get what is there at the moment;
//! nothing here waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Namespace and name.
pub type Key = (String, String);

/// What an object is asked for by, besides its own key: the Gateway that it belongs to, say.
pub type Group<T> = fn(&T) -> Option<Key>;

#[derive(Debug)]
pub struct Shelf<T> {
    inner: RwLock<Inner<T>>,
    group: Group<T>,
}

#[derive(Debug)]
struct Inner<T> {
    objects: BTreeMap<Key, Arc<T>>,
    /// No group is empty.
    groups: BTreeMap<Key, BTreeSet<Key>>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self::grouped(|_| None)
    }
}

impl<T> Shelf<T> {
    /// Objects that are also found by their group, without looking at all of them.
    pub fn grouped(group: Group<T>) -> Self {
        let inner = Inner {
            objects: BTreeMap::new(),
            groups: BTreeMap::new(),
        };
        Self {
            inner: RwLock::new(inner),
            group,
        }
    }

    /// Puts an object in the place of the former one, which is returned.
    pub fn put(&self, key: Key, object: T) -> Option<Arc<T>> {
        let mut inner = self.write();
        let former = inner.remove(&key, self.group);
        if let Some(group) = (self.group)(&object) {
            inner.groups.entry(group).or_default().insert(key.clone());
        }
        inner.objects.insert(key, Arc::new(object));
        former
    }

    pub fn remove(&self, key: &Key) -> Option<Arc<T>> {
        self.write().remove(key, self.group)
    }

    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<T>> {
        let key = (namespace.to_owned(), name.to_owned());
        self.read().objects.get(&key).cloned()
    }

    pub fn all(&self) -> Vec<(Key, Arc<T>)> {
        let inner = self.read();
        let pairs = inner.objects.iter();
        pairs
            .map(|(key, object)| (key.clone(), Arc::clone(object)))
            .collect()
    }

    /// Those of one namespace.
    pub fn of_namespace(&self, namespace: &str) -> Vec<Arc<T>> {
        let inner = self.read();
        let from = (namespace.to_owned(), String::new());
        inner
            .objects
            .range(from..)
            .take_while(|((of, _), _)| of == namespace)
            .map(|(_, object)| Arc::clone(object))
            .collect()
    }

    /// Those of one group, in the order of their keys.
    pub fn of_group(&self, group: &Key) -> Vec<Arc<T>> {
        let inner = self.read();
        let keys = inner.groups.get(group).into_iter().flatten();
        keys.filter_map(|key| inner.objects.get(key).cloned())
            .collect()
    }

    /// Removes what a new list of a namespace, or of all, does not have; returns what it removed.
    pub fn keep(&self, namespace: Option<&str>, listed: &BTreeSet<Key>) -> Vec<(Key, Arc<T>)> {
        let mut inner = self.write();
        let gone: Vec<Key> = inner
            .objects
            .keys()
            .filter(|key| namespace.is_none_or(|namespace| key.0 == namespace))
            .filter(|key| !listed.contains(*key))
            .cloned()
            .collect();
        gone.into_iter()
            .filter_map(|key| {
                let object = inner.remove(&key, self.group)?;
                Some((key, object))
            })
            .collect()
    }

    // Maps are whole also after a panic.
    fn read(&self) -> RwLockReadGuard<'_, Inner<T>> {
        self.inner.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Inner<T>> {
        self.inner.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Inner<T> {
    fn remove(&mut self, key: &Key, group: Group<T>) -> Option<Arc<T>> {
        let object = self.objects.remove(key)?;
        if let Some(group) = group(&object)
            && let Some(keys) = self.groups.get_mut(&group)
        {
            keys.remove(key);
            if keys.is_empty() {
                self.groups.remove(&group);
            }
        }
        Some(object)
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

    #[test]
    fn a_group_follows_its_objects() {
        let shelf: Shelf<&str> = Shelf::grouped(|group| Some(key("g", group)));
        shelf.put(key("a", "x"), "one");
        shelf.put(key("b", "y"), "one");
        assert_eq!(shelf.of_group(&key("g", "one")).len(), 2);
        shelf.put(key("a", "x"), "two");
        assert_eq!(shelf.of_group(&key("g", "one")).len(), 1);
        assert_eq!(*shelf.of_group(&key("g", "two"))[0], "two");
        shelf.remove(&key("a", "x"));
        shelf.keep(None, &BTreeSet::new());
        assert!(shelf.of_group(&key("g", "one")).is_empty());
        assert!(shelf.read().groups.is_empty());
    }
}
