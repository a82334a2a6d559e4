//! The bytes of a segment: its header and the frames of its records. Pure.
//!
//! All integers are little-endian, all checksums CRC-32C.
//!
//! # Segment, version 1
//! ```text
//!   0  header, 64 bytes
//!  64  the same header again: one flipped bit must not cost a segment
//! 128  records, each on a multiple of 8, back to back
//!  ..  8 zero bytes after the last group (the terminator), then anything
//! ```
//! # Segment header
//! ```text
//!  0  magic "WINDROSE"        8
//!  8  format version          2   the magic, this field and the checksum stay where they are
//! 10  zero                    6   in every version
//! 16  number of the segment   8
//! 24  created, unix nanos     8
//! 32  previous segment        8   0: none
//! 40  end of the previous     8   where its valid records end
//! 48  proven in the previous  8   what is before this was durable: all, or after a crash all but
//! 56  zero                    4   the last group
//! 60  checksum of 0..60       4
//! ```
//! # Record
//! ```text
//!  0  magic "wrec"            4
//!  4  checksum of the header  4   seeded with segment number, creation time and the offset
//!  8  body bytes              4   tenant and payload
//! 12  kind                    1
//! 13  content encoding        1
//! 14  tenant bytes            1
//! 15  zero                    1
//! 16  arrival, unix nanos     8
//! 24  durable offset          4   everything before it was synced when this was written
//! 28  checksum of the body    4
//! 32  tenant, payload, zeros up to a multiple of 8
//! ```
//! The seed makes a record valid only in the place and file it was written for: stale bytes of a
//! reused file, and a payload that imitates a record, do not pass. The durable offset tells a torn
//! write from damage: a gap before it had been durable, a gap after it may never have been.

use windrose_proto::time::UnixNanos;

use super::{Record, WalPosition};

/// The format this code writes, and the newest it reads.
pub const FORMAT_VERSION: u16 = 1;

/// Both copies of the header; records start here.
pub const SEGMENT_HEADER_BYTES: u64 = 128;

/// Zeros that end the last group of a segment.
pub const TERMINATOR_BYTES: u64 = 8;

/// Header of a record.
pub const RECORD_HEADER_BYTES: usize = 32;

/// Records start at multiples of this, so that a reader that lost the thread can find the next.
pub const RECORD_ALIGNMENT: u64 = 8;

const SEGMENT_MAGIC: [u8; 8] = *b"WINDROSE";
const HEADER_COPY_BYTES: usize = 64;
const HEADER_CHECKED_BYTES: usize = 60;
pub(crate) const RECORD_MAGIC: [u8; 4] = *b"wrec";

const _: () = assert!(SEGMENT_HEADER_BYTES == 2 * HEADER_COPY_BYTES as u64, "the header is stored twice");
const _: () = assert!((RECORD_HEADER_BYTES as u64).is_multiple_of(RECORD_ALIGNMENT), "bodies start aligned");

/// What a record with this body takes in a segment.
#[must_use]
pub const fn frame_bytes(body_bytes: u64) -> u64 {
    (RECORD_HEADER_BYTES as u64).saturating_add(body_bytes).next_multiple_of(RECORD_ALIGNMENT)
}

/// What stands at the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Number of the segment.
    pub number: u64,
    /// When it was created.
    pub created: UnixNanos,
    /// Where the valid records of the previous segment end; `START` when there was none.
    pub previous_end: WalPosition,
    /// Everything before this offset of the previous segment was durable. After a crash the last
    /// group is not proven to have been.
    pub previous_proven: u64,
}

/// Why a segment's header cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Neither copy has a valid checksum.
    #[error("the segment header is damaged or was never written")]
    Damaged,
    /// Written by a newer Windrose.
    #[error("format version {0} is newer than {FORMAT_VERSION}, the newest this Windrose reads")]
    NewerVersion(u16),
}

