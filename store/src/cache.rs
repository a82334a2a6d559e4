//! What was read from sealed files, or made of it, kept in memory within a budget of bytes.
//!
//! Files never change, so nothing here is ever stale; what was used longest ago is dropped first.

use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};

use hashbrown::{Equivalent, HashMap};

/// Values by key. Values are cheap to clone.
pub struct Cache<K, V> {
    budget_bytes: usize,
    inner: Mutex<Inner<K, V>>,
}

struct Inner<K, V> {
    entries: HashMap<K, Entry<V>>,
    bytes: usize,
    /// Counts uses, to tell which was last.
    uses: u64,
}

struct Entry<V> {
    value: V,
    bytes: usize,
    last_use: u64,
}

/// Keeps nothing.
impl<K: Eq + Hash + Clone, V: Clone> Default for Cache<K, V> {
    fn default() -> Self {
        Self::new(0)
    }
}

impl<K, V> fmt::Debug for Cache<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("budget_bytes", &self.budget_bytes).finish_non_exhaustive()
    }
}

impl<K: Eq + Hash + Clone, V: Clone> Cache<K, V> {
    /// An empty cache.
    #[must_use]
    pub fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, inner: Mutex::new(Inner { entries: HashMap::new(), bytes: 0, uses: 0 }) }
    }

    /// What is kept under a key.
    pub fn get(&self, key: &(impl Equivalent<K> + Hash + ?Sized)) -> Option<V> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.uses += 1;
        let now = inner.uses;
        let entry = inner.entries.get_mut(key)?;
        entry.last_use = now;
        Some(entry.value.clone())
    }

    /// Keeps a value that takes so much memory; one larger than the budget is not kept.
    pub fn insert(&self, key: K, value: V, bytes: usize) {
        if bytes > self.budget_bytes {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.uses += 1;
        let entry = Entry { value, bytes, last_use: inner.uses };
        inner.bytes += bytes;
        if let Some(old) = inner.entries.insert(key, entry) {
            inner.bytes -= old.bytes;
        }
        while inner.bytes > self.budget_bytes {
            let Some(oldest) = inner.entries.iter().min_by_key(|(_, entry)| entry.last_use).map(|(key, _)| key.clone())
            else {
                break;
            };
            if let Some(dropped) = inner.entries.remove(&oldest) {
                inner.bytes -= dropped.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cache;

    #[test]
    fn stays_within_its_budget_and_keeps_what_is_used() {
        let cache = Cache::new(30);
        for (value, name) in ["a", "b", "c"].into_iter().enumerate() {
            cache.insert(name, value, 10);
        }
        assert_eq!(cache.get("a"), Some(0));
        cache.insert("d", 3, 10);
        assert_eq!(cache.get("b"), None, "b was used longest ago");
        let kept = ["a", "c", "d"].map(|name| cache.get(name));
        assert_eq!(kept, [Some(0), Some(2), Some(3)]);
        cache.insert("e", 4, 31);
        assert_eq!((cache.get("e"), cache.get("a")), (None, Some(0)));
        cache.insert("a", 9, 30);
        let kept = ["a", "c", "d"].map(|name| cache.get(name));
        assert_eq!(kept, [Some(9), None, None], "a value may take the place of a smaller one");
    }
}
