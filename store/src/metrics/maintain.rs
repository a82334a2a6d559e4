//! The end of an epoch: samples leave the heads for a block, the log is cut, old blocks go.
//!
//! An epoch ends between two batches, at a position of the log before which everything is in the
//! heads. What it left there is written as one block while the next epoch goes on. Only when the
//! block is in the tables are its chunks dropped and the log cut; the newest of them stay in memory,
//! because most queries are about the last minutes.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;

use super::blocks::{BlockError, BlockSeries, EncodedFile, PartEncoder};
use super::index::Slot;
use super::series::Epoch;
use super::stats::add;
use super::{Inner, MetricStore, Tenant};
use crate::wal::WalPosition;

/// How far back samples stay in memory after they are in a block: alerts and the last panels of a
/// dashboard are answered without reading files.
const KEEP_IN_MEMORY: Duration = Duration::from_secs(30 * 60);

/// Series taken from a head under one lock, so that appending never waits longer than a millisecond.
const SERIES_PER_LOCK: usize = 256;

/// What the maintenance remembers between two rounds.
#[derive(Debug)]
pub(super) struct Maintenance {
    /// When the last block was written, or the store was opened.
    last_block: UnixNanos,
    /// Bytes ever appended to the log when it was.
    log_bytes: u64,
    /// Everything in the log before this is in blocks, as the tables say.
    log: WalPosition,
    /// A block that failed when it may have been decided already.
    unfinished: Option<Ended>,
}

/// An epoch that has ended.
#[derive(Clone, Copy, Debug)]
struct Ended {
    epoch: Epoch,
    log: WalPosition,
}

impl Maintenance {
    /// Nothing was written since the store was opened, when blocks held the log up to `log`.
    pub(super) const fn new(now: UnixNanos, log: WalPosition) -> Self {
        Self { last_block: now, log_bytes: 0, log, unfinished: None }
    }
}

/// Whether it is time for a block: when a time divisible by its length has passed since the last
/// one, so that blocks of many processes and days line up, or when the log of what is only in
/// memory has become long. The log bounds the memory: a sample takes no more there than here.
fn is_due(last: UnixNanos, now: UnixNanos, length: Duration, log_bytes: u64, log_bytes_max: u64) -> bool {
    let length = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
    now.window_start(length) > last.window_start(length) || log_bytes > log_bytes_max
}

impl MetricStore {
    /// Writes a block when one is due and removes blocks that are not kept. To be called every few
    /// seconds; failures are counted, logged and tried again by the next call.
    pub async fn maintain(&self) {
        let now = self.inner.clock.now();
        let is_due = self.inner.block_is_due(now).await;
        if is_due {
            self.report(self.write_block(now).await, "a block of metrics could not be written");
        }
        self.report(self.inner.retain(now).await, "old blocks of metrics could not be removed");
    }

    /// Writes a block of everything in memory now.
    ///
    /// # Errors
    /// When the tables cannot be written; nothing is lost, and repeating is safe.
    pub async fn flush(&self) -> Result<(), BlockError> {
        self.write_block(self.inner.clock.now()).await
    }

    fn report(&self, outcome: Result<(), BlockError>, what: &str) {
        if let Err(error) = outcome {
            add(&self.inner.counters.block_failures, 1);
            tracing::error!(error = &error as &dyn std::error::Error, what, "metric blocks");
        }
    }

    async fn write_block(&self, now: UnixNanos) -> Result<(), BlockError> {
        let inner = &self.inner;
        let mut maintenance = inner.maintenance.lock().await;
        if let Some(unfinished) = maintenance.unfinished {
            if inner.blocks.finish_attempted().await?.is_some() {
                add(&inner.counters.blocks_written, 1);
                maintenance.log = unfinished.log;
                inner.block_written(unfinished).await;
            }
            maintenance.unfinished = None;
        }
        let log_bytes = inner.log.stats().appended_bytes.load(Ordering::Relaxed);
        let ended = inner.end_epoch().await;
        maintenance.unfinished = Some(ended);
        let parts = {
            let inner = Arc::clone(inner);
            let encoding = tokio::task::spawn_blocking(move || inner.encode(ended.epoch));
            encoding.await.map_err(|error| BlockError::Encode(error_of(error)))??
        };
        // Without files, too, when there were records: the tables must say that the log goes on later.
        if ended.log != maintenance.log {
            let has_files = !parts.is_empty();
            inner.blocks.write(parts, ended.log, now).await?;
            add(&inner.counters.blocks_written, u64::from(has_files));
            maintenance.log = ended.log;
        }
        maintenance.unfinished = None;
        maintenance.last_block = now;
        maintenance.log_bytes = log_bytes;
        inner.block_written(ended).await;
        Ok(())
    }
}

