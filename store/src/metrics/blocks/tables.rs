//! Columns of the tables `series`, `samples` and `exemplars`.
//!
//! A block is one file of each, with the same name. `series` and `samples` are ordered by metric
//! name, then by `series_id`, so that a query for one metric reads neighbouring row groups; a row of
//! `series` says where its rows are in the `samples` file of the block. How to compute values from
//! `samples` is said in [`super::rows`].

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int32Array, Int64Array, ListArray, MapArray, RecordBatch, StringArray,
    StructArray,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int32Type, Int64Type, Schema, SchemaRef};
use hashbrown::HashSet;
use windrose_proto::metric::{Exemplar, Label, Labels};

use super::rows::{SampleRow, Times, Values};

/// One of the three tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    Series,
    Samples,
    Exemplars,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::Series, Self::Samples, Self::Exemplars];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Series => "series",
            Self::Samples => "samples",
            Self::Exemplars => "exemplars",
        }
    }

    pub(super) const fn description(self) -> &'static str {
        match self {
            Self::Series => "one row per block and metric series: its labels and where its samples are",
            Self::Samples => {
                "samples of metric series: value i = (first + sum of increments 0..i) / 10^exponent, or values[i]; \
                 time i = first_ms + i * step_ms, or plus the sum of steps before i; a null increment ends the series"
            }
            Self::Exemplars => "examples behind metric series, such as traces",
        }
    }

    pub(super) fn schema(self) -> SchemaRef {
        static SCHEMAS: LazyLock<[SchemaRef; 3]> = LazyLock::new(|| {
            let schema = |fields: Vec<Field>| Arc::new(Schema::new(fields));
            let long = |name| Field::new(name, DataType::Int64, false);
            let long_opt = |name| Field::new(name, DataType::Int64, true);
            let int = |name| Field::new(name, DataType::Int32, false);
            let labels = || Field::new("labels", labels_type(), false);
            let list = |name, element: &Arc<Field>| Field::new(name, DataType::List(Arc::clone(element)), true);
            [
                schema(vec![
                    long("series_id"),
                    Field::new("metric", DataType::Utf8, false),
                    labels(),
                    long("first_ms"),
                    long("last_ms"),
                    long("samples"),
                    long("samples_row"),
                    int("samples_rows"),
                ]),
                schema(vec![
                    long("series_id"),
                    long("first_ms"),
                    long("last_ms"),
                    int("samples"),
                    long_opt("step_ms"),
                    list("steps", &step_element()),
                    Field::new("exponent", DataType::Int32, true),
                    long_opt("first"),
                    list("increments", &increment_element()),
                    list("values", &value_element()),
                ]),
                schema(vec![long("series_id"), long("at_ms"), Field::new("value", DataType::Float64, false), labels()]),
            ]
        });
        Arc::clone(&SCHEMAS[self as usize])
    }
}

fn step_element() -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Int64, false))
}

fn increment_element() -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Int64, true))
}

fn value_element() -> Arc<Field> {
    Arc::new(Field::new("element", DataType::Float64, false))
}

fn entry_fields() -> Fields {
    vec![Field::new("key", DataType::Utf8, false), Field::new("value", DataType::Utf8, false)].into()
}

fn entry_field() -> Arc<Field> {
    Arc::new(Field::new("key_value", DataType::Struct(entry_fields()), false))
}

fn labels_type() -> DataType {
    DataType::Map(entry_field(), false)
}

/// A file that does not hold the columns it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("column {0} is missing or of another type")]
pub(super) struct BadColumn(&'static str);

// ── writing ────────────────────────────────────────────────────────────────────────────────────

/// One row of `series`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SeriesRow {
    pub(super) series_id: u64,
    pub(super) labels: Labels,
    pub(super) first_ms: i64,
    pub(super) last_ms: i64,
    pub(super) samples: u64,
    /// Number of its first row in the file of samples, and how many they are.
    pub(super) samples_row: u64,
    pub(super) samples_rows: u32,
}

/// One row of `exemplars`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ExemplarRow {
    pub(super) series_id: u64,
    pub(super) exemplar: Exemplar,
}

