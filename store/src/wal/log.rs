//! The writer: recovery on open, then groups of records, one write and one sync each.
//!
//! One thread owns a [`Wal`]; it knows nothing of queues or callers. A group never spans two
//! segments, so that a failed sync concerns exactly the records of one call of [`Wal::write`].

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use windrose_proto::time::Clock;

use super::frame::{
    HeaderError, RECORD_HEADER_BYTES, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader, TERMINATOR_BYTES,
};
use super::scan::{Item, Scanner};
use super::segments::{Limit, SegmentFile, Segments, Survey, segment_path};
use super::stats::{WalStats, add};
use super::{Damage, DamageReason, Record, WalConfig, WalPosition};
use crate::disk::{Access, Disk, DiskFile, DiskLock, LockError};

/// Name of the lock file.
const LOCK_FILE: &str = "LOCK";

/// What pads records and ends groups.
const ZEROS: [u8; 8] = [0; 8];

/// Why a log could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The settings cannot work.
    #[error("invalid wal settings: {0}")]
    Config(String),
    /// Somebody else uses the directory.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A segment was written by a newer Windrose.
    #[error("{}: {error}; start the newer version, or let it drain the log before going back", path.display())]
    Newer {
        /// The segment.
        path: PathBuf,
        /// The versions.
        error: HeaderError,
    },
    /// The file system refused.
    #[error("cannot {action} the write-ahead log in {}", dir.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        dir: PathBuf,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
}

/// What was found on opening.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Start of the oldest segment; `None` when the log is empty.
    pub oldest: Option<WalPosition>,
    /// After the last good record.
    pub end: WalPosition,
    /// Segments there.
    pub segments: u64,
    /// Bytes of records between `oldest` and `end`.
    pub bytes: u64,
    /// Bytes cut off the end: writes that were never finished, hence never acknowledged.
    pub torn_bytes: u64,
    /// What cannot be read in the newest segment, and segments without a header; other damage is
    /// found when it is read.
    pub damages: Vec<Damage>,
}

/// Where an appended record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Where it starts.
    pub position: WalPosition,
    /// Where what follows it starts.
    pub after: WalPosition,
}

/// Records that could not be written.
#[derive(Debug)]
pub struct WriteFailure {
    /// How many of those passed to [`Wal::write`], from the first; later ones were not tried.
    pub records: usize,
    /// Why.
    pub cause: WriteError,
}

/// Why records could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The budget of the log or the disk is used up.
    #[error("the write-ahead log is full: {0}")]
    OutOfSpace(&'static str),
    /// The disk failed.
    #[error("cannot write the write-ahead log")]
    Io(#[source] io::Error),
}

/// The log, as its one writer sees it.
#[derive(Debug)]
pub struct Wal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    config: WalConfig,
    clock: Arc<dyn Clock>,
    stats: Arc<WalStats>,
    segments: Arc<Segments>,
    active: Option<Active>,
    /// End of the valid records of the newest sealed segment that has any: the next header says it.
    sealed_end: WalPosition,
    /// Up to where that segment was certainly durable.
    sealed_proven: u64,
    next_number: u64,
    _lock: Box<dyn DiskLock>,
}

/// The segment being written.
#[derive(Debug)]
struct Active {
    number: u64,
    seed: u32,
    file: Box<dyn DiskFile>,
    written: u64,
    durable: u64,
    /// Up to here records are acknowledged, whether durable or not: an error must not cut them off.
    promised: u64,
}

// ── opening ────────────────────────────────────────────────────────────────────────────────────

