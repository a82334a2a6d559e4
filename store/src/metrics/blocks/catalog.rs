//! Which blocks there are, and what the table logs say about their files.
//!
//! ```text
//! series/tenant=default/date=2026-11-21/<writer>-<number>.parquet
//! samples/… exemplars/…                                            same name in each table
//! _blocks/<writer>/<number>.json                                   see `record`
//! ```
//! `date` is the UTC day on which the block was written, not that of its samples.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use object_store::path::Path;
use serde_json::{Value, json};
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;

use super::encode::EncodedFile;
use super::tables::Kind;
use crate::sealed::{WriterName, date_of};
use crate::table_log::{Add, TableState};

/// One tenant's part of a block.
#[derive(Debug)]
pub(in crate::metrics) struct Block {
    /// Path of its files within their tables.
    pub(super) name: String,
    pub(super) series: FileFacts,
    pub(super) samples: Option<FileFacts>,
    pub(super) exemplars: Option<FileFacts>,
    /// First and last time in it.
    pub(in crate::metrics) range_ms: (i64, i64),
    pub(super) written_ms: i64,
    /// Why it is left out of answers.
    pub(super) damage: OnceLock<String>,
}

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileFacts {
    pub(super) path: Path,
    pub(super) bytes: u64,
}

/// The blocks of one tenant, oldest first.
pub(in crate::metrics) type Blocks = Arc<Vec<Arc<Block>>>;

impl Block {
    /// Whether it may have something in `[min_ms, max_ms]`.
    pub(in crate::metrics) fn overlaps(&self, min_ms: i64, max_ms: i64) -> bool {
        self.damage.get().is_none() && self.range_ms.0 <= max_ms && self.range_ms.1 >= min_ms
    }

    /// Bytes of its files.
    pub(super) fn bytes(&self) -> u64 {
        let files = [Some(&self.series), self.samples.as_ref(), self.exemplars.as_ref()];
        files.into_iter().flatten().map(|file| file.bytes).sum()
    }

    /// Leaves the block out of answers from now on. The first reason stays.
    pub(super) fn quarantine(&self, reason: String) {
        if self.damage.set(reason).is_ok() {
            tracing::error!(
                block = self.name,
                reason = self.damage.get(),
                "block of metrics is damaged and left out of answers"
            );
        }
    }
}

/// What the log says about a new file.
pub(super) fn add(file: &EncodedFile, tenant: &TenantId, at: UnixNanos, name: &str) -> Add {
    let (first, last) = file.range_ms;
    let column = time_column(file.kind);
    let stats = json!({
        "numRecords": file.rows,
        "minValues": { column.0: first },
        "maxValues": { column.1: last },
    });
    Add {
        path: name.to_owned(),
        partition_values: BTreeMap::from([
            ("tenant".to_owned(), Some(tenant.to_string())),
            ("date".to_owned(), Some(date_of(at))),
        ]),
        size: file.bytes.len() as i64,
        modification_time: at.as_millis() as i64,
        data_change: true,
        stats: Some(stats.to_string()),
        tags: None,
    }
}

/// The columns that hold the earliest and the latest time.
const fn time_column(kind: Kind) -> (&'static str, &'static str) {
    match kind {
        Kind::Series | Kind::Samples => ("first_ms", "last_ms"),
        Kind::Exemplars => ("at_ms", "at_ms"),
    }
}

/// Where the file of a block lies within its table.
pub(super) fn name_of(tenant: &TenantId, at: UnixNanos, writer: &WriterName, number: u64) -> String {
    format!("tenant={tenant}/date={}/{writer}-{number:012}.parquet", date_of(at))
}

/// Where a file lies in the store.
pub(super) fn path_of(kind: Kind, name: &str) -> Path {
    Path::from(format!("{}/{name}", kind.name()))
}

/// The blocks of all tenants as the logs have them. Blocks of `before` are kept as they are, with
/// their quarantine.
pub(super) fn build(states: [&TableState; 3], before: &BTreeMap<TenantId, Blocks>) -> BTreeMap<TenantId, Blocks> {
    let mut tenants: BTreeMap<TenantId, Vec<Arc<Block>>> = BTreeMap::new();
    for (name, add) in states[Kind::Series as usize].files() {
        let tenant = add.partition_values.get("tenant").and_then(Option::as_deref);
        let Some(tenant) = tenant.and_then(|name| TenantId::new(name).ok()) else {
            tracing::warn!(path = name, "file of series names no tenant and is left out");
            continue;
        };
        let known = before.get(&tenant).and_then(|blocks| blocks.iter().find(|block| block.name == *name));
        let block = known.map_or_else(|| Arc::new(block(name, add, states)), Arc::clone);
        tenants.entry(tenant).or_default().push(block);
    }
    for blocks in tenants.values_mut() {
        blocks.sort_by(|a, b| (a.written_ms, &a.name).cmp(&(b.written_ms, &b.name)));
    }
    tenants.into_iter().map(|(tenant, blocks)| (tenant, Arc::new(blocks))).collect()
}

fn block(name: &str, add: &Add, states: [&TableState; 3]) -> Block {
    let facts = |kind: Kind| {
        let add = states[kind as usize].files().get(name)?;
        Some(FileFacts { path: path_of(kind, name), bytes: add.size.unsigned_abs() })
    };
    let stats: Value = add.stats.as_deref().and_then(|stats| serde_json::from_str(stats).ok()).unwrap_or_default();
    // Other writers may say less; then the block is looked at by every query.
    let first = stats["minValues"]["first_ms"].as_i64().unwrap_or(i64::MIN);
    let last = stats["maxValues"]["last_ms"].as_i64().unwrap_or(i64::MAX);
    Block {
        name: name.to_owned(),
        series: FileFacts { path: path_of(Kind::Series, name), bytes: add.size.unsigned_abs() },
        samples: facts(Kind::Samples),
        exemplars: facts(Kind::Exemplars),
        range_ms: (first, last),
        written_ms: add.modification_time,
        damage: OnceLock::new(),
    }
}