pub(super) fn series_batch(rows: &[SeriesRow]) -> RecordBatch {
    let metric: StringArray = rows.iter().map(|row| Some(row.labels.metric_name())).collect();
    batch(
        Kind::Series,
        vec![
            longs(rows.iter().map(|row| row.series_id as i64)),
            Arc::new(metric),
            labels_array(rows.iter().map(|row| &row.labels)),
            longs(rows.iter().map(|row| row.first_ms)),
            longs(rows.iter().map(|row| row.last_ms)),
            longs(rows.iter().map(|row| row.samples as i64)),
            longs(rows.iter().map(|row| row.samples_row as i64)),
            ints(rows.iter().map(|row| row.samples_rows as i32)),
        ],
    )
}

pub(super) fn samples_batch(rows: &[SampleRow]) -> RecordBatch {
    let step = rows.iter().map(|row| match row.times {
        Times::Regular(step_ms) => Some(step_ms),
        Times::Steps(_) => None,
    });
    let steps: Vec<Option<&[i64]>> = rows
        .iter()
        .map(|row| match &row.times {
            Times::Regular(_) => None,
            Times::Steps(steps) => Some(steps.as_slice()),
        })
        .collect();
    let decimal = |row: &SampleRow| match row.values {
        Values::Decimal { exponent, first, .. } => Some((exponent, first)),
        Values::Floats(_) => None,
    };
    let increments: Vec<Option<&[Option<i64>]>> = rows
        .iter()
        .map(|row| match &row.values {
            Values::Decimal { increments, .. } => Some(increments.as_slice()),
            Values::Floats(_) => None,
        })
        .collect();
    let values: Vec<Option<&[f64]>> = rows
        .iter()
        .map(|row| match &row.values {
            Values::Decimal { .. } => None,
            Values::Floats(values) => Some(values.as_slice()),
        })
        .collect();
    let step_items = Int64Array::from_iter_values(steps.iter().flatten().flat_map(|list| list.iter().copied()));
    let increment_items: Int64Array = increments.iter().flatten().flat_map(|list| list.iter().copied()).collect();
    let value_items = Float64Array::from_iter_values(values.iter().flatten().flat_map(|list| list.iter().copied()));
    batch(
        Kind::Samples,
        vec![
            longs(rows.iter().map(|row| row.series_id as i64)),
            longs(rows.iter().map(|row| row.first_ms)),
            longs(rows.iter().map(|row| row.last_ms)),
            ints(rows.iter().map(|row| row.samples as i32)),
            Arc::new(step.collect::<Int64Array>()),
            lists(step_element(), &steps, Arc::new(step_items)),
            Arc::new(
                rows.iter().map(|row| decimal(row).map(|(exponent, _)| i32::from(exponent))).collect::<Int32Array>(),
            ),
            Arc::new(rows.iter().map(|row| decimal(row).map(|(_, first)| first)).collect::<Int64Array>()),
            lists(increment_element(), &increments, Arc::new(increment_items)),
            lists(value_element(), &values, Arc::new(value_items)),
        ],
    )
}

pub(super) fn exemplars_batch(rows: &[ExemplarRow]) -> RecordBatch {
    batch(
        Kind::Exemplars,
        vec![
            longs(rows.iter().map(|row| row.series_id as i64)),
            longs(rows.iter().map(|row| row.exemplar.timestamp)),
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.exemplar.value))),
            labels_array(rows.iter().map(|row| &row.exemplar.labels)),
        ],
    )
}

fn batch(kind: Kind, arrays: Vec<ArrayRef>) -> RecordBatch {
    RecordBatch::try_new(kind.schema(), arrays).expect("the arrays are made in the order of the schema")
}

fn longs(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values))
}

fn ints(values: impl Iterator<Item = i32>) -> ArrayRef {
    Arc::new(Int32Array::from_iter_values(values))
}

/// Lists some of which are null, of items that lie one after the other.
fn lists<T>(element: Arc<Field>, lists: &[Option<&[T]>], items: ArrayRef) -> ArrayRef {
    let offsets = OffsetBuffer::from_lengths(lists.iter().map(|list| list.map_or(0, <[T]>::len)));
    let valid: NullBuffer = lists.iter().map(Option::is_some).collect::<Vec<bool>>().into();
    Arc::new(ListArray::new(element, offsets, items, Some(valid)))
}

#[expect(clippy::needless_pass_by_value, reason = "an iterator that is cloned for every column")]
fn labels_array<'a>(rows: impl Iterator<Item = &'a Labels> + Clone) -> ArrayRef {
    let labels = || rows.clone().flat_map(Labels::iter);
    let keys: StringArray = labels().map(|label| Some(&*label.name)).collect();
    let values: StringArray = labels().map(|label| Some(&*label.value)).collect();
    let entries = StructArray::new(entry_fields(), vec![Arc::new(keys), Arc::new(values)], None);
    let offsets = OffsetBuffer::from_lengths(rows.clone().map(Labels::len));
    Arc::new(MapArray::new(entry_field(), offsets, entries, None, false))
}

