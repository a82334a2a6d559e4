//! Which segments exist: on disk ([`Survey`]) and in the running log ([`Segments`]).

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::WalPosition;
use super::frame::{HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::scan::is_zero;
use super::stats::{WalStats, add, set};
use crate::disk::{Access, Disk};

/// Cut segments kept to be overwritten: their blocks are already written, so that a sync has no
/// metadata to write. One is in use soon, one more covers a burst.
const FREE_FILES_MAX: usize = 2;

const SEGMENT_PREFIX: &str = "wal-";
const FREE_PREFIX: &str = "free-";
const SUFFIX: &str = ".segment";

/// The file of a segment.
pub(crate) fn segment_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{SEGMENT_PREFIX}{number:020}{SUFFIX}"))
}

fn free_path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{FREE_PREFIX}{number:020}{SUFFIX}"))
}

fn number_in(name: &str, prefix: &str) -> Option<u64> {
    name.strip_prefix(prefix)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// A segment's file.
#[derive(Clone, Debug)]
pub(crate) struct SegmentFile {
    pub(crate) number: u64,
    pub(crate) path: PathBuf,
    pub(crate) file_bytes: u64,
}

impl SegmentFile {
    /// Reads the header.
    pub(crate) fn header(&self, disk: &dyn Disk) -> io::Result<Result<SegmentHeader, HeaderError>> {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        let read = disk.open(&self.path, Access::Read)?.read_at(0, &mut bytes)?;
        Ok(match SegmentHeader::decode(&bytes[..read]) {
            // A reused file whose new header was never written.
            Ok(header) if header.number != self.number => Err(HeaderError::Damaged),
            decoded => decoded,
        })
    }
}

impl SegmentFile {
    /// Whether a file without a readable header was ever in use. It was not when it still has the
    /// header of its former life, or nothing but zeros where records go: the header is synced
    /// before the first record is written.
    fn was_started(&self, disk: &dyn Disk) -> io::Result<bool> {
        let file = disk.open(&self.path, Access::Read)?;
        let mut block = vec![0; 64 << 10];
        let read = file.read_at(0, &mut block[..SEGMENT_HEADER_BYTES as usize])?;
        if SegmentHeader::decode(&block[..read]).is_ok() {
            return Ok(false);
        }
        let mut offset = SEGMENT_HEADER_BYTES;
        loop {
            let read = file.read_at(offset, &mut block)?;
            if read == 0 {
                return Ok(false);
            }
            if !is_zero(&block[..read]) {
                return Ok(true);
            }
            offset += read as u64;
        }
    }
}

/// The files of a log, as they are on disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Survey {
    /// By number.
    pub(crate) segments: Vec<SegmentFile>,
    pub(crate) free: Vec<FreeFile>,
}

/// A file to be overwritten.
#[derive(Clone, Debug)]
pub(crate) struct FreeFile {
    pub(crate) path: PathBuf,
    pub(crate) file_bytes: u64,
}

/// Where the valid records of a segment end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Here: something durable says so, and that everything before `proven` was durable, so that
    /// a gap there is a loss.
    At { end: u64, proven: u64 },
    /// Wherever the last good record ends.
    LastGood,
}

impl Limit {
    /// Read up to here, all of which is committed.
    pub(crate) fn committed(until: WalPosition) -> Self {
        Self::At { end: until.offset, proven: until.offset }
    }
}

impl Survey {
    pub(crate) fn take(disk: &dyn Disk, dir: &Path) -> io::Result<Self> {
        let mut survey = Self::default();
        for entry in disk.list(dir)? {
            let path = dir.join(&entry.name);
            if let Some(number) = number_in(&entry.name, SEGMENT_PREFIX) {
                survey.segments.push(SegmentFile { number, path, file_bytes: entry.len_bytes });
            } else if number_in(&entry.name, FREE_PREFIX).is_some() {
                survey.free.push(FreeFile { path, file_bytes: entry.len_bytes });
            }
        }
        survey.segments.sort_by_key(|segment| segment.number);
        Ok(survey)
    }

    /// Whether the segment at `index`, whose header is not readable, may have held records.
    pub(crate) fn may_hold_records(&self, disk: &dyn Disk, index: usize) -> io::Result<bool> {
        match self.limit(disk, index)? {
            Limit::At { end, .. } => Ok(end > SEGMENT_HEADER_BYTES),
            Limit::LastGood => self.segments[index].was_started(disk),
        }
    }

    /// What the header of a later segment says about the end of the one at `index`.
    pub(crate) fn limit(&self, disk: &dyn Disk, index: usize) -> io::Result<Limit> {
        let number = self.segments[index].number;
        for later in &self.segments[index + 1..] {
            let Ok(header) = later.header(disk)? else { continue };
            let end = header.previous_end;
            return Ok(match end.segment.cmp(&number) {
                std::cmp::Ordering::Equal => Limit::At { end: end.offset, proven: header.previous_proven },
                // The chain passes this one by: it was abandoned before anything in it was acknowledged.
                std::cmp::Ordering::Less => Limit::At { end: SEGMENT_HEADER_BYTES, proven: 0 },
                std::cmp::Ordering::Greater => Limit::LastGood,
            });
        }
        Ok(Limit::LastGood)
    }
}

