//! One segment, record by record, past damage.
//!
//! A body that does not match its checksum costs that record; a damaged record header costs what
//! lies between it and the next header that is valid for its place. What was skipped is reported as
//! a loss when it had been durable, or as torn when it had not: records written later, and the next
//! segment's header, say up to where the segment was durable at their time.
//!
//! Memory: one window of the file, as large as the largest record and bounded by the file.

use std::collections::VecDeque;
use std::io;

use bytes::Bytes;
use windrose_proto::tenant::TenantId;

use super::frame::{
    RECORD_ALIGNMENT, RECORD_HEADER_BYTES, RECORD_MAGIC, RecordHeader, SEGMENT_HEADER_BYTES, SegmentHeader,
    TERMINATOR_BYTES,
};
use super::segments::{Limit, SegmentFile};
use super::{ContentEncoding, Damage, DamageReason, RecordKind, StoredRecord, WalPosition};
use crate::disk::{Access, Disk, DiskFile};

/// How much is read at once: large enough that the call does not count, small against a segment.
const WINDOW_BYTES: usize = 256 << 10;

/// What a segment yields.
#[derive(Debug)]
pub(crate) enum Item {
    Record(StoredRecord),
    Damage(Damage),
}

/// Reads one segment.
#[derive(Debug)]
pub(crate) struct Scanner {
    file: Box<dyn DiskFile>,
    header: SegmentHeader,
    seed: u32,
    offset: u64,
    /// Up to where to read; a reader of a running log moves it.
    pub(crate) limit: Limit,
    file_bytes: u64,
    window: Window,
    /// What is being skipped, until the next good record or the end.
    open_gap: Option<Gap>,
    /// What was skipped, until it is known whether it had been durable.
    gaps: VecDeque<Gap>,
    ready: VecDeque<Item>,
    /// End of the last good record.
    last_good: u64,
    /// Everything before this was durable once: a good record says so.
    proven: u64,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    start: u64,
    end: u64,
    reason: DamageReason,
}

enum Step {
    Record { record: StoredRecord, durable_offset: u64 },
    Bad(DamageReason),
    End { dirty_until: u64 },
}

impl Scanner {
    pub(crate) fn open(
        disk: &dyn Disk,
        segment: &SegmentFile,
        header: &SegmentHeader,
        start: u64,
        limit: Limit,
    ) -> io::Result<Self> {
        let file = disk.open(&segment.path, Access::Read)?;
        let file_bytes = file.len_bytes()?;
        let offset = start.max(SEGMENT_HEADER_BYTES);
        Ok(Self {
            file,
            header: *header,
            seed: header.seed(),
            offset,
            limit,
            file_bytes,
            window: Window::default(),
            open_gap: None,
            gaps: VecDeque::new(),
            ready: VecDeque::new(),
            last_good: offset,
            proven: offset,
        })
    }

    pub(crate) fn number(&self) -> u64 {
        self.header.number
    }

    /// Where the records end; meaningful once [`Scanner::next`] has returned `None`.
    pub(crate) fn end(&self) -> u64 {
        match self.limit {
            Limit::At { end, .. } => end,
            Limit::LastGood => self.last_good,
        }
    }

    /// Up to where the segment is known to have been durable; meaningful at the end, too.
    pub(crate) fn proven(&self) -> u64 {
        match self.limit {
            Limit::At { proven, .. } => proven,
            Limit::LastGood => self.proven,
        }
    }

    /// No record reaches beyond this.
    fn bound(&self) -> u64 {
        match self.limit {
            Limit::At { end, .. } => end.min(self.file_bytes),
            Limit::LastGood => self.file_bytes,
        }
    }

