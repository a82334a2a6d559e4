//! Compaction: many small files become few large ones, without readers noticing.
//!
//! [`plan`] decides, [`merge`] rewrites, and the table log swaps old for new in one commit. The old
//! files stay for readers that still hold an older catalog, until [`Sealed::vacuum`].
//!
//! Invariants: no row is lost or doubled. Rows of `edges` are added up per window and edge, hops and
//! requests that a newer revision in the same group supersedes are dropped, and spans that are there
//! twice are kept once, so every answer stays the same; only the windows of old rollup rows get
//! wider. Neither seals nor readers wait: the tables are locked for the commit only.

mod merge;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use hashbrown::HashMap;
use object_store::PutMode;
use object_store::path::Path;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;

pub use plan::CompactionPolicy;

use super::layout::{self, Place};
use super::{SealError, Sealed};
use crate::segment::{Encoded, Segment, TraceIndexHead};
use crate::table_log::{Action, Add, Commit, LogError, Remove};
use crate::tables::Table;
use plan::{Candidate, Group};

/// What a round of compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CompactionReport {
    pub files_before: u64,
    pub files_after: u64,
    pub bytes_before: u64,
    pub bytes_after: u64,
}

/// A file of a table and the segment that readers use for it.
struct Live {
    add: Add,
    tenant: TenantId,
    segment: Arc<Segment>,
}

impl Sealed {
    /// Rewrites what the policy names, of every table. One group of files is in memory at a time.
    ///
    /// # Errors
    /// When the object store fails; groups done by then stay done.
    pub async fn compact(&self, policy: &CompactionPolicy, now: UnixNanos) -> Result<CompactionReport, SealError> {
        self.refresh().await?;
        let mut report = CompactionReport::default();
        for table in Table::ALL {
            let files = self.mergeable(table).await;
            let candidates: Vec<Candidate> = files.iter().map(|live| candidate(table, live)).collect();
            for group in plan::plan(table, &candidates, now, policy) {
                self.compact_group(table, &files, &group, now, &mut report).await?;
            }
        }
        Ok(report)
    }

    /// The files that are whole, as far as known, and were not found to be unreadable.
    async fn mergeable(&self, table: Table) -> Vec<Live> {
        let adds = self.files(table).await;
        let catalog = self.catalog();
        let segments: HashMap<&Path, (&TenantId, &Arc<Segment>)> = catalog
            .tenants()
            .flat_map(|(tenant, files)| files.segments(table).iter().map(move |file| (file.path(), (tenant, file))))
            .collect();
        let unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
        let live = adds.into_iter().filter(|add| !unreadable.contains(&add.path)).filter_map(|add| {
            let (tenant, segment) = segments.get(&layout::file(table, &add)?)?;
            let is_whole = segment.quarantine_reason().is_none();
            is_whole.then(|| Live { tenant: (*tenant).clone(), segment: Arc::clone(segment), add })
        });
        live.collect()
    }

    async fn compact_group(
        &self,
        table: Table,
        files: &[Live],
        group: &Group,
        now: UnixNanos,
        report: &mut CompactionReport,
    ) -> Result<(), SealError> {
        let files: Vec<&Live> = group.files.iter().map(|place| &files[*place]).collect();
        let (Some(first), Some(last)) = (files.first(), files.last()) else { return Ok(()) };
        let mut contents = Vec::with_capacity(files.len());
        for live in &files {
            // A damaged file is quarantined where readers look, and its group waits for a repair.
            let Some(content) = live.segment.read_checked().await? else { return Ok(()) };
            contents.push(content);
        }
        let Some(encoded) = merge::merge_blocking(table, contents, group.window_nanos).await else {
            let mut unreadable = self.unreadable.lock().unwrap_or_else(PoisonError::into_inner);
            unreadable.extend(files.iter().map(|live| live.add.path.clone()));
            return Ok(());
        };
        let date = first.add.partition_values.get("date").cloned().flatten().unwrap_or_default();
        let inputs = files.iter().map(|live| live.add.path.as_str());
        let place = Place::compacted(table, &first.tenant, date, &self.writer, inputs);
        // The new file is as old as the newest of its rows, so that it does not outlive them.
        let sealed = UnixNanos(last.add.modification_time.unsigned_abs().saturating_mul(1_000_000));
        let add = self.put_compacted(&place, &encoded, sealed).await?;
        let new_bytes = add.size.unsigned_abs();
        let removes = files.iter().map(|live| Action::Remove(remove(&live.add, false, now)));
        let actions = removes.chain([Action::Add(Add { data_change: false, ..add })]).collect();
        let heads = encoded.trace_index.as_ref().map(|index| {
            let head = TraceIndexHead::decode(&index.bytes).expect("the index was encoded just now");
            (place.index(), head)
        });
        if self.commit_change(table, "OPTIMIZE", actions, now, heads.into_iter().collect()).await? {
            report.files_before += files.len() as u64;
            report.files_after += 1;
            report.bytes_before += files.iter().map(|live| live.segment.bytes()).sum::<u64>();
            report.bytes_after += new_bytes;
        }
        Ok(())
    }

    async fn put_compacted(&self, place: &Place, encoded: &Encoded, sealed: UnixNanos) -> Result<Add, SealError> {
        // Written under a name that only these inputs get; a crash leaves garbage that the next
        // attempt overwrites.
        self.put(&place.file(), encoded.file.clone(), PutMode::Overwrite).await?;
        let mut head_bytes = None;
        if let Some(index) = &encoded.trace_index {
            head_bytes = Some(index.head_bytes);
            self.put(&place.index(), index.bytes.clone().into(), PutMode::Overwrite).await?;
        }
        Ok(place.add(encoded.file.len() as u64, &encoded.facts, head_bytes, sealed))
    }

    /// Commits and publishes. False when another writer removed one of the files first: what was
    /// written for this commit is garbage then.
    pub(super) async fn commit_change(
        &self,
        table: Table,
        operation: &'static str,
        actions: Vec<Action>,
        now: UnixNanos,
        heads: BTreeMap<Path, TraceIndexHead>,
    ) -> Result<bool, SealError> {
        let tables = &mut *self.tables.lock().await;
        let committed =
            match tables.logs[table as usize].commit(Commit { operation, at: now, txn: None, actions }).await {
                Ok(_) => true,
                Err(LogError::Conflict { file }) => {
                    tracing::info!(table = table.name(), file, "another writer removed a file first");
                    false
                }
                Err(error) => return Err(error.into()),
            };
        self.publish(&tables.logs, heads).await?;
        Ok(committed)
    }

    /// The files of a table as its log has them.
    pub(super) async fn files(&self, table: Table) -> Vec<Add> {
        let tables = self.tables.lock().await;
        tables.logs[table as usize].state().files().values().cloned().collect()
    }
}

fn candidate(table: Table, live: &Live) -> Candidate {
    Candidate {
        tenant: live.tenant.to_string(),
        date: live.add.partition_values.get("date").cloned().flatten().unwrap_or_default(),
        path: live.add.path.clone(),
        bytes: live.segment.bytes(),
        sealed_millis: live.add.modification_time,
        window_nanos: (table == Table::Edges).then(|| layout::window_nanos(&live.add)),
    }
}

/// Takes a file out of its table.
pub(super) fn remove(add: &Add, data_change: bool, now: UnixNanos) -> Remove {
    Remove {
        path: add.path.clone(),
        deletion_timestamp: Some(now.as_millis() as i64),
        data_change,
        extended_file_metadata: Some(true),
        partition_values: Some(add.partition_values.clone()),
        size: Some(add.size),
    }
}
