//! Real traffic: recorded from real Envoys, samples of every proxy, and, where they are at hand,
//! documents of other vendors.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use bytes::{Buf as _, Bytes};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use windrose_proto::model::IngestProtocol;
use windrose_proto::otlp;
use windrose_proto::span::Span;
use windrose_proto::time::UnixNanos;

use super::{BodyFormat, ContentEncoding, Decoded, Origin, decode};
use crate::tests::{shared, skip};

/// Kinds of records in a capture.
const OTLP_TRACES: u8 = 1;
const ZIPKIN_JSON: u8 = 4;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Records of a capture as (arrival, kind, body); the layout is described beside the captures.
fn records(path: &Path) -> Vec<(UnixNanos, u8, Bytes)> {
    let mut content = Vec::new();
    let mut decoder = zstd::Decoder::new(std::fs::File::open(path).unwrap()).unwrap();
    decoder.window_log_max(26).unwrap();
    decoder.read_to_end(&mut content).unwrap();
    let mut content = Bytes::from(content);
    assert_eq!(content.split_to(4), "WRC1");
    let mut records = Vec::new();
    while content.has_remaining() {
        let arrived = UnixNanos(content.get_u64_le());
        let kind = content.get_u8();
        let meta_len = content.get_u16_le();
        content.advance(usize::from(meta_len));
        let body_len = content.get_u32_le() as usize;
        records.push((arrived, kind, content.split_to(body_len)));
    }
    records
}

#[track_caller]
fn decode_all(format: BodyFormat, ingest: IngestProtocol, arrived: UnixNanos, body: &Bytes) -> Decoded {
    let decoded = decode(format, ContentEncoding::Identity, body, Origin { ingest, arrived }).unwrap();
    assert!(decoded.rejected.is_empty(), "{}", decoded.rejected.summary());
    decoded
}

/// Order is by resource after writing.
fn sorted(spans: &[Span]) -> Vec<String> {
    let mut spans: Vec<String> = spans.iter().map(|span| format!("{span:?}")).collect();
    spans.sort();
    spans
}

/// Writes and reads spans in both forms of OTLP.
#[track_caller]
fn survives_writing(decoded: &Decoded) {
    let arrived = UnixNanos(u64::MAX);
    let ingest = decoded.spans.first().map_or(IngestProtocol::OtlpGrpc, |span| span.ingest);
    let as_protobuf = Bytes::from(otlp::to_protobuf(&decoded.spans));
    let as_json = Bytes::from(otlp::to_json(&decoded.spans));
    let expect = sorted(&decoded.spans);
    assert_eq!(sorted(&decode_all(BodyFormat::OtlpProtobuf, ingest, arrived, &as_protobuf).spans), expect);
    assert_eq!(sorted(&decode_all(BodyFormat::OtlpJson, ingest, arrived, &as_json).spans), expect);
}

#[test]
fn recorded_envoys_decode_without_loss() {
    let captures = ["add-user-agent", "app-spans", "full", "plain", "spawn-all", "spawn-none", "zipkin-shared"];
    for capture in captures {
        let path = repository().join("tests/data").join(capture).join("capture/otlp.bin.zst");
        let mut spans = 0;
        for (arrived, kind, body) in records(&path) {
            let decoded = match kind {
                OTLP_TRACES => {
                    let request = ExportTraceServiceRequest::decode(&body[..]).unwrap();
                    let sent: usize = request
                        .resource_spans
                        .iter()
                        .flat_map(|group| &group.scope_spans)
                        .map(|scope| scope.spans.len())
                        .sum();
                    let decoded = decode_all(BodyFormat::OtlpProtobuf, IngestProtocol::OtlpGrpc, arrived, &body);
                    assert_eq!(decoded.spans.len(), sent);
                    decoded
                }
                ZIPKIN_JSON => {
                    let sent: Vec<serde_json::Value> = serde_json::from_slice(&body).unwrap();
                    let decoded = decode_all(BodyFormat::ZipkinJson, IngestProtocol::Zipkin, arrived, &body);
                    assert_eq!(decoded.spans.len(), sent.len());
                    for (span, sent) in decoded.spans.iter().zip(&sent) {
                        assert_eq!(span.trace_id.to_string(), sent["traceId"].as_str().unwrap());
                        assert_eq!(span.span_id.to_string(), sent["id"].as_str().unwrap());
                        assert_eq!(span.start.0, sent["timestamp"].as_u64().unwrap() * 1000);
                        assert_eq!(span.duration_nanos(), sent["duration"].as_u64().unwrap() * 1000);
                        assert_eq!(span.shared, sent.get("shared").is_some_and(|shared| shared == true));
                        let tags = sent["tags"].as_object().unwrap();
                        assert_eq!(span.attributes.len(), tags.len());
                        for (key, value) in tags {
                            assert_eq!(span.attributes.get(key).unwrap().as_str(), value.as_str());
                        }
                    }
                    decoded
                }
                _ => continue,
            };
            survives_writing(&decoded);
            spans += decoded.spans.len();
        }
        assert!(spans > 500, "{capture} has {spans} spans");
    }
}

