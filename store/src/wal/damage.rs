//! Places of the log that cannot be read, and why.

use std::fmt;

use super::WalPosition;

/// A place that could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// Where it starts.
    pub position: WalPosition,
    /// How much was skipped.
    pub bytes: u64,
    /// Why.
    pub reason: DamageReason,
}

/// Why a place could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DamageReason {
    /// Never completely written, hence never acknowledged: what a crash leaves.
    Torn,
    /// A record's header, or the space up to the next record.
    RecordHeader,
    /// A record's body does not match its checksum.
    RecordBody,
    /// A record of a kind this version does not know.
    UnknownKind,
    /// A segment's header; nothing in the segment can be verified.
    SegmentHeader,
    /// A segment that should be there is not.
    MissingSegment,
    /// The disk keeps failing to read the rest of this segment.
    Unreadable,
}

impl DamageReason {
    /// Whether acknowledged data is missing.
    #[must_use]
    pub fn is_loss(self) -> bool {
        self != Self::Torn
    }
}

impl fmt::Display for DamageReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Torn => "torn",
            Self::RecordHeader => "record_header",
            Self::RecordBody => "record_body",
            Self::UnknownKind => "unknown_kind",
            Self::SegmentHeader => "segment_header",
            Self::MissingSegment => "missing_segment",
            Self::Unreadable => "unreadable",
        })
    }
}
