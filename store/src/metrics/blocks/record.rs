//! The record of a block: written after its files and before its commits to the three tables.
//!
//! Once it is there the block is decided: whoever opens the tables next finishes the commits.
//! Without it, the files are garbage that the next attempt overwrites. It also says up to where the
//! log is in blocks.

use std::collections::BTreeMap;

use object_store::path::Path;
use serde::{Deserialize, Serialize};
use windrose_proto::time::UnixNanos;

use super::tables::Kind;
use crate::sealed::WriterName;
use crate::table_log::Add;
use crate::wal::WalPosition;

/// One block.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct BlockRecord {
    pub(super) number: u64,
    pub(super) at: UnixNanos,
    /// Everything in the log before this is in this block or an earlier one.
    pub(super) log: WalPosition,
    /// By table name.
    pub(super) files: BTreeMap<String, Vec<Add>>,
}

impl BlockRecord {
    pub(super) fn files_of(&self, kind: Kind) -> &[Add] {
        self.files.get(kind.name()).map(Vec::as_slice).unwrap_or_default()
    }

    pub(super) fn directory(writer: &WriterName) -> Path {
        Path::from(format!("_blocks/{writer}"))
    }

    pub(super) fn path(writer: &WriterName, number: u64) -> Path {
        Self::directory(writer).join(format!("{number:012}.json"))
    }

    /// The block a record file is about.
    pub(super) fn number_of(path: &Path) -> Option<u64> {
        path.filename()?.strip_suffix(".json")?.parse().ok()
    }
}
