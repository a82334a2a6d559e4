//! Hand-over of committed records to the consumer: exact, in order, in bounded memory.
//!
//! The commit thread publishes what it has committed and never waits. While the consumer keeps up,
//! records travel with what the receiver attached to them (the decoded batch). When more waits
//! than [`super::WalConfig::handover_max_bytes`], the hand-over is *lagging*: attachments are
//! dropped and the consumer reads the records from the files, until it has read everything that is
//! committed. Replay after a start is the same thing: the consumer starts out lagging.
//!
//! # Invariant
//! Let `cursor` be what the consumer has taken. Not lagging: the queue holds exactly the records of
//! `[cursor, committed_end)`. Lagging: the queue holds those of `[cursor, q)` for some `q`, and the
//! files those of `[q, committed_end)`. The switch back happens under the lock, when `cursor`
//! equals `committed_end`, so that there is neither a gap nor a double.
//!
//! # Memory
//! `handover_max_bytes` of attachments (as weighed by whoever attached them) in the queue, and one
//! batch of about [`BATCH_BYTES`] in the hands of the consumer.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use windrose_proto::tenant::TenantId;
use windrose_proto::time::UnixNanos;

use super::log::Appended;
use super::segments::Segments;
use super::stats::{WalStats, add, set};
use super::{ContentEncoding, RecordKind, StoredRecord, WalPosition, WalReader};
use crate::disk::Disk;

/// After how much a batch is full: worth the overhead, small against the budget.
const BATCH_BYTES: u64 = 4 << 20;

/// Failed reads in a row after which the rest of a segment is given up: a bad sector must not stop
/// everything behind it, a hiccup must not lose anything.
const READ_ATTEMPTS_MAX: u32 = 5;

/// A committed record, as the consumer gets it.
#[derive(Debug)]
pub struct Committed<T> {
    /// Where it starts.
    pub position: WalPosition,
    /// Where what follows it starts: "processed up to here".
    pub after: WalPosition,
    /// What its bytes are.
    pub kind: RecordKind,
    /// How they are compressed.
    pub encoding: ContentEncoding,
    /// Whose they are.
    pub tenant: TenantId,
    /// When they arrived.
    pub arrival: UnixNanos,
    /// The content, one way or the other.
    pub delivery: Delivery<T>,
}

/// The content of a committed record.
#[derive(Debug)]
pub enum Delivery<T> {
    /// What was attached when it was appended.
    Live(T),
    /// The bytes, from the files: to be decoded again.
    Stored(Bytes),
}

/// What the consumer gets.
#[derive(Debug)]
pub enum Received<T> {
    /// Records in log order, following the last ones without a gap.
    Batch(Vec<Committed<T>>),
    /// Nothing has come within the timeout.
    Idle,
    /// The log was closed and everything has been taken.
    Closed,
}

/// The connection between the commit thread and the consumer.
pub(crate) struct Handover<T> {
    state: Mutex<State<T>>,
    arrived: Condvar,
    max_bytes: usize,
    segments: Arc<Segments>,
    stats: Arc<WalStats>,
}

struct State<T> {
    queue: VecDeque<Queued<T>>,
    queued_bytes: usize,
    cursor: WalPosition,
    committed_end: WalPosition,
    lagging: bool,
    closed: bool,
}

/// A record in the queue, and what it is charged with.
struct Queued<T> {
    record: Committed<T>,
    bytes: usize,
}

impl<T> State<T> {
    /// From the oldest on, as many as make up a batch.
    fn take_batch(&mut self) -> Vec<Committed<T>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        while bytes < BATCH_BYTES
            && let Some(queued) = self.queue.pop_front()
        {
            bytes += queued.bytes as u64;
            self.queued_bytes -= queued.bytes;
            self.cursor = queued.record.after;
            batch.push(queued.record);
        }
        batch
    }
}

/// A record that has just been committed.
pub(crate) struct Published<T> {
    pub(crate) appended: Appended,
    pub(crate) kind: RecordKind,
    pub(crate) encoding: ContentEncoding,
    pub(crate) tenant: TenantId,
    pub(crate) arrival: UnixNanos,
    pub(crate) attachment: T,
    pub(crate) attachment_bytes: usize,
}

impl<T> From<Published<T>> for Committed<T> {
    fn from(published: Published<T>) -> Self {
        let Published { appended, kind, encoding, tenant, arrival, attachment, attachment_bytes: _ } = published;
        let Appended { position, after } = appended;
        Self { position, after, kind, encoding, tenant, arrival, delivery: Delivery::Live(attachment) }
    }
}

impl<T> From<StoredRecord> for Committed<T> {
    fn from(record: StoredRecord) -> Self {
        let StoredRecord { position, after, kind, encoding, tenant, arrival, payload } = record;
        Self { position, after, kind, encoding, tenant, arrival, delivery: Delivery::Stored(payload) }
    }
}

impl<T> Handover<T> {
    /// The consumer starts at `from`; `end` is what is already committed.
    pub(crate) fn new(
        from: WalPosition,
        end: WalPosition,
        max_bytes: usize,
        segments: Arc<Segments>,
        stats: Arc<WalStats>,
    ) -> Self {
        let state = State {
            queue: VecDeque::new(),
            queued_bytes: 0,
            cursor: from,
            committed_end: end.max(from),
            lagging: from < end,
            closed: false,
        };
        let handover = Self { state: Mutex::new(state), arrived: Condvar::new(), max_bytes, segments, stats };
        handover.measure_lag(&handover.state());
        handover
    }