impl Wal {
    /// Locks `dir` and finds the end of the log. Costs one pass over the newest segment; older
    /// ones are not read.
    ///
    /// # Errors
    /// When another process has the directory, a segment is of a newer version, or the disk fails.
    pub fn open(
        disk: Arc<dyn Disk>,
        dir: &Path,
        config: WalConfig,
        clock: Arc<dyn Clock>,
    ) -> Result<(Self, Recovery), OpenError> {
        config.validate().map_err(OpenError::Config)?;
        let failed = |action| move |source| OpenError::Io { action, dir: dir.to_owned(), source };
        disk.create_dir_all(dir).map_err(failed("create"))?;
        let lock = disk.lock(&dir.join(LOCK_FILE))?;
        let mut survey = Survey::take(disk.as_ref(), dir).map_err(failed("list"))?;
        let stats = Arc::new(WalStats::default());
        let free = std::mem::take(&mut survey.free);
        let segments = Segments::new(dir, config.segment_bytes, free, Arc::clone(&stats));
        let mut wal = Self {
            disk,
            dir: dir.to_owned(),
            config,
            clock,
            stats,
            segments: Arc::new(segments),
            active: None,
            sealed_end: WalPosition::START,
            sealed_proven: 0,
            next_number: survey.segments.last().map_or(1, |newest| newest.number + 1),
            _lock: lock,
        };
        let recovery = wal.recover(&survey)?;
        Ok((wal, recovery))
    }

    /// Makes sure that new positions are after `floor`. For a data directory whose log was removed
    /// while its tables remember how far they had committed.
    pub(crate) fn start_after(&mut self, floor: WalPosition) {
        self.next_number = self.next_number.max(floor.segment.saturating_add(1));
    }

    fn recover(&mut self, survey: &Survey) -> Result<Recovery, OpenError> {
        let mut recovery = Recovery::default();
        for (index, file) in survey.segments.iter().enumerate() {
            let header = file.header(self.disk.as_ref()).map_err(|source| self.failed("read", source))?;
            let (end, proven) = match header {
                Ok(header) => self.find_end(survey, index, &header, &mut recovery)?,
                Err(error @ HeaderError::NewerVersion(_)) => {
                    return Err(OpenError::Newer { path: file.path.clone(), error });
                }
                Err(HeaderError::Damaged) => self.end_without_header(survey, index, &mut recovery)?,
            };
            let is_newest = index + 1 == survey.segments.len();
            let file_bytes = if is_newest { end.min(file.file_bytes) } else { file.file_bytes };
            self.segments.push(file.number, end, file_bytes);
            if end > SEGMENT_HEADER_BYTES {
                self.sealed_end = WalPosition::new(file.number, end);
                self.sealed_proven = proven;
            }
        }
        recovery.oldest = self.segments.oldest();
        recovery.end = self.end();
        recovery.segments = survey.segments.len() as u64;
        recovery.bytes = self.segments.bytes_between(WalPosition::START, recovery.end);
        Ok(recovery)
    }

    /// A segment without a header is kept, all of it, when it may have held records: readers report
    /// it. The newest one, when it was never started, gives its space back and keeps its number.
    fn end_without_header(
        &self,
        survey: &Survey,
        index: usize,
        recovery: &mut Recovery,
    ) -> Result<(u64, u64), OpenError> {
        let file = &survey.segments[index];
        let is_newest = index + 1 == survey.segments.len();
        let may_hold_records = survey.may_hold_records(self.disk.as_ref(), index);
        if may_hold_records.map_err(|source| self.failed("read", source))? {
            let (position, bytes) = (WalPosition::new(file.number, 0), file.file_bytes);
            recovery.damages.push(Damage { position, bytes, reason: DamageReason::SegmentHeader });
            return Ok((file.file_bytes, 0));
        }
        if is_newest {
            self.cut_tail(file, 0).map_err(|source| self.failed("clean up", source))?;
        }
        Ok((0, 0))
    }

    /// Where the records of a segment end, and up to where they were certainly durable.
    fn find_end(
        &self,
        survey: &Survey,
        index: usize,
        header: &SegmentHeader,
        recovery: &mut Recovery,
    ) -> Result<(u64, u64), OpenError> {
        let file = &survey.segments[index];
        let limit = survey.limit(self.disk.as_ref(), index).map_err(|source| self.failed("read", source))?;
        if let Limit::At { end, proven } = limit {
            return Ok((end, proven));
        }
        let (end, proven) = self.scan_tail(file, header, recovery).map_err(|source| self.failed("read", source))?;
        // Newer segments that were never started do not make this one's records durable.
        let is_newest = index + 1 == survey.segments.len();
        let kept = if is_newest { end } else { file.file_bytes };
        self.cut_tail(file, kept).map_err(|source| self.failed("cut the torn end of", source))?;
        Ok((end, proven))
    }

