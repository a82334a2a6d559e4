use hashbrown::HashSet;
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use windrose_proto::span::Span;

use super::encode::encode_spans_with;
use super::{
    Encoded, FooterCache, Segment, TraceIndex, TraceIndexHead, encode_edges, encode_hops, encode_requests,
    encode_spans, properties,
};
use crate::row::SpanRow;
use crate::tables::arbitrary::{edge_row, hop_row, request_row, span_row};
use crate::tables::{Table, edges, hops, requests};

fn sample<S: Strategy>(strategy: S, count: usize) -> Vec<S::Value> {
    let mut runner = TestRunner::deterministic();
    (0..count).map(|_| strategy.new_tree(&mut runner).unwrap().current()).collect()
}

async fn put(table: Table, encoded: &Encoded) -> (Arc<dyn ObjectStore>, Segment) {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let path = Path::from("file.parquet");
    store.put(&path, encoded.file.clone().into()).await.unwrap();
    let index_path = Path::from("file.index");
    let index = match &encoded.trace_index {
        None => None,
        Some(index) => {
            store.put(&index_path, index.bytes.clone().into()).await.unwrap();
            Some(TraceIndex { path: index_path, head: TraceIndexHead::decode(&index.bytes).unwrap() })
        }
    };
    let segment = Segment::new(table, Arc::clone(&store), path, encoded.file.len() as u64, encoded.facts.into(), index);
    (store, segment)
}

fn spans_of(rows: &[SpanRow], trace: windrose_proto::id::TraceId) -> Vec<Span> {
    let mut rows = rows.to_vec();
    crate::tables::spans::sort(&mut rows);
    rows.iter().filter(|row| row.span.trace_id == trace).map(|row| (*row.span).clone()).collect()
}

#[tokio::test]
async fn each_trace_is_read_whole_and_alone() {
    let rows = sample(span_row(), 200);
    let encoded = encode_spans(rows.clone()).unwrap();
    let (_, segment) = put(Table::Spans, &encoded).await;
    for trace in rows.iter().map(|row| row.span.trace_id).take(20) {
        assert_eq!(
            segment.read_spans_of_traces(&HashSet::from([trace]), &FooterCache::new(1 << 20)).await.unwrap(),
            spans_of(&rows, trace)
        );
    }
    assert_eq!(segment.rows(), 200);
    assert_eq!(segment.quarantine_reason(), None);
}

#[tokio::test]
async fn without_a_trace_index_the_file_is_searched() {
    let rows = sample(span_row(), 50);
    let encoded = encode_spans(rows.clone()).unwrap();
    let trace = rows[7].span.trace_id;
    let none = Encoded { trace_index: None, ..encoded.clone() };
    let (_, segment) = put(Table::Spans, &none).await;
    assert_eq!(
        segment.read_spans_of_traces(&HashSet::from([trace]), &FooterCache::new(1 << 20)).await.unwrap(),
        spans_of(&rows, trace)
    );
    let (store, segment) = put(Table::Spans, &encoded).await;
    let mut damaged = encoded.trace_index.unwrap();
    damaged.bytes[damaged.head_bytes..].fill(0xff);
    store.put(&Path::from("file.index"), damaged.bytes.into()).await.unwrap();
    assert_eq!(
        segment.read_spans_of_traces(&HashSet::from([trace]), &FooterCache::new(1 << 20)).await.unwrap(),
        spans_of(&rows, trace)
    );
}

#[tokio::test]
async fn rows_come_back_in_order_of_time() {
    let mut rows = sample(hop_row(), 60);
    let (_, segment) = put(Table::Hops, &encode_hops(rows.clone()).unwrap()).await;
    rows.sort_by_key(|row| (row.hop.start, row.hop.trace_id, row.revision));
    assert_eq!(segment.read_rows(hops::from_batch).await.unwrap(), rows);
    assert_eq!(segment.time_range(), (rows[0].hop.start, rows[59].hop.start));
    assert_eq!(segment.may_have_revisions(), rows.iter().any(|row| row.revision > 1));

    let mut rows = sample(request_row(), 60);
    let (_, segment) = put(Table::Requests, &encode_requests(rows.clone()).unwrap()).await;
    rows.sort_by_key(|row| (row.request.start, row.request.trace_id, row.revision));
    assert_eq!(segment.read_rows(requests::from_batch).await.unwrap(), rows);

    let mut rows = sample(edge_row(), 30);
    let (_, segment) = put(Table::Edges, &encode_edges(rows.clone()).unwrap()).await;
    rows.sort_by(|a, b| (a.window_start, &a.key).cmp(&(b.window_start, &b.key)));
    assert_eq!(segment.read_rows(edges::from_batch).await.unwrap(), rows);
}

