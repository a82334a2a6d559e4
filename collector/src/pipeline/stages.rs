//! The pipeline opened, before its threads run.
//!
//! The process runs it at once ([`Stages::run`]). A simulation steps it instead, so that the order
//! of events follows from a seed and not from threads: submit, [`Stages::commit`], [`Stages::join`],
//! [`Stages::tick`], and a crash wherever it likes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use hashbrown::{HashMap, HashSet};
use tokio::runtime::Handle;
use windrose_proto::id::TraceId;
use windrose_proto::span::Span;
use windrose_proto::time::{Clock, UnixNanos};
use windrose_store::disk::Disk;
use windrose_store::sealed::{Recovered, Sealed};
use windrose_store::snapshot::Revisions;
use windrose_store::store::Store;
use windrose_store::wal::{CommitLog, Committer, Wal, WalPosition};

use super::archive::Preloaded;
use super::intake::{Batch, LogIntake};
use super::sealer::Sealer;
use super::steady::SteadyClock;
use super::worker::{JoinStats, Step, Worker};
use super::{Pipeline, PipelineConfig, StartError, TablesConfig};
use crate::join::joiner::Joiner;
use crate::normalise::Normaliser;

/// A pipeline that does nothing by itself.
pub struct Stages {
    pipeline: Pipeline,
    committer: Committer<Batch>,
    worker: Worker,
}

impl Stages {
    /// Opens the log and the sealed tables.
    ///
    /// # Errors
    /// When the data directory cannot be used.
    pub async fn open(
        config: PipelineConfig,
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
        runtime: Handle,
    ) -> Result<Self, StartError> {
        let dir = config.data_dir.join("wal");
        let opened = Wal::open(Arc::clone(&disk), &dir, config.wal, Arc::clone(&clock));
        let (wal, recovery) = opened.map_err(|source| StartError::Wal { dir, source })?;
        let now = clock.now();
        let (sealed, recovered) = open_tables(Arc::clone(&disk), config.tables, now).await?;
        let sealed_until = recovered.as_ref().map(|seal| WalPosition { segment: seal.wal.0, offset: seal.wal.1 });
        let oldest = recovery.oldest.unwrap_or(recovery.end);
        let from = sealed_until.unwrap_or(oldest).max(oldest);
        let replay_until = recovery.end;
        let (log, committer, consumer) = CommitLog::open(wal, from);
        let log = Arc::new(log);
        let store = Store::default();
        let mut joiner = Joiner::new(Normaliser::new(config.overrides.get()), config.join, store.clone());
        restore(&mut joiner, &sealed, recovered.as_ref(), now).await?;
        let caught_up = Arc::new(AtomicBool::new(false));
        let closing = Arc::new(AtomicBool::new(false));
        let join_stats = Arc::new(JoinStats::default());
        let worker = Worker {
            consumer,
            joiner,
            overrides: config.overrides,
            clock: SteadyClock::new(Arc::clone(&clock)),
            runtime: runtime.clone(),
            tick: config.tick,
            drain: config.drain,
            catalog: sealed.catalog(),
            sealer: Sealer {
                sealed: Arc::clone(&sealed),
                runtime,
                policy: config.seal,
                next_number: recovered.map_or(1, |seal| seal.seal_number + 1),
                last: now,
                under_way: None,
                stats: Arc::clone(&join_stats),
            },
            log: Arc::clone(&log),
            closing: Arc::clone(&closing),
            replay_until,
            caught_up: Arc::clone(&caught_up),
            stats: Arc::clone(&join_stats),
        };
        let intake = Arc::new(LogIntake::new(Arc::clone(&log), clock));
        let pipeline = Pipeline { store, sealed, intake, log, recovery, caught_up, closing, join_stats, worker: None };
        Ok(Self { pipeline, committer, worker })
    }

    /// Starts the threads.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn run(self) -> Result<Pipeline, StartError> {
        let Self { mut pipeline, committer, worker } = self;
        pipeline.log.spawn(committer).map_err(StartError::Thread)?;
        let joiner = std::thread::Builder::new().name("joiner".to_owned()).spawn(move || worker.run());
        pipeline.worker = Some(joiner.map_err(StartError::Thread)?);
        Ok(pipeline)
    }

    /// What is shared with receivers and readers.
    #[must_use]
    pub const fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// Writes, syncs and answers what was submitted.
    pub fn commit(&mut self) {
        self.committer.commit_waiting();
    }

    /// Joins what is committed; stops early when the log cannot be read or a seal is behind.
    /// Blocks; call it outside a runtime.
    pub fn join(&mut self) {
        while self.worker.step(Duration::ZERO) == Step::Took {}
    }

    /// Derives, settles and publishes, and begins a seal when one is due.
    pub fn tick(&mut self) {
        self.worker.tick();
    }

    /// Waits until the seal under way has come through or failed; a failed one is repeated by a
    /// later tick.
    pub fn await_seal(&mut self) {
        self.worker.await_seal();
    }

    /// Ends in order: everything submitted is committed, joined and synced.
    pub fn shutdown(self) {
        self.pipeline.close_log();
        if let Err(error) = self.committer.run() {
            tracing::error!(error = %error, "the write-ahead log did not close cleanly");
        }
        self.worker.run();
    }
}

impl fmt::Debug for Stages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stages").field("pipeline", &self.pipeline).finish_non_exhaustive()
    }
}

async fn open_tables(
    disk: Arc<dyn Disk>,
    tables: TablesConfig,
    now: UnixNanos,
) -> Result<(Arc<Sealed>, Option<Recovered>), StartError> {
    let store = tables.location.open(disk).map_err(StartError::Location)?;
    let (sealed, recovered) = Sealed::open(store, tables.writer, now).await.map_err(StartError::Tables)?;
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
        let revisions: Revisions = catalog.revisions();
        let open = recovered.and_then(|seal| seal.open_traces.get(tenant)).map_or(&[][..], Vec::as_slice);
        let wanted: HashSet<TraceId> = open.iter().copied().collect();
        let mut spans: HashMap<TraceId, Vec<Span>> = open.iter().map(|trace| (*trace, Vec::new())).collect();
        for span in catalog.read_traces(&wanted).await.map_err(StartError::Segment)? {
            spans.entry(span.trace_id).or_default().push(span);
        }
        let archive = Preloaded { spans };
        joiner.restore(tenant, Arc::clone(catalog), revisions, open, &archive, now);
    }
    joiner.publish(now);
    Ok(())
}
