//! How far the log may be cut: the one decision about forgetting input.

use super::WalPosition;

/// The position before which no record is needed any more.
///
/// `committed_per_table` holds, for *every* table, the position up to which (exclusive) it has
/// durably committed what it makes of the log; a table that has committed nothing yet is
/// [`WalPosition::START`]. `oldest_open` is the first record that holds a span of a trace which is
/// still open in memory, if there is one. Without tables nothing may be cut.
#[must_use]
pub fn cut_point(committed_per_table: &[WalPosition], oldest_open: Option<WalPosition>) -> WalPosition {
    let committed = committed_per_table.iter().min().copied().unwrap_or(WalPosition::START);
    oldest_open.map_or(committed, |open| open.min(committed))
}