/// One segment of the running log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    number: u64,
    /// Where its valid records end.
    end: u64,
    file_bytes: u64,
}

/// The segments of the running log, shared between the writer, readers and whoever cuts.
#[derive(Debug)]
pub(crate) struct Segments {
    dir: PathBuf,
    segment_bytes: u64,
    stats: Arc<WalStats>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct Table {
    segments: VecDeque<Segment>,
    free: Vec<FreeFile>,
    disk_bytes: u64,
}

impl Segments {
    pub(crate) fn new(dir: &Path, segment_bytes: u64, free: Vec<FreeFile>, stats: Arc<WalStats>) -> Self {
        let disk_bytes = free.iter().map(|file| file.file_bytes).sum();
        let table = Table { free, disk_bytes, ..Table::default() };
        Self { dir: dir.to_owned(), segment_bytes, stats, table: Mutex::new(table) }
    }

    pub(crate) fn push(&self, number: u64, end: u64, file_bytes: u64) {
        self.edit(|table| {
            table.segments.push_back(Segment { number, end, file_bytes });
            table.disk_bytes += file_bytes;
        });
    }

    /// Moves the end of the newest segment.
    pub(crate) fn set_end(&self, end: u64) {
        self.edit(|table| {
            if let Some(newest) = table.segments.back_mut() {
                newest.end = end;
            }
        });
    }

    /// The newest segment's file has been cut to this length.
    pub(crate) fn set_file_bytes(&self, file_bytes: u64) {
        self.edit(|table| {
            if let Some(newest) = table.segments.back_mut() {
                table.disk_bytes = table.disk_bytes - newest.file_bytes + file_bytes;
                newest.file_bytes = file_bytes;
            }
        });
    }

    /// Forgets the newest segment, whose file is gone.
    pub(crate) fn pop(&self) {
        self.edit(|table| {
            if let Some(newest) = table.segments.pop_back() {
                table.disk_bytes -= newest.file_bytes;
            }
        });
    }

    pub(crate) fn disk_bytes(&self) -> u64 {
        self.table().disk_bytes
    }

    /// A file to overwrite; its bytes are no longer counted.
    pub(crate) fn take_free(&self) -> Option<FreeFile> {
        self.edit(|table| {
            let file = table.free.pop()?;
            table.disk_bytes -= file.file_bytes;
            Some(file)
        })
    }

    /// Start of the oldest segment.
    pub(crate) fn oldest(&self) -> Option<WalPosition> {
        self.table().segments.front().map(|oldest| WalPosition::new(oldest.number, SEGMENT_HEADER_BYTES))
    }

    /// Bytes of records between two positions.
    pub(crate) fn bytes_between(&self, from: WalPosition, to: WalPosition) -> u64 {
        let table = self.table();
        let inside = table.segments.iter().filter(|segment| (from.segment..=to.segment).contains(&segment.number));
        inside
            .map(|segment| {
                let first = if segment.number == from.segment { from.offset } else { SEGMENT_HEADER_BYTES };
                let last = if segment.number == to.segment { to.offset.min(segment.end) } else { segment.end };
                last.saturating_sub(first.max(SEGMENT_HEADER_BYTES))
            })
            .sum()
    }

    /// Removes, or keeps as free files, the segments all of whose records are before `position`.
    /// The newest one always stays. Returns how many went.
    ///
    /// # Errors
    /// The first failure; the segments not yet removed are tried again by the next cut.
    pub(crate) fn cut_before(&self, disk: &dyn Disk, position: WalPosition) -> io::Result<u64> {
        let mut cut = 0;
        while let Some(segment) = self.detach_oldest(position) {
            if let Err(error) = self.release(disk, segment) {
                self.edit(|table| table.segments.push_front(segment));
                return Err(error);
            }
            cut += 1;
            add(&self.stats.cut_segments, 1);
        }
        if cut > 0 {
            disk.sync_dir(&self.dir)?;
        }
        Ok(cut)
    }

    fn detach_oldest(&self, position: WalPosition) -> Option<Segment> {
        self.edit(|table| {
            let oldest = table.segments.front()?;
            let passed = oldest.number < position.segment && table.segments.len() > 1;
            if passed { table.segments.pop_front() } else { None }
        })
    }

    fn release(&self, disk: &dyn Disk, segment: Segment) -> io::Result<()> {
        let path = segment_path(&self.dir, segment.number);
        let keep = segment.file_bytes == self.segment_bytes && self.table().free.len() < FREE_FILES_MAX;
        if keep {
            let free = free_path(&self.dir, segment.number);
            disk.rename(&path, &free)?;
            self.edit(|table| table.free.push(FreeFile { path: free, file_bytes: segment.file_bytes }));
            return Ok(());
        }
        match disk.remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        self.edit(|table| table.disk_bytes -= segment.file_bytes);
        Ok(())
    }

    fn edit<R>(&self, change: impl FnOnce(&mut Table) -> R) -> R {
        let mut table = self.table();
        let result = change(&mut table);
        set(&self.stats.segments, table.segments.len() as u64);
        set(&self.stats.disk_bytes, table.disk_bytes);
        result
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
