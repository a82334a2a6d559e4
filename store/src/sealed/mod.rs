//! Sealed tables: what is in files, and the protocol by which rows get there.
//!
//! # A seal
//! 1. The files of all tables and tenants are written.
//! 2. The `record` of the seal is written: from here on the seal is decided.
//! 3. Each table's log gets one commit with the transaction (writer, seal number).
//! 4. The new catalog is published.
//!
//! A crash before 2 leaves garbage that nobody sees and the next attempt overwrites. A crash after
//! 2 is finished when the tables are opened again; commits that were already made are recognised by
//! their transaction. So after opening, every seal is in all tables or in none.
//!
//! Invariants: a seal number is used for one set of rows; an error leaves the catalog as it was,
//! and repeating the seal with the same input is safe whatever the error was.

mod cache;
mod catalog;
mod compaction;
mod disk_store;
mod layout;
mod location;
mod record;
mod retention;
#[cfg(test)]
mod tests;
mod totals;
mod vacuum;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use parquet::errors::ParquetError;
use tokio::sync::Mutex;
use windrose_proto::edge::EdgeRow;
use windrose_proto::id::TraceId;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;

use self::catalog::Caches;
pub use self::catalog::{Quarantined, SealedCatalog, TenantCatalog};
pub use self::compaction::{CompactionPolicy, CompactionReport};
pub use self::disk_store::DiskStore;
pub(crate) use self::layout::date_of;
pub use self::layout::{InvalidWriterName, WriterName};
pub use self::location::{Bucket, InvalidUrl, Location, LocationError};
pub use self::record::Recovered;
pub use self::retention::{ExpiryReport, Retention, RetentionPolicy};
pub use crate::segment::{Segment, SegmentError};

use self::layout::Place;
use self::record::SealRecord;
use self::vacuum::Orphans;
use crate::disk::Disk;
use crate::row::{HopRow, RequestRow, SpanRow};
use crate::segment::{Encoded, TraceIndexHead, encode_edges, encode_hops, encode_requests, encode_spans};
use crate::table_log::{Action, Add, Commit, LogError, TableLog, Txn};
use crate::tables::{Table, TableError};

/// Trace indexes read at the same time when the tables are opened.
const READS_AT_ONCE: usize = 16;

/// Seal records kept behind the last one, for whoever wants to see what happened.
const RECORDS_KEPT: u64 = 8;

/// The sealed tables of one object store, with one writer.
#[derive(Debug)]
pub struct Sealed {
    store: Arc<dyn ObjectStore>,
    writer: WriterName,
    catalog: ArcSwap<SealedCatalog>,
    caches: Caches,
    tables: Mutex<Tables>,
    /// Paths of files that compaction cannot read and does not try again.
    unreadable: std::sync::Mutex<BTreeSet<String>>,
}

/// What changes when sealing; one seal at a time.
#[derive(Debug)]
struct Tables {
    /// In the order of [`Table::ALL`].
    logs: Vec<TableLog>,
    /// The last seal that all tables have.
    sealed: Option<u64>,
    /// A seal that was begun and did not get through.
    attempted: Option<u64>,
    /// In the order of [`Table::ALL`].
    orphans: [Orphans; Table::ALL.len()],
}

/// Rows to seal: everything up to one position of the write-ahead log.
#[derive(Clone, Copy, Debug)]
pub struct SealInput<'a> {
    /// Grows by at least one from seal to seal.
    pub seal_number: u64,
    /// Segment and offset up to which everything is in these rows or in earlier seals.
    pub wal: (u64, u64),
    /// When: names the partition.
    pub at: UnixNanos,
    /// At most one part per tenant.
    pub parts: &'a [SealPart],
}

/// The rows of one tenant.
#[derive(Clone, Debug)]
pub struct SealPart {
    pub tenant: TenantId,
    pub spans: Vec<SpanRow>,
    pub hops: Vec<HopRow>,
    pub requests: Vec<RequestRow>,
    pub edges: Vec<EdgeRow>,
    /// Traces with sealed spans that are not settled yet.
    pub open_traces: Vec<TraceId>,
}