    /// Hands over what has been committed. Never waits for the consumer.
    pub(crate) fn publish(&self, batch: Vec<Published<T>>) {
        // Dropped after the lock is released.
        let mut left_to_files = Vec::new();
        let mut state = self.state();
        for published in batch {
            state.committed_end = published.appended.after;
            if !state.lagging && state.queued_bytes.saturating_add(published.attachment_bytes) > self.max_bytes {
                state.lagging = true;
                add(&self.stats.lag_episodes, 1);
            }
            if state.lagging {
                left_to_files.push(published.attachment);
                continue;
            }
            let bytes = published.attachment_bytes;
            state.queued_bytes += bytes;
            state.queue.push_back(Queued { record: published.into(), bytes });
        }
        self.measure_lag(&state);
        drop(state);
        self.arrived.notify_one();
    }

    /// No more will be published.
    pub(crate) fn close(&self) {
        self.state().closed = true;
        self.arrived.notify_all();
    }

    pub(crate) fn is_lagging(&self) -> bool {
        self.state().lagging
    }

    pub(crate) fn committed_end(&self) -> WalPosition {
        self.state().committed_end
    }

    fn measure_lag(&self, state: &State<T>) {
        set(&self.stats.lag_bytes, self.segments.bytes_between(state.cursor, state.committed_end));
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one consumer of a log.
pub struct Consumer<T> {
    handover: Arc<Handover<T>>,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    reader: Option<WalReader>,
    failed_reads: u32,
}

enum Next<T> {
    Ready(Received<T>),
    ReadUntil(WalPosition),
}

impl<T> Consumer<T> {
    pub(crate) fn new(handover: Arc<Handover<T>>, disk: Arc<dyn Disk>, dir: PathBuf) -> Self {
        Self { handover, disk, dir, reader: None, failed_reads: 0 }
    }

    /// The next records, waiting at most `timeout`. Blocks: call it from a thread, not a reactor.
    ///
    /// # Errors
    /// When the files cannot be read. Nothing is skipped: calling again reads the same place again.
    /// After a few failures in a row the rest of that segment is given up and counted as damaged.
    pub fn recv(&mut self, timeout: Duration) -> io::Result<Received<T>> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.take_or_wait(deadline) {
                Next::Ready(received) => return Ok(received),
                Next::ReadUntil(until) => {
                    let batch = self.read_files(until)?;
                    // Empty when all that was left could not be read.
                    if !batch.is_empty() {
                        return Ok(Received::Batch(batch));
                    }
                }
            }
        }
    }

    /// Everything before this has been taken.
    #[must_use]
    pub fn position(&self) -> WalPosition {
        self.handover.state().cursor
    }

    fn take_or_wait(&mut self, deadline: Instant) -> Next<T> {
        let mut state = self.handover.state();
        loop {
            let batch = state.take_batch();
            if !batch.is_empty() {
                self.handover.measure_lag(&state);
                return Next::Ready(Received::Batch(batch));
            }
            if state.lagging && state.cursor < state.committed_end {
                return Next::ReadUntil(state.committed_end);
            }
            if state.lagging {
                state.lagging = false;
                self.reader = None;
            }
            if state.closed {
                return Next::Ready(Received::Closed);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Next::Ready(Received::Idle);
            }
            let waited = self.handover.arrived.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Some records from the files, at most up to `until`, which is committed.
    fn read_files(&mut self, until: WalPosition) -> io::Result<Vec<Committed<T>>> {
        let reader = match &mut self.reader {
            Some(reader) => reader,
            none => {
                let from = self.handover.state().cursor;
                let reader = WalReader::read_from(Arc::clone(&self.disk), &self.dir, from, None);
                none.insert(reader.counting(Arc::clone(&self.handover.stats)))
            }
        };
        reader.extend(until);
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut cursor = None;
        while bytes < BATCH_BYTES {
            match reader.next_record() {
                Ok(Some(record)) => {
                    bytes += record.after.offset - record.position.offset;
                    cursor = Some(record.after);
                    batch.push(record.into());
                }
                Ok(None) => {
                    cursor = Some(until);
                    break;
                }
                // What has been read is good; the failure will come again.
                Err(_) if !batch.is_empty() => break,
                Err(error) => {
                    self.failed_reads += 1;
                    if self.failed_reads < READ_ATTEMPTS_MAX {
                        return Err(error);
                    }
                    tracing::error!(%error, "gave up reading a segment of the write-ahead log");
                    self.failed_reads = 0;
                    reader.skip_segment();
                }
            }
        }
        if !batch.is_empty() {
            self.failed_reads = 0;
        }
        add(&self.handover.stats.replayed_records, batch.len() as u64);
        self.advance(cursor);
        Ok(batch)
    }

    fn advance(&self, cursor: Option<WalPosition>) {
        let mut state = self.handover.state();
        state.cursor = cursor.unwrap_or(state.cursor);
        self.handover.measure_lag(&state);
    }
}

impl<T> fmt::Debug for Handover<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Handover")
            .field("queued", &state.queue.len())
            .field("cursor", &state.cursor)
            .field("committed_end", &state.committed_end)
            .field("lagging", &state.lagging)
            .finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer").field("handover", &self.handover).finish_non_exhaustive()
    }
}
