//! The commit thread: many appends, one write and one sync.
//!
//! Appends wait in a queue bounded by bytes of records and of what is attached to them
//! ([`super::WalConfig::queue_max_bytes`]). When it is full, further appends wait for room, first come first served, at most `queue_wait`, and are then
//! refused as overloaded; nothing that was acknowledged is affected. The thread takes a group,
//! writes it, syncs it, hands it to the consumer and only then answers, so that a sync never blocks
//! a reactor thread.
//!
//! A failed write or sync is answered to exactly the appends of that group and segment. The next
//! group starts a new segment.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::group::{Decision, Gathering, decide};
use super::handover::{Consumer, Handover, Published};
use super::log::{Appended, Wal, WriteError};
use super::segments::Segments;
use super::stats::{WalStats, add, set};
use super::{Record, SyncPolicy, WalConfig, WalPosition};
use crate::disk::Disk;

/// What a queued append costs besides its record and attachment; it bounds the number of tiny ones.
const PENDING_OVERHEAD_BYTES: u64 = 256;

/// Why a record was not logged. It is not in the log then, unless the process ends before another
/// record is acknowledged.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AppendError {
    /// Budget or disk used up: the sender should come back later.
    #[error("the write-ahead log is full: {cause}; retry in {} s", retry_after.as_secs())]
    OutOfSpace {
        /// What the sender should wait.
        retry_after: Duration,
        /// What is used up.
        cause: &'static str,
    },
    /// The disk is slower than the input, and the queue in front of it stayed full.
    #[error("the disk does not keep up; retry in {} s", retry_after.as_secs())]
    Overloaded {
        /// What the sender should wait.
        retry_after: Duration,
    },
    /// The record can never be logged.
    #[error("the record takes {bytes} bytes, more than the {max_bytes} a segment holds")]
    TooLarge {
        /// What it takes.
        bytes: u64,
        /// What is possible.
        max_bytes: u64,
    },
    /// The disk failed; the record may be sent again.
    #[error("cannot write the write-ahead log")]
    Io(#[source] Arc<io::Error>),
    /// The log is being closed.
    #[error("the write-ahead log is closed")]
    Closed,
}

/// The log as everybody but its thread sees it. `T` is what travels with a record to the consumer.
pub struct CommitLog<T> {
    shared: Arc<Shared<T>>,
    thread: Mutex<Option<JoinHandle<Result<(), WriteError>>>>,
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segments: Arc<Segments>,
    config: WalConfig,
}

struct Shared<T> {
    queue: Mutex<Queue<T>>,
    arrived: Condvar,
    room: Arc<Semaphore>,
    handover: Arc<Handover<T>>,
    stats: Arc<WalStats>,
}

struct Queue<T> {
    pending: VecDeque<Pending<T>>,
    /// Bytes that will be written.
    frame_bytes: u64,
    closing: bool,
}

/// An append that waits for its group.
struct Pending<T> {
    record: Record,
    attachment: T,
    attachment_bytes: usize,
    reply: oneshot::Sender<Result<WalPosition, AppendError>>,
    /// Whether it is answered only after a sync, if the policy has one.
    awaits_sync: bool,
    since: Instant,
    _room: Option<OwnedSemaphorePermit>,
}

