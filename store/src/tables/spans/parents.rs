//! Parents as distances: how many rows above its own the parent of a span stands.
//!
//! A parent's id is eight random bytes that stand in the file already, as the id of a span of the same trace a few
//! rows above; a distance takes a few bits of them. In files, `parent_back` is that distance and `parent_span_id` is
//! null; where the parent does not stand above (it lies elsewhere, or its clock is ahead) `parent_span_id` has the id
//! and `parent_back` is null. Everywhere else, `parent_span_id` is the id and `parent_back` is null.
//!
//! Invariants: a distance is at most [`BACK_MAX`] and never leaves the spans of one trace that stand together, nor
//! the row group. So the rows of a trace can be read without the rest of the file, and row groups without each other.
//! The rows of a trace stay in the order in which they were written: another order is noticed where a distance leads
//! nowhere, and not where it leads to another span of the trace.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, FixedSizeBinaryArray, Int32Array, RecordBatch};

use super::super::TableError;
use super::super::columns::{self, Reader, id_at, ids};

/// Farther parents are of traces with so many spans side by side that few ids are saved.
const BACK_MAX: usize = 256;

type Id = [u8; 8];

/// The ids of the rows above, of one trace.
#[derive(Debug, Default)]
struct Above {
    trace: Option<[u8; 16]>,
    ids: Vec<Id>,
}

impl Above {
    /// Goes to the next row, before its id is known.
    fn enter(&mut self, trace: Option<[u8; 16]>) {
        if self.trace != trace {
            self.trace = trace;
            self.ids.clear();
        }
        // Twice as many as are looked at, so that the list moves once in so many rows.
        if self.ids.len() >= 2 * BACK_MAX {
            self.ids.drain(..self.ids.len() - BACK_MAX);
        }
    }

    fn distance_of(&self, id: Id) -> Option<i32> {
        let above = self.ids.iter().rev().take(BACK_MAX);
        above.zip(1..).find(|(other, _)| **other == id).map(|(_, distance)| distance)
    }

    fn at(&self, distance: i32) -> Option<Id> {
        let distance = usize::try_from(distance).ok().filter(|distance| (1..=BACK_MAX).contains(distance))?;
        self.ids.len().checked_sub(distance).map(|place| self.ids[place])
    }
}

/// Turns ids into distances, batch after batch of one file.
#[derive(Debug)]
pub(crate) struct Shorten {
    above: Above,
    row_group_rows: usize,
    row: usize,
}

impl Shorten {
    /// For a file with row groups of so many rows.
    pub(crate) fn new(row_group_rows: usize) -> Self {
        Self { above: Above::default(), row_group_rows: row_group_rows.max(1), row: 0 }
    }

    /// The next rows of the file.
    ///
    /// # Errors
    /// When a column is missing.
    pub(crate) fn batch(&mut self, batch: &RecordBatch) -> Result<RecordBatch, TableError> {
        let reader = Reader::new(batch);
        let (traces, spans, parents) = (reader.id("trace_id")?, reader.id("span_id")?, reader.id("parent_span_id")?);
        let mut distances: Vec<Option<i32>> = Vec::with_capacity(batch.num_rows());
        for row in 0..batch.num_rows() {
            if self.row.is_multiple_of(self.row_group_rows) {
                self.above = Above::default();
            }
            self.row += 1;
            self.above.enter(id_at(traces, row));
            distances.push(id_at(parents, row).and_then(|parent| self.above.distance_of(parent)));
            self.above.ids.push(id_at(spans, row).unwrap_or_default());
        }
        let kept = (0..batch.num_rows()).map(|row| id_at::<8>(parents, row).filter(|_| distances[row].is_none()));
        let kept = ids(kept.collect::<Vec<_>>().into_iter());
        replace(batch, Arc::new(kept), Arc::new(Int32Array::from(distances)))
    }
}

/// Turns distances into ids, batch after batch: of whole files or row groups, or of whole traces.
#[derive(Debug, Default)]
pub struct Restore {
    above: Above,
}

impl Restore {
    /// The next rows, with the types of the table and every parent as an id.
    ///
    /// # Errors
    /// When a column is missing or a distance leads nowhere.
    pub fn batch(&mut self, batch: &RecordBatch) -> Result<RecordBatch, TableError> {
        self.conformed(&columns::conform(batch, &super::schema())?)
    }

    /// The next rows with the columns of [`super::received_schema`].
    ///
    /// # Errors
    /// As [`Self::batch`].
    pub fn received(&mut self, batch: &RecordBatch) -> Result<RecordBatch, TableError> {
        self.conformed(&columns::conform(batch, &super::received_schema())?)
    }

    fn conformed(&mut self, batch: &RecordBatch) -> Result<RecordBatch, TableError> {
        let reader = Reader::new(batch);
        let (traces, spans) = (reader.id("trace_id")?, reader.id("span_id")?);
        let restored = self.ids(traces, spans, reader.id("parent_span_id")?, reader.int("parent_back")?)?;
        let none = Int32Array::new_null(batch.num_rows());
        replace(batch, Arc::new(restored), Arc::new(none))
    }

    /// The ids of the parents of the next rows, from the columns that say them.
    ///
    /// # Errors
    /// When a distance leads nowhere.
    pub fn ids(
        &mut self,
        traces: &FixedSizeBinaryArray,
        spans: &FixedSizeBinaryArray,
        parents: &FixedSizeBinaryArray,
        distances: &Int32Array,
    ) -> Result<FixedSizeBinaryArray, TableError> {
        let mut restored = Vec::with_capacity(spans.len());
        for row in 0..spans.len() {
            self.above.enter(id_at(traces, row));
            restored.push(match distances.is_valid(row) {
                true => Some(self.above.at(distances.value(row)).ok_or_else(nowhere)?),
                false => id_at(parents, row),
            });
            self.above.ids.push(id_at(spans, row).unwrap_or_default());
        }
        Ok(ids(restored.into_iter()))
    }
}

