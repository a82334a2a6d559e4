//! The record of a seal: written after its files and before its commits.
//!
//! Once it is there, the seal is decided: whoever opens the tables next finishes the commits.
//! Without it, the files of the seal are garbage that the next attempt overwrites. It also holds
//! what only the writer needs: up to where the write-ahead log is in the tables, and which traces
//! were still open there. (In the object store and not in the write-ahead log, so that the tables
//! can be finished without it, and next to the tables because Delta checkpoints keep no provenance.)

use std::collections::BTreeMap;

use object_store::path::Path;
use serde::{Deserialize, Serialize};
use windrose_proto::id::TraceId;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;

use super::layout::WriterName;
use crate::table_log::Add;
use crate::tables::Table;

/// One seal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct SealRecord {
    pub(super) seal: u64,
    pub(super) at: UnixNanos,
    pub(super) wal_segment: u64,
    pub(super) wal_offset: u64,
    /// By table name.
    pub(super) files: BTreeMap<String, Vec<Add>>,
    /// By tenant, ids in hexadecimal.
    pub(super) open_traces: BTreeMap<String, Vec<String>>,
}

/// Up to where the tables hold the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    /// The last seal that all tables have.
    pub seal_number: u64,
    /// Segment and offset up to which the log is in the tables.
    pub wal: (u64, u64),
    /// Traces whose spans lie before that position but were not settled.
    pub open_traces: BTreeMap<TenantId, Vec<TraceId>>,
}

impl SealRecord {
    pub(super) fn files_of(&self, table: Table) -> &[Add] {
        self.files.get(table.name()).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) const fn wal(&self) -> (u64, u64) {
        (self.wal_segment, self.wal_offset)
    }

    pub(super) fn recovered(&self) -> Recovered {
        let traces = |ids: &Vec<String>| ids.iter().filter_map(|id| TraceId::parse(id)).collect();
        let tenants = self.open_traces.iter().filter_map(|(name, ids)| Some((TenantId::new(name).ok()?, traces(ids))));
        Recovered { seal_number: self.seal, wal: self.wal(), open_traces: tenants.collect() }
    }

    /// Where the records of all writers lie.
    pub(super) fn root() -> Path {
        Path::from("_seals")
    }

    pub(super) fn directory(writer: &WriterName) -> Path {
        Self::root().join(writer.to_string())
    }

    pub(super) fn path(writer: &WriterName, seal: u64) -> Path {
        Self::directory(writer).join(format!("{seal:012}.json"))
    }

    /// The seal a record file is about.
    pub(super) fn seal_of(path: &Path) -> Option<u64> {
        path.filename()?.strip_suffix(".json")?.parse().ok()
    }
}