// ── reading ────────────────────────────────────────────────────────────────────────────────────

/// The rows of `series`, without the labels of series that are known already.
pub(super) fn read_series(
    batch: &RecordBatch,
    texts: &mut Texts,
    is_known: impl Fn(u64) -> bool,
) -> Result<Vec<SeriesRow>, BadColumn> {
    let ids = long_column(batch, "series_id")?;
    let labels = labels_column(batch)?;
    let (first_ms, last_ms) = (long_column(batch, "first_ms")?, long_column(batch, "last_ms")?);
    let samples = long_column(batch, "samples")?;
    let (row, rows) = (long_column(batch, "samples_row")?, int_column(batch, "samples_rows")?);
    let read = |index: usize| SeriesRow {
        series_id: ids.value(index) as u64,
        labels: if is_known(ids.value(index) as u64) { Labels::default() } else { labels_at(labels, index, texts) },
        first_ms: first_ms.value(index),
        last_ms: last_ms.value(index),
        samples: samples.value(index) as u64,
        samples_row: row.value(index) as u64,
        samples_rows: rows.value(index) as u32,
    };
    Ok((0..batch.num_rows()).map(read).collect())
}

pub(super) fn read_samples(batch: &RecordBatch) -> Result<Vec<SampleRow>, BadColumn> {
    let ids = long_column(batch, "series_id")?;
    let (first_ms, last_ms) = (long_column(batch, "first_ms")?, long_column(batch, "last_ms")?);
    let samples = int_column(batch, "samples")?;
    let (step_ms, steps) = (long_column(batch, "step_ms")?, list_column(batch, "steps")?);
    let (exponent, first) = (int_column(batch, "exponent")?, long_column(batch, "first")?);
    let (increments, values) = (list_column(batch, "increments")?, list_column(batch, "values")?);
    let step_items = steps.values().as_primitive_opt::<Int64Type>().ok_or(BadColumn("steps"))?;
    let increment_items = increments.values().as_primitive_opt::<Int64Type>().ok_or(BadColumn("increments"))?;
    let value_items = values.values().as_primitive_opt::<Float64Type>().ok_or(BadColumn("values"))?;
    let range = |list: &ListArray, index: usize| {
        let offsets = list.value_offsets();
        offsets[index] as usize..offsets[index + 1] as usize
    };
    let read = |index: usize| SampleRow {
        series_id: ids.value(index) as u64,
        first_ms: first_ms.value(index),
        last_ms: last_ms.value(index),
        samples: usize::try_from(samples.value(index)).unwrap_or_default(),
        times: if step_ms.is_valid(index) {
            Times::Regular(step_ms.value(index))
        } else {
            Times::Steps(step_items.values()[range(steps, index)].to_vec())
        },
        values: if exponent.is_valid(index) {
            let item = |item: usize| increment_items.is_valid(item).then(|| increment_items.value(item));
            let increments = range(increments, index).map(item).collect();
            let exponent = u8::try_from(exponent.value(index)).unwrap_or(u8::MAX);
            Values::Decimal { exponent, first: first.value(index), increments }
        } else {
            Values::Floats(value_items.values()[range(values, index)].to_vec())
        },
    };
    Ok((0..batch.num_rows()).map(read).collect())
}

pub(super) fn read_exemplars(batch: &RecordBatch) -> Result<Vec<ExemplarRow>, BadColumn> {
    let (ids, at_ms) = (long_column(batch, "series_id")?, long_column(batch, "at_ms")?);
    let value = column(batch, "value")?.as_primitive_opt::<Float64Type>().ok_or(BadColumn("value"))?;
    let labels = labels_column(batch)?;
    let mut texts = Texts::default();
    let read = |index: usize| ExemplarRow {
        series_id: ids.value(index) as u64,
        exemplar: Exemplar {
            labels: labels_at(labels, index, &mut texts),
            value: value.value(index),
            timestamp: at_ms.value(index),
        },
    };
    Ok((0..batch.num_rows()).map(read).collect())
}

fn column<'a>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a ArrayRef, BadColumn> {
    batch.column_by_name(name).ok_or(BadColumn(name))
}

fn long_column<'a>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a Int64Array, BadColumn> {
    column(batch, name)?.as_primitive_opt::<Int64Type>().ok_or(BadColumn(name))
}

