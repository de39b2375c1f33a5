//! Keeps what was used last, within bounds.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::Arc;

pub(super) struct Cache<K, V> {
    items: HashMap<K, Item<V>, foldhash::fast::RandomState>,
    /// From the least recently used.
    order: BTreeMap<u64, K>,
    tick: u64,
    bytes: usize,
    bytes_max: usize,
    items_max: usize,
}

struct Item<V> {
    value: Arc<V>,
    bytes: usize,
    tick: u64,
}

impl<K: Copy + Eq + Hash, V> Cache<K, V> {
    pub(super) fn new(bytes_max: usize, items_max: usize) -> Self {
        Self {
            items: HashMap::default(),
            order: BTreeMap::new(),
            tick: 0,
            bytes: 0,
            bytes_max,
            items_max,
        }
    }

    pub(super) fn get(&mut self, key: &K) -> Option<Arc<V>> {
        let item = self.items.get_mut(key)?;
        self.order.remove(&item.tick);
        self.tick += 1;
        item.tick = self.tick;
        self.order.insert(self.tick, *key);
        Some(item.value.clone())
    }

    /// What was inserted last stays whatever its size.
    pub(super) fn insert(&mut self, key: K, value: Arc<V>, bytes: usize) {
        self.remove(&key);
        self.tick += 1;
        self.order.insert(self.tick, key);
        let tick = self.tick;
        self.items.insert(key, Item { value, bytes, tick });
        self.bytes += bytes;
        while self.items.len() > 1
            && (self.bytes > self.bytes_max || self.items.len() > self.items_max)
        {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            if let Some(item) = self.items.remove(&oldest) {
                self.bytes -= item.bytes;
            }
        }
    }

    pub(super) fn remove(&mut self, key: &K) {
        if let Some(item) = self.items.remove(key) {
            self.order.remove(&item.tick);
            self.bytes -= item.bytes;
        }
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.order.clear();
        self.bytes = 0;
    }
}