fn error_of(error: tokio::task::JoinError) -> parquet::errors::ParquetError {
    parquet::errors::ParquetError::External(Box::new(error))
}

impl Inner {
    async fn block_is_due(&self, now: UnixNanos) -> bool {
        let maintenance = self.maintenance.lock().await;
        let appended = self.log.stats().appended_bytes.load(Ordering::Relaxed) + self.replayed_bytes;
        let log_bytes = appended.saturating_sub(maintenance.log_bytes);
        let log_bytes_max = (self.config.head_max_bytes as u64).min(self.config.wal.max_bytes / 2);
        is_due(maintenance.last_block, now, self.config.block_length, log_bytes, log_bytes_max)
    }

    /// Ends the epoch: waits for batches in flight, and holds back new ones meanwhile.
    async fn end_epoch(&self) -> Ended {
        let _alone = self.barrier.write().await;
        let log = self.log.end();
        let epoch = self.epoch.fetch_add(1, Ordering::Relaxed);
        Ended { epoch, log }
    }

    /// The files of every tenant. Computes for seconds when there are many series.
    fn encode(&self, epoch: Epoch) -> Result<Vec<(TenantId, Vec<EncodedFile>)>, BlockError> {
        let sealed = self.sealed.load(Ordering::Relaxed);
        let mut parts = Vec::new();
        for tenant in self.all_tenants() {
            let files = encode_tenant(&tenant, sealed, epoch)?;
            if !files.is_empty() {
                parts.push((tenant.id.clone(), files));
            }
        }
        Ok(parts)
    }

    /// The block is in the tables: memory and log let go of it.
    async fn block_written(&self, ended: Ended) {
        self.sealed.store(ended.epoch, Ordering::Relaxed);
        let keep_from = self.clock.now().minus(KEEP_IN_MEMORY).as_millis() as i64;
        for tenant in self.all_tenants() {
            // Alone: a batch in flight must not lose its series.
            let _alone = self.barrier.write().await;
            let expired = tenant.head_mut().drop_sealed(ended.epoch, keep_from);
            add(&self.counters.series_expired, expired);
        }
        let log = Arc::clone(&self.log);
        let cut = tokio::task::spawn_blocking(move || log.cut_before(ended.log)).await;
        match cut.map_err(std::io::Error::other) {
            Ok(Ok(_)) => {}
            Ok(Err(error)) | Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the metric log could not be cut");
            }
        }
    }

    async fn retain(&self, now: UnixNanos) -> Result<(), BlockError> {
        let removed = self.blocks.retain(self.config.retention, self.config.retention_max_bytes, now).await?;
        add(&self.counters.blocks_removed, removed);
        self.blocks.vacuum(now).await
    }
}

/// One tenant's part of a block, series by metric name and then by id.
fn encode_tenant(tenant: &Tenant, sealed: Epoch, epoch: Epoch) -> Result<Vec<EncodedFile>, BlockError> {
    let mut order: Vec<(Arc<str>, u64, Slot)> = {
        let head = tenant.head();
        head.index.live().iter().map(|slot| (head.index.metric_name(slot), head.index.id_of(slot), slot)).collect()
    };
    order.sort_unstable();
    let mut encoder = PartEncoder::new()?;
    for slots in order.chunks(SERIES_PER_LOCK) {
        let mut taken = Vec::with_capacity(slots.len());
        let mut head = tenant.head_mut();
        for (_, id, slot) in slots {
            let chunks: Vec<_> = head.chunks_to_seal(*slot, sealed, epoch).cloned().collect();
            let exemplars = head.exemplars_to_seal(*slot, sealed, epoch);
            if !chunks.is_empty() || !exemplars.is_empty() {
                taken.push(BlockSeries { id: *id, labels: head.index.labels(*slot), chunks, exemplars });
            }
        }
        drop(head);
        taken.into_iter().try_for_each(|series| encoder.series(series))?;
    }
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_due_at_round_times_or_when_the_log_is_long() {
        let at = UnixNanos::from_secs;
        let length = Duration::from_secs(7200);
        assert!(!is_due(at(7200), at(14_399), length, 0, 10));
        assert!(is_due(at(7200), at(14_400), length, 0, 10));
        assert!(is_due(at(14_399), at(14_400), length, 0, 10));
        assert!(is_due(at(7200), at(7201), length, 11, 10));
        assert!(!is_due(at(14_400), at(100), length, 0, 10), "a clock that was set back");
    }
}
