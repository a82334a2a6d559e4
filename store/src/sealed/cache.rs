//! Rollup rows of sealed files, and sums of them, kept in memory: every topology answer reads them.

use std::sync::{Arc, Mutex, PoisonError};

use hashbrown::HashSet;
use object_store::path::Path;
use windrose_proto::edge::{EdgeKey, EdgeRow, EdgeStats, SEALED_WINDOW_NANOS};

use crate::cache::Cache;
use crate::edge_sums::{Detail, EdgeSums, stats_bytes};

/// Memory for cached rows. A row takes about 1 KiB, so this holds 80 minutes of 1 200 edges.
const ROWS_BUDGET_BYTES: usize = 96 << 20;
/// Memory for sums of less than a day. An edge takes about 5 KiB: sixty steps of a month of 400 edges are 120 MiB.
const SHORT_BUDGET_BYTES: usize = 192 << 20;
/// Memory for sums of a day and more: ten of 1 200 edges.
const LONG_BUDGET_BYTES: usize = 64 << 20;

const DAY: u64 = 1440 * SEALED_WINDOW_NANOS;

/// Keys may outnumber those in use by this factor before unused ones are let go.
const KEYS_SLACK: usize = 2;

/// The sums over a span of time, made of the files that `files` is a hash of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SumsOf {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) detail: Detail,
    pub(super) files: u64,
}

/// Sums by what they are of. Those of days are apart: a month is made of two hundred shorter ones, which would push
/// out what took longest to make.
#[derive(Debug)]
pub(super) struct SumCache {
    short: Cache<SumsOf, Arc<EdgeSums>>,
    long: Cache<SumsOf, Arc<EdgeSums>>,
}

impl Default for SumCache {
    fn default() -> Self {
        Self { short: Cache::new(SHORT_BUDGET_BYTES), long: Cache::new(LONG_BUDGET_BYTES) }
    }
}

impl SumCache {
    pub(super) fn get(&self, of: &SumsOf) -> Option<Arc<EdgeSums>> {
        self.part_for(of).get(of)
    }

    pub(super) fn insert(&self, of: SumsOf, sums: &Arc<EdgeSums>) {
        self.part_for(&of).insert(of, Arc::clone(sums), sums.bytes());
    }

    const fn part_for(&self, of: &SumsOf) -> &Cache<SumsOf, Arc<EdgeSums>> {
        if of.end - of.start < DAY { &self.short } else { &self.long }
    }
}

/// Rows by row group of a file.
#[derive(Debug)]
pub(super) struct RowCache {
    rows: Cache<(Path, usize), Arc<Vec<EdgeRow>>>,
    keys: Mutex<Keys>,
}

/// Equal keys of different files are one, so that adding up compares addresses.
#[derive(Debug, Default)]
struct Keys {
    all: HashSet<Arc<EdgeKey>>,
    in_use: usize,
}

impl Default for RowCache {
    fn default() -> Self {
        Self { rows: Cache::new(ROWS_BUDGET_BYTES), keys: Mutex::default() }
    }
}

impl RowCache {
    pub(super) fn get(&self, of: &(Path, usize)) -> Option<Arc<Vec<EdgeRow>>> {
        self.rows.get(of)
    }

    pub(super) fn insert(&self, of: (Path, usize), rows: &Arc<Vec<EdgeRow>>) {
        self.rows.insert(of, Arc::clone(rows), rows.iter().map(row_bytes).sum());
    }

    /// Puts the keys that equal ones have already in the place of these.
    pub(super) fn share_keys<'k>(&self, keys: impl IntoIterator<Item = &'k mut Arc<EdgeKey>>) {
        let mut known = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            match known.all.get(key) {
                Some(shared) => *key = Arc::clone(shared),
                None => drop(known.all.insert(Arc::clone(key))),
            }
        }
        if known.all.len() > known.in_use.saturating_mul(KEYS_SLACK) {
            known.all.retain(|key| Arc::strong_count(key) > 1);
            known.in_use = known.all.len();
        }
    }
}

/// Memory of one row; keys are shared between rows and not counted.
fn row_bytes(row: &EdgeRow) -> usize {
    size_of::<EdgeRow>() + size_of::<EdgeStats>() + stats_bytes(&row.stats)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::strategy::{Strategy, ValueTree};
    use proptest::test_runner::TestRunner;

    use super::RowCache;
    use crate::tables::arbitrary::edge_row;

    #[test]
    fn equal_keys_become_one_and_unused_ones_go() {
        let row = || edge_row().new_tree(&mut TestRunner::deterministic()).unwrap().current();
        let cache = RowCache::default();
        let (mut first, mut second) = ([row()], [row()]);
        assert!(!Arc::ptr_eq(&first[0].key, &second[0].key));
        cache.share_keys([&mut first[0].key]);
        cache.share_keys([&mut second[0].key]);
        assert!(Arc::ptr_eq(&first[0].key, &second[0].key));
        drop((first, second));
        let mut other = edge_row().new_tree(&mut TestRunner::new(proptest::test_runner::Config::default())).unwrap();
        while other.current().key == row().key && other.simplify() {}
        cache.share_keys([&mut other.current().key]);
        assert!(cache.keys.lock().unwrap().all.len() <= 2);
    }
}
