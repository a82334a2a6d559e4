//! Rows as one Parquet file in memory, with the facts its table log entry needs.

use arrow::array::{AsArray, RecordBatch};
use arrow::compute;
use arrow::datatypes::Int64Type;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use windrose_proto::edge::EdgeRow;
use windrose_proto::id::TraceId;
use windrose_proto::time::UnixNanos;

use super::trace_index::{self, EncodedIndex};
use crate::row::{HopRow, RequestRow, SpanRow};
use crate::tables::spans::Shorten;
use crate::tables::{Table, TableError, edges, hops, requests, spans};

/// Rows per row group: 128 k rows of spans are 5–6 MB, enough for dictionaries to pay and small
/// enough to be read in one go.
const ROW_GROUP_ROWS: usize = 128 * 1024;

/// The same of rollups: ten minutes of 1 200 edges, or half a day of them by the hour. Answers read whole row groups.
const EDGES_ROW_GROUP_ROWS: usize = 16 * 1024;

/// Rows per page, the smallest unit a trace lookup reads per column.
const PAGE_ROWS: usize = 8 * 1024;

/// Rows turned into columns at a time: few enough that the texts of a batch stay in the cache.
const BATCH_ROWS: usize = 1024;

/// Text turned into columns at a time: Arrow strings end at 2 GiB a column.
const BATCH_MAX_BYTES: usize = 256 << 20;

/// A file and what is known of it.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub file: Bytes,
    pub facts: Facts,
    /// Only of span files.
    pub trace_index: Option<EncodedIndex>,
}

/// What a table log entry says about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub rows: u64,
    /// First and last value of the table's time column.
    pub first: UnixNanos,
    pub last: UnixNanos,
    /// Largest revision in the file; 1 for tables without revisions.
    pub revision_max: u32,
    /// Narrowest window of the rows; only of `edges`.
    pub window_nanos: Option<u64>,
    pub crc32c: u32,
}

/// Span rows as a file, the spans of a trace together.
///
/// # Errors
/// When Parquet refuses, which it has no reason to.
pub fn encode_spans(rows: Vec<SpanRow>) -> Result<Encoded, TableError> {
    encode_spans_with(rows, properties(Table::Spans))
}

/// See [`encode_spans`].
pub(super) fn encode_spans_with(mut rows: Vec<SpanRow>, properties: WriterProperties) -> Result<Encoded, TableError> {
    spans::sort(&mut rows);
    let mut batches = spans::Batches::default();
    encode(Table::Spans, properties, &rows, |rows| batches.to_batch(rows), span_bytes)
}

/// Hop rows as a file, ordered by time.
///
/// # Errors
/// When Parquet refuses, which it has no reason to.
pub fn encode_hops(mut rows: Vec<HopRow>) -> Result<Encoded, TableError> {
    rows.sort_by_key(|row| (row.hop.start, row.hop.trace_id, row.revision, row.hop.client_span, row.hop.server_span));
    encode(Table::Hops, properties(Table::Hops), &rows, hops::to_batch, |_| 1024)
}

/// Request rows as a file, ordered by time.
///
/// # Errors
/// When Parquet refuses, which it has no reason to.
pub fn encode_requests(mut rows: Vec<RequestRow>) -> Result<Encoded, TableError> {
    rows.sort_by_key(|row| (row.request.start, row.request.trace_id, row.revision));
    encode(Table::Requests, properties(Table::Requests), &rows, requests::to_batch, |_| 1024)
}

/// Rollup rows as a file, ordered by window and edge.
///
/// # Errors
/// When Parquet refuses, which it has no reason to.
pub fn encode_edges(mut rows: Vec<EdgeRow>) -> Result<Encoded, TableError> {
    rows.sort_by(|a, b| (a.window_start, &a.key).cmp(&(b.window_start, &b.key)));
    encode(Table::Edges, properties(Table::Edges), &rows, edges::to_batch, |_| 4096)
}

fn encode<R>(
    table: Table,
    properties: WriterProperties,
    rows: &[R],
    mut to_batch: impl FnMut(&[R]) -> RecordBatch,
    row_bytes: fn(&R) -> usize,
) -> Result<Encoded, TableError> {
    let mut encoder = BatchEncoder::with_properties(table, properties)?;
    for chunk in (Chunks { rows, row_bytes }) {
        encoder.write(&to_batch(chunk))?;
    }
    Ok(encoder.finish()?)
}

/// Writes batches of one table as they come.
#[derive(Debug)]
pub struct BatchEncoder {
    table: Table,
    writer: ArrowWriter<Vec<u8>>,
    rows: u64,
    first: Option<UnixNanos>,
    last: Option<UnixNanos>,
    revision_max: i64,
    window_nanos: Option<i64>,
    /// Of each row; only of spans.
    traces: Vec<TraceId>,
    /// Only of spans.
    shorten: Option<Shorten>,
}

impl BatchEncoder {
    /// For batches with exactly the columns of `table`.
    ///
    /// # Errors
    /// When Parquet refuses, which it has no reason to.
    pub fn new(table: Table) -> Result<Self, ParquetError> {
        Self::with_properties(table, properties(table))
    }

    fn with_properties(table: Table, properties: WriterProperties) -> Result<Self, ParquetError> {
        let row_group_rows = properties.max_row_group_row_count().unwrap_or(usize::MAX);
        let writer = ArrowWriter::try_new(Vec::new(), table.schema(), Some(properties))?;
        Ok(Self {
            table,
            writer,
            rows: 0,
            first: None,
            last: None,
            revision_max: 1,
            window_nanos: None,
            traces: Vec::new(),
            shorten: (table == Table::Spans).then(|| Shorten::new(row_group_rows)),
        })
    }

