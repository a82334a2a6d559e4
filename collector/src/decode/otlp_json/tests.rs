//! Equality with the protobuf decoder on conforming documents, a table of everything else.

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use proptest::prelude::*;
use prost::Message as _;
use windrose_proto::attributes::{KeyValue, Value};
use windrose_proto::model::SpanKind;
use windrose_proto::reject::RejectReason;
use windrose_proto::span::{Span, StatusCode};
use windrose_proto::{Text, limits, otlp};

use super::decode_otlp_json;
use crate::decode::arbitrary::{ORIGIN, request};
use crate::decode::{DecodeError, Decoded, decode_otlp_protobuf};

fn decode(document: &str) -> Result<Decoded, DecodeError> {
    decode_otlp_json(&Bytes::copy_from_slice(document.as_bytes()), ORIGIN)
}

fn comparable(spans: &[Span]) -> Vec<String> {
    let mut spans: Vec<String> = spans.iter().map(|span| format!("{span:?}")).collect();
    spans.sort();
    spans
}

fn spans_of(request: &ExportTraceServiceRequest) -> Vec<Span> {
    decode_otlp_protobuf(&Bytes::from(request.encode_to_vec()), ORIGIN).unwrap().spans
}

proptest! {
    #[test]
    fn written_spans_read_back_equal(request in request(), shared in any::<bool>()) {
        let mut spans = spans_of(&request);
        spans.iter_mut().for_each(|span| span.shared = shared);
        let decoded = decode(&otlp::to_json(&spans)).unwrap();
        prop_assert!(decoded.rejected.is_empty());
        prop_assert_eq!(comparable(&decoded.spans), comparable(&spans));
    }

    #[test]
    fn documents_of_the_reference_types_read_equal(request in request()) {
        // Only what these types write themselves: their reader knows no NaN.
        let document = serde_json::to_string(&request).unwrap();
        prop_assume!(serde_json::from_str::<ExportTraceServiceRequest>(&document).is_ok_and(|read| read == request));
        prop_assert_eq!(comparable(&decode(&document).unwrap().spans), comparable(&spans_of(&request)));
    }

    #[test]
    fn written_documents_are_read_by_the_reference_types(request in request()) {
        let spans = spans_of(&request);
        let document = otlp::to_json(&spans);
        // Their reader has no words for numbers that are none, and needs a value where OTLP does not.
        prop_assume!(!document.contains("\"NaN\"") && !document.contains("Infinity\""));
        prop_assume!(!["\"value\":{}", "[{}", ",{}"].iter().any(|empty| document.contains(empty)));
        let read: ExportTraceServiceRequest = serde_json::from_str(&document).unwrap();
        prop_assert_eq!(comparable(&spans_of(&read)), comparable(&spans));
    }

    #[test]
    fn damaged_documents_never_panic(
        request in request(),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut document = otlp::to_json(&spans_of(&request)).into_bytes();
        let at = at.index(document.len());
        document[at] = with;
        let cut = document[..keep.index(document.len())].to_vec();
        for document in [document, cut] {
            if let Ok(decoded) = decode_otlp_json(&Bytes::from(document), ORIGIN) {
                prop_assert!(decoded.memory_bytes <= limits::DECODED_MAX_BYTES);
            }
        }
    }
}

/// A document of one span with the given members added.
fn document(members: &str) -> String {
    format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{"traceId":"0af7651916cd43dd8448eb211c80319c",
        "spanId":"b7ad6b7169203331","name":"n","startTimeUnixNano":"1","endTimeUnixNano":"2"{members}}}]}}]}}]}}"#
    )
}

/// The span of [`document`].
#[track_caller]
fn span(members: &str) -> Span {
    let decoded = decode(&document(members)).unwrap();
    assert!(decoded.rejected.is_empty(), "{}", decoded.rejected.summary());
    decoded.spans.into_iter().next().unwrap()
}

