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
//! | `reader` | selections |
//! | `cardinality` | where the series are |
//! | `stats` | counters |

mod append;
mod cardinality;
mod chunk;
mod config;
mod head;
mod index;
mod label_hash;
mod reader;
mod series;
mod stats;
mod symbols;
#[cfg(test)]
mod tests;
mod tokens;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use object_store::ObjectStore;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::Clock;

pub use self::append::{Append, AppendError, AppendReport, SeriesLimit};
pub use self::cardinality::Cardinality;
pub use self::config::MetricConfig;
pub use self::head::SeriesRef;
pub use self::reader::{MetricReader, ReadError, ReadLimits, SelectedSeries, SeriesSlice};
pub use self::stats::{DropReason, MetricStats};

use self::append::Batch;
use self::head::Head;
use self::series::Epoch;
use self::stats::{Counters, add};
use crate::disk::Disk;
use crate::sealed::WriterName;

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
    counters: Counters,
}

/// One tenant.
#[derive(Debug)]
struct Tenant {
    id: TenantId,
    head: RwLock<Head>,
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
    Log(#[from] crate::wal::OpenError),
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
        drop((disk, dir, tables, writer));
        let inner = Inner {
            config,
            clock,
            tenants: RwLock::default(),
            epoch: AtomicU32::new(1),
            counters: Counters::default(),
        };
        Ok((Self { inner: Arc::new(inner) }, MetricRecovery::default()))
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
        let tenants: Vec<Arc<Tenant>> = self.inner.tenants().values().map(Arc::clone).collect();
        for tenant in tenants {
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
        let new = || Arc::new(Tenant { id: tenant.clone(), head: RwLock::default() });
        Arc::clone(tenants.entry(tenant.clone()).or_insert_with(new))
    }

    fn epoch(&self) -> Epoch {
        self.epoch.load(Ordering::Relaxed)
    }

    async fn commit(&self, tenant: &Tenant, batch: Batch) -> Result<AppendReport, AppendError> {
        if batch.is_empty() {
            return Ok(AppendReport::default());
        }
        let mut head = tenant.head_mut();
        let expired: Vec<SeriesRef> = batch.references().filter(|series| !head.is_live(*series)).collect();
        if !expired.is_empty() {
            return Err(AppendError::Expired { series: expired });
        }
        let report = batch.apply(&mut head, self.epoch());
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