    /// Adds rows.
    ///
    /// # Errors
    /// When a column is missing or Parquet refuses.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<(), TableError> {
        let longs = |name: &str| {
            let missing = || TableError::MissingColumn(name.to_owned());
            batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<Int64Type>()).ok_or_else(missing)
        };
        let times = longs(self.table.time_column())?;
        // Unsigned, as they were before they became a column.
        let times = || times.values().iter().map(|time| UnixNanos(time.cast_unsigned()));
        self.first = self.first.into_iter().chain(times().min()).min();
        self.last = self.last.max(times().max());
        if matches!(self.table, Table::Hops | Table::Requests) {
            self.revision_max = self.revision_max.max(compute::max(longs("revision")?).unwrap_or(1));
        }
        if self.table == Table::Edges {
            let narrowest = compute::min(longs("window_ns")?);
            self.window_nanos = self.window_nanos.into_iter().chain(narrowest).min();
        }
        if self.table == Table::Spans {
            self.traces.extend(spans::trace_ids(batch)?);
        }
        self.rows += batch.num_rows() as u64;
        match &mut self.shorten {
            Some(shorten) => self.writer.write(&shorten.batch(batch)?)?,
            None => self.writer.write(batch)?,
        }
        Ok(())
    }

    /// The file.
    ///
    /// # Errors
    /// When Parquet refuses, which it has no reason to.
    pub fn finish(self) -> Result<Encoded, ParquetError> {
        let file = Bytes::from(self.writer.into_inner()?);
        let facts = Facts {
            rows: self.rows,
            first: self.first.unwrap_or_default(),
            last: self.last.unwrap_or_default(),
            revision_max: self.revision_max as u32,
            window_nanos: self.window_nanos.map(|nanos| nanos as u64),
            crc32c: crc32c::crc32c(&file),
        };
        let trace_index = (self.table == Table::Spans).then(|| trace_index::encode(self.traces));
        Ok(Encoded { file, facts, trace_index })
    }
}

/// Text in a span, roughly.
fn span_bytes(row: &SpanRow) -> usize {
    let value_bytes = |value: &windrose_proto::attributes::Value| value.as_str().map_or(64, str::len);
    let attributes: usize = row.span.attributes.iter().map(|kv| kv.key.len() + value_bytes(&kv.value)).sum();
    1024 + attributes + 4096 * (row.span.events.len() + row.span.links.len())
}

/// Consecutive parts of bounded rows and bytes.
struct Chunks<'a, R> {
    rows: &'a [R],
    row_bytes: fn(&R) -> usize,
}

impl<'a, R> Iterator for Chunks<'a, R> {
    type Item = &'a [R];

    fn next(&mut self) -> Option<&'a [R]> {
        let mut bytes = 0;
        let fits = |row: &&R| {
            bytes += (self.row_bytes)(row);
            bytes <= BATCH_MAX_BYTES
        };
        let count = self.rows.iter().take(BATCH_ROWS).take_while(fits).count();
        // A single row beyond the limit is still written.
        let (chunk, rest) = self.rows.split_at(count.max(1).min(self.rows.len()));
        self.rows = rest;
        (!chunk.is_empty()).then_some(chunk)
    }
}

/// How each table's columns are written. Measured on captured Envoy spans: see the bench.
#[must_use]
pub fn properties(table: Table) -> WriterProperties {
    let level = ZstdLevel::try_new(1).unwrap_or_default();
    let row_group_rows = if table == Table::Edges { EDGES_ROW_GROUP_ROWS } else { ROW_GROUP_ROWS };
    let mut builder = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(concat!("windrose ", env!("CARGO_PKG_VERSION")).to_owned())
        // zstd-3 saves no byte over zstd-1 on spans.
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(Some(row_group_rows))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_column_statistics_enabled(ColumnPath::from(table.time_column()), EnabledStatistics::Page);
    let delta: &[&str] = match table {
        Table::Spans => &["start_ns", "duration_ns", "req_bytes"],
        Table::Hops => &["start_ns", "client_ns", "server_ns"],
        Table::Requests => &["start_ns", "duration_ns"],
        Table::Edges => &[],
    };
    for column in delta {
        let column = ColumnPath::from(*column);
        builder = builder
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
    }
    // Mostly different from row to row, or the same in all rows of a trace: a dictionary would be as large as the rows,
    // and a lookup would read all of it.
    let plain: &[&str] = match table {
        Table::Spans => &["request_id", "url_query", "delay_ms", "resp_bytes"],
        Table::Hops | Table::Requests | Table::Edges => &[],
    };
    for column in plain {
        builder = builder.set_column_dictionary_enabled(ColumnPath::from(*column), false);
    }
    // Random bytes: neither dictionaries, codecs nor bounds help.
    let random: &[&str] = match table {
        Table::Spans => &["span_id", "parent_span_id"],
        Table::Hops => &["client_span", "server_span"],
        Table::Requests => &["entry_span", "trace_id"],
        Table::Edges => &[],
    };
    for column in random {
        let column = ColumnPath::from(*column);
        builder = builder
            .set_column_dictionary_enabled(column.clone(), false)
            .set_column_compression(column.clone(), Compression::UNCOMPRESSED)
            .set_column_statistics_enabled(column, EnabledStatistics::None);
    }
    // Long texts nobody filters by order.
    let opaque: &[&str] = match table {
        Table::Spans => &["attribute_shape", "resource", "scope", "events", "links", "trace_id", "request_id"],
        Table::Hops | Table::Requests | Table::Edges => &[],
    };
    for column in opaque {
        builder = builder.set_column_statistics_enabled(ColumnPath::from(*column), EnabledStatistics::None);
    }
    builder.build()
}
