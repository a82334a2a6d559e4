//! Rollup rows of sealed files kept in memory: every topology answer reads them.

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashMap;
use object_store::path::Path;
use windrose_proto::edge::{EdgeRow, SpanStats};

/// Memory for cached rows. A row takes about 1 KiB, so this holds 200 minutes of 1 200 edges, or
/// nine days of them by the hour.
const BUDGET_BYTES: usize = 256 << 20;

/// Rows by file, the file used longest ago dropped first.
#[derive(Debug)]
pub(super) struct RowCache {
    budget_bytes: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    files: HashMap<Path, Entry>,
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

    pub(super) fn get(&self, path: &Path) -> Option<Arc<Vec<EdgeRow>>> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.uses += 1;
        let now = inner.uses;
        let entry = inner.files.get_mut(path)?;
        entry.last_use = now;
        Some(Arc::clone(&entry.rows))
    }

    pub(super) fn insert(&self, path: &Path, rows: &Arc<Vec<EdgeRow>>) {
        let bytes = rows.iter().map(row_bytes).sum();
        if bytes > self.budget_bytes {
            return;
        }
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        inner.uses += 1;
        let entry = Entry { rows: Arc::clone(rows), bytes, last_use: inner.uses };
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

    use super::{RowCache, row_bytes};
    use crate::tables::arbitrary::edge_row;

    #[test]
    fn stays_within_its_budget_and_keeps_what_is_used() {
        let row = edge_row().new_tree(&mut TestRunner::deterministic()).unwrap().current();
        let cache = RowCache::new(row_bytes(&row) * 3);
        let rows = Arc::new(vec![row]);
        for name in ["a", "b", "c"] {
            cache.insert(&Path::from(name), &rows);
        }
        assert!(cache.get(&Path::from("a")).is_some());
        cache.insert(&Path::from("d"), &rows);
        assert!(cache.get(&Path::from("b")).is_none(), "b was used longest ago");
        assert!(["a", "c", "d"].iter().all(|name| cache.get(&Path::from(*name)).is_some()));
        let too_large = Arc::new(vec![rows[0].clone(); 4]);
        cache.insert(&Path::from("e"), &too_large);
        assert!(cache.get(&Path::from("e")).is_none() && cache.get(&Path::from("a")).is_some());
    }
}