impl<T: Send + 'static> CommitLog<T> {
    /// Starts the commit thread. The consumer gets every record from `from` on, those already in
    /// the log first. New records are always after `from`, even when the log's files are gone.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn start(wal: Wal, from: WalPosition) -> io::Result<(Self, Consumer<T>)> {
        let (log, committer, consumer) = Self::open(wal, from);
        log.spawn(committer)?;
        Ok((log, consumer))
    }

    /// The same without the thread: nothing is committed until `committer` is given to
    /// [`CommitLog::spawn`], or stepped by a simulation, where time and threads must not decide.
    pub fn open(mut wal: Wal, from: WalPosition) -> (Self, Committer<T>, Consumer<T>) {
        wal.start_after(from);
        let (config, stats, segments) = (wal.config().clone(), wal.stats(), wal.segments());
        let (disk, dir) = (wal.disk(), wal.dir().to_owned());
        let handover =
            Handover::new(from, wal.end(), config.handover_max_bytes, Arc::clone(&segments), Arc::clone(&stats));
        let handover = Arc::new(handover);
        let shared = Arc::new(Shared {
            queue: Mutex::new(Queue { pending: VecDeque::new(), frame_bytes: 0, closing: false }),
            arrived: Condvar::new(),
            room: Arc::new(Semaphore::new(config.queue_max_bytes.min(Semaphore::MAX_PERMITS))),
            handover: Arc::clone(&handover),
            stats,
        });
        let committer = Committer { wal, shared: Arc::clone(&shared), last_sync: Instant::now(), refusing: false };
        let consumer = Consumer::new(handover, Arc::clone(&disk), dir.clone());
        (Self { shared, thread: Mutex::new(None), disk, dir, segments, config }, committer, consumer)
    }

    /// Runs the committer of this log on a thread, which ends with the log.
    ///
    /// # Errors
    /// When the thread cannot be started.
    pub fn spawn(&self, committer: Committer<T>) -> io::Result<()> {
        let thread = thread::Builder::new().name("wal-commit".to_owned()).spawn(move || committer.run())?;
        *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        Ok(())
    }

    /// Logs a record and returns where, once it is as durable as the sync policy promises.
    /// `attachment` travels with it to the consumer; it takes `attachment_bytes` of memory, which is
    /// charged while it waits here and there.
    ///
    /// Dropping the future does not take the record back: it may be logged and handed over.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was logged then.
    pub async fn append(
        &self,
        record: Record,
        attachment: T,
        attachment_bytes: usize,
    ) -> Result<WalPosition, AppendError> {
        self.append_and_wait(record, attachment, attachment_bytes, true).await
    }

    /// The same for what nobody is told of, such as a scraped page: returns once it is written,
    /// whatever the policy. A killed process does not lose it, nor does a power cut once something
    /// later was synced or [`WalConfig::lazy_sync`] has passed.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was logged then.
    pub async fn append_lazily(
        &self,
        record: Record,
        attachment: T,
        attachment_bytes: usize,
    ) -> Result<WalPosition, AppendError> {
        self.append_and_wait(record, attachment, attachment_bytes, false).await
    }

    async fn append_and_wait(
        &self,
        record: Record,
        attachment: T,
        attachment_bytes: usize,
        awaits_sync: bool,
    ) -> Result<WalPosition, AppendError> {
        self.check_length(&record)?;
        let room = self.wait_for_room(&record, attachment_bytes).await?;
        let answer = self.enqueue(record, attachment, attachment_bytes, awaits_sync, Some(room))?;
        answer.await.unwrap_or(Err(AppendError::Closed))
    }

    /// The same for the process's own records, such as seal intents, from a thread that may block.
    /// They are few and small and do not wait for room behind the senders.
    ///
    /// # Errors
    /// See [`AppendError`]; nothing was logged then.
    pub fn append_blocking(
        &self,
        record: Record,
        attachment: T,
        attachment_bytes: usize,
    ) -> Result<WalPosition, AppendError> {
        self.check_length(&record)?;
        let answer = self.enqueue(record, attachment, attachment_bytes, true, None)?;
        answer.blocking_recv().unwrap_or(Err(AppendError::Closed))
    }

    /// After the last committed record.
    #[must_use]
    pub fn end(&self) -> WalPosition {
        self.shared.handover.committed_end()
    }

    /// Whether the consumer reads from the files. What is attached meanwhile is thrown away, so a
    /// receiver may spare itself the work of preparing it.
    #[must_use]
    pub fn is_lagging(&self) -> bool {
        self.shared.handover.is_lagging()
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> &Arc<WalStats> {
        &self.shared.stats
    }

    /// The directory of the files.
    #[must_use]
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Removes segments all of whose records are before `position`, which must come from
    /// [`super::cut_point`]. Does file system work: not for a reactor thread.
    ///
    /// # Errors
    /// Those of the disk; nothing that was kept is harmed.
    pub fn cut_before(&self, position: WalPosition) -> io::Result<u64> {
        self.segments.cut_before(self.disk.as_ref(), position)
    }

    /// Refuses new appends, commits those that wait, syncs, and ends the thread. The consumer still
    /// gets everything. Blocks.
    ///
    /// # Errors
    /// When the last sync failed.
    pub fn close(&self) -> Result<(), WriteError> {
        self.shared.refuse_new();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let joined = thread.map(JoinHandle::join);
        match joined {
            None => Ok(()),
            Some(Ok(outcome)) => outcome,
            Some(Err(_)) => Err(WriteError::Io(io::Error::other("the commit thread panicked"))),
        }
    }

    fn check_length(&self, record: &Record) -> Result<(), AppendError> {
        let (bytes, max_bytes) = (record.frame_bytes(), self.config.record_max_bytes());
        if bytes > max_bytes {
            add(&self.shared.stats.refused_too_large, 1);
            return Err(AppendError::TooLarge { bytes, max_bytes });
        }
        Ok(())
    }

    async fn wait_for_room(
        &self,
        record: &Record,
        attachment_bytes: usize,
    ) -> Result<OwnedSemaphorePermit, AppendError> {
        // What is larger than the queue waits until the queue is empty.
        let bytes = record.frame_bytes().saturating_add(attachment_bytes as u64).saturating_add(PENDING_OVERHEAD_BYTES);
        let permits = bytes.min(self.config.queue_max_bytes as u64);
        let permits = u32::try_from(permits).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.shared.room).acquire_many_owned(permits);
        match tokio::time::timeout(self.config.queue_wait, room).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(AppendError::Closed),
            Err(_) => {
                add(&self.shared.stats.refused_overloaded, 1);
                Err(AppendError::Overloaded { retry_after: self.config.retry_after })
            }
        }
    }

    fn enqueue(
        &self,
        record: Record,
        attachment: T,
        attachment_bytes: usize,
        awaits_sync: bool,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<oneshot::Receiver<Result<WalPosition, AppendError>>, AppendError> {
        let (reply, answer) = oneshot::channel();
        let frame_bytes = record.frame_bytes();
        let since = Instant::now();
        let pending = Pending { record, attachment, attachment_bytes, reply, awaits_sync, since, _room: room };
        let mut queue = self.shared.queue();
        if queue.closing {
            return Err(AppendError::Closed);
        }
        queue.pending.push_back(pending);
        queue.frame_bytes += frame_bytes;
        set(&self.shared.stats.queued_bytes, queue.frame_bytes);
        drop(queue);
        self.shared.arrived.notify_one();
        Ok(answer)
    }
}