fn int_column<'a>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a Int32Array, BadColumn> {
    column(batch, name)?.as_primitive_opt::<Int32Type>().ok_or(BadColumn(name))
}

fn list_column<'a>(batch: &'a RecordBatch, name: &'static str) -> Result<&'a ListArray, BadColumn> {
    column(batch, name)?.as_list_opt::<i32>().ok_or(BadColumn(name))
}

/// Keys and values of the labels, and where those of a row begin and end.
fn labels_column(batch: &RecordBatch) -> Result<(&MapArray, &StringArray, &StringArray), BadColumn> {
    let map = column(batch, "labels")?.as_map_opt().ok_or(BadColumn("labels"))?;
    let keys = map.keys().as_string_opt::<i32>().ok_or(BadColumn("labels"))?;
    let values = map.values().as_string_opt::<i32>().ok_or(BadColumn("labels"))?;
    Ok((map, keys, values))
}

fn labels_at((map, keys, values): (&MapArray, &StringArray, &StringArray), index: usize, texts: &mut Texts) -> Labels {
    let offsets = map.value_offsets();
    let entries = offsets[index] as usize..offsets[index + 1] as usize;
    let is_sorted = entries.clone().skip(1).all(|entry| keys.value(entry - 1) < keys.value(entry));
    let has_values = entries.clone().all(|entry| !values.value(entry).is_empty());
    if !is_sorted || !has_values {
        // Written by somebody else.
        return Labels::from_pairs(entries.map(|entry| (keys.value(entry), values.value(entry))));
    }
    let label = |entry| Label { name: texts.share(keys.value(entry)), value: texts.share(values.value(entry)) };
    Labels::from_sorted(entries.map(label).collect())
}

/// Texts that were read before, so that equal ones are kept once.
#[derive(Debug, Default)]
pub(super) struct Texts(HashSet<Arc<str>>);

impl Texts {
    fn share(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.0.get(text) {
            return Arc::clone(known);
        }
        let text: Arc<str> = text.into();
        self.0.insert(Arc::clone(&text));
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(text: &str) -> Labels {
        Labels::from_pairs(text.split(' ').filter_map(|pair| pair.split_once('=')))
    }

    /// Column names and types are public: changing one must be a decision.
    #[test]
    fn columns_are_those_that_were_published() {
        for kind in Kind::ALL {
            let mut listing = String::new();
            for field in kind.schema().fields() {
                let null = if field.is_nullable() { "?" } else { "" };
                listing.push_str(&format!("{} {}{null}\n", field.name(), field.data_type()));
            }
            let path = format!("{}/src/tables/schemas/{}.txt", env!("CARGO_MANIFEST_DIR"), kind.name());
            let published = std::fs::read_to_string(&path).unwrap_or_default();
            assert_eq!(listing, published, "{path} must list exactly the columns of {}", kind.name());
        }
    }

    #[test]
    fn rows_survive_as_columns() {
        let samples = [
            SampleRow::new(
                u64::MAX,
                &[1, 2, 3],
                &[1.0, 2.0, f64::from_bits(windrose_proto::metric::STALE_MARKER_BITS)],
            ),
            SampleRow::new(2, &[1, 5, 6], &[0.1 + 0.2, f64::MAX, -0.0]),
            SampleRow::new(3, &[-9], &[0.25]),
        ];
        assert_eq!(read_samples(&samples_batch(&samples)).unwrap(), samples);
        let series = [SeriesRow {
            series_id: u64::MAX,
            labels: labels("__name__=up pod=a"),
            first_ms: -1,
            last_ms: 5,
            samples: 3,
            samples_row: 1024,
            samples_rows: 2,
        }];
        assert_eq!(read_series(&series_batch(&series), &mut Texts::default(), |_| false).unwrap(), series);
        let known = read_series(&series_batch(&series), &mut Texts::default(), |id| id == u64::MAX).unwrap();
        assert!(known[0].labels.is_empty() && known[0].samples_row == 1024);
        let exemplar = Exemplar { labels: labels("trace_id=abc"), value: 0.5, timestamp: 7 };
        let exemplars = [ExemplarRow { series_id: 1, exemplar }];
        assert_eq!(read_exemplars(&exemplars_batch(&exemplars)).unwrap(), exemplars);
        assert_eq!(
            read_series(&exemplars_batch(&exemplars), &mut Texts::default(), |_| false),
            Err(BadColumn("first_ms"))
        );
    }
}
