//! A sealed file: immutable Parquet in an object store, and how rows come back out of it.
//!
//! Invariants: a file never changes once it is in a table log; its facts (rows, time range, largest
//! revision, checksum) come from the log, so that nothing is read to find out that nothing needs to
//! be read. Damage is told apart from a failing store: a damaged file is quarantined, answers as if
//! it were empty from then on and is named with its reason; a failing store is an error to retry.

mod encode;
pub(crate) mod file_reader;
mod inspect;
mod read;
mod row_groups;
#[cfg(test)]
mod tests;
mod trace_index;

use std::sync::{Arc, OnceLock};

use object_store::ObjectStore;
use object_store::path::Path;
use windrose_proto::id::TraceId;
use windrose_proto::time::{TimeRange, UnixNanos};

pub use encode::{BatchEncoder, Encoded, Facts, encode_edges, encode_hops, encode_requests, encode_spans, properties};
pub use inspect::{ColumnReport, FileBytes, FileReport, RowGroupReport, file_bytes, inspect_file};
pub(crate) use read::Failure;
pub use read::{FooterCache, SegmentError};
pub use row_groups::RowGroup;
pub use trace_index::{DamagedIndex, EncodedIndex, TraceIndexHead};

use crate::tables::Table;

/// One sealed file.
#[derive(Debug)]
pub struct Segment {
    table: Table,
    store: Arc<dyn ObjectStore>,
    path: Path,
    bytes: u64,
    facts: SegmentFacts,
    index: Option<TraceIndex>,
    damage: OnceLock<String>,
    /// Its parts, once they were looked for.
    row_groups: OnceLock<Vec<RowGroup>>,
    /// Traces with a revision above 1, once they were read; only of `requests`.
    revised: OnceLock<Vec<(TraceId, u32)>>,
}

/// What the table log says about a file. Files of other writers say less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    pub rows: u64,
    /// First and last value of the time column, as far as known.
    pub first: UnixNanos,
    pub last: UnixNanos,
    pub revision_max: Option<u32>,
    pub crc32c: Option<u32>,
}

/// The trace index beside a span file.
#[derive(Clone, Debug)]
pub struct TraceIndex {
    pub path: Path,
    pub head: TraceIndexHead,
}

impl From<Facts> for SegmentFacts {
    fn from(facts: Facts) -> Self {
        Self {
            rows: facts.rows,
            first: facts.first,
            last: facts.last,
            revision_max: Some(facts.revision_max),
            crc32c: Some(facts.crc32c),
        }
    }
}

impl Segment {
    /// A file of `table` at `path` in `store`.
    #[must_use]
    pub fn new(
        table: Table,
        store: Arc<dyn ObjectStore>,
        path: Path,
        bytes: u64,
        facts: SegmentFacts,
        index: Option<TraceIndex>,
    ) -> Self {
        Self {
            table,
            store,
            path,
            bytes,
            facts,
            index,
            damage: OnceLock::new(),
            row_groups: OnceLock::new(),
            revised: OnceLock::new(),
        }
    }

    /// Which table it belongs to.
    #[must_use]
    pub const fn table(&self) -> Table {
        self.table
    }

    /// The store it lies in.
    #[must_use]
    pub const fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// Where in the store it lies.
    #[must_use]
    pub const fn path(&self) -> &Path {
        &self.path
    }

    /// Its size.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of rows.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.facts.rows
    }

    /// First and last value of the time column, both inside.
    #[must_use]
    pub const fn time_range(&self) -> (UnixNanos, UnixNanos) {
        (self.facts.first, self.facts.last)
    }

    /// Whether rows may lie inside `range`.
    #[must_use]
    pub fn overlaps(&self, range: TimeRange) -> bool {
        range.overlaps(self.facts.first, self.facts.last)
    }

    /// The first and the last instant its rows speak of.
    #[must_use]
    pub const fn extent(&self) -> (UnixNanos, UnixNanos) {
        (self.facts.first, self.facts.last)
    }

    /// Whether rows with a revision above 1 may be inside.
    #[must_use]
    pub fn may_have_revisions(&self) -> bool {
        self.facts.revision_max.is_none_or(|max| max > 1)
    }

    /// False when the file surely has no span of `trace`.
    #[must_use]
    pub fn may_contain(&self, trace: TraceId) -> bool {
        self.index.as_ref().is_none_or(|index| index.head.may_contain(trace))
    }

    /// Bytes of memory its trace filter holds.
    #[must_use]
    pub fn filter_memory_bytes(&self) -> usize {
        self.index.as_ref().map_or(0, |index| index.head.memory_bytes())
    }

    /// Why it is left out of answers, if it is.
    #[must_use]
    pub fn quarantine_reason(&self) -> Option<&str> {
        self.damage.get().map(String::as_str)
    }

    /// Leaves the file out of answers from now on. The first reason stays.
    pub fn quarantine(&self, reason: String) {
        if self.damage.set(reason).is_ok() {
            tracing::error!(
                path = %self.path,
                rows = self.facts.rows,
                reason = self.quarantine_reason(),
                "sealed file is damaged and left out of answers"
            );
        }
    }
}
