//! Sums of edges over spans of time: what an answer about a month adds up instead of every window.
//!
//! Time is cut into blocks of the lengths of [`LADDER`], each aligned to its length and made of blocks of the
//! length before it ([`pieces`]); the sums of a block are made when first asked for and kept. So are the sums of the
//! whole hours inside a range: who asks again a minute later, as a dashboard does, adds up its two ends only.
//!
//! Invariants: a row belongs to the block that holds the start of its window, and windows of sealed rows start on
//! the minute, so the pieces of a range add up to exactly the rows of that range; a block is known by the files it
//! was made of, so one that a late seal or a compaction touches is made anew.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use futures::future::BoxFuture;
use windrose_proto::edge::SEALED_WINDOW_NANOS;
use windrose_proto::time::{TimeRange, UnixNanos};

use super::cache::SumsOf;
use super::catalog::TenantCatalog;
use crate::edge_sums::{Adder, Detail, EdgeSums};
use crate::segment::SegmentError;
use crate::tables::Table;

const MINUTE: u64 = SEALED_WINDOW_NANOS;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
/// Each a multiple of the one before, by three to eight: then an end of a range costs few small blocks, and making a
/// block merges few others. The longest are for clocks that are years off.
const LADDER: [u64; 10] =
    [MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 4 * HOUR, DAY, 8 * DAY, 64 * DAY, 512 * DAY, 4096 * DAY];
/// A block of no more rows is made of them at once: cutting it up would cost more than it saves, and rows that are
/// scattered over centuries must not be looked for in every minute of them.
const ROWS_AT_ONCE: u64 = 20_000;

/// The blocks that make up a range, the longest that fit. The range starts and ends on the minute, or with time.
fn pieces(start: u64, end: u64) -> Vec<Block> {
    let mut pieces = Vec::new();
    let mut at = start;
    while at < end {
        let fits =
            |length: &u64| at.is_multiple_of(*length) && at.checked_add(*length).is_some_and(|until| until <= end);
        let level = LADDER.iter().rposition(fits).unwrap_or(0);
        pieces.push(Block { level, start: at });
        at = at.saturating_add(LADDER[level]);
    }
    pieces
}

/// An aligned span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    /// Which of [`LADDER`].
    level: usize,
    start: u64,
}

impl Block {
    const fn length(self) -> u64 {
        LADDER[self.level]
    }

    fn time(self) -> Range<u64> {
        self.start..self.start.saturating_add(self.length())
    }
}

/// The whole hours inside a range, when there are two at least.
fn whole_hours(range: &Range<u64>) -> Option<Range<u64>> {
    let hours = range.start.checked_next_multiple_of(HOUR)?..range.end / HOUR * HOUR;
    (hours.end.checked_sub(hours.start)? >= 2 * HOUR).then_some(hours)
}

impl TenantCatalog {
    /// Sums which together are those of all rollup rows whose window starts inside `range`.
    ///
    /// # Errors
    /// When the object store fails.
    pub async fn edge_sums(&self, range: TimeRange, detail: Detail) -> Result<Vec<Arc<EdgeSums>>, SegmentError> {
        let Some((first, last)) = self.extent(Table::Edges) else { return Ok(Vec::new()) };
        // No window starts between two minutes, so a range may as well end on them.
        let minute = |at: u64| at.checked_next_multiple_of(MINUTE).unwrap_or(u64::MAX);
        let start = minute(range.start().0.max(first.0 / MINUTE * MINUTE));
        let end = minute(range.end().0.min(last.0.saturating_add(1)));
        let mut sums = Vec::new();
        let Some(hours) = whole_hours(&(start..end)) else {
            self.read_pieces(start..end, detail, &mut sums).await?;
            return Ok(sums);
        };
        self.read_pieces(start..hours.start, detail, &mut sums).await?;
        sums.push(self.hours(hours.clone(), detail).await?);
        self.read_pieces(hours.end..end, detail, &mut sums).await?;
        Ok(sums)
    }

    async fn read_pieces(
        &self,
        time: Range<u64>,
        detail: Detail,
        sums: &mut Vec<Arc<EdgeSums>>,
    ) -> Result<(), SegmentError> {
        for block in pieces(time.start, time.end) {
            sums.push(self.block(block, detail).await?);
        }
        Ok(())
    }

    /// The sums of whole hours.
    async fn hours(&self, time: Range<u64>, detail: Detail) -> Result<Arc<EdgeSums>, SegmentError> {
        let Some(name) = self.name_of(&time, detail) else { return Ok(Arc::default()) };
        if let Some(sums) = self.caches.sums.get(&name) {
            return Ok(sums);
        }
        let mut pieces = Vec::new();
        self.read_pieces(time, detail, &mut pieces).await?;
        let mut sums = Adder::new(detail);
        pieces.iter().for_each(|piece| sums.add(piece));
        Ok(self.keep_sums(name, sums))
    }

