//! Where files lie and what the table logs say about them.
//!
//! ```text
//! spans/tenant=default/date=2026-11-21/<writer>-<seal>.parquet
//! spans/_traces/tenant=default/date=2026-11-21/<writer>-<seal>.index     left alone by other tools
//! hops/… requests/… edges/…
//! _seals/<writer>/<seal>.json                                            see `record`
//! ```
//! `date` is the UTC day of the seal, not of the rows: senders with wrong clocks must not make a
//! file per invented day. Time pruning uses the statistics in the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use serde_json::{Value, json};
use windrose_proto::edge::SEALED_WINDOW_NANOS;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;

use crate::segment::{Facts, Segment, SegmentFacts, TraceIndex, TraceIndexHead};
use crate::table_log::{Add, TableDefinition, delta_schema};
use crate::tables::Table;

const TAG_REVISION_MAX: &str = "windrose.revision_max";
const TAG_CRC32C: &str = "windrose.crc32c";
/// Narrowest window of the rows of `edges`.
const TAG_WINDOW: &str = "windrose.window_ns";
/// Length of the head of the trace index beside the file.
const TAG_INDEX_HEAD_BYTES: &str = "windrose.trace_index_head_bytes";

/// Names one writer of the tables, so that several can share an object store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterName(String);

/// A writer name that could not be a file name.
#[derive(Debug, thiserror::Error)]
#[error("writer name {name:?} must be 1-64 characters of A-Z a-z 0-9 _ . - and not start with a dot")]
pub struct InvalidWriterName {
    name: String,
}

impl WriterName {
    /// Validates a name.
    ///
    /// # Errors
    /// When it would not be a file name everywhere.
    pub fn new(name: &str) -> Result<Self, InvalidWriterName> {
        // The rules for tenants are those for file names.
        match TenantId::new(name) {
            Ok(_) => Ok(Self(name.to_owned())),
            Err(_) => Err(InvalidWriterName { name: name.chars().take(64).collect() }),
        }
    }

    /// How it is called in the transactions of the table logs.
    #[must_use]
    pub fn app_id(&self) -> String {
        format!("windrose-{}", self.0)
    }
}

impl std::fmt::Display for WriterName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The table as it is created.
pub(super) fn definition(table: Table) -> TableDefinition {
    let description = match table {
        Table::Spans => "received spans with what the rules read out of them",
        Table::Hops => "one row per attempt over one edge; rows of smaller revisions are superseded",
        Table::Requests => "one row per request that entered the mesh; rows of smaller revisions are superseded",
        Table::Edges => "sums per window and edge; add rows of the same window and edge up",
    };
    TableDefinition {
        name: table.name().to_owned(),
        description: description.to_owned(),
        schema_string: delta_schema(&table.schema(), &[("tenant", "string"), ("date", "date")])
            .expect("the columns are made of types Delta Lake knows"),
        partition_columns: vec!["tenant".to_owned(), "date".to_owned()],
        configuration: Vec::new(),
    }
}

/// Where the files of one part of a seal go.
#[derive(Clone, Debug)]
pub(super) struct Place {
    table: Table,
    tenant: TenantId,
    date: String,
    name: String,
}

impl Place {
    pub(super) fn new(table: Table, tenant: &TenantId, at: UnixNanos, writer: &WriterName, seal: u64) -> Self {
        Self { table, tenant: tenant.clone(), date: date_of(at), name: format!("{writer}-{seal:012}") }
    }

    /// Where the file goes that replaces `inputs`: a name of its own for each set of them, so that
    /// repeating a compaction overwrites what a crash left.
    pub(super) fn compacted<'a>(
        table: Table,
        tenant: &TenantId,
        date: String,
        writer: &WriterName,
        inputs: impl Iterator<Item = &'a str>,
    ) -> Self {
        let (mut count, mut sum) = (0, 0);
        let mut last = "";
        for input in inputs {
            sum = crc32c::crc32c_append(sum, input.as_bytes());
            (count, last) = (count + 1, input);
        }
        let last = last.rsplit('/').next().unwrap_or_default().trim_end_matches(".parquet");
        // Names sort by the last seal they hold; names of merged files do not grow with each merge.
        let seal =
            last.split('-').rev().find(|part| part.len() == 12 && part.bytes().all(|byte| byte.is_ascii_digit()));
        let name = format!("{writer}-{}-{count:04}-{sum:08x}", seal.unwrap_or("000000000000"));
        Self { table, tenant: tenant.clone(), date, name }
    }

    fn relative(&self) -> String {
        format!("tenant={}/date={}/{}.parquet", self.tenant, self.date, self.name)
    }

    pub(super) fn file(&self) -> Path {
        Path::from(format!("{}/{}", self.table.name(), self.relative()))
    }

    pub(super) fn index(&self) -> Path {
        index_of(self.table, &self.relative())
    }

    /// What the log says about the file.
    pub(super) fn add(&self, bytes: u64, facts: &Facts, index_head_bytes: Option<usize>, at: UnixNanos) -> Add {
        let mut tags = BTreeMap::from([
            (TAG_REVISION_MAX.to_owned(), Some(facts.revision_max.to_string())),
            (TAG_CRC32C.to_owned(), Some(facts.crc32c.to_string())),
        ]);
        if let Some(head) = index_head_bytes {
            tags.insert(TAG_INDEX_HEAD_BYTES.to_owned(), Some(head.to_string()));
        }
        if let Some(window) = facts.window_nanos {
            tags.insert(TAG_WINDOW.to_owned(), Some(window.to_string()));
        }
        let time = self.table.time_column();
        let stats = json!({
            "numRecords": facts.rows,
            "minValues": { time: facts.first.0 as i64 },
            "maxValues": { time: facts.last.0 as i64 },
            "nullCount": { time: 0 },
        });
        Add {
            path: self.relative(),
            partition_values: BTreeMap::from([
                ("tenant".to_owned(), Some(self.tenant.to_string())),
                ("date".to_owned(), Some(self.date.clone())),
            ]),
            size: bytes as i64,
            modification_time: at.as_millis() as i64,
            data_change: true,
            stats: Some(stats.to_string()),
            tags: Some(tags),
        }
    }
}

