//! Rollup rows of sealed files, and sums of them, kept in memory: every topology answer reads them.

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::{HashMap, HashSet};
use object_store::path::Path;
use windrose_proto::edge::{EdgeKey, EdgeRow, SpanStats};

/// Memory for cached rows. A row takes about 1 KiB, so this holds 200 minutes of 1 200 edges, or
/// nine days of them by the hour.
const BUDGET_BYTES: usize = 256 << 20;

/// Keys may outnumber those in use by this factor before unused ones are let go.
const KEYS_SLACK: usize = 2;

/// Whose rows are kept.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum RowsOf {
    /// A row group of a file.
    Part(Path, usize),
    /// The sums over a span of time, made of the files that `files` is a hash of.
    Block { start: u64, length: u64, files: u64 },
}

/// Lists of rows, the one used longest ago dropped first.
#[derive(Debug)]
pub(super) struct RowCache {
    budget_bytes: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    lists: HashMap<RowsOf, Entry>,
    /// Equal keys of different files are one, so that adding up compares addresses.
    keys: HashSet<Arc<EdgeKey>>,
    keys_in_use: usize,
    bytes: usize,
    /// Counts uses, to tell which was last.
    uses: u64,
}

#[derive(Debug)]
struct Entry {
    rows: Arc<Vec<EdgeRow>>,
    bytes: usize,
    last_use: u64,
}

impl Default for RowCache {
    fn default() -> Self {
        Self::new(BUDGET_BYTES)
    }
}

impl RowCache {
    pub(super) fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, inner: Mutex::default() }
    }

    pub(super) fn get(&self, of: &RowsOf) -> Option<Arc<Vec<EdgeRow>>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.uses += 1;
        let now = inner.uses;
        let entry = inner.lists.get_mut(of)?;
        entry.last_use = now;
        Some(Arc::clone(&entry.rows))
    }

    /// Gives rows the keys that equal rows have already.
    pub(super) fn share_keys(&self, rows: &mut [EdgeRow]) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        for row in rows.iter_mut() {
            match inner.keys.get(&row.key) {
                Some(known) => row.key = Arc::clone(known),
                None => drop(inner.keys.insert(Arc::clone(&row.key))),
            }
        }
        if inner.keys.len() > inner.keys_in_use.saturating_mul(KEYS_SLACK) {
            inner.keys.retain(|key| Arc::strong_count(key) > 1);
            inner.keys_in_use = inner.keys.len();
        }
    }

    pub(super) fn insert(&self, of: RowsOf, rows: &Arc<Vec<EdgeRow>>) {
        let bytes = rows.iter().map(row_bytes).sum();
        if bytes > self.budget_bytes {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.uses += 1;
        let entry = Entry { rows: Arc::clone(rows), bytes, last_use: inner.uses };
        inner.bytes += bytes;
        if let Some(old) = inner.lists.insert(of, entry) {
            inner.bytes -= old.bytes;
        }
        while inner.bytes > self.budget_bytes {
            let Some(oldest) = inner.lists.iter().min_by_key(|(_, entry)| entry.last_use).map(|(of, _)| of.clone())
            else {
                break;
            };
            if let Some(dropped) = inner.lists.remove(&oldest) {
                inner.bytes -= dropped.bytes;
            }
        }
    }
}

/// Memory of one row; keys are shared between rows and not counted.
fn row_bytes(row: &EdgeRow) -> usize {
    let SpanStats { by_class, client, server, .. } = &row.stats.spans;
    let lists = by_class.len() * 96
        + (client.sketch.buckets().len() + server.sketch.buckets().len()) * 16
        + (client.slowest.entries().len() + server.slowest.entries().len()) * 24
        + (row.stats.client_counters.by_code.len() + row.stats.server_counters.by_code.len()) * 48;
    size_of::<EdgeRow>() + size_of::<windrose_proto::edge::EdgeStats>() + lists
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::path::Path;
    use proptest::strategy::{Strategy, ValueTree};
    use proptest::test_runner::TestRunner;

    use super::{RowCache, RowsOf, row_bytes};
    use crate::tables::arbitrary::edge_row;

    #[test]
    fn stays_within_its_budget_and_keeps_what_is_used() {
        let row = edge_row().new_tree(&mut TestRunner::deterministic()).unwrap().current();
        let cache = RowCache::new(row_bytes(&row) * 3);
        let rows = Arc::new(vec![row]);
        for name in ["a", "b", "c"] {
            cache.insert(file(name), &rows);
        }
        assert!(cache.get(&file("a")).is_some());
        cache.insert(file("d"), &rows);
        assert!(cache.get(&file("b")).is_none(), "b was used longest ago");
        assert!(["a", "c", "d"].iter().all(|name| cache.get(&file(name)).is_some()));
        let too_large = Arc::new(vec![rows[0].clone(); 4]);
        cache.insert(file("e"), &too_large);
        assert!(cache.get(&file("e")).is_none() && cache.get(&file("a")).is_some());
    }

    #[test]
    fn equal_keys_become_one_and_unused_ones_go() {
        let row = || edge_row().new_tree(&mut TestRunner::deterministic()).unwrap().current();
        let cache = RowCache::default();
        let (mut first, mut second) = ([row()], [row()]);
        assert!(!Arc::ptr_eq(&first[0].key, &second[0].key));
        cache.share_keys(&mut first);
        cache.share_keys(&mut second);
        assert!(Arc::ptr_eq(&first[0].key, &second[0].key));
        drop((first, second));
        let mut other = edge_row().new_tree(&mut TestRunner::new(proptest::test_runner::Config::default())).unwrap();
        while other.current().key == row().key && other.simplify() {}
        cache.share_keys(&mut [other.current()]);
        assert!(cache.inner.lock().unwrap().keys.len() <= 2);
    }

    fn file(name: &str) -> RowsOf {
        RowsOf::Part(Path::from(name), 0)
    }
}
