//! The metric store: series, their samples, exemplars and metadata, per tenant.
//!
//! # Life of a sample
//! *batch* ([`Append`]) → *log* (group commit, then acknowledged) → *head* (compressed in memory,
//! visible) → *block* (Parquet tables).
//!
//! # Invariants
//! 1. What `commit` acknowledged is on disk as the sync policy says, and every reader that starts
//!    later sees it.
//! 2. A batch is stored and visible as a whole or not at all.
//! 3. Within a series a time has one value: the first that came. Samples of any age are accepted.
//! 4. Every series, sample and exemplar that is not stored is counted with its reason.
//! 5. No lock is held across an await, but for the epoch barrier, which exists for that.
//!
//! # Files
//! | file | what |
//! |---|---|
//! | `config` | settings and limits |
//! | `append` | a batch, from collecting to acknowledging |
//! | `head` | what one tenant has in memory |
//! | `series` | the samples of one series in memory |
//! | `chunk`, `tokens` | the compression; pure |
//! | `index`, `symbols`, `label_hash` | which series there are and which match; pure |
//! | `record` | a batch in the log; pure |
//! | `replay` | the log read back |
//! | `maintain` | when a block is written, and what follows |
//! | `blocks` | Parquet tables, and reading them |
//! | `reader` | selections |
//! | `cardinality` | where the series are |
//! | `stats` | counters |

mod append;
mod blocks;
mod cardinality;
mod chunk;
mod config;
mod head;
mod index;
mod label_hash;
mod maintain;
mod reader;
mod record;
mod replay;
mod series;
mod stats;
mod symbols;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use object_store::ObjectStore;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::Clock;

pub use self::append::{Append, AppendError, AppendReport, SeriesLimit};
pub use self::blocks::BlockError;
pub use self::cardinality::Cardinality;
pub use self::config::MetricConfig;
pub use self::head::SeriesRef;
pub use self::reader::{MetricReader, ReadError, ReadLimits, SelectedSeries, SeriesSlice};
pub use self::stats::{DropReason, MetricStats};

use self::append::{Answer, Batch};
use self::blocks::{Archive, BlockStore, GroupCache};
use self::head::Head;
use self::index::Slot;
use self::maintain::Maintenance;
use self::replay::Replay;
use self::series::Epoch;
use self::stats::{Counters, add};
use crate::disk::Disk;
use crate::sealed::WriterName;
use crate::wal::{self, CommitLog, ContentEncoding, Record, RecordKind, Wal, WalPosition, WalReader};

/// What a record weighs on its way to the consumer of the log: there is none, and anything above
/// the budget of 0 makes the log forget it at once.
const ATTACHMENT_BYTES: usize = 1;

/// The metrics of all tenants. Cloning shares them.
#[derive(Clone, Debug)]
pub struct MetricStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    config: MetricConfig,
    clock: Arc<dyn Clock>,
    tenants: RwLock<BTreeMap<TenantId, Arc<Tenant>>>,
    epoch: AtomicU32,
    /// Held, shared, by every batch from its encoding until it is visible; held alone, an epoch can
    /// end: everything before the end of the log is in the heads then, and nothing in flight relies
    /// on what the log of the epoch defines.
    barrier: tokio::sync::RwLock<()>,
    log: Arc<CommitLog<()>>,
    /// Bytes of the log that were replayed.
    replayed_bytes: u64,
    blocks: Arc<BlockStore>,
    groups: Arc<GroupCache>,
    /// All epochs up to this one are in blocks.
    sealed: AtomicU32,
    maintenance: tokio::sync::Mutex<Maintenance>,
    counters: Counters,
}

/// One tenant.
#[derive(Debug)]
struct Tenant {
    id: TenantId,
    head: RwLock<Head>,
    blocks: Arc<BlockStore>,
    archive: Archive,
}

