//! Reading a file part by part: which of its row groups a range of time needs, and the rows of one.
//!
//! A month of rollups is one file; an answer about an hour of it reads the one or two row groups of that hour.

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::file::statistics::Statistics;
use windrose_proto::time::{TimeRange, UnixNanos};

use super::Segment;
use super::read::{BATCH_ROWS, FooterCache, SegmentError};
use crate::tables::TableError;

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RowGroup {
    /// Its place in the file, from 0.
    pub number: usize,
    pub rows: u64,
    /// First and last value of the time column, both inside.
    pub first: UnixNanos,
    pub last: UnixNanos,
}

impl RowGroup {
    /// Whether rows may lie inside `range`.
    #[must_use]
    pub fn overlaps(&self, range: TimeRange) -> bool {
        range.overlaps(self.first, self.last)
    }

    /// How many rows lie inside `range` if they are spread evenly.
    #[must_use]
    pub fn rows_inside(&self, range: TimeRange) -> u64 {
        let (start, end) = (self.first.max(range.start()), self.last.min(range.end()));
        if start > end {
            return 0;
        }
        let whole = u128::from(self.last.since(self.first)) + 1;
        let inside = u128::from(end.since(start)) + 1;
        (u128::from(self.rows) * inside).div_ceil(whole) as u64
    }
}

impl Segment {
    /// The parts of the file, in its order; found once, when the checksum of the whole file is compared too, because
    /// later reads are of parts. A damaged file is quarantined and has none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn row_groups(&self, footers: &FooterCache) -> Result<&[RowGroup], SegmentError> {
        if self.quarantine_reason().is_some() {
            return Ok(&[]);
        }
        if let Some(known) = self.row_groups.get() {
            return Ok(known);
        }
        let read = async {
            self.read_file().await?;
            let metadata = self.read_metadata(footers).await?;
            Ok(row_groups(&metadata, self.table.time_column()))
        };
        let found = self.judge(read.await).await?;
        // What was quarantined just now stays without.
        Ok(self.row_groups.get_or_init(|| found))
    }

    /// The rows of one part, by the `from_batch` of its table. A damaged file is quarantined and has none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn read_row_group<R>(
        &self,
        number: usize,
        footers: &FooterCache,
        from_batch: fn(&RecordBatch) -> Result<Vec<R>, TableError>,
    ) -> Result<Vec<R>, SegmentError> {
        if self.quarantine_reason().is_some() {
            return Ok(Vec::new());
        }
        let read = async {
            let metadata = self.read_metadata(footers).await?;
            let builder = ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader(), metadata)
                .with_batch_size(BATCH_ROWS)
                .with_row_groups(vec![number]);
            let mut batches = builder.build()?;
            let mut rows = Vec::new();
            while let Some(batch) = batches.try_next().await? {
                rows.extend(from_batch(&batch)?);
            }
            Ok(rows)
        };
        self.judge(read.await).await
    }
}

fn row_groups(metadata: &ArrowReaderMetadata, time_column: &str) -> Vec<RowGroup> {
    let groups = metadata.metadata().row_groups().iter().enumerate();
    let read = groups.map(|(number, group)| {
        let times = group.columns().iter().find(|column| column.column_path().string() == time_column);
        let (first, last) = match times.and_then(|column| column.statistics()) {
            Some(Statistics::Int64(bounds)) => (bounds.min_opt().copied(), bounds.max_opt().copied()),
            _ => (None, None),
        };
        RowGroup {
            number,
            rows: group.num_rows().cast_unsigned(),
            first: UnixNanos(first.map_or(0, i64::cast_unsigned)),
            last: UnixNanos(last.map_or(u64::MAX, i64::cast_unsigned)),
        }
    });
    read.collect()
}

#[cfg(test)]
mod tests {
    use super::RowGroup;
    use windrose_proto::time::{TimeRange, UnixNanos};

    #[track_caller]
    fn check(first: u64, last: u64, range: (u64, u64), expect: u64) {
        let group = RowGroup { number: 0, rows: 1_000, first: UnixNanos(first), last: UnixNanos(last) };
        let range = TimeRange::new(UnixNanos(range.0), UnixNanos(range.1)).unwrap();
        assert_eq!(group.rows_inside(range), expect, "{group:?} {range:?}");
    }

    #[test]
    fn rows_are_expected_in_proportion() {
        check(0, 999, (0, 10_000), 1_000);
        check(0, 999, (0, 99), 100);
        check(500, 1_499, (0, 400), 0);
        check(7, 7, (7, 8), 1_000);
        check(0, u64::MAX, (0, u64::MAX), 1_000);
        check(0, u64::MAX, (5, 6), 1);
    }
}
