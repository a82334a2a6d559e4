//! Entries in every format, from real Envoys and as their documentation shows them.

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::json;
use windrose_proto::limits;
use windrose_proto::model::{IngestProtocol, SpanKind};
use windrose_proto::reject::RejectReason;
use windrose_proto::span::Span;
use windrose_proto::time::UnixNanos;

use crate::decode::{BodyFormat, ContentEncoding, Decoded, Origin, decode};

const ORIGIN: Origin = Origin { ingest: IngestProtocol::AccessLog, arrived: UnixNanos(1_800_000_000_000_000_000) };

/// As a sidecar of a real mesh wrote it.
const ISTIO_LINE: &str = "[2026-11-20T17:39:57.812Z] \"GET /report?id=7 HTTP/1.1\" 200 - via_upstream - \"-\" 0 12 64 63 \"-\" \
                          \"Python/3.11 aiohttp/3.14.5\" \"7fb01e80-89bc-9537-9370-2a71f74bb674\" \
                          \"inventory.shop.svc.cluster.local:8080\" \"127.0.0.15:15006\" \
                          outbound|8080||inventory.shop.svc.cluster.local 127.0.0.13:35982 127.0.0.13:15001 127.0.0.13:58835 \
                          - default\n";
const ENVOY_LINE: &str = "[2026-11-20T17:39:57.812Z] \"POST /pay HTTP/2\" 503 UF 11 91 3 - \"10.0.0.9\" \"curl/8\" \
                          \"7fb01e80-89bc-9537-9370-2a71f74bb674\" \"pay.example.com\" \"10.0.0.4:443\"";
const NODE: &str = "sidecar~127.0.0.13~users-v1-5f7c8.shop~shop.svc.cluster.local";

fn decoded(record: &serde_json::Value) -> Decoded {
    let resource = json!({"attributes": {"node_name": NODE, "service.name": "users.shop"}});
    let body = json!({"resourceLogs": [{"resource": resource, "scopeLogs": [{"logRecords": [record]}]}]}).to_string();
    decode(BodyFormat::OtlpLogsJson, ContentEncoding::Identity, &Bytes::from(body), ORIGIN).unwrap()
}

fn span(record: &serde_json::Value) -> Span {
    let mut decoded = decoded(record);
    assert!(decoded.rejected.is_empty(), "{}", decoded.rejected.summary());
    decoded.spans.pop().unwrap()
}

/// What the rules read of an entry.
#[track_caller]
fn check(record: &serde_json::Value, kind: SpanKind, millis: u64, expect: &[(&str, &str)]) {
    let span = span(record);
    assert_eq!((span.kind, span.duration_nanos()), (kind, millis * 1_000_000));
    for (key, value) in expect {
        let found = span.attributes.get(key).and_then(|value| value.to_text());
        assert_eq!(found.as_deref(), Some(*value), "{key}");
    }
    assert_eq!(span.parent_span_id, None);
    assert_eq!(span.ingest, IngestProtocol::AccessLog);
}

#[test]
fn a_method_of_any_length_makes_a_name_within_the_limit() {
    let method = "ü".repeat(limits::NAME_MAX_BYTES);
    let line = json!({"method": method, "response_code": 200, "response_flags": "-"}).to_string();
    let span = span(&json!({"timeUnixNano": "1795196397812202000", "body": line}));
    assert_eq!(span.name.len(), limits::NAME_MAX_BYTES);
    assert!(span.name.chars().all(|sign| sign == 'ü'), "cut between two characters");
}

#[test]
fn istios_default_text() {
    let record = json!({"timeUnixNano": "1795196397812202000", "body": ISTIO_LINE,
        "traceId": "a75d3c1d2454787e6b6fa1db6bb57fe4", "spanId": "191e6ae1ecd6a5a1"});
    check(
        &record,
        SpanKind::Client,
        64,
        &[
            ("http.url", "http://inventory.shop.svc.cluster.local:8080/report?id=7"),
            ("http.status_code", "200"),
            ("response_code_details", "via_upstream"),
            ("upstream_cluster", "outbound|8080||inventory.shop.svc.cluster.local"),
            ("upstream_local_address", "127.0.0.13:35982"),
            ("peer.address", "127.0.0.13"),
            ("guid:x-request-id", "7fb01e80-89bc-9537-9370-2a71f74bb674"),
            ("node_id", NODE),
        ],
    );
    let span = span(&record);
    assert_eq!(span.trace_id.to_string(), "a75d3c1d2454787e6b6fa1db6bb57fe4");
    assert_eq!(span.span_id.to_string(), "191e6ae1ecd6a5a1");
    assert!(span.attributes.get("log.record.body").is_none(), "all of it was read");
}

