//! Decoders of request bodies.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use windrose_proto::model::IngestProtocol;
use windrose_proto::span::Span;
use windrose_proto::time::UnixNanos;
use windrose_proto::{limits, otlp};

use crate::decode::{BodyFormat, ContentEncoding, Decoded, Origin, decode, decompress};

const ORIGIN: Origin = Origin { ingest: IngestProtocol::OtlpHttp, arrived: UnixNanos(1_760_000_000_000_000_000) };

/// Decodes `body`; what decodes stays within its limits and survives being written in both forms
/// of OTLP.
fn check(format: BodyFormat, body: &[u8]) -> Option<Decoded> {
    let decoded = decode(format, ContentEncoding::Identity, &Bytes::copy_from_slice(body), ORIGIN).ok()?;
    assert!(decoded.memory_bytes <= limits::DECODED_MAX_BYTES);
    assert_eq!(decoded.rejected.is_empty(), decoded.rejected.example().is_none());
    for span in &decoded.spans {
        assert!(span.attributes.len() <= limits::ATTRIBUTES_PER_SPAN_MAX);
        assert!(span.name.len() <= limits::NAME_MAX_BYTES);
    }
    let expect = sorted(&decoded.spans);
    let as_protobuf = Bytes::from(otlp::to_protobuf(&decoded.spans));
    let as_json = Bytes::from(otlp::to_json(&decoded.spans));
    for (format, written) in [(BodyFormat::OtlpProtobuf, as_protobuf), (BodyFormat::OtlpJson, as_json)] {
        let again = decode(format, ContentEncoding::Identity, &written, ORIGIN).expect("our own writing");
        assert!(again.rejected.is_empty(), "{}", again.rejected.summary());
        assert_eq!(sorted(&again.spans), expect);
    }
    Some(decoded)
}

/// What the reference implementation accepts, ours accepts, and accounts for every span of it.
pub fn check_against_prost(body: &[u8]) {
    let decoded = check(BodyFormat::OtlpProtobuf, body);
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return };
    let sent = request.resource_spans.iter().flat_map(|group| &group.scope_spans).map(|scope| scope.spans.len());
    // It allows values to nest six times deeper, which outside of spans refuses the body.
    if let Some(decoded) = decoded {
        assert_eq!(decoded.spans.len() as u64 + decoded.rejected.total(), sent.sum::<usize>() as u64);
    }
}

/// OTLP in JSON.
pub fn check_otlp_json(body: &[u8]) {
    check(BodyFormat::OtlpJson, body);
}

/// Access logs in OTLP's protobuf; every record becomes a span or is counted.
pub fn check_otlp_logs_protobuf(body: &[u8]) {
    let decoded = check(BodyFormat::OtlpLogsProtobuf, body);
    let Ok(request) = ExportLogsServiceRequest::decode(body) else { return };
    let sent = request.resource_logs.iter().flat_map(|group| &group.scope_logs).map(|scope| scope.log_records.len());
    if let Some(decoded) = decoded {
        assert_eq!(decoded.spans.len() as u64 + decoded.rejected.total(), sent.sum::<usize>() as u64);
    }
}

/// Access logs in OTLP's JSON.
pub fn check_otlp_logs_json(body: &[u8]) {
    check(BodyFormat::OtlpLogsJson, body);
}

/// The text of an access log entry, in whatever format.
pub fn check_access_log_line(line: &str) {
    let body = serde_json::json!({"resourceLogs": [{"scopeLogs": [{"logRecords": [{
        "timeUnixNano": "1760000000000000000", "body": {"stringValue": line},
    }]}]}]});
    let decoded = check(BodyFormat::OtlpLogsJson, body.to_string().as_bytes()).expect("a good request");
    assert_eq!(decoded.spans.len() as u64 + decoded.rejected.total(), 1);
}

/// Zipkin v2 in JSON.
pub fn check_zipkin_json(body: &[u8]) {
    check(BodyFormat::ZipkinJson, body);
}

/// Zipkin v2 in protobuf.
pub fn check_zipkin_protobuf(body: &[u8]) {
    check(BodyFormat::ZipkinProtobuf, body);
}

/// SkyWalking segments.
pub fn check_skywalking_json(body: &[u8]) {
    check(BodyFormat::SkywalkingJson, body);
}

/// Inflating stays under its cap.
pub fn check_compressed(body: &[u8]) {
    let Some((coding, body)) = body.split_first() else { return };
    let encoding = ContentEncoding::ALL[usize::from(*coding) % ContentEncoding::ALL.len()];
    if let Ok(content) = decompress(encoding, &Bytes::copy_from_slice(body)) {
        assert!(content.len() <= limits::DECOMPRESSED_MAX_BYTES);
    }
}

/// Writing groups spans by resource, so that their order may change.
fn sorted(spans: &[Span]) -> Vec<String> {
    let mut spans: Vec<String> = spans.iter().map(|span| format!("{span:?}")).collect();
    spans.sort();
    spans
}