fn nowhere() -> TableError {
    TableError::Inconsistent {
        column: "parent_back".to_owned(),
        why: "no span of the trace stands there: the rows are not in the order in which they were written; \
              restore the file from a backup",
    }
}

fn replace(batch: &RecordBatch, parents: ArrayRef, distances: ArrayRef) -> Result<RecordBatch, TableError> {
    let mut columns = batch.columns().to_vec();
    for (name, array) in [("parent_span_id", parents), ("parent_back", distances)] {
        let place = batch.schema_ref().index_of(name).map_err(|_| TableError::MissingColumn(name.to_owned()))?;
        columns[place] = array;
    }
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Array, AsArray, RecordBatch};
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::Index;
    use windrose_proto::id::{SpanId, TraceId};

    use super::super::{from_batch, to_batch};
    use super::{BACK_MAX, Restore, Shorten};
    use crate::row::SpanRow;
    use crate::tables::arbitrary::span_row;

    /// Rows of a few traces, each span the child of one that may stand above, below or nowhere.
    fn rows() -> impl Strategy<Value = Vec<SpanRow>> {
        let span = (1_u8..4, 1_u64..12, prop::option::of(1_u64..14));
        (span_row(), vec(span, 0..40)).prop_map(|(like, spans)| {
            let row = |(trace, id, parent): (u8, u64, Option<u64>)| span_of(&like, trace, id, parent);
            spans.into_iter().map(row).collect()
        })
    }

    fn span_of(like: &SpanRow, trace: u8, id: u64, parent: Option<u64>) -> SpanRow {
        let mut span = (*like.span).clone();
        let id_of = |id: u64| SpanId::new(id.to_be_bytes()).expect("not zero");
        span.trace_id = TraceId::new([trace; 16]).expect("not zero");
        (span.span_id, span.parent_span_id) = (id_of(id), parent.map(id_of));
        SpanRow { span: Arc::new(span), ..like.clone() }
    }

    /// The whole as batches that end after so many rows.
    fn cut(batch: &RecordBatch, rows: usize) -> Vec<RecordBatch> {
        let starts = (0..batch.num_rows()).step_by(rows);
        starts.map(|start| batch.slice(start, rows.min(batch.num_rows() - start))).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn distances_read_back_as_ids(rows in rows(), written in 1_usize..20, read in 1_usize..20, group in 1_usize..30) {
            let mut shorten = Shorten::new(group);
            let batches: Vec<RecordBatch> =
                cut(&to_batch(&rows), written).iter().map(|batch| shorten.batch(batch).unwrap()).collect();
            let file = arrow::compute::concat_batches(&to_batch(&[]).schema(), &batches).unwrap();
            let spans: Vec<_> = rows.iter().map(|row| (*row.span).clone()).collect();
            let mut restore = Restore::default();
            let found: Vec<_> =
                cut(&file, read).iter().flat_map(|batch| from_batch(&restore.batch(batch).unwrap()).unwrap()).collect();
            prop_assert_eq!(&found, &spans);
            let alone: Vec<_> = cut(&file, group).iter().flat_map(|batch| from_batch(batch).unwrap()).collect();
            prop_assert_eq!(&alone, &spans, "row groups without each other");
        }

        #[test]
        fn a_trace_reads_without_the_rest_of_the_file(rows in rows(), trace in any::<Index>()) {
            let file = Shorten::new(1 << 20).batch(&to_batch(&rows)).unwrap();
            let wanted = rows.get(trace.index(rows.len().max(1))).map(|row| row.span.trace_id);
            let is_wanted = rows.iter().map(|row| Some(row.span.trace_id) == wanted).map(Some);
            let part = arrow::compute::filter_record_batch(&file, &is_wanted.collect()).unwrap();
            let spans: Vec<_> =
                rows.iter().filter(|row| Some(row.span.trace_id) == wanted).map(|row| (*row.span).clone()).collect();
            prop_assert_eq!(from_batch(&part).unwrap(), spans);
        }
    }

    #[test]
    fn a_parent_above_costs_no_id_and_a_distant_one_keeps_it() {
        let like = proptest::strategy::ValueTree::current(
            &span_row().new_tree(&mut proptest::test_runner::TestRunner::deterministic()).unwrap(),
        );
        let rows: Vec<SpanRow> =
            (0..BACK_MAX as u64 + 2).map(|row| span_of(&like, 1, row + 1, (row > 0).then_some(1))).collect();
        let file = Shorten::new(1 << 20).batch(&to_batch(&rows)).unwrap();
        let distances = file.column_by_name("parent_back").unwrap().as_primitive::<arrow::datatypes::Int32Type>();
        assert!(distances.is_null(0), "the first has no parent");
        assert_eq!((distances.value(1), distances.value(BACK_MAX)), (1, BACK_MAX as i32));
        assert!(distances.is_null(BACK_MAX + 1), "too far up");
        assert_eq!(file.column_by_name("parent_span_id").unwrap().null_count(), BACK_MAX + 1);
    }

    #[test]
    fn a_distance_that_leads_nowhere_is_an_error() {
        let like = proptest::strategy::ValueTree::current(
            &span_row().new_tree(&mut proptest::test_runner::TestRunner::deterministic()).unwrap(),
        );
        let rows = [span_of(&like, 1, 1, None), span_of(&like, 1, 2, Some(1))];
        let file = Shorten::new(1 << 20).batch(&to_batch(&rows)).unwrap();
        let error = from_batch(&file.slice(1, 1)).unwrap_err();
        assert!(error.to_string().contains("parent_back"), "{error}");
    }
}
