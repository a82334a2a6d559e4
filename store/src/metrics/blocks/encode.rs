//! The files of one tenant's part of a block, written row group by row group.

use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use windrose_proto::metric::{Exemplar, Labels};

use super::rows::{ROW_SAMPLES_MAX, SampleRow};
use super::tables::{ExemplarRow, Kind, SeriesRow, exemplars_batch, samples_batch, series_batch};

/// Rows of a row group of `samples`, which is what a query reads and caches at once: half a million
/// samples of two hours, about 100 KB.
pub(super) const ROWS_PER_GROUP: usize = 1024;

/// One finished file.
#[derive(Clone, Debug)]
pub(in crate::metrics) struct EncodedFile {
    pub(super) kind: Kind,
    pub(super) bytes: Bytes,
    pub(super) rows: u64,
    /// First and last time in it.
    pub(super) range_ms: (i64, i64),
}

/// Collects series with their samples.
#[derive(Debug)]
pub(super) struct BlockWriter {
    series: FileWriter<SeriesRow>,
    samples: FileWriter<SampleRow>,
    exemplars: FileWriter<ExemplarRow>,
    range_ms: Option<(i64, i64)>,
}

impl BlockWriter {
    pub(super) fn new() -> Result<Self, ParquetError> {
        Ok(Self {
            series: FileWriter::new(Kind::Series, series_batch)?,
            samples: FileWriter::new(Kind::Samples, samples_batch)?,
            exemplars: FileWriter::new(Kind::Exemplars, exemplars_batch)?,
            range_ms: None,
        })
    }

    /// Adds a series with its samples, times growing. Series come in the order of the table.
    pub(super) fn series(
        &mut self,
        series_id: u64,
        labels: Labels,
        timestamps: &[i64],
        values: &[f64],
        exemplars: impl IntoIterator<Item = Exemplar>,
    ) -> Result<(), ParquetError> {
        for exemplar in exemplars {
            self.extend_range(exemplar.timestamp, exemplar.timestamp);
            self.exemplars.push(ExemplarRow { series_id, exemplar })?;
        }
        let samples_row = self.samples.rows;
        for (timestamps, values) in timestamps.chunks(ROW_SAMPLES_MAX).zip(values.chunks(ROW_SAMPLES_MAX)) {
            self.samples.push(SampleRow::new(series_id, timestamps, values))?;
        }
        let (first_ms, last_ms) = match (timestamps.first(), timestamps.last()) {
            (Some(first), Some(last)) => (*first, *last),
            // Exemplars may come without samples; the series is listed for their sake.
            _ => self.range_ms.unwrap_or_default(),
        };
        self.extend_range(first_ms, last_ms);
        self.series.push(SeriesRow {
            series_id,
            labels,
            first_ms,
            last_ms,
            samples: timestamps.len() as u64,
            samples_row,
            samples_rows: (self.samples.rows - samples_row) as u32,
        })
    }

    fn extend_range(&mut self, first_ms: i64, last_ms: i64) {
        let (first, last) = self.range_ms.unwrap_or((first_ms, last_ms));
        self.range_ms = Some((first.min(first_ms), last.max(last_ms)));
    }

    /// The files that have rows.
    pub(super) fn finish(self) -> Result<Vec<EncodedFile>, ParquetError> {
        let Some(range_ms) = self.range_ms else { return Ok(Vec::new()) };
        let files = [self.series.finish(range_ms)?, self.samples.finish(range_ms)?, self.exemplars.finish(range_ms)?];
        Ok(files.into_iter().filter(|file| file.rows > 0).collect())
    }
}

#[derive(Debug)]
struct FileWriter<R> {
    kind: Kind,
    to_batch: fn(&[R]) -> arrow::array::RecordBatch,
    writer: ArrowWriter<Vec<u8>>,
    pending: Vec<R>,
    rows: u64,
}

impl<R> FileWriter<R> {
    fn new(kind: Kind, to_batch: fn(&[R]) -> arrow::array::RecordBatch) -> Result<Self, ParquetError> {
        let writer = ArrowWriter::try_new(Vec::new(), kind.schema(), Some(properties(kind)))?;
        Ok(Self { kind, to_batch, writer, pending: Vec::new(), rows: 0 })
    }

    fn push(&mut self, row: R) -> Result<(), ParquetError> {
        self.pending.push(row);
        self.rows += 1;
        if self.pending.len() == ROWS_PER_GROUP { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), ParquetError> {
        self.writer.write(&(self.to_batch)(&self.pending))?;
        self.pending.clear();
        Ok(())
    }

    fn finish(mut self, range_ms: (i64, i64)) -> Result<EncodedFile, ParquetError> {
        if !self.pending.is_empty() {
            self.flush()?;
        }
        let bytes = self.writer.into_inner()?.into();
        Ok(EncodedFile { kind: self.kind, bytes, rows: self.rows, range_ms })
    }
}

/// Series are read as a whole, so their row groups may be large.
const SERIES_PER_GROUP: usize = 128 * 1024;

fn properties(kind: Kind) -> WriterProperties {
    let level = ZstdLevel::try_new(1).unwrap_or_default();
    let rows = if kind == Kind::Samples { ROWS_PER_GROUP } else { SERIES_PER_GROUP };
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(concat!("windrose ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(rows))
        .set_statistics_enabled(EnabledStatistics::Chunk);
    let path = |parts: &[&str]| ColumnPath::new(parts.iter().map(|part| (*part).to_owned()).collect());
    let (delta, split): (Vec<ColumnPath>, Vec<ColumnPath>) = match kind {
        Kind::Series => (["first_ms", "last_ms", "samples", "samples_row"].map(ColumnPath::from).into(), Vec::new()),
        Kind::Samples => (
            vec![
                path(&["first_ms"]),
                path(&["last_ms"]),
                path(&["step_ms"]),
                path(&["first"]),
                path(&["steps", "list", "element"]),
                path(&["increments", "list", "element"]),
            ],
            vec![path(&["values", "list", "element"])],
        ),
        Kind::Exemplars => (vec![path(&["at_ms"])], vec![path(&["value"])]),
    };
    for (columns, encoding) in [(delta, Encoding::DELTA_BINARY_PACKED), (split, Encoding::BYTE_STREAM_SPLIT)] {
        for column in columns {
            builder =
                builder.set_column_dictionary_enabled(column.clone(), false).set_column_encoding(column, encoding);
        }
    }
    // Hashes: nothing makes them smaller.
    builder.set_column_dictionary_enabled(path(&["series_id"]), false).build()
}
