//! Totals of edges over spans of time: what a topology answer over a month adds up instead of every window.
//!
//! Time is cut into blocks of the lengths of [`LADDER`], each aligned to its length and made of blocks of the
//! length before it. A range is a few dozen blocks and what sticks out at its ends ([`pieces`]); the rows of a
//! block are its windows merged per edge, made when first asked for and kept in the row cache.
//!
//! Invariants: a row belongs to the block that holds the start of its window, so the pieces of a range add up to
//! exactly the rows of that range; a block is known by the files it was made of, so one that a late seal or a
//! compaction touches is made anew.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

use futures::future::BoxFuture;
use hashbrown::HashMap;
use windrose_proto::edge::{EdgeKey, EdgeRow, EdgeStats, SEALED_WINDOW_NANOS};
use windrose_proto::time::{TimeRange, UnixNanos};

use super::cache::RowsOf;
use super::catalog::TenantCatalog;
use crate::segment::SegmentError;
use crate::tables::Table;

const MINUTE: u64 = SEALED_WINDOW_NANOS;
const DAY: u64 = 1440 * MINUTE;
/// Each a multiple of the one before, by three to eight: then an end of a range costs few small blocks, and making a
/// block merges few others. The longest are for clocks that are years off.
const LADDER: [u64; 9] =
    [5 * MINUTE, 15 * MINUTE, 60 * MINUTE, 240 * MINUTE, DAY, 8 * DAY, 64 * DAY, 512 * DAY, 4096 * DAY];
/// A block of no more rows is made of them at once: cutting it up would cost more than it saves, and rows that are
/// scattered over centuries must not be looked for in every five minutes of them.
const ROWS_AT_ONCE: u64 = 20_000;

/// A part of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Piece {
    /// A block: which length, and its start.
    Block(usize, u64),
    /// Rows as they are: start and end.
    Rows(u64, u64),
}

/// A range as blocks, the longest that fit, and the rest.
fn pieces(start: u64, end: u64) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = start;
    while at < end {
        let fits =
            |length: &u64| at.is_multiple_of(*length) && at.checked_add(*length).is_some_and(|until| until <= end);
        match LADDER.iter().rposition(fits) {
            Some(level) => {
                pieces.push(Piece::Block(level, at));
                at += LADDER[level];
            }
            None => {
                let until = at.checked_next_multiple_of(LADDER[0]).unwrap_or(end).max(at.saturating_add(1)).min(end);
                pieces.push(Piece::Rows(at, until));
                at = until;
            }
        }
    }
    pieces
}

impl TenantCatalog {
    /// Rows whose sum per edge is that of [`Self::read_edges`], far fewer over long ranges. Their windows say nothing.
    ///
    /// # Errors
    /// When the object store fails.
    pub async fn read_edge_totals(&self, range: TimeRange) -> Result<Vec<EdgeRow>, SegmentError> {
        let Some((first, last)) = self.extent(Table::Edges) else { return Ok(Vec::new()) };
        let start = range.start().0.max(first.0 / LADDER[0] * LADDER[0]);
        let end = range.end().0.min(last.0.saturating_add(1).checked_next_multiple_of(LADDER[0]).unwrap_or(u64::MAX));
        let mut rows = Vec::new();
        for piece in pieces(start, end) {
            match piece {
                Piece::Block(level, at) => rows.extend(self.block(level, at).await?.iter().cloned()),
                Piece::Rows(at, until) => {
                    let parts = self.edge_rows_between(at, until).await?;
                    rows.extend(parts.iter().flat_map(|(part, inside)| &part[inside.clone()]).cloned());
                }
            }
        }
        Ok(rows)
    }

    async fn edge_rows_between(
        &self,
        start: u64,
        end: u64,
    ) -> Result<Vec<(Arc<Vec<EdgeRow>>, Range<usize>)>, SegmentError> {
        match TimeRange::new(UnixNanos(start), UnixNanos(end)) {
            Some(range) => self.edge_parts(range).await,
            None => Ok(Vec::new()),
        }
    }

    /// About how many rows start between `start` and `end`, without reading any.
    async fn edge_rows_expected(&self, start: u64, end: u64) -> Result<u64, SegmentError> {
        let Some(range) = TimeRange::new(UnixNanos(start), UnixNanos(end)) else { return Ok(0) };
        Ok(self.edge_row_groups(range).await?.iter().map(|(_, group)| group.rows_inside(range)).sum())
    }

