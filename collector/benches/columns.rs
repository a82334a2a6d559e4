//! Captured spans as sealed files: bytes per span and column, time per span, and every span read
//! back equal.
//!
//! `cargo bench -p windrose-collector --bench columns [-- CAPTURE.bin.zst [COPIES]]`. A capture is
//! repeated with other ids and times, because traces of one minute are fewer than a file holds.
//! Under `cargo test` the small captures in `tests/data` are written and read back.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints its figures and stops at the first surprise"
)]

use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf as _, Bytes};
use windrose_collector::decode::{BodyFormat, ContentEncoding, Origin, decode};
use windrose_collector::normalise::Normaliser;
use windrose_collector::normalise::overrides::Overrides;
use windrose_proto::id::{SpanId, TraceId};
use windrose_proto::model::IngestProtocol;
use windrose_proto::span::Span;
use windrose_proto::time::UnixNanos;
use windrose_store::row::SpanRow;
use windrose_store::segment::{encode_spans, file_bytes};
use windrose_store::tables::spans;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/data");
    for variant in ["full", "app-spans", "spawn-all", "spawn-none", "plain", "add-user-agent", "zipkin-shared"] {
        let rows = normalise(read_capture(&data.join(variant).join("capture/otlp.bin.zst")));
        check_lossless(&rows);
        println!("{variant}: {} spans read back equal", rows.len());
    }
    if std::env::args().any(|argument| argument == "--bench") {
        let capture = arguments.first().map_or(data.join("full/capture/otlp.bin.zst"), PathBuf::from);
        let copies = arguments.get(1).and_then(|copies| copies.parse().ok()).unwrap_or(20);
        measure(&repeat(&read_capture(&capture), copies));
    }
}

/// The spans of a `WRC1` container with their arrival: `u64le arrival | u8 kind | u16le length and
/// JSON | u32le length and body`, kinds 1 and 5 OTLP, 4 Zipkin.
fn read_capture(path: &Path) -> Vec<(Span, UnixNanos)> {
    let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut decoder = zstd::Decoder::new(file).unwrap();
    decoder.window_log_max(26).unwrap();
    let mut content = Vec::new();
    decoder.read_to_end(&mut content).unwrap();
    let mut content = Bytes::from(content);
    assert_eq!(content.split_to(4), "WRC1");
    let mut found = Vec::new();
    while content.has_remaining() {
        let arrived = UnixNanos(content.get_u64_le());
        let kind = content.get_u8();
        let meta_len = usize::from(content.get_u16_le());
        content.advance(meta_len);
        let body_len = content.get_u32_le() as usize;
        let body = content.split_to(body_len);
        let (format, ingest) = match kind {
            1 => (BodyFormat::OtlpProtobuf, IngestProtocol::OtlpGrpc),
            4 => (BodyFormat::ZipkinJson, IngestProtocol::Zipkin),
            5 => (BodyFormat::OtlpProtobuf, IngestProtocol::OtlpHttp),
            _ => continue,
        };
        let decoded = decode(format, ContentEncoding::Identity, &body, Origin { ingest, arrived }).unwrap();
        found.extend(decoded.spans.into_iter().map(|span| (span, arrived)));
    }
    found
}

fn normalise(spans: Vec<(Span, UnixNanos)>) -> Vec<SpanRow> {
    let mut normaliser = Normaliser::new(Overrides::default());
    spans
        .into_iter()
        .map(|(span, arrived)| SpanRow { normal: Arc::new(normaliser.normalise(&span)), span: Arc::new(span), arrived })
        .collect()
}

fn check_lossless(rows: &[SpanRow]) {
    for chunk in rows.chunks(1000) {
        let read = spans::from_batch(&spans::to_batch(chunk)).unwrap();
        for (read, row) in read.iter().zip(chunk) {
            assert_eq!(*read, *row.span);
        }
        assert_eq!(read.len(), chunk.len());
    }
}

/// Copies one after the other in time, with ids of their own. Request ids stay as they are, which
/// makes them cheaper than in reality by what one dictionary entry per trace costs.
fn repeat(spans: &[(Span, UnixNanos)], copies: u64) -> Vec<SpanRow> {
    let first = spans.iter().map(|(span, _)| span.start.0).min().unwrap_or_default();
    let last = spans.iter().map(|(span, _)| span.end.0).max().unwrap_or_default();
    let mut resources = HashMap::new();
    let mut copied = Vec::new();
    for copy in 0..copies {
        let later = UnixNanos(copy * (last - first));
        for (span, arrived) in spans {
            let mut span = span.clone();
            // One resource per message as decoded; the joiner shares equal ones the same way.
            span.resource = Arc::clone(resources.entry(format!("{:?}", span.resource)).or_insert(span.resource));
            span.trace_id = TraceId::new(mix(*span.trace_id.as_bytes(), copy)).unwrap();
            span.span_id = SpanId::new(mix(*span.span_id.as_bytes(), copy)).unwrap();
            span.parent_span_id = span.parent_span_id.map(|id| SpanId::new(mix(*id.as_bytes(), copy)).unwrap());
            span.start = UnixNanos(span.start.0 + later.0);
            span.end = UnixNanos(span.end.0 + later.0);
            copied.push((span, UnixNanos(arrived.0 + later.0)));
        }
    }
    normalise(copied)
}

/// Other bytes, as random as before.
fn mix<const N: usize>(mut id: [u8; N], copy: u64) -> [u8; N] {
    let key = copy.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    id.iter_mut().zip(key.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
    id
}

fn measure(rows: &[SpanRow]) {
    let count = rows.len() as f64;
    let mut sorted = rows.to_vec();
    spans::sort(&mut sorted);
    let started = Instant::now();
    let mut batches = spans::Batches::default();
    // As many at a time as a seal takes.
    for chunk in sorted.chunks(1024) {
        std::hint::black_box(batches.to_batch(chunk));
    }
    let columns = started.elapsed();
    let started = Instant::now();
    let encoded = encode_spans(rows.to_vec()).unwrap();
    let whole = started.elapsed();
    let index = encoded.trace_index.as_ref().map_or(0, |index| index.bytes.len());
    let bytes = file_bytes(&encoded.file).unwrap();
    println!("{} spans in {} row groups", bytes.rows, bytes.row_groups);
    println!(
        "columns {:.2} us/span, whole seal {:.2} us/span",
        columns.as_secs_f64() * 1e6 / count,
        whole.as_secs_f64() * 1e6 / count
    );
    println!("file {:.2} + trace index {:.2} bytes/span", encoded.file.len() as f64 / count, index as f64 / count);
    let mut by_size: Vec<(&String, &u64)> = bytes.columns.iter().collect();
    by_size.sort_by_key(|(_, bytes)| std::cmp::Reverse(**bytes));
    println!("  {:>7.3} footer and page index", bytes.overhead as f64 / count);
    for (column, bytes) in by_size {
        println!("  {:>7.3} {column}", *bytes as f64 / count);
    }
}