/// Tables could not be opened or sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The object store failed: repeat with the same input.
    #[error("object store failed at {path}")]
    Store {
        path: Path,
        #[source]
        source: object_store::Error,
    },
    /// A table log failed: see whether it is transient.
    #[error("table log failed")]
    Log(#[from] LogError),
    /// Rows could not be written as Parquet.
    #[error("encoding rows as Parquet failed")]
    Encode(#[from] TableError),
    /// A sealed file could not be read.
    #[error("reading a sealed file failed")]
    Segment(#[from] SegmentError),
    /// The record of a seal is damaged.
    #[error("seal record {path} is damaged: restore it from a backup")]
    DamagedRecord {
        path: Path,
        #[source]
        source: serde_json::Error,
    },
    /// The tables have seals whose record is gone.
    #[error("seal record {path} is missing: restore it from a backup, without it spans would be stored twice")]
    MissingRecord { path: Path },
    /// Somebody else seals under the same name.
    #[error("seal record {path} was written by another process: give every collector a writer name of its own")]
    WriterInUse { path: Path },
    /// The caller broke the rule for seal numbers.
    #[error("seal {number} cannot follow seal {last}: numbers grow, and a failed seal is repeated before the next")]
    OutOfOrder { number: u64, last: u64 },
    /// The caller repeated a seal with other rows.
    #[error("seal {number} was recorded up to log position {recorded:?}, it cannot be repeated up to {wanted:?}")]
    Changed { number: u64, recorded: (u64, u64), wanted: (u64, u64) },
}

impl SealError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        match self {
            Self::Store { .. } | Self::Segment(_) => true,
            Self::Log(error) => error.is_transient(),
            Self::Encode(_)
            | Self::DamagedRecord { .. }
            | Self::MissingRecord { .. }
            | Self::WriterInUse { .. }
            | Self::OutOfOrder { .. }
            | Self::Changed { .. } => false,
        }
    }
}

