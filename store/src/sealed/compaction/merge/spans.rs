//! Merging span files: traces that lie in several files are brought together, and spans that two
//! collectors stored are stored once.
//!
//! Files are copied in order, so that traces stay in order of time. Where a trace first occurs that
//! other files have too, all its rows are written; where it occurs again, none.

use std::cmp::Reverse;
use std::collections::VecDeque;

use arrow::array::RecordBatch;
use arrow::compute::{concat_batches, interleave_record_batch, take_record_batch};
use bytes::Bytes;
use hashbrown::{HashMap, HashSet};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReaderBuilder, RowSelection};
use windrose_proto::id::TraceId;
use windrose_proto::span::Span;

use super::{BATCH_ROWS, open, open_columns};
use crate::segment::{BatchEncoder, Encoded};
use crate::tables::spans::{Restore, from_batch, trace_ids};
use crate::tables::{Table, TableError};

/// Rows of traces in several files that are held in memory, at about 1 KiB each. What is beyond
/// stays where it is, and lookups of those traces read two places.
const GATHERED_ROWS_MAX: usize = 64 * 1024;

pub(super) fn merge(files: Vec<Bytes>) -> Result<Encoded, TableError> {
    let mut gathered = Gathered::of(&files)?;
    let mut encoder = BatchEncoder::new(Table::Spans)?;
    let mut files = VecDeque::from(files);
    while let Some(file) = files.pop_front() {
        let mut restore = Restore::default();
        for batch in open(&file)? {
            let batch = restore.batch(&batch?)?;
            match gathered.order(&batch)? {
                None => encoder.write(&batch)?,
                Some(rows) => encoder.write(&interleave_record_batch(&[&batch, &gathered.rows], &rows)?)?,
            }
        }
    }
    Ok(encoder.finish()?)
}

/// The rows of traces that lie in several files.
struct Gathered {
    rows: RecordBatch,
    /// Which rows are of a trace, in order; taken when they are written.
    traces: HashMap<TraceId, Option<Vec<usize>>>,
}

impl Gathered {
    fn of(files: &[Bytes]) -> Result<Self, TableError> {
        let ids = files.iter().map(ids_of_file).collect::<Result<Vec<_>, _>>()?;
        let split = split_traces(&ids);
        let mut batches = Vec::new();
        for (file, ids) in files.iter().zip(&ids) {
            batches.extend(rows_of(file, ids, &split)?);
        }
        let rows = concat_batches(&Table::Spans.schema(), &batches)?;
        drop(batches);
        let mut traces: HashMap<TraceId, Option<Vec<usize>>> = HashMap::new();
        for (row, trace) in trace_ids(&rows)?.into_iter().enumerate() {
            traces.entry(trace).or_default().get_or_insert_default().push(row);
        }
        for places in traces.values_mut().flatten() {
            sort_and_dedup(&rows, places)?;
        }
        Ok(Self { rows, traces })
    }

    /// Which rows to write in place of a batch: from the batch itself (0) or from the gathered ones
    /// (1). `None` when it is to be written as it is.
    fn order(&mut self, batch: &RecordBatch) -> Result<Option<Vec<(usize, usize)>>, TableError> {
        let ids = trace_ids(batch)?;
        if self.traces.is_empty() || !ids.iter().any(|trace| self.traces.contains_key(trace)) {
            return Ok(None);
        }
        let mut order = Vec::with_capacity(ids.len());
        for (row, trace) in ids.into_iter().enumerate() {
            match self.traces.get_mut(&trace) {
                None => order.push((0, row)),
                Some(places) => order.extend(places.take().into_iter().flatten().map(|place| (1, place))),
            }
        }
        Ok(Some(order))
    }
}

fn ids_of_file(file: &Bytes) -> Result<Vec<TraceId>, TableError> {
    let mut ids = Vec::new();
    for batch in open_columns(file, &["trace_id"])? {
        ids.extend(trace_ids(&batch?)?);
    }
    Ok(ids)
}

/// The traces that lie in several files, as many as may be gathered.
fn split_traces(files: &[Vec<TraceId>]) -> HashSet<TraceId> {
    #[derive(Default)]
    struct Seen {
        file: usize,
        rows: usize,
        is_split: bool,
    }
    let mut traces: HashMap<TraceId, Seen> = HashMap::new();
    for (file, ids) in files.iter().enumerate() {
        for trace in ids {
            let seen = traces.entry(*trace).or_insert_with(|| Seen { file, ..Seen::default() });
            seen.rows += 1;
            seen.is_split |= seen.file != file;
        }
    }
    let mut split: Vec<(TraceId, usize)> =
        traces.into_iter().filter(|(_, seen)| seen.is_split).map(|(trace, seen)| (trace, seen.rows)).collect();
    // Equal input makes equal files.
    split.sort_unstable();
    let mut rows = 0;
    let fits = |(_, count): &(TraceId, usize)| {
        rows += count;
        rows <= GATHERED_ROWS_MAX
    };
    split.into_iter().take_while(fits).map(|(trace, _)| trace).collect()
}

/// The rows of `split` in one file.
fn rows_of(file: &Bytes, ids: &[TraceId], split: &HashSet<TraceId>) -> Result<Vec<RecordBatch>, TableError> {
    let wanted = ids.iter().enumerate().filter(|(_, trace)| split.contains(*trace)).map(|(row, _)| row..row + 1);
    let selection = RowSelection::from_consecutive_ranges(wanted, ids.len());
    if !selection.selects_any() {
        return Ok(Vec::new());
    }
    let builder = ParquetRecordBatchReaderBuilder::try_new(file.clone())?.with_batch_size(BATCH_ROWS);
    let mut restore = Restore::default();
    builder.with_row_selection(selection).build()?.map(|batch| restore.batch(&batch?)).collect()
}

/// Orders the rows of one trace by time and leaves out spans that are there twice, equal in everything.
fn sort_and_dedup(rows: &RecordBatch, places: &mut Vec<usize>) -> Result<(), TableError> {
    let indices = arrow::array::UInt64Array::from_iter_values(places.iter().map(|place| *place as u64));
    let spans = from_batch(&take_record_batch(rows, &indices)?)?;
    let mut order: Vec<(Span, usize)> = spans.into_iter().zip(places.iter().copied()).collect();
    order.sort_by_key(|(span, place)| (span.start, Reverse(span.end), span.span_id, span.kind, *place));
    order.dedup_by(|(later, _), (earlier, _)| later == earlier);
    *places = order.into_iter().map(|(_, place)| place).collect();
    Ok(())
}
