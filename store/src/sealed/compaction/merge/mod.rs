//! Rewriting several files of one table as one, batch by batch.
//!
//! Held in memory: the compressed input, released file by file where it is read once, the
//! compressed output, and a few batches between them.

mod edges;
mod spans;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;

use arrow::array::{AsArray, BooleanArray, RecordBatch};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type};
use bytes::Bytes;
use hashbrown::HashMap;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;
use windrose_proto::id::TraceId;

use crate::segment::{BatchEncoder, Encoded};
use crate::tables::{Table, TableError, conform, spans::trace_ids};

/// Rows read at a time.
const BATCH_ROWS: usize = 8 * 1024;

/// [`merge`] on the blocking pool. `None` when the files cannot be merged: their checksums were
/// right, so they are as they were written, by another version or another program.
pub(super) async fn merge_blocking(table: Table, files: Vec<Bytes>, window_nanos: u64) -> Option<Encoded> {
    let error: Box<dyn std::error::Error + Send + Sync> =
        match tokio::task::spawn_blocking(move || merge(table, files, window_nanos)).await {
            Ok(Ok(encoded)) => return Some(encoded),
            Ok(Err(error)) => error.into(),
            Err(panic) => panic.into(),
        };
    tracing::warn!(
        table = table.name(),
        error = &*error as &dyn std::error::Error,
        "files cannot be merged and stay as they are"
    );
    None
}

/// One file with the rows of all, rows of `edges` by at least this window.
fn merge(table: Table, files: Vec<Bytes>, window_nanos: u64) -> Result<Encoded, TableError> {
    match table {
        Table::Spans => spans::merge(files),
        Table::Hops | Table::Requests => latest_revisions(table, files),
        Table::Edges => edges::merge(&files, window_nanos),
    }
}

/// Copies all rows but those that a newer revision of their trace in these files supersedes.
fn latest_revisions(table: Table, files: Vec<Bytes>) -> Result<Encoded, TableError> {
    let mut revised: HashMap<TraceId, i64> = HashMap::new();
    for file in &files {
        for batch in open_columns(file, &["trace_id", "revision"])? {
            let batch = batch?;
            for (trace, revision) in trace_ids(&batch)?.into_iter().zip(revisions(&batch)?) {
                // Nothing is superseded by a first revision.
                if revision > 1 {
                    let latest = revised.entry(trace).or_default();
                    *latest = revision.max(*latest);
                }
            }
        }
    }
    let mut encoder = BatchEncoder::new(table)?;
    let mut files = VecDeque::from(files);
    while let Some(file) = files.pop_front() {
        for batch in open(&file)? {
            let batch = conform(&batch?, table)?;
            let rows = trace_ids(&batch)?.into_iter().zip(revisions(&batch)?);
            let is_latest = |(trace, revision)| revised.get(&trace).is_none_or(|latest| revision >= *latest);
            let is_latest: BooleanArray = rows.map(|row| Some(is_latest(row))).collect();
            encoder.write(&filter_record_batch(&batch, &is_latest)?)?;
        }
    }
    Ok(encoder.finish()?)
}

fn open(file: &Bytes) -> Result<ParquetRecordBatchReader, ParquetError> {
    ParquetRecordBatchReaderBuilder::try_new(file.clone())?.with_batch_size(BATCH_ROWS).build()
}

/// Only some columns.
fn open_columns(file: &Bytes, columns: &[&str]) -> Result<ParquetRecordBatchReader, ParquetError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file.clone())?.with_batch_size(BATCH_ROWS);
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
    builder.with_projection(mask).build()
}

fn revisions(batch: &RecordBatch) -> Result<Vec<i64>, TableError> {
    let missing = || TableError::MissingColumn("revision".to_owned());
    let column = cast(batch.column_by_name("revision").ok_or_else(missing)?, &DataType::Int64)?;
    Ok(column.as_primitive::<Int64Type>().values().to_vec())
}