impl<T> Drop for CommitLog<T> {
    fn drop(&mut self) {
        self.shared.refuse_new();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Err(_)) = thread.map(JoinHandle::join) {
            tracing::error!("the commit thread of the write-ahead log panicked");
        }
    }
}

impl<T> Shared<T> {
    fn queue(&self) -> MutexGuard<'_, Queue<T>> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse_new(&self) {
        self.queue().closing = true;
        self.room.close();
        self.arrived.notify_all();
    }

    /// Waits for the next group. `wake_at` bounds the wait.
    fn next_work(&self, config: &WalConfig, previous_records: usize, wake_at: Option<Instant>) -> Work<T> {
        let mut queue = self.queue();
        loop {
            let now = Instant::now();
            let Some(oldest) = queue.pending.front() else {
                if queue.closing {
                    return Work::Finished;
                }
                let left = wake_at.map(|at| at.saturating_duration_since(now));
                if left.is_some_and(|left| left.is_zero()) {
                    return Work::SyncDue;
                }
                queue = self.wait(queue, left);
                continue;
            };
            let gathering = Gathering {
                records: queue.pending.len(),
                bytes: queue.frame_bytes,
                oldest_waited: now.saturating_duration_since(oldest.since),
                previous_records,
            };
            match decide(gathering, config.group_window, config.group_max_bytes) {
                Decision::Wait(left) if !queue.closing => queue = self.wait(queue, Some(left)),
                _ => return Work::Group(self.take_group(&mut queue, config.group_max_bytes)),
            }
        }
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue<T>>, left: Option<Duration>) -> MutexGuard<'a, Queue<T>> {
        match left {
            None => self.arrived.wait(queue).unwrap_or_else(PoisonError::into_inner),
            Some(left) => self.arrived.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0,
        }
    }

    /// From the oldest on, as many as make up a group, at least one.
    fn take_group(&self, queue: &mut Queue<T>, max_bytes: u64) -> VecDeque<Pending<T>> {
        let mut bytes = 0;
        let mut records = 0;
        for pending in &queue.pending {
            let more = bytes + pending.record.frame_bytes();
            if records > 0 && more > max_bytes {
                break;
            }
            bytes = more;
            records += 1;
        }
        let rest = queue.pending.split_off(records);
        queue.frame_bytes -= bytes;
        set(&self.stats.queued_bytes, queue.frame_bytes);
        std::mem::replace(&mut queue.pending, rest)
    }
}

enum Work<T> {
    Group(VecDeque<Pending<T>>),
    SyncDue,
    Finished,
}

/// Takes groups of records from the queue, writes and syncs them, and answers: what the commit
/// thread runs.
pub struct Committer<T> {
    wal: Wal,
    shared: Arc<Shared<T>>,
    last_sync: Instant,
    /// Whether the last group was refused for want of space; logged when it changes.
    refusing: bool,
}

impl<T> Committer<T> {
    /// Commits until the log is closed, then syncs. Blocks.
    ///
    /// # Errors
    /// When the last sync failed.
    pub fn run(mut self) -> Result<(), WriteError> {
        let _ending = Ending(Arc::clone(&self.shared));
        let config = self.wal.config().clone();
        let mut previous_records = 0;
        loop {
            match self.shared.next_work(&config, previous_records, self.sync_due(&config)) {
                Work::Group(group) => {
                    previous_records = group.len();
                    self.commit(group, &config);
                }
                Work::SyncDue => {}
                Work::Finished => break,
            }
            if self.sync_due(&config).is_some_and(|at| at <= Instant::now()) {
                self.sync_late();
            }
        }
        self.wal.close()
    }

