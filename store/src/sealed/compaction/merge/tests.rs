use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::TestRunner;
use windrose_proto::edge::{EdgeKey, EdgeRow, EdgeStats};
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::span::Span;
use windrose_proto::time::UnixNanos;

use super::{merge, open};
use crate::row::{HopRow, SpanRow};
use crate::segment::{Encoded, encode_edges, encode_hops, encode_spans};
use crate::tables::arbitrary::{edge_row, hop_row, span_row};
use crate::tables::{Table, TableError, edges, hops, spans};

const MINUTE: u64 = 60_000_000_000;
const HOUR: u64 = 60 * MINUTE;

fn sample<S: Strategy>(strategy: &S, runner: &mut TestRunner, count: usize) -> Vec<S::Value> {
    (0..count).map(|_| strategy.new_tree(runner).unwrap().current()).collect()
}

fn read<R>(encoded: &Encoded, from_batch: fn(&arrow::array::RecordBatch) -> Result<Vec<R>, TableError>) -> Vec<R> {
    open(&encoded.file).unwrap().flat_map(|batch| from_batch(&batch.unwrap()).unwrap()).collect()
}

/// Spans as (trace, span), starting that many seconds in.
fn span_file(rows: &[(u8, u64)]) -> Bytes {
    let mut runner = TestRunner::deterministic();
    let strategy = span_row();
    let rows = rows.iter().map(|(trace, id)| {
        let row = strategy.new_tree(&mut runner).unwrap().current();
        let mut span = Span::clone(&row.span);
        span.trace_id = TraceId::new([*trace; 16]).unwrap();
        span.span_id = SpanId::new(id.to_be_bytes()).unwrap();
        span.start = UnixNanos::from_secs(*id);
        span.end = UnixNanos::from_secs(id + 1);
        SpanRow { span: Arc::new(span), ..row }
    });
    encode_spans(rows.collect()).unwrap().file
}

#[test]
fn traces_in_several_files_are_brought_together() {
    let files = vec![
        span_file(&[(1, 10), (1, 11), (2, 12), (3, 13)]),
        span_file(&[(4, 20), (2, 11), (2, 21)]),
        span_file(&[(1, 30), (5, 31), (2, 32)]),
    ];
    let mut sent: Vec<Span> = files
        .iter()
        .flat_map(|file| open(file).unwrap())
        .flat_map(|batch| spans::from_batch(&batch.unwrap()).unwrap())
        .collect();
    let merged = merge(Table::Spans, files, 0).unwrap();
    let mut found = read(&merged, spans::from_batch);
    let order: Vec<(u8, u64)> =
        found.iter().map(|span| (span.trace_id.as_bytes()[0], u64::from_be_bytes(*span.span_id.as_bytes()))).collect();
    let expect = [(1, 10), (1, 11), (1, 30), (2, 11), (2, 12), (2, 21), (2, 32), (3, 13), (4, 20), (5, 31)];
    assert_eq!(order, expect);
    assert_eq!((merged.facts.rows, merged.facts.first), (10, UnixNanos::from_secs(10)));
    let key = |span: &Span| (span.trace_id, span.span_id);
    sent.sort_by_key(key);
    found.sort_by_key(key);
    assert_eq!(found, sent, "every span as it was");
}

#[test]
fn a_span_that_two_collectors_stored_is_kept_once() {
    let twice = span_file(&[(1, 10), (1, 11)]);
    let more = span_file(&[(1, 10), (1, 12), (2, 13)]);
    // The sampler starts anew for each file, so the first rows of two files have equal content.
    let merged = merge(Table::Spans, vec![twice.clone(), twice, more], 0).unwrap();
    let ids: Vec<u64> =
        read(&merged, spans::from_batch).iter().map(|span| u64::from_be_bytes(*span.span_id.as_bytes())).collect();
    assert_eq!(ids, [10, 11, 12, 13]);
}