impl Tenant {
    fn head(&self) -> RwLockReadGuard<'_, Head> {
        self.head.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn head_mut(&self) -> RwLockWriteGuard<'_, Head> {
        self.head.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What was found on opening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricRecovery {
    /// Records of the log that were replayed.
    pub records: u64,
    /// Samples in them.
    pub samples: u64,
    /// Series in memory afterwards.
    pub series: u64,
    /// Places of the log that could not be read.
    pub damaged: u64,
}

/// The metric store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The log.
    #[error(transparent)]
    Log(#[from] wal::OpenError),
    /// The log could not be read.
    #[error("reading the metric log in {}", dir.display())]
    Read {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    /// The tables.
    #[error("opening the tables of metrics")]
    Blocks(#[from] BlockError),
    /// The thread of the log could not be started.
    #[error("starting the commit thread of the metric log")]
    Thread(#[source] io::Error),
}

impl MetricStore {
    /// Opens the store: its log in `dir`, its blocks in `tables`, written under the name `writer`.
    /// Returns when everything acknowledged can be read.
    ///
    /// # Errors
    /// When another process has the directory, or disk or tables fail.
    pub async fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: MetricConfig,
        clock: Arc<dyn Clock>,
        tables: Arc<dyn ObjectStore>,
        writer: WriterName,
    ) -> Result<(Self, MetricRecovery), OpenError> {
        let started = clock.now();
        let (blocks, from) = BlockStore::open(tables, writer, started).await?;
        let (wal, found) = Wal::open(Arc::clone(&disk), dir, config.wal.clone(), Arc::clone(&clock))?;
        let end = wal.end().max(from);
        // The consumer is not needed: what is committed is applied by whoever appended it.
        let (log, _) = CommitLog::start(wal, end).map_err(OpenError::Thread)?;
        let groups = Arc::new(GroupCache::new(config.cache_max_bytes));
        let inner = Inner {
            config,
            clock,
            tenants: RwLock::default(),
            epoch: AtomicU32::new(1),
            barrier: tokio::sync::RwLock::new(()),
            log: Arc::new(log),
            replayed_bytes: found.bytes,
            blocks: Arc::new(blocks),
            groups,
            sealed: AtomicU32::new(0),
            maintenance: tokio::sync::Mutex::new(Maintenance::new(started, from)),
            counters: Counters::default(),
        };
        let store = Self { inner: Arc::new(inner) };
        store.inner.expect_blocks();
        let recovery = store.replay(disk, dir, from, end).await?;
        add(&store.inner.counters.replay_nanos, store.inner.clock.now().since(started));
        Ok((store, recovery))
    }

    async fn replay(
        &self,
        disk: Arc<dyn Disk>,
        dir: &Path,
        from: WalPosition,
        until: WalPosition,
    ) -> Result<MetricRecovery, OpenError> {
        let (inner, dir) = (Arc::clone(&self.inner), dir.to_owned());
        let failed = {
            let dir = dir.clone();
            move |source| OpenError::Read { dir, source }
        };
        let replaying = tokio::task::spawn_blocking(move || {
            let mut reader = WalReader::read_from(disk, &dir, from, Some(until));
            let mut replay = Replay::default();
            while let Some(record) = reader.next_record()? {
                replay.apply(&inner, &record);
            }
            replay.recovery.damaged += reader.damages().iter().filter(|damage| damage.reason.is_loss()).count() as u64;
            replay.recovery.series = inner.all_tenants().iter().map(|tenant| tenant.head().index.len() as u64).sum();
            Ok(replay.recovery)
        });
        replaying.await.map_err(io::Error::other).and_then(|recovery: io::Result<_>| recovery).map_err(failed)
    }

    /// Refuses batches from now on and ends the log's thread. Blocks.
    ///
    /// # Errors
    /// When the last sync failed.
    pub fn close(&self) -> Result<(), wal::WriteError> {
        self.inner.log.close()
    }

    /// Starts a batch.
    #[must_use]
    pub fn append(&self, tenant: &TenantId) -> Append {
        Append::new(self.clone(), self.inner.tenant(tenant))
    }

    /// Reads one tenant's metrics.
    #[must_use]
    pub fn reader(&self, tenant: &TenantId) -> MetricReader {
        MetricReader::new(self.inner.known_tenant(tenant))
    }

    /// Everybody whose metrics are here.
    #[must_use]
    pub fn tenants(&self) -> Vec<TenantId> {
        self.inner.tenants().keys().cloned().collect()
    }

    /// What it has done and holds. Looks at every series: not for every request.
    #[must_use]
    pub fn stats(&self) -> MetricStats {
        let mut stats = MetricStats::of(&self.inner.counters);
        (stats.blocks, stats.block_bytes) = self.inner.blocks.size();
        stats.log_bytes = self.inner.log.stats().disk_bytes.load(Ordering::Relaxed);
        for tenant in self.inner.all_tenants() {
            let head = tenant.head();
            let (bytes, chunks) = head.sample_bytes_and_chunks();
            stats.active_series += head.index.len() as u64;
            stats.chunks += chunks as u64;
            stats.sample_bytes += bytes as u64;
            stats.index_bytes += head.index.bytes() as u64;
        }
        stats
    }
}

impl Inner {
    fn tenants(&self) -> RwLockReadGuard<'_, BTreeMap<TenantId, Arc<Tenant>>> {
        self.tenants.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn known_tenant(&self, tenant: &TenantId) -> Option<Arc<Tenant>> {
        self.tenants().get(tenant).map(Arc::clone)
    }

    fn tenant(&self, tenant: &TenantId) -> Arc<Tenant> {
        if let Some(known) = self.known_tenant(tenant) {
            return known;
        }
        let mut tenants = self.tenants.write().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let archive = Archive::new(Arc::clone(self.blocks.store()), Arc::clone(&self.groups));
            let blocks = Arc::clone(&self.blocks);
            Arc::new(Tenant { id: tenant.clone(), head: RwLock::default(), blocks, archive })
        };
        Arc::clone(tenants.entry(tenant.clone()).or_insert_with(new))
    }

    /// The heads say what is in blocks since before the process started.
    fn expect_blocks(&self) {
        for (tenant, blocks) in self.blocks.catalog().iter() {
            let last_ms = blocks.iter().map(|block| block.range_ms.1).max().unwrap_or(i64::MIN);
            self.tenant(tenant).head_mut().complete_from_ms = last_ms.saturating_add(1);
        }
    }

    fn all_tenants(&self) -> Vec<Arc<Tenant>> {
        self.tenants().values().map(Arc::clone).collect()
    }

    fn epoch(&self) -> Epoch {
        self.epoch.load(Ordering::Relaxed)
    }

    async fn commit(&self, tenant: &Tenant, batch: Batch, answer: Answer) -> Result<AppendReport, AppendError> {
        if batch.is_empty() {
            return Ok(AppendReport::default());
        }
        let _in_flight = self.barrier.read().await;
        let epoch = self.epoch();
        let (record, defined) = encode(tenant, &batch, epoch)?;
        let record = Record::new(
            RecordKind::MetricBatch,
            ContentEncoding::Identity,
            tenant.id.clone(),
            self.clock.now(),
            [Bytes::from(record)],
        );
        let logged = match answer {
            Answer::OnceDurable => self.log.append(record, (), ATTACHMENT_BYTES).await,
            Answer::OnceWritten => self.log.append_lazily(record, (), ATTACHMENT_BYTES).await,
        };
        if let Err(error) = logged {
            self.counters.dropped(DropReason::Log, batch.samples.len() as u64);
            return Err(error.into());
        }
        let mut head = tenant.head_mut();
        head.set_defined(&defined, epoch);
        let report = batch.apply(&mut head, epoch);
        drop(head);
        self.count(report);
        Ok(report)
    }

    fn count(&self, report: AppendReport) {
        add(&self.counters.samples, report.stored);
        add(&self.counters.exemplars, report.exemplars);
        self.counters.dropped(DropReason::Duplicate, report.duplicates);
        self.counters.dropped(DropReason::Conflict, report.conflicts);
    }
}

/// The record of a batch and the series it defines, under one lock.
fn encode(tenant: &Tenant, batch: &Batch, epoch: Epoch) -> Result<(Vec<u8>, Vec<Slot>), AppendError> {
    let head = tenant.head();
    let expired: Vec<SeriesRef> = batch.references().filter(|series| !head.is_live(*series)).collect();
    if expired.is_empty() {
        Ok(record::encode(batch, &head, epoch))
    } else {
        Err(AppendError::Expired { series: expired })
    }
}
