//! Keeping the sealed tables in shape: compaction, retention, vacuum, one after the other, in the
//! background.
//!
//! A round that fails is counted and logged, and the next begins where it ended. A round that is cut
//! short by the end of the process leaves what a crash leaves: files that nobody lists, which the
//! next attempt overwrites or vacuum deletes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::time::MissedTickBehavior;
use windrose_proto::time::{Clock, UnixNanos};
use windrose_store::sealed::{SealError, Sealed};

use crate::config::Config;
use crate::config::tables::{Compaction, Keep};
use crate::tasks::Tasks;

/// What maintenance has done since the start.
#[derive(Debug, Default)]
pub struct MaintenanceStats {
    pub compacted_files: AtomicU64,
    pub compacted_bytes: AtomicU64,
    /// Bytes of the files that came out.
    pub written_bytes: AtomicU64,
    pub compaction_nanos: AtomicU64,
    pub expired_files: AtomicU64,
    pub expired_bytes: AtomicU64,
    pub deleted_files: AtomicU64,
    pub compaction_failures: AtomicU64,
    pub retention_failures: AtomicU64,
    pub vacuum_failures: AtomicU64,
    pub refresh_failures: AtomicU64,
}

/// The task that maintains the tables until it is stopped.
#[derive(Debug)]
pub(crate) struct Maintenance {
    tasks: Tasks,
    stats: Arc<MaintenanceStats>,
}

impl Maintenance {
    /// Starts the task.
    pub(crate) fn start(config: &Config, sealed: Arc<Sealed>, clock: Arc<dyn Clock>, runtime: &Handle) -> Self {
        let tasks = Tasks::new(runtime.clone());
        let stats = Arc::new(MaintenanceStats::default());
        let (compaction, keep) = (config.compaction.clone(), config.retention.clone());
        if config.storage.tables.location.is_shared() {
            let (stop, refresh) = (tasks.stopping(), config.storage.refresh);
            let refreshing = refresh_tables(Arc::clone(&sealed), refresh, Arc::clone(&stats));
            tasks.spawn("table refresh", async move {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => {}
                    () = refreshing => {}
                }
            });
        }
        let worker =
            Worker { sealed, clock, compaction, keep, stats: Arc::clone(&stats), vacuumed: None, failing: false };
        let stop = tasks.stopping();
        tasks.spawn("maintenance", async move {
            // Biased, so that an end is noticed before another round begins.
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = worker.run() => {}
            }
        });
        Self { tasks, stats }
    }

    /// What it counts.
    pub(crate) const fn stats(&self) -> &Arc<MaintenanceStats> {
        &self.stats
    }

    /// Ends, in the middle of a round if need be.
    pub(crate) fn shutdown(self, runtime: &Runtime) {
        runtime.block_on(self.tasks.stop());
    }
}

/// Looks for what other collectors have written.
async fn refresh_tables(sealed: Arc<Sealed>, every: Duration, stats: Arc<MaintenanceStats>) {
    let mut rounds = tokio::time::interval(every);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut failing = false;
    loop {
        rounds.tick().await;
        let result = sealed.refresh().await;
        if let Err(error) = &result {
            stats.refresh_failures.fetch_add(1, Ordering::Relaxed);
            if !failing {
                tracing::warn!(
                    error = error as &dyn std::error::Error,
                    "looking for files of other collectors failed; those known so far are used, and it is tried again"
                );
            }
        }
        failing = result.is_err();
    }
}

struct Worker {
    sealed: Arc<Sealed>,
    clock: Arc<dyn Clock>,
    compaction: Compaction,
    keep: Keep,
    stats: Arc<MaintenanceStats>,
    vacuumed: Option<UnixNanos>,
    /// Whether the last round failed: only changes are logged.
    failing: bool,
}

impl Worker {
    async fn run(mut self) {
        let mut rounds = tokio::time::interval(self.compaction.interval);
        rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            let now = self.clock.now();
            let compacted = self.compact(now).await;
            let expired = self.expire(now).await;
            let is_due = |last: UnixNanos| last.plus(self.keep.vacuum_after / VACUUMS_PER_HORIZON) <= now;
            let vacuumed = if self.vacuumed.is_none_or(is_due) {
                self.vacuumed = Some(now);
                self.vacuum(now).await
            } else {
                Ok(())
            };
            self.report(compacted, expired, vacuumed);
        }
    }

    async fn compact(&self, now: UnixNanos) -> Result<(), SealError> {
        let report = self.sealed.compact(&self.compaction.policy, now).await;
        let nanos = self.clock.now().since(now);
        self.stats.compaction_nanos.fetch_add(nanos, Ordering::Relaxed);
        let report = report?;
        self.stats.compacted_files.fetch_add(report.files_before, Ordering::Relaxed);
        self.stats.compacted_bytes.fetch_add(report.bytes_before, Ordering::Relaxed);
        self.stats.written_bytes.fetch_add(report.bytes_after, Ordering::Relaxed);
        if report.files_before > 0 {
            tracing::debug!(
                files = report.files_before,
                into = report.files_after,
                bytes = report.bytes_before,
                into_bytes = report.bytes_after,
                seconds = Duration::from_nanos(nanos).as_secs_f64(),
                "compacted"
            );
        }
        Ok(())
    }

    async fn expire(&self, now: UnixNanos) -> Result<(), SealError> {
        let report = self.sealed.expire(&self.keep.policy, now).await?;
        self.stats.expired_files.fetch_add(report.files, Ordering::Relaxed);
        self.stats.expired_bytes.fetch_add(report.bytes, Ordering::Relaxed);
        if report.files > 0 {
            tracing::info!(
                files = report.files,
                bytes = report.bytes,
                "files were kept long enough and leave their tables"
            );
        }
        Ok(())
    }

    async fn vacuum(&self, now: UnixNanos) -> Result<(), SealError> {
        let deleted = self.sealed.vacuum(self.keep.vacuum_after, now).await?;
        self.stats.deleted_files.fetch_add(deleted, Ordering::Relaxed);
        Ok(())
    }

    fn report(
        &mut self,
        compacted: Result<(), SealError>,
        expired: Result<(), SealError>,
        vacuumed: Result<(), SealError>,
    ) {
        let was_failing = self.failing;
        let steps = [
            ("compaction", &self.stats.compaction_failures, compacted),
            ("retention", &self.stats.retention_failures, expired),
            ("vacuum", &self.stats.vacuum_failures, vacuumed),
        ];
        self.failing = steps.iter().any(|(.., result)| result.is_err());
        for (step, failures, result) in steps {
            let Err(error) = result else { continue };
            failures.fetch_add(1, Ordering::Relaxed);
            if !was_failing {
                tracing::warn!(
                    step,
                    error = &error as &dyn std::error::Error,
                    "maintaining the tables failed; they are used as they are, and it is tried again"
                );
            }
        }
    }
}

/// Vacuum looks this often within its horizon, so that a file stays at most a horizon and a half.
const VACUUMS_PER_HORIZON: u32 = 2;
