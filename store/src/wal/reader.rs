//! Reading records back from a position, segment after segment; [`super::scan`] reads one.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::frame::{HeaderError, SEGMENT_HEADER_BYTES, SegmentHeader};
use super::scan::{Item, Scanner};
use super::segments::{Limit, Survey};
use super::stats::{WalStats, add};
use super::{Damage, DamageReason, StoredRecord, WalPosition};
use crate::disk::Disk;

/// Damages remembered one by one; beyond it they are only counted.
const DAMAGES_KEPT_MAX: usize = 64;

/// Reads records in log order. Needs no lock: the files of a stopped or a running log can be read,
/// of a running one up to a position that is known to be committed.
#[derive(Debug)]
pub struct WalReader {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    cursor: WalPosition,
    until: Option<WalPosition>,
    segment: Option<Scanner>,
    finished: u64,
    damages: Vec<Damage>,
    stats: Option<Arc<WalStats>>,
}

impl WalReader {
    /// Reads from `from` (a position a record started or ended at, or [`WalPosition::START`]) to
    /// `until`, or to the last good record when that is `None`.
    #[must_use]
    pub fn read_from(disk: Arc<dyn Disk>, dir: &Path, from: WalPosition, until: Option<WalPosition>) -> Self {
        let dir = dir.to_owned();
        Self { disk, dir, cursor: from, until, segment: None, finished: 0, damages: Vec::new(), stats: None }
    }

    pub(crate) fn counting(mut self, stats: Arc<WalStats>) -> Self {
        self.stats = Some(stats);
        self
    }

    /// Moves the end further; it never moves back.
    pub(crate) fn extend(&mut self, until: WalPosition) {
        self.until = Some(until);
        match &mut self.segment {
            Some(segment) if segment.number() == until.segment => segment.limit = Limit::committed(until),
            // By now a later header says where it ends: open it again.
            _ => self.segment = None,
        }
    }

    /// The next record, `None` at the end.
    ///
    /// # Errors
    /// When the disk fails, or a segment was written by a newer version. Calling again tries the
    /// same place again.
    pub fn next_record(&mut self) -> io::Result<Option<StoredRecord>> {
        loop {
            if self.segment.is_none() && !self.open_next()? {
                return Ok(None);
            }
            let Some(segment) = &mut self.segment else { return Ok(None) };
            match segment.next()? {
                Some(Item::Record(record)) => {
                    self.cursor = record.after;
                    return Ok(Some(record));
                }
                Some(Item::Damage(damage)) => self.report(damage),
                None => {
                    let (number, end) = (segment.number(), segment.end());
                    self.cursor = self.cursor.max(WalPosition::new(number, end));
                    if self.until.is_some_and(|until| until.segment == number) {
                        return Ok(None);
                    }
                    self.finished = number;
                    self.segment = None;
                }
            }
        }
    }

    /// Gives up on the rest of the current segment.
    pub(crate) fn skip_segment(&mut self) {
        let next = self.cursor.segment.max(self.finished + 1);
        let number = self.segment.take().map_or(next, |segment| segment.number());
        let position = self.cursor.max(WalPosition::new(number, SEGMENT_HEADER_BYTES));
        self.report(Damage { position, bytes: 0, reason: DamageReason::Unreadable });
        match self.until {
            Some(until) if until.segment == number => self.cursor = until,
            _ => {
                self.finished = number;
                self.cursor = WalPosition::new(number, u64::MAX);
            }
        }
    }

    /// Everything before this has been read.
    #[must_use]
    pub fn position(&self) -> WalPosition {
        self.cursor
    }

    /// What had to be skipped so far; the first few of them.
    #[must_use]
    pub fn damages(&self) -> &[Damage] {
        &self.damages
    }

    /// Opens the next segment; false when there is none.
    fn open_next(&mut self) -> io::Result<bool> {
        let disk = Arc::clone(&self.disk);
        let survey = Survey::take(disk.as_ref(), &self.dir)?;
        let wanted = self.cursor.segment.max(self.finished + 1);
        for (index, file) in survey.segments.iter().enumerate() {
            if file.number < wanted {
                continue;
            }
            if self.until.is_some_and(|until| file.number > until.segment) {
                return Ok(false);
            }
            match file.header(disk.as_ref())? {
                Ok(header) => {
                    let limit = match self.until {
                        Some(until) if until.segment == file.number => Limit::committed(until),
                        _ => survey.limit(disk.as_ref(), index)?,
                    };
                    self.note_missing(&header);
                    let start = if file.number == self.cursor.segment { self.cursor.offset } else { 0 };
                    self.segment = Some(Scanner::open(disk.as_ref(), file, &header, start, limit)?);
                    return Ok(true);
                }
                Err(error @ HeaderError::NewerVersion(_)) => return Err(io::Error::other(error)),
                Err(HeaderError::Damaged) => {
                    if survey.may_hold_records(disk.as_ref(), index)? {
                        let position = WalPosition::new(file.number, 0);
                        let bytes = file.file_bytes;
                        self.report(Damage { position, bytes, reason: DamageReason::SegmentHeader });
                        self.cursor = WalPosition::new(file.number, file.file_bytes);
                    }
                    self.finished = file.number;
                }
            }
        }
        Ok(false)
    }

    /// Records between the cursor and where this segment says its predecessor ends are gone.
    fn note_missing(&mut self, header: &SegmentHeader) {
        if self.cursor.segment > 0 && header.previous_end > self.cursor {
            let bytes = header.previous_end.offset.saturating_sub(SEGMENT_HEADER_BYTES);
            self.report(Damage { position: self.cursor, bytes, reason: DamageReason::MissingSegment });
            self.cursor = header.previous_end;
        }
    }

    fn report(&mut self, damage: Damage) {
        tracing::warn!(
            position = %damage.position, bytes = damage.bytes, reason = %damage.reason,
            "skipped an unreadable place in the write-ahead log"
        );
        if let Some(stats) = &self.stats {
            if damage.reason.is_loss() {
                add(&stats.damaged_places, 1);
                add(&stats.damaged_bytes, damage.bytes);
            } else {
                add(&stats.torn_bytes, damage.bytes);
            }
        }
        if self.damages.len() < DAMAGES_KEPT_MAX {
            self.damages.push(damage);
        }
    }
}
