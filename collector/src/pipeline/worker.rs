//! The joiner thread: takes committed records in log order, ticks, publishes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use tokio::runtime::Handle;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;
use windrose_proto::wire::CounterBatch;
use windrose_store::sealed::SealedCatalog;
use windrose_store::wal::{CommitLog, Committed, Consumer, Delivery, Received, RecordKind, WalPosition, cut_point};

use super::archive::{SealedArchive, SealedArchives};
use super::intake::Batch;
use super::logged::{ReplayError, replay};
use super::sealer::Sealer;
use super::steady::SteadyClock;
use crate::in_force::InForce;
use crate::join::joiner::{JoinCounts, JoinGauges, Joiner};

/// Counters of the join, updated once a tick.
#[derive(Debug, Default)]
pub struct JoinStats {
    sums: Mutex<(JoinCounts, JoinGauges)>,
    /// Records that could not be read back from the log and are not in any answer.
    unreadable_records: AtomicU64,
    pub(super) seal_failures: AtomicU64,
    quarantined_files: AtomicU64,
}

impl JoinStats {
    /// As of the last tick.
    #[must_use]
    pub fn read(&self) -> (JoinCounts, JoinGauges) {
        *self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Log records that did not decode at replay.
    #[must_use]
    pub fn unreadable_records(&self) -> u64 {
        self.unreadable_records.load(Ordering::Relaxed)
    }

    /// Seals that failed; each is repeated until it comes through.
    #[must_use]
    pub fn seal_failures(&self) -> u64 {
        self.seal_failures.load(Ordering::Relaxed)
    }

    /// Sealed files that are damaged and left out of answers, as of the last tick.
    #[must_use]
    pub fn quarantined_files(&self) -> u64 {
        self.quarantined_files.load(Ordering::Relaxed)
    }
}

/// Everything the thread owns.
pub(super) struct Worker {
    pub(super) consumer: Consumer<Batch>,
    pub(super) joiner: Joiner,
    pub(super) overrides: InForce,
    pub(super) clock: SteadyClock,
    pub(super) runtime: Handle,
    pub(super) tick: Duration,
    /// How long it goes on once the log is closed.
    pub(super) drain: Duration,
    pub(super) sealer: Sealer,
    /// The sealed files as the joiner knows them.
    pub(super) catalog: Arc<SealedCatalog>,
    pub(super) log: Arc<CommitLog<Batch>>,
    /// Set before the log is closed: from then on everything in it is joined, whatever memory it takes.
    pub(super) closing: Arc<AtomicBool>,
    /// Everything before was in the log at the start.
    pub(super) replay_until: WalPosition,
    pub(super) caught_up: Arc<AtomicBool>,
    pub(super) stats: Arc<JoinStats>,
}

/// How long to wait after the log could not be read: long enough not to spin, short enough that an
/// operator who mends the disk need not wait.
const READ_RETRY: Duration = Duration::from_secs(1);

/// What became of an attempt to take records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Some were taken.
    Took,
    /// None have come, or they are left in the log for now.
    Idle,
    /// The log could not be read; the same place is tried again.
    Unreadable,
    /// The log is closed and everything is taken.
    Closed,
}

impl Worker {
    /// Runs until the log is closed and everything in it is joined, or the time for that is over: the next start
    /// joins what is left.
    pub(super) fn run(mut self) {
        let mut next_tick = Instant::now() + self.tick;
        let mut end = None;
        loop {
            if self.closing.load(Ordering::Acquire)
                && Instant::now() >= *end.get_or_insert_with(|| Instant::now() + self.drain)
            {
                tracing::info!("what is not joined yet stays in the log for the next start");
                break;
            }
            match self.step(next_tick.saturating_duration_since(Instant::now())) {
                Step::Took | Step::Idle => {}
                Step::Unreadable => std::thread::park_timeout(READ_RETRY),
                Step::Closed => break,
            }
            if Instant::now() >= next_tick {
                self.tick();
                next_tick = Instant::now() + self.tick;
            }
        }
        self.tick();
        self.await_seal();
    }

    /// Waits until the seal under way has come through or failed.
    pub(super) fn await_seal(&mut self) {
        while self.sealer.is_running() {
            self.poll_seal(READ_RETRY);
        }
    }

    /// Takes what has come, waiting at most `wait`.
    pub(super) fn step(&mut self, wait: Duration) -> Step {
        let closing = self.closing.load(Ordering::Acquire);
        if !closing && self.sealer.is_behind(self.joiner.unsealed_bytes()) {
            // What comes stays in the log until the seal is done; when it is used up, senders are refused.
            if self.sealer.is_running() {
                self.poll_seal(wait)
            } else {
                std::thread::park_timeout(wait)
            }
            return Step::Idle;
        }
        match self.consumer.recv(wait) {
            Ok(Received::Batch(records)) => {
                records.into_iter().for_each(|record| self.take(record));
                Step::Took
            }
            Ok(Received::Idle) => Step::Idle,
            Ok(Received::Closed) => Step::Closed,
            Err(error) => {
                tracing::error!(error = %error, "the write-ahead log cannot be read; trying again");
                Step::Unreadable
            }
        }
    }

