//! Tables of the mapping and of the tolerances.

use bytes::Bytes;
use proptest::prelude::*;
use windrose_proto::attributes::Value;
use windrose_proto::limits;
use windrose_proto::model::{IngestProtocol, SpanKind};
use windrose_proto::reject::RejectReason;
use windrose_proto::span::{Span, StatusCode};
use windrose_proto::time::UnixNanos;

use super::decode_zipkin_json;
use crate::decode::{DecodeError, Decoded, Origin};

const ORIGIN: Origin = Origin { ingest: IngestProtocol::Zipkin, arrived: UnixNanos(1_760_000_000_000_000_000) };

fn decode(document: &str) -> Result<Decoded, DecodeError> {
    decode_zipkin_json(&Bytes::copy_from_slice(document.as_bytes()), ORIGIN)
}

/// A span with the given members added.
#[track_caller]
fn span(members: &str) -> Span {
    let decoded = decode(&format!(r#"[{{"traceId":"1","id":"2","timestamp":5,"duration":2{members}}}]"#)).unwrap();
    assert!(decoded.rejected.is_empty(), "{}", decoded.rejected.summary());
    decoded.spans.into_iter().next().unwrap()
}

const ENVOY: &str = r#"[{"traceId":"5af7183fb1d4cf5f","parentId":"6b221d5bc9e6496c","id":"352bff9a74ca9ad2",
    "kind":"CLIENT","name":"get /api","timestamp":1556604172355737,"duration":1431,
    "localEndpoint":{"serviceName":"backend","ipv4":"192.168.99.1","port":3306},
    "remoteEndpoint":{"serviceName":"db","ipv6":"::1","port":58648},
    "tags":{"http.method":"GET","http.status_code":"503","error":"overflow"},
    "annotations":[{"timestamp":1556604172355800,"value":"ws"}],"shared":true,"debug":true}]"#;

#[test]
fn every_member_has_its_place() {
    let decoded = decode(ENVOY).unwrap();
    let span = &decoded.spans[0];
    assert_eq!(span.trace_id.to_string(), "00000000000000005af7183fb1d4cf5f");
    assert_eq!(span.span_id.to_string(), "352bff9a74ca9ad2");
    assert_eq!(span.parent_span_id.unwrap().to_string(), "6b221d5bc9e6496c");
    assert_eq!((span.kind, &*span.name), (SpanKind::Client, "get /api"));
    assert_eq!((span.start.0, span.end.0), (1_556_604_172_355_737_000, 1_556_604_172_357_168_000));
    assert_eq!(&**span.resource.attributes.text("service.name").unwrap(), "backend");
    assert_eq!(&**span.resource.attributes.text("host.ip").unwrap(), "192.168.99.1");
    assert_eq!(&**span.attributes.text("zipkin.remote.name").unwrap(), "db");
    assert_eq!(&**span.attributes.text("zipkin.remote.ip").unwrap(), "::1");
    assert_eq!(span.attributes.get("zipkin.remote.port"), Some(&Value::Int(58_648)));
    assert_eq!(span.attributes.get("zipkin.debug"), Some(&Value::Bool(true)));
    assert_eq!(&**span.attributes.text("http.status_code").unwrap(), "503");
    assert_eq!((span.status, &*span.status_message), (StatusCode::Error, "overflow"));
    assert_eq!((span.events[0].time.0, &*span.events[0].name), (1_556_604_172_355_800_000, "ws"));
    assert!(span.shared);
    assert_eq!(span.ingest, IngestProtocol::Zipkin);
}

#[test]
fn one_span_needs_no_list() {
    let alone = ENVOY.trim_start_matches('[').trim_end_matches(']');
    assert_eq!(decode(alone).unwrap().spans, decode(ENVOY).unwrap().spans);
}

#[test]
fn spans_of_one_endpoint_share_their_resource() {
    let one = r#"{"traceId":"1","id":"2","timestamp":5,"localEndpoint":{"serviceName":"a"}}"#;
    let other = r#"{"traceId":"1","id":"2","timestamp":5,"localEndpoint":{"serviceName":"b"}}"#;
    let spans = decode(&format!("[{one},{other},{one}]")).unwrap().spans;
    assert!(std::sync::Arc::ptr_eq(&spans[0].resource, &spans[2].resource));
    assert_ne!(spans[0].resource, spans[1].resource);
}