impl Sealed {
    /// Opens the tables in `store`, creating them as needed, and finishes seals of `writer` that a
    /// crash cut short. Also returns up to where the write-ahead log is in the tables; `None` when
    /// this writer never sealed.
    ///
    /// # Errors
    /// When the store fails or a log is damaged. Damaged data files are no error.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        writer: WriterName,
        now: UnixNanos,
    ) -> Result<(Self, Option<Recovered>), SealError> {
        let mut logs = Vec::new();
        for table in Table::ALL {
            let root = Path::from(table.name());
            logs.push(TableLog::open(Arc::clone(&store), root, &layout::definition(table), now).await?);
        }
        let sealed = Self {
            store,
            writer,
            catalog: ArcSwap::default(),
            caches: Caches::new(),
            tables: Mutex::new(Tables { logs, sealed: None, attempted: None, orphans: Default::default() }),
            unreadable: std::sync::Mutex::default(),
        };
        let recovered = sealed.recover().await?;
        Ok((sealed, recovered))
    }

    /// What is sealed now.
    #[must_use]
    pub fn catalog(&self) -> Arc<SealedCatalog> {
        self.catalog.load_full()
    }

    /// Where the files lie.
    #[must_use]
    pub const fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    async fn recover(&self) -> Result<Option<Recovered>, SealError> {
        let tables = &mut *self.tables.lock().await;
        let app_id = self.writer.app_id();
        let everywhere = tables.logs.iter().map(|log| log.state().txn(&app_id)).min().flatten();
        let anywhere = tables.logs.iter().filter_map(|log| log.state().txn(&app_id)).max();
        let mut last = None;
        for seal in self.list_records().await? {
            if everywhere.is_some_and(|committed| (seal as i64) < committed) {
                continue;
            }
            let record = self.read_record(seal).await?.ok_or_else(|| self.missing_record(seal))?;
            self.commit(&mut tables.logs, &record).await?;
            last = Some(record);
        }
        if anywhere > last.as_ref().map(|record| record.seal as i64) {
            return Err(self.missing_record(anywhere.unwrap_or_default() as u64));
        }
        tables.sealed = last.as_ref().map(|record| record.seal);
        self.publish(&tables.logs, BTreeMap::new()).await?;
        Ok(last.map(|record| record.recovered()))
    }

    /// Makes rows part of the tables, all of them or none. Returns the new catalog.
    ///
    /// # Errors
    /// See [`SealError::is_transient`]: then repeat with the same input.
    pub async fn seal(&self, input: SealInput<'_>) -> Result<Arc<SealedCatalog>, SealError> {
        let tables = &mut *self.tables.lock().await;
        check_order(tables, input.seal_number)?;
        let repeated = tables.attempted.replace(input.seal_number).is_some();
        // The last attempt may have got as far as the record, whatever it was told.
        let recorded = if repeated { self.read_record(input.seal_number).await? } else { None };
        let (record, heads) = match recorded {
            Some(record) => (record, BTreeMap::new()),
            None => self.write_files(input).await?,
        };
        if record.wal() != input.wal {
            let (number, recorded) = (input.seal_number, record.wal());
            return Err(SealError::Changed { number, recorded, wanted: input.wal });
        }
        self.commit(&mut tables.logs, &record).await?;
        self.publish(&tables.logs, heads).await?;
        tables.sealed = Some(record.seal);
        tables.attempted = None;
        self.drop_old_records(record.seal).await;
        Ok(self.catalog())
    }

    /// Reads what other writers have committed. Returns whether there was anything.
    ///
    /// # Errors
    /// When the store fails or a log is damaged.
    pub async fn refresh(&self) -> Result<bool, SealError> {
        let tables = &mut *self.tables.lock().await;
        let mut changed = false;
        for log in &mut tables.logs {
            changed |= log.refresh().await?;
        }
        if changed {
            self.publish(&tables.logs, BTreeMap::new()).await?;
        }
        Ok(changed)
    }

    // Steps of a seal.

    /// Writes all files and then the record. Also returns the heads of the trace indexes by path.
    async fn write_files(
        &self,
        input: SealInput<'_>,
    ) -> Result<(SealRecord, BTreeMap<Path, TraceIndexHead>), SealError> {
        let mut heads = BTreeMap::new();
        let mut files: BTreeMap<String, Vec<Add>> = BTreeMap::new();
        for part in input.parts {
            for table in Table::ALL {
                let Some(encoded) = encode_part(table, part).await? else { continue };
                let place = Place::new(table, &part.tenant, input.at, &self.writer, input.seal_number);
                let bytes = encoded.file.len() as u64;
                self.put(&place.file(), encoded.file, PutMode::Overwrite).await?;
                let mut head_bytes = None;
                if let Some(index) = encoded.trace_index {
                    head_bytes = Some(index.head_bytes);
                    let head = TraceIndexHead::decode(&index.bytes).expect("the index was encoded just now");
                    heads.insert(place.index(), head);
                    self.put(&place.index(), index.bytes.into(), PutMode::Overwrite).await?;
                }
                let add = place.add(bytes, &encoded.facts, head_bytes, input.at);
                files.entry(table.name().to_owned()).or_default().push(add);
            }
        }
        let hex = |part: &SealPart| part.open_traces.iter().map(TraceId::to_string).collect();
        let record = SealRecord {
            seal: input.seal_number,
            at: input.at,
            wal_segment: input.wal.0,
            wal_offset: input.wal.1,
            files,
            open_traces: input.parts.iter().map(|part| (part.tenant.to_string(), hex(part))).collect(),
        };
        self.write_record(&record).await?;
        Ok((record, heads))
    }

    /// Decides the seal.
    async fn write_record(&self, record: &SealRecord) -> Result<(), SealError> {
        let path = SealRecord::path(&self.writer, record.seal);
        match self.put(&path, record.encode().into(), PutMode::Create).await {
            Err(SealError::Store { source: object_store::Error::AlreadyExists { .. }, .. }) => {
                // Object store clients repeat requests whose answer was lost.
                match self.read_record(record.seal).await? {
                    Some(found) if found == *record => Ok(()),
                    Some(_) | None => Err(SealError::WriterInUse { path }),
                }
            }
            result => result,
        }
    }

    /// Commits to every table that has not seen the seal.
    async fn commit(&self, logs: &mut [TableLog], record: &SealRecord) -> Result<(), SealError> {
        for (table, log) in Table::ALL.into_iter().zip(logs) {
            let txn = Txn {
                app_id: self.writer.app_id(),
                version: record.seal as i64,
                last_updated: Some(record.at.as_millis() as i64),
            };
            let actions = record.files_of(table).iter().cloned().map(Action::Add).collect();
            log.commit(Commit { operation: "WRITE", at: record.at, txn: Some(txn), actions }).await?;
        }
        Ok(())
    }

    /// Publishes the catalog of the logs' state. Heads of trace indexes that are neither in `heads`
    /// nor in the catalog so far are read.
    async fn publish(&self, logs: &[TableLog], mut heads: BTreeMap<Path, TraceIndexHead>) -> Result<(), SealError> {
        let before = self.catalog.load_full();
        let adds: Vec<(Table, &Add)> = Table::ALL
            .into_iter()
            .zip(logs)
            .flat_map(|(table, log)| log.state().files().values().map(move |add| (table, add)))
            .collect();
        let known = before.paths();
        let unread: Vec<(Path, u64)> = adds
            .iter()
            .filter(|(table, add)| layout::file(*table, add).is_some_and(|path| !known.contains(&path)))
            .filter_map(|(table, add)| layout::index_head(*table, add))
            .filter(|(path, _)| !heads.contains_key(path))
            .collect();
        let read: Vec<Option<(Path, TraceIndexHead)>> = stream::iter(unread)
            .map(|(path, bytes)| self.read_index_head(path, bytes))
            .buffer_unordered(READS_AT_ONCE)
            .try_collect()
            .await?;
        heads.extend(read.into_iter().flatten());
        let segments = adds.iter().filter_map(|(table, add)| {
            let head = layout::index_head(*table, add).and_then(|(path, _)| heads.remove(&path));
            let found = layout::segment(*table, &self.store, add, head);
            if found.is_none() {
                tracing::warn!(table = table.name(), path = add.path, "file names no tenant and is left out");
            }
            found.map(|(tenant, segment)| (tenant, Arc::new(segment)))
        });
        let versions = std::array::from_fn(|table| logs[table].version());
        let catalog = SealedCatalog::build(&before, segments, versions, &self.caches);
        // Read before anybody sees the rows they supersede.
        let requests = catalog.tenants().flat_map(|(_, tenant)| tenant.segments(Table::Requests));
        let reads: Vec<_> = requests.map(|segment| segment.read_revised()).collect();
        stream::iter(reads).buffer_unordered(READS_AT_ONCE).try_for_each(|_| std::future::ready(Ok(()))).await?;
        self.catalog.store(Arc::new(catalog));
        Ok(())
    }

    /// A missing or damaged index only makes lookups slow.
    async fn read_index_head(&self, path: Path, bytes: u64) -> Result<Option<(Path, TraceIndexHead)>, SealError> {
        match self.store.get_range(&path, 0..bytes).await {
            Ok(head) => match TraceIndexHead::decode(&head) {
                Ok(head) => Ok(Some((path, head))),
                Err(error) => {
                    tracing::warn!(%path, error = &error as &dyn std::error::Error, "trace index left out, lookups search the file");
                    Ok(None)
                }
            },
            Err(object_store::Error::NotFound { .. }) => {
                tracing::warn!(%path, "trace index is missing, lookups search the file");
                Ok(None)
            }
            Err(source) => Err(SealError::Store { path, source }),
        }
    }

    // Records.

    async fn list_records(&self) -> Result<Vec<u64>, SealError> {
        let directory = SealRecord::directory(&self.writer);
        let listed: Result<Vec<_>, _> = self.store.list(Some(&directory)).try_collect().await;
        let objects = listed.map_err(|source| SealError::Store { path: directory, source })?;
        let mut seals: Vec<u64> = objects.iter().filter_map(|object| SealRecord::seal_of(&object.location)).collect();
        seals.sort_unstable();
        Ok(seals)
    }

    async fn read_record(&self, seal: u64) -> Result<Option<SealRecord>, SealError> {
        self.read_record_at(SealRecord::path(&self.writer, seal)).await
    }

    async fn read_record_at(&self, path: Path) -> Result<Option<SealRecord>, SealError> {
        let read = async { self.store.get(&path).await?.bytes().await };
        match read.await {
            Ok(content) => match SealRecord::decode(&content) {
                Ok(record) => Ok(Some(record)),
                Err(source) => Err(SealError::DamagedRecord { path, source }),
            },
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(SealError::Store { path, source }),
        }
    }

    fn missing_record(&self, seal: u64) -> SealError {
        SealError::MissingRecord { path: SealRecord::path(&self.writer, seal) }
    }

    /// Best effort: old records do no harm.
    async fn drop_old_records(&self, last: u64) {
        let Some(oldest) = last.checked_sub(RECORDS_KEPT) else { return };
        for seal in self.list_records().await.unwrap_or_default().into_iter().filter(|seal| *seal < oldest) {
            let path = SealRecord::path(&self.writer, seal);
            if let Err(error) = self.store.delete(&path).await {
                tracing::debug!(%path, error = &error as &dyn std::error::Error, "old seal record not deleted");
            }
        }
    }

    async fn put(&self, path: &Path, bytes: Bytes, mode: PutMode) -> Result<(), SealError> {
        let options = PutOptions { mode, ..PutOptions::default() };
        let put = self.store.put_opts(path, PutPayload::from(bytes), options).await;
        put.map(drop).map_err(|source| SealError::Store { path: path.clone(), source })
    }
}

