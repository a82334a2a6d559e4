//! The exact documents; that they read back equal is tested where the decoders are.

use std::sync::Arc;

use crate::Text;
use crate::attributes::{Attributes, KeyValue, Value};
use crate::id::{SpanId, TraceId};
use crate::model::{IngestProtocol, SpanKind};
use crate::otlp::{to_json, to_protobuf};
use crate::span::{Event, Link, Resource, Scope, Span, StatusCode};
use crate::time::UnixNanos;

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: Text::from(key), value }
}

fn span(name: &str, service: &str) -> Span {
    let resource = Resource {
        attributes: Attributes(vec![attribute("service.name", Value::Str(Text::from(service)))]),
        ..Resource::default()
    };
    Span {
        trace_id: TraceId::parse("0af7651916cd43dd8448eb211c80319c").unwrap(),
        span_id: SpanId::parse("b7ad6b7169203331").unwrap(),
        parent_span_id: None,
        trace_state: Text::new(),
        flags: 0,
        name: Text::from(name),
        kind: SpanKind::Server,
        start: UnixNanos(1_760_000_000_000_000_001),
        end: UnixNanos(1_760_000_000_000_000_002),
        attributes: Attributes::default(),
        dropped_attributes_count: 0,
        events: Vec::new(),
        dropped_events_count: 0,
        links: Vec::new(),
        dropped_links_count: 0,
        status: StatusCode::Unset,
        status_message: Text::new(),
        resource: Arc::new(resource),
        scope: Arc::new(Scope::default()),
        shared: false,
        ingest: IngestProtocol::OtlpGrpc,
    }
}

/// The only span of the document.
#[track_caller]
fn json_span(span: &Span) -> serde_json::Value {
    let document: serde_json::Value = serde_json::from_str(&to_json([span])).expect("valid JSON");
    document["resourceSpans"][0]["scopeSpans"][0]["spans"][0].clone()
}

#[test]
fn a_plain_span() {
    assert_eq!(
        to_json([&span("GET /", "orders")]),
        concat!(
            r#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"orders"}}]},"#,
            r#""scopeSpans":[{"scope":{},"spans":[{"traceId":"0af7651916cd43dd8448eb211c80319c","#,
            r#""spanId":"b7ad6b7169203331","name":"GET /","kind":2,"startTimeUnixNano":"1760000000000000001","#,
            r#""endTimeUnixNano":"1760000000000000002","status":{}}]}]}]}"#
        )
    );
    assert_eq!(to_json([]), r#"{"resourceSpans":[]}"#);
    assert_eq!(to_protobuf([]), b"");
}

#[test]
fn a_full_span() {
    let everything = Attributes(vec![
        attribute("empty", Value::Empty),
        attribute("text", Value::Str(Text::from("\"\\\n\r\t\u{1}ü"))),
        attribute("flag", Value::Bool(false)),
        attribute("int", Value::Int(i64::MIN)),
        attribute("bytes", Value::Bytes(bytes::Bytes::from_static(b"\x00\xffa"))),
        attribute("list", Value::Array(vec![Value::Int(1), Value::Empty])),
        attribute("map", Value::Map(vec![attribute("k", Value::Double(0.5))])),
    ]);
    let full = Span {
        parent_span_id: SpanId::parse("01"),
        trace_state: Text::from("a=b"),
        flags: 0x301,
        attributes: everything,
        dropped_attributes_count: 1,
        events: vec![Event {
            time: UnixNanos(7),
            name: Text::from("sent"),
            attributes: Attributes::default(),
            dropped_attributes_count: 4,
        }],
        dropped_events_count: 2,
        links: vec![Link {
            trace_id: TraceId::parse("2"),
            span_id: None,
            trace_state: Text::new(),
            attributes: Attributes::default(),
            dropped_attributes_count: 0,
            flags: 1,
        }],
        dropped_links_count: 3,
        status: StatusCode::Error,
        status_message: Text::from("why"),
        shared: true,
        ..span("x", "y")
    };
    let expect = serde_json::json!({
        "traceId": "0af7651916cd43dd8448eb211c80319c", "spanId": "b7ad6b7169203331",
        "parentSpanId": "0000000000000001", "traceState": "a=b", "flags": 0x301, "name": "x", "kind": 2,
        "startTimeUnixNano": "1760000000000000001", "endTimeUnixNano": "1760000000000000002",
        "attributes": [
            {"key": "empty", "value": {}},
            {"key": "text", "value": {"stringValue": "\"\\\n\r\t\u{1}ü"}},
            {"key": "flag", "value": {"boolValue": false}},
            {"key": "int", "value": {"intValue": "-9223372036854775808"}},
            {"key": "bytes", "value": {"bytesValue": "AP9h"}},
            {"key": "list", "value": {"arrayValue": {"values": [{"intValue": "1"}, {}]}}},
            {"key": "map", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"doubleValue": 0.5}}]}}},
            {"key": "zipkin.shared", "value": {"boolValue": true}},
        ],
        "droppedAttributesCount": 1,
        "events": [{"timeUnixNano": "7", "name": "sent", "droppedAttributesCount": 4}],
        "droppedEventsCount": 2,
        "links": [{"traceId": "00000000000000000000000000000002", "flags": 1}],
        "droppedLinksCount": 3,
        "status": {"message": "why", "code": 2},
    });
    assert_eq!(json_span(&full), expect);
}

#[test]
fn numbers_json_cannot_write() {
    for (number, expect) in [
        (f64::NAN, "\"NaN\""),
        (f64::INFINITY, "\"Infinity\""),
        (f64::NEG_INFINITY, "\"-Infinity\""),
        (1e300, "1e300"),
        (-0.0, "-0.0"),
        (f64::MAX, "1.7976931348623157e308"),
    ] {
        let attributes = Attributes(vec![attribute("n", Value::Double(number))]);
        let document = to_json([&Span { attributes, ..span("x", "y") }]);
        assert!(document.contains(&format!("{{\"doubleValue\":{expect}}}")), "{document}");
    }
}

#[test]
fn base64_of_every_remainder() {
    for (bytes, expect) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg==")] {
        let value = Value::Bytes(bytes::Bytes::from_static(bytes.as_bytes()));
        let attributes = Attributes(vec![attribute("b", value)]);
        let document = json_span(&Span { attributes, ..span("x", "y") });
        assert_eq!(document["attributes"][0]["value"]["bytesValue"], expect);
    }
}

#[test]
fn spans_are_grouped_by_equal_resources() {
    let scoped = Span { scope: Arc::new(Scope { name: Text::from("s"), ..Scope::default() }), ..span("4", "a") };
    let spans = [span("1", "a"), span("2", "b"), span("3", "a"), scoped];
    let document: serde_json::Value = serde_json::from_str(&to_json(&spans)).unwrap();
    let groups = document["resourceSpans"].as_array().unwrap();
    let names = |scope: &serde_json::Value| {
        scope["spans"].as_array().unwrap().iter().map(|span| span["name"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(groups.len(), 2);
    assert_eq!(names(&groups[0]["scopeSpans"][0]), ["1", "3"]);
    assert_eq!(names(&groups[0]["scopeSpans"][1]), ["4"]);
    assert_eq!(names(&groups[1]["scopeSpans"][0]), ["2"]);
}
