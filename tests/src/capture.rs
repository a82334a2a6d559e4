//! Reads recorded traffic: container `WRC1`, everything a mesh of real Envoys sent and served.
//!
//! Layout after zstd: `"WRC1"`, then records of `u64le arrival_unix_ns | u8 kind | u16le meta_len | meta (JSON) |
//! u32le body_len | body`. Written by `tests/data/trim.py`; `tests/data/README.md` says what each capture holds.

use std::io::Read as _;
use std::path::Path;

use bytes::{Buf as _, Bytes};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use serde_json::Value;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ExportTraceServiceRequest` as it came over gRPC.
    OtlpTraces,
    /// `ExportLogsServiceRequest` as it came over gRPC: access logs.
    OtlpLogs,
    /// `ExportMetricsServiceRequest` as it came over gRPC: Envoy's stat sink.
    OtlpMetrics,
    /// A Zipkin v2 JSON array.
    Zipkin,
    /// A page of a proxy's `/stats/prometheus`.
    PrometheusText,
    /// Kinds that only the untrimmed captures have; no test reads them.
    Other(u8),
}

/// One message or page.
#[derive(Clone, Debug)]
pub struct Record {
    pub arrival_nanos: u64,
    pub kind: Kind,
    pub meta: Value,
    pub body: Bytes,
}

/// What was pushed: one message.
#[derive(Clone, Debug)]
pub enum Message {
    Otlp(ExportTraceServiceRequest),
    Logs(ExportLogsServiceRequest),
    Metrics(ExportMetricsServiceRequest),
    Zipkin(Vec<Value>),
}

/// A proxy's recorded pages, in the order they were served.
#[derive(Clone, Debug)]
pub struct ProxyPages {
    pub proxy: String,
    pub pages: Vec<Bytes>,
}

/// A recorded run.
#[derive(Clone, Debug)]
pub struct Capture {
    /// When the last message arrived in the recorded run.
    pub last_arrival_nanos: u64,
    pub messages: Vec<Message>,
    pub pages: Vec<ProxyPages>,
}

impl Capture {
    /// Reads a capture's folder.
    ///
    /// # Panics
    /// When it is not there or not readable: the tests' data is broken.
    #[must_use]
    pub fn load(folder: &Path) -> Self {
        let pushed = read_container(&folder.join("capture/otlp.bin.zst"));
        let last_arrival_nanos =
            pushed.iter().map(|record| record.arrival_nanos).max().expect("a capture has messages");
        let messages = pushed.iter().filter_map(message).collect();
        Self { last_arrival_nanos, messages, pages: read_pages(folder) }
    }
}

fn message(record: &Record) -> Option<Message> {
    match record.kind {
        Kind::OtlpTraces => {
            let request =
                ExportTraceServiceRequest::decode(record.body.clone()).expect("a recorded message is readable");
            Some(Message::Otlp(request))
        }
        Kind::OtlpLogs => {
            let request =
                ExportLogsServiceRequest::decode(record.body.clone()).expect("a recorded message is readable");
            Some(Message::Logs(request))
        }
        Kind::OtlpMetrics => {
            let request =
                ExportMetricsServiceRequest::decode(record.body.clone()).expect("a recorded message is readable");
            Some(Message::Metrics(request))
        }
        Kind::Zipkin => {
            let spans = serde_json::from_slice(&record.body).expect("a recorded message is a JSON array");
            Some(Message::Zipkin(spans))
        }
        Kind::PrometheusText | Kind::Other(_) => None,
    }
}

fn read_pages(folder: &Path) -> Vec<ProxyPages> {
    let path = folder.join("capture/prom.bin.zst");
    let mut proxies: Vec<ProxyPages> = Vec::new();
    if !path.is_file() {
        return proxies;
    }
    for record in read_container(&path) {
        if record.kind != Kind::PrometheusText || record.body.is_empty() {
            continue;
        }
        let name = record.meta.get("name").and_then(Value::as_str).expect("a page names its proxy");
        match proxies.iter_mut().find(|known| known.proxy == name) {
            Some(known) => known.pages.push(record.body),
            None => proxies.push(ProxyPages { proxy: name.to_owned(), pages: vec![record.body] }),
        }
    }
    proxies
}

/// Reads a zstd file whole.
///
/// # Panics
/// When it is not readable.
#[must_use]
pub fn read_zstd(path: &Path) -> Vec<u8> {
    let file = std::fs::File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut decoder = zstd::Decoder::new(file).expect("a zstd decoder");
    // The untrimmed captures are packed with a window of 2^26 to 2^27.
    decoder.window_log_max(27).expect("a window that zstd allows");
    let mut raw = Vec::new();
    decoder.read_to_end(&mut raw).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    raw
}

fn read_container(path: &Path) -> Vec<Record> {
    let mut rest = Bytes::from(read_zstd(path));
    assert!(rest.starts_with(b"WRC1"), "{} is not a WRC1 container", path.display());
    rest.advance(4);
    let mut records = Vec::new();
    while rest.has_remaining() {
        let arrival_nanos = rest.get_u64_le();
        let kind = match rest.get_u8() {
            1 => Kind::OtlpTraces,
            2 => Kind::OtlpLogs,
            3 => Kind::OtlpMetrics,
            4 => Kind::Zipkin,
            10 => Kind::PrometheusText,
            other => Kind::Other(other),
        };
        let meta_len = usize::from(rest.get_u16_le());
        let meta = serde_json::from_slice(&rest.split_to(meta_len)).expect("meta is JSON");
        let body_len = usize::try_from(rest.get_u32_le()).expect("a length in memory");
        records.push(Record { arrival_nanos, kind, meta, body: rest.split_to(body_len) });
    }
    records
}