#[test]
fn envoys_default_text_attributes_maps_and_json() {
    let pay = [("http.url", "http://pay.example.com/pay"), ("http.status_code", "503"), ("error", "true")];
    check(&json!({"timeUnixNano": 1, "body": ENVOY_LINE}), SpanKind::Server, 3, &pay);
    let fields = json!({"method": "POST", "path": "/pay", "authority": "pay.example.com", "response_code": 503,
        "response_flags": "UF", "duration": 3, "upstream_cluster": "outbound|443||pay.example.com"});
    check(&json!({"timeUnixNano": 1, "attributes": fields}), SpanKind::Client, 3, &pay);
    check(&json!({"timeUnixNano": 1, "body": {"kvlistValue": {"values": fields}}}), SpanKind::Client, 3, &pay);
    check(&json!({"timeUnixNano": 1, "body": fields.to_string()}), SpanKind::Client, 3, &pay);
    let cut_off = fields.to_string();
    check(&json!({"timeUnixNano": 1, "body": cut_off[..cut_off.len() - 1]}), SpanKind::Client, 3, &pay);
}

#[test]
fn the_kind_is_that_of_the_proxys_span() {
    let entry = |more: serde_json::Value| {
        let mut fields = json!({"method": "GET", "response_code": "404", "response_flags": "NR"});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        span(&json!({"timeUnixNano": 1, "attributes": fields})).kind
    };
    assert_eq!(entry(json!({"upstream_cluster": "inbound|8080||"})), SpanKind::Server);
    assert_eq!(entry(json!({"upstream_cluster": "local_app"})), SpanKind::Server);
    assert_eq!(entry(json!({"upstream_cluster": "users"})), SpanKind::Client);
    assert_eq!(entry(json!({"traffic_direction": "INBOUND"})), SpanKind::Server);
    assert_eq!(entry(json!({"listener_direction": "gateway"})), SpanKind::Client);
    // Nothing is said: called from its own address, an outbound sidecar; else on the way in.
    assert_eq!(entry(json!({"downstream_remote_address": "127.0.0.13:4711"})), SpanKind::Client);
    assert_eq!(entry(json!({"downstream_remote_address": "127.0.0.14:4711"})), SpanKind::Server);
    assert_eq!(entry(json!({"node_id": "router~10.0.0.1~gw.ns~ns.svc"})), SpanKind::Client);
}

#[test]
fn without_a_context_the_request_id_is_the_trace_and_a_repeated_entry_the_same_span() {
    let record = json!({"timeUnixNano": 5, "body": ISTIO_LINE});
    let (first, again) = (span(&record), span(&record));
    assert_eq!(first.trace_id.to_string(), "7fb01e8089bc953793702a71f74bb674");
    assert_eq!((first.trace_id, first.span_id), (again.trace_id, again.span_id));
    let later = span(&json!({"timeUnixNano": 6, "body": ISTIO_LINE}));
    assert_eq!(first.trace_id, later.trace_id);
    assert_ne!(first.span_id, later.span_id);
    // Ids are stored: a new version must make the same.
    assert_eq!(first.span_id.to_string(), "fd46043112d292c7");
}

#[test]
fn other_logs_are_left_out_and_counted() {
    for record in [
        json!({"timeUnixNano": 5, "body": "user 7 logged in", "severityText": "INFO"}),
        json!({"timeUnixNano": 5, "body": "[x] \"GET / HTTP/1.1\" 200"}),
        json!({"timeUnixNano": 5, "attributes": {"method": "GET", "response_code": 200, "duration": 3}}),
        // A connection without a request.
        json!({"timeUnixNano": 5, "attributes": {"method": "-", "response_code": 0, "response_flags": "-"}}),
        json!({}),
    ] {
        let decoded = decoded(&record);
        assert_eq!(decoded.spans.len(), 0, "{record}");
        assert_eq!(decoded.rejected.count(RejectReason::NotAccessLog), 1, "{record}");
    }
}

#[test]
fn an_entry_without_a_time_is_refused() {
    let decoded = decoded(&json!({"body": ISTIO_LINE}));
    assert_eq!((decoded.spans.len(), decoded.rejected.count(RejectReason::BadTime)), (0, 1));
}

proptest! {
    #[test]
    fn any_line_is_read_or_kept(line in "\\[?[ -~]{0,200}", code in 0_u16..1000) {
        let record = json!({"timeUnixNano": 5, "body": line,
            "attributes": {"method": "GET", "response_code": code, "response_flags": "-"}});
        prop_assert_eq!(decoded(&record).spans.len(), 1);
    }
}
