//! Blocks: what left the heads, as Parquet files of three tables that anything can read.
//!
//! # A block
//! 1. Its files are written, for every tenant.
//! 2. Its `record` is written: from here on the block is decided.
//! 3. Each table's log gets one commit with the transaction (writer, block number).
//! 4. The new catalog is published.
//!
//! A crash before 2 leaves garbage that the next attempt overwrites; a crash after 2 is finished
//! when the tables are opened again. So after opening, every block is in all tables or in none, and
//! the record of the last one says from where the log is to be replayed.
//!
//! Removing a block commits its removal first; its files are deleted later, when no reader that saw
//! the old catalog can still want them.

mod archive;
mod catalog;
mod encode;
mod record;
mod rows;
mod tables;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use parquet::errors::ParquetError;
use tokio::sync::Mutex;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;

pub(super) use self::archive::{Archive, Found, GroupCache};
pub(super) use self::catalog::{Block, Blocks};
use self::encode::BlockWriter;
pub(super) use self::encode::EncodedFile;
use self::record::BlockRecord;
use self::tables::Kind;
use super::chunk::{self, Chunk};
use crate::sealed::WriterName;
use crate::table_log::{Action, Commit, LogError, Remove, TableDefinition, TableLog, Txn, delta_schema};
use crate::wal::WalPosition;
use windrose_proto::metric::{Exemplar, Labels};

/// Block records kept behind the last one, for whoever wants to see what happened.
const RECORDS_KEPT: u64 = 8;

/// How long files stay after they left their table: longer than any query runs.
const VACUUM_AFTER: Duration = Duration::from_secs(600);

/// The three tables in one object store, with one writer.
#[derive(Debug)]
pub(super) struct BlockStore {
    store: Arc<dyn ObjectStore>,
    writer: WriterName,
    catalog: ArcSwap<BTreeMap<TenantId, Blocks>>,
    tables: Mutex<Tables>,
}

/// What changes when a block is written; one at a time.
#[derive(Debug)]
struct Tables {
    /// In the order of [`Kind::ALL`].
    logs: [TableLog; 3],
    /// Number of the next block.
    next: u64,
    /// The record that was begun and did not get through.
    attempted: Option<BlockRecord>,
}

/// A series on its way into a block.
#[derive(Debug)]
pub(super) struct BlockSeries {
    pub(super) id: u64,
    pub(super) labels: Labels,
    /// In the order in which they were stored; they may overlap.
    pub(super) chunks: Vec<Chunk>,
    pub(super) exemplars: Vec<Exemplar>,
}