    /// Reads the newest segment to its last good record.
    fn scan_tail(&self, file: &SegmentFile, header: &SegmentHeader, recovery: &mut Recovery) -> io::Result<(u64, u64)> {
        let mut scanner = Scanner::open(self.disk.as_ref(), file, header, 0, Limit::LastGood)?;
        while let Some(item) = scanner.next()? {
            match item {
                Item::Record(_) => {}
                Item::Damage(damage) if damage.reason.is_loss() => recovery.damages.push(damage),
                Item::Damage(damage) => recovery.torn_bytes += damage.bytes,
            }
        }
        add(&self.stats.torn_bytes, recovery.torn_bytes);
        Ok((scanner.end(), scanner.proven()))
    }

    /// Removes what follows the last good record, and makes what precedes it durable: it will be
    /// processed from now on, so it must not vanish in the next power cut.
    fn cut_tail(&self, file: &SegmentFile, end: u64) -> io::Result<()> {
        let handle = self.disk.open(&file.path, Access::ReadWrite)?;
        if file.file_bytes > end {
            handle.truncate(end)?;
        }
        handle.sync_data()
    }

    fn failed(&self, action: &'static str, source: io::Error) -> OpenError {
        OpenError::Io { action, dir: self.dir.clone(), source }
    }
}

// ── writing ────────────────────────────────────────────────────────────────────────────────────

impl Wal {
    /// Writes as many of `records`, from the first, as fit into one segment, and returns where
    /// they are: at least one. They are durable after [`Wal::sync`].
    ///
    /// # Errors
    /// The failed records are not in the log, and never will be once a later one is durable.
    pub fn write(&mut self, records: &[&Record]) -> Result<Vec<Appended>, WriteFailure> {
        let Some(first) = records.first() else { return Ok(Vec::new()) };
        if first.frame_bytes() > self.config.record_max_bytes() {
            let cause = WriteError::Io(io::ErrorKind::FileTooLarge.into());
            return Err(WriteFailure { records: 1, cause });
        }
        if !self.fits(first.frame_bytes()) {
            self.rotate().map_err(|cause| WriteFailure { records: records.len(), cause })?;
        }
        let active = self.active.as_mut().expect("a segment is active after a rotation");
        let end_max = self.config.segment_bytes - TERMINATOR_BYTES;
        let mut appended = Vec::with_capacity(records.len());
        let mut headers = Vec::with_capacity(records.len());
        let mut at = active.written;
        for record in records {
            let after = at + record.frame_bytes();
            if after > end_max {
                break;
            }
            headers.push(RecordHeader::of(record, active.durable).encode(active.seed, at));
            let position = WalPosition::new(active.number, at);
            appended.push(Appended { position, after: WalPosition::new(active.number, after) });
            at = after;
        }
        let mut slices = gather(&headers, &records[..headers.len()]);
        match active.file.write_at(active.written, &mut slices) {
            Ok(()) => {
                active.written = at;
                self.segments.set_end(at);
                Ok(appended)
            }
            Err(error) => {
                add(&self.stats.write_failures, 1);
                self.abandon();
                Err(WriteFailure { records: appended.len(), cause: out_of_space_or_io(error) })
            }
        }
    }

    /// Makes everything written durable.
    ///
    /// # Errors
    /// What was written since the last sync is then not in the log, or at the mercy of the page
    /// cache when it was acknowledged already ([`Wal::promise`]).
    pub fn sync(&mut self) -> Result<(), WriteError> {
        let Some(active) = &mut self.active else { return Ok(()) };
        if active.durable == active.written {
            return Ok(());
        }
        let started = Instant::now();
        match active.file.sync_data() {
            Ok(()) => {
                self.stats.synced(started.elapsed());
                active.durable = active.written;
                active.promised = active.written;
                Ok(())
            }
            Err(error) => {
                add(&self.stats.fsync_failures, 1);
                self.abandon();
                Err(out_of_space_or_io(error))
            }
        }
    }

