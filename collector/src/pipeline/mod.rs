//! From an accepted request to published tables: log → acknowledge → join → publish → seal.
//!
//! ```text
//! receivers ─ submit ─► commit log (fdatasync) ─► ack
//!                            │ records in log order, from memory or from the files
//!                            ▼
//!                      joiner thread: decode again if need be → join → tick → publish
//! ```
//!
//! | file | what |
//! |---|---|
//! | `logged.rs` | what a log record holds besides the body, and back again |
//! | `intake.rs` | the receivers' way into the log |
//! | `worker.rs` | the joiner thread: the only owner of the join |
//! | `sealer.rs` | generations of joined rows into sealed tables, in the background |
//! | `steady.rs` | time for deadlines, which never goes back |
//! | `archive.rs` | sealed spans of a trace, for late spans |
//!
//! Invariant: the joiner sees exactly the acknowledged records, in log order, each once per life of
//! the process; after a restart it sees again what the last seal does not hold.

mod archive;
mod intake;
mod logged;
mod sealer;
mod steady;
mod worker;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use hashbrown::HashMap;
use tokio::runtime::Handle;
use windrose_proto::time::{Clock, UnixNanos};
use windrose_store::disk::Disk;
use windrose_store::sealed::{DiskStore, Recovered, SealError, Sealed, SegmentError, WriterName};
use windrose_store::snapshot::Revisions;
use windrose_store::store::Store;
use windrose_store::wal::{CommitLog, OpenError, Recovery, Wal, WalConfig, WalPosition, WalStats};

pub use intake::LogIntake;
pub use sealer::SealPolicy;
pub use worker::JoinStats;

use crate::join::joiner::{JoinLimits, Joiner};
use crate::normalise::Normaliser;
use crate::normalise::overrides::Overrides;
use intake::Batch;
use sealer::Sealer;
use steady::SteadyClock;
use worker::Worker;

/// What the pipeline needs to start.
#[derive(Debug)]
pub struct PipelineConfig {
    pub data_dir: PathBuf,
    pub wal: WalConfig,
    pub join: JoinLimits,
    pub overrides: Overrides,
    /// How often changes are derived and published.
    pub tick: Duration,
    pub seal: SealPolicy,
}

