//! Where a record is in the log.

use std::fmt;

/// A place in the log: a segment and a byte offset in it. Ordered as the log is. Also used for
/// "everything before this", which is how tables say how far they have committed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(from = "(u64, u64)", into = "(u64, u64)")]
pub struct WalPosition {
    /// Number of the segment; the first is 1.
    pub segment: u64,
    /// Bytes from the start of the segment's file.
    pub offset: u64,
}

impl WalPosition {
    /// Before everything.
    pub const START: Self = Self { segment: 0, offset: 0 };

    /// A place.
    #[must_use]
    pub const fn new(segment: u64, offset: u64) -> Self {
        Self { segment, offset }
    }
}

impl From<(u64, u64)> for WalPosition {
    fn from((segment, offset): (u64, u64)) -> Self {
        Self { segment, offset }
    }
}

impl From<WalPosition> for (u64, u64) {
    fn from(position: WalPosition) -> Self {
        (position.segment, position.offset)
    }
}

impl fmt::Display for WalPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.offset)
    }
}