impl SegmentHeader {
    /// Both copies.
    #[must_use]
    pub fn encode(&self) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut bytes = [0; SEGMENT_HEADER_BYTES as usize];
        let (first, second) = bytes.split_at_mut(HEADER_COPY_BYTES);
        first[0..8].copy_from_slice(&SEGMENT_MAGIC);
        first[8..10].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        first[16..24].copy_from_slice(&self.number.to_le_bytes());
        first[24..32].copy_from_slice(&self.created.0.to_le_bytes());
        first[32..40].copy_from_slice(&self.previous_end.segment.to_le_bytes());
        first[40..48].copy_from_slice(&self.previous_end.offset.to_le_bytes());
        first[48..56].copy_from_slice(&self.previous_proven.to_le_bytes());
        let checksum = crc32c::crc32c(&first[..HEADER_CHECKED_BYTES]);
        first[HEADER_CHECKED_BYTES..].copy_from_slice(&checksum.to_le_bytes());
        second.copy_from_slice(first);
        bytes
    }

    /// Reads the first good copy.
    ///
    /// # Errors
    /// When neither copy is good, or the format is newer than this code.
    pub fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let copies = bytes.chunks_exact(HEADER_COPY_BYTES).take(2);
        let good = copies.into_iter().find(|copy| {
            copy.starts_with(&SEGMENT_MAGIC)
                && crc32c::crc32c(&copy[..HEADER_CHECKED_BYTES]) == u32_at(copy, HEADER_CHECKED_BYTES)
        });
        let copy = good.ok_or(HeaderError::Damaged)?;
        let version = u16::from_le_bytes([copy[8], copy[9]]);
        if version > FORMAT_VERSION {
            return Err(HeaderError::NewerVersion(version));
        }
        Ok(Self {
            number: u64_at(copy, 16),
            created: UnixNanos(u64_at(copy, 24)),
            previous_end: WalPosition::new(u64_at(copy, 32), u64_at(copy, 40)),
            previous_proven: u64_at(copy, 48),
        })
    }

    /// What the checksums of this segment's record headers start from.
    #[must_use]
    pub fn seed(&self) -> u32 {
        crc32c::crc32c_append(crc32c::crc32c(&self.number.to_le_bytes()), &self.created.0.to_le_bytes())
    }
}

/// What stands before a record's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) body_bytes: u32,
    pub(crate) kind: u8,
    pub(crate) encoding: u8,
    pub(crate) tenant_bytes: u8,
    pub(crate) arrival: UnixNanos,
    pub(crate) durable_offset: u32,
    pub(crate) body_crc: u32,
}

impl RecordHeader {
    /// The header of `record`, whose frame must fit into a segment, and whose tenant is at most 64
    /// bytes by its type.
    pub(crate) fn of(record: &Record, durable_offset: u64) -> Self {
        debug_assert!(record.body_bytes <= u64::from(u32::MAX) && durable_offset <= u64::from(u32::MAX));
        Self {
            body_bytes: record.body_bytes as u32,
            kind: record.kind as u8,
            encoding: record.encoding as u8,
            tenant_bytes: record.tenant.as_str().len() as u8,
            arrival: record.arrival,
            durable_offset: durable_offset as u32,
            body_crc: record.body_crc,
        }
    }

    pub(crate) fn encode(&self, seed: u32, offset: u64) -> [u8; RECORD_HEADER_BYTES] {
        let mut bytes = [0; RECORD_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&RECORD_MAGIC);
        bytes[8..12].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[12] = self.kind;
        bytes[13] = self.encoding;
        bytes[14] = self.tenant_bytes;
        bytes[16..24].copy_from_slice(&self.arrival.0.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.durable_offset.to_le_bytes());
        bytes[28..32].copy_from_slice(&self.body_crc.to_le_bytes());
        let checksum = header_checksum(&bytes, seed, offset);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` unless these bytes are a header written for exactly this place.
    pub(crate) fn decode(bytes: &[u8], seed: u32, offset: u64) -> Option<Self> {
        let bytes: &[u8; RECORD_HEADER_BYTES] = bytes.first_chunk()?;
        if !bytes.starts_with(&RECORD_MAGIC) || header_checksum(bytes, seed, offset) != u32_at(bytes, 4) {
            return None;
        }
        Some(Self {
            body_bytes: u32_at(bytes, 8),
            kind: bytes[12],
            encoding: bytes[13],
            tenant_bytes: bytes[14],
            arrival: UnixNanos(u64_at(bytes, 16)),
            durable_offset: u32_at(bytes, 24),
            body_crc: u32_at(bytes, 28),
        })
    }

    pub(crate) fn frame_bytes(&self) -> u64 {
        frame_bytes(u64::from(self.body_bytes))
    }
}

fn header_checksum(bytes: &[u8; RECORD_HEADER_BYTES], seed: u32, offset: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(seed, &offset.to_le_bytes()), &bytes[8..])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut value = [0; 4];
    value.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(value)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut value = [0; 8];
    value.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(value)
}