#[test]
fn rows_of_superseded_revisions_are_dropped() {
    let template = sample(&hop_row(), &mut TestRunner::deterministic(), 1).remove(0);
    let file = |rows: &[(u8, u32)]| {
        let row = |(trace, revision): &(u8, u32)| {
            let mut hop = (*template.hop).clone();
            hop.trace_id = TraceId::new([*trace; 16]).unwrap();
            HopRow { hop: Arc::new(hop), revision: *revision }
        };
        encode_hops(rows.iter().map(row).collect()).unwrap().file
    };
    let files = vec![file(&[(1, 1), (1, 1), (2, 1), (3, 1)]), file(&[(2, 3), (1, 2), (2, 2), (2, 3)])];
    let merged = merge(Table::Hops, files, 0).unwrap();
    let kept: Vec<(u8, u32)> =
        read(&merged, hops::from_batch).iter().map(|row| (row.hop.trace_id.as_bytes()[0], row.revision)).collect();
    assert_eq!(kept, [(3, 1), (1, 2), (2, 3), (2, 3)]);
    assert_eq!(merged.facts.revision_max, 3);
}

#[test]
fn rollup_rows_are_added_up_exactly() {
    let mut runner = TestRunner::deterministic();
    let keys: Vec<Arc<EdgeKey>> = sample(&edge_row(), &mut runner, 3).into_iter().map(|row| row.key).collect();
    let rows: Vec<EdgeRow> = sample(&edge_row(), &mut runner, 60)
        .into_iter()
        .enumerate()
        .map(|(place, row)| EdgeRow {
            window_start: UnixNanos(1000 * HOUR + place as u64 * 7 % 60 * 5 * MINUTE),
            window_nanos: MINUTE,
            key: Arc::clone(&keys[place % 3]),
            stats: row.stats,
        })
        .collect();
    let files: Vec<Bytes> = rows.chunks(13).map(|rows| encode_edges(rows.to_vec()).unwrap().file).collect();
    for width in [MINUTE, HOUR, 24 * HOUR] {
        let mut expect: BTreeMap<(UnixNanos, Arc<EdgeKey>), EdgeStats> = BTreeMap::new();
        for row in &rows {
            let cell = (row.window_start.window_start(width), Arc::clone(&row.key));
            expect.entry(cell).or_default().merge(&row.stats);
        }
        let merged = merge(Table::Edges, files.clone(), width).unwrap();
        let found = read(&merged, edges::from_batch);
        assert_eq!(found.len(), expect.len());
        assert_eq!(merged.facts.window_nanos, Some(width));
        for (row, ((window_start, key), stats)) in found.iter().zip(&expect) {
            assert_eq!((row.window_start, row.window_nanos, &row.key), (*window_start, width, key));
            let sums = |stats: &EdgeStats| {
                let spans = &stats.spans;
                let latency =
                    [&spans.client, &spans.server].map(|side| (side.count, side.sum_nanos, side.sketch.clone()));
                let counters = (stats.client_counters.clone(), stats.server_counters.clone());
                (spans.calls, spans.errors, spans.by_class.clone(), spans.overhead_sum_nanos, latency, counters)
            };
            assert_eq!(sums(&row.stats), sums(stats));
        }
    }
    // By the hour and then by the day is the same as by the day.
    let hours: Vec<Bytes> =
        files.chunks(2).map(|files| merge(Table::Edges, files.to_vec(), HOUR).unwrap().file).collect();
    let by_way_of_hours = read(&merge(Table::Edges, hours, 24 * HOUR).unwrap(), edges::from_batch);
    let at_once = read(&merge(Table::Edges, files, 24 * HOUR).unwrap(), edges::from_batch);
    assert_eq!(by_way_of_hours.len(), at_once.len());
    assert!(
        by_way_of_hours.iter().zip(&at_once).all(|(a, b)| a.stats.spans.calls == b.stats.spans.calls && a.key == b.key)
    );
}