#[track_caller]
fn check_value(json: &str, expect: Value) {
    let span = span(&format!(r#","attributes":[{{"key":"k","value":{json}}}]"#));
    assert_eq!(span.attributes.0, vec![KeyValue { key: Text::from_static("k"), value: expect }], "{json}");
}

#[test]
fn attribute_values_in_any_spelling() {
    let text = |text: &'static str| Value::Str(Text::from_static(text));
    check_value("{}", Value::Empty);
    check_value("null", Value::Empty);
    check_value(r#"{"stringValue":null}"#, Value::Empty);
    check_value(r#"{"stringValue":"x"}"#, text("x"));
    check_value(r#"{"string_value":"x"}"#, text("x"));
    check_value(r#"{"stringValue":5}"#, text("5"));
    check_value(r#"{"stringValue":null,"intValue":"5"}"#, Value::Int(5));
    check_value(r#"{"intValue":"-9223372036854775808"}"#, Value::Int(i64::MIN));
    check_value(r#"{"intValue":5}"#, Value::Int(5));
    check_value(r#"{"intValue":5.0}"#, Value::Int(5));
    check_value(r#"{"boolValue":true}"#, Value::Bool(true));
    check_value(r#"{"boolValue":"true"}"#, Value::Bool(true));
    check_value(r#"{"doubleValue":0.5}"#, Value::Double(0.5));
    check_value(r#"{"doubleValue":"0.5"}"#, Value::Double(0.5));
    check_value(r#"{"doubleValue":1}"#, Value::Double(1.0));
    check_value(r#"{"doubleValue":"-Infinity"}"#, Value::Double(f64::NEG_INFINITY));
    check_value(r#"{"bytesValue":"AP9h"}"#, Value::Bytes(Bytes::from_static(b"\x00\xffa")));
    check_value(r#"{"bytesValue":"_-8"}"#, Value::Bytes(Bytes::from_static(b"\xff\xef")));
    check_value(r#"{"arrayValue":{}}"#, Value::Array(vec![]));
    check_value(r#"{"arrayValue":{"values":[{"intValue":"1"},{}]}}"#, Value::Array(vec![Value::Int(1), Value::Empty]));
    check_value(r#"{"arrayValue":[1]}"#, Value::Array(vec![Value::Int(1)]));
    let entry = KeyValue { key: Text::from_static("a"), value: Value::Int(1) };
    check_value(r#"{"kvlistValue":{"values":[{"key":"a","value":{"intValue":1}}]}}"#, Value::Map(vec![entry]));
    // Bare values.
    check_value(r#""x""#, text("x"));
    check_value("5", Value::Int(5));
    check_value("5.5", Value::Double(5.5));
    check_value("true", Value::Bool(true));
    check_value(r#"["x"]"#, Value::Array(vec![text("x")]));
}

#[test]
fn long_values_are_cut() {
    let max = limits::ATTRIBUTE_VALUE_MAX_BYTES;
    let text = "x".repeat(max + 1);
    let base64 = "AAAA".repeat(max);
    let span = span(&format!(
        r#","attributes":[{{"key":"t","value":{{"stringValue":"{text}"}}}},{{"key":"b","value":{{"bytesValue":"{base64}"}}}}]"#
    ));
    assert_eq!(span.attributes.text("t").unwrap().len(), max);
    assert_eq!(span.attributes.get("b"), Some(&Value::Bytes(Bytes::from(vec![0; max]))));
}

#[test]
fn attributes_as_one_object() {
    let span = span(r#","attributes":{"a":"x","b":{"intValue":"5"}}"#);
    assert_eq!(span.attributes.get("a").and_then(Value::as_str), Some("x"));
    assert_eq!(span.attributes.get("b"), Some(&Value::Int(5)));
}

#[test]
fn ids_in_any_spelling() {
    for (spelling, expect) in [
        ("0AF7651916CD43DD8448EB211C80319C", "0af7651916cd43dd8448eb211c80319c"),
        ("f7651916cd43dd8448eb211c80319c", "00f7651916cd43dd8448eb211c80319c"),
        ("8448eb211c80319c", "00000000000000008448eb211c80319c"),
        ("CvdlGRbNQ92ESOshHIAxnA==", "0af7651916cd43dd8448eb211c80319c"),
        ("1-0af76519-16cd43dd8448eb211c80319c", "0af7651916cd43dd8448eb211c80319c"),
    ] {
        assert_eq!(span(&format!(r#","traceId":"{spelling}""#)).trace_id.to_string(), expect, "{spelling}");
    }
    for absent in ["null", "\"\"", "\"0000000000000000\"", "\"AAAAAAAAAAA=\""] {
        assert_eq!(span(&format!(r#","parentSpanId":{absent}"#)).parent_span_id, None, "{absent}");
    }
    assert_eq!(span(r#","parentSpanId":"t61rcWkgMzE=""#).parent_span_id.unwrap().to_string(), "b7ad6b7169203331");
}

#[test]
fn enums_by_name_or_number() {
    for (spelling, expect) in [
        ("2", SpanKind::Server),
        ("\"2\"", SpanKind::Server),
        ("\"SPAN_KIND_SERVER\"", SpanKind::Server),
        ("\"Client\"", SpanKind::Client),
        ("null", SpanKind::Unspecified),
        ("\"SPAN_KIND_NEW\"", SpanKind::Unspecified),
        ("99", SpanKind::Unspecified),
    ] {
        assert_eq!(span(&format!(r#","kind":{spelling}"#)).kind, expect, "{spelling}");
    }
    for (spelling, expect) in [
        ("{\"code\":2}", StatusCode::Error),
        ("{\"code\":\"STATUS_CODE_ERROR\"}", StatusCode::Error),
        ("{\"code\":\"Ok\"}", StatusCode::Ok),
        ("{}", StatusCode::Unset),
        ("null", StatusCode::Unset),
    ] {
        assert_eq!(span(&format!(r#","status":{spelling}"#)).status, expect, "{spelling}");
    }
}

#[test]
fn older_and_snake_case_names() {
    for document in [
        r#"{"resource_spans":[{"schema_url":"u","scope_spans":[{"spans":[SPAN],"scope":{"name":"s"}}],"resource":RES}]}"#,
        r#"{"batches":[{"resource":RES,"schemaUrl":"u","instrumentationLibrarySpans":[{"instrumentationLibrary":{"name":"s"},"spans":[SPAN]}]}]}"#,
    ] {
        let document = document
            .replace("SPAN", r#"{"trace_id":"1","span_id":"2","start_time_unix_nano":5,"end_time_unix_nano":"6"}"#)
            .replace("RES", r#"{"attributes":[{"key":"service.name","value":{"stringValue":"orders"}}]}"#);
        let decoded = decode(&document).unwrap();
        let span = &decoded.spans[0];
        assert_eq!(&**span.resource.attributes.text("service.name").unwrap(), "orders");
        assert_eq!((&*span.resource.schema_url, &*span.scope.name), ("u", "s"));
        assert_eq!((span.start.0, span.end.0), (5, 6));
    }
}

#[test]
fn events_and_links() {
    let span = span(
        r#","events":[{"timeUnixNano":"7","name":"e","attributes":[{"key":"a","value":{"intValue":1}}]},null],
        "links":[{"traceId":"1","spanId":"2","flags":257}],"unknown":[{"x":[]}],"flags":"769""#,
    );
    assert_eq!((span.events.len(), span.events[0].time.0, &*span.events[0].name), (2, 7, "e"));
    assert_eq!(span.links[0].trace_id.unwrap().low64(), 1);
    assert_eq!((span.links[0].flags, span.flags), (257, 769));
}

#[track_caller]
fn check_refused(members: &str, reason: RejectReason) {
    let bad = document(members);
    let from = bad.find("{\"traceId\"").unwrap();
    let to = bad.rfind("}]}]}]}").unwrap() + 1;
    let good = r#"{"traceId":"1","spanId":"2","startTimeUnixNano":1,"endTimeUnixNano":2}"#;
    let all = format!("{}{good},{},{good}{}", &bad[..from], &bad[from..to], &bad[to..]);
    let decoded = decode(&all).unwrap();
    assert_eq!(decoded.spans.len(), 2, "the good spans are kept");
    assert_eq!(decoded.rejected.iter().collect::<Vec<_>>(), vec![(reason, 1)]);
}

#[test]
fn a_bad_span_is_refused_alone() {
    check_refused(r#","traceId":"xyz""#, RejectReason::BadTraceId);
    check_refused(r#","traceId":"00000000000000000000000000000000""#, RejectReason::BadTraceId);
    check_refused(r#","traceId":{}"#, RejectReason::BadSpan);
    check_refused(r#","spanId":null"#, RejectReason::BadSpanId);
    check_refused(r#","parentSpanId":"not an id""#, RejectReason::BadSpanId);
    check_refused(r#","startTimeUnixNano":null"#, RejectReason::BadTime);
    check_refused(r#","endTimeUnixNano":"18446744073709551615""#, RejectReason::BadTime);
    check_refused(r#","endTimeUnixNano":"soon""#, RejectReason::BadSpan);
    check_refused(r#","attributes":"x""#, RejectReason::BadSpan);
    check_refused(r#","events":[{"attributes":[[{"a":[1,2]}]]}]"#, RejectReason::BadSpan);
    check_refused(r#","attributes":[{"key":"k","value":{"bytesValue":"%"}}]"#, RejectReason::BadSpan);
    let deep = format!("{}{}", "[".repeat(limits::VALUE_DEPTH_MAX + 1), "]".repeat(limits::VALUE_DEPTH_MAX + 1));
    check_refused(&format!(r#","attributes":[{{"key":"k","value":{deep}}}]"#), RejectReason::BadSpan);
}

#[track_caller]
fn check_broken(document: &str, expect: &str) {
    let error = decode(document).unwrap_err();
    assert_eq!(error.message, format!("not an OTLP/JSON ExportTraceServiceRequest: {expect}"));
    assert_eq!(error.reason, RejectReason::BadBody);
}

#[test]
fn what_is_not_otlp_json_is_named() {
    check_broken("", "the document ends too early at byte 0");
    check_broken("[]", "an object expected at byte 0");
    check_broken(r#"{"resourceSpans":{}}"#, "an array expected at byte 17");
    check_broken(r#"{"resourceSpans":[]"#, "the document ends too early at byte 19");
    check_broken("{} {}", "something follows the document at byte 3");
    check_broken(r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"x]}]}]}"#, "a string does not end at byte 51");
    assert_eq!(decode("{}").unwrap().spans.len(), 0);
}
