//! Vacuum: deleting what no table lists any more.
//!
//! | what | deleted |
//! |---|---|
//! | files that a commit removed | a horizon after the commit |
//! | files that no table lists: left by a crash, or by a merge that lost against another writer | a horizon after they were first seen like that |
//! | commits and checkpoints long before the last checkpoint | when [`TableLog::drop_old_versions`](crate::table_log::TableLog::drop_old_versions) finds them |
//!
//! Invariants: a file that a table lists, or that the record of a seal names, is never deleted, so
//! that a seal which was decided can be finished whenever. The horizon is longer than any reader
//! holds on to an old catalog.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use windrose_proto::time::UnixNanos;

use super::record::SealRecord;
use super::{SealError, Sealed, layout};
use crate::tables::Table;

/// Files that no table lists, and when they were first seen like that.
pub(super) type Orphans = BTreeMap<Path, UnixNanos>;

impl Sealed {
    /// Deletes files that were removed from the tables, or were never part of one, more than
    /// `horizon` ago. Returns how many.
    ///
    /// # Errors
    /// When the object store fails; the rest is deleted next time.
    pub async fn vacuum(&self, horizon: Duration, now: UnixNanos) -> Result<u64, SealError> {
        let before = now.minus(horizon);
        let mut deleted = 0;
        for table in Table::ALL {
            // Listed first: a file that is written later is no orphan of this round.
            let lying = self.list_files(table).await?;
            let (listed, removed) = self.listed_and_removed(table, before).await;
            for path in &removed {
                deleted += self.delete(path).await?;
            }
            self.forget_removed(table, before).await;
            let recorded = self.recorded_files(table).await?;
            let orphans = lying
                .into_iter()
                .filter(|path| !listed.contains(path) && !recorded.contains(path) && !removed.contains(path));
            for path in self.note_orphans(table, orphans.collect(), before, now).await {
                tracing::info!(%path, "deleting a file that no table lists");
                deleted += self.delete(&path).await?;
            }
            let tables = self.tables.lock().await;
            let log = tables.logs[table as usize].clone();
            drop(tables);
            deleted += log.drop_old_versions().await?;
        }
        Ok(deleted)
    }

    /// All data files and trace indexes that lie in the directory of a table.
    async fn list_files(&self, table: Table) -> Result<Vec<Path>, SealError> {
        let root = Path::from(table.name());
        let log = root.clone().join("_delta_log");
        let listed = self.store.list(Some(&root)).map_ok(|object| object.location);
        let files = listed.try_filter(|path| std::future::ready(!path.prefix_matches(&log))).try_collect().await;
        files.map_err(|source| SealError::Store { path: root, source })
    }

    /// What belongs to a table or may still be read by somebody, and what was removed before that time.
    async fn listed_and_removed(&self, table: Table, before: UnixNanos) -> (BTreeSet<Path>, BTreeSet<Path>) {
        let tables = self.tables.lock().await;
        let state = tables.logs[table as usize].state();
        let before_millis = before.as_millis() as i64;
        let objects = |relative: &str| layout::objects_of(table, relative);
        let mut listed: BTreeSet<Path> = state.files().keys().flat_map(|relative| objects(relative)).collect();
        let mut removed = BTreeSet::new();
        for remove in state.tombstones().values() {
            let is_due = remove.deletion_timestamp.unwrap_or(0) < before_millis;
            let objects = objects(&remove.path);
            if is_due { removed.extend(objects) } else { listed.extend(objects) }
        }
        (listed, removed)
    }

    async fn forget_removed(&self, table: Table, before: UnixNanos) {
        let tables = &mut *self.tables.lock().await;
        tables.logs[table as usize].forget_removed_before(before.as_millis() as i64);
    }

    /// Files of seals whose commits may still be to come, of all writers.
    async fn recorded_files(&self, table: Table) -> Result<BTreeSet<Path>, SealError> {
        let root = SealRecord::root();
        let records = self.store.list(Some(&root)).map_ok(|object| object.location).try_collect().await;
        let records: Vec<Path> = records.map_err(|source| SealError::Store { path: root, source })?;
        let mut files = BTreeSet::new();
        for path in records {
            let Some(record) = self.read_record_at(path).await? else { continue };
            files.extend(record.files_of(table).iter().flat_map(|add| layout::objects_of(table, &add.path)));
        }
        Ok(files)
    }

    /// Remembers the orphans of a table and returns those that were known before that time.
    async fn note_orphans(&self, table: Table, orphans: Vec<Path>, before: UnixNanos, now: UnixNanos) -> Vec<Path> {
        let tables = &mut *self.tables.lock().await;
        let known = std::mem::take(&mut tables.orphans[table as usize]);
        let mut due = Vec::new();
        for path in orphans {
            let since = known.get(&path).copied().unwrap_or(now);
            if since < before {
                due.push(path);
            } else {
                tables.orphans[table as usize].insert(path, since);
            }
        }
        due
    }

    /// 1 when it was there.
    async fn delete(&self, path: &Path) -> Result<u64, SealError> {
        match self.store.delete(path).await {
            Ok(()) => Ok(1),
            Err(object_store::Error::NotFound { .. }) => Ok(0),
            Err(source) => Err(SealError::Store { path: path.clone(), source }),
        }
    }
}