    /// Everything written may be acknowledged although it is not durable: an error that follows
    /// does not take it out of the log.
    pub fn promise(&mut self) {
        if let Some(active) = &mut self.active {
            active.promised = active.written;
        }
    }

    /// Appends all of `records` and syncs: for callers with no queue in front.
    ///
    /// # Errors
    /// The first failure; earlier records may then be durable.
    pub fn append_batch(&mut self, records: &[&Record]) -> Result<Vec<Appended>, WriteError> {
        let mut appended = Vec::with_capacity(records.len());
        while appended.len() < records.len() {
            appended.extend(self.write(&records[appended.len()..]).map_err(|failure| failure.cause)?);
            self.sync()?;
        }
        Ok(appended)
    }

    /// Syncs, and gives back what the newest segment had reserved, so that the next start need not
    /// search it.
    ///
    /// # Errors
    /// Those of [`Wal::sync`].
    pub fn close(mut self) -> Result<(), WriteError> {
        self.sync()?;
        if let Some(active) = self.active.take()
            && let Err(error) = active.file.truncate(active.written).and_then(|()| active.file.sync_data())
        {
            tracing::debug!(%error, "the newest segment keeps its reserved length");
        }
        Ok(())
    }

    /// After the last record.
    #[must_use]
    pub fn end(&self) -> WalPosition {
        match &self.active {
            Some(active) if active.written > SEGMENT_HEADER_BYTES => WalPosition::new(active.number, active.written),
            _ => self.sealed_end,
        }
    }