/// The log of the table in a directory, for looking only; `None` when there is none.
///
/// # Errors
/// When it cannot be read.
pub async fn look_at_table(disk: Arc<dyn Disk>, dir: &std::path::Path) -> Result<Option<TableLog>, LogError> {
    TableLog::load(Arc::new(DiskStore::look_at(disk, dir)), Path::default()).await
}

fn check_order(tables: &Tables, number: u64) -> Result<(), SealError> {
    if let Some(last) = tables.sealed.filter(|last| number <= *last) {
        return Err(SealError::OutOfOrder { number, last });
    }
    match tables.attempted {
        Some(last) if last != number => Err(SealError::OutOfOrder { number, last }),
        Some(_) | None => Ok(()),
    }
}

/// The rows of one table as a file; `None` when there are none. Encoding takes a second per million
/// spans and more, so it runs on the blocking pool.
async fn encode_part(table: Table, part: &SealPart) -> Result<Option<Encoded>, SealError> {
    type Encode = Box<dyn FnOnce() -> Result<Encoded, TableError> + Send>;
    // Cloning rows clones pointers.
    let encode: Encode = match table {
        Table::Spans if !part.spans.is_empty() => {
            let rows = part.spans.clone();
            Box::new(move || encode_spans(rows))
        }
        Table::Hops if !part.hops.is_empty() => {
            let rows = part.hops.clone();
            Box::new(move || encode_hops(rows))
        }
        Table::Requests if !part.requests.is_empty() => {
            let rows = part.requests.clone();
            Box::new(move || encode_requests(rows))
        }
        Table::Edges if !part.edges.is_empty() => {
            let rows = part.edges.clone();
            Box::new(move || encode_edges(rows))
        }
        Table::Spans | Table::Hops | Table::Requests | Table::Edges => return Ok(None),
    };
    match tokio::task::spawn_blocking(encode).await {
        Ok(result) => Ok(Some(result?)),
        Err(panic) => Err(SealError::Encode(ParquetError::External(Box::new(panic)).into())),
    }
}