    fn take(&mut self, record: Committed<Batch>) {
        let Committed { position, kind, tenant, arrival, delivery, .. } = record;
        let batch = match delivery {
            Delivery::Live(batch) => batch,
            Delivery::Stored(payload) => match decode_again(kind, payload, arrival) {
                Ok(Some(batch)) => batch,
                Ok(None) => return,
                Err(error) => {
                    self.stats.unreadable_records.fetch_add(1, Ordering::Relaxed);
                    tracing::error!(error = %error, position = ?position, kind = ?kind, "a log record cannot be read and is left out");
                    return;
                }
            },
        };
        match batch {
            Batch::Spans(spans) => self.take_spans(&tenant, spans, arrival),
            Batch::Counters(batch) => {
                let now = self.clock.now();
                self.joiner.add_counters(&tenant, batch, now);
            }
        }
    }

    fn take_spans(&mut self, tenant: &TenantId, spans: Vec<windrose_proto::span::Span>, arrived: UnixNanos) {
        let archive = SealedArchive { catalog: self.joiner.catalog(tenant), runtime: self.runtime.clone() };
        let now = self.clock.now();
        // Before each record and not once a tick: whoever sends after a reload was answered is read with it.
        self.joiner.follow(&self.overrides.get());
        self.joiner.ingest(tenant, spans, arrived, &archive, now);
    }

    /// Takes over a finished seal: its rows are read from files from now on, and the log is cut.
    fn poll_seal(&mut self, wait: Duration) {
        let now = self.clock.now();
        let Some(finished) = self.sealer.poll(now, wait) else { return };
        for tenant in &finished.tenants {
            self.joiner.finish_seal(tenant, finished.catalog.tenant(tenant));
        }
        self.take_catalog(now);
        self.joiner.publish(now);
        // All tables commit up to the same position, and traces that are still open are listed with
        // the seal, so that none of them needs the log.
        if let Err(error) = self.log.cut_before(cut_point(&[finished.wal], None)) {
            tracing::warn!(error = %error, "sealed log segments could not be removed; they take space until the next seal");
        }
    }

    /// Takes over what compaction, retention and other collectors have made of the sealed files. Not
    /// while a seal is under way: until it is finished here, the catalog may or may not have its rows.
    fn take_catalog(&mut self, now: UnixNanos) {
        if self.sealer.under_way.is_some() {
            return;
        }
        let catalog = self.sealer.sealed.catalog();
        if Arc::ptr_eq(&catalog, &self.catalog) {
            return;
        }
        // A tenant whose last file went has none in the new catalog.
        let before = std::mem::replace(&mut self.catalog, Arc::clone(&catalog));
        let tenants: BTreeSet<&TenantId> =
            before.tenants().chain(catalog.tenants()).map(|(tenant, _)| tenant).collect();
        for tenant in tenants {
            self.joiner.replace_catalog(tenant, catalog.tenant(tenant), now);
        }
    }

    /// Derives and publishes what has changed, and seals when that is due.
    pub(super) fn tick(&mut self) {
        let now = self.clock.now();
        self.take_catalog(now);
        self.joiner.tick(&SealedArchives { runtime: self.runtime.clone() }, now);
        self.poll_seal(Duration::ZERO);
        if self.sealer.is_due(now, self.joiner.unsealed_bytes()) {
            let batches = self.joiner.begin_seal(now);
            self.sealer.begin(batches, self.consumer.position(), now);
        }
        *self.stats.sums.lock().unwrap_or_else(PoisonError::into_inner) = (self.joiner.counts(), self.joiner.gauges());
        let quarantined = self.sealer.sealed.catalog().quarantined().len() as u64;
        self.stats.quarantined_files.store(quarantined, Ordering::Relaxed);
        if self.consumer.position() >= self.replay_until {
            self.caught_up.store(true, Ordering::Release);
        }
    }
}

/// What a record read back from the files holds; `None` for records that are not for the join.
fn decode_again(kind: RecordKind, payload: Bytes, arrival: UnixNanos) -> Result<Option<Batch>, ReplayError> {
    match kind {
        RecordKind::OtlpTracesProtobuf
        | RecordKind::OtlpTracesJson
        | RecordKind::ZipkinJson
        | RecordKind::ZipkinProtobuf
        | RecordKind::SkywalkingJson
        | RecordKind::OtlpLogsProtobuf
        | RecordKind::OtlpLogsJson => Ok(Some(Batch::Spans(replay(&payload, arrival)?.spans))),
        RecordKind::CounterDeltas => Ok(Some(Batch::Counters(CounterBatch::decode(payload)?))),
        RecordKind::SealIntent => Ok(None),
        RecordKind::OtlpMetricsProtobuf | RecordKind::MetricBatch => Err(ReplayError::Kind),
    }
}