    pub(crate) fn next(&mut self) -> io::Result<Option<Item>> {
        loop {
            if let Some(item) = self.ready.pop_front() {
                return Ok(Some(item));
            }
            let at = self.offset;
            match self.step()? {
                Step::Record { record, durable_offset } => {
                    self.last_good = record.after.offset;
                    self.proven = self.proven.max(durable_offset);
                    self.close_gap(record.position.offset);
                    self.report_gaps(self.proven, false);
                    self.ready.push_back(Item::Record(record));
                }
                Step::Bad(reason) => {
                    self.open_gap.get_or_insert(Gap { start: at, end: at, reason });
                }
                Step::End { dirty_until } => {
                    self.close_gap(dirty_until);
                    self.report_gaps(self.proven(), true);
                    if self.ready.is_empty() {
                        return Ok(None);
                    }
                }
            }
        }
    }

    fn close_gap(&mut self, end: u64) {
        self.gaps.extend(self.open_gap.take().map(|gap| Gap { end, ..gap }));
    }

    /// Reports what was skipped: as a loss where it is proven to have been durable, and at the end
    /// of the segment the rest as torn.
    fn report_gaps(&mut self, proven: u64, is_end: bool) {
        while let Some(gap) = self.gaps.pop_front_if(|gap| is_end || gap.start < proven) {
            let is_loss = gap.start < proven || gap.reason == DamageReason::UnknownKind;
            let reason = if is_loss { gap.reason } else { DamageReason::Torn };
            let position = WalPosition::new(self.number(), gap.start);
            let bytes = gap.end.saturating_sub(gap.start);
            self.ready.push_back(Item::Damage(Damage { position, bytes, reason }));
        }
    }

    fn step(&mut self) -> io::Result<Step> {
        let (at, bound) = (self.offset, self.bound());
        let room = bound.saturating_sub(at);
        if room < RECORD_HEADER_BYTES as u64 {
            return Ok(self.finish(at));
        }
        let bytes = self.window.read(self.file.as_ref(), at, RECORD_HEADER_BYTES, bound)?;
        let header = RecordHeader::decode(bytes, self.seed, at);
        let Some(header) = header.filter(|header| header.frame_bytes() <= room) else {
            return self.find_next();
        };
        self.read_body(&header)
    }

    fn read_body(&mut self, header: &RecordHeader) -> io::Result<Step> {
        let (at, bound) = (self.offset, self.bound());
        let body_bytes = header.body_bytes as usize;
        let start = at + RECORD_HEADER_BYTES as u64;
        let body = self.window.read(self.file.as_ref(), start, body_bytes, bound)?;
        let step = if body.len() < body_bytes || crc32c::crc32c(body) != header.body_crc {
            Step::Bad(DamageReason::RecordBody)
        } else {
            interpret(self.header.number, at, header, body)
        };
        self.offset = at + header.frame_bytes();
        Ok(step)
    }

    /// Looks for the next header that is valid for its place.
    fn find_next(&mut self) -> io::Result<Step> {
        let (at, bound) = (self.offset, self.bound());
        let head = self.window.read(self.file.as_ref(), at, TERMINATOR_BYTES as usize, bound)?;
        let terminated = head.iter().all(|byte| *byte == 0);
        let mut dirty_until = if terminated { at } else { at + RECORD_ALIGNMENT };
        let mut probe = at + RECORD_ALIGNMENT;
        while probe + RECORD_HEADER_BYTES as u64 <= bound {
            let want = WINDOW_BYTES.min((bound - probe) as usize);
            let bytes = self.window.read(self.file.as_ref(), probe, want, bound)?;
            if bytes.len() < RECORD_HEADER_BYTES {
                break;
            }
            let found = find_header(bytes, self.seed, probe);
            if let Some(found) = found {
                self.offset = probe + found as u64;
                return Ok(Step::Bad(DamageReason::RecordHeader));
            }
            if let Some(last) = last_non_zero(bytes) {
                dirty_until = probe + last as u64 + 1;
            }
            // Step back so that a header across two windows is seen whole.
            let passed = (bytes.len() - RECORD_HEADER_BYTES) as u64 + RECORD_ALIGNMENT;
            probe += passed - passed % RECORD_ALIGNMENT;
        }
        self.stop();
        // A terminator ends the last group; what lies beyond it in a reused file is old.
        if terminated && self.limit == Limit::LastGood {
            return Ok(self.finish(at));
        }
        let dirty_until = if self.limit == Limit::LastGood { dirty_until } else { self.end() };
        self.open_gap.get_or_insert(Gap { start: at, end: at, reason: DamageReason::RecordHeader });
        Ok(Step::End { dirty_until })
    }

