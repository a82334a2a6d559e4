use std::sync::Arc;

use arrow::array::{Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use windrose_proto::Text;
use windrose_proto::attributes::{Attributes, Value};

use super::arbitrary::{edge_row, hop_row, request_row, span_row};
use super::{Table, edges, hops, requests, spans};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hops_read_back_equal(rows in vec(hop_row(), 0..20)) {
        prop_assert_eq!(hops::from_batch(&hops::to_batch(&rows)).unwrap(), rows);
    }

    #[test]
    fn requests_read_back_equal(rows in vec(request_row(), 0..20)) {
        prop_assert_eq!(requests::from_batch(&requests::to_batch(&rows)).unwrap(), rows);
    }

    #[test]
    fn edges_read_back_equal(rows in vec(edge_row(), 0..12)) {
        prop_assert_eq!(edges::from_batch(&edges::to_batch(&rows)).unwrap(), rows);
    }

    #[test]
    fn spans_read_back_as_received(rows in vec(span_row(), 0..16)) {
        let read = spans::from_batch(&spans::to_batch(&rows)).unwrap();
        let received: Vec<_> = rows.iter().map(|row| (*row.span).clone()).collect();
        prop_assert_eq!(read, received);
    }

    #[test]
    fn a_span_needs_no_column_that_rules_read_out(rows in vec(span_row(), 0..8)) {
        let batch = spans::to_batch(&rows);
        let received = spans::received_schema();
        let kept: Vec<usize> =
            received.fields().iter().map(|field| batch.schema_ref().index_of(field.name()).unwrap()).collect();
        prop_assert_eq!(kept.len() + 22, batch.num_columns());
        let spans: Vec<_> = rows.iter().map(|row| (*row.span).clone()).collect();
        prop_assert_eq!(spans::from_batch(&batch.project(&kept).unwrap()).unwrap(), spans);
    }

    #[test]
    fn other_writers_types_and_order_read_the_same(rows in vec(hop_row(), 1..6)) {
        let batch = hops::to_batch(&rows);
        prop_assert_eq!(hops::from_batch(&rewritten(&batch)).unwrap(), rows);
    }
}

/// As a foreign compaction would leave it: large strings, plain binary, all nullable, reversed.
fn rewritten(batch: &RecordBatch) -> RecordBatch {
    let mut fields = Vec::new();
    let mut arrays = Vec::new();
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()).rev() {
        let to = match field.data_type() {
            DataType::Utf8 => DataType::LargeUtf8,
            DataType::FixedSizeBinary(_) => DataType::Binary,
            other => other.clone(),
        };
        fields.push(Field::new(field.name(), to.clone(), true));
        arrays.push(cast(array, &to).unwrap());
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

#[test]
fn a_missing_required_column_is_named() {
    let batch = hops::to_batch(&[]);
    let without = batch.project(&(1..batch.num_columns()).collect::<Vec<_>>()).unwrap();
    assert_eq!(hops::from_batch(&without).unwrap_err().to_string(), "column trace_id is missing");
}

/// Column names and types are public: changing one must be a decision.
#[test]
fn columns_are_those_that_were_published() {
    for table in Table::ALL {
        let mut listing = String::new();
        for field in table.schema().fields() {
            let null = if field.is_nullable() { "?" } else { "" };
            listing.push_str(&format!("{} {}{null}\n", field.name(), field.data_type()));
        }
        let path = format!("{}/src/tables/schemas/{}.txt", env!("CARGO_MANIFEST_DIR"), table.name());
        let published = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(listing, published, "{path} must list exactly the columns of {}", table.name());
    }
}

/// Envoy by itself says the cluster's name, Istio says it with a semicolon.
#[test]
fn a_cluster_is_stored_once_in_either_spelling() {
    let mut row = span_row().new_tree(&mut TestRunner::deterministic()).unwrap().current();
    Arc::make_mut(&mut row.normal).upstream_cluster = Some(Text::from_static("outbound|80||users"));
    for spelled in ["outbound|80||users", "outbound|80||users;", "another"] {
        let mut attributes = Attributes::default();
        attributes.push("upstream_cluster.name", Value::Str(Text::from(spelled)));
        Arc::make_mut(&mut row.span).attributes = attributes;
        let batch = spans::to_batch(std::slice::from_ref(&row));
        let stored = batch.column_by_name("attr_upstream_cluster_name").unwrap();
        assert_eq!(stored.null_count() == 0, spelled == "another", "{spelled}");
        assert_eq!(spans::from_batch(&batch).unwrap(), [(*row.span).clone()]);
    }
}