    fn block(&self, level: usize, at: u64) -> BoxFuture<'_, Result<Arc<Vec<EdgeRow>>, SegmentError>> {
        Box::pin(async move {
            let length = LADDER[level];
            let Some(files) = self.fingerprint(at, at + length) else { return Ok(Arc::default()) };
            let name = RowsOf::Block { start: at, length, files };
            if let Some(rows) = self.cached(&name) {
                return Ok(rows);
            }
            let mut totals = Totals::default();
            match level.checked_sub(1) {
                Some(below) if self.edge_rows_expected(at, at + length).await? > ROWS_AT_ONCE => {
                    for child in (at..at + length).step_by(LADDER[below] as usize) {
                        totals.add(&self.block(below, child).await?);
                    }
                }
                _ => {
                    for (part, inside) in self.edge_rows_between(at, at + length).await? {
                        totals.add(&part[inside]);
                    }
                }
            }
            let rows = Arc::new(totals.into_rows(at, length));
            self.keep(name, &rows);
            Ok(rows)
        })
    }

    /// Says which files have rows between `start` and `end`; `None` when there are none.
    fn fingerprint(&self, start: u64, end: u64) -> Option<u64> {
        let range = TimeRange::new(UnixNanos(start), UnixNanos(end))?;
        let mut hasher = DefaultHasher::new();
        let mut is_empty = true;
        for segment in self.overlapping(Table::Edges, range) {
            is_empty = false;
            segment.path().hash(&mut hasher);
        }
        (!is_empty).then(|| hasher.finish())
    }
}

/// Sums per edge.
#[derive(Default)]
struct Totals {
    sums: Vec<(Arc<EdgeKey>, EdgeStats)>,
    places: HashMap<Arc<EdgeKey>, usize>,
    /// Rows share their keys: the address of one answers for its many parts. Keys stay alive in `held`, so that an
    /// address is never that of another key.
    addresses: HashMap<usize, usize>,
    held: Vec<Arc<EdgeKey>>,
}

impl Totals {
    fn add(&mut self, rows: &[EdgeRow]) {
        for row in rows {
            let address = Arc::as_ptr(&row.key) as usize;
            let place = match self.addresses.get(&address) {
                Some(place) => *place,
                None => self.learn(address, &row.key),
            };
            self.sums[place].1.merge(&row.stats);
        }
    }

    fn learn(&mut self, address: usize, key: &Arc<EdgeKey>) -> usize {
        let place = *self.places.entry(Arc::clone(key)).or_insert_with(|| {
            self.sums.push((Arc::clone(key), EdgeStats::default()));
            self.sums.len() - 1
        });
        self.addresses.insert(address, place);
        self.held.push(Arc::clone(key));
        place
    }

    fn into_rows(self, start: u64, length: u64) -> Vec<EdgeRow> {
        let row = |(key, stats)| EdgeRow {
            window_start: UnixNanos(start),
            window_nanos: length,
            key,
            stats: Arc::new(stats),
        };
        self.sums.into_iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{LADDER, MINUTE, Piece, pieces};

    fn bounds(piece: Piece) -> (u64, u64) {
        match piece {
            Piece::Block(level, at) => (at, at + LADDER[level]),
            Piece::Rows(at, until) => (at, until),
        }
    }

    proptest! {
        #[test]
        fn pieces_cover_a_range_once_and_are_few(start in 0_u64..100 * 1440 * MINUTE, length in 0_u64..60 * 1440 * MINUTE) {
            let cut = pieces(start, start + length);
            let mut at = start;
            for piece in &cut {
                let (from, until) = bounds(*piece);
                prop_assert_eq!(from, at);
                prop_assert!(until > from);
                at = until;
            }
            prop_assert_eq!(at, start + length.min(at - start));
            prop_assert_eq!(at, start + length);
            prop_assert!(cut.len() <= 60, "{} pieces", cut.len());
        }
    }

    #[test]
    fn the_end_of_time_is_reached() {
        for start in [0, u64::MAX - LADDER[8], u64::MAX - 3 * MINUTE, u64::MAX - 1] {
            let cut = pieces(start, u64::MAX);
            assert_eq!(cut.last().map(|piece| bounds(*piece).1), Some(u64::MAX), "from {start}");
            assert!(cut.len() <= 120, "{} pieces from {start}", cut.len());
        }
    }

    #[test]
    fn lengths_divide_each_other() {
        assert!(LADDER.windows(2).all(|pair| pair[1].is_multiple_of(pair[0])));
    }
}