/// Documents in `folder` whose names end so.
fn documents(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_str().is_some_and(|path| path.ends_with(suffix)))
        .collect();
    paths.sort();
    paths
}

fn read(path: &Path) -> Bytes {
    Bytes::from(std::fs::read(path).unwrap())
}

#[test]
fn samples_of_every_proxy_decode_without_loss() {
    let samples = repository().join("collector/tests/data/samples");
    let now = UnixNanos(1_790_000_000_000_000_000);
    let (otlp, zipkin) = (documents(&samples, ".otlp.json"), documents(&samples, ".zipkin.json"));
    assert!(otlp.len() >= 20 && zipkin.len() >= 4, "{} and {} samples", otlp.len(), zipkin.len());
    for path in otlp {
        survives_writing(&decode_all(BodyFormat::OtlpJson, IngestProtocol::OtlpHttp, now, &read(&path)));
    }
    for path in zipkin {
        survives_writing(&decode_all(BodyFormat::ZipkinJson, IngestProtocol::Zipkin, now, &read(&path)));
    }
}

#[test]
fn samples_in_json_equal_those_in_protobuf() {
    let Some(samples) = shared("model/samples") else {
        return skip("samples in protobuf", "TESTS_SHARED names no folder with model/samples");
    };
    let now = UnixNanos(1_790_000_000_000_000_000);
    let pairs = documents(&samples, ".otlp.pb");
    assert!(pairs.len() >= 20, "{} samples", pairs.len());
    for path in pairs {
        let from_protobuf = decode_all(BodyFormat::OtlpProtobuf, IngestProtocol::OtlpHttp, now, &read(&path));
        let json = read(&path.with_extension("json"));
        let from_json = decode_all(BodyFormat::OtlpJson, IngestProtocol::OtlpHttp, now, &json);
        assert_eq!(from_json.spans, from_protobuf.spans, "{}", path.display());
    }
}

#[test]
fn documents_of_other_vendors_decode() {
    let Some(proxies) = shared("proxies") else {
        return skip("documents of other vendors", "TESTS_SHARED names no folder with proxies");
    };
    let now = UnixNanos(1_790_000_000_000_000_000);
    let mut zipkin = documents(&proxies.join("zipkin-spec"), ".json");
    zipkin.push(proxies.join("envoy/zipkin-lens-envoy.json"));
    for path in zipkin {
        let body = read(&path);
        let is_otlp = body.starts_with(b"{") && body.windows(13).any(|window| window == b"resourceSpans");
        let (format, ingest) = if is_otlp {
            (BodyFormat::OtlpJson, IngestProtocol::OtlpHttp)
        } else {
            (BodyFormat::ZipkinJson, IngestProtocol::Zipkin)
        };
        let decoded = decode(format, ContentEncoding::Identity, &body, Origin { ingest, arrived: now }).unwrap();
        let sent: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let sent = sent.as_array().map_or(1, Vec::len);
        println!("{}: {} spans, {}", path.display(), decoded.spans.len(), decoded.rejected.summary());
        assert!(decoded.spans.len() as u64 + decoded.rejected.total() >= sent as u64);
        assert!(!decoded.spans.is_empty(), "{}", path.display());
        survives_writing(&Decoded { rejected: super::Rejections::default(), ..decoded });
    }
}