    fn block(&self, block: Block, detail: Detail) -> BoxFuture<'_, Result<Arc<EdgeSums>, SegmentError>> {
        Box::pin(async move {
            let Some(name) = self.name_of(&block.time(), detail) else { return Ok(Arc::default()) };
            if let Some(sums) = self.caches.sums.get(&name) {
                return Ok(sums);
            }
            let mut sums = Adder::new(detail);
            match block.level.checked_sub(1) {
                Some(below) if self.edge_rows_expected(&block.time()).await? > ROWS_AT_ONCE => {
                    for start in block.time().step_by(LADDER[below] as usize) {
                        let part = self.block(Block { level: below, start }, detail).await?;
                        sums.add(&part);
                    }
                }
                _ => {
                    let parts = match time_range(&block.time()) {
                        Some(range) => self.edge_parts(range).await?,
                        None => Vec::new(),
                    };
                    let rows = parts.iter().flat_map(|(part, inside)| &part[inside.clone()]);
                    rows.for_each(|row| sums.add_row(row));
                }
            }
            Ok(self.keep_sums(name, sums))
        })
    }

    fn keep_sums(&self, name: SumsOf, sums: Adder) -> Arc<EdgeSums> {
        let mut sums = sums.finish();
        self.caches.rows.share_keys(sums.keys_mut());
        let sums = Arc::new(sums);
        self.caches.sums.insert(name, &sums);
        sums
    }

    /// About how many rows start inside `time`, without reading any.
    async fn edge_rows_expected(&self, time: &Range<u64>) -> Result<u64, SegmentError> {
        let Some(range) = time_range(time) else { return Ok(0) };
        Ok(self.edge_row_groups(range).await?.iter().map(|(_, group)| group.rows_inside(range)).sum())
    }

    /// Says which files have rows inside `time`; `None` when there are none.
    fn name_of(&self, time: &Range<u64>, detail: Detail) -> Option<SumsOf> {
        let range = time_range(time)?;
        let mut hasher = DefaultHasher::new();
        let mut is_empty = true;
        for segment in self.overlapping(Table::Edges, range) {
            is_empty = false;
            segment.path().hash(&mut hasher);
        }
        (!is_empty).then(|| SumsOf { start: time.start, end: time.end, detail, files: hasher.finish() })
    }
}

fn time_range(time: &Range<u64>) -> Option<TimeRange> {
    TimeRange::new(UnixNanos(time.start), UnixNanos(time.end))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{DAY, LADDER, MINUTE, pieces, whole_hours};

    proptest! {
        #[test]
        fn pieces_cover_a_range_once_and_are_few(start in 0_u64..100 * 1440, length in 0_u64..60 * 1440) {
            let (start, end) = (start * MINUTE, (start + length) * MINUTE);
            let cut = pieces(start, end);
            let mut at = start;
            for piece in &cut {
                prop_assert_eq!(piece.time().start, at);
                at = piece.time().end;
            }
            prop_assert_eq!(at, end);
            prop_assert!(cut.len() <= 60, "{} pieces", cut.len());
        }

        #[test]
        fn a_range_that_moves_by_a_minute_has_few_pieces_outside_its_hours(start in 0_u64..3 * 1440, length in 180_u64..40 * 1440) {
            let range = start * MINUTE..(start + length) * MINUTE;
            let hours = whole_hours(&range).expect("two hours at least");
            prop_assert!(range.start <= hours.start && hours.end <= range.end);
            let ends = pieces(range.start, hours.start).len() + pieces(hours.end, range.end).len();
            prop_assert!(ends <= 2 * (4 + 2 + 3), "{ends} pieces");
        }
    }

    #[test]
    fn the_end_of_time_is_reached() {
        let last = u64::MAX / MINUTE * MINUTE;
        for start in [0, last - LADDER[8] / MINUTE * MINUTE, last - 3 * MINUTE, last - DAY, last] {
            let cut = pieces(start, u64::MAX);
            assert_eq!(cut.last().map(|piece| piece.time().end), Some(u64::MAX), "from {start}");
            assert!(cut.len() <= 120, "{} pieces from {start}", cut.len());
        }
    }

    #[test]
    fn lengths_divide_each_other() {
        assert!(LADDER.windows(2).all(|pair| pair[1].is_multiple_of(pair[0])));
    }
}