    /// Whether anything waits for a sync.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.active.as_ref().is_some_and(|active| active.durable < active.written)
    }

    /// The counters.
    #[must_use]
    pub fn stats(&self) -> Arc<WalStats> {
        Arc::clone(&self.stats)
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &WalConfig {
        &self.config
    }

    /// Removes segments all of whose records are before `position`; see [`super::cut_point`].
    ///
    /// # Errors
    /// Those of the disk; nothing that was kept is harmed.
    pub fn cut_before(&self, position: WalPosition) -> io::Result<u64> {
        self.segments.cut_before(self.disk.as_ref(), position)
    }

    pub(crate) fn segments(&self) -> Arc<Segments> {
        Arc::clone(&self.segments)
    }

    pub(crate) fn disk(&self) -> Arc<dyn Disk> {
        Arc::clone(&self.disk)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    fn fits(&self, frame_bytes: u64) -> bool {
        let end_max = self.config.segment_bytes - TERMINATOR_BYTES;
        self.active.as_ref().is_some_and(|active| active.written + frame_bytes <= end_max)
    }
}

/// One list of slices for the whole group: headers, tenants, payloads, padding, terminator.
fn gather<'a>(headers: &'a [[u8; RECORD_HEADER_BYTES]], records: &[&'a Record]) -> Vec<IoSlice<'a>> {
    let mut slices = Vec::with_capacity(records.len() * 4 + 1);
    for (header, record) in headers.iter().zip(records) {
        slices.push(IoSlice::new(header));
        slices.push(IoSlice::new(record.tenant.as_str().as_bytes()));
        slices.extend(record.payload.iter().map(|part| IoSlice::new(part)));
        let padding = record.frame_bytes() - RECORD_HEADER_BYTES as u64 - record.body_bytes;
        slices.push(IoSlice::new(&ZEROS[..padding as usize]));
    }
    slices.push(IoSlice::new(&ZEROS[..TERMINATOR_BYTES as usize]));
    slices
}

fn out_of_space_or_io(error: io::Error) -> WriteError {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => WriteError::OutOfSpace("the disk is full"),
        _ => WriteError::Io(error),
    }
}

// ── segments ───────────────────────────────────────────────────────────────────────────────────

impl Wal {
    /// Seals the active segment and starts the next.
    fn rotate(&mut self) -> Result<(), WriteError> {
        if let Err(error) = self.sync() {
            // Unsynced records that get here were promised.
            tracing::error!(%error, "records acknowledged before their sync may not survive a power cut");
        }
        if let Some(active) = self.active.take() {
            self.seal(&active, active.written);
        }
        let (number, file, file_bytes) = self.obtain_file()?;
        let header = SegmentHeader {
            number,
            created: self.clock.now(),
            previous_end: self.sealed_end,
            previous_proven: self.sealed_proven,
        };
        if let Err(error) = self.start(&header, file.as_ref()) {
            drop(file);
            self.discard(number);
            return Err(out_of_space_or_io(error));
        }
        self.segments.push(number, SEGMENT_HEADER_BYTES, file_bytes);
        let (seed, start) = (header.seed(), SEGMENT_HEADER_BYTES);
        self.active = Some(Active { number, seed, file, written: start, durable: start, promised: start });
        Ok(())
    }

    fn start(&self, header: &SegmentHeader, file: &dyn DiskFile) -> io::Result<()> {
        let mut content = [0; (SEGMENT_HEADER_BYTES + TERMINATOR_BYTES) as usize];
        content[..SEGMENT_HEADER_BYTES as usize].copy_from_slice(&header.encode());
        file.write_at(0, &mut [IoSlice::new(&content)])?;
        file.sync_data()?;
        self.disk.sync_dir(&self.dir)
    }

    /// A file for the next segment: a free one, or a new one if budget and disk allow.
    fn obtain_file(&mut self) -> Result<(u64, Box<dyn DiskFile>, u64), WriteError> {
        let number = self.next_number;
        let path = segment_path(&self.dir, number);
        let segment_bytes = self.config.segment_bytes;
        while let Some(free) = self.segments.take_free() {
            if free.file_bytes != segment_bytes {
                self.disk.remove(&free.path).map_err(WriteError::Io)?;
                continue;
            }
            self.next_number += 1;
            self.disk.rename(&free.path, &path).map_err(WriteError::Io)?;
            let file = self.disk.open(&path, Access::ReadWrite).map_err(WriteError::Io)?;
            return Ok((number, file, segment_bytes));
        }
        if self.segments.disk_bytes() + segment_bytes > self.config.max_bytes {
            return Err(WriteError::OutOfSpace("its budget (wal.max_bytes) is used up"));
        }
        // A file system that cannot tell is not taken for full.
        let free_bytes = self.disk.free_bytes(&self.dir).unwrap_or(u64::MAX);
        if free_bytes < segment_bytes.saturating_add(self.config.keep_free_bytes) {
            return Err(WriteError::OutOfSpace("the disk is nearly full (wal.keep_free_bytes)"));
        }
        // Used up even when the creation fails: what it left behind must not be taken for this.
        self.next_number += 1;
        let file = self.disk.create(&path, segment_bytes).map_err(out_of_space_or_io)?;
        Ok((number, file, segment_bytes))
    }

    /// Notes where the valid records of a segment end.
    fn seal(&mut self, active: &Active, end: u64) {
        self.segments.set_end(end);
        if end > SEGMENT_HEADER_BYTES {
            self.sealed_end = WalPosition::new(active.number, end);
            self.sealed_proven = active.durable;
        }
    }

    /// Gives up on the active segment after an error: nothing is appended to it again, and what
    /// was not acknowledged is cut off.
    fn abandon(&mut self) {
        let Some(active) = self.active.take() else { return };
        add(&self.stats.abandoned_segments, 1);
        let end = active.promised;
        tracing::warn!(segment = active.number, end, "gave up on a segment after a disk error");
        if end > active.durable
            && let Err(error) = active.file.sync_data()
        {
            tracing::error!(%error, "records acknowledged before their sync may not survive a power cut");
        }
        if end == SEGMENT_HEADER_BYTES {
            let number = active.number;
            drop(active);
            self.segments.pop();
            self.discard(number);
            return;
        }
        match active.file.truncate(end) {
            Ok(()) => self.segments.set_file_bytes(end),
            // The next segment's header says where this one ends; the cut only saves space.
            Err(error) => tracing::debug!(%error, "an abandoned segment keeps its length"),
        }
        self.seal(&active, end);
    }

    /// Removes the file of a segment that holds nothing.
    fn discard(&self, number: u64) {
        if let Err(error) = self.disk.remove(&segment_path(&self.dir, number)) {
            tracing::debug!(%error, segment = number, "an empty segment stays until the log is opened again");
        }
    }
}
