//! Reading rows out of a segment.

use std::error::Error;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use bytes::Bytes;
use futures::TryStreamExt;
use hashbrown::HashSet;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, RowSelection};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelector};
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use windrose_proto::id::TraceId;
use windrose_proto::span::Span;

use super::file_reader::FileReader;
use super::trace_index::DamagedIndex;
use super::{Segment, TraceIndex};
use crate::cache::Cache;
use crate::tables::spans::Restore;
use crate::tables::{Table, TableError, requests, spans};

/// Footers with their page indexes, by file.
pub type FooterCache = Cache<Path, ArrowReaderMetadata>;

/// Rows per batch when reading.
pub(super) const BATCH_ROWS: usize = 8 * 1024;

/// The object store failed while a sealed file was read; trying again may help.
#[derive(Debug, thiserror::Error)]
#[error("object store failed reading {path}")]
pub struct SegmentError {
    pub path: Path,
    #[source]
    source: object_store::Error,
}

/// Why a read did not work.
pub(crate) enum Failure {
    Store(object_store::Error),
    Damaged(String),
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        match error {
            object_store::Error::NotFound { .. } => Self::Damaged("the file is missing".to_owned()),
            other => Self::Store(other),
        }
    }
}

impl From<ParquetError> for Failure {
    fn from(error: ParquetError) -> Self {
        // The object store's own errors come wrapped when a Parquet reader does the reading.
        if let ParquetError::External(source) = error {
            return match source.downcast::<object_store::Error>() {
                Ok(store) => Self::from(*store),
                Err(other) => Self::Damaged(chain(&*other)),
            };
        }
        Self::Damaged(chain(&error))
    }
}

impl From<TableError> for Failure {
    fn from(error: TableError) -> Self {
        Self::Damaged(chain(&error))
    }
}

impl From<DamagedIndex> for Failure {
    fn from(error: DamagedIndex) -> Self {
        Self::Damaged(chain(&error))
    }
}