fn index_of(table: Table, relative: &str) -> Path {
    Path::from(format!("{}/_traces/{}.index", table.name(), relative.trim_end_matches(".parquet")))
}

/// Everything that lies in the store for a file of the log.
pub(super) fn objects_of(table: Table, relative: &str) -> Vec<Path> {
    let data = Path::from_url_path(format!("{}/{relative}", table.name())).ok();
    let index = (table == Table::Spans).then(|| index_of(table, relative));
    data.into_iter().chain(index).collect()
}

/// Where the head of a file's trace index lies, and its length.
pub(super) fn index_head(table: Table, add: &Add) -> Option<(Path, u64)> {
    Some((index_of(table, &add.path), tag(add, TAG_INDEX_HEAD_BYTES)?))
}

/// Whose rows a file of the log holds.
pub(super) fn tenant(add: &Add) -> Option<TenantId> {
    TenantId::new(add.partition_values.get("tenant")?.as_deref()?).ok()
}

/// Where the file of a log entry lies.
pub(super) fn file(table: Table, add: &Add) -> Option<Path> {
    Path::from_url_path(format!("{}/{}", table.name(), add.path)).ok()
}

/// The file behind a log entry. `None` when it names no tenant or no path.
pub(super) fn segment(
    table: Table,
    store: &Arc<dyn ObjectStore>,
    add: &Add,
    index: Option<TraceIndexHead>,
) -> Option<(TenantId, Segment)> {
    let tenant = tenant(add)?;
    let path = file(table, add)?;
    let index = index.map(|head| TraceIndex { path: index_of(table, &add.path), head });
    let segment = Segment::new(table, Arc::clone(store), path, add.size as u64, facts(table, add), index);
    Some((tenant, segment))
}

/// What is known of a file; other writers may leave anything out.
fn facts(table: Table, add: &Add) -> SegmentFacts {
    let stats: Value = add.stats.as_deref().and_then(|stats| serde_json::from_str(stats).ok()).unwrap_or_default();
    let time = |bound: &str| stats[bound][table.time_column()].as_i64().map(|nanos| UnixNanos(nanos as u64));
    SegmentFacts {
        rows: stats["numRecords"].as_u64().unwrap_or_default(),
        first: time("minValues").unwrap_or(UnixNanos::ZERO),
        last: time("maxValues").unwrap_or(UnixNanos(u64::MAX)),
        revision_max: tag(add, TAG_REVISION_MAX),
        crc32c: tag(add, TAG_CRC32C),
    }
}

/// Narrowest window of the rows of `edges` in a file; sealed windows when the file does not say.
pub(super) fn window_nanos(add: &Add) -> u64 {
    tag(add, TAG_WINDOW).unwrap_or(SEALED_WINDOW_NANOS)
}

fn tag<T: std::str::FromStr>(add: &Add, name: &str) -> Option<T> {
    add.tags.as_ref()?.get(name)?.as_deref()?.parse().ok()
}

/// The UTC day as `YYYY-MM-DD` (days to civil date after Howard Hinnant).
pub(crate) fn date_of(at: UnixNanos) -> String {
    let days = (at.0 / 86_400_000_000_000) as i64 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::{WriterName, date_of};
    use windrose_proto::time::UnixNanos;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (secs, date) in [
            (0, "1970-01-01"),
            (951_782_399, "2000-02-28"),
            (951_782_400, "2000-02-29"),
            (951_868_800, "2000-03-01"),
            (1_795_219_200, "2026-11-21"),
            (4_107_542_399, "2100-02-28"),
            (4_107_542_400, "2100-03-01"),
        ] {
            assert_eq!(date_of(UnixNanos::from_secs(secs)), date, "{secs}");
        }
        assert_eq!(date_of(UnixNanos(u64::MAX)), "2554-07-21");
    }

    #[test]
    fn writer_names_are_file_names() {
        assert_eq!(WriterName::new("node-1").unwrap().app_id(), "windrose-node-1");
        for bad in ["", "a/b", "..", "ä"] {
            assert!(WriterName::new(bad).is_err(), "{bad}");
        }
    }
}
