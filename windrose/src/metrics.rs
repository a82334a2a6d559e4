//! The metric store of the process: opening it, and the task that turns its samples into blocks.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::time::MissedTickBehavior;
use windrose_proto::time::Clock;
use windrose_store::disk::Disk;
use windrose_store::metrics::{MetricConfig, MetricStore, OpenError};
use windrose_store::sealed::{DiskStore, WriterName};
use windrose_store::wal::SyncPolicy;

use crate::config::Config;
use crate::tasks::Tasks;

/// How often it is looked whether a block is due. Memory that is used up waits this long.
const MAINTAIN_EVERY: Duration = Duration::from_secs(5);

/// Where the metric log lies below the data directory.
const LOG_DIR: &str = "metrics-wal";

/// Where all tables lie below the data directory.
const TABLES_DIR: &str = "tables";

/// The store and its task.
#[derive(Debug)]
pub(crate) struct Metrics {
    store: MetricStore,
    tasks: Tasks,
}

impl Metrics {
    /// Opens the store: everything acknowledged can be read when it returns.
    ///
    /// # Errors
    /// When the data directory cannot be used.
    pub(crate) async fn open(
        config: &Config,
        sync: SyncPolicy,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        runtime: Handle,
    ) -> Result<Self, OpenError> {
        let dir = config.data_dir.join(LOG_DIR);
        let tables = config.data_dir.join(TABLES_DIR);
        let tables = DiskStore::open(Arc::clone(&disk), &tables)
            .map_err(|source| OpenError::Read { dir: tables.clone(), source })?;
        let mut metrics: MetricConfig = config.metrics.clone();
        metrics.wal.sync = sync;
        let writer = WriterName::new("windrose").expect("the name keeps to the rules for names");
        let (store, recovery) = MetricStore::open(disk, &dir, metrics, clock, Arc::new(tables), writer).await?;
        tracing::info!(
            records = recovery.records,
            samples = recovery.samples,
            series = recovery.series,
            damaged = recovery.damaged,
            "metric store opened"
        );
        Ok(Self { store, tasks: Tasks::new(runtime) })
    }

    /// The store.
    pub(crate) const fn store(&self) -> &MetricStore {
        &self.store
    }

    /// Starts the task that writes blocks and removes old ones.
    pub(crate) fn start(&self) {
        let (store, stop) = (self.store.clone(), self.tasks.stopping());
        self.tasks.spawn("metric blocks", async move {
            let mut looks = tokio::time::interval(MAINTAIN_EVERY);
            looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                // Biased, so that an end is noticed before another block is begun.
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    _ = looks.tick() => store.maintain().await,
                }
            }
        });
    }

    /// Ends the task, after the block it may be writing, and the log.
    pub(crate) fn shutdown(self, runtime: &Runtime) {
        runtime.block_on(self.tasks.stop());
        if let Err(error) = self.store.close() {
            tracing::error!(error = &error as &dyn std::error::Error, "the metric log did not close cleanly");
        }
    }
}