/// The tables could not be opened or changed. Repeating is safe.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// The object store failed.
    #[error("object store failed at {path}")]
    Store {
        path: Path,
        #[source]
        source: object_store::Error,
    },
    /// A table log failed.
    #[error("table log failed")]
    Log(#[from] LogError),
    /// Rows could not be written as Parquet.
    #[error("encoding samples as Parquet failed")]
    Encode(#[from] ParquetError),
    /// The record of a block is damaged.
    #[error("block record {path} is damaged: restore it from a backup")]
    DamagedRecord {
        path: Path,
        #[source]
        source: serde_json::Error,
    },
    /// The tables have blocks whose record is gone.
    #[error("block record {path} is missing: restore it from a backup, without it samples would be stored twice")]
    MissingRecord { path: Path },
    /// Somebody else writes under the same name.
    #[error("block record {path} was written by another process: give every collector a writer name of its own")]
    WriterInUse { path: Path },
}

impl BlockStore {
    /// Opens the tables, creating them as needed, and finishes a block that a crash cut short. Also
    /// returns up to where the log is in blocks.
    pub(super) async fn open(
        store: Arc<dyn ObjectStore>,
        writer: WriterName,
        now: UnixNanos,
    ) -> Result<(Self, WalPosition), BlockError> {
        let open = |kind: Kind| TableLog::open(Arc::clone(&store), Path::from(kind.name()), definition(kind), now);
        let logs = [open(Kind::Series).await?, open(Kind::Samples).await?, open(Kind::Exemplars).await?];
        let tables = Mutex::new(Tables { logs, next: 1, attempted: None });
        let blocks = Self { store, writer, catalog: ArcSwap::default(), tables };
        let log = blocks.recover().await?;
        Ok((blocks, log))
    }

    /// The blocks of every tenant.
    pub(super) fn catalog(&self) -> Arc<BTreeMap<TenantId, Blocks>> {
        self.catalog.load_full()
    }

    /// Number and bytes of all blocks.
    pub(super) fn size(&self) -> (u64, u64) {
        let catalog = self.catalog.load();
        let blocks = || catalog.values().flat_map(|blocks| blocks.iter());
        (blocks().count() as u64, blocks().map(|block| block.bytes()).sum())
    }

    pub(super) const fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    async fn recover(&self) -> Result<WalPosition, BlockError> {
        let tables = &mut *self.tables.lock().await;
        let app_id = app_id(&self.writer);
        let everywhere = tables.logs.iter().map(|log| log.state().txn(&app_id)).min().flatten();
        let anywhere = tables.logs.iter().filter_map(|log| log.state().txn(&app_id)).max();
        let mut last: Option<BlockRecord> = None;
        for number in self.list_records().await? {
            if everywhere.is_some_and(|committed| (number as i64) < committed) {
                continue;
            }
            let record = self.read_record(number).await?.ok_or_else(|| self.missing_record(number))?;
            self.commit(&mut tables.logs, &record).await?;
            last = Some(record);
        }
        if anywhere > last.as_ref().map(|record| record.number as i64) {
            return Err(self.missing_record(anywhere.unwrap_or_default() as u64));
        }
        tables.next = last.as_ref().map_or(1, |record| record.number + 1);
        self.publish(&tables.logs);
        Ok(last.map_or(WalPosition::START, |record| record.log))
    }

    // ── writing ────────────────────────────────────────────────────────────────────────────────

    /// Finishes a block whose writing failed after it may have been decided. Returns up to where the
    /// log is in blocks thereby; `None` when it was not decided, and its samples must be written anew.
    pub(super) async fn finish_attempted(&self) -> Result<Option<WalPosition>, BlockError> {
        let tables = &mut *self.tables.lock().await;
        let Some(attempted) = tables.attempted.clone() else { return Ok(None) };
        match self.read_record(attempted.number).await? {
            Some(found) if found == attempted => {
                self.decided(tables, &attempted).await?;
                Ok(Some(attempted.log))
            }
            Some(_) => Err(self.writer_in_use(attempted.number)),
            None => {
                tables.attempted = None;
                Ok(None)
            }
        }
    }

    /// Writes a block of everything before `log`, whose files were encoded before.
    pub(super) async fn write(
        &self,
        parts: Vec<(TenantId, Vec<EncodedFile>)>,
        log: WalPosition,
        at: UnixNanos,
    ) -> Result<(), BlockError> {
        let tables = &mut *self.tables.lock().await;
        let number = tables.next;
        let mut files: BTreeMap<String, Vec<crate::table_log::Add>> = BTreeMap::new();
        for (tenant, encoded) in parts {
            let name = catalog::name_of(&tenant, at, &self.writer, number);
            for file in encoded {
                let add = catalog::add(&file, &tenant, at, &name);
                self.put(&catalog::path_of(file.kind, &name), file.bytes, PutMode::Overwrite).await?;
                files.entry(file.kind.name().to_owned()).or_default().push(add);
            }
        }
        let record = BlockRecord { number, at, log, files };
        tables.attempted = Some(record.clone());
        self.write_record(&record).await?;
        self.decided(tables, &record).await
    }

    async fn decided(&self, tables: &mut Tables, record: &BlockRecord) -> Result<(), BlockError> {
        self.commit(&mut tables.logs, record).await?;
        tables.next = record.number + 1;
        tables.attempted = None;
        self.publish(&tables.logs);
        self.drop_old_record(record.number).await;
        Ok(())
    }

    async fn write_record(&self, record: &BlockRecord) -> Result<(), BlockError> {
        let path = BlockRecord::path(&self.writer, record.number);
        let text = serde_json::to_vec(record).expect("a record is made of texts and numbers");
        match self.put(&path, text.into(), PutMode::Create).await {
            Err(BlockError::Store { source: object_store::Error::AlreadyExists { .. }, .. }) => {
                // Object store clients repeat requests whose answer was lost.
                match self.read_record(record.number).await? {
                    Some(found) if found == *record => Ok(()),
                    Some(_) | None => Err(self.writer_in_use(record.number)),
                }
            }
            result => result,
        }
    }

    async fn commit(&self, logs: &mut [TableLog; 3], record: &BlockRecord) -> Result<(), BlockError> {
        for (kind, log) in Kind::ALL.into_iter().zip(logs) {
            let txn = Txn {
                app_id: app_id(&self.writer),
                version: record.number as i64,
                last_updated: Some(record.at.as_millis() as i64),
            };
            let actions = record.files_of(kind).iter().cloned().map(Action::Add).collect();
            log.commit(Commit { operation: "WRITE", at: record.at, txn: Some(txn), actions }).await?;
        }
        Ok(())
    }

    fn publish(&self, logs: &[TableLog; 3]) {
        let states = [logs[0].state(), logs[1].state(), logs[2].state()];
        let next = catalog::build(states, &self.catalog.load());
        self.catalog.store(Arc::new(next));
    }

    // ── removing ───────────────────────────────────────────────────────────────────────────────

    /// Removes blocks that are too old, or beyond the bytes a tenant may have, oldest first. Returns
    /// how many.
    pub(super) async fn retain(
        &self,
        keep: Option<Duration>,
        keep_bytes: Option<u64>,
        now: UnixNanos,
    ) -> Result<u64, BlockError> {
        let now_ms = now.as_millis() as i64;
        let keep_from_ms = keep.map(|keep| now_ms.saturating_sub(i64::try_from(keep.as_millis()).unwrap_or(i64::MAX)));
        let catalog = self.catalog.load_full();
        let removed: Vec<&Arc<Block>> =
            catalog.values().flat_map(|blocks| expired(blocks, keep_from_ms, keep_bytes)).collect();
        if removed.is_empty() {
            return Ok(0);
        }
        let tables = &mut *self.tables.lock().await;
        // Samples first: a file of series without samples does no harm, the reverse would be dead weight.
        for (kind, log) in Kind::ALL.into_iter().zip(&mut tables.logs).rev() {
            let actions: Vec<Action> = removed
                .iter()
                .filter_map(|block| log.state().files().get(&block.name))
                .map(|add| {
                    Action::Remove(Remove {
                        path: add.path.clone(),
                        deletion_timestamp: Some(now_ms),
                        data_change: true,
                        extended_file_metadata: Some(true),
                        partition_values: Some(add.partition_values.clone()),
                        size: Some(add.size),
                    })
                })
                .collect();
            if actions.is_empty() {
                continue;
            }
            tracing::info!(table = kind.name(), files = actions.len(), "removing blocks that retention does not keep");
            log.commit(Commit { operation: "DELETE", at: now, txn: None, actions }).await?;
        }
        self.publish(&tables.logs);
        Ok(removed.len() as u64)
    }

    /// Deletes files that left their table a while ago.
    pub(super) async fn vacuum(&self, now: UnixNanos) -> Result<(), BlockError> {
        let tables = &mut *self.tables.lock().await;
        let before_ms = now.minus(VACUUM_AFTER).as_millis() as i64;
        for (kind, log) in Kind::ALL.into_iter().zip(&mut tables.logs) {
            let is_due = |remove: &&Remove| remove.deletion_timestamp.unwrap_or(0) < before_ms;
            let due: Vec<String> =
                log.state().tombstones().values().filter(is_due).map(|remove| remove.path.clone()).collect();
            for name in &due {
                let path = catalog::path_of(kind, name);
                match self.store.delete(&path).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(source) => return Err(BlockError::Store { path, source }),
                }
            }
            if !due.is_empty() {
                log.forget_removed_before(before_ms);
            }
        }
        Ok(())
    }

    // ── records ────────────────────────────────────────────────────────────────────────────────

    async fn list_records(&self) -> Result<Vec<u64>, BlockError> {
        let directory = BlockRecord::directory(&self.writer);
        let listed: Result<Vec<_>, _> = self.store.list(Some(&directory)).try_collect().await;
        let objects = listed.map_err(|source| BlockError::Store { path: directory, source })?;
        let mut numbers: Vec<u64> =
            objects.iter().filter_map(|object| BlockRecord::number_of(&object.location)).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    async fn read_record(&self, number: u64) -> Result<Option<BlockRecord>, BlockError> {
        let path = BlockRecord::path(&self.writer, number);
        let text = match self.store.get(&path).await {
            Ok(found) => found.bytes().await,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(source) => Err(source),
        };
        let text = text.map_err(|source| BlockError::Store { path: path.clone(), source })?;
        serde_json::from_slice(&text).map(Some).map_err(|source| BlockError::DamagedRecord { path, source })
    }

    /// Old records are only of interest to people; failing to remove one is not worth a word.
    async fn drop_old_record(&self, last: u64) {
        if let Some(old) = last.checked_sub(RECORDS_KEPT)
            && let Err(error) = self.store.delete(&BlockRecord::path(&self.writer, old)).await
        {
            tracing::debug!(error = &error as &dyn std::error::Error, "an old block record stays");
        }
    }

    fn missing_record(&self, number: u64) -> BlockError {
        BlockError::MissingRecord { path: BlockRecord::path(&self.writer, number) }
    }

    fn writer_in_use(&self, number: u64) -> BlockError {
        BlockError::WriterInUse { path: BlockRecord::path(&self.writer, number) }
    }

    async fn put(&self, path: &Path, bytes: Bytes, mode: PutMode) -> Result<(), BlockError> {
        let options = PutOptions { mode, ..PutOptions::default() };
        let stored = self.store.put_opts(path, bytes.into(), options).await;
        stored.map(drop).map_err(|source| BlockError::Store { path: path.clone(), source })
    }
}

/// Encodes one tenant's part of a block, series by series.
#[derive(Debug)]
pub(super) struct PartEncoder {
    writer: BlockWriter,
    timestamps: Vec<i64>,
    values: Vec<f64>,
}

impl PartEncoder {
    pub(super) fn new() -> Result<Self, BlockError> {
        Ok(Self { writer: BlockWriter::new()?, timestamps: Vec::new(), values: Vec::new() })
    }

    /// Adds a series; they come ordered by metric name, then by id.
    pub(super) fn series(&mut self, series: BlockSeries) -> Result<(), BlockError> {
        self.timestamps.clear();
        self.values.clear();
        chunk::decode_all(&series.chunks, &mut self.timestamps, &mut self.values);
        let BlockSeries { id, labels, exemplars, .. } = series;
        Ok(self.writer.series(id, labels, &self.timestamps, &self.values, exemplars)?)
    }

    pub(super) fn finish(self) -> Result<Vec<EncodedFile>, BlockError> {
        Ok(self.writer.finish()?)
    }
}

/// How the writer is called in the transactions of these tables.
fn app_id(writer: &WriterName) -> String {
    format!("{}-metrics", writer.app_id())
}

fn definition(kind: Kind) -> &'static TableDefinition {
    static DEFINITIONS: std::sync::LazyLock<[TableDefinition; 3]> = std::sync::LazyLock::new(|| {
        Kind::ALL.map(|kind| TableDefinition {
            name: kind.name().to_owned(),
            description: kind.description().to_owned(),
            schema_string: delta_schema(&kind.schema(), &[("tenant", "string"), ("date", "date")])
                .expect("the columns are made of types Delta Lake knows"),
            partition_columns: vec!["tenant".to_owned(), "date".to_owned()],
            configuration: Vec::new(),
        })
    });
    &DEFINITIONS[kind as usize]
}

/// The blocks of one tenant that are not kept. A block is as old as the younger of its last sample
/// and itself, so that a backfill is kept as long as anything else that came today.
fn expired(blocks: &Blocks, keep_from_ms: Option<i64>, keep_bytes: Option<u64>) -> impl Iterator<Item = &Arc<Block>> {
    let age_ms = |block: &Block| {
        if block.range_ms.1 == i64::MAX { block.written_ms } else { block.range_ms.1.max(block.written_ms) }
    };
    let mut kept_bytes = 0_u64;
    // The youngest first: what does not fit any more is old.
    blocks.iter().rev().filter(move |block| {
        kept_bytes = kept_bytes.saturating_add(block.bytes());
        keep_from_ms.is_some_and(|from| age_ms(block) < from) || keep_bytes.is_some_and(|limit| kept_bytes > limit)
    })
}