    /// Moves to the end, so that what is missing there is reported once.
    fn stop(&mut self) {
        self.offset = match self.limit {
            Limit::At { end, .. } => end,
            Limit::LastGood => self.file_bytes,
        };
    }

    /// Nothing more can start here.
    fn finish(&mut self, at: u64) -> Step {
        self.stop();
        if let Limit::At { end, .. } = self.limit
            && at < end
        {
            self.open_gap.get_or_insert(Gap { start: at, end: at, reason: DamageReason::RecordHeader });
            return Step::End { dirty_until: end };
        }
        Step::End { dirty_until: at }
    }
}

/// Makes a record of a verified body.
fn interpret(segment: u64, at: u64, header: &RecordHeader, body: &[u8]) -> Step {
    let tenant = body.get(..usize::from(header.tenant_bytes)).and_then(|name| std::str::from_utf8(name).ok());
    let tenant = tenant.and_then(|name| TenantId::new(name).ok());
    let kind = RecordKind::from_byte(header.kind);
    let encoding = ContentEncoding::from_byte(header.encoding);
    let (Some(tenant), Some(kind), Some(encoding)) = (tenant, kind, encoding) else {
        return Step::Bad(DamageReason::UnknownKind);
    };
    let record = StoredRecord {
        position: WalPosition::new(segment, at),
        after: WalPosition::new(segment, at + header.frame_bytes()),
        kind,
        encoding,
        tenant,
        arrival: header.arrival,
        payload: Bytes::copy_from_slice(&body[usize::from(header.tenant_bytes)..]),
    };
    Step::Record { record, durable_offset: u64::from(header.durable_offset) }
}

fn find_header(bytes: &[u8], seed: u32, start: u64) -> Option<usize> {
    if is_zero(bytes) {
        return None;
    }
    (0..bytes.len()).step_by(RECORD_ALIGNMENT as usize).find(|index| {
        bytes[*index..].starts_with(&RECORD_MAGIC)
            && RecordHeader::decode(&bytes[*index..], seed, start + *index as u64).is_some()
    })
}

fn last_non_zero(bytes: &[u8]) -> Option<usize> {
    if is_zero(bytes) { None } else { bytes.iter().rposition(|byte| *byte != 0) }
}

/// Most of what is searched is preallocated zeros: compare block by block.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; 4096] = [0; 4096];
    bytes.chunks(ZEROS.len()).all(|block| block == &ZEROS[..block.len()])
}

/// A part of the file in memory.
#[derive(Debug, Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// The bytes from `at` on, `len` of them or up to `bound`, the end of what may be read.
    fn read(&mut self, file: &dyn DiskFile, at: u64, len: usize, bound: u64) -> io::Result<&[u8]> {
        let room = usize::try_from(bound.saturating_sub(at)).unwrap_or(usize::MAX);
        let len = len.min(room);
        let held = self.start..self.start + self.bytes.len() as u64;
        if !(held.contains(&at) && at + len as u64 <= held.end) {
            self.bytes.resize(len.max(WINDOW_BYTES).min(room), 0);
            self.start = at;
            let read = file.read_at(at, &mut self.bytes);
            self.bytes.truncate(*read.as_ref().unwrap_or(&0));
            read?;
        }
        let from = (at - self.start) as usize;
        Ok(&self.bytes[from..(from + len).min(self.bytes.len())])
    }
}