#[test]
fn times_in_any_spelling() {
    for (members, expect) in [
        ("", (5_000, 7_000)),
        (r#","timestamp":"5""#, (5_000, 7_000)),
        (
            r#","timestamp":1.556604172355737E15,"duration":null"#,
            (1_556_604_172_355_737_000, 1_556_604_172_355_737_000),
        ),
        (r#","timestamp":null,"annotations":[{"timestamp":9},{"timestamp":8}]"#, (8_000, 10_000)),
    ] {
        let span = span(members);
        assert_eq!((span.start.0, span.end.0), expect, "{members}");
    }
}

#[test]
fn members_that_are_null_or_empty_or_odd() {
    let span = span(
        r#","parentId":null,"name":null,"kind":null,"localEndpoint":null,"remoteEndpoint":{},"annotations":null,
        "tags":{"n":5,"b":true,"none":null,"list":[1, 2],"error":"true"},"shared":null,"debug":false,"new":{"a":[]}"#,
    );
    assert_eq!((span.parent_span_id, &*span.name, span.kind), (None, "", SpanKind::Unspecified));
    assert!(span.resource.attributes.is_empty());
    let tags: Vec<_> = span.attributes.iter().map(|tag| (&*tag.key, tag.value.as_str().unwrap())).collect();
    assert_eq!(tags, [("n", "5"), ("b", "true"), ("none", ""), ("list", "[1, 2]"), ("error", "true")]);
    assert_eq!((span.status, &*span.status_message), (StatusCode::Error, ""));
    assert!(!span.shared);
}

#[track_caller]
fn check_refused(bad: &str, reason: RejectReason) {
    let good = r#"{"traceId":"1","id":"2","timestamp":5}"#;
    let decoded = decode(&format!("[{good},{bad},{good}]")).unwrap();
    assert_eq!(decoded.spans.len(), 2, "the good spans are kept");
    assert_eq!(decoded.rejected.iter().collect::<Vec<_>>(), vec![(reason, 1)]);
}

#[test]
fn a_bad_span_is_refused_alone() {
    check_refused("{}", RejectReason::BadTraceId);
    check_refused("null", RejectReason::BadTraceId);
    check_refused("[]", RejectReason::BadSpan);
    check_refused(r#"{"traceId":"g","id":"2","timestamp":5}"#, RejectReason::BadTraceId);
    check_refused(r#"{"traceId":"1","id":"","timestamp":5}"#, RejectReason::BadSpanId);
    check_refused(r#"{"traceId":"1","id":"2","parentId":"zz","timestamp":5}"#, RejectReason::BadSpanId);
    check_refused(r#"{"traceId":"1","id":"2"}"#, RejectReason::BadTime);
    check_refused(r#"{"traceId":"1","id":"2","timestamp":18446744073709551615}"#, RejectReason::BadTime);
    check_refused(r#"{"traceId":"1","id":"2","timestamp":5,"tags":[{"k":"v"}]}"#, RejectReason::BadSpan);
}

#[test]
fn what_is_not_a_span_list_is_named() {
    for (document, expect) in [
        ("", "the document ends too early at byte 0"),
        ("5", "an array expected at byte 0"),
        ("[{]", "a name expected at byte 2"),
        ("[] []", "something follows the document at byte 3"),
    ] {
        let error = decode(document).unwrap_err();
        assert_eq!(error.message, format!("not a list of Zipkin v2 spans in JSON: {expect}"));
        assert_eq!(error.reason, RejectReason::BadBody);
    }
    assert_eq!(decode("[]").unwrap().spans.len(), 0);
}

proptest! {
    #[test]
    fn damaged_documents_never_panic(
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut document = ENVOY.as_bytes().to_vec();
        let at = at.index(document.len());
        document[at] = with;
        let cut = document[..keep.index(document.len())].to_vec();
        for document in [document, cut] {
            if let Ok(decoded) = decode_zipkin_json(&Bytes::from(document), ORIGIN) {
                prop_assert!(decoded.memory_bytes <= limits::DECODED_MAX_BYTES);
            }
        }
    }
}