#[tokio::test]
async fn a_damaged_file_is_quarantined_and_answers_nothing() {
    let rows = sample(hop_row(), 20);
    let encoded = encode_hops(rows).unwrap();
    for place in [0, encoded.file.len() / 2, encoded.file.len() - 5] {
        let (store, segment) = put(Table::Hops, &encoded).await;
        let mut damaged = encoded.file.to_vec();
        damaged[place] ^= 0x04;
        store.put(segment.path(), damaged.into()).await.unwrap();
        assert!(segment.read_rows(hops::from_batch).await.unwrap().is_empty());
        let reason = segment.quarantine_reason().unwrap();
        assert!(reason.contains("wrong checksum"), "{reason}");
    }
}

#[tokio::test]
async fn a_file_that_was_cut_short_is_quarantined() {
    let rows = sample(span_row(), 20);
    let encoded = encode_spans(rows.clone()).unwrap();
    let (store, segment) = put(Table::Spans, &encoded).await;
    store.put(segment.path(), encoded.file.slice(..encoded.file.len() / 2).into()).await.unwrap();
    let wanted = HashSet::from([rows[0].span.trace_id]);
    assert_eq!(segment.read_spans_of_traces(&wanted, &FooterCache::new(1 << 20)).await.unwrap(), []);
    let reason = segment.quarantine_reason().unwrap();
    assert!(reason.contains("bytes"), "says how long it is and should be: {reason}");
}

#[tokio::test]
async fn damaged_and_missing_span_files_do_not_fail_a_lookup() {
    let rows = sample(span_row(), 20);
    let encoded = encode_spans(rows.clone()).unwrap();
    let (store, segment) = put(Table::Spans, &encoded).await;
    store.put(segment.path(), vec![7; encoded.file.len()].into()).await.unwrap();
    assert!(
        segment
            .read_spans_of_traces(&HashSet::from([rows[0].span.trace_id]), &FooterCache::new(1 << 20))
            .await
            .unwrap()
            .is_empty()
    );
    assert!(segment.quarantine_reason().is_some());
    let (store, segment) = put(Table::Spans, &encoded).await;
    store.delete(segment.path()).await.unwrap();
    assert!(
        segment
            .read_spans_of_traces(&HashSet::from([rows[0].span.trace_id]), &FooterCache::new(1 << 20))
            .await
            .unwrap()
            .is_empty()
    );
    assert_eq!(segment.quarantine_reason(), Some("the file is missing"));
}

#[tokio::test]
async fn large_files_have_several_row_groups() {
    // Spans of many traces over more than one row group: lookups cross pages and groups.
    let base = sample(span_row(), 1).remove(0);
    let rows: Vec<SpanRow> = (1..5_000_u64)
        .map(|number| {
            let mut span = (*base.span).clone();
            span.trace_id = windrose_proto::id::TraceId::new(u128::from(number / 7 + 1).to_be_bytes()).unwrap();
            span.span_id = windrose_proto::id::SpanId::new(number.to_be_bytes()).unwrap();
            span.start = windrose_proto::time::UnixNanos(number);
            span.events.clear();
            span.links.clear();
            SpanRow { span: Arc::new(span), ..base.clone() }
        })
        .collect();
    let small = properties(Table::Spans)
        .into_builder()
        .set_max_row_group_row_count(Some(1000))
        .set_data_page_row_count_limit(128);
    let encoded = encode_spans_with(rows.clone(), small.build()).unwrap();
    let (_, segment) = put(Table::Spans, &encoded).await;
    for place in [0, 500, 999, 1000, 2_500, 4_998] {
        let trace = rows[place].span.trace_id;
        assert_eq!(
            segment.read_spans_of_traces(&HashSet::from([trace]), &FooterCache::new(1 << 20)).await.unwrap(),
            spans_of(&rows, trace),
            "row {place}"
        );
    }
    let absent = windrose_proto::id::TraceId::new([0xee; 16]).unwrap();
    assert!(
        segment.read_spans_of_traces(&HashSet::from([absent]), &FooterCache::new(1 << 20)).await.unwrap().is_empty()
    );
}