/// An error with its sources in one line.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl Segment {
    /// All rows, by the `from_batch` of its table. A damaged file is quarantined and has none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn read_rows<R: Send + 'static>(
        &self,
        from_batch: fn(&RecordBatch) -> Result<Vec<R>, TableError>,
    ) -> Result<Vec<R>, SegmentError> {
        if self.quarantine_reason().is_some() {
            return Ok(Vec::new());
        }
        let read = async {
            let file = self.read_file().await?;
            let table = self.table;
            decode_blocking(move || {
                let mut rows = Vec::new();
                let mut restore = (table == Table::Spans).then(Restore::default);
                for batch in ParquetRecordBatchReaderBuilder::try_new(file)?.with_batch_size(BATCH_ROWS).build()? {
                    let batch = batch.map_err(TableError::from)?;
                    rows.extend(match &mut restore {
                        Some(restore) => from_batch(&restore.batch(&batch)?)?,
                        None => from_batch(&batch)?,
                    });
                }
                Ok(rows)
            })
            .await
        };
        self.judge(read.await).await
    }

    /// The traces of a file of `requests` that late spans changed, with their revisions; read once.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn read_revised(&self) -> Result<&[(TraceId, u32)], SegmentError> {
        if let Some(revised) = self.revised.get() {
            return Ok(revised);
        }
        let mut revised = Vec::new();
        if self.may_have_revisions() {
            let rows = self.read_rows(requests::from_batch).await?.into_iter().filter(|row| row.revision > 1);
            revised.extend(rows.map(|row| (row.request.trace_id, row.revision)));
        }
        Ok(self.revised.get_or_init(|| revised))
    }

    /// What [`Self::read_revised`] has read.
    #[must_use]
    pub fn revised(&self) -> &[(TraceId, u32)] {
        self.revised.get().map(Vec::as_slice).unwrap_or_default()
    }

    /// The spans of some traces, in the order of the file. A damaged file is quarantined and has none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn read_spans_of_traces(
        &self,
        traces: &HashSet<TraceId>,
        footers: &FooterCache,
    ) -> Result<Vec<Span>, SegmentError> {
        let traces: HashSet<TraceId> = traces.iter().copied().filter(|trace| self.may_contain(*trace)).collect();
        if self.quarantine_reason().is_some() || traces.is_empty() {
            return Ok(Vec::new());
        }
        let read = async {
            let metadata = self.read_metadata(footers).await?;
            let rows = self.find_rows(&traces, &metadata).await?;
            let total = metadata.metadata().file_metadata().num_rows() as usize;
            if rows.iter().any(|range| range.end > total) {
                return Err(Failure::Damaged("the trace index names rows beyond the end of the file".to_owned()));
            }
            let received = spans::received_schema();
            let columns = columns_with_values(&metadata, &received);
            let batches = self.read_selection(metadata, &rows, &columns).await?;
            let mut found = Vec::new();
            let mut restore = Restore::default();
            for batch in &batches {
                found.extend(spans::from_batch(&restore.received(batch)?)?);
            }
            // The index knows traces by 56 bits of a hash.
            found.retain(|span| traces.contains(&span.trace_id));
            Ok(found)
        };
        self.judge(read.await).await
    }

    /// The whole file as it was written. A damaged file is quarantined, and there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn read_checked(&self) -> Result<Option<Bytes>, SegmentError> {
        if self.quarantine_reason().is_some() {
            return Ok(None);
        }
        let read = self.read_file().await;
        self.judge(read.map(Some)).await
    }

    /// The whole file, its checksum compared.
    pub(super) async fn read_file(&self) -> Result<Bytes, Failure> {
        let file = self.store.get(&self.path).await?.bytes().await?;
        if self.facts.crc32c.is_some_and(|crc| crc != crc32c::crc32c(&file)) {
            return Err(Failure::Damaged(format!("wrong checksum over its {} bytes", file.len())));
        }
        Ok(file)
    }

    pub(super) async fn read_metadata(&self, footers: &FooterCache) -> Result<ArrowReaderMetadata, Failure> {
        if let Some(metadata) = footers.get(&self.path) {
            return Ok(metadata);
        }
        let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
        let metadata = ArrowReaderMetadata::load_async(&mut self.reader(), options).await?;
        footers.insert(self.path.clone(), metadata.clone(), metadata.metadata().memory_size());
        Ok(metadata)
    }

    pub(super) fn reader(&self) -> FileReader {
        FileReader { store: Arc::clone(&self.store), path: self.path.clone(), bytes: self.bytes }
    }

    /// The rows that may be of `traces`, ascending: by the index, or by the column when there is none.
    async fn find_rows(
        &self,
        traces: &HashSet<TraceId>,
        metadata: &ArrowReaderMetadata,
    ) -> Result<Vec<Range<usize>>, Failure> {
        if let Some(index) = &self.index {
            match self.find_rows_by_index(traces, index).await {
                Ok(rows) => return Ok(rows),
                Err(Failure::Store(error)) => return Err(Failure::Store(error)),
                Err(Failure::Damaged(reason)) => {
                    tracing::warn!(path = %index.path, reason, "trace index is damaged, searching the file instead");
                }
            }
        }
        self.find_rows_by_column(traces, metadata.clone()).await
    }

    async fn find_rows_by_index(
        &self,
        traces: &HashSet<TraceId>,
        index: &TraceIndex,
    ) -> Result<Vec<Range<usize>>, Failure> {
        let wanted = traces.iter().map(|trace| (*trace, index.head.bucket_bytes(*trace)));
        let wanted: Vec<(TraceId, Range<u64>)> = wanted.filter(|(_, bucket)| !bucket.is_empty()).collect();
        let Some(first) = wanted.iter().map(|(_, bucket)| bucket.start).min() else { return Ok(Vec::new()) };
        let last = wanted.iter().map(|(_, bucket)| bucket.end).max().unwrap_or(first);
        // One request: of one trace it is one bucket, of many it is most of them.
        let buckets = self.store.get_range(&index.path, first..last).await?;
        let mut rows = Vec::new();
        for (trace, bucket) in wanted {
            let bucket = buckets.slice((bucket.start - first) as usize..(bucket.end - first) as usize);
            rows.extend(index.head.rows_in_bucket(trace, &bucket)?);
        }
        rows.sort_unstable_by_key(|range| range.start);
        Ok(rows)
    }

    async fn find_rows_by_column(
        &self,
        traces: &HashSet<TraceId>,
        metadata: ArrowReaderMetadata,
    ) -> Result<Vec<Range<usize>>, Failure> {
        let mut rows = Vec::new();
        let mut row = 0;
        for batch in self.read_all(metadata, "trace_id").await? {
            for id in spans::trace_ids(&batch)? {
                if traces.contains(&id) {
                    rows.push(row..row + 1);
                }
                row += 1;
            }
        }
        Ok(rows)
    }

    /// Some rows of some columns.
    async fn read_selection(
        &self,
        metadata: ArrowReaderMetadata,
        rows: &[Range<usize>],
        columns: &[&str],
    ) -> Result<Vec<RecordBatch>, Failure> {
        let total = metadata.metadata().file_metadata().num_rows() as usize;
        let builder =
            ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader(), metadata).with_batch_size(BATCH_ROWS);
        let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().copied());
        let builder = builder.with_projection(mask).with_row_selection(selection(rows, total));
        Ok(builder.build()?.try_collect().await?)
    }

    /// All rows of one column.
    async fn read_all(&self, metadata: ArrowReaderMetadata, column: &str) -> Result<Vec<RecordBatch>, Failure> {
        let builder =
            ParquetRecordBatchStreamBuilder::new_with_metadata(self.reader(), metadata).with_batch_size(BATCH_ROWS);
        let mask = ProjectionMask::columns(builder.parquet_schema(), [column]);
        Ok(builder.with_projection(mask).build()?.try_collect().await?)
    }

    /// Quarantines the file when that is why the read failed.
    pub(super) async fn judge<T: Default>(&self, read: Result<T, Failure>) -> Result<T, SegmentError> {
        let reason = match read {
            Ok(rows) => return Ok(rows),
            Err(Failure::Damaged(reason)) => reason,
            // Asking for what a file that was cut short has no more is an error like any other to a store.
            Err(Failure::Store(source)) => match self.store.head(&self.path).await {
                Ok(found) if found.size != self.bytes => {
                    format!("the file has {} bytes instead of {}", found.size, self.bytes)
                }
                _ => return Err(SegmentError { path: self.path.clone(), source }),
            },
        };
        self.quarantine(reason);
        Ok(T::default())
    }
}