/// Why the pipeline did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("opening the write-ahead log in {}", dir.display())]
    Wal {
        dir: PathBuf,
        #[source]
        source: OpenError,
    },
    #[error("starting a thread")]
    Thread(#[source] io::Error),
    #[error("using the table directory {}", dir.display())]
    TableDir {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("opening the sealed tables")]
    Tables(#[source] SealError),
    #[error("reading sealed tables")]
    Segment(#[source] SegmentError),
}

/// The running pipeline.
#[derive(Debug)]
pub struct Pipeline {
    store: Store,
    sealed: Arc<Sealed>,
    intake: Arc<LogIntake>,
    log: Arc<CommitLog<Batch>>,
    recovery: Recovery,
    caught_up: Arc<AtomicBool>,
    closing: Arc<AtomicBool>,
    join_stats: Arc<JoinStats>,
    worker: Option<std::thread::JoinHandle<()>>,
}

impl Pipeline {
    /// Opens the log and the sealed tables, replays what is not sealed, and starts taking
    /// submissions. Blocking work runs on threads of its own; sealed files are read and written on
    /// `runtime`.
    ///
    /// # Errors
    /// When the data directory cannot be used.
    pub async fn start(
        config: PipelineConfig,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        runtime: Handle,
    ) -> Result<Self, StartError> {
        let dir = config.data_dir.join("wal");
        let opened = Wal::open(Arc::clone(&disk), &dir, config.wal, Arc::clone(&clock));
        let (wal, recovery) = opened.map_err(|source| StartError::Wal { dir, source })?;
        let now = clock.now();
        let (sealed, recovered) = open_tables(Arc::clone(&disk), &config.data_dir.join("tables"), now).await?;
        let sealed_until = recovered.as_ref().map(|seal| WalPosition { segment: seal.wal.0, offset: seal.wal.1 });
        let oldest = recovery.oldest.unwrap_or(recovery.end);
        let from = sealed_until.unwrap_or(oldest).max(oldest);
        let replay_until = recovery.end;
        let (log, consumer) = CommitLog::start(wal, from).map_err(StartError::Thread)?;
        let log = Arc::new(log);
        let store = Store::default();
        let mut joiner = Joiner::new(Normaliser::new(config.overrides), config.join, store.clone());
        restore(&mut joiner, &sealed, recovered.as_ref(), now).await?;
        let caught_up = Arc::new(AtomicBool::new(false));
        let closing = Arc::new(AtomicBool::new(false));
        let join_stats = Arc::new(JoinStats::default());
        let worker = Worker {
            consumer,
            joiner,
            clock: SteadyClock::new(Arc::clone(&clock)),
            runtime: runtime.clone(),
            tick: config.tick,
            sealer: Sealer {
                sealed: Arc::clone(&sealed),
                runtime,
                policy: config.seal,
                next_number: recovered.map_or(1, |seal| seal.seal_number + 1),
                last: now,
                under_way: None,
            },
            log: Arc::clone(&log),
            closing: Arc::clone(&closing),
            replay_until,
            caught_up: Arc::clone(&caught_up),
            stats: Arc::clone(&join_stats),
        };
        let worker = std::thread::Builder::new()
            .name("joiner".to_owned())
            .spawn(move || worker.run())
            .map_err(StartError::Thread)?;
        let intake = Arc::new(LogIntake::new(Arc::clone(&log), clock));
        Ok(Self { store, sealed, intake, log, recovery, caught_up, closing, join_stats, worker: Some(worker) })
    }

    /// Where readers find what was published.
    #[must_use]
    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The sealed tables.
    #[must_use]
    pub const fn sealed(&self) -> &Arc<Sealed> {
        &self.sealed
    }

    /// Where receivers hand in what they accepted.
    #[must_use]
    pub const fn intake(&self) -> &Arc<LogIntake> {
        &self.intake
    }

    /// What was found on disk at the start.
    #[must_use]
    pub const fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Becomes true once everything that was in the log at the start is joined and published.
    #[must_use]
    pub fn caught_up(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.caught_up)
    }

    /// Counters of the log.
    #[must_use]
    pub fn wal_stats(&self) -> &Arc<WalStats> {
        self.log.stats()
    }

    /// Counters of the join.
    #[must_use]
    pub const fn join_stats(&self) -> &Arc<JoinStats> {
        &self.join_stats
    }

    /// Ends: what was submitted is synced, joined and published. Blocks; call it after the ports
    /// are closed and their requests answered.
    pub fn shutdown(mut self) {
        self.closing.store(true, Ordering::Release);
        if let Err(error) = self.log.close() {
            tracing::error!(error = %error, "the write-ahead log did not close cleanly; it will be recovered at the next start");
        }
        if let Some(worker) = self.worker.take()
            && worker.join().is_err()
        {
            tracing::error!("the joiner panicked; everything acknowledged is in the log");
        }
    }
}

/// One process writes to a data directory, so its name need not tell writers apart.
const WRITER: &str = "local";

async fn open_tables(
    disk: Arc<dyn Disk>,
    dir: &Path,
    now: UnixNanos,
) -> Result<(Arc<Sealed>, Option<Recovered>), StartError> {
    let object_store =
        DiskStore::open(disk, dir).map_err(|source| StartError::TableDir { dir: dir.to_owned(), source })?;
    let writer = WriterName::new(WRITER).expect("the name keeps to the rules for names");
    let (sealed, recovered) = Sealed::open(Arc::new(object_store), writer, now).await.map_err(StartError::Tables)?;
    Ok((Arc::new(sealed), recovered))
}

/// Tells the join what is sealed, and takes up the traces that were open at the last seal. Their
/// spans are read beforehand, because the join asks for them synchronously.
async fn restore(
    joiner: &mut Joiner,
    sealed: &Sealed,
    recovered: Option<&Recovered>,
    now: UnixNanos,
) -> Result<(), StartError> {
    for (tenant, catalog) in sealed.catalog().tenants() {
        let revisions: Revisions = catalog.revisions().await.map_err(StartError::Segment)?;
        let open = recovered.and_then(|seal| seal.open_traces.get(tenant)).map_or(&[][..], Vec::as_slice);
        let mut spans = HashMap::new();
        for trace in open {
            spans.insert(*trace, catalog.read_trace(*trace).await.map_err(StartError::Segment)?);
        }
        let archive = archive::Preloaded { spans };
        joiner.restore(tenant, Arc::clone(catalog), revisions, open, &archive, now);
    }
    joiner.publish(now);
    Ok(())
}
