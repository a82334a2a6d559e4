//! What was read from sealed files, kept in memory by file within a budget of bytes.
//!
//! Files never change, so nothing here is ever stale; what was used longest ago is dropped first.

use std::sync::{Mutex, PoisonError};

use hashbrown::HashMap;
use object_store::path::Path;

/// Values by file. Values are cheap to clone.
#[derive(Debug)]
pub struct FileCache<V> {
    budget_bytes: usize,
    inner: Mutex<Inner<V>>,
}

#[derive(Debug)]
struct Inner<V> {
    files: HashMap<Path, Entry<V>>,
    bytes: usize,
    /// Counts uses, to tell which was last.
    uses: u64,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    bytes: usize,
    last_use: u64,
}

/// Keeps nothing.
impl<V: Clone> Default for FileCache<V> {
    fn default() -> Self {
        Self::new(0)
    }
}

impl<V: Clone> FileCache<V> {
    /// An empty cache.
    #[must_use]
    pub fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, inner: Mutex::new(Inner { files: HashMap::new(), bytes: 0, uses: 0 }) }
    }

    /// What is kept of a file.
    pub fn get(&self, path: &Path) -> Option<V> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.uses += 1;
        let now = inner.uses;
        let entry = inner.files.get_mut(path)?;
        entry.last_use = now;
        Some(entry.value.clone())
    }

    /// Keeps a value that takes so much memory; one larger than the budget is not kept.
    pub fn insert(&self, path: &Path, value: V, bytes: usize) {
        if bytes > self.budget_bytes {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.uses += 1;
        let entry = Entry { value, bytes, last_use: inner.uses };
        inner.bytes += bytes;
        if let Some(old) = inner.files.insert(path.clone(), entry) {
            inner.bytes -= old.bytes;
        }
        while inner.bytes > self.budget_bytes {
            let Some(oldest) = inner.files.iter().min_by_key(|(_, entry)| entry.last_use).map(|(path, _)| path.clone())
            else {
                break;
            };
            if let Some(dropped) = inner.files.remove(&oldest) {
                inner.bytes -= dropped.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::path::Path;

    use super::FileCache;

    #[test]
    fn stays_within_its_budget_and_keeps_what_is_used() {
        let cache = FileCache::new(30);
        for (value, name) in ["a", "b", "c"].into_iter().enumerate() {
            cache.insert(&Path::from(name), value, 10);
        }
        assert_eq!(cache.get(&Path::from("a")), Some(0));
        cache.insert(&Path::from("d"), 3, 10);
        assert_eq!(cache.get(&Path::from("b")), None, "b was used longest ago");
        let kept = ["a", "c", "d"].map(|name| cache.get(&Path::from(name)));
        assert_eq!(kept, [Some(0), Some(2), Some(3)]);
        cache.insert(&Path::from("e"), 4, 31);
        assert_eq!((cache.get(&Path::from("e")), cache.get(&Path::from("a"))), (None, Some(0)));
        cache.insert(&Path::from("a"), 9, 30);
        let kept = ["a", "c", "d"].map(|name| cache.get(&Path::from(name)));
        assert_eq!(kept, [Some(9), None, None], "a value may take the place of a smaller one");
    }
}