/// The columns of `schema` in which the file has any value, as far as its footer says so: most attributes are sent by
/// one kind of proxy only, and a column of nulls costs as much to open as any other.
fn columns_with_values<'s>(metadata: &ArrowReaderMetadata, schema: &'s Schema) -> Vec<&'s str> {
    let names = || schema.fields().iter().map(|field| field.name().as_str());
    let nullable = schema.fields().iter().filter(|field| field.is_nullable());
    let mut empty: HashSet<&str> = nullable.map(|field| field.name().as_str()).collect();
    for group in metadata.metadata().row_groups() {
        for column in group.columns() {
            let nulls = column.statistics().and_then(|statistics| statistics.null_count_opt());
            if nulls != Some(column.num_values().cast_unsigned()) {
                empty.remove(column.column_path().parts().first().map_or("", String::as_str));
            }
        }
    }
    names().filter(|name| !empty.contains(name)).collect()
}

/// Ascending ranges as a selection over all rows.
fn selection(rows: &[Range<usize>], total: usize) -> RowSelection {
    let mut selectors = Vec::with_capacity(rows.len() * 2 + 1);
    let mut at = 0;
    for range in rows {
        let start = range.start.max(at);
        if start > at {
            selectors.push(RowSelector::skip(start - at));
        }
        if range.end > start {
            selectors.push(RowSelector::select(range.end - start));
            at = range.end;
        }
    }
    if total > at {
        selectors.push(RowSelector::skip(total - at));
    }
    RowSelection::from(selectors)
}

/// Decoding a file takes milliseconds, too long for a reactor thread.
async fn decode_blocking<T: Send + 'static>(
    decode: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::task::spawn_blocking(decode).await {
        Ok(result) => result,
        Err(panic) => Err(Failure::Damaged(chain(&panic))),
    }
}
