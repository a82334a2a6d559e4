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
//! | `stages.rs` | everything opened, before its threads run; what a simulation steps |
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
mod stages;
mod steady;
mod worker;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::Handle;
use windrose_proto::time::Clock;
use windrose_store::disk::Disk;
use windrose_store::sealed::{Location, LocationError, SealError, Sealed, SegmentError, WriterName};
use windrose_store::store::Store;
use windrose_store::wal::{CommitLog, OpenError, Recovery, WalConfig, WalStats};

pub use intake::LogIntake;
pub use sealer::SealPolicy;
pub use stages::Stages;
pub use worker::JoinStats;

use crate::in_force::InForce;
use crate::join::joiner::JoinLimits;
use intake::Batch;

/// What the pipeline needs to start.
#[derive(Debug)]
pub struct PipelineConfig {
    pub data_dir: PathBuf,
    pub tables: TablesConfig,
    pub wal: WalConfig,
    pub join: JoinLimits,
    pub overrides: InForce,
    /// How often changes are derived and published.
    pub tick: Duration,
    /// How long an orderly end goes on joining what is in the log.
    pub drain: Duration,
    pub seal: SealPolicy,
}

/// Where the sealed tables lie.
#[derive(Clone, Debug)]
pub struct TablesConfig {
    pub location: Location,
    /// Under which name they are written: one of its own for every collector that shares them.
    pub writer: WriterName,
}

impl TablesConfig {
    /// The tables in a directory that no other process writes to: any name will do.
    ///
    /// # Panics
    /// Never: the name keeps to the rules for names.
    #[must_use]
    pub fn in_directory(dir: PathBuf) -> Self {
        let writer = WriterName::new(LOCAL_WRITER).expect("the name keeps to the rules for names");
        Self { location: Location::Directory(dir), writer }
    }
}

/// The writer of tables that are not shared.
pub const LOCAL_WRITER: &str = "local";

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
    #[error("opening the place of the sealed tables")]
    Location(#[source] LocationError),
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
        Stages::open(config, disk, clock, runtime).await?.run()
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
        self.close_log();
        if let Some(worker) = self.worker.take()
            && worker.join().is_err()
        {
            tracing::error!("the joiner panicked; everything acknowledged is in the log");
        }
    }

    fn close_log(&self) {
        self.closing.store(true, Ordering::Release);
        if let Err(error) = self.log.close() {
            tracing::error!(error = %error, "the write-ahead log did not close cleanly; it will be recovered at the next start");
        }
    }
}