    /// Commits what waits, without waiting for more.
    pub fn commit_waiting(&mut self) {
        let config = self.wal.config().clone();
        loop {
            let mut queue = self.shared.queue();
            if queue.pending.is_empty() {
                return;
            }
            let group = self.shared.take_group(&mut queue, config.group_max_bytes);
            drop(queue);
            self.commit(group, &config);
        }
    }

    /// When the policy wants the next sync; `None` when there is nothing to sync, or it wants none.
    fn sync_due(&self, config: &WalConfig) -> Option<Instant> {
        let interval = match config.sync {
            SyncPolicy::Always => config.lazy_sync,
            SyncPolicy::Interval(interval) => interval,
            SyncPolicy::Never => return None,
        };
        self.wal.is_dirty().then(|| self.last_sync + interval)
    }

    fn sync_late(&mut self) {
        self.last_sync = Instant::now();
        if let Err(error) = self.wal.sync() {
            tracing::error!(%error, "records acknowledged before their sync may not survive a power cut");
        }
    }

    /// Writes a group, one segment after the other, and answers it.
    fn commit(&mut self, mut group: VecDeque<Pending<T>>, config: &WalConfig) {
        while !group.is_empty() {
            let records: Vec<&Record> = group.iter().map(|pending| &pending.record).collect();
            match self.wal.write(&records) {
                Ok(appended) => {
                    let written: Vec<Pending<T>> = group.drain(..appended.len()).collect();
                    match self.make_durable(&written, config) {
                        Ok(()) => self.acknowledge(written, appended),
                        Err(cause) => self.refuse(written, cause, config),
                    }
                }
                Err(failure) => {
                    let failed = group.drain(..failure.records).collect();
                    self.refuse(failed, failure.cause, config);
                }
            }
        }
    }

    /// Syncs what was written if the policy wants that and somebody waits for it.
    fn make_durable(&mut self, written: &[Pending<T>], config: &WalConfig) -> Result<(), WriteError> {
        if config.sync == SyncPolicy::Always && written.iter().any(|pending| pending.awaits_sync) {
            self.last_sync = Instant::now();
            return self.wal.sync();
        }
        self.wal.promise();
        Ok(())
    }

    fn acknowledge(&mut self, written: Vec<Pending<T>>, appended: Vec<Appended>) {
        if std::mem::take(&mut self.refusing) {
            tracing::info!("the write-ahead log accepts records again");
        }
        let stats = &self.shared.stats;
        add(&stats.groups, 1);
        add(&stats.appended_records, appended.len() as u64);
        let mut batch = Vec::with_capacity(appended.len());
        let mut replies = Vec::with_capacity(appended.len());
        for (pending, appended) in written.into_iter().zip(appended) {
            add(&stats.appended_bytes, pending.record.frame_bytes());
            let Pending { record, attachment, attachment_bytes, reply, .. } = pending;
            let Record { kind, encoding, tenant, arrival, .. } = record;
            batch.push(Published { appended, kind, encoding, tenant, arrival, attachment, attachment_bytes });
            replies.push((reply, appended.position));
        }
        self.shared.handover.publish(batch);
        for (reply, position) in replies {
            // Whoever asked may have gone; the record stays.
            drop(reply.send(Ok(position)));
        }
    }

    fn refuse(&mut self, failed: Vec<Pending<T>>, cause: WriteError, config: &WalConfig) {
        let (records, stats) = (failed.len() as u64, &self.shared.stats);
        let error = match cause {
            WriteError::OutOfSpace(cause) => {
                add(&stats.refused_out_of_space, records);
                if !std::mem::replace(&mut self.refusing, true) {
                    tracing::error!(cause, "the write-ahead log refuses records until space is freed");
                }
                AppendError::OutOfSpace { retry_after: config.retry_after, cause }
            }
            WriteError::Io(error) => {
                add(&stats.refused_io, records);
                tracing::error!(%error, records, "records could not be logged");
                AppendError::Io(Arc::new(error))
            }
        };
        for pending in failed {
            drop(pending.reply.send(Err(error.clone())));
        }
    }
}

/// However the thread ends, nobody waits for it any longer.
struct Ending<T>(Arc<Shared<T>>);

impl<T> Drop for Ending<T> {
    fn drop(&mut self) {
        self.0.refuse_new();
        let abandoned = std::mem::take(&mut self.0.queue().pending);
        drop(abandoned);
        self.0.handover.close();
    }
}

impl<T> fmt::Debug for Committer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Committer").field("wal", &self.wal).finish_non_exhaustive()
    }
}

impl<T> fmt::Debug for CommitLog<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitLog").field("dir", &self.dir).finish_non_exhaustive()
    }
}
